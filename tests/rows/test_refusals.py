"""What Spec and names refuse: the message names the key, the value and the remedy, whatever the text."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import Spec, SpecError
from labkit.rows.fields import check_value
from labkit.rows.params import all_names
from labkit.rows.spec import FIELDS, make_spec, read_text_value
from labkit.runs.plan import plan
from tests.helpers.refusals import refused
from tests.rows.test_spec import specs

FAST = settings(max_examples=150, deadline=None, database=None, derandomize=True)
DDP = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"


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
    refused(lambda: plan("dpp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"), f"did you mean '{DDP}'?")
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
