"""The layers are cut over the ranks: each keeps and computes its part of the network, for the whole batch.

With one micro-batch (the published row) a rank waits while the other computes; what crosses the cut is the
activations forward and their gradients back, sent by hand below. With more micro-batches the ranks overlap in
torch's pipeline schedules: GPipe (Huang et al., 2019), all forwards and then all backwards, or 1F1B (PipeDream,
Narayanan et al., 2019), which holds fewer activations.
BatchNorm sees one micro-batch at a time, so with norm=batch more micro-batches change the result.
"""

import itertools
from collections import OrderedDict
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.nn.functional import cross_entropy

from labkit.strategy import Precision, broadcast, broadcast_from_rank0, make_optimizer, receive_into, refuse_tied, send

SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}


class ModelParallel:
    def __init__(self, model, spec, place):
        self.shard = (0, 1)  # every rank is given the whole batch: the first uses its images, the last its labels
        self.place, self.first, self.last = place, place.rank == 0, place.rank == place.processes - 1
        broadcast_from_rank0([*model.parameters(), *model.buffers()])
        self.stage, self.owners = cut(model, place)
        self.micro_batches = spec.micro_batches
        self.precision = Precision(spec, place, sharded=True)
        if self.precision.scaler.is_enabled() and spec.optimizer_impl == "fused":
            spec = spec.but(optimizer_impl="foreach")  # torch's fused SGD hears of no overflow but its own stage's
        self.optimizer = make_optimizer(self.stage, spec)
        self.told = self.layout = None  # shape, strides and type of the activations at the cut: told once, then known
        if spec.micro_batches > 1:
            stage = PipelineStage(Pipe(self.run_stage, self.stage), place.rank, place.processes, place.device)
            self.pipeline = SCHEDULES[spec.schedule](stage, spec.micro_batches, loss_fn=self.scaled_loss)
        self.train = self.pipelined if spec.micro_batches > 1 else self.by_hand

    def step(self, x, y):
        self.losses = []  # one of each micro-batch, on the last rank
        self.optimizer.zero_grad()
        self.train(x, y)
        self.precision.step(self.optimizer)
        losses = self.losses[-self.micro_batches :]  # torch's pipeline tries the loss on empty tensors before its first step
        return torch.stack(losses).mean() if self.last else None

    def run_stage(self, x):
        with self.precision.autocast():
            return self.stage(x)

    def scaled_loss(self, out, y):
        with self.precision.autocast():
            loss = cross_entropy(out, y)
        self.losses.append(loss.detach())
        return self.precision.scaler.scale(loss)

    def by_hand(self, x, y):
        came_in = x if self.first else self.receive_activations()
        out = self.run_stage(came_in)
        if self.last:
            self.scaled_loss(out, y).backward()
        else:
            self.send_activations(out.detach())
            out.backward(receive_into(torch.empty_like(out), self.place.rank + 1))
        if not self.first:
            send(torch.empty_like(came_in).copy_(came_in.grad), self.place.rank - 1)

    def pipelined(self, x, y):
        self.pipeline.step(*([x] if self.first else []), target=y)

    def send_activations(self, out):
        if self.told is None:
            self.told = out.shape, out.stride(), out.dtype
            dist.send_object_list([self.told], self.place.rank + 1)
        send(out, self.place.rank + 1)

    def receive_activations(self):
        if self.layout is None:
            told: list[Any] = [None]
            dist.recv_object_list(told, self.place.rank - 1)
            self.layout = told[0]
        shape, strides, dtype = self.layout
        empty = torch.empty_strided(shape, strides, dtype=dtype, device=self.place.device)
        return receive_into(empty, self.place.rank - 1).requires_grad_()

    def state(self):
        mine, full = self.stage.state_dict(), {}
        for name, (owner, shape) in self.owners.items():
            full[name] = mine[name].detach() if owner == self.place.rank else torch.empty_like(shape, device=self.place.device)
            broadcast(full[name], owner)
        return full


class Pipe(torch.nn.Module):
    """A stage as torch's pipeline can send what goes in and out of it: NCHW, while inside images are NHWC."""

    def __init__(self, run, stage):
        super().__init__()
        self.run, self.stage = run, stage  # registered: the pipeline divides the gradients of its parameters by micro_batches

    def forward(self, x):
        x = Contiguous.apply(x)
        return Contiguous.apply(self.run(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x))


class Contiguous(torch.autograd.Function):
    """`.contiguous()`, for the gradient too."""

    @staticmethod
    def forward(_context, x):
        return x.contiguous()

    @staticmethod
    def backward(_context, gradient):
        return gradient.contiguous()


def cut(model, place):
    """This rank's layers, under their names in the whole model, and for every tensor of the model its owner and shape."""
    layers = list(model.named_children())
    first_of = [round(len(layers) * rank / place.processes) for rank in range(place.processes + 1)]
    stages = [torch.nn.Sequential(OrderedDict(layers[a:b])) for a, b in itertools.pairwise(first_of)]
    refuse_tied(stages, "the cut: each stage would update a copy of its own")
    owners = {k: (r, v.to("meta")) for r, stage in enumerate(stages) for k, v in stage.state_dict().items()}
    return stages[place.rank], owners
