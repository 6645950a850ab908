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
from labkit.runs.rounds import CONTROL, Rounds

SPEED, ACCURACY = METRIC["images_per_s"], METRIC["best_acc_pct"]
GLOO, OTHER_GLOO = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse", "ddp_gloo_resnet18_bs64x2_cacheFalse_ampFalse"
NCCL, SINGLE = GLOO.replace("gloo", "nccl"), "single_gpu_resnet18_bs256_cacheFalse_ampFalse"


def test_accuracies_differ_beyond_two_standard_errors():
    """Of 90 % and 94 % on 360 images: 2 sqrt((90 * 10 + 94 * 6) / 360) = 4.03 points. So 4.0 are chance and 4.1 are not."""
    assert verdict.chance_points(90.0, 94.0, 360) == pytest.approx(4.0332, abs=1e-4)
    for accuracy, order in ((94.0, 0), (94.1, 1)):
        one, two = row("a", best_acc_pct=[accuracy] * 3).row, row("b", best_acc_pct=[90.0] * 3).row
        assert verdict.compare(ACCURACY, one, two, {}).order() == order == -verdict.compare(ACCURACY, two, one, {}).order()


def test_published_figures_have_no_spread_and_a_limit_that_is_an_assumption():
    order = verdict.published_order
    assert order(SPEED, 104.9, 100.0) == 0 and order(SPEED, 105.1, 100.0) == 1 == -order(SPEED, 100.0, 105.1)
    assert order(ACCURACY, 66.7, 67.2) == 0 and order(ACCURACY, 74.0, 75.3) == -1


def rows_of(**rates: list[float]) -> dict[str, Row]:
    return {name: row(name, images_per_s=values).row for name, values in rates.items()}


@pytest.mark.parametrize(
    ("one", "two", "order"),
    [
        ([200.0, 202.0, 201.0], [100.0, 101.0, 100.0], 1),
        ([100.0, 100.0, 100.0], [100.1, 100.0, 100.0], 0),
        ([20.0, 200.0, 210.0], [10.0, 100.0, 104.0], 1),  # a slow round is slow for both
        ([100.0, 300.0, 50.0], [120.0, 90.0, 160.0], None),  # too noisy to tell
        ([200.0, 201.0], [100.0, 101.0], None),  # two trainings are too few
    ],
)
def test_trainings_are_compared_round_by_round_and_by_their_spread(one, two, order):
    rows = rows_of(a=one, b=two)
    figures = verdict.figures_of(SPEED, rows.values())
    assert verdict.compare(SPEED, rows["a"], rows["b"], figures).order() == order


def test_rounds_tell_the_speed_and_trainings_do_not_where_there_are_both():
    rows = rows_of(a=[100.0] * 3, b=[500.0] * 3)
    measured = Rounds(("a", "b"), [{"a": 300.0, "b": 100.0, CONTROL: 300.0}] * 3, [], {}, False, 0.0)
    figures = verdict.figures_of(SPEED, rows.values(), measured)
    assert verdict.compare(SPEED, rows["a"], rows["b"], figures).median == 3.0
    other = Rounds(("a", "c"), [{"a": 300.0, "c": 100.0}] * 3, [], {}, False, 0.0)
    assert verdict.figures_of(SPEED, rows.values(), other)["b"].median == 500.0, "rounds of other rows"
    busy = Rounds(measured.names, measured.turns, [], {}, True, 0.0)
    figures = verdict.figures_of(SPEED, rows.values(), busy)
    assert verdict.compare(SPEED, rows["a"], rows["b"], figures).order() is None


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
    "untold": "untold",
    "untold same": "agrees",
    "untold opposite": "differs",
}


@pytest.mark.parametrize("kinds", HEADS)
def test_the_kinds_of_pairs_give_the_verdict(kinds):
    assert verdict_head(set(kinds.split())) == HEADS[kinds]


def row(name: str, published: dict[str, float] | None = None, nccl: str = "", **figures: Any) -> MatchedRow:
    """A row of which each figure is a list, a value for each training."""
    spec = Spec(dataset="digits", test_samples=figures.pop("test_samples", 0))
    runs = [dict(zip(figures, values, strict=True)) for values in zip(*figures.values(), strict=True)] or [{}]
    return MatchedRow(Row(name, good=[SimpleNamespace(spec=spec, busy=False, **run) for run in runs]), published, nccl)  # type: ignore[misc]


def kind_of_pair(one: MatchedRow, two: MatchedRow) -> str:
    return str(compare_pair(ACCURACY, one, two, {})["kind"])


def test_chance_is_that_of_the_fewer_test_images():
    """90 % and 95 %: on 100 images they may differ by 7.4 points by chance, on 360 by 3.9."""
    few = row("a", {"best_acc_pct": 80.0}, best_acc_pct=[90.0] * 3, test_samples=100)
    all_of_them = row("b", {"best_acc_pct": 90.0}, best_acc_pct=[95.0] * 3)
    assert kind_of_pair(few, all_of_them) == kind_of_pair(all_of_them, few) == "tie_only_here"
    assert kind_of_pair(row("c", {"best_acc_pct": 80.0}, best_acc_pct=[90.0] * 3), all_of_them) == "same"
    once = row("d", {"best_acc_pct": 80.0}, best_acc_pct=[50.0])
    assert kind_of_pair(once, all_of_them) == "untold", "one training is too few, however far apart"


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
    assert agreement_level(rho, untold=0.5) == level
    assert agreement_level(rho, untold=0.51) == ("unknown" if rho is None else "untold"), "most pairs are too noisy to tell"


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
