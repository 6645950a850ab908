"""The time of a step of several rows, measured in turns, so that it may be compared: traces in rounds.

    round 1    trace A | trace B | trace A without messages
    round 2    ...

As images/s (runs/rounds.py), step times are compared within a round, and by their spread over the rounds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from labkit.probes.parts import Waited
from labkit.probes.trace import Trace, trace
from labkit.runs.rounds import BUSY_SHARE
from labkit.runs.spread import LEAST, Measured, in_rounds, measured


@dataclass(frozen=True)
class Traced:
    """A row that was traced in rounds. `trace`: that of the first round; `rounds`: of each round. `parts`: part of the step (step_s, data_s,
    forward_s, ...) -> seconds on the rank with the longest step (see `slowest_rank`), with its spread over the rounds."""

    trace: Trace
    parts: dict[str, Measured]
    rounds: tuple[Trace, ...]

    def part(self, key: str = "step_s") -> Measured:
        """Seconds of a part of the step. Raises KeyError for a part that `Trace.split` does not have."""
        return self.parts[key]

    def each(self, figure: Callable[[Trace], float]) -> Measured:
        """A positive figure of a trace, with its spread over the rounds."""
        return measured([figure(one) for one in self.rounds], self.busy)

    @property
    def busy(self) -> bool:
        """Did other programs take cores that the ranks needed, in too many of all traces of these rounds?"""
        return self.parts["step_s"].busy

    def waited(self) -> Waited | None:
        """What the training ranks did while they computed nothing, in the steps of all rounds (see `Trace.waited`)."""
        found = [waited for one in self.rounds if (waited := one.waited())]
        if len(found) < len(self.rounds):
            return None
        seconds = {part: [s for one in found for s in one.seconds[part]] for part in found[0].seconds}
        return Waited(seconds, self.busy)


def traces(asked: Mapping[str, Mapping[str, Any]], rounds: int = LEAST, fresh: bool = False) -> dict[str, Traced]:
    """Trace what is asked for, by label, in turn: `rounds` rounds. Each value holds the arguments of `trace`; the traces are kept.

    Raises SpecError and RunFailed as `trace` does."""
    found: list[dict[str, Trace]] = []
    for number in range(1, rounds + 1):
        found.append({label: trace(**arguments, number=number, fresh=fresh) for label, arguments in asked.items()})
    each = [one.busy for turn in found for one in turn.values()]
    was_busy = sum(each) > len(each) * BUSY_SHARE
    slowest = [{label: slowest_rank(one) for label, one in turn.items()} for turn in found]
    keys = [key for key in next(iter(slowest[0].values())) if key.endswith("_s")] if asked else []
    told: dict[str, dict[str, Measured]] = {label: {} for label in asked}
    for key in keys:
        turns = [{label: line[key] for label, line in turn.items()} for turn in slowest]
        positive = all(seconds > 0 for turn in turns for seconds in turn.values())  # else their logarithms cannot be compared
        figures = in_rounds(turns, was_busy) if positive else {}
        for label in asked:
            told[label][key] = figures.get(label) or measured([turn[label] for turn in turns], was_busy)
    return {label: Traced(found[0][label], parts, tuple(turn[label] for turn in found)) for label, parts in told.items()}


def slowest_rank(one: Trace) -> dict[str, float]:
    """The parts of the step (see `Trace.split`) on the rank with the longest step, of the ranks that compute. A parameter server
    computes no forward, and its step is mostly waiting."""
    lines = one.split()
    return max([line for line in lines if line["forward_s"] > 0] or lines, key=lambda line: line["step_s"])
