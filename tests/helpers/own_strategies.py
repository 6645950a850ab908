"""A sound strategy of one's own, and faults to plant in it: each is one edit of its source, as a student makes it."""

SOUND = '''"""After backward, one all-reduce for each gradient."""

import torch
import torch.distributed as dist

from labkit.strategy import Precision, broadcast_from_rank0, forward_backward, make_optimizer, rank0_buffers


class Mine:
    def __init__(self, model, spec, place):
        self.shard, self.model = (place.rank, place.processes), model
        self.rank, self.n, self.spec = place.rank, place.processes, spec
        broadcast_from_rank0(model.parameters())
        broadcast_from_rank0(model.buffers())
        self.optimizer, self.precision = make_optimizer(model, spec), Precision(spec, place)
        self.steps = 0

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = forward_backward(self.model, x, y, self.precision)
        for p in self.model.parameters():
            if p.grad is not None:
                dist.all_reduce(p.grad)
                p.grad /= self.n
        self.precision.step(self.optimizer)
        self.steps += 1
        return loss

    def state(self):
        return {**self.model.state_dict(), **rank0_buffers(self.model)}
'''
REDUCE, DIVIDE, ZERO = (
    "                dist.all_reduce(p.grad)\n",
    "                p.grad /= self.n\n",
    "        self.optimizer.zero_grad()\n",
)
UPDATE, START = "        self.precision.step(self.optimizer)\n", "        broadcast_from_rank0(model.parameters())\n"
OPTIMIZER = "make_optimizer(model, spec), Precision"
FAULTS = {  # name -> (old, new), the word of the diagnosis, and what its message must say
    "a sum for the mean": ((DIVIDE, ""), "sum", "Every gradient is 2.00 times single's: the ranks' gradients were added and not divided by the number of ranks."),
    "a sum on one rank": ((DIVIDE, "                p.grad /= self.n if self.rank == 0 else 1\n"), "sum", "On rank 1: every gradient is 2.00 times"),
    "divided twice": ((DIVIDE, DIVIDE * 2), "divided twice", "Every gradient is 0.50 times single's"),
    "no exchange": ((REDUCE + DIVIDE, "                pass\n"), "alone", "Every gradient is 1.00 times that of the rank's own images"),
    "only divided": ((REDUCE, ""), "alone", "Every gradient is 0.50 times that of the rank's own images"),
    "one parameter not exchanged": (("if p.grad is not None", "if p.grad is not None and p.shape != (6, 3, 3, 3)"), "alone", "The gradient of 0.0.weight is 1.00 times that of the rank's own images"),
    "no exchange from the second step on": (("if p.grad is not None", "if p.grad is not None and self.steps == 0"), "alone", "own images"),
    "one parameter not updated": ((OPTIMIZER, "make_optimizer(torch.nn.Sequential(*list(model)[1:]), spec), Precision"), "still", "0.0.weight was not updated in the step. The other gradients are right."),
    "no update": ((UPDATE, ""), "still", "No parameter was updated"),
    "the last rank's alone": ((REDUCE + DIVIDE, "                dist.broadcast(p.grad, self.n - 1)\n"), "one rank", "rank 1's images alone"),
    "unequal": ((REDUCE + DIVIDE, "                p.grad *= 0.75 if self.rank == 0 else 0.25\n" + REDUCE), "unequal", "rank 0's 0.75, rank 1's 0.25 times, where each should count 0.50"),
    "uphill": ((DIVIDE, "                p.grad /= -self.n\n"), "sign", "uphill"),
    "three times": ((DIVIDE, "                p.grad *= 3 / self.n\n"), "factor", "Every gradient is 3.00 times single's"),
    "stale": ((DIVIDE, DIVIDE + "                self.kept, late = getattr(self, 'kept', {}), p.grad.clone()\n                p.grad.copy_(self.kept.get(p, torch.zeros_like(p)))\n                self.kept[p] = late\n"), "stale", "stale by one step"),
    "never set to zero": ((ZERO, ""), "accumulated", "never set to zero"),
    "no broadcast": ((START, ""), "start", "were not broadcast"),
    "no broadcast of buffers": (("        broadcast_from_rank0(model.buffers())\n", ""), "own buffers", "The buffers were not broadcast"),
    "all images on every rank": (("(place.rank, place.processes), model", "(0, 1), model"), "shards", "trained on several ranks"),
    "the same shard": (("(place.rank, place.processes), model", "(0, place.processes), model"), "shards", "trained on several ranks"),
    "momentum lost": ((UPDATE, "        self.optimizer = make_optimizer(self.model, self.spec)\n" + UPDATE), "momentum", "counts 0.00 times in the new one, where 0.9 is expected"),
    "no weight decay": ((OPTIMIZER, "make_optimizer(model, spec.but(weight_decay=0)), Precision"), "weight decay", "count 0.00 times in the new one, where 0.05 is expected"),
    "no schedule": ((UPDATE, "        self.optimizer.step()\n"), "learning rate", "2.00 times that of single in this step"),
    "zeros for no gradient": (("            if p.grad is not None:\n", "            if p.requires_grad:\n                p.grad = torch.zeros_like(p) if p.grad is None else p.grad\n"), "unused", "2.never"),
    "wrapped names": (("return {**self.model.state_dict(),", "return {**{'module.' + k: v for k, v in self.model.state_dict().items()},"), "names", "other names than the plain model"),
    "a wrong buffer": (("**rank0_buffers(self.model)}", "**{k: 0 * v for k, v in rank0_buffers(self.model).items()}}"), "buffers", "0.1.drawn in state() is not"),
    "a wrong loss": (("return loss", "return loss / self.n"), "loss", "0.50 times the mean loss of its images"),
    "no numbers": ((DIVIDE, "                p.grad /= 0 * self.n\n"), "not finite", "not finite"),
    "no gradient at all": ((DIVIDE, DIVIDE + "                p.grad.copy_(torch.randn(p.shape))\n"), "other", "no mixture of the ranks' gradients"),
}  # fmt: skip


def with_fault(name: str) -> str:
    """The source with this fault; the text that it replaces stands there once."""
    old, new = FAULTS[name][0]
    assert SOUND.count(old) == 1, name
    return SOUND.replace(old, new)
