"""Faults planted in sound strategies are caught: by the equality proof, or by the run itself, which is then no result.

Each fault counts in `injected` how often it really acted, and every set-up without a fault passes the same check.
"""

import importlib
from unittest.mock import patch

import pytest
from torch.nn.parallel import DistributedDataParallel

from labkit.data.datasets import prepare
from labkit.processes.diagnose import RunFailed
from tests.helpers.workers import in_workers
from tests.strategies.test_equality import RTOL, over

# -- the faults: each makes a strategy by `build()` and spoils it, inside a worker ----------------------------------


def sum_for_mean(build, spec, place, injected):
    trainer = build()

    def spoil(optimizer, *_):
        injected.append("the gradients of all ranks are added, not averaged")
        for p in optimizer.param_groups[0]["params"]:
            if p.grad is not None:
                p.grad.mul_(spec.world_size)

    if hasattr(trainer, "optimizer"):  # a server's workers have none
        trainer.optimizer.register_step_pre_hook(spoil)
    return trainer


def no_division(build, spec, place, injected):
    trainer = build()
    injected.append("collective's own division by the number of ranks does nothing")
    trainer.world_size = 1
    return trainer


def no_broadcast(build, spec, place, injected):
    module = importlib.import_module(f"labkit.strategies.{spec.strategy}")

    def without_sync(*arguments, **settings):
        injected.append("DDP does not start from rank 0's weights")
        return DistributedDataParallel(*arguments, **settings, init_sync=False)

    if spec.strategy == "ddp":
        patch.object(module.nn.parallel, "DistributedDataParallel", without_sync).start()
    else:
        patch.object(module, "broadcast_from_rank0", injected.append).start()
    return build()


def unwrapped(build, spec, place, injected):
    trainer = build()

    def plain_model(x):
        injected.append("the wrapped model exists, and the plain one is trained")
        return trainer.model(x)

    trainer.replica = plain_model
    return trainer


def others_shard(build, spec, place, injected):
    trainer = build()
    if place.rank == 1:
        injected.append("rank 1 trains rank 0's images")
        trainer.shard = (0, spec.world_size)
    return trainer


def whole_batch(build, spec, place, injected):
    trainer = build()
    injected.append("every rank trains every image: one process's work, N times, counted N times")
    trainer.shard = (0, 1)
    return trainer


def old_answer(build, spec, place, injected):
    trainer = build()
    if trainer.shard is None:
        module = importlib.import_module("labkit.strategies.parameter_server")
        flat, kept = module.flat, [module.flat(trainer.parameters)]

        def one_update_late(tensors):
            injected.append("the server answers with the weights before the update")
            kept.append(flat(tensors))
            return kept.pop(0)

        patch.object(module, "flat", one_update_late).start()
    return trainer


def old_weights(build, spec, place, injected):
    trainer = build()
    if trainer.shard is None:
        kept = [[p.detach().clone() for p in trainer.parameters]]

        def forget_last_update(*_):
            injected.append("the server applies a push to the weights before the last one")
            kept.append([p.detach().clone() for p in trainer.parameters])
            for p, old in zip(trainer.parameters, kept.pop(0), strict=True):
                p.detach().copy_(old)

        trainer.optimizer.register_step_pre_hook(forget_last_update)
    return trainer


def nan_on(*ranks):
    def plant(build, spec, place, injected):
        trainer = build()
        step, calls = trainer.step, []

        def step_on_nan(x, y):
            calls.append(1)
            if place.rank in ranks and len(calls) == 2:
                injected.append("images that are no numbers")
                x = x * float("nan")
            return step(x, y)

        trainer.step = step_on_nan
        return trainer

    return plant


FAULTS = {
    "a sum for the mean": sum_for_mean,
    "the division left out": no_division,
    "no broadcast": no_broadcast,
    "an unwrapped model": unwrapped,
    "the other's shard": others_shard,
    "the whole batch on each rank": whole_batch,
    "a server with old answers": old_answer,
    "a server with old weights": old_weights,
    "NaN on rank 1": nan_on(1),
    "NaN on rank 0": nan_on(0),
    "NaN on all ranks": nan_on(0, 1),
}
SETTINGS = {"ddp": {"static_graph": True}, "parameter_server": {"consistency": "sync"}}
UNEQUAL = {  # what equality must flag
    "a sum for the mean": ["data_parallel", "ddp", "fsdp", "collective", "parameter_server"],
    "the division left out": ["collective"],
    "no broadcast": ["ddp", "fsdp", "collective", "model_parallel", "parameter_server"],
    "an unwrapped model": ["ddp"],
    "the other's shard": ["ddp", "fsdp", "collective", "parameter_server"],
    "a server with old answers": ["parameter_server"],
    "a server with old weights": ["parameter_server"],
}
EQUALITY = [(strategy, fault) for fault, strategies in UNEQUAL.items() for strategy in strategies]
APART, IMAGES = "the weights of rank", "ranks share or skip a shard"
ONE, ALL = "the loss of rank 1 was not finite in epoch 1, step 2", "not finite in epoch 1, step 2, on every rank"
SHARDED = ("ddp", "fsdp", "collective", "parameter_server")
REPORTED = [  # what the run itself must refuse, and what it must say
    ("ddp", "no broadcast", APART),
    ("collective", "no broadcast", APART),
    ("ddp", "an unwrapped model", APART),
    ("parameter_server", "a server with old answers", APART),
    *((strategy, "the other's shard", IMAGES) for strategy in SHARDED),
    *((strategy, "the whole batch on each rank", IMAGES) for strategy in SHARDED[:3]),
    *((strategy, "NaN on rank 1", ONE) for strategy in SHARDED),
    *((strategy, "NaN on all ranks", ALL) for strategy in SHARDED),
    ("single", "NaN on rank 0", ALL),
    ("data_parallel", "NaN on rank 0", ALL),
    ("model_parallel", "NaN on rank 0", ALL),  # only the last stage ever sees a loss
]


def cases_of(pairs, make):
    """The cases with a fault, each set-up's case without, by how many processes they need."""
    by_processes = {2: {}, 3: {}}
    for strategy, fault in pairs:
        into = by_processes[3 if strategy == "parameter_server" else 2]
        into[f"{strategy}, sound"] = make(strategy)
        into[f"{strategy}, {fault}"] = make(strategy) | {"_fault": fault}
    return by_processes


def for_equality(strategy):
    return over(2, strategy, **SETTINGS.get(strategy, {}))


def for_run(strategy):
    scale = {"dataset": "digits", "image_size": 8, "width": 8, "train_samples": 24, "test_samples": 20, "cache": "true"}
    world_size = 1 if strategy == "single" else 2
    return {"strategy": strategy, "world_size": world_size, "batch_per_rank": 4, **scale, **SETTINGS.get(strategy, {})}


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return str(prepare("digits", tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """For every case, what each rank says of its weights beside single's."""
    return launched("equality", cases_of(EQUALITY, for_equality), tmp_path_factory)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, data):
    """For every case, what each rank's labkit.engine.loop.train came to."""
    return launched(
        "runs", cases_of([(strategy, fault) for strategy, fault, _ in REPORTED], for_run), tmp_path_factory, data=data
    )


def launched(function, by_processes, tmp_path_factory, **arguments):
    told = {}
    for processes, cases in by_processes.items():
        ranks = in_workers(function, processes, tmp_path_factory.mktemp(function), cases=cases, **arguments)
        told |= {name: [rank[name] for rank in ranks] for name in cases}
    return told


@pytest.mark.parametrize(("strategy", "fault"), EQUALITY)
def test_equality_flags(compared, strategy, fault):
    """Every rank sees it. For some faults this is the only net: where all ranks compute the same wrong thing (a sum, the
    stages' or shards' first weights from different seeds), a run has nothing to compare itself with."""
    for rank, told in enumerate(compared[f"{strategy}, sound"]):
        assert not told["error"] and told["difference"] <= RTOL, f"sound {strategy}, rank {rank}, must equal single: {told}"
    ranks = compared[f"{strategy}, {fault}"]
    assert sum(told["injected"] for told in ranks), f"{fault}: was not injected into {strategy}, so nothing is proved"
    for rank, told in enumerate(ranks):
        assert not told["error"], f"rank {rank} of {strategy} should train on with {fault}: {told['error']}"
        assert told["difference"] > 100 * RTOL, f"{fault} in {strategy}: rank {rank} still ends at single's weights: {told}"


@pytest.mark.parametrize(("strategy", "fault", "said"), REPORTED)
def test_run_is_not_a_result(trained, strategy, fault, said):
    """labkit.engine.loop.train raises NotAResult, on every rank at once (so that no rank is left waiting), and says what it saw."""
    for rank, told in enumerate(trained[f"{strategy}, sound"]):
        assert not told["error"], f"without the fault, rank {rank} of {strategy} must train: {told['error']}"
    ranks = trained[f"{strategy}, {fault}"]
    assert sum(told["injected"] for told in ranks), f"{fault}: was not injected into {strategy}, so nothing is proved"
    for rank, told in enumerate(ranks):
        error = told["error"] or "no error at all"
        assert error.startswith("NotAResult"), f"{fault} in {strategy}: rank {rank} should raise NotAResult, but: {error}"
        assert said in error, f"{fault} in {strategy}: rank {rank} should say '{said}', not: {error}"


def test_caller_hears_why(tmp_path, data):
    """A run that is not a result fails its launch, and the message is the rank's."""
    with pytest.raises(RunFailed, match="NotAResult: the weights of rank 1 differ from rank 0's") as caught:
        in_workers("run", 2, tmp_path, data=data, case=for_run("ddp") | {"_fault": "an unwrapped model"})
    assert caught.value.status == "failed", f"a run whose ranks disagree has failed, it is not '{caught.value.status}'"
    told = in_workers("run", 2, tmp_path, data=data, case=for_run("ddp"))
    assert [len(rank["epochs"]) for rank in told] == [1, 1], "the same row without the fault gives a result"
