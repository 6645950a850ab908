"""Spec and its names: whatever is valid round-trips, whatever is not is refused in words that help."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from labkit import Spec, SpecError, published
from labkit.names import GENERAL, STEMS, stem_fields
from labkit.params import all_names
from labkit.spec import FIELDS, MAX_PROCESSES, ROW_FIELDS, SCALE_FIELDS, STRATEGIES, check_value, make_spec, read_text_value

FAST = settings(max_examples=150, deadline=None, database=None, derandomize=True)
DDP = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"


# -- what is valid ------------------------------------------------------------------------------------------------------


def values(name: str) -> st.SearchStrategy[Any]:
    """Valid values of one field, its limits among them."""
    field, limits = FIELDS[name], FIELDS[name].metadata
    if limits["choices"]:
        return st.sampled_from(limits["choices"])
    if field.type == "bool":
        return st.booleans()
    low = limits["low"] if limits["low"] is not None else limits["above"]
    high = limits["high"] if limits["high"] is not None else 10**12
    if field.type == "int":
        return st.integers(low, high)
    return st.floats(low, high, exclude_min=limits["above"] is not None) | st.integers(
        math.floor(low) + 1, math.floor(high) or 1
    ).filter(lambda n: n <= high)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """Any valid Spec. The rules that join two fields are kept by construction, so that little is thrown away."""
    strategy = draw(st.sampled_from(STRATEGIES))
    used = [name for name in FIELDS if name != "strategy" and strategy in (FIELDS[name].metadata["of"] or (strategy,))]
    fields = {name: draw(values(name)) for name in used if draw(st.booleans())}
    if strategy == "single":
        fields.pop("world_size", None)
    if strategy == "model_parallel":
        fields["world_size"] = draw(st.integers(2, MAX_PROCESSES - 1))
        fields["micro_batches"] = draw(st.integers(1, 64))
        fields["batch_per_rank"] = fields["micro_batches"] * draw(st.integers(1, 1000))
        if fields["micro_batches"] < fields["world_size"]:
            fields.pop("schedule", None)
    if strategy in ("single", "data_parallel") or (strategy == "parameter_server" and fields.get("backend") == "nccl"):
        fields.pop("backend", None)
    if fields.get("consistency") != "ssp":
        fields.pop("staleness_bound", None)
    if fields.get("backend") == "nccl":
        fields.pop("share_device", None)
    if fields.get("momentum", 0.9) == 0:
        fields.pop("nesterov", None)
    try:
        return Spec(strategy=strategy, **fields)
    except SpecError:  # a rule that is not known here: better few examples than a second copy of the rules
        assume(False)
        raise


def row_fields(spec: Spec) -> dict[str, Any]:
    """What a name must tell. Where it has no place for the backend, the machine chooses that."""
    fields = {name: getattr(spec, name) for name in ROW_FIELDS}
    if "backend" not in stem_fields(spec.strategy):
        fields["backend"] = "auto"
    return fields


@FAST
@given(specs())
def test_a_name_tells_all_row_fields(spec: Spec) -> None:
    assert row_fields(Spec.parse(spec.name)) == row_fields(spec)


@FAST
@given(specs())
def test_a_name_can_be_a_folder(spec: Spec) -> None:
    assert not set(spec.name) & set("/\\ \n\0") and not spec.name.startswith((".", "-"))
    assert len(spec.name) < 255 - len(".attempt.json")


@FAST
@given(specs())
def test_scale_is_not_in_a_name(spec: Spec) -> None:
    scale = {name: getattr(spec, name) for name in SCALE_FIELDS}
    assert Spec.parse(spec.name, **scale | {"share_device": False}).name == spec.name


@FAST
@given(specs())
def test_counts_agree(spec: Spec) -> None:
    assert spec.images_per_step % spec.batch_per_rank == 0
    assert spec.processes <= MAX_PROCESSES
    assert spec.images_per_step % spec.shards == 0
    assert spec.batch_size in (spec.batch_per_rank, spec.images_per_step)


@FAST
@given(st.data())
def test_text_gives_the_value_it_says(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FIELDS)))
    value = data.draw(values(name))
    assert read_text_value(name, str(value)) == value


def test_whole_numbers_are_numbers() -> None:
    """1 and 1.0 are one value, so they must be one row and one folder."""
    one, other = Spec(strategy="ddp", world_size=2, bucket_mb=1), Spec(strategy="ddp", world_size=2, bucket_mb=1.0)
    assert one == other and one.name == other.name and Spec.parse(one.name).name == one.name


def test_every_strategy_has_names() -> None:
    for strategy in STRATEGIES:
        spec = Spec(strategy=strategy, world_size=1 if strategy == "single" else 2)
        assert Spec.parse(spec.name).strategy == strategy
    assert set(STEMS) <= set(STRATEGIES), "names.py knows a strategy that has no file"
    assert "{strategy}" in GENERAL


# -- the published rows -------------------------------------------------------------------------------------------------


def test_there_are_23_published_rows() -> None:
    assert len({row["experiment"] for row in published()}) == len(published()) == 23


@pytest.mark.parametrize("row", published(), ids=lambda row: row["experiment"])
def test_published_row(row: dict[str, Any]) -> None:
    spec = Spec.parse(row["experiment"])
    assert spec.name == row["experiment"]
    assert (spec.model, spec.batch_size) == (row["model"], row["batch_size"])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("single_gpu_resnet18_bs512_cacheFalse_ampFalse", {"strategy": "single", "batch_per_rank": 512, "world_size": 1}),
        ("dp_resnet18_bs256_ngpu2_cacheFalse_ampFalse", {"strategy": "data_parallel", "batch_per_rank": 128, "world_size": 2}),
        (
            "ddp_nccl_resnet34_bs256x2_cacheTrue_ampTrue",
            {"strategy": "ddp", "model": "resnet34", "backend": "nccl", "cache": "true", "amp": True},
        ),
        ("model_parallel_resnet18_bs256_cacheFalse", {"strategy": "model_parallel", "batch_per_rank": 256, "world_size": 2}),
        ("collective_gloo_resnet18_bs128x2+form=ring", {"strategy": "collective", "backend": "gloo", "form": "ring"}),
        ("fsdp_full_resnet50_bs64x4_ampTrue", {"strategy": "fsdp", "sharding": "full", "world_size": 4, "amp": True}),
        ("ps_gpu_mode_resnet18_bs128_workers2", {"strategy": "parameter_server", "server_device": "cuda", "world_size": 2}),
        ("ps_mode_resnet18_bs128_workers3+consistency=ssp+staleness_bound=0", {"world_size": 3, "staleness_bound": 0}),
    ],
)
def test_a_name_means(name: str, fields: dict[str, Any]) -> None:
    assert {key: getattr(Spec.parse(name), key) for key in fields} == fields


# -- what is refused ----------------------------------------------------------------------------------------------------


def refused(call: Any, *words: str) -> str:
    """`call` raises SpecError; its message is one line and holds these words."""
    with pytest.raises(SpecError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"
    return message


def bad_values(name: str) -> list[Any]:
    field, limits = FIELDS[name], FIELDS[name].metadata
    if field.type == "bool":
        return [0, 1, "true", None, 1.0, []]
    if field.type == "str":
        return [1, True, None, "", "nonsense", limits["choices"][0].upper() + "!", [limits["choices"][0]]]
    bad: list[Any] = ["1", str(field.default), True, None, [1], math.nan, math.inf, -math.inf]
    bad += [limits["low"] - 1] if limits["low"] is not None else [limits["above"], limits["above"] - 1]
    bad += [limits["high"] + 1, 10**400] if limits["high"] is not None else []
    return bad


@pytest.mark.parametrize("name", FIELDS)
def test_every_limit_bites(name: str) -> None:
    limits = FIELDS[name].metadata
    for bad in bad_values(name):
        message = refused(lambda bad=bad: make_spec({name: bad}), f"{name}={bad!r}")
        assert any(word in message for word in ("must be", "did you mean", "known:")), f"no remedy in: {message}"
    for edge in (limits["low"], limits["high"]):
        if edge is not None:
            check_value(FIELDS[name], edge)


def test_a_number_in_quotes() -> None:
    refused(lambda: Spec(epochs="12"), "epochs='12'", "whole number", "without quotes")
    refused(lambda: Spec(lr="0.1"), "lr='0.1'", "a number", "without quotes")
    refused(lambda: Spec(cache=False), "cache=False", "in quotes: 'false'")


def test_learning_rates() -> None:
    for lr in (math.nan, -0.1, 0, math.inf):
        refused(lambda lr=lr: Spec(lr=lr), f"lr={lr!r}", "peak learning rate", "0.1")


def test_unknown_keys_have_a_nearest() -> None:
    refused(lambda: make_spec({"epoch": 3}), "'epoch'", "did you mean 'epochs'?")
    refused(lambda: Spec().but(batch_size=3), "'batch_size'", "did you mean")
    refused(lambda: Spec.parse(DDP, learning_rate=3), "'learning_rate'")
    refused(lambda: read_text_value("ephocs", "3"), "'ephocs'", "did you mean 'epochs'?")
    refused(lambda: make_spec({"zzz": 3}), "'zzz'", "known: strategy, model")


@pytest.mark.parametrize("workers", [0, 1000, 64])
def test_numbers_of_workers(workers: int) -> None:
    refused(lambda: Spec.parse(f"ps_mode_resnet18_bs128_workers{workers}"), f"world_size={workers}", "at least 1 and at most 63")
    refused(lambda: Spec.parse(f"ddp_gloo_resnet18_bs128x{workers}_cacheFalse_ampFalse"), f"world_size={workers}", "workers")


def test_batches_that_cannot_be_divided() -> None:
    refused(lambda: Spec.parse("dp_resnet18_bs255_ngpu2_cacheFalse_ampFalse"), "ngpu2", "255", "divisor")
    refused(lambda: Spec.parse("dp_resnet18_bs256_ngpu0_cacheFalse_ampFalse"), "ngpu0", "256", "divisor")
    refused(lambda: Spec.parse("model_parallel_resnet18_bs256_cacheFalse+micro_batches=3"), "micro_batches=3", "256", "divisor")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"strategy": "single", "world_size": 2}, ("world_size=2", "single", "use ddp")),
        ({"strategy": "model_parallel"}, ("world_size=1", "set world_size=2")),
        (
            {"strategy": "model_parallel", "world_size": 4, "schedule": "1f1b", "micro_batches": 2},
            ("schedule=1f1b", "micro_batches >= 4"),
        ),
        ({"strategy": "parameter_server", "staleness_bound": 1}, ("staleness_bound=1", "set consistency=ssp")),
        ({"strategy": "ddp", "form": "ring"}, ("form=ring", "collective", "leave it out")),
        ({"strategy": "single", "bucket_mb": 1.0}, ("bucket_mb=1.0", "ddp", "leave it out")),
        ({"strategy": "ddp", "backend": "nccl", "share_device": True}, ("share_device=True", "use backend=gloo")),
        ({"strategy": "single", "backend": "gloo"}, ("backend=gloo", "leave backend out")),
        ({"strategy": "parameter_server", "backend": "nccl"}, ("backend=nccl", "leave backend out")),
        ({"nesterov": True, "momentum": 0}, ("nesterov=True", "momentum=0.9")),
    ],
)
def test_fields_that_do_not_go_together(fields: dict[str, Any], words: tuple[str, ...]) -> None:
    refused(lambda: Spec(**fields), *words)


@pytest.mark.parametrize(
    "name",
    ["../x", "", "/etc/passwd", DDP + "/../x", DDP + "\n", "x\n", DDP.upper(), DDP[:-1], " " + DDP, "all", "1", "+", DDP + "+"],
)
def test_what_is_no_name(name: str) -> None:
    message = refused(lambda: Spec.parse(name))
    assert "labkit rows" in message or "cannot be set" in message


def test_a_slip_in_a_name_is_corrected() -> None:
    refused(lambda: Spec.parse("ddp_gloo_resnet81_bs128x2_cacheFalse_ampFalse"), "model='resnet81'", "did you mean 'resnet18'?")
    refused(lambda: Spec.parse("dpp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"), f"did you mean '{DDP}'?")
    refused(lambda: Spec.parse(DDP + "+lr=1"), "'lr' cannot be set in a row's name")
    refused(lambda: Spec.parse("collective_gloo_resnet18_bs128x2+backend=nccl"), "'backend' cannot be set after a +")


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("ddp_gloo_resnet18_bs0128x02_cacheFalse_ampFalse", DDP),
        (DDP + "+norm=batch", DDP),
        (DDP + "+static_graph=true", DDP + "+static_graph=True"),
        (DDP + "+bucket_mb=1", DDP + "+bucket_mb=1.0"),
        (DDP + "+norm=group+norm=group", DDP + "+norm=group"),
        ("ddp_gloo_resnet18_bs١٢٨x2_cacheFalse_ampFalse", DDP),
    ],
)
def test_a_row_has_one_name(name: str, right: str) -> None:
    """Two spellings would be two folders, and two lines of the report, for one experiment."""
    refused(lambda: Spec.parse(name), f"write it '{right}'")


ALPHABET = st.sampled_from(
    ["+", "=", "x", "_", "bs", "0", "1", "2", "128", "True", "False", "../", "norm", "form", "ring", "group", "amp", "\n"]
)


@st.composite
def nearly_names(draw: st.DrawFn) -> str:
    """A published name, or one of a valid Spec, with a piece of it replaced."""
    name = draw(st.sampled_from(all_names()) | specs().map(lambda spec: spec.name))
    start = draw(st.integers(0, len(name)))
    end = draw(st.integers(start, min(len(name), start + 4)))
    return name[:start] + "".join(draw(st.lists(ALPHABET, max_size=4))) + name[end:]


@settings(FAST, max_examples=400)
@given(st.text() | nearly_names() | st.tuples(st.sampled_from(all_names()), st.text(max_size=20)).map("+".join))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        spec = Spec.parse(text)
    except SpecError:
        return
    assert spec.name == text


@FAST
@given(
    st.sampled_from(sorted(FIELDS)),
    st.text() | st.sampled_from(["nan", "inf", "-inf", "1e999", "9" * 400, "9" * 5000, "0x1", "1_0", ""]),
)
def test_any_text_is_a_value_or_refused(name: str, text: str) -> None:
    try:
        make_spec({name: read_text_value(name, text)})
    except SpecError:
        pass


# -- import -------------------------------------------------------------------------------------------------------------


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, time; began = time.time(); import labkit; print(time.time() - began); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert not {"torch", "pandas", "numpy", "matplotlib", "rich", "sklearn"} & set(out[1].split())
    assert float(out[0]) < 5, "generous, for a busy machine: it takes 0.05 s"


def test_what_labkit_offers() -> None:
    import labkit

    for name in labkit.__all__:
        assert getattr(labkit, name)
    with pytest.raises(AttributeError, match="it has Spec"):
        _ = labkit.no_such_thing
