"""What a trace tells of steps that are written out here: parts of a step, a pipeline's bubble, the slowest rank."""

import pytest

from labkit.probes.trace import Trace, longer, split_of, union
from labkit.rows.spec import Spec


def event(kind, start, end, layer=0, lane=0, micro=0):
    return [kind, lane, layer, micro, start, end]


def test_what_happens_at_once_counts_as_the_first_of_backward_forward_update_data():
    events = [event("data", 0, 10), event("update", 1, 10), event("forward", 2, 10), event("backward", 3, 4)]
    assert split_of(events, 0, 12) == {"step_s": 12, "data_s": 1, "update_s": 1, "forward_s": 7, "backward_s": 1, "exchange_s": 2}


def test_an_event_counts_inside_the_step_only():
    """What began before it, or ends after it, or lies outside, is cut at its borders."""
    events = [event("data", 1, 6), event("forward", 9, 14), event("backward", 0, 2), event("backward", 20, 30)]
    assert split_of(events, 5, 10) == {"step_s": 5, "data_s": 1, "forward_s": 1, "backward_s": 0, "update_s": 0, "exchange_s": 3}


def test_layers_and_replicas_that_overlap_count_once():
    events = [event("forward", 0, 3, layer=0), event("forward", 1, 4, layer=0, lane=1), event("forward", 4, 5, layer=1)]
    assert split_of(events, 0, 5)["forward_s"] == 5 and split_of(events, 0, 5)["exchange_s"] == 0
    assert union([(0, 3), (1, 2), (4, 5), (3, 3.5)]) == [(0, 3.5), (4, 5)]


def traced(*ranks):
    """A trace of ranks, each given as (steps, events)."""
    told = [{"rank": n, "steps": steps, "events": events, "holds": {}} for n, (steps, events) in enumerate(ranks)]
    return Trace(Spec(), True, told)


STEPS = [[0, 10], [10, 14], [14, 20], [20, 25]]
FORWARD = [event("forward", 0, 1), event("forward", 10, 12), event("forward", 14, 17), event("forward", 20, 24)]


def test_a_ranks_step_is_the_one_of_median_length():
    """Of 4, 5, 6 and 10 s it is the one of 5 s, with the parts of that very step."""
    one = traced((STEPS, FORWARD), ([[0, 3]], [event("update", 1, 2)]))
    first, second = one.split()
    assert (first["rank"], first["step_s"], first["forward_s"], first["exchange_s"]) == (0, 5, 4, 1)
    assert (second["rank"], second["step_s"], second["update_s"], second["exchange_s"]) == (1, 3, 1, 2)
    assert one.slowest_s() == 5
    assert one.step(0) == {0: [FORWARD[0]], 1: [event("update", 1, 2)]}


def test_longer_is_the_slowest_by_the_slowest():
    one, other = traced(([[0, 4]], []), ([[0, 6]], [])), traced(([[0, 3]], []), ([[0, 2]], []))
    assert longer(one, other) == 2 and longer(other, one) == 0.5 and longer(one, None) is None


def test_the_bubble_is_what_stages_did_not_compute():
    """From the first forward at 1 to the last backward at 9: stage 0 computes 2 and 2 of 8 s, stage 1 computes 1 and 1, and what it
    does before and after (the wait for images, the update) is no part of it. The second step has no bubble; the median is the mean."""
    first = [event("data", 0, 1), event("forward", 1, 3), event("backward", 7, 9), event("update", 9, 10)]
    second = [event("forward", 3, 4), event("forward", 3.5, 4, lane=1), event("backward", 5, 6), event("update", 6, 7)]
    full = [event("forward", 10, 15), event("backward", 15, 20)]
    stages = traced(([[0, 10], [10, 20]], first + full), ([[0, 10], [10, 20]], second + full))
    assert stages.bubble() == pytest.approx((1 - 6 / 16) / 2)
    assert stages.step(0) == {0: first, 1: second} and stages.step(1) == {0: full, 1: full}
