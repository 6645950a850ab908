"""What a trace tells of steps that are written out here: parts of a step, a pipeline's bubble, the slowest rank."""

import pytest

from labkit.probes.parts import EXCHANGE, Waited, link_of, phases_of, received, split_of, union
from labkit.probes.trace import Trace, longer
from labkit.rows.spec import Spec


def rest(other=0.0, **parts):
    """The exchange of a step, in its parts."""
    seconds = {f"{part}_s": 0.0 for part in EXCHANGE} | {"other_s": other} | {f"{part}_s": s for part, s in parts.items()}
    return {"exchange_s": sum(seconds.values()), **seconds}


def event(kind, start, end, layer=0, lane=0, micro=0):
    return [kind, lane, layer, micro, start, end]


def test_what_happens_at_once_counts_as_the_first_of_backward_forward_update_data():
    events = [event("data", 0, 10), event("update", 1, 10), event("forward", 2, 10), event("backward", 3, 4)]
    assert split_of(events, 0, 12) == {"step_s": 12, "data_s": 1, "update_s": 1, "forward_s": 7, "backward_s": 1, **rest(2)}


def test_an_event_counts_inside_the_step_only():
    """What began before it, or ends after it, or lies outside, is cut at its borders."""
    events = [event("data", 1, 6), event("forward", 9, 14), event("backward", 0, 2), event("backward", 20, 30)]
    assert split_of(events, 5, 10) == {"step_s": 5, "data_s": 1, "forward_s": 1, "backward_s": 0, "update_s": 0, **rest(3)}


def test_layers_and_replicas_that_overlap_count_once():
    events = [event("forward", 0, 3, layer=0), event("forward", 1, 4, layer=0, lane=1), event("forward", 4, 5, layer=1)]
    assert split_of(events, 0, 5)["forward_s"] == 5 and split_of(events, 0, 5)["exchange_s"] == 0
    assert union([(0, 3), (1, 2), (4, 5), (3, 3.5)]) == [(0, 3.5), (4, 5)]


def traced(*ranks):
    """A trace of ranks, each given as (steps, events)."""
    told = [{"rank": n, "steps": steps, "events": events, "holds": {}, "messages": []} for n, (steps, events) in enumerate(ranks)]
    return Trace(Spec(), True, told, {})


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


LINK = {"group": (0.5, 100.0), "pair": (0.25, 50.0)}  # s, bytes/s


def message(called, ended, went_on=None, verb="all_reduce", n=100, peer=None, members=(0, 1), turn=0):
    waited = None if went_on is None else called
    return {"verb": verb, "bytes": n, "peer": peer, "members": list(members), "turn": turn, "called": called, "ended": ended,
            "waited": waited, "went_on": went_on}  # fmt: skip


def test_a_message_is_taken_apart_at_the_last_ranks_call():
    """Rank 0 calls at 1, rank 1 at 3. Then half a second of latency, 100 bytes at 100 bytes/s, and what is left."""
    ranks = [{"messages": [message(1, 6, 6.5)]}, {"messages": [message(3, 4, 4.25)]}]
    first, second = phases_of(ranks, LINK)
    assert first == [("peer", 1, 3), ("latency", 3, 3.5), ("moving", 3.5, 4.5), ("delayed", 4.5, 6), ("waking", 6, 6.5)]
    assert second == [("latency", 3, 3.5), ("moving", 3.5, 4), ("waking", 4, 4.25)], "never longer than it took"
    whole = split_of([], 0, 8, first)
    assert whole == {"step_s": 8, "data_s": 0, "forward_s": 0, "backward_s": 0, "update_s": 0,
                     **rest(2.5, peer=2, latency=0.5, moving=1, delayed=1.5, waking=0.5)}  # fmt: skip
    hidden = split_of([event("backward", 0, 4)], 0, 8, first)
    assert hidden["backward_s"] == 4 and hidden["moving_s"] == 0.5 and hidden["peer_s"] == 0, "what backward hides costs nothing"


def test_two_messages_at_once_count_once_for_the_bytes_first():
    spans = [("peer", 0, 4), ("moving", 1, 2), ("delayed", 1, 3), ("latency", 2, 2.5)]
    assert split_of([], 0, 5, spans)["exchange_s"] == 5
    parts = {part: split_of([], 0, 5, spans)[f"{part}_s"] for part in EXCHANGE}
    assert parts == {"moving": 1, "latency": 0.5, "delayed": 0.5, "peer": 2, "waking": 0, "other": 1}


def test_messages_of_other_ranks_and_turns_are_not_mixed_up():
    """Rank 1's second all-reduce, and a send of the same pair, must not be taken for the first one."""
    other = [message(5, 9, turn=1), message(4, 9, verb="recv", peer=0)]
    first, _ = phases_of([{"messages": [message(1, 2)]}, {"messages": [message(0, 2), *other]}], LINK)
    assert first == [("latency", 1, 1.5), ("moving", 1.5, 2)]


def test_a_send_ends_when_it_was_received_and_who_looks_later_did_not_wait():
    sent = message(1, 9, 9, verb="send", peer=1) | {"waited": 8.5}
    ranks = [{"messages": [sent]}, {"messages": [message(2, 4, 4, verb="recv", peer=0)]}]
    received(ranks)
    assert sent["ended"] == 4
    assert phases_of(ranks, LINK)[0] == [("peer", 1, 2), ("latency", 2, 2.25), ("moving", 2.25, 4), ("waking", 8.5, 9)]


def test_the_link_is_measured_from_the_last_call():
    """The median latency, and the bandwidth of the fastest of the large messages: a rank that came late is nobody's latency."""
    turns = [(0.1, 1.1), (0.3, 2.3), (0.2, 1.2)]
    trial = [[], []]
    for turn, (latency, large) in enumerate(turns):
        for rank, late in ((0, 0.0), (1, 7.0)):
            trial[rank].append(message(100 * turn + late, 100 * turn + 7 + latency, n=4, turn=2 * turn))
            trial[rank].append(message(100 * turn + 50 + late, 100 * turn + 57 + large, n=1000, turn=2 * turn + 1))
    link = link_of([{"trial": one} for one in trial])
    assert link["group"] == pytest.approx((0.2, 1000))
    assert link_of([{"trial": []}]) == {}


def test_a_faster_link_helps_only_where_bytes_are_the_time_beyond_the_spread():
    def waited(moving, peer, busy=False):
        flat = dict.fromkeys(EXCHANGE, [0.0] * len(moving))
        return Waited({"step": [10.0] * len(moving), **flat, "moving": moving, "peer": peer}, busy)

    steady = [3, 4, 5, 4, 3, 4, 5, 4, 4]
    assert waited(steady, [2, 2.5, 3, 2, 2, 3, 3, 2, 2]).bytes_are_the_time
    assert not waited(steady, [1, 6, 2, 7, 1, 5, 1, 6, 2]).bytes_are_the_time, "the larger median, but noise could say so"
    assert not waited(steady, [1] * 9, busy=True).bytes_are_the_time, "others used the cores"
    assert not waited([3, 4], [1, 1]).bytes_are_the_time, "two steps have no spread"
    late = waited([1] * 9, [2, 3, 2, 3, 2, 3, 2, 3, 2])
    assert (late.largest, late.clear, late.bytes_are_the_time) == ("peer", True, False)
