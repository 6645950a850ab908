"""One process drives N replicas: replicate, scatter, apply in threads, gather, reduce. All in every step.

On CUDA this is torch's `DataParallel`. On a CPU torch's DataParallel quietly runs the plain model, so there the same
algorithm stands below in full: the weights are copied to N replicas (replicate), each takes its part of the batch
(scatter) through forward and backward in a thread of its own (parallel apply), and the losses (gather) and gradients
(reduce) come together on the first. Only replica 0's BatchNorm statistics are kept, as torch does.
"""

import copy
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from labkit.strategy import Precision, forward_backward, make_optimizer


class DataParallel:
    def __init__(self, model, spec, place):
        self.shard = (0, 1)
        self.model = model
        self.optimizer = make_optimizer(model, spec)
        self.precision = Precision(spec, place)
        self.on_cuda = place.device.type == "cuda"
        if self.on_cuda:
            self.parallel = nn.DataParallel(
                UnderAutocast(model, self.precision.autocast), device_ids=list(range(spec.world_size))
            )
        else:
            self.replicas = [model] + [copy.deepcopy(model) for _ in range(spec.world_size - 1)]
            self.threads = ThreadPoolExecutor(spec.world_size)

    def step(self, x, y):
        self.optimizer.zero_grad()
        if self.on_cuda:
            loss = forward_backward(self.parallel, x, y, self.precision)
        else:
            loss = self.step_on_cpu(x, y)
        self.precision.step(self.optimizer)
        return loss

    @torch.no_grad()
    def step_on_cpu(self, x, y):
        for replica in self.replicas[1:]:  # replicate
            replica.zero_grad()
            for mine, first in zip(replica.state_dict().values(), self.model.state_dict().values(), strict=True):
                mine.copy_(first)
        xs, ys = x.chunk(len(self.replicas)), y.chunk(len(self.replicas))  # scatter
        losses = list(self.threads.map(self.apply, self.replicas, xs, ys))  # parallel apply
        for same in zip(*(replica.parameters() for replica in self.replicas), strict=True):  # reduce
            if same[0].grad is not None:
                same[0].grad.copy_(sum(p.grad for p in same) / len(same))
        return torch.stack(losses).mean()  # gather

    def apply(self, replica, x, y):
        return forward_backward(replica, x, y, self.precision)

    def state(self):
        return self.model.state_dict()


class UnderAutocast(nn.Module):
    """torch's DataParallel hands a thread the fact of autocast, but not its type: so each replica begins it itself."""

    def __init__(self, model, autocast):
        super().__init__()
        self.model, self.autocast = model, autocast

    def forward(self, x):
        with self.autocast():
            return self.model(x)
