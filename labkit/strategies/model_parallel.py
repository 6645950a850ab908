"""The layers are cut over the ranks: each rank keeps and computes its part of the network, for the whole batch.

With one micro-batch (the published row) a rank waits while the other one computes. Two things cross the cut: the
activations in forward, and their gradients in backward. `by_hand` below sends them. With more micro-batches the ranks
overlap in torch's pipeline schedules: GPipe (Huang et al., 2019) runs all forwards and then all backwards; 1F1B
runs each backward as early as it can, and so holds fewer activations. Both end all micro-batches before the update (a flush):
this 1F1B is DAPPLE (Fan et al., 2021), or PipeDream-Flush (Narayanan et al., 2021, "Memory-Efficient Pipeline-Parallel DNN
Training"). PipeDream (2019) has no flush, and keeps several versions of the weights.
BatchNorm sees one micro-batch at a time, so with norm=batch the number of micro-batches changes the result.
"""

import itertools
from collections import OrderedDict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.nn.functional import cross_entropy

from labkit.rows.spec import Spec
from labkit.strategy import Place, Precision, broadcast, broadcast_from_rank0, make_optimizer, receive_into, refuse_tied, send

# Two stages, four micro-batches, time from left to right; Fk, Bk: forward and backward of micro-batch k; ..: the bubble.
#
#   gpipe  stage 0   F1 F2 F3 F4 .. .. B1 B2 B3 B4     stage 0 holds the activations of 4 micro-batches at once
#          stage 1   .. F1 F2 F3 F4 B1 B2 B3 B4 ..
#
#   1f1b   stage 0   F1 F2 .. B1 F3 B2 F4 B3 .. B4     as long a step, but stage 0 holds the activations of 2
#          stage 1   .. F1 B1 F2 B2 F3 B3 F4 B4 ..
#
# (Drawn as if forward and backward took the same time. The bubble is (p - 1) / (m + p - 1) of a step for p
# stages and m micro-batches: here 1/5.)
SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}


class ModelParallel:
    """A strategy. `labkit.strategy.Strategy` says what `shard`, `step` and `state` mean."""

    def __init__(self, model: nn.Sequential, spec: Spec, place: Place):
        self.shard = (0, 1)  # every rank is given the whole batch: the first its images, the last its labels
        self.place, self.first, self.last = place, place.rank == 0, place.rank == place.processes - 1
        self.needs_images = self.first
        broadcast_from_rank0([*model.parameters(), *model.buffers()])
        self.stage, self.owners = cut(model, place)
        self.micro_batches = spec.micro_batches
        self.precision = Precision(spec, place, sharded=True)
        if self.precision.scaler.is_enabled() and spec.optimizer_impl == "fused":
            # torch's fused SGD skips a step for an overflow of its own stage's gradients only; foreach asks the scaler.
            spec = spec.but(optimizer_impl="foreach")
        self.optimizer = make_optimizer(self.stage, spec)
        # (shape, strides, type) of the activations that leave this stage and of those that enter it: sent with the first step's
        # activations, known from then on.
        self.layout_out: Any = None
        self.layout_in: Any = None
        if spec.micro_batches > 1:
            stage = PipelineStage(Pipe(self.run_stage, self.stage), place.rank, place.processes, place.device)
            self.pipeline = SCHEDULES[spec.schedule](stage, spec.micro_batches, loss_fn=self.scaled_loss)
        self.train = self.pipelined if spec.micro_batches > 1 else self.by_hand

    def step(self, x: Tensor | None, y: Tensor) -> Tensor | None:
        """One update from the whole batch: images x (b, c, h, w), which the first rank alone is given, and labels y (b,). Returns the mean loss on the last rank, which
        alone computes it, and None on the others."""
        self.losses = []  # one of each micro-batch, on the last rank
        self.optimizer.zero_grad()
        self.train(x, y)
        self.precision.step(self.optimizer)
        losses = self.losses[-self.micro_batches :]  # torch's pipeline tries the loss on empty tensors before its first step
        return torch.stack(losses).mean() if self.last else None

    def run_stage(self, x: Tensor) -> Tensor:
        """Forward through this rank's layers: images or activations in, activations or logits out."""
        with self.precision.autocast():
            return self.stage(x)

    def scaled_loss(self, out: Tensor, y: Tensor) -> Tensor:
        """The loss that backward starts from. The plain loss goes into `self.losses`."""
        with self.precision.autocast():
            loss = cross_entropy(out, y)
        self.losses.append(loss.detach())
        return self.precision.scaler.scale(loss)

    def by_hand(self, x: Tensor | None, y: Tensor) -> None:
        """Forward and backward of the whole batch, as one micro-batch. Adds to the gradients of this rank's layers."""
        # Two stages, time from left to right; a: activations, g: the gradients of the same activations.
        #
        #   rank 0   forward --a-->   (waits)                  --g--> backward    update
        #   rank 1   (waits)          forward, loss, backward         (waits)     update
        came_in = x if self.first else self.receive_activations()
        assert came_in is not None
        out = self.run_stage(came_in)
        if self.last:
            self.scaled_loss(out, y).backward()
        else:
            self.send_activations(out.detach())
            out.backward(receive_into(torch.empty_like(out), self.place.rank + 1))
        if not self.first:
            assert came_in.grad is not None  # backward has just filled it
            send(torch.empty_like(came_in).copy_(came_in.grad), self.place.rank - 1)

    def pipelined(self, x: Tensor | None, y: Tensor) -> None:
        """Forward and backward of all micro-batches, in the order of the schedule (drawn at SCHEDULES)."""
        if self.first:
            self.pipeline.step(x, target=y)
        else:
            self.pipeline.step(target=y)

    def send_activations(self, out: Tensor) -> None:
        """Send a tensor to the next rank; before the first one, its layout, so that the next rank can make room for it."""
        if self.layout_out is None:
            self.layout_out = out.shape, out.stride(), out.dtype
            dist.send_object_list([self.layout_out], self.place.rank + 1)
        send(out, self.place.rank + 1)

    def receive_activations(self) -> Tensor:
        """The tensor that the rank before sends; backward will leave its gradient in `.grad`."""
        if self.layout_in is None:
            received: list[Any] = [None]
            dist.recv_object_list(received, self.place.rank - 1)
            self.layout_in = received[0]
        shape, strides, dtype = self.layout_in
        empty = torch.empty_strided(shape, strides, dtype=dtype, device=self.place.device)
        return receive_into(empty, self.place.rank - 1).requires_grad_()

    def state(self) -> dict[str, Tensor]:
        """The full weights and buffers, under the whole model's names: each tensor comes from the rank that owns it."""
        own, full = self.stage.state_dict(), {}
        for name, (owner, shape) in self.owners.items():
            full[name] = own[name].detach() if owner == self.place.rank else torch.empty_like(shape, device=self.place.device)
            broadcast(full[name], owner)
        return full


class Pipe(nn.Module):
    """A stage for torch's pipeline, which sends what goes in and out of it as NCHW. Inside the stage images are NHWC."""

    def __init__(self, run, stage):
        super().__init__()
        self.run, self.stage = run, stage  # registered: the pipeline divides the gradients of its parameters by micro_batches

    def forward(self, x: Tensor) -> Tensor:
        """Images or activations in, activations or logits out; both contiguous."""
        x = Contiguous.apply(x)
        return Contiguous.apply(self.run(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x))


class Contiguous(torch.autograd.Function):
    """`.contiguous()`, for the gradient too."""

    @staticmethod
    def forward(_context, x):
        """The same numbers, contiguous."""
        return x.contiguous()

    @staticmethod
    def backward(_context, gradient):
        """The same gradient, contiguous."""
        return gradient.contiguous()


def cut(model: nn.Sequential, place: Place) -> tuple[nn.Sequential, dict[str, tuple[int, Tensor]]]:
    """This rank's layers, under their names in the whole model; and for every tensor of the model its owner's rank and its
    shape (a tensor without numbers). Raises ValueError if two stages share a parameter."""
    layers = list(model.named_children())
    borders = [round(len(layers) * rank / place.processes) for rank in range(place.processes + 1)]
    stages = [nn.Sequential(OrderedDict(layers[a:b])) for a, b in itertools.pairwise(borders)]
    refuse_tied(stages, "the cut: each stage would update a copy of its own")
    owners = {k: (r, v.to("meta")) for r, stage in enumerate(stages) for k, v in stage.state_dict().items()}
    return stages[place.rank], owners
