"""Data parallelism with the communication written out. Each `form` is one step on the way to DDP.

per_parameter  after backward, one all-reduce for each gradient: many small messages, no overlap. Whether the published
               "collective" rows did this is not known (their memory and NCCL speed are close to DDP's).
flat           after backward, all gradients in one message: the latency is paid once.
ring           the same message, sent by our own all-reduce: N-1 steps add, N-1 steps pass the sums on
               (Patarasuk and Yuan, 2009). Each rank sends 2 (N-1)/N times the bytes of the gradients, for any N.
buckets        gradients leave in buckets of `bucket_mb` while backward still computes the earlier layers, as in DDP.

A step of a model with three layers, time from left to right. gK: backward of layer K, which completes its gradients;
rK: the all-reduce of these gradients. Backward begins at the last layer.

    per_parameter   forward  g3  g2  g1  r1  r2  r3     update
    flat, ring      forward  g3  g2  g1  [r1 r2 r3]     update
    buckets         forward  g3  g2  g1  (wait)         update
      messages                   [r3  ]  [r2 r1]

r3 is sent by another thread while this rank computes g2 and g1. Here layers 2 and 1 share a bucket, which is full after g1.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from labkit.rows.spec import Spec
from labkit.strategy import (
    Place,
    Precision,
    broadcast_from_rank0,
    forward_backward,
    make_optimizer,
    rank0_buffers,
    ring_all_reduce,
)


class Collective:
    """A strategy. `labkit.strategy.Strategy` says what `shard`, `step` and `state` mean."""

    def __init__(self, model: nn.Sequential, spec: Spec, place: Place):
        self.shard = (place.rank, place.processes)
        self.model, self.world_size = model, place.processes
        broadcast_from_rank0([*model.parameters(), *model.buffers()])
        self.optimizer = make_optimizer(model, spec)
        self.precision = Precision(spec, place)
        self.average = getattr(self, spec.form)  # the method of that name below
        self.bucket_bytes = spec.bucket_mb * 2**20
        self.bucket, self.on_the_way = [], []
        if spec.form == "buckets":
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(self.fill_bucket)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One update from this rank's images x (b, c, h, w) and labels y (b,). Returns their mean loss."""
        self.optimizer.zero_grad()
        loss = forward_backward(self.model, x, y, self.precision)
        self.average([p.grad for p in self.model.parameters() if p.grad is not None])
        self.precision.step(self.optimizer)
        return loss

    # -- the four forms: each makes every gradient the mean over the ranks, in place ----------------------------------
    def per_parameter(self, grads: list[Tensor]) -> None:
        """One all-reduce for each gradient, one after the other."""
        for grad in grads:
            dist.all_reduce(grad)
            grad /= self.world_size

    def flat(self, grads: list[Tensor], all_reduce=dist.all_reduce) -> None:
        """One all-reduce of all gradients, copied into one flat message."""
        message = torch.cat([grad.flatten() for grad in grads])
        all_reduce(message)
        self.unpack(message, grads)

    def ring(self, grads: list[Tensor]) -> None:
        """As `flat`, through our own ring all-reduce."""
        self.flat(grads, ring_all_reduce)

    def buckets(self, grads: list[Tensor]) -> None:
        """Backward is over: send the last bucket, which may be part full, and wait for all messages."""
        if self.bucket:
            self.send_bucket()
        for work, message, bucket in self.on_the_way:
            work.wait()
            self.unpack(message, bucket)
        self.on_the_way = []

    # -- their parts ---------------------------------------------------------------------------------------------------
    def fill_bucket(self, parameter: Tensor) -> None:
        """A hook of autograd: called in the middle of backward, as soon as this parameter's gradient is complete."""
        # All ranks run the same model, so gradients are completed in the same order on each: bucket k of one rank holds the
        # same parameters as bucket k of another. An all-reduce needs that, since it knows tensors by their order alone.
        self.bucket.append(parameter.grad)
        if sum(grad.nbytes for grad in self.bucket) >= self.bucket_bytes:
            self.send_bucket()

    def send_bucket(self) -> None:
        """Start the all-reduce of the bucket, and do not wait for it: backward goes on meanwhile."""
        message = torch.cat([grad.flatten() for grad in self.bucket])
        self.on_the_way.append((dist.all_reduce(message, async_op=True), message, self.bucket))
        self.bucket = []

    def unpack(self, message: Tensor, grads: list[Tensor]) -> None:
        """Divide the sums by the number of ranks, and copy each gradient's part of the flat message into it."""
        message /= self.world_size
        for grad, part in zip(grads, message.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def state(self) -> dict[str, Tensor]:
        """The full weights and buffers, under the model's own names."""
        return {**self.model.state_dict(), **rank0_buffers(self.model)}
