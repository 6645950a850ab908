"""Data parallelism with the communication written out: the ladder of ideas that leads to DDP, one rung per `form`.

per_parameter  after backward, one all-reduce for each gradient: as published. Many small messages, nothing overlaps.
flat           after backward, all gradients in one message: the latency is paid once.
ring           the same message, through an all-reduce of our own: N-1 steps that sum, N-1 that spread the sums
               (Patarasuk and Yuan, 2009). Each rank sends 2 (N-1)/N of the gradients' bytes, however many ranks.
buckets        gradients leave in buckets of `bucket_mb` while backward is still computing the earlier layers: DDP's way.
"""

import torch
import torch.distributed as dist

from labkit.strategy import Precision, broadcast_from_rank0, forward_backward, make_optimizer, rank0_buffers, ring_all_reduce


class Collective:
    def __init__(self, model, spec, place):
        self.shard = (place.rank, place.processes)
        self.model, self.world_size = model, place.processes
        broadcast_from_rank0([*model.parameters(), *model.buffers()])
        self.optimizer = make_optimizer(model, spec)
        self.precision = Precision(spec, place)
        self.average = getattr(self, spec.form)
        self.bucket_bytes = spec.bucket_mb * 2**20
        self.bucket, self.on_the_way = [], []
        if spec.form == "buckets":
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(self.fill_bucket)

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = forward_backward(self.model, x, y, self.precision)
        self.average([p.grad for p in self.model.parameters() if p.grad is not None])
        self.precision.step(self.optimizer)
        return loss

    def per_parameter(self, grads):
        for grad in grads:
            dist.all_reduce(grad)
            grad /= self.world_size

    def flat(self, grads, all_reduce=dist.all_reduce):
        message = torch.cat([grad.flatten() for grad in grads])
        all_reduce(message)
        self.unpack(message, grads)

    def ring(self, grads):
        self.flat(grads, ring_all_reduce)

    def fill_bucket(self, parameter):  # called in the middle of backward, as soon as this gradient is complete
        self.bucket.append(parameter.grad)
        if sum(grad.nbytes for grad in self.bucket) >= self.bucket_bytes:
            self.send_bucket()

    def send_bucket(self):
        message = torch.cat([grad.flatten() for grad in self.bucket])
        self.on_the_way.append((dist.all_reduce(message, async_op=True), message, self.bucket))
        self.bucket = []

    def buckets(self, grads):
        if self.bucket:
            self.send_bucket()
        for work, message, bucket in self.on_the_way:
            work.wait()
            self.unpack(message, bucket)
        self.on_the_way = []

    def unpack(self, message, grads):
        message /= self.world_size
        for grad, part in zip(grads, message.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def state(self):
        return {**self.model.state_dict(), **rank0_buffers(self.model)}
