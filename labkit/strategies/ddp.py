"""Every rank trains its shard; DistributedDataParallel averages the gradients while backward is still running."""

from torch.nn.parallel import DistributedDataParallel

from labkit.strategy import Precision, broadcast_from_rank0, forward_backward, make_optimizer, rank0_buffers


class DDP:
    def __init__(self, model, spec, place):
        self.shard = (place.rank, place.processes)
        self.model = model
        broadcast_from_rank0(model.buffers())  # once: what BatchNorm changes in them, only evaluation reads, and state() sends
        self.replica = DistributedDataParallel(  # starts from rank 0's weights; its backward() all-reduces
            model,
            broadcast_buffers=False,  # would be a message in every step
            bucket_cap_mb=spec.bucket_mb,
            gradient_as_bucket_view=spec.gradient_as_bucket_view,
            static_graph=spec.static_graph,
        )
        self.optimizer = make_optimizer(model, spec)
        self.precision = Precision(spec, place)

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = forward_backward(self.replica, x, y, self.precision)
        self.precision.step(self.optimizer)
        return loss

    def state(self):
        return {**self.model.state_dict(), **rank0_buffers(self.model)}
