"""When two figures are told apart, which pairs may be compared, and which verdict their kinds give: by hand, and at the limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from labkit.results import verdict
from labkit.results.metrics import METRIC, memory_is
from labkit.results.ranks import agreement_level, signed_text
from labkit.results.verdict import MatchedRow, Row, comparable, compare_pair, verdict_head
from labkit.rows.spec import Spec

SPEED, ACCURACY = METRIC["images_per_s"], METRIC["best_acc_pct"]
GLOO, OTHER_GLOO = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse", "ddp_gloo_resnet18_bs64x2_cacheFalse_ampFalse"
NCCL, SINGLE = GLOO.replace("gloo", "nccl"), "single_gpu_resnet18_bs256_cacheFalse_ampFalse"


def test_accuracies_differ_beyond_two_standard_errors():
    """Of 90 % and 94 % on 360 images: 2 sqrt((90 * 10 + 94 * 6) / 360) = 4.03 points. So 4.0 are chance and 4.1 are not."""
    accuracy = METRIC["best_acc_pct"]
    assert verdict.chance_points(90.0, 94.0, 360) == pytest.approx(4.0332, abs=1e-4)
    assert verdict.order(accuracy, [94.0], [90.0], 360) == 0 == verdict.order(accuracy, [90.0], [94.0], 360)
    assert verdict.order(accuracy, [94.1], [90.0], 360) == 1 == -verdict.order(accuracy, [90.0], [94.1], 360)


@pytest.mark.parametrize(
    ("one", "two", "order"),
    [
        ([104.9], [100.0], 0),  # of single runs: less than 5 % of the smaller
        ([105.0], [100.0], 1),
        ([100.0], [105.0], -1),
        ([1.0, 2.0], [2.0, 3.0], 0),  # of repeats: their ranges have a value in common
        ([1.0, 1.9], [2.0, 3.0], -1),
        ([2.01, 2.02], [2.0, 2.0], 1),  # however near they are
        ([1.0, 9.0], [2.0, 3.0], 0),
        ([1.0, 2.0], [1.52], 0),  # a single run beside repeats: the medians
        ([2.0, 2.0], [1.0], 1),
    ],
)
def test_ratios_differ_by_five_percent_or_by_the_ranges_of_repeats(one, two, order):
    assert verdict.order(SPEED, one, two, 360) == order == -verdict.order(SPEED, two, one, 360)


HEADS = {
    "opposite": "differs",
    "opposite same tie_only_here": "differs",
    "equal": "equal",
    "same": "agrees",
    "same equal": "agrees",
    "tie_only_here": "tie_here",
    "tie_only_here equal": "tie_here",
    "tie_only_here same": "in_part",
    "tie_only_published same": "in_part",
    "tie_only_published equal": "in_part",
    "tie_only_published": "not_published",
    "tie_only_published tie_only_here": "not_published",
}


@pytest.mark.parametrize("kinds", HEADS)
def test_the_kinds_of_pairs_give_the_verdict(kinds):
    assert verdict_head(set(kinds.split())) == HEADS[kinds]


def row(name: str, published: dict[str, float] | None = None, nccl: str = "", **figures: Any) -> MatchedRow:
    spec = Spec(dataset="digits", test_samples=figures.pop("test_samples", 0))
    return MatchedRow(Row(name, good=[SimpleNamespace(spec=spec, **figures)]), published, nccl)  # type: ignore[list-item]


def test_chance_is_that_of_the_fewer_test_images():
    """90 % and 94 %: on 100 images they may differ by 7.7 points by chance, on 360 by 4.0, on 10,000 by 0.8."""
    few = row("a", {"best_acc_pct": 80.0}, best_acc_pct=90.0, test_samples=100)
    all_of_them = row("b", {"best_acc_pct": 90.0}, best_acc_pct=95.0)
    for one, two in ((few, all_of_them), (all_of_them, few)):
        assert compare_pair(ACCURACY, one, two)["kind"] == "tie_only_here"
    assert compare_pair(ACCURACY, row("c", {"best_acc_pct": 80.0}, best_acc_pct=90.0), all_of_them)["kind"] == "same"


def test_a_published_gloo_figure_is_not_compared_with_one_of_nccl():
    told = {"best_acc_pct": 80.0}
    in_place, own, alone = row(GLOO, told, NCCL), row(OTHER_GLOO, told), row(SINGLE, told)
    assert not comparable(in_place, own) and not comparable(own, in_place), "both ran on Gloo here"
    assert comparable(in_place, alone) and comparable(alone, in_place) and comparable(own, alone)
    assert comparable(in_place, row(OTHER_GLOO, told, NCCL)) and not comparable(alone, row(SINGLE))


def test_a_run_that_was_over_within_its_warm_up_has_no_throughput_and_all_else():
    short = Row("a", good=[SimpleNamespace(images_per_s=rate, max_mem_mib=0.0) for rate in (0.0, 5.0, 7.0)])  # type: ignore[misc]
    assert short.values("images_per_s") == [5.0, 7.0] and short.median("images_per_s") == 6.0
    assert short.values("max_mem_mib") == [0.0] * 3 and Row("b").median("images_per_s") is None


@pytest.mark.parametrize(
    ("rho", "level"),
    [(None, "unknown"), (1.0, "mostly"), (0.7, "mostly"), (0.69, "partly"), (0.3, "partly"), (0.29, "hardly"), (0.0, "hardly"),
     (-0.29, "hardly"), (-0.3, "reversed"), (-1.0, "reversed")],
)  # fmt: skip
def test_the_word_for_a_correlation(rho, level):
    assert agreement_level(rho) == level


def test_figures_as_text():
    assert [signed_text(value) for value in (None, 0.256, -0.256, -0.001)] == [None, "+0.26", "−0.26", "+0.00"]
    assert [SPEED.difference(*pair) for pair in ((5.0, 4.0), (4.0, 5.0), (1.0, 0.0))] == ["1.25", "0.80", "–"]
    assert [ACCURACY.difference(*pair) for pair in ((92.0, 90.0), (90.0, 92.0), (90.0, 90.01))] == ["+2.0", "−2.0", "+0.0"]
    assert memory_is(["cuda", "cpu", "cpu"]) == "CPU: growth of peak resident set / CUDA: allocator's peak"


@pytest.mark.parametrize(
    ("key", "best"), [("images_per_s", "b"), ("best_acc_pct", "b"), ("max_mem_mib", "a"), ("total_time_s", "a")]
)
def test_which_row_is_best(key, best):
    assert METRIC[key].pick_best({"c": 2.0, "a": 1.0, "b": 3.0}) == best and METRIC[key].pick_best({}) is None
