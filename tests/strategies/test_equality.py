"""Every exact strategy and setting ends at the weights of one process that trains the whole batch.

After five steps of SGD with momentum, weight decay and a changing learning rate, every rank compares its weights with
those of a twin that it trains alone. The model (labkit.proof.models.traps) has traps: tied weights, a frozen parameter, one
that gets no gradient, a random buffer; and every rank starts from other random weights.
"""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

import labkit.strategies
from labkit.proof.models import traps
from labkit.rows.kinds import KINDS, STRATEGIES
from labkit.strategies import strategy_class
from tests.helpers.workers import IMAGES, STEPS, batch, in_workers

RTOL = 1e-5  # with 0.01 as floor for small weights, so that atol is 1e-7


def over(world_size, strategy, **settings):
    """A case whose ranks together take the same IMAGES images per step as single does."""
    images = IMAGES if strategy == "model_parallel" else IMAGES // world_size
    return {"strategy": strategy, "world_size": world_size, "batch_per_rank": images, "_model": "traps"} | settings


ONE_OR_TWO_PROCESSES = {
    "single, beside SGD's formula": over(1, "single", _twin="mean of shards"),
    "single, NCHW, beside SGD's formula": over(1, "single", _twin="mean of shards", channels_last=False),
    "single, for_loop": over(1, "single", optimizer_impl="for_loop"),
    "single, foreach": over(1, "single", optimizer_impl="foreach"),
    "ddp, all used": over(2, "ddp", _model="all used"),
    "ddp, all used, bucket view": over(2, "ddp", _model="all used", gradient_as_bucket_view=True),
    "ddp, all used, small buckets": over(2, "ddp", _model="all used", bucket_mb=0.001),
    "ddp, static graph": over(2, "ddp", static_graph=True),
    "ddp, static graph, bucket view": over(2, "ddp", static_graph=True, gradient_as_bucket_view=True),
    "ddp, static graph, small buckets": over(2, "ddp", static_graph=True, bucket_mb=0.001),
    "ddp, static graph, NCHW": over(2, "ddp", static_graph=True, channels_last=False),
    "fsdp, grad": over(2, "fsdp", sharding="grad"),
    "fsdp, full": over(2, "fsdp", sharding="full"),
    "fsdp, full, for_loop": over(2, "fsdp", sharding="full", optimizer_impl="for_loop"),
    "collective, per parameter": over(2, "collective", form="per_parameter"),
    "collective, flat": over(2, "collective", form="flat"),
    "collective, ring": over(2, "collective", form="ring"),
    "collective, buckets": over(2, "collective", form="buckets"),
    "collective, small buckets": over(2, "collective", form="buckets", bucket_mb=0.001),
    "model_parallel": over(2, "model_parallel"),
    "model_parallel, NCHW": over(2, "model_parallel", channels_last=False),
    "model_parallel, 4 micro-batches, gpipe": over(2, "model_parallel", micro_batches=4),
    "model_parallel, 4 micro-batches, 1f1b": over(2, "model_parallel", micro_batches=4, schedule="1f1b"),
    "model_parallel, 4 micro-batches, NCHW": over(2, "model_parallel", micro_batches=4, channels_last=False),
    "data_parallel": over(2, "data_parallel"),
    "data_parallel, 3 replicas": over(3, "data_parallel"),
    "parameter_server, async, 1 worker": over(1, "parameter_server"),
    "ddp, tied across blocks": over(2, "ddp", _model="tied across"),
    "collective, tied across blocks": over(2, "collective", form="buckets", bucket_mb=0.001, _model="tied across"),
    "data_parallel, tied across blocks": over(2, "data_parallel", _model="tied across"),
}
# A strategy of one's own, that kinds.py does not know. No parameter without a gradient: DDP, which it may wrap, refuses that.
ONE_OR_TWO_PROCESSES |= {name: over(2, name, _model="all used") for name in STRATEGIES if name not in KINDS}
# resnet18 of labkit.engine.models, in float64: its ReLUs and norms would make 1e-4 of float32's rounding in five such steps
RESNETS = {
    "ddp, group norm": over(2, "ddp", _model="group norm"),
    "fsdp, group norm": over(2, "fsdp", _model="group norm"),
    "collective, group norm": over(2, "collective", _model="group norm"),
    "data_parallel, group norm": over(2, "data_parallel", _model="group norm"),
    "model_parallel, batch norm": over(2, "model_parallel", _model="batch norm"),
    "model_parallel, 4 micro-batches, group norm": over(2, "model_parallel", micro_batches=4, _model="group norm"),
    "ddp, batch norm, mean of shards": over(2, "ddp", _model="batch norm", _twin="mean of shards"),
    "fsdp, batch norm, mean of shards": over(2, "fsdp", _model="batch norm", _twin="mean of shards"),
    "collective, batch norm, mean of shards": over(2, "collective", _model="batch norm", _twin="mean of shards"),
    "data_parallel, batch norm, mean of shards": over(2, "data_parallel", _model="batch norm", _twin="mean of shards"),
}
DIFFERENT = {
    "ddp, batch norm": over(2, "ddp", _model="batch norm"),
    "model_parallel, 4 micro-batches, batch norm": over(2, "model_parallel", micro_batches=4, _model="batch norm"),
}
REFUSED = {
    "fsdp, tied across blocks": over(2, "fsdp", _model="tied across"),
    "model_parallel, tied across the cut": over(2, "model_parallel", _model="tied across"),
    "ddp, one parameter without gradient": over(2, "ddp"),
}
THREE_PROCESSES = {
    "parameter_server, sync": over(2, "parameter_server", consistency="sync"),
    "parameter_server, sync, NCHW": over(2, "parameter_server", consistency="sync", channels_last=False),
    "parameter_server, sync, for_loop": over(2, "parameter_server", consistency="sync", optimizer_impl="for_loop"),
    "parameter_server, ssp 0": over(2, "parameter_server", consistency="ssp", staleness_bound=0),
    "parameter_server, sync, tied across blocks": over(2, "parameter_server", consistency="sync", _model="tied across"),
    "collective, ring": over(3, "collective", form="ring"),
    "ddp, static graph": over(3, "ddp", static_graph=True),
    "fsdp, full": over(3, "fsdp", sharding="full"),
}
THREE_STAGES = {
    "model_parallel": over(3, "model_parallel"),
    "model_parallel, 4 micro-batches, 1f1b": over(3, "model_parallel", micro_batches=4, schedule="1f1b"),
}
FOUR_PROCESSES = {
    "collective, ring": over(4, "collective", form="ring"),
    "ddp, static graph": over(4, "ddp", static_graph=True),
    "parameter_server, sync, 3 workers": over(3, "parameter_server", consistency="sync"),
}


def launched(processes, cases):
    @pytest.fixture(scope="session")
    def outcomes(tmp_path_factory):
        return in_workers("equality", processes, tmp_path_factory.mktemp("equality"), cases=cases)

    return outcomes


two = launched(2, ONE_OR_TWO_PROCESSES | RESNETS | DIFFERENT | REFUSED)
three = launched(3, THREE_PROCESSES)
stages = launched(3, THREE_STAGES)
four = launched(4, FOUR_PROCESSES)


def assert_equal(outcomes, name, twin="single's"):
    for rank, outcome in enumerate(outcomes):
        told = outcome[name]
        assert not told["error"], f"{name}: rank {rank} failed: {told['error']}"
        assert told["difference"] <= RTOL, (
            f"{name}: after {STEPS} steps a weight on rank {rank} is {told['difference']:.1e} (relative) away from {twin}; "
            f"the same arithmetic in another order explains {RTOL:g} at most"
        )


@pytest.mark.parametrize("name", ONE_OR_TWO_PROCESSES)
def test_equals_single(two, name):
    assert_equal(two, name)


@pytest.mark.parametrize("name", THREE_PROCESSES)
def test_equals_single_on_three_processes(three, name):
    assert_equal(three, name)


@pytest.mark.parametrize("name", THREE_STAGES)
def test_equals_single_in_three_stages(stages, name):
    """The middle stage is the only one that both receives and sends in both directions."""
    assert_equal(stages, name)


@pytest.mark.parametrize("name", FOUR_PROCESSES)
def test_equals_single_on_four_processes(four, name):
    assert_equal(four, name)


@pytest.mark.parametrize("name", RESNETS)
def test_resnet_equals_its_twin(two, name):
    """GroupNorm normalises every image by itself, and model_parallel sees the batch whole: both equal single.

    BatchNorm on a shard normalises by the shard's own mean and variance. A data-parallel step is then the mean of the
    gradients that each shard has alone, and only that; the running statistics kept for evaluation are rank 0's.
    """
    assert_equal(two, name, twin="the mean of the shards'" if "_twin" in RESNETS[name] else "single's")


def test_batch_norm_on_shards_is_not_single(two):
    """What differs from single, and why: BatchNorm divides by the deviation of the images that it sees at once, and a
    rank sees its shard. The loss of an image then depends on its neighbours in the shard, so the mean of the shards'
    gradients is the gradient of another function. Larger batches per rank, SyncBatchNorm or norm=group shrink or
    close the gap; test_resnet_equals_its_twin shows that nothing else differs."""
    for rank, outcome in enumerate(two):
        told = outcome["ddp, batch norm"]
        assert not told["error"] and told["difference"] > 1e-3, f"rank {rank} should differ from single: {told}"


def test_batch_norm_sees_micro_batches(two):
    """A pipeline normalises every micro-batch by itself: with BatchNorm, micro_batches changes the result."""
    for rank, outcome in enumerate(two):
        told = outcome["model_parallel, 4 micro-batches, batch norm"]
        assert not told["error"] and told["difference"] > 1e-3, f"rank {rank} should differ from one micro-batch: {told}"


@pytest.mark.parametrize(
    ("name", "said"),
    {
        # FSDP2 manages a parameter in one unit only: tied weights must lie within one block of the model.
        "fsdp, tied across blocks": "ValueError: a parameter is tied across blocks",
        # Each stage would update a copy of its own, and no stage sees the other's gradient.
        "model_parallel, tied across the cut": "ValueError: a parameter is tied across the cut",
        # The reducer waits for every parameter's gradient before it ends a step. static_graph=True learns in the first
        # step which never come, and passes all traps; find_unused_parameters would search the graph in every step.
        "ddp, one parameter without gradient": "RuntimeError: Expected to have finished reduction in the prior iteration",
    }.items(),
)
def test_traps_that_a_library_cannot_take_are_refused(two, name, said):
    """Loudly, on every rank, and not by training something else."""
    for rank, outcome in enumerate(two):
        assert outcome[name]["error"].startswith(said), f"{name}: rank {rank} should raise '{said}...', but: {outcome[name]}"


def test_traps_are_set():
    """The model is what the docstrings say; otherwise equality would prove less."""
    model, other = traps(), traps()
    x, y = batch(0, model)
    cross_entropy(model(x), y).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == ["0.0.bias", "2.never"], f"one frozen parameter and one outside the graph have no gradient, not {without}"
    assert model[1][2].weight is model[1][0].weight, "two layers of one block share their weight"
    assert not torch.equal(model[0][1].drawn, other[0][1].drawn), "two models drawn one after the other differ, buffer included"


def test_strategies_are_found_by_glob():
    """A file in labkit/strategies is a strategy, by its name: no list to forget it in, and none without an equality test."""
    files = sorted(p.stem for p in Path(labkit.strategies.__file__).parent.glob("*.py") if p.stem != "__init__")
    assert files == STRATEGIES, f"labkit.rows.spec finds {STRATEGIES}, the folder holds {files}"
    proved = {case["strategy"] for case in (ONE_OR_TWO_PROCESSES | THREE_PROCESSES).values()}
    assert proved == set(files), f"no equality test for {set(files) - proved}: add a case to tests/strategies/test_equality.py"


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategy_file_holds_one_strategy(name):
    found = strategy_class(name)
    assert found.__module__ == f"labkit.strategies.{name}", f"{name}.py: the class must be written there, not imported"
    assert found.__bases__ == (object,), f"{found.__name__}: strategies share helpers by calling them, and inherit nothing"
    assert callable(found.step) and callable(found.state), f"{found.__name__}: needs step() and state(), see labkit/strategy.py"
