"""Step times that are measured in turn: what comes from which rank and round. The traces are written out here; nothing is started."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.probes import steps
from labkit.probes.trace import Trace
from labkit.rows.spec import Spec

FORWARD_S = {"fast": (4.0, 4.2, 3.9), "slow": (8.0, 8.2, 7.8), "slower": (9.0, 9.3, 8.9)}  # of each round, on the slower rank


def traced(*ranks: tuple[float, float], others_cores: float = 0.0) -> Trace:
    """A trace of one step. Each rank is given as (seconds of the step, seconds of forward); the rest is exchange."""
    told: list[dict[str, Any]] = [
        {"rank": n, "steps": [[0, step]], "events": [["forward", 0, 0, 0, 0, forward]] if forward else []}
        for n, (step, forward) in enumerate(ranks)
    ]
    return Trace(Spec(), True, [rank | {"messages": [], "holds": {}} for rank in told], {}, others_cores)


def two_ranks(label: str, number: int, others_cores: float = 0.0) -> Trace:
    """Rank 0 computes for a second, rank 1 for FORWARD_S of the round; then each waits for a second."""
    return traced(*((forward_s + 1, forward_s) for forward_s in (1.0, FORWARD_S[label][number - 1])), others_cores=others_cores)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, steps.Traced]:
    monkeypatch.setattr(steps, "trace", lambda label, number, fresh: two_ranks(label, number))
    return steps.traces({label: {"label": label} for label in FORWARD_S})


def test_the_parts_come_from_the_slowest_rank_that_computes() -> None:
    """Not from the parameter server, which waits the longest and computes nothing."""
    line = steps.slowest_rank(traced((4, 3), (5, 2), (9, 0)))
    assert (line["rank"], line["step_s"], line["forward_s"], line["exchange_s"]) == (1, 5, 2, 3)
    assert steps.slowest_rank(traced((4, 0), (9, 0)))["rank"] == 1, "if none computes, of all"


def test_rounds_are_traced_in_turn_and_give_a_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for = []
    lengths = {"a": [10, 11, 12], "b": [20, 23, 25], "c": [10.05, 10.98, 12.02], "d": [9.97, 11.05, 11.98]}

    def trace(row: str, number: int, fresh: bool) -> Trace:
        asked_for.append((row, number))
        return traced((lengths[row][number - 1], 3))

    monkeypatch.setattr(steps, "trace", trace)
    found = steps.traces({row.upper(): {"row": row} for row in "abcd"})
    assert asked_for == [(row, number) for number in (1, 2, 3) for row in "abcd"]
    assert found["A"].part().samples == (10, 11, 12) and found["B"].part("exchange_s").samples == (17, 20, 22)
    assert (found["B"].part() / found["A"].part()).order() == 1 and (found["C"].part() / found["A"].part()).order() == 0
    assert found["A"].part("exchange_s").error == found["B"].part("exchange_s").error, "one error for all labels of the rounds"
    assert str(found["A"].part("data_s")) == "nan", "no rank waited for data: there is no ratio of it"
    assert found["A"].trace.slowest_s() == 10, "the picture shows the first round"
    with pytest.raises(KeyError):
        found["A"].part("nothing_s")


def test_parts_are_those_of_the_rank_with_the_longest_step(told: dict[str, steps.Traced]) -> None:
    assert told["slow"].part("forward_s").samples == FORWARD_S["slow"]
    assert told["slow"].part().samples == pytest.approx((9.0, 9.2, 8.8))
    assert (told["slow"].part() / told["fast"].part()).order() == 1


def test_a_figure_of_each_round_has_one_sample_for_each(told: dict[str, steps.Traced]) -> None:
    """Rank 0 is idle most of the time from the first forward to the last: 1 of 4 s, and rank 1 not at all."""
    bubble = told["fast"].each(Trace.bubble)
    assert bubble.samples == pytest.approx([(1 - 1 / forward) / 2 for forward in FORWARD_S["fast"]])
    assert bubble.order(than=0.2) == 1 and not bubble.busy
    assert told["fast"].waited() is None, "nothing was stamped"


@pytest.mark.parametrize(("busy_traces", "busy"), [(1, False), (9, True)])
def test_a_busy_machine_is_known_to_every_figure(monkeypatch: pytest.MonkeyPatch, busy_traces: int, busy: bool) -> None:
    """Also of a kept trace: it says itself what others took while it was recorded."""
    others = iter([64.0] * busy_traces + [0.0] * 9)
    monkeypatch.setattr(steps, "trace", lambda label, number, fresh: two_ranks(label, number, next(others)))
    one = steps.traces({label: {"label": label} for label in FORWARD_S})["fast"]
    assert (one.each(Trace.bubble).busy, one.part().busy, one.part("forward_s").busy) == (busy, busy, busy)
    assert (one.each(Trace.bubble).order(than=0.2) is None) == busy
