"""One process, one device, the whole batch: the baseline that every other strategy is compared with."""

from torch import Tensor, nn

from labkit.rows.spec import Spec
from labkit.strategy import Place, Precision, forward_backward, make_optimizer


class Single:
    """A strategy. `labkit.strategy.Strategy` says what `shard`, `step` and `state` mean."""

    def __init__(self, model: nn.Sequential, spec: Spec, place: Place):
        self.shard = (0, 1)
        self.model = model
        self.optimizer = make_optimizer(model, spec)
        self.precision = Precision(spec, place)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One update from this rank's images x (b, c, h, w) and labels y (b,). Returns their mean loss."""
        self.optimizer.zero_grad()
        loss = forward_backward(self.model, x, y, self.precision)
        self.precision.step(self.optimizer)
        return loss

    def state(self) -> dict[str, Tensor]:
        """The full weights and buffers, under the model's own names."""
        return self.model.state_dict()
