"""What this machine is: processor, cores, memory, devices, versions; and what others do with its cores meanwhile: other programs,
and other guests of the same host (stolen time). Knows nothing of rows (rows/fit.py does)."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

VERSION = "0.1.0"  # of labkit; pyproject.toml reads it from here, so that a checkout that was never installed has a version
CGROUP = Path("/sys/fs/cgroup")
LOOK_S = 0.1  # the system counts used time in hundredths of a second
BUSY = 0.10  # of the cores that a run needs: what others may take of them before a run counts as one on a busy machine


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


@dataclass(frozen=True)
class Taken:
    """Cores that others took, on average over a while. `stolen_cores` of them by other guests of the host."""

    cores: float
    stolen_cores: float


class Watch:
    """Counts what others take from now on. Our own programs are process `root` (0: this one) and all that it started, directly or
    not."""

    def __init__(self, root: int = 0) -> None:
        self.root = root or os.getpid()
        self.began, self.busy_s, self.stolen_s, self.own_s = time.monotonic(), *counters(), cpu_s_of(self.root)

    def taken(self) -> Taken:
        """What others took since the watch began."""
        wall_s = max(time.monotonic() - self.began, 1e-3)
        busy_s, stolen_s = counters()
        stolen = max(0.0, stolen_s - self.stolen_s) / wall_s
        others = max(0.0, busy_s - self.busy_s - (cpu_s_of(self.root) - self.own_s)) / wall_s
        return Taken(others + stolen, stolen)


def taken_now() -> Taken:
    """What others take in the next tenth of a second."""
    watch = Watch()
    time.sleep(LOOK_S)
    return watch.taken()


def counters() -> tuple[float, float]:
    """Seconds since the system started, of all cores together: (used by any program, stolen by other guests)."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    stolen = getattr(times, "steal", 0.0)
    twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # Linux counts them as user and nice, too
    return sum(times) - idle - stolen - twice, stolen


def cpu_s_of(root: int) -> float:
    """Seconds that a process, and all processes that it started, have computed, ended ones included."""
    seconds = 0.0
    try:
        here = psutil.Process(root)
        family = [here, *here.children(recursive=True)]
    except psutil.Error:
        return seconds
    for process in family:
        try:
            times = process.cpu_times()
        except psutil.Error:  # it has just ended, and its parent will tell what it used
            continue
        seconds += times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return seconds


def busy(taken_cores: float, needed_cores: float, cores: int) -> bool:
    """Did others take so much that a run which needs `needed_cores` of a machine's `cores` had to share them?"""
    return taken_cores > max(0.0, cores - needed_cores) + BUSY * min(needed_cores, cores)
