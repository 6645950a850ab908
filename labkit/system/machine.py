"""What this machine is: processor, cores, memory, devices, versions. Knows nothing of rows (rows/fit.py does)."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

VERSION = "0.1.0"  # of labkit; pyproject.toml reads it from here, so that a checkout that was never installed has a version
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """The facts that a measurement depends on. `cores`: those that this process may use. `cuda`: the name of each CUDA device.
    `bf16`: does the processor have instructions for bf16? None: unknown."""

    cpu: str
    cores: int
    memory_gib: int
    cuda: tuple[str, ...]
    system: str
    bf16: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """The facts as plain data, ready for JSON."""
        return asdict(self) | {"cuda": list(self.cuda)}


@functools.cache
def this_machine() -> Machine:
    """The facts of this machine. They are found out once."""
    return Machine(
        cpu=_cpu_name(),
        cores=available_cores(),
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        cuda=_cuda_names(),
        system=f"{platform.system()} {platform.machine()}",
        bf16=computes_in_bf16(),
    )


def available_cores() -> int:
    """Cores that this process may use. A container or a batch system may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_limit(name: str, read: Callable[..., float]) -> float | None:
    """A limit from a file of the control group (cgroup) of a container. `read` turns the words of the file into a number. None if
    there is no limit ("max") or no such file."""
    try:
        return read(*(CGROUP / name).read_text(encoding="utf-8").split())
    except (OSError, ValueError, TypeError):
        return None


def loopback() -> str:
    """The name of the network interface that connects this machine with itself only."""
    return "lo0" if sys.platform == "darwin" else "lo"


def _cpuinfo(*keys: str) -> str:
    """A line of Linux's /proc/cpuinfo about the first core: the value of the first of these keys that it has; "" if there is
    none, and on other systems."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    return next((value.strip() for key, _, value in lines if key.strip() in keys), "")


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def computes_in_bf16() -> bool | None:
    """Does the processor have instructions for bf16? Linux has names for them on x86 and on Arm. None on other systems."""
    flags = _cpuinfo("flags", "Features").split()
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags)) if flags else None


def _cuda_names() -> tuple[str, ...]:
    """The names of the devices that torch finds. Importing torch takes seconds, so it is imported only if a driver is there."""
    if "rocm" not in version("torch"):  # torch for AMD's devices calls them CUDA as well, and uses another driver
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return ()
    import torch  # late: keeps torch out of a process that does not need it

    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))


def versions() -> dict[str, str]:
    """The versions of Python, labkit, and the libraries that decide what a run computes."""
    found = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    return {"python": platform.python_version(), **found, "labkit": VERSION}
