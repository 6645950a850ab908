"""One process drives N replicas. Every step has five parts: replicate, scatter, parallel apply, gather, reduce.

On CUDA this is torch's `DataParallel`. On a CPU torch's DataParallel runs the plain model and gives no warning, so the
same algorithm is written out below: the weights are copied to N replicas (replicate), each replica gets its part of the
batch (scatter) and runs forward and backward in its own thread (parallel apply), and the first replica collects the
losses (gather) and the gradients (reduce). Only replica 0's BatchNorm statistics are kept, as in torch.
"""

import copy
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from labkit.rows.spec import Spec
from labkit.strategy import Place, Precision, forward_backward, make_optimizer


class DataParallel:
    """A strategy. `labkit.strategy.Strategy` says what `shard`, `step` and `state` mean."""

    def __init__(self, model: nn.Sequential, spec: Spec, place: Place):
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

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One update from the whole batch: images x (b, c, h, w), labels y (b,). Returns the mean loss."""
        self.optimizer.zero_grad()
        if self.on_cuda:
            loss = forward_backward(self.parallel, x, y, self.precision)
        else:
            loss = self.step_on_cpu(x, y)
        self.precision.step(self.optimizer)
        return loss

    @torch.no_grad()
    def step_on_cpu(self, x: Tensor, y: Tensor) -> Tensor:
        """Forward and backward of N replicas, each in its own thread. The mean gradients end up in replica 0."""
        # Replica 0 does all the copying, and the other replicas wait for it. Time from left to right, N = 2:
        #
        #   replica 0   copy weights >  copy images >   forward, backward   < collect gradients   update (in `step`)
        #   replica 1   (waits)         (waits)         forward, backward   (waits)               (waits)
        for replica in self.replicas[1:]:  # replicate
            replica.zero_grad()
            for copied, original in zip(replica.state_dict().values(), self.model.state_dict().values(), strict=True):
                copied.copy_(original)
        xs, ys = x.chunk(len(self.replicas)), y.chunk(len(self.replicas))  # scatter
        losses = list(self.threads.map(self.apply, self.replicas, xs, ys))  # parallel apply
        for same in zip(*(replica.parameters() for replica in self.replicas), strict=True):  # reduce
            if same[0].grad is not None:
                same[0].grad.copy_(sum(p.grad for p in same) / len(same))
        return torch.stack(losses).mean()  # gather

    def apply(self, replica: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Forward and backward of one replica on its part of the batch. Returns the mean loss of that part."""
        return forward_backward(replica, x, y, self.precision)

    def state(self) -> dict[str, Tensor]:
        """The full weights and buffers of replica 0, under the model's own names."""
        return self.model.state_dict()


class UnderAutocast(nn.Module):
    """The model, under autocast. torch's DataParallel tells its threads that autocast is on, but not the type to compute
    in: each replica must start autocast itself."""

    def __init__(self, model, autocast):
        super().__init__()
        self.model, self.autocast = model, autocast

    def forward(self, x: Tensor) -> Tensor:
        """Images (b, c, h, w) -> logits (b, classes)."""
        with self.autocast():
            return self.model(x)
