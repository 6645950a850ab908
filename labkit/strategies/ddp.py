"""Every rank trains its shard; DDP averages the gradients while backward is still running (`collective.py` draws when)."""

from torch import Tensor, nn

from labkit.rows.spec import Spec
from labkit.strategy import Place, Precision, broadcast_from_rank0, forward_backward, make_optimizer, rank0_buffers


class DDP:
    """A strategy. `labkit.strategy.Strategy` says what `shard`, `step` and `state` mean."""

    def __init__(self, model: nn.Sequential, spec: Spec, place: Place):
        self.shard = (place.rank, place.processes)
        self.model = model
        broadcast_from_rank0(model.buffers())  # once, not in every step: training never reads what BatchNorm changes in them
        self.replica = nn.parallel.DistributedDataParallel(  # starts from rank 0's weights; its backward() all-reduces
            model, broadcast_buffers=False, bucket_cap_mb=spec.bucket_mb, gradient_as_bucket_view=spec.gradient_as_bucket_view,
            static_graph=spec.static_graph)  # fmt: skip
        self.optimizer = make_optimizer(model, spec)
        self.precision = Precision(spec, place)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One update from this rank's images x (b, c, h, w) and labels y (b,). Returns their mean loss."""
        self.optimizer.zero_grad()
        loss = forward_backward(self.replica, x, y, self.precision)
        self.precision.step(self.optimizer)
        return loss

    def state(self) -> dict[str, Tensor]:
        """The full weights and buffers, under the model's own names."""
        return {**self.model.state_dict(), **rank0_buffers(self.model)}
