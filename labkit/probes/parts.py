"""The arithmetic of a trace: how the time of a step divides into parts, from time stamps alone.

A rank computes, or it does not. What is left of a step when all that it computed is taken out ("exchange") has six parts. They come
from the stamps of each message, on all ranks that took part in it; the clocks of one host agree:

    rank 0   called ------------- ended -- went_on       called    this rank asked for the message
    rank 1          called ------ ended - went_on        ended     the message is complete on this rank
    rank 0   | peer | latency, moving, delayed | waking |   went_on   the code that waited for it runs again

peer      from this rank's call until the last rank of the message has called: it waits for the slower one
latency   from then on, at most as long as an empty message takes at the end of such a step (median; the trace measures it)
moving    after that, at most the bytes that a rank sends for it, by the best bandwidth of a message of 4 MiB in the same steps
delayed   the rest until it has ended: more than latency and bytes explain. Its threads waited for a core, or for an earlier message
waking    from there until this rank goes on, if it was waiting. Torch copies DDP's bucket in this time, too
other     no message was under way: copies, the loss, Python, and hooks

Where parts of several messages coincide, the time counts as the first of moving, latency, delayed, peer, waking.

Limits. A receive and gloo's reduce-scatter do not tell when they end, but when the rank goes on: their waking is part of
delayed, or of latency. The stamps are taken in Python, so they are some tens of microseconds late. With NCCL a message ends on the
device, where no stamp is taken: then "other" holds everything, and `Trace.waited()` is None.
"""

import itertools
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from labkit.engine.formula import sent_by_formula
from labkit.runs.spread import measured

KINDS = ("backward", "forward", "update", "data")  # where two happen at the same time, the time counts as the first of these
EXCHANGE = ("moving", "latency", "delayed", "peer", "waking", "other")  # and so with these; "other" is what is left
Span = tuple[str, float, float]  # part, start, end


@dataclass(frozen=True)
class Waited:
    """Seconds in which ranks computed nothing, by part (a name of EXCHANGE), and of the whole "step": for each recorded step the
    mean over the ranks. `busy`: did other programs take cores meanwhile?"""

    seconds: dict[str, list[float]]
    busy: bool = False

    @property
    def largest(self) -> str:
        """The part with the largest median."""
        return max(EXCHANGE, key=lambda part: statistics.median(self.seconds[part]))

    @property
    def clear(self) -> bool:
        """Is it larger than every other part beyond the spread of the steps (`Measured.order`)? Never on a busy machine."""
        largest = [max(s, 1e-9) for s in self.seconds[self.largest]]
        others = [self.seconds[part] for part in EXCHANGE if part != self.largest]
        ratios = [measured([a / max(b, 1e-9) for a, b in zip(largest, rest, strict=True)], self.busy) for rest in others]
        return all(ratio.order() == 1 for ratio in ratios)

    @property
    def bytes_are_the_time(self) -> bool:
        """Would a faster link help? Only if moving bytes is the largest part, beyond the spread."""
        return self.largest == "moving" and self.clear


def split_of(events: list[list[Any]], start: float, end: float, phases: Iterable[Span] = ()) -> dict[str, float]:
    """The seconds of one step: step_s; by kind data_s, forward_s, backward_s, update_s; and exchange_s, all the rest, with its parts
    moving_s, latency_s, delayed_s, peer_s, waking_s, other_s. Each second counts once, for the first kind of KINDS that was going on, else for
    the first of EXCHANGE. `phases`: this rank's, from `phases_of`."""
    spans = [(e[0], e[4], e[5]) for e in events] + list(phases)
    inside = [(kind, a, b) for kind, a, b in spans if b > start and a < end]
    marks = sorted({start, end, *(min(max(t, start), end) for _, a, b in inside for t in (a, b))})
    parts = dict.fromkeys((*KINDS, *EXCHANGE), 0.0)
    for a, b in itertools.pairwise(marks):
        at = {kind for kind, began, ended in inside if began <= a and b <= ended}
        parts[next((kind for kind in parts if kind in at), "other")] += b - a
    named = {f"{kind}_s": parts[kind] for kind in ("data", "forward", "backward", "update")}
    of_exchange = {f"{part}_s": parts[part] for part in EXCHANGE}
    return {"step_s": end - start, **named, "exchange_s": sum(of_exchange.values()), **of_exchange}


def phases_of(ranks: list[dict[str, Any]], link: dict[str, tuple[float, float]]) -> list[list[Span]]:
    """For each rank the parts (part, start, end) of its messages. `ranks`: dicts with "messages" (see `labkit.engine.stamps.Stamps`);
    `link`: of `link_of`. A message whose other ranks left no stamps has no part "peer"."""
    called = last_calls([one for rank in ranks for one in rank["messages"]])
    return [[span for message in rank["messages"] for span in phases(message, called, link)] for rank in ranks]


def phases(message: dict[str, Any], called: dict[Any, float], link: dict[str, tuple[float, float]]) -> list[Span]:
    """The parts of one message on its rank, in the order of time. `called`: of `last_calls`."""
    latency_s, bytes_per_s = link[way(message)]
    ended, last_call = message["ended"], min(called[identity(message)], message["ended"])
    bytes_from = min(last_call + latency_s, ended)
    bytes_until = min(bytes_from + bytes_sent(message) / bytes_per_s, ended)
    spans = [("peer", message["called"], last_call), ("latency", last_call, bytes_from)]
    spans += [("moving", bytes_from, bytes_until), ("delayed", bytes_until, ended)]
    if message["went_on"] is not None:
        spans.append(("waking", max(ended, message["waited"]), message["went_on"]))
    return [span for span in spans if span[2] > span[1]]


def received(ranks: list[dict[str, Any]]) -> None:
    """A send has ended, at the latest, when its receiver has everything. (The sender may look much later.) Changes "ended" of sends."""
    got = {identity(one): one["ended"] for rank in ranks for one in rank["messages"] if one["verb"] == "recv"}
    for rank in ranks:
        for one in rank["messages"]:
            if one["verb"] == "send":
                one["ended"] = max(one["called"], min(one["ended"], got.get(identity(one), one["ended"])))


def last_calls(messages: list[dict[str, Any]]) -> dict[Any, float]:
    """When the last rank called each message, by `identity`."""
    called: dict[Any, float] = {}
    for message in messages:
        called[identity(message)] = max(message["called"], called.get(identity(message), message["called"]))
    return called


def bytes_sent(message: dict[str, Any]) -> float:
    """The bytes that cross the link in one direction for this rank, by the formula of gloo; its payload where there is none."""
    if way(message) == "pair":
        return message["bytes"]
    sent = sent_by_formula(message["verb"], message["bytes"], len(message["members"]))
    return message["bytes"] if sent is None else sent


def identity(message: dict[str, Any]) -> tuple[Any, ...]:
    """The same for a message on all ranks that take part in it: they, and which of their messages it is."""
    return way(message), *message["members"], message["turn"]


def way(message: dict[str, Any]) -> str:
    """How a message travels: "pair" (send, receive) or "group" (a collective)."""
    return "pair" if message["peer"] is not None else "group"


def link_of(ranks: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """{way: (latency in seconds, bandwidth in bytes per second)} from `ranks`' "trial" messages: a number, and 4 MiB, sent at the end
    of a step. Both count from the last rank's call to the end of the message. The latency is the median of the small ones. The
    bandwidth is the best of the large ones: what made the others slower was not the link. {} without trials."""
    called = last_calls([one for rank in ranks for one in rank["trial"]])
    small: dict[str, list[float]] = {}
    large: dict[str, list[tuple[float, float]]] = {}
    for rank in ranks:
        for message in rank["trial"]:
            if message["verb"] == "send":  # a small message leaves the sender before anybody has received it
                continue
            took = max(0.0, message["ended"] - called[identity(message)])
            if message["bytes"] <= 8:
                small.setdefault(way(message), []).append(took)
            else:
                large.setdefault(way(message), []).append((took, bytes_sent(message)))
    found = {}
    for how, seconds in small.items():
        took, sent = min(large[how])
        found[how] = (statistics.median(seconds), sent / (took - min(seconds)) if took > min(seconds) else math.inf)
    return found


def union(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Intervals (start, end), sorted, with those that overlap or touch joined into one."""
    merged: list[tuple[float, float]] = []
    for a, b in sorted(spans):
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    return merged
