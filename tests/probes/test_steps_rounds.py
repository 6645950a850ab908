"""Traces in rounds: which figures come out of them, with which spread. The traces are written out here; nothing is started."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.probes import steps
from labkit.probes.trace import Trace
from labkit.rows.spec import Spec

FORWARD_S = {"fast": (4.0, 4.2, 3.9), "slow": (8.0, 8.2, 7.8), "slower": (9.0, 9.3, 8.9)}  # of each round, on the slower rank


def made_up(label: str, number: int) -> Trace:
    """Rank 0 computes for a second, rank 1 for FORWARD_S of the round; then each waits for a second."""
    ranks = []
    for rank, forward_s in enumerate((1.0, FORWARD_S[label][number - 1])):
        events = [["forward", 0, 0, 0, 0.0, forward_s]]
        ranks.append({"rank": rank, "steps": [[0.0, forward_s + 1]], "events": events, "holds": {}})
    return Trace(Spec(), True, ranks)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, steps.Traced]:
    asked: list[tuple[str, int]] = []

    def trace(label: str, number: int, fresh: bool) -> Trace:
        asked.append((label, number))
        return made_up(label, number)

    monkeypatch.setattr(steps, "trace", trace)
    monkeypatch.setattr(steps, "busy", lambda *_: False)
    found = steps.traces({label: {"label": label} for label in FORWARD_S})
    assert asked == [(label, number) for number in (1, 2, 3) for label in FORWARD_S], "in turn"
    return found


def test_parts_are_those_of_the_rank_with_the_longest_step(told: dict[str, steps.Traced]) -> None:
    assert told["slow"].part("forward_s").samples == FORWARD_S["slow"]
    assert told["slow"].part().samples == pytest.approx((9.0, 9.2, 8.8))
    assert (told["slow"].part() / told["fast"].part()).order() == 1


def test_a_figure_of_each_round_has_one_sample_for_each(told: dict[str, steps.Traced]) -> None:
    """Rank 0 is idle most of the time from the first forward to the last: 1 of 4 s, and rank 1 not at all."""
    bubble = told["fast"].each(Trace.bubble)
    assert bubble.samples == pytest.approx([(1 - 1 / forward) / 2 for forward in FORWARD_S["fast"]])
    assert bubble.order(than=0.2) == 1 and not bubble.busy


def test_a_busy_machine_is_known_to_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "trace", lambda label, number, fresh: made_up(label, number))
    monkeypatch.setattr(steps, "busy", lambda *_: True)
    one: dict[str, Any] = steps.traces({label: {"label": label} for label in FORWARD_S})
    assert one["fast"].each(Trace.bubble).busy and one["fast"].part().busy and one["fast"].part("forward_s").busy
    assert one["fast"].each(Trace.bubble).order(than=0.2) is None
