"""What a strategy is, where it runs, and the few helpers that strategies call.

A strategy owns one whole training step: forward, backward, the exchange between ranks, and the update. A step is the
smallest unit that all strategies have. A pipeline's forward and backward are a schedule, so they cannot be called one
after the other; a parameter server's optimizer lives in another process, so a worker has no update of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.distributed.tensor import DTensor

from labkit.rows.spec import Spec


@dataclass(frozen=True)
class Place:
    """Where a strategy runs: its rank among all processes, its device, and how many steps and epochs each rank makes."""

    rank: int
    processes: int
    device: torch.device
    steps_per_epoch: int
    epochs: int

    @property
    def total_steps(self) -> int:
        """Steps of one rank in the whole run."""
        return self.steps_per_epoch * self.epochs


class Strategy(Protocol):
    """What every class in `labkit/strategies/` has; none inherits it. The loop calls `__init__` once; in every epoch `step` for
    each step, then `state`; after the last epoch `measured`. All ranks make the same calls.

    Probes (`labkit/probes/recorder.py`) find two things among a strategy's attributes by their type, so the names are free:
    the `nn.Sequential` that this rank runs (the model, a stage of it, or a list of replicas), not only inside a wrapper
    such as DDP; and its `torch.optim.Optimizer`, which a rank that makes no update itself (a server's worker) lacks."""

    shard: tuple[int, int] | None
    """(i, n): this rank trains part i of n of each step's images. Ranks may share a part. None: no images (a server)."""

    needs_images: bool
    """Optional, and True if it is missing: does this rank's `step` use x? If not, no image is decoded for it, and x is None."""

    precision: Precision
    """Autocast and loss scaling. The strategy uses it in every step, and tests watch its `backward`."""

    exact: bool
    """Optional. `exact = False` in the class: it is not meant to end at single's weights. A strategy of one's own without it is proved
    (`labkit.prove`) before it is trained."""

    def __init__(self, model: nn.Sequential, spec: Spec, place: Place):
        """`model` starts from other random weights on every rank: the strategy must make them equal."""

    def step(self, x: Tensor | None, y: Tensor | None) -> Tensor | None:
        """Make one whole optimizer step on images x (b, c, h, w), float32, and labels y (b,), int64.

        Returns the mean loss of this rank's images as a tensor, not a number, so that nothing waits for the device; None
        on a rank that computes no loss. A rank without a shard is called with None, None. Raises RuntimeError if another
        rank does not answer."""

    def state(self) -> dict[str, Tensor]:
        """The full weights and buffers under the plain model's names.

        A rank returns the weights that it holds, and does not repair them by a broadcast: the loop compares them over the
        ranks, and so finds a forgotten broadcast, or a model that was never wrapped."""

    def measured(self) -> dict:
        """Optional: what this strategy counted, as plain data (JSON), for the result's key `strategy`."""


class Precision:
    """Full or mixed precision: where autocast begins, and how a loss is scaled so that fp16 gradients do not become 0.

    bf16 has the range of fp32 and needs no scaling. fp16 needs it (Micikevicius et al., "Mixed Precision Training", 2017),
    and a step whose gradients overflowed is skipped. `sharded`: each rank holds other gradients than the others, so an
    overflow on one rank must be told to all (torch's ShardedGradScaler). Without it all ranks hold the same gradients,
    and so each decides the same by itself."""

    def __init__(self, spec: Spec, place: Place, sharded: bool = False):
        self.spec, self.total_steps, self.steps = spec, place.total_steps, 0
        half = spec.amp_dtype
        if half == "auto":
            half = "fp16" if place.device.type == "cuda" else "bf16"
        dtype = torch.float16 if half == "fp16" else torch.bfloat16
        self.autocast = partial(torch.autocast, place.device.type, dtype=dtype, enabled=spec.amp)
        scaling = spec.amp and half == "fp16"
        if sharded and scaling:
            self.scaler: torch.amp.GradScaler = ShardedGradScaler(device=place.device.type)
            self.scaler.scale(torch.ones((), device=place.device))  # a rank without a loss must have a scale, too
        else:
            self.scaler = torch.amp.GradScaler(place.device.type, enabled=scaling)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of images x (b, c, h, w) and labels y (b,), computed under autocast."""
        with self.autocast():
            return F.cross_entropy(model(x), y)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the loss, times the loss scale, to every `.grad`."""
        self.scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Make this step's update, at this step's learning rate. The scaler skips it if an fp16 gradient overflowed."""
        set_learning_rate(optimizer, self.spec, self.total_steps, self.steps)
        self.steps += 1
        self.scaler.step(optimizer)
        self.scaler.update()

    def unscale(self, flat_gradient: Tensor) -> bool:
        """Divide a flat gradient by the loss scale, in place, because another process will apply it. Returns False if the
        gradient overflowed, and then halves the scale for the next step."""
        if not self.scaler.is_enabled():
            return True
        flat_gradient /= self.scaler.get_scale()
        finite = bool(flat_gradient.isfinite().all())
        if not finite:
            self.scaler.update(self.scaler.get_scale() / 2)
        return finite


def forward_backward(model: nn.Module, x: Tensor, y: Tensor, precision: Precision) -> Tensor:
    """Forward and backward on images x (b, c, h, w) and labels y (b,): adds to every `.grad`. Returns the mean
    cross-entropy, detached. With DDP and FSDP, backward also exchanges the gradients; `optimizer.step()` never does."""
    loss = precision.loss(model, x, y)
    precision.backward(loss)
    return loss.detach()


def learning_rate_factor(spec: Spec, total_steps: int, step: int) -> float:
    """What `spec.lr` is multiplied by in step 0, 1, ... total_steps - 1: a linear warm-up to 1, then the schedule down to 0."""
    warmup = math.ceil(spec.warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[spec.lr_schedule]


def make_optimizer(model: nn.Module, spec: Spec) -> torch.optim.SGD:
    """SGD with momentum over the trainable parameters; sharded parameters (FSDP) get sharded momentum."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    impl = spec.optimizer_impl
    if impl == "fused" and isinstance(parameters[0], DTensor):
        impl = "foreach"  # torch has no fused SGD for sharded tensors
    how = {"for_loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}[impl]
    optimizer = torch.optim.SGD(
        parameters, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, weight_decay=spec.weight_decay, **how
    )
    if spec.momentum:
        for p in parameters:  # if the loss scaler skips the first step, fused SGD would leave it uninitialised
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, spec: Spec, total_steps: int, step: int) -> None:
    """Give the optimizer the learning rate of this step (0, 1, ... total_steps - 1) of the run. It does not depend on whether
    earlier updates were skipped. (A torch scheduler counts the optimizer's steps. Whether a step that the loss scaler skips
    is counted depends on the kernel.)"""
    for group in optimizer.param_groups:
        group["lr"] = spec.lr * learning_rate_factor(spec, total_steps, step)


def refuse_tied(parts: Iterable[nn.Module], border: str) -> None:
    """Raise ValueError if two parts of a model share a parameter. `border`, for the message: what lies between the parts."""
    ids = [id(p) for part in parts for p in part.parameters()]
    if len(ids) > len(set(ids)):
        raise ValueError(f"a parameter is tied across {border}; cut elsewhere, or use a strategy that keeps the model whole")


def broadcast(tensor: Tensor, source: int) -> None:
    """Overwrite every rank's tensor with rank `source`'s. Ranks may keep it on different devices: gloo sends from host memory."""
    message = tensor.cpu() if dist.get_backend() == "gloo" else tensor
    dist.broadcast(message, src=source)
    if message is not tensor:
        tensor.copy_(message)


def broadcast_from_rank0(tensors: Iterable[Tensor]) -> None:
    """Overwrite every rank's tensors with rank 0's. Ranks start from different random weights, so forgetting it shows."""
    for tensor in tensors:
        broadcast(tensor.detach(), 0)


def rank0_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copies of rank 0's buffers by name, on every rank. Each rank's BatchNorm statistics come from its own images; as in DDP,
    rank 0's are kept."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    broadcast_from_rank0(buffers.values())
    return buffers


def memory_of(tensor: Tensor) -> Tensor:
    """A flat view of the elements, as they lie in memory. (dist.send takes contiguous tensors only, which NHWC ones are not.)"""
    return tensor.as_strided((tensor.numel(),), (1,))


def send(tensor: Tensor, to: int) -> None:
    """Send a dense tensor to rank `to`, as it lies in memory. gloo sends from host memory only: a CUDA tensor is copied first."""
    dist.send(memory_of(tensor.cpu() if dist.get_backend() == "gloo" else tensor), to)


def receive_into(tensor: Tensor, source: int) -> Tensor:
    """Fill `tensor` with what rank `source` sends. Both must have the same shape, type and strides. Returns `tensor`."""
    if tensor.is_cuda and dist.get_backend() == "gloo":
        return tensor.copy_(receive_into(torch.empty_like(tensor, device="cpu"), source))
    dist.recv(memory_of(tensor.detach()), source)
    return tensor


def ring_all_reduce(flat: Tensor) -> None:
    """Sum a flat tensor over all N ranks, in place. Each rank sends to its right neighbour and receives from its left one.

    The tensor is cut into N chunks. In each of the first N-1 steps every rank sends one chunk to the right, and adds the
    chunk that arrives from the left to its own: then rank r holds the whole sum of chunk r+1. N-1 more steps pass the
    sums on. Rank 0 of 3; (+): add what arrives, (=): keep what arrives:

        step   1        2      |  3        4
        send   c0       c2     |  c1       c0
        recv   c2 (+)   c1 (+) |  c0 (=)   c2 (=)"""
    rank, n = dist.get_rank(), dist.get_world_size()
    host = flat.cpu() if flat.is_cuda and dist.get_backend() == "gloo" else flat
    chunks = list(host.tensor_split(n))
    for step in range(2 * (n - 1)):
        summing = step < n - 1
        outgoing, incoming = chunks[(rank - step) % n], chunks[(rank - step - 1) % n]
        arrived = torch.empty_like(incoming)
        right, left = (rank + 1) % n, (rank - 1) % n
        for work in dist.batch_isend_irecv([dist.P2POp(dist.isend, outgoing, right), dist.P2POp(dist.irecv, arrived, left)]):
            work.wait()
        incoming.copy_(incoming + arrived if summing else arrived)
    if host is not flat:
        flat.copy_(host)
