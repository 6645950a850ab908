"""Spec and the names of rows: what is valid, what the published names mean, and what labkit offers."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from labkit import Spec, SpecError, published
from labkit.rows.kinds import KINDS, MAX_PROCESSES, STRATEGIES, Kind, kind_of, users_of
from labkit.rows.spec import FIELDS, ROW_DEFAULTS, SCALE_FIELDS, read_text_value

FAST = settings(max_examples=150, deadline=None, database=None, derandomize=True)


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
    used = [name for name in FIELDS if name != "strategy" and strategy in (users_of(name) or (strategy,))]
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
    fields = {name: getattr(spec, name) for name in ROW_DEFAULTS}
    if "{backend}" not in kind_of(spec.strategy).stem:
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
    assert set(KINDS) <= set(STRATEGIES), "kinds.py knows a strategy that has no file"
    assert "{strategy}" in Kind().stem, "two new strategies need different names"


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


def test_names_that_only_a_gpu_runs_are_names() -> None:
    """Where no GPU is, nothing else reads the tests of `make gpu`."""
    from tests.gpu import test_gpu

    for name in (test_gpu.SINGLE, *test_gpu.ONE_RANK, *test_gpu.SHARING, *test_gpu.PROBED):
        assert Spec.parse(name, **test_gpu.SMALL).device == "cuda"


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
