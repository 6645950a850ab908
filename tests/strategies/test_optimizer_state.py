"""Momentum, Nesterov's variant of it and the schedule go on from epoch to epoch, in every strategy.

Three epochs of two steps; after each, as the loop does, the strategy is asked for its weights. They are those of the formula.
"""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from labkit.rows import kinds
from labkit.rows.kinds import STRATEGIES
from labkit.rows.spec import Spec
from labkit.strategies import strategy_class
from labkit.strategy import Place, Precision, learning_rate_factor
from tests.helpers.workers import CPU, in_workers

EPOCHS, STEPS, IMAGES = 3, 2, 8
SGD = {"lr": 0.2, "momentum": 0.8, "weight_decay": 0.05, "lr_schedule": "linear", "warmup_fraction": 0.4}
KINDS = {
    "single": (1, {}),
    "data_parallel": (1, {"world_size": 2}),
    "ddp": (2, {"world_size": 2}),
    "fsdp": (2, {"world_size": 2}),
    "fsdp, full": (2, {"world_size": 2, "sharding": "full"}),
    "collective": (2, {"world_size": 2}),
    "collective, buckets": (2, {"world_size": 2, "form": "buckets", "bucket_mb": 1e-4}),
    "model_parallel": (2, {"world_size": 2}),
    "model_parallel, gpipe": (2, {"world_size": 2, "micro_batches": 4}),
    "parameter_server, sync": (3, {"world_size": 2, "consistency": "sync"}),
}
KINDS |= {name: (2, {"world_size": 2}) for name in STRATEGIES if name not in kinds.KINDS}  # a strategy of one's own
CASES = {
    f"{kind}{', nesterov' * nesterov}": SGD
    | {"strategy": kind.split(",")[0], "nesterov": nesterov, "_processes": processes}
    | more
    for (kind, (processes, more)), nesterov in itertools.product(KINDS.items(), (False, True))
}


def model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))


def batch(step):
    draw = torch.Generator().manual_seed(step)
    return torch.randn(IMAGES, 6, generator=draw), torch.randint(4, (IMAGES,), generator=draw)


def after_each_epoch(*, rank, progress, cases):
    """For every case, the weights that this rank tells at the end of each epoch, as one list."""
    told = {}
    for name, case in cases.items():
        spec = Spec(**{key: value for key, value in case.items() if key != "_processes"})
        place = Place(rank if spec.processes > 1 else 0, spec.processes, CPU, STEPS, EPOCHS)
        trainer, told[name] = strategy_class(spec.strategy)(model(), spec, place), []
        for epoch in range(EPOCHS):
            for step in range(STEPS):
                x, y = batch(STEPS * epoch + step)
                part, parts = trainer.shard or (0, 1)
                trainer.step(*((None, None) if trainer.shard is None else (x.chunk(parts)[part], y.chunk(parts)[part])))
            told[name].append(torch.cat([weights.flatten() for weights in trainer.state().values()]).tolist())
    return told


def by_hand(nesterov):
    """SGD as its formula stands, on whole batches."""
    trained, after, spec = model(), [], Spec(**SGD)
    velocity = [torch.zeros_like(p) for p in trained.parameters()]
    for step in range(EPOCHS * STEPS):
        x, y = batch(step)
        gradients = torch.autograd.grad(cross_entropy(trained(x), y), list(trained.parameters()))
        with torch.no_grad():
            for p, v, gradient in zip(trained.parameters(), velocity, gradients, strict=True):
                gradient = gradient + SGD["weight_decay"] * p
                v.mul_(SGD["momentum"]).add_(gradient)
                rate = SGD["lr"] * learning_rate_factor(spec, EPOCHS * STEPS, step)
                p -= rate * (gradient + SGD["momentum"] * v if nesterov else v)
        if step % STEPS == STEPS - 1:
            after.append(torch.cat([p.detach().flatten() for p in trained.parameters()]))
    return after


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """By case, what each rank told."""
    found = {}
    for processes in (1, 2, 3):
        cases = {name: case for name, case in CASES.items() if case["_processes"] == processes}
        if processes == 1:
            ranks = [after_each_epoch(rank=0, progress=None, cases=cases)]
        else:
            folder = tmp_path_factory.mktemp("ranks")
            ranks = in_workers("after_each_epoch", processes, folder, "tests.strategies.test_optimizer_state", cases=cases)
        found |= {name: [rank[name] for rank in ranks] for name in cases}
    return found


@pytest.mark.parametrize("name", CASES)
def test_weights_after_each_epoch_are_the_formulas(told, name):
    expected, other = by_hand(CASES[name]["nesterov"]), by_hand(not CASES[name]["nesterov"])
    assert (expected[0] - other[0]).abs().max() > 0.01, "Nesterov's momentum and the plain one end far apart"
    for rank, epochs in enumerate(told[name]):
        for epoch, weights in enumerate(epochs):
            away = (torch.tensor(weights) - expected[epoch]).abs().max()
            assert away < 1e-5, f"{name}: after epoch {epoch + 1} a weight on rank {rank} is {away:.1e} away from the formula's"


def test_every_strategy_is_here():
    assert {case["strategy"] for case in CASES.values()} == set(STRATEGIES), "add the new strategy to KINDS"


# -- fp16's skipped steps --------------------------------------------------------------------------------------------

HALVES = {
    "fsdp": {"strategy": "fsdp"},
    "model_parallel": {"strategy": "model_parallel"},
    "model_parallel, gpipe": {"strategy": "model_parallel", "micro_batches": 4},
    "model_parallel, for_loop": {"strategy": "model_parallel", "optimizer_impl": "for_loop"},
}


def overflowing(*, rank, progress, cases):
    """For every case three steps with fp16; in the first the gradients that rank 1 holds overflow, in the second all ranks'. The
    weights before and after each, the loss scale after each."""
    told = {}
    for name, case in cases.items():
        spec, first = Spec(**SGD, **case, world_size=2, amp=True, amp_dtype="fp16"), model()
        trainer = strategy_class(spec.strategy)(first, spec, Place(rank, 2, CPU, 3, 1))
        steps = []
        trainer.precision.step, weights = spoilt(trainer.precision, rank, steps), [weights_of(trainer)]
        for step in range(3):
            part, parts = trainer.shard
            x, y = batch(step)
            trainer.step(x.chunk(parts)[part], y.chunk(parts)[part])
            weights.append(weights_of(trainer))
        told[name] = {"weights": weights, "scales": steps}
    return told


def spoilt(precision, rank, scales):
    """Its `step`, which finds infinite gradients: at first on rank 1, then on both; the loss scale after each goes into `scales`."""
    update = precision.step

    def step(optimizer):
        for p in optimizer.param_groups[0]["params"] if len(scales) == 1 or (rank == 1 and not scales) else ():
            p.grad.mul_(float("inf"))
        update(optimizer)
        scales.append(precision.scaler.get_scale())

    return step


def weights_of(trainer):
    return torch.cat([weights.flatten() for weights in trainer.state().values()]).tolist()


@pytest.fixture(scope="module")
def overflown(tmp_path_factory):
    return in_workers("overflowing", 2, tmp_path_factory.mktemp("ranks"), "tests.strategies.test_optimizer_state", cases=HALVES)


@pytest.mark.parametrize("name", HALVES)
def test_an_overflow_on_one_rank_skips_the_step_on_all(overflown, name):
    """Each rank holds gradients of its own part of the weights: one that went on alone would train half of the model."""
    for rank, told in enumerate(overflown):
        before, skipped, again, after = told[name]["weights"]
        assert before == skipped == again, f"{name}, rank {rank}: some weights were updated"
        assert max(abs(a - b) for a, b in zip(after, skipped, strict=True)) > 1e-3, f"{name}: the next step updates"
        assert told[name]["scales"] == [2.0**15, 2.0**14, 2.0**14], f"{name}, rank {rank}: each rank halves the scale of 65536"


def test_a_warm_up_takes_whole_steps_and_is_never_shorter_than_asked():
    """A quarter of ten steps: three, since the learning rate rises once a step; the fourth is the first of the schedule."""
    spec = Spec(warmup_fraction=0.25, lr_schedule="linear")
    factors = [learning_rate_factor(spec, 10, step) for step in range(10)]
    assert factors == pytest.approx([1 / 3, 2 / 3, 1, *(1 - k / 7 for k in range(7))])


@pytest.mark.filterwarnings("ignore:.*GradScaler is enabled, but CUDA is not available")
@pytest.mark.parametrize(
    ("device", "asked", "dtype"),
    [
        ("cpu", "auto", torch.bfloat16),
        ("cuda", "auto", torch.float16),
        ("cpu", "fp16", torch.float16),
        ("cuda", "bf16", torch.bfloat16),
    ],
)
def test_the_type_of_mixed_precision(device, asked, dtype):
    """fp16 is what the published rows had on their GPUs; on a CPU, bf16 is the one that torch computes fast."""
    autocast = Precision(Spec(amp=True, amp_dtype=asked), Place(0, 1, torch.device(device), 1, 1)).autocast
    assert (autocast.args[0], autocast.keywords["dtype"], autocast.keywords["enabled"]) == (device, dtype, True)
