"""What a strategy is, where it runs, and the few helpers that strategies call.

A strategy owns one training step, the whole of it: forward, backward, what is exchanged, and the update. That is
the smallest unit which a pipeline (its forward and backward are a schedule), a parameter server (its optimizer
lives in another process) and plain data parallelism all have.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from labkit.rows.spec import Spec
from labkit.system.errors import blame


@dataclass(frozen=True)
class Place:
    """Where a strategy runs: this process among all, its device, and how many steps each rank will make."""

    rank: int
    processes: int
    device: torch.device
    steps_per_epoch: int
    epochs: int

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.epochs


class Strategy(Protocol):
    """Every class in `labkit/strategies/` is one of these; none inherits anything."""

    shard: tuple[int, int] | None
    """(i, n): this rank trains part i of n of each step's images. Ranks may share a part. None: no images (a server)."""

    def __init__(self, model: nn.Sequential, spec: Spec, place: Place): ...

    def step(self, x: Tensor, y: Tensor) -> Tensor | None:
        """One whole optimizer step on images (b, c, h, w) and labels (b,).

        Returns the mean loss of this rank's images as a tensor, not a number, so that nothing waits for the device;
        None on a rank that never sees a loss. A rank without a shard is called with None, None.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """The full weights and buffers under the plain model's names. Every rank calls it at the end of an epoch.

        Weights that a rank holds itself are returned as held, never repaired by a broadcast: the loop compares them
        over the ranks, and that is how a forgotten broadcast or a model that was never wrapped comes to light.
        """
        ...

    def measured(self) -> dict:
        """Optional: what this strategy counted, for the result folder."""
        ...


def strategy_class(name: str) -> type:
    """The one class with a `step` in labkit/strategies/<name>.py. Raises ImportError, which names the file, the line and the
    error, if the file cannot be imported or holds no such class."""
    try:
        module = importlib.import_module(f"labkit.strategies.{name}")
    except Exception as error:
        raise ImportError(blame(error)) from error
    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    found = [c for c in own if hasattr(c, "step")]
    if not found:
        raise ImportError(f"labkit/strategies/{name}.py: holds no class with a method `step`; see Strategy in labkit/strategy.py")
    return found[0]


class Precision:
    """Full or mixed precision: where autocast begins, and how a loss is scaled so that fp16 gradients do not vanish.

    bf16 has fp32's range and needs no scaler. fp16 does (Micikevicius et al., "Mixed Precision Training", 2017): a
    step whose gradients overflowed is skipped. `sharded`: every rank holds other gradients, so that all must hear of
    an overflow on one (torch's ShardedGradScaler); otherwise all ranks hold the same gradients and agree by themselves.
    """

    def __init__(self, spec: Spec, place: Place, sharded: bool = False):
        self.spec, self.total_steps, self.steps = spec, place.total_steps, 0
        half = spec.amp_dtype if spec.amp_dtype != "auto" else ("fp16" if place.device.type == "cuda" else "bf16")
        dtype = torch.float16 if half == "fp16" else torch.bfloat16
        self.autocast = partial(torch.autocast, place.device.type, dtype=dtype, enabled=spec.amp)
        scaling = spec.amp and half == "fp16"
        if sharded and scaling:
            from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

            self.scaler: torch.amp.GradScaler = ShardedGradScaler(device=place.device.type)
            self.scaler.scale(torch.ones((), device=place.device))  # a rank without a loss must know the scale, too
        else:
            self.scaler = torch.amp.GradScaler(place.device.type, enabled=scaling)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with self.autocast():
            return F.cross_entropy(model(x), y)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """The update of this step, at this step's learning rate; skipped if an fp16 gradient overflowed."""
        set_learning_rate(optimizer, self.spec, self.total_steps, self.steps)
        self.steps += 1
        self.scaler.step(optimizer)
        self.scaler.update()

    def unscale(self, flat_gradient: Tensor) -> bool:
        """Take the loss scale out of a gradient that another process will apply. False, and half the scale, if it overflowed."""
        if not self.scaler.is_enabled():
            return True
        flat_gradient /= self.scaler.get_scale()
        sound = bool(flat_gradient.isfinite().all())
        if not sound:
            self.scaler.update(self.scaler.get_scale() / 2)
        return sound


def forward_backward(model: nn.Module, x: Tensor, y: Tensor, precision: Precision) -> Tensor:
    """Mean cross-entropy of the images, and its gradients in every `.grad`. Returns the loss, detached."""
    loss = precision.loss(model, x, y)
    precision.backward(loss)
    return loss.detach()


def learning_rate_factor(spec: Spec, total_steps: int, step: int) -> float:
    """The part of `spec.lr` that step 0, 1, ... total_steps - 1 uses: a linear warm-up, then the schedule down to 0."""
    warmup = math.ceil(spec.warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[spec.lr_schedule]


def make_optimizer(model: nn.Module, spec: Spec) -> torch.optim.SGD:
    """SGD with momentum over the trainable parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    impl = spec.optimizer_impl
    if impl == "fused" and isinstance(parameters[0], DTensor):
        impl = "foreach"  # torch has no fused SGD for sharded tensors
    how = {"for_loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}[impl]
    optimizer = torch.optim.SGD(
        parameters,
        lr=spec.lr,
        momentum=spec.momentum,
        nesterov=spec.nesterov,
        weight_decay=spec.weight_decay,
        **how,
    )
    if spec.momentum:
        for p in parameters:  # fused SGD leaves it uninitialised if the loss scaler skips the first step
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, spec: Spec, total_steps: int, step: int) -> None:
    """The rate of this step of the run, whatever became of the steps before it. (A scheduler that counts the optimizer's
    own steps would stand still where the loss scaler skips one, with some kernels, and move on with others.)"""
    for group in optimizer.param_groups:
        group["lr"] = spec.lr * learning_rate_factor(spec, total_steps, step)


def refuse_tied(parts: Iterable[nn.Module], border: str) -> None:
    """Raise ValueError if two parts of a model hold one parameter: whoever trains the parts apart would train it wrongly."""
    held = [id(p) for part in parts for p in part.parameters()]
    if len(held) > len(set(held)):
        raise ValueError(f"a parameter is tied across {border}; cut elsewhere, or use a strategy that keeps the model whole")


def broadcast(tensor: Tensor, source: int) -> None:
    """The tensor of rank `source` on every rank, whichever device each keeps it on: gloo's messages go through host memory."""
    message = tensor.cpu() if dist.get_backend() == "gloo" else tensor
    dist.broadcast(message, src=source)
    if message is not tensor:
        tensor.copy_(message)


def broadcast_from_rank0(tensors) -> None:
    """Every rank's tensors become rank 0's. Ranks start from different random weights, so forgetting it shows."""
    for tensor in tensors:
        broadcast(tensor.detach(), 0)


def rank0_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Rank 0's BatchNorm statistics on every rank. Each rank's own come from its own images; DDP, too, keeps rank 0's."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    broadcast_from_rank0(buffers.values())
    return buffers


def memory_of(tensor: Tensor) -> Tensor:
    """The tensor's elements in the order in which they lie in memory, flat; shares it. (send wants contiguous tensors, NHWC ones are not.)"""
    return tensor.as_strided((tensor.numel(),), (1,))


def send(tensor: Tensor, to: int) -> None:
    """Send a dense tensor as it lies in memory. gloo carries host memory only: a CUDA tensor is copied there first."""
    dist.send(memory_of(tensor.cpu() if dist.get_backend() == "gloo" else tensor), to)


def receive_into(tensor: Tensor, source: int) -> Tensor:
    """Fill `tensor`, which has the shape, type and strides of the one that is sent. Returns it."""
    if tensor.is_cuda and dist.get_backend() == "gloo":
        return tensor.copy_(receive_into(torch.empty_like(tensor, device="cpu"), source))
    dist.recv(memory_of(tensor.detach()), source)
    return tensor


def ring_all_reduce(flat: Tensor) -> None:
    """Sum a flat tensor over all N ranks in place, each talking to its right and left neighbour only.

    The tensor is cut into N chunks. In each of N-1 steps every rank passes one chunk to the right and adds the one that
    comes from the left: then rank r holds the whole sum of chunk r+1. N-1 more steps pass the sums on. Rank 0 of 3:

        step   1        2      |  3        4
        send   c0       c2     |  c1       c0
        recv   c2 (+)   c1 (+) |  c0 (=)   c2 (=)
    """
    rank, n = dist.get_rank(), dist.get_world_size()
    carried = flat.cpu() if flat.is_cuda and dist.get_backend() == "gloo" else flat
    chunks = list(carried.tensor_split(n))
    for step in range(2 * (n - 1)):
        summing = step < n - 1
        outgoing, incoming = chunks[(rank - step) % n], chunks[(rank - step - 1) % n]
        arrived = torch.empty_like(incoming)
        right, left = (rank + 1) % n, (rank - 1) % n
        for work in dist.batch_isend_irecv([dist.P2POp(dist.isend, outgoing, right), dist.P2POp(dist.irecv, arrived, left)]):
            work.wait()
        incoming.copy_(incoming + arrived if summing else arrived)
    if carried is not flat:
        flat.copy_(carried)
