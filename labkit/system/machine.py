"""What this machine is, and what becomes of a row on it: made concrete, or refused with what it would need."""

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

VERSION = "0.1.0"  # of labkit; pyproject.toml reads it here, so that a checkout that was never installed has one, too
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """The facts that a measurement depends on. `cuda`: the name of each CUDA device. `bf16`: does the processor compute with bf16
    itself? None: it does not say."""

    cpu: str
    cores: int
    memory_gib: int
    cuda: tuple[str, ...]
    system: str
    bf16: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"cuda": list(self.cuda)}


@functools.cache
def this_machine() -> Machine:
    import psutil

    return Machine(
        cpu=_cpu_name(),
        cores=available_cores(),
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        cuda=_cuda_names(),
        system=f"{platform.system()} {platform.machine()}",
        bf16=computes_in_bf16(),
    )


def available_cores() -> int:
    """Cores that this process may use, which a container or a batch system may have cut down."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_limit(name: str, read: Callable[..., float]) -> float | None:
    """A number that a container's control group sets; None where there is no limit ("max") or no such file."""
    try:
        return read(*(CGROUP / name).read_text(encoding="utf-8").split())
    except (OSError, ValueError, TypeError):
        return None


def loopback() -> str:
    """The name of the network interface that leads nowhere else."""
    return "lo0" if sys.platform == "darwin" else "lo"


def _cpuinfo(*keys: str) -> str:
    """What Linux tells under the first of these keys that it has, of the first core; nothing elsewhere."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    return next((value.strip() for key, _, value in lines if key.strip() in keys), "")


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def computes_in_bf16() -> bool | None:
    """Has the processor arithmetic for bf16? By the names that Linux has for such instructions, on x86 and on Arm."""
    flags = _cpuinfo("flags", "Features").split()
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags)) if flags else None


def _cuda_names() -> tuple[str, ...]:
    """The devices that torch sees. Where no driver is installed there are none, and no seconds go into importing torch to hear so."""
    if "rocm" not in version("torch"):  # torch for AMD's devices calls them CUDA, too, and has another driver
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return ()
    import torch

    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))


def versions() -> dict[str, str]:
    found = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    return {"python": platform.python_version(), **found, "labkit": VERSION}
