"""A probe: where the steps of a row spend their time, and what each rank keeps in memory.

The row's real ranks, with its real strategy, data and threads, make a few steps with a timer at every layer. It is a probe and
not a measurement, because the timers take time themselves (on CUDA they wait for the device at every layer). So read the
order of events and their shares in it; images/s come from runs.

    steps of a trace, on every rank:   warm-up, bytes are counted   |  step 0  |  step 1  |  step 2   |  steps with trial messages
                                                                       times are recorded                the link is measured
"""

import hashlib
import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.data.datasets import prepare
from labkit.engine.job import Job
from labkit.probes.parts import EXCHANGE, Waited, link_of, phases_of, received, split_of, union
from labkit.processes import launch
from labkit.rows.fields import SpecError
from labkit.rows.fit import process_group
from labkit.rows.kinds import kind_of, strategies
from labkit.rows.spec import Spec
from labkit.runs.folders import claimed, conditions
from labkit.runs.plan import plan
from labkit.system.files import read_kept, write_json
from labkit.system.machine import Watch, busy, this_machine

PROBE = (
    "trace.py",
    "recorder.py",
    "parts.py",
)  # an edit of these files makes kept traces invalid, as does any change that makes runs invalid
WARMUP_STEPS = 1  # the bytes of activations are counted in it
TRIAL_STEPS = 5  # after the recorded ones: at the end of each the ranks send an empty and a large message, to measure the link


@dataclass(frozen=True)
class Trace:
    """What was recorded of a row. `ranks` has a dict for each rank:

    rank     0, 1, ...
    events   [kind, lane, layer, micro-batch, start, end]; a lane is a replica of DataParallel, else 0
    messages dicts of what this rank sent and received (see `labkit.engine.stamps.Stamps`); [] with NCCL, whose messages are not stamped
    steps    [start, end] of each recorded step
    holds    bytes of "parameters", "gradients", "optimizer" state, and "activations" kept for backward, at their peak

    start and end are in seconds since the first recorded step began. `exchange`: False if the ranks did not communicate.
    `link`: {"group" or "pair": (latency in seconds, bandwidth in bytes per second)} at the end of a step (`parts.link_of`).
    `others_cores`: cores that other programs took while it was recorded."""

    spec: Spec
    exchange: bool
    ranks: list[dict[str, Any]]
    link: dict[str, tuple[float, float]]
    others_cores: float = 0.0

    @property
    def busy(self) -> bool:
        """Did other programs take cores that its ranks needed?"""
        return busy(self.others_cores, self.spec.processes * max(1, self.spec.threads_per_rank), this_machine().cores)

    def step(self, k: int) -> dict[int, list[list[Any]]]:
        """The events of recorded step k (0, 1, ...), by rank."""
        found = {}
        for rank in self.ranks:
            start, end = rank["steps"][k]
            found[rank["rank"]] = [event for event in rank["events"] if start <= event[4] and event[5] <= end]
        return found

    def split(self) -> list[dict[str, Any]]:
        """For each rank its step of median length, in seconds (of two middle ones the shorter). A dict of rank, step_s, and the
        parts that add up to it: data_s (waiting for images), forward_s, backward_s, update_s, and exchange_s, which is all the rest.
        Its parts are moving_s, latency_s, delayed_s, peer_s, waking_s and other_s (`labkit.probes.parts` defines them). (Medians of each
        part would not add up.)"""
        lines = []
        for rank, steps in zip(self.ranks, self.parts(), strict=True):
            parts = sorted(steps, key=lambda part: part["step_s"])
            lines.append({"rank": rank["rank"]} | parts[(len(parts) - 1) // 2])
        return lines

    def parts(self) -> list[list[dict[str, float]]]:
        """For each rank, for each recorded step: the seconds of `split_of`."""
        phases = phases_of(self.ranks, self.link)
        return [
            [split_of(rank["events"], start, end, spans) for start, end in rank["steps"]]
            for rank, spans in zip(self.ranks, phases, strict=True)
        ]

    def messages(self, k: int) -> dict[int, list[dict[str, Any]]]:
        """The messages of recorded step k (0, 1, ...) by rank: those that were under way in it."""
        found = {}
        for rank in self.ranks:
            start, end = rank["steps"][k]
            found[rank["rank"]] = [one for one in rank["messages"] if one["ended"] > start and one["called"] < end]
        return found

    def waited(self) -> Waited | None:
        """What the training ranks did while they computed nothing; None if there was no exchange, or nothing was stamped."""
        if not any(rank["messages"] for rank in self.ranks):
            return None
        training = [steps for rank, steps in zip(self.ranks, self.parts(), strict=True) if not self.spec.is_server(rank["rank"])]
        names = ["step", *EXCHANGE]
        return Waited(
            {
                name: [statistics.mean(step[f"{name}_s"] for step in same) for same in zip(*training, strict=True)]
                for name in names
            },
            self.busy,
        )

    def bubble(self) -> float:
        """The share (0 to 1) of a pipeline's step, from its first forward to its last backward, in which a stage computed nothing:
        the mean over all stages, then the median over the steps."""
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
    number: int = 1,
) -> Trace:
    """Record `steps` steps of a row, after one warm-up step. The trace is kept, and read again while nothing has changed;
    fresh=True records a new one. `number`: of several traces of the same row, each kept for itself (probes/steps.py).

    exchange=False: the same ranks train the same shards, and do not communicate (each trains as `single`). Their weights
    become different, so it is no training; its time is what the computation alone takes. Raises SpecError for a row that
    this machine cannot run, or that cannot compute without an exchange, and for a wrong `steps`; RunFailed if a rank fails."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 1000:
        raise SpecError(f"steps={steps!r}: must be a whole number from 1 to 1000")
    planned = plan([row], profile, overrides)
    spec = next((one.spec for one in planned.runnable), None)
    if spec is None:
        raise SpecError(f"{row}: {planned.rows[0].reason}")
    if not exchange and not spec.kind.splits_batch:
        others = ", ".join(name for name in strategies() if kind_of(name).splits_batch)
        raise SpecError(f"exchange=False: {spec.strategy} cannot compute without its exchange; use one of {others}")
    if spec.strategy == "data_parallel" and spec.device == "cuda":
        raise SpecError(
            f"{row}: torch's DataParallel makes new replicas in every step, and this probe cannot record them; use device=cpu"
        )
    kind = (f"{steps}" if exchange else f"{steps}-silent") + (f"-{number}" if number > 1 else "")
    folder = planned.folder / spec.name / "trace" / kind
    about = conditions(spec) | {
        "probe": hashlib.sha256(b"".join((Path(__file__).parent / name).read_bytes() for name in PROBE)).hexdigest()[:16]
    }
    kept = None if fresh else read_kept(folder / "trace.json", about)
    if kept is None:
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
            watch = Watch()
            kept = about | {"ranks": launch.launch(job), "others_cores": round(watch.taken().cores, 2)}
            write_json(folder / "trace.json", kept)
    zero = min(rank["steps"][0][0] for rank in kept["ranks"])
    for rank in kept["ranks"]:
        rank["steps"] = [[t - zero for t in step] for step in rank["steps"]]
        rank["events"] = [[*event[:4], event[4] - zero, event[5] - zero] for event in rank["events"]]
        for message in rank["messages"]:
            message |= {key: message[key] and message[key] - zero for key in ("called", "ended", "waited", "went_on")}
    received(kept["ranks"])
    return Trace(spec, exchange, kept["ranks"], link_of(kept["ranks"]), kept["others_cores"])


def trace_rank(*, rank: int, progress: Any, spec: dict[str, Any], data_folder: str, steps: int, exchange: bool) -> dict[str, Any]:
    """One rank of a trace, in its own process: returns {"rank", "events", "messages", "trial", "steps", "holds"}, with times of the
    monotonic clock. "trial": messages of a number and of 4 MiB, of the steps after the recorded ones."""
    import torch.distributed as dist  # late: keeps torch out of a process that does not need it

    from labkit.engine.loop import build  # late: keeps torch out of a process that does not need it
    from labkit.engine.stamps import Stamps  # late: keeps torch out of a process that does not need it
    from labkit.engine.worker import take_device  # late: keeps torch out of a process that does not need it
    from labkit.probes.recorder import Recorder, holds  # late: keeps torch out of a process that does not need it
    from labkit.strategies import strategy_class  # late: keeps torch out of a process that does not need it

    row = Spec(**spec)
    row = row.but(epochs=row.epochs + WARMUP_STEPS + steps + TRIAL_STEPS)  # more epochs than these steps can need
    device = take_device(row, rank, rank)
    strategy: Any
    strategy, data, place, _ = build(row, rank, device, Path(data_folder), None if exchange else strategy_class("single"))
    shard = strategy.shard if exchange else (rank, row.world_size)
    recorder, stamps = Recorder(strategy, device), Stamps(strategy.precision)

    def batches() -> Iterator[tuple[Any, Any, Any]]:
        for epoch in itertools.count():
            if shard is None:  # a server: it is given no images
                yield from itertools.repeat((None, None, None), place.steps_per_epoch)
            else:
                yield from data.train_batches(epoch, shard)

    images, spans = batches(), []
    for step in range(WARMUP_STEPS + steps):
        progress.at("step", 0, step)
        recorder.counts_bytes = step == WARMUP_STEPS - 1
        began = time.monotonic()
        with recorder.span("data"):
            x, y, _ = next(images)
        strategy.step(x, y)
        recorder.wait()
        spans.append([began, time.monotonic()])
    timed, recorded = spans[WARMUP_STEPS:], stamps.ended()
    events = [event for event in recorder.events if timed[0][0] <= event[4] and event[5] <= timed[-1][1]]
    messages = [one for one in recorded if one["ended"] > timed[0][0] and one["called"] < timed[-1][1]]
    trial: list[dict[str, Any]] = []
    if exchange and dist.is_initialized() and place.processes > 1:
        for _ in range(TRIAL_STEPS):
            strategy.step(*next(images)[:2])
            trial += stamps.of_trial(rank)
    kept = {"rank": rank, "events": events, "messages": messages, "trial": trial, "steps": timed}
    return kept | {"holds": holds(strategy) | {"activations": recorder.peak_bytes}}
