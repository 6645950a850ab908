"""Stopwatches on a strategy's layers and optimizer, and scales under its tensors. Used by `labkit.probes.trace` alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook, saved_tensors_hooks
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from labkit.engine.measure import synchronise


class Recorder:
    """Hooks on every layer of a strategy's models. They are placed after the strategy was built, so that what FSDP hangs on
    the same layers (gathering parameters, scattering gradients) lies outside the intervals of forward and backward. What a
    strategy sends from the hooks of single gradients (DDP and form=buckets: a copy, then the message travels by itself) lies inside.

    `events`: [kind, lane, layer, micro-batch, start, end], seconds of the monotonic clock, which all processes of a host share.
    """

    def __init__(self, strategy: Any, device: torch.device):
        self.device, self.events = device, []
        self.weighing = False
        self.scales = Scales()
        self.began: dict[Any, Any] = {}
        for lane, model in enumerate(models_of(strategy)):
            for layer, (_, module) in enumerate(model.named_children()):
                module.register_forward_pre_hook(lambda module, _, at=(lane, layer): self.forward_begins(module, at))
                module.register_forward_hook(
                    lambda module, inputs, out, at=(lane, layer): self.forward_ends(module, at, inputs[0], out)
                )
        register_optimizer_step_pre_hook(lambda *_: self.begin("update", 0, 0, 0))
        register_optimizer_step_post_hook(lambda *_: self.end("update", 0, 0, 0))

    @property
    def peak_bytes(self) -> int:
        return self.scales.peak

    def wait(self) -> None:
        synchronise(self.device)
        self.began.clear()

    def begin(self, *what: Any) -> None:
        synchronise(self.device)
        self.began[what] = time.monotonic()

    def end(self, *what: Any) -> None:
        synchronise(self.device)
        if what in self.began and not self.weighing:
            self.events.append([*what, self.began.pop(what), time.monotonic()])

    @contextmanager
    def span(self, kind: str) -> Iterator[None]:
        self.begin(kind, 0, 0, 0)
        yield
        self.end(kind, 0, 0, 0)

    def forward_begins(self, module: nn.Module, at: tuple[int, int]) -> None:
        self.began["micro", at] = self.began.get(("micro", at), -1) + 1
        if self.weighing:
            self.scales.on(module)
        self.begin("forward", *at, self.began["micro", at])

    def forward_ends(self, module: nn.Module, at: tuple[int, int], x: Tensor, out: Tensor) -> None:
        micro = self.began["micro", at]
        if self.weighing:
            self.scales.off()
        self.end("forward", *at, micro)
        if not out.requires_grad:
            return
        if x.requires_grad:
            out.register_hook(lambda _grad: self.begin("backward", *at, micro))
            x.register_hook(lambda _grad: self.end("backward", *at, micro))
        else:
            out.register_hook(lambda _grad: self.last_backward_begins(module, at, micro))

    def last_backward_begins(self, module: nn.Module, at: tuple[int, int], micro: int) -> None:
        """No gradient leaves the first layer: it ends with the last gradient of its own parameters. (The end of the whole
        backward pass would be too late: DDP waits there for its messages, and FSDP sends this layer's gradients.)"""

        def ended(_grads: Any) -> None:
            self.end("backward", *at, micro)
            hook.remove()

        self.begin("backward", *at, micro)
        hook = register_multi_grad_hook([p for p in module.parameters() if p.requires_grad], ended)


class Scales:
    """Bytes that autograd keeps for backward, each storage once, parameters and buffers left out: now, and at the peak."""

    def __init__(self) -> None:
        self.held, self.now, self.peak = {}, 0, 0
        self.lock, self.local = threading.RLock(), threading.local()  # a Kept may go while this thread holds the lock

    def on(self, module: nn.Module) -> None:
        mine = {tensor.untyped_storage().data_ptr() for tensor in [*module.parameters(), *module.buffers()]}

        def pack(tensor: Tensor) -> Any:
            return tensor if tensor.untyped_storage().data_ptr() in mine else Kept(tensor, self)

        self.local.hooks = saved_tensors_hooks(pack, lambda kept: kept.tensor if isinstance(kept, Kept) else kept)
        self.local.hooks.__enter__()

    def off(self) -> None:
        self.local.hooks.__exit__()

    def add(self, tensor: Tensor, count: int) -> None:
        storage = tensor.untyped_storage()
        with self.lock:
            before = self.held.get(storage.data_ptr(), 0)
            self.held[storage.data_ptr()] = before + count
            self.now += storage.nbytes() * ((before + count > 0) - (before > 0))
            self.peak = max(self.peak, self.now)


class Kept:
    """A saved tensor; autograd lets go of it when backward has used it."""

    def __init__(self, tensor: Tensor, scales: Scales):
        self.tensor, self.scales = tensor, scales
        scales.add(tensor, 1)

    def __del__(self) -> None:
        self.scales.add(self.tensor, -1)


def models_of(strategy: Any) -> list[nn.Sequential]:
    """The layers that a strategy runs: its model, its stage of one, or its replicas."""
    found: list[nn.Sequential] = []
    for value in vars(strategy).values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, nn.Sequential) and not any(one is other for other in found):
                found.append(one)
    return found


def holds(strategy: Any) -> dict[str, int]:
    """Bytes that this rank keeps between steps: of sharded tensors its own part."""
    parameters = list({id(p): p for model in models_of(strategy) for p in model.parameters()}.values())
    optimizers = [value for value in vars(strategy).values() if isinstance(value, torch.optim.Optimizer)]
    state = [t for one in optimizers for held in one.state.values() for t in held.values() if isinstance(t, Tensor)]
    return {
        "parameters": sum(map(bytes_of, parameters)),
        "gradients": sum(bytes_of(p.grad) for p in parameters if p.grad is not None),
        "optimizer": sum(map(bytes_of, state)),
    }


def bytes_of(tensor: Tensor) -> int:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.numel() * local.element_size()
