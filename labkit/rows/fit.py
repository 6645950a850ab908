"""What becomes of a row on a machine: made concrete, or refused with what it would need."""

from __future__ import annotations

from labkit.rows.spec import Spec
from labkit.system.machine import Machine


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
    if backend == "auto" and spec.kind.backends:
        carries_cuda = "nccl" in spec.kind.backends and not spec.share_device
        backend = "nccl" if device == "cuda" and carries_cuda else "gloo"
    if device == "cuda" and backend == "gloo" and (not spec.kind.gloo_carries_cuda or spec.micro_batches > 1):
        what = f"micro_batches={spec.micro_batches}" if spec.kind.gloo_carries_cuda else spec.strategy
        raise Needs(
            f"{what} on CUDA needs NCCL: torch hands gloo the device's own memory there, and ranks die of it; leave share_device and "
            "backend out, or use device=cpu"
        )
    threads = spec.threads_per_rank or max(1, machine.cores // ranks_here)
    return spec.but(device=device, backend=backend, threads_per_rank=threads)


def process_group(spec: Spec) -> str:
    """The backend string for torch: NCCL for CUDA tensors goes together with gloo for the few numbers in host memory."""
    if spec.kind.one_process:
        return ""
    return "cpu:gloo,cuda:nccl" if spec.backend == "nccl" else "gloo"
