"""Every axis bites: a setting changes what it should, in every strategy that has it, and nothing else.

Each row here really trains through labkit.engine.loop.train, on digits at 8x8 pixels and a ResNet-18 of width 2, and
tests.helpers.workers.Seen looks on from inside: at the types and batches in every convolution, the messages of one step, the weights.
"""

import itertools

import pytest

from labkit.data.datasets import prepare
from labkit.engine.models import build_model
from labkit.rows.kinds import STRATEGIES
from tests.helpers.axis_cases import BLOCKS, BOUNDS, CONSISTENCIES, KINDS, SERVER, TRAINABLE, all_cases, called
from tests.helpers.workers import in_workers


@pytest.fixture(scope="session")
def seen(tmp_path_factory):
    """By (kind, axis), what was seen on each rank."""
    data, cases, told = str(prepare("digits", tmp_path_factory.mktemp("data"))), all_cases(), {}
    for processes in (2, 3):
        some = {called(*key): case for key, case in cases.items() if (key[0] == SERVER) == (processes == 3)}
        ranks = in_workers("runs", processes, tmp_path_factory.mktemp("runs"), data=data, cases=some)
        told |= {name: [rank[name] for rank in ranks] for name in some}

    def look(kind, axis="as it is"):
        for rank, outcome in enumerate(told[called(kind, axis)]):
            assert not outcome["error"], f"{called(kind, axis)}: rank {rank} failed: {outcome['error']}"
        return told[called(kind, axis)]

    return look


def of_step(seen, name, message):
    return seen(name)[0]["messages"].get(f"gloo:{message}", 0)


every_kind = pytest.mark.parametrize("kind", KINDS)


def test_every_strategy_is_here():
    assert {case["strategy"] for case in KINDS.values()} == set(STRATEGIES), (
        "add the new strategy to KINDS in tests/helpers/axis_cases.py"
    )


@every_kind
@pytest.mark.parametrize(("axis", "dtype"), {"as it is": "float32", "amp": "bfloat16", "amp fp16": "float16"}.items())
def test_amp_sets_the_type_of_every_convolution(seen, kind, axis, dtype):
    """On every rank and in every micro-batch and replica; and training in that type ends at other weights, not at NaN."""
    types = [outcome["dtypes"] for outcome in seen(kind, axis) if outcome["dtypes"]]
    assert types and all(found == [f"torch.{dtype}"] for found in types), f"{kind}, {axis}: convolutions computed in {types}"
    control = "longer" if axis == "amp fp16" else "as it is"  # of as many steps
    changed = seen(kind, axis)[0]["weights"] != seen(kind, control)[0]["weights"]
    assert changed == (axis != "as it is"), f"{kind}: {axis} must change the weights, since it rounds"


@every_kind
def test_fp16_makes_updates(seen, kind):
    """A step whose gradients overflow halves the scale and is skipped; those of a run that skips all of them say nothing."""
    scales = [65536.0, *seen(kind, "amp fp16")[0]["scales"]]
    made = sum(after >= before for before, after in itertools.pairwise(scales))
    assert len(scales) == 17 and made >= 4, f"{kind}: of 16 steps only {made} made an update; the scale went {scales}"
    assert set(seen(kind)[0]["scales"]) == {1.0}, "without fp16 no loss is scaled"


@every_kind
def test_batch_is_what_one_rank_takes_in(seen, kind):
    expected = 2 if "micro" in kind else KINDS[kind]["batch_per_rank"]
    for axis, batch, steps in (("as it is", expected, 4), ("batch", 2 * expected, 1)):
        for outcome in seen(kind, axis):
            met, made = outcome["batches"], outcome["steps"]
            assert met in ([batch], []), f"{kind}, {axis}: a convolution met {met} images, not {batch}"
            assert made == steps, f"{kind}, {axis}: {steps} steps should use up the images, not {made}"
        assert seen(kind, axis)[0]["batches"], f"{kind}, {axis}: rank 0 computed nothing"


@every_kind
@pytest.mark.parametrize(("axis", "width"), {"as it is": 8, "width": 12}.items())
def test_width_sets_the_size_of_the_model(seen, kind, axis, width):
    wanted = sum(p.numel() for p in build_model("resnet18", width, 1, 10).parameters())
    assert {outcome["parameters"] for outcome in seen(kind, axis)} == {wanted}, f"{kind}: width={width} means {wanted} parameters"


@every_kind
@pytest.mark.parametrize("axis", ["seed", "lr", "cache frozen"])
def test_axis_changes_the_weights(seen, kind, axis):
    """`cache true` below is the control: the same arithmetic ends at the same weights, bit for bit."""
    assert seen(kind, axis)[0]["weights"] != seen(kind)[0]["weights"], f"{kind}: {axis} changed nothing"


@every_kind
def test_cache_true_changes_no_weight(seen, kind):
    weights = {outcome["weights"] for axis in ("as it is", "cache true") for outcome in seen(kind, axis)}
    assert len(weights) == 1, f"{kind}: with cache true and false every rank must end at the same weights, bit for bit: {weights}"


@every_kind
def test_cache_frozen_differs_from_the_second_epoch_on(seen, kind):
    fresh, frozen = ([e["train_loss"] for e in seen(kind, axis)[0]["epochs"]] for axis in ("as it is", "cache frozen"))
    assert frozen[0] == fresh[0], f"{kind}: in the first epoch cache=frozen augments as any other"
    assert frozen[1] != fresh[1], f"{kind}: in the second epoch cache=frozen must repeat the first's crops, others not"


@every_kind
@pytest.mark.parametrize(("axis", "layout"), {"as it is": "NHWC", "NCHW": "NCHW"}.items())
def test_channels_last_sets_the_layout(seen, kind, axis, layout):
    found = seen(kind, axis)[0]["layout"]
    assert found == layout, f"{kind}, {axis}: the first layer's images lie as {found}"


def test_norm(seen):
    assert seen("norm group")[0]["weights"] != seen("single")[0]["weights"], "norm=group trained as norm=batch does"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "collective"])
def test_norm_sync_trains_as_one_process_and_norm_batch_does_not(seen, strategy):
    """Statistics over all ranks are those of the whole batch, so the losses are single's up to rounding, in both epochs."""
    single, sync, batch = (
        [e["train_loss"] for e in seen(name)[0]["epochs"]] for name in ("single", f"{strategy}, norm sync", strategy)
    )
    assert sync == pytest.approx(single, rel=2e-3), f"{strategy}: norm=sync trained to {sync}, one process to {single}"
    assert batch != pytest.approx(single, rel=1e-2), f"{strategy}: norm=batch normalises each rank's images by themselves"


def test_statistics_of_evaluation_change_the_accuracy_alone(seen):
    fresh, running = seen("single")[0], seen("running")[0]
    assert fresh["weights"] == running["weights"], "how a model is evaluated must not change how it is trained"
    assert [e["train_loss"] for e in fresh["epochs"]] == [e["train_loss"] for e in running["epochs"]]
    assert [e["test_acc_pct"] for e in fresh["epochs"]] != [e["test_acc_pct"] for e in running["epochs"]]


@pytest.mark.parametrize(
    ("name", "order"),
    {  # F: a forward through the first stage, B: its backward. As many activations are held as F is ahead of B.
        "model_parallel": "FB",
        "micro_batches 2": "FFBB",
        "model_parallel, 4 micro-batches": "FFFFBBBB",
        "micro_batches 4, 1f1b": "FFBFBFBB",
    }.items(),
)
def test_micro_batches_flow_in_their_order(seen, name, order):
    """Each crosses the cut twice, so messages count them; 1F1B holds 2 activations where GPipe holds all 4."""
    first = seen(name)[0]
    assert first["order_of_step"] == order, f"{name}: the first stage computed {first['order_of_step']}, not {order}"
    sent, received = (of_step(seen, name, message) for message in ("send", "recv"))
    assert sent == received == order.count("F"), f"{name}: {sent} activations went out and {received} gradients came back"


def test_micro_batches_change_the_weights_through_batch_norm(seen):
    names = ("model_parallel", "micro_batches 2", "model_parallel, 4 micro-batches")
    weights = [seen(name)[0]["weights"] for name in names]
    assert len(set(weights)) == 3, "BatchNorm normalises each micro-batch by itself, so their number must show in the weights"


@pytest.mark.parametrize(("large", "small"), [("ddp", "ddp, small buckets"), ("buckets", "small buckets")])
def test_bucket_mb_sets_the_number_of_messages(seen, large, small):
    one, many = (of_step(seen, name, "all_reduce") for name in (large, small))
    assert one == 1, f"{large}: all gradients fit into one bucket of 25 MiB, but {one} were sent"
    assert 2 < many < TRAINABLE, f"{small}: buckets of 0.01 MiB hold some of the {TRAINABLE} gradients each, but {many} were sent"


def test_bucket_view_keeps_gradients_in_the_buckets(seen):
    apart, inside = (seen(name)[0]["storages_of_gradients"] for name in ("ddp", "ddp, bucket view"))
    assert (apart, inside) == (TRAINABLE, 1), f"{TRAINABLE} gradients of their own, or one bucket: not {apart} and {inside}"


@pytest.mark.parametrize(("form", "messages"), {"per_parameter": (TRAINABLE, 0), "collective": (1, 0), "ring": (0, 2)}.items())
def test_form_sets_the_messages(seen, form, messages):
    """The ring of N=2 ranks sends 2 (N-1) chunks and calls no all-reduce of the library."""
    found = of_step(seen, form, "all_reduce"), of_step(seen, form, "send")
    assert found == messages, f"{form}: {found} all-reduces and sends in a step"


@pytest.mark.parametrize(("name", "freed", "gathers"), [("fsdp", 0, BLOCKS), ("sharding full", TRAINABLE, 2 * BLOCKS)])
def test_sharding_frees_parameters_after_forward(seen, name, freed, gathers):
    """full: each block's parameters are given up after its forward and gathered again for its backward."""
    told = seen(name)[0]
    assert told["sharded_after_forward"] == freed, f"{name}: {told['sharded_after_forward']} parameters were freed, not {freed}"
    found = of_step(seen, name, "all_gather")
    assert found == gathers, f"{name}: {found} all-gathers in a step for {BLOCKS} blocks, not {gathers}"


@pytest.mark.parametrize("name", CONSISTENCIES)
def test_staleness_is_bounded_and_the_bound_is_reached(seen, name):
    """While worker 1 sleeps, worker 0 runs ahead as far as it may: sync not at all, ssp by its bound, async by all its steps."""
    *workers, server = seen(SERVER, f"{name}, late")
    stale = max(map(int, server["strategy"]["staleness"]))
    assert stale == BOUNDS[name] if name != "async" else stale > 2, f"{name}: the stalest gradient was {stale} updates old"
    updates = server["updates"]
    least, most = {"sync": (10, 10), "async": (20, 20)}.get(name, (11, 20))
    assert least <= updates <= most, f"{name}: 20 pushes should make {least} to {most} updates, not {updates}"
    assert [worker["steps"] for worker in workers] == [10, 10], "each worker makes its ten steps, however late the other is"


@pytest.mark.parametrize("name", CONSISTENCIES)
def test_server_applies_all_that_is_pushed_and_the_loss_falls(seen, name):
    *workers, server = seen(SERVER, f"{name}, long")
    counted, pushes = server["strategy"], sum(worker["steps"] for worker in workers)
    assert pushes == 2 * 6 * 6 == counted["pushed"] == counted["applied"], f"{name}: {pushes} pushes, counted {counted}"
    assert sum(counted["staleness"].values()) == pushes, f"{name}: a staleness is recorded for every gradient: {counted}"
    assert max(map(int, counted["staleness"])) <= BOUNDS[name], f"{name}: {counted} breaks the bound {BOUNDS[name]}"
    losses = [epoch["train_loss"] for epoch in server["epochs"]]
    assert losses[-1] < 0.7 * losses[0], f"{name}: the loss should fall clearly over six epochs: {losses}"
