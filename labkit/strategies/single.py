"""One process, one device, the whole batch: what every other strategy is measured and proved against."""

from labkit.strategy import Precision, forward_backward, make_optimizer


class Single:
    def __init__(self, model, spec, place):
        self.shard = (0, 1)
        self.model = model
        self.optimizer = make_optimizer(model, spec)
        self.precision = Precision(spec, place)

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = forward_backward(self.model, x, y, self.precision)
        self.precision.step(self.optimizer)
        return loss

    def state(self):
        return self.model.state_dict()
