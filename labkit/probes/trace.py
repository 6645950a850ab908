"""A probe: where the steps of a row spend their time, and what each rank keeps in memory.

The row's real ranks, with its real strategy, data and threads, take a few steps with a stopwatch at every layer. It is a probe
and not a measurement: the stopwatch costs time itself (on CUDA it waits for the device at every layer), so shares and
order are what to read in it; images/s come from runs.
"""

from __future__ import annotations

import hashlib
import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.rows.fields import SpecError
from labkit.rows.fit import process_group
from labkit.rows.kinds import STRATEGIES, kind_of
from labkit.rows.spec import Spec
from labkit.system.machine import this_machine

PROBE = ("trace.py", "recorder.py")  # an edit of these makes kept traces invalid, beside what does so for every run
WARMUP_STEPS = 1  # in it, memory is weighed
KINDS = ("backward", "forward", "update", "data")  # where two happen at once, the time counts as the first of these


@dataclass(frozen=True)
class Trace:
    """`ranks`: by rank {"rank", "events", "steps", "holds"}. An event is [kind, lane, layer, micro-batch, start, end], a step
    [start, end], both in seconds since the first recorded step began; a lane is a replica of DataParallel, else 0. `holds`: bytes
    of parameters, gradients, optimizer state and, at their peak, of the activations kept for backward."""

    spec: Spec
    exchange: bool
    ranks: list[dict[str, Any]]

    def step(self, k: int) -> dict[int, list[list[Any]]]:
        """The events of recorded step k, by rank."""
        found = {}
        for rank in self.ranks:
            start, end = rank["steps"][k]
            found[rank["rank"]] = [event for event in rank["events"] if start <= event[4] and event[5] <= end]
        return found

    def split(self) -> list[dict[str, Any]]:
        """For each rank its step of median length (the shorter of two), in seconds: step_s, and the parts that it is the sum of: data_s
        (waiting for images), forward_s, backward_s, update_s and exchange_s: all else, which is exchange, waiting for others, and
        the loss. (Medians of each part over the steps would not add up.)"""
        lines = []
        for rank in self.ranks:
            parts = sorted((split_of(rank["events"], *step) for step in rank["steps"]), key=lambda part: part["step_s"])
            lines.append({"rank": rank["rank"]} | parts[(len(parts) - 1) // 2])
        return lines

    def bubble(self) -> float:
        """The share of a pipeline's step, from its first forward to its last backward, in which a stage computed nothing:
        over all stages, median over the steps."""
        idle = []
        for k in range(len(self.ranks[0]["steps"])):
            computed = [[e for e in events if e[0] in ("forward", "backward")] for events in self.step(k).values()]
            begin, end = min(e[4] for rank in computed for e in rank), max(e[5] for rank in computed for e in rank)
            busy = [sum(b - a for a, b in union([(e[4], e[5]) for e in rank])) for rank in computed]
            idle.append(1 - sum(busy) / (len(busy) * (end - begin)))
        return statistics.median(idle)

    def slowest_s(self) -> float:
        """Seconds of a step on the rank that takes longest."""
        return max(line["step_s"] for line in self.split())


def split_of(events: list[list[Any]], start: float, end: float) -> dict[str, float]:
    """The seconds of one step, each counted once: see KINDS."""
    inside = [e for e in events if e[5] > start and e[4] < end]
    marks = sorted({start, end, *(min(max(t, start), end) for e in inside for t in e[4:6])})
    parts = dict.fromkeys(KINDS, 0.0)
    for a, b in itertools.pairwise(marks):
        kind = next((kind for kind in KINDS if any(e[0] == kind and e[4] <= a and b <= e[5] for e in inside)), None)
        if kind:
            parts[kind] += b - a
    named = {f"{kind}_s": parts[kind] for kind in ("data", "forward", "backward", "update")}
    return {"step_s": end - start, **named, "exchange_s": end - start - sum(parts.values())}


def union(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for a, b in sorted(spans):
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    return merged


def longer(one: Trace | None, other: Trace | None) -> float | None:
    """How many times as long a step of `one` takes as a step of `other`; None if either is missing."""
    return one.slowest_s() / other.slowest_s() if one and other else None


def trace(
    row: str,
    profile: str = "quick",
    overrides: dict[str, Any] | None = None,
    steps: int = 3,
    exchange: bool = True,
    fresh: bool = False,
) -> Trace:
    """Record `steps` steps of a row, after one to warm up; kept, and not recorded again while nothing changed.

    exchange=False: the same ranks train the same shards, and never say a word to each other (each by itself, as `single`). It
    is no training, since the ranks drift apart; its time is what the computation alone takes. Raises SpecError for a row
    that this machine cannot run, or that cannot compute without an exchange; RunFailed if a rank fails.
    """
    from labkit.data.datasets import prepare
    from labkit.engine.job import Job
    from labkit.processes.launch import launch
    from labkit.runs.folders import claimed, conditions, label_of, runs_folder
    from labkit.runs.plan import plan
    from labkit.system.files import read_json, write_json

    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 1000:
        raise SpecError(f"steps={steps!r}: must be a whole number from 1 to 1000")
    (planned, *_) = [one for one in plan([row], profile, overrides) if one.spec] or plan([row], profile, overrides)
    spec = planned.spec
    if spec is None:
        raise SpecError(f"{row}: {planned.reason}")
    if not exchange and not spec.kind.splits_batch:
        others = ", ".join(name for name in STRATEGIES if kind_of(name).splits_batch)
        raise SpecError(f"exchange=False: {spec.strategy} has no exchange to leave out; it can be had for {others}")
    if spec.strategy == "data_parallel" and spec.device == "cuda":
        raise SpecError(
            f"{row}: torch's DataParallel makes new replicas in every step, which this probe cannot follow; use device=cpu"
        )
    folder = runs_folder() / label_of(profile, overrides or {}) / spec.name / "trace" / (f"{steps}" + "-silent" * (not exchange))
    about = conditions(spec) | {
        "probe": hashlib.sha256(b"".join((Path(__file__).parent / name).read_bytes() for name in PROBE)).hexdigest()[:16]
    }
    kept = read_json(folder / "trace.json")
    if fresh or not kept or any(kept.get(key) != about[key] for key in about):
        with claimed(folder):
            arguments = {"spec": spec.to_dict(), "data_folder": str(prepare(spec.dataset)), "steps": steps, "exchange": exchange}
            job = Job(
                target="labkit.probes.trace:trace_rank",
                processes=spec.processes if exchange else spec.world_size,
                folder=folder,
                arguments=arguments,
                backend=process_group(spec),
                threads=spec.threads_per_rank,
                timeout_s=spec.timeout_s,
                deadline_s=spec.deadline_s,
            )
            kept = about | {"machine": this_machine().to_dict(), "ranks": launch(job)}
            write_json(folder / "trace.json", kept)
    zero = min(rank["steps"][0][0] for rank in kept["ranks"])
    for rank in kept["ranks"]:
        rank["steps"] = [[t - zero for t in step] for step in rank["steps"]]
        rank["events"] = [[*event[:4], event[4] - zero, event[5] - zero] for event in rank["events"]]
    return Trace(spec, exchange, kept["ranks"])


def trace_rank(*, rank: int, progress: Any, spec: dict[str, Any], data_folder: str, steps: int, exchange: bool) -> dict[str, Any]:
    """One rank of a trace."""
    import time

    import torch

    from labkit.engine.loop import build
    from labkit.engine.worker import device_of
    from labkit.probes.recorder import Recorder, holds
    from labkit.strategy import strategy_class

    row = Spec(**spec)
    row = row.but(epochs=row.epochs + WARMUP_STEPS + steps)  # more than enough, whatever an epoch holds
    device = device_of(row, rank, rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    strategy: Any
    strategy, data, place, _ = build(row, rank, device, Path(data_folder), None if exchange else strategy_class("single"))
    shard = strategy.shard if exchange else (rank, row.world_size)
    recorder = Recorder(strategy, device)
    batches = (
        batch
        for epoch in itertools.count()
        for batch in (
            itertools.repeat((None, None, None), place.steps_per_epoch) if shard is None else data.train_batches(epoch, shard)
        )
    )
    spans = []
    for step in range(WARMUP_STEPS + steps):
        progress.at("step", 0, step)
        recorder.weighing = step == WARMUP_STEPS - 1
        began = time.monotonic()
        with recorder.span("data"):
            x, y, _ = next(batches)
        strategy.step(x, y)
        recorder.wait()
        spans.append([began, time.monotonic()])
    timed = spans[WARMUP_STEPS:]
    events = [event for event in recorder.events if timed[0][0] <= event[4] and event[5] <= timed[-1][1]]
    return {"rank": rank, "events": events, "steps": timed, "holds": holds(strategy) | {"activations": recorder.peak_bytes}}
