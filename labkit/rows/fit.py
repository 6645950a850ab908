"""A row on a machine: every `auto` becomes a value, or the row is refused, with what it needs."""

from labkit.rows.spec import Spec
from labkit.system.machine import Machine


class Needs(Exception):
    """This machine cannot run a row. `reason`: what the row needs. `instead`: the row, with another name, that this machine can
    run in its place; None if there is none."""

    def __init__(self, reason: str, instead: Spec | None = None):
        super().__init__(reason)
        self.reason, self.instead = reason, instead


def fit(spec: Spec, machine: Machine, ranks_here: int | None = None) -> Spec:
    """The Spec with a value of this machine for every `auto`, and for 0 threads. Raises Needs if the row cannot run here.

    `ranks_here`: how many of the ranks run on this machine; None: all. The meaning of a row never changes here: a row of
    NCCL is not run on gloo under its NCCL name. `Needs.instead` offers the gloo row, which has its own name."""
    device = spec.device
    if device == "auto":
        device = "cuda" if machine.cuda else "cpu"
    if device == "cpu" and spec.backend == "nccl":
        gloo_row = fit(spec.but(backend="gloo"), machine)
        why = "device=cpu was set" if machine.cuda else "this machine has none"
        raise Needs(f"needs CUDA, {why}; see {gloo_row.name}", gloo_row)
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
            f"{what} on CUDA needs NCCL: torch gives gloo a pointer to device memory there, and the ranks crash; leave share_device "
            "and backend out, or use device=cpu"
        )
    threads = spec.threads_per_rank or max(1, machine.cores // ranks_here)
    return spec.but(device=device, backend=backend, threads_per_rank=threads)


def process_group(spec: Spec) -> str:
    """The backend text for torch's init_process_group; "" for a strategy of one process. With NCCL, which sends CUDA tensors
    only, gloo sends the few numbers that are in host memory."""
    if spec.kind.one_process:
        return ""
    return "cpu:gloo,cuda:nccl" if spec.backend == "nccl" else "gloo"
