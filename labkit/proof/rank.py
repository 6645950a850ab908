"""What one rank does in a proof: some steps of the strategy beside `single`, and for each step what its update is made of.

SGD is linear in the gradients. So the update of a step, divided by its learning rate, tells which gradients went into it: least squares
give how many times each rank's gradient counts. Each rank can compute all of these gradients by itself, because it knows the weights
before the step and the images of all ranks. One step of two ranks, without momentum (g0, g1: gradients of the ranks' images):

    (before - after) / lr  =  a0 * g0  +  a1 * g1        single: a0 = a1 = 1/2      a sum: 1, 1      no exchange: 1, 0 on rank 0
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from labkit.proof.cases import CASES, IMAGES_PER_RANK, LAST, MOST, PLAIN, STEPS
from labkit.proof.models import batch, seeded
from labkit.rows.spec import Spec
from labkit.strategies import strategy_class
from labkit.strategy import Place, learning_rate_factor

CPU = torch.device("cpu")
REFUSAL = "Expected to have finished reduction"  # DDP's, of a parameter without a gradient, unless it is told static_graph=True
Named = dict[str, Tensor]


@dataclass
class Step:
    """What a rank found in one step. A list of numbers says how many times each of these went into the update, and ends with a
    residual, from 0 to 1: the part of the update that is none of these.

    parameters  by name, see Parameter
    others      names of buffers, and second names of tied parameters, that are not single's
    parts       of the gradient of each rank's images
    own_buffers residual alone: of the same, if each rank computes with the buffers that it has drawn itself
    history     of the mean gradients of this step and of the step before; empty in the first step
    sgd         of the mean gradient, the weights (weight decay) and, from the second step on, the last update (momentum)
    started     parameters that are not near rank 0's first weights, but near another rank's
    loss        what the step returned over the loss of this rank's images; None if it returned none"""

    parameters: dict[str, dict[str, float]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    parts: list[float] = field(default_factory=list)
    own_buffers: float = 1.0
    history: list[float] = field(default_factory=list)
    sgd: list[float] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    loss: float | None = None


@dataclass
class Parameter:
    """One parameter in one step. `difference`: the largest from single's weights, relative with 0.01 as floor. `factor`: the update
    over the mean gradient; `own`: over the gradient of this rank's own images. `moved` and `should`: lengths of the update and of the
    mean gradient."""

    difference: float
    factor: float = 0.0
    residual: float = 1.0
    own: float = 0.0
    own_residual: float = 1.0
    moved: float = 0.0
    should: float = 0.0


def prove_rank(*, rank: int, progress: Any, spec: dict[str, Any]) -> dict[str, Any]:
    """For each case: {"shard", "names": those that only one of the two states has, "steps": each Step as a dict}, or {"refused"}."""
    told: dict[str, Any] = {}
    for case, (model, sgd) in CASES.items():
        try:
            told[case] = one_case(model, Spec(**spec | sgd), rank, partial(progress.at, f"proof, {case}", 0))
        except RuntimeError as error:
            if case != LAST or REFUSAL not in str(error):
                raise
            told[case] = {"refused": str(error).splitlines()[0]}
    return told


def one_case(name: str, spec: Spec, rank: int, at: Callable[[int], None]) -> dict[str, Any]:
    """A strategy on a model, step by step, beside `single` on the whole batch."""
    first = [state_of(seeded(name, spec, number)) for number in range(spec.processes)]
    place = Place(rank, spec.processes, CPU, 1, STEPS)
    trainer = strategy_class(spec.strategy)(seeded(name, spec, rank), spec, place)
    images = IMAGES_PER_RANK * spec.world_size
    whole = Spec(batch_per_rank=images, **{key: getattr(spec, key) for key in (*PLAIN, "channels_last")})
    reference, probe = seeded(name, spec, 0), seeded(name, spec, 0)
    single = strategy_class("single")(reference, whole, Place(0, 1, CPU, 1, STEPS))
    part, parts = trainer.shard or (0, 1)
    own = part if parts == spec.world_size > 1 else None
    told: dict[str, Any] = {"shard": trainer.shard and list(trainer.shard), "names": [], "steps": []}
    if not 0 <= part < parts <= images:
        return told
    before: Named = first[0]
    last: Named = {}
    last_mean: Named = {}
    for step in range(STEPS):
        at(step)
        x, y = batch(step, reference, images)
        xs, ys = x.chunk(parts)[part], y.chunk(parts)[part]
        loss = trainer.step(None, None) if trainer.shard is None else trainer.step(xs, ys)
        after = {key: tensor.detach().clone() for key, tensor in trainer.state().items()}
        single.step(x, y)
        expected = state_of(reference)
        told["names"] = sorted(after.keys() ^ expected.keys())
        if told["names"]:
            return told
        chunks = list(zip(x.chunk(spec.world_size), y.chunk(spec.world_size), strict=True))
        of_parts = [gradients(probe, before, *chunk)[0] for chunk in chunks]
        with_own = [before | buffers_of(probe, first[number]) for number in range(spec.world_size)] if spec.processes > 1 else []
        mean = {key: torch.stack([grads[key] for grads in of_parts]).mean(0) for key in of_parts[0]}
        lr = spec.lr * learning_rate_factor(spec, STEPS, step)
        update = {key: (before[key] - after[key]).double() / lr for key in mean}
        weights = {key: before[key].double() for key in mean}
        found = Step(
            parts=fit(update, of_parts),
            history=fit(update, [mean, last_mean]) if last_mean else [],
            sgd=fit(update, [mean, weights, last] if last else [mean, weights]),
            others=[
                key for key in after if key not in dict(probe.named_parameters()) and far(after[key], expected[key]) > MOST[name]
            ],
            started=[key for key in mean if step == 0 and elsewhere(key, after, expected, first)],
        )
        if with_own:
            found.own_buffers = fit(
                update, [gradients(probe, state, *chunk)[0] for state, chunk in zip(with_own, chunks, strict=True)]
            )[-1]
        if trainer.shard is not None and loss is not None:
            found.loss = float(loss) / gradients(probe, before, xs, ys)[1]
        for key, _ in probe.named_parameters():
            one = Parameter(far(after[key], expected[key]), moved=float((after[key] - before[key]).double().norm()) / lr)
            if key in mean:
                one.factor, one.residual = fit({key: update[key]}, [mean])
                one.should = float(mean[key].norm())
                if own is not None:
                    one.own, one.own_residual = fit({key: update[key]}, [of_parts[own]])
            found.parameters[key] = asdict(one)
        told["steps"].append(asdict(found))
        before, last, last_mean = after, update, mean
    return told


def state_of(model: nn.Module) -> Named:
    """A copy of a model's weights and buffers."""
    return {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}


def buffers_of(model: nn.Module, state: Named) -> Named:
    """Of a state, the model's buffers."""
    return {key: state[key] for key, _ in model.named_buffers()}


def gradients(model: nn.Module, state: Named, x: Tensor, y: Tensor) -> tuple[Named, float]:
    """The gradients (float64) of the parameters that get one, for images x and labels y at these weights; and the loss."""
    model.load_state_dict(state)
    model.zero_grad()
    loss = cross_entropy(model(x), y)
    loss.backward()
    return {key: p.grad.double() for key, p in model.named_parameters() if p.grad is not None}, float(loss)


def fit(update: Named, columns: list[Named]) -> list[float]:
    """How many times each column goes into the update, by least squares over all parameters that the update names; then the
    residual, the length of what is left over that of the update. An update of zeros has none of anything."""

    def flat(named: Named) -> Tensor:
        return torch.cat([named[key].flatten() for key in update])

    goal = flat(update)
    if float(goal.norm()) == 0:
        return [0.0] * len(columns) + [0.0]
    matrix = torch.stack([flat(column) for column in columns], 1)
    if not (goal.isfinite().all() and matrix.isfinite().all()):
        return [0.0] * len(columns) + [1.0]
    factors = torch.linalg.lstsq(matrix, goal[:, None]).solution[:, 0]
    return [*factors.tolist(), float((goal - matrix @ factors).norm() / goal.norm())]


def far(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative with 0.01 as floor; infinity if a number is not finite."""
    found = ((one - other).abs() / (0.01 + other.abs())).max()
    return float(found) if found.isfinite() else float("inf")


def elsewhere(key: str, after: Named, expected: Named, first: list[Named]) -> bool:
    """After the first step, is this parameter much farther from rank 0's first weights than it should be, and (all or piece by piece)
    near those of other ranks?"""
    off = (after[key] - first[0][key]).abs()
    nearest = torch.stack([(after[key] - state[key]).abs() for state in first]).min(0).values
    return bool(off.mean() > 5 * (expected[key] - first[0][key]).abs().mean() and nearest.mean() < 0.2 * off.mean())
