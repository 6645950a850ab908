"""Timers on a strategy's layers and optimizer, and a counter of the bytes that autograd keeps. Used by `labkit.probes.trace` only."""

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
    """Hooks on every layer of a strategy's models, and on its optimizer.

        step of a layer    FSDP's hook  [ forward ]  FSDP's hook  ...  FSDP's hook  [ backward ]  FSDP's hook
                           (gathers)     recorded                                    recorded     (scatters)

    The recorder's hooks are registered after the strategy was built, so the exchange in FSDP's hooks lies outside the recorded
    intervals. What DDP and form=buckets do in the hooks of single gradients lies inside: they copy the gradient and start
    the message; the message itself travels in another thread.

    `events`: [kind, lane, layer, micro-batch, start, end]. A lane is a replica of DataParallel, else 0. start and end: seconds of
    the monotonic clock, which is the same for all processes of a host."""

    def __init__(self, strategy: Any, device: torch.device):
        self.device, self.events = device, []
        self.counts_bytes = False  # while it is True, bytes are counted and no time is recorded
        self.saved = SavedBytes()
        self.began: dict[Any, Any] = {}  # what has begun and not ended -> when; and the micro-batch that each layer is at
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
        """The most bytes of activations that were kept for backward at one time."""
        return self.saved.peak

    def wait(self) -> None:
        """The step is over: wait for the device, and count micro-batches from 0 again."""
        synchronise(self.device)
        self.began.clear()

    def begin(self, *what: Any) -> None:
        """Something begins now: kind, lane, layer, micro-batch."""
        synchronise(self.device)
        self.began[what] = time.monotonic()

    def end(self, *what: Any) -> None:
        """It ends now. Makes an event of it, if it had begun."""
        synchronise(self.device)
        if what in self.began and not self.counts_bytes:
            self.events.append([*what, self.began.pop(what), time.monotonic()])

    @contextmanager
    def span(self, kind: str) -> Iterator[None]:
        """Record what the block does as one event."""
        self.begin(kind, 0, 0, 0)
        yield
        self.end(kind, 0, 0, 0)

    def forward_begins(self, module: nn.Module, at: tuple[int, int]) -> None:
        """A hook, before the forward of layer `at` = (lane, layer)."""
        self.began["micro", at] = self.began.get(("micro", at), -1) + 1
        if self.counts_bytes:
            self.saved.start(module)
        self.begin("forward", *at, self.began["micro", at])

    def forward_ends(self, module: nn.Module, at: tuple[int, int], x: Tensor, out: Tensor) -> None:
        """A hook, after the forward. Backward of this layer begins when the gradient of its output `out` is there, and ends when
        the gradient of its input `x` is there: so hooks on both tensors record it."""
        micro = self.began["micro", at]
        if self.counts_bytes:
            self.saved.stop()
        self.end("forward", *at, micro)
        if not out.requires_grad:
            return
        if x.requires_grad:
            out.register_hook(lambda _grad: self.begin("backward", *at, micro))
            x.register_hook(lambda _grad: self.end("backward", *at, micro))
        else:
            out.register_hook(lambda _grad: self.last_backward_begins(module, at, micro))

    def last_backward_begins(self, module: nn.Module, at: tuple[int, int], micro: int) -> None:
        """A hook, before the backward of the first layer, whose input has no gradient. It ends with the last gradient of its own
        parameters. (The end of the whole backward pass would be too late: DDP waits there for its messages, and FSDP sends
        this layer's gradients.)"""

        def ended(_grads: Any) -> None:
            self.end("backward", *at, micro)
            hook.remove()

        self.begin("backward", *at, micro)
        hook = register_multi_grad_hook([p for p in module.parameters() if p.requires_grad], ended)


class SavedBytes:
    """Bytes that autograd keeps for backward, without parameters and buffers, each storage once: `now`, and at their `peak`."""

    def __init__(self) -> None:
        self.users, self.now, self.peak = {}, 0, 0  # address of a storage -> how many saved tensors use it
        # RLock: the garbage collector may run Saved.__del__ while this thread holds the lock.
        self.lock, self.local = threading.RLock(), threading.local()

    def start(self, module: nn.Module) -> None:
        """Count what autograd saves from now on, in this thread, except this module's parameters and buffers."""
        own = {tensor.untyped_storage().data_ptr() for tensor in [*module.parameters(), *module.buffers()]}

        def pack(tensor: Tensor) -> Any:
            return tensor if tensor.untyped_storage().data_ptr() in own else Saved(tensor, self)

        self.local.hooks = saved_tensors_hooks(pack, lambda saved: saved.tensor if isinstance(saved, Saved) else saved)
        self.local.hooks.__enter__()

    def stop(self) -> None:
        """Count no more. What was saved goes on counting until autograd releases it."""
        self.local.hooks.__exit__()

    def add(self, tensor: Tensor, count: int) -> None:
        """One saved tensor more (count=1) or less (count=-1) uses this tensor's storage."""
        storage = tensor.untyped_storage()
        with self.lock:
            before = self.users.get(storage.data_ptr(), 0)
            after = before + count
            self.users[storage.data_ptr()] = after
            if before <= 0 < after:
                self.now += storage.nbytes()
            elif after <= 0 < before:
                self.now -= storage.nbytes()
            self.peak = max(self.peak, self.now)


class Saved:
    """A tensor that autograd saves. It deletes this object when backward has used the tensor."""

    def __init__(self, tensor: Tensor, counter: SavedBytes):
        self.tensor, self.counter = tensor, counter
        counter.add(tensor, 1)

    def __del__(self) -> None:
        self.counter.add(self.tensor, -1)


def models_of(strategy: Any) -> list[nn.Sequential]:
    """The `nn.Sequential`s among a strategy's attributes, each once: its model, its stage of one, or its replicas. (The contract
    is in `labkit.strategy.Strategy`.)"""
    found: list[nn.Sequential] = []
    for value in vars(strategy).values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, nn.Sequential) and not any(one is other for other in found):
                found.append(one)
    return found


def holds(strategy: Any) -> dict[str, int]:
    """Bytes that this rank keeps between steps: "parameters", "gradients" and "optimizer". Of a sharded tensor, its own shard."""
    parameters = list({id(p): p for model in models_of(strategy) for p in model.parameters()}.values())
    optimizers = [value for value in vars(strategy).values() if isinstance(value, torch.optim.Optimizer)]
    state = [t for one in optimizers for kept in one.state.values() for t in kept.values() if isinstance(t, Tensor)]
    return {
        "parameters": sum(map(bytes_of, parameters)),
        "gradients": sum(bytes_of(p.grad) for p in parameters if p.grad is not None),
        "optimizer": sum(map(bytes_of, state)),
    }


def bytes_of(tensor: Tensor) -> int:
    """Bytes of a tensor; of a sharded tensor, of this rank's shard."""
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.numel() * local.element_size()
