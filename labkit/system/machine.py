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

import labkit
from labkit.rows.spec import Spec

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
        return read(*(CGROUP / name).read_text().split())
    except (OSError, ValueError, TypeError):
        return None


def loopback() -> str:
    """The name of the network interface that leads nowhere else."""
    return "lo0" if sys.platform == "darwin" else "lo"


def _cpuinfo(*keys: str) -> str:
    """What Linux tells under the first of these keys that it has, of the first core; nothing elsewhere."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
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
    return {"python": platform.python_version(), **found, "labkit": labkit.__version__}


class Needs(Exception):
    """A row that this machine cannot run. `instead`: the row that it runs in its place, which has another name."""

    def __init__(self, reason: str, instead: Spec | None = None):
        super().__init__(reason)
        self.reason, self.instead = reason, instead


def fit(spec: Spec, machine: Machine, ranks_here: int | None = None) -> Spec:
    """The Spec with every `auto` and 0 made concrete for this machine. Raises Needs where it cannot run.

    `ranks_here`: how many of the ranks this machine gets, if not all. A row never changes its meaning here: what NCCL would
    carry is not run on gloo under the NCCL name, but offered as the gloo row (`Needs.instead`).
    """
    device = spec.device if spec.device != "auto" else "cuda" if machine.cuda else "cpu"
    if device == "cpu" and spec.backend == "nccl":
        twin = fit(spec.but(backend="gloo"), machine)
        why = "device=cpu was set" if machine.cuda else "this machine has none"
        raise Needs(f"needs CUDA, {why}; see {twin.name}", twin)
    if device == "cuda" and not machine.cuda:
        raise Needs("needs CUDA, this machine has none; device=cpu runs the row on the CPU")
    if spec.server_device == "cuda" and not machine.cuda:
        raise Needs("needs CUDA for its server, this machine has none")
    ranks_here = ranks_here or spec.world_size
    devices = 1 if spec.share_device else ranks_here
    if device == "cuda" and len(machine.cuda) < devices:
        remedy = "device=cpu runs the row on the CPU" if spec.backend != "nccl" else "its gloo row runs with device=cpu"
        raise Needs(f"needs {devices} CUDA devices, this machine has {len(machine.cuda)}; {remedy}")
    backend = spec.backend
    if backend == "auto" and spec.strategy not in ("single", "data_parallel"):
        carries_cuda = spec.strategy != "parameter_server" and not spec.share_device
        backend = "nccl" if device == "cuda" and carries_cuda else "gloo"
    if device == "cuda" and backend == "gloo" and (spec.strategy == "fsdp" or spec.micro_batches > 1):
        what = "fsdp" if spec.strategy == "fsdp" else f"micro_batches={spec.micro_batches}"
        raise Needs(
            f"{what} on CUDA needs NCCL: torch hands gloo the device's own memory there, and ranks die of it; leave share_device and "
            "backend out, or use device=cpu"
        )
    threads = spec.threads_per_rank or max(1, machine.cores // ranks_here)
    return spec.but(device=device, backend=backend, threads_per_rank=threads)


def process_group(spec: Spec) -> str:
    """The backend string for torch: NCCL for CUDA tensors goes together with gloo for the few numbers in host memory."""
    if spec.strategy in ("single", "data_parallel"):
        return ""
    return "cpu:gloo,cuda:nccl" if spec.backend == "nccl" else "gloo"
