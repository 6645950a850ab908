"""Step times that are measured in turn: what comes from which rank and round."""

import pytest

from labkit.probes import steps
from labkit.probes.trace import Trace
from labkit.rows.spec import Spec
from labkit.system.machine import Taken


def traced(*ranks):
    """A trace of one step. Each rank is given as (seconds of the step, seconds of forward); the rest is exchange."""
    told = [
        {"rank": n, "steps": [[0, step]], "events": [["forward", 0, 0, 0, 0, forward]] if forward else [], "holds": {}}
        for n, (step, forward) in enumerate(ranks)
    ]
    return Trace(Spec(), True, told)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(steps.Watch, "taken", lambda self: Taken(0.0, 0.0))


def test_the_parts_come_from_the_slowest_rank_that_computes():
    """Not from the parameter server, which waits the longest and computes nothing."""
    line = steps.slowest_rank(traced((4, 3), (5, 2), (9, 0)))
    assert (line["rank"], line["step_s"], line["forward_s"], line["exchange_s"]) == (1, 5, 2, 3)
    assert steps.slowest_rank(traced((4, 0), (9, 0)))["rank"] == 1, "if none computes, of all"


def test_rounds_are_traced_in_turn_and_give_a_spread(monkeypatch):
    asked_for = []
    lengths = {"a": [10, 11, 12], "b": [20, 23, 25], "c": [10.05, 10.98, 12.02], "d": [9.97, 11.05, 11.98]}

    def trace(row, number, fresh):
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
