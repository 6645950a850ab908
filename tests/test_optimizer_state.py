"""Momentum, Nesterov's variant of it and the schedule go on from epoch to epoch, in every strategy.

Three epochs of two steps; after each, as the loop does, the strategy is asked for its weights. They are those of the formula.
"""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from labkit.spec import STRATEGIES, Spec
from labkit.strategy import Place, learning_rate_factor, strategy_class
from tests.workers import CPU, in_workers

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
            ranks = in_workers("after_each_epoch", processes, folder, "tests.test_optimizer_state", cases=cases)
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
