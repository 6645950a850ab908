"""The speed of several rows, measured in turns, so that they may be compared.

    round 1    row A | row B | row C | row A again, with another seed
    round 2    row A | row B | row C | row A again
    ...

A machine is faster in one minute than in another. So rows that are compared are measured next to each other, several times, and a
round is compared with itself. In its turn a row starts its ranks, makes warm-up steps and then a few timed ones, and evaluates
nothing: about a second at quick. The first row's second turn is a control: another seed cannot change its speed, so the two must
come out equal.

Rounds end when the spread is small enough to see a difference of 10 %, or when there are too many. They are kept in
runs/<profile>/rounds/<digest of the names>.json, while nothing has changed that decides over speed.
"""

import hashlib
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from labkit.data.datasets import prepare
from labkit.engine.job import Job
from labkit.processes import fork_server, launch
from labkit.processes.diagnose import RunFailed
from labkit.processes.digest import code_digest
from labkit.proof.prove import proof_for
from labkit.rows.fit import process_group
from labkit.rows.kinds import own_strategies
from labkit.rows.spec import Spec
from labkit.runs.folders import claimed, clear_abandoned, commit, proofs_folder, surroundings
from labkit.runs.plan import Plan
from labkit.runs.result import AGAIN, throughput
from labkit.runs.spread import EQUAL_WITHIN, LEAST, Measured, in_rounds
from labkit.system.files import Unreadable, read_json, write_json
from labkit.system.machine import Watch, busy, this_machine

CONTROL = "control"  # the name of the first row's second turn
BUSY_SHARE = 0.25  # of the turns: if others took cores in more of them, the machine was busy

OnTurn = Callable[[str, int], None]


@dataclass(frozen=True)
class Rounds:
    """What the rounds of a set of rows gave: for each round a dict of row name (or CONTROL) -> images/s of all ranks together.

    `others_cores`: for each round, row name -> cores that other programs took in its turn. `failed`: row name -> why it gave nothing.
    """

    names: tuple[str, ...]
    turns: list[dict[str, float]]
    others_cores: list[dict[str, float]]
    failed: dict[str, str]
    busy: bool
    measured_at: float

    @cached_property
    def figures(self) -> dict[str, Measured]:
        """Images/s by row name, CONTROL included."""
        return in_rounds(self.turns, self.busy) if self.turns and self.turns[0] else {}

    @property
    def control(self) -> Measured | None:
        """The first row over its own second turn. It should be 1."""
        first = next((name for name in self.names if name in self.figures), "")
        return self.figures[first] / self.figures[CONTROL] if first and CONTROL in self.figures else None

    @property
    def noisy(self) -> bool:
        """Is a control that differs from its row, or a busy machine, a reason to draw nothing from these rounds?"""
        return self.busy or (self.control is not None and self.control.order() in (1, -1))

    def of(self, name: str) -> Measured | None:
        """Images/s of a row; None if it gave none."""
        found = self.figures.get(name)
        return None if found is None else Measured(found.samples, found.error, found.freedom, self.noisy)

    def to_json(self) -> dict[str, Any]:
        """Plain data, as it stands in the file."""
        return {"names": list(self.names)} | {key: getattr(self, key) for key in KEYS[1:]}


KEYS = ("names", "turns", "others_cores", "failed", "busy", "measured_at")


def from_json(content: dict[str, Any], where: str | Path) -> Rounds:
    """The Rounds in a file's content. Raises Unreadable for one that was edited, or is of another version."""
    try:
        found = Rounds(tuple(content["names"]), *(content[key] for key in KEYS[1:]))
        assert all(isinstance(rate, float) and rate > 0 for turn in found.turns for rate in turn.values())
        assert all(turn.keys() == found.turns[0].keys() for turn in found.turns)
        return found
    except (KeyError, TypeError, AttributeError, AssertionError, IndexError) as error:
        raise Unreadable(f"{where}: holds no rounds of this version of labkit ({error!r}); {AGAIN}") from None


def file_of(planned: Plan) -> Path:
    """Where the rounds of a plan's rows are kept."""
    names = sorted(row.name for row in planned.runnable)
    return planned.folder / "rounds" / f"r{hashlib.sha256(' '.join(names).encode()).hexdigest()[:12]}.json"


def conditions_of(planned: Plan) -> dict[str, Any]:
    """All that the speed of a plan's rows depends on."""
    own = sorted({row.spec.strategy for row in planned.runnable if row.spec} & own_strategies().keys())
    return (
        surroundings()
        | {"own": [code_digest(name) for name in own]}
        | {"specs": {row.name: row.spec.to_dict() for row in planned.runnable if row.spec}}
    )


def kept_rounds(planned: Plan) -> Rounds | None:
    """The latest kept rounds in which these rows were measured, perhaps with others; None if there are none that are still valid."""
    wanted, valid = conditions_of(planned), []
    for file in sorted((planned.folder / "rounds").glob("r*.json")):
        try:
            content = read_json(file)
            specs = {name: content["specs"].get(name) for name in wanted["specs"]}
            if content | {"specs": specs} == content | wanted:
                valid.append(from_json(content, file))
        except (Unreadable, KeyError, TypeError, AttributeError):
            continue  # damaged: measured again
    return max(valid, key=lambda rounds: rounds.measured_at, default=None)


def all_rounds(folder: Path) -> list[Rounds]:
    """All rounds in a profile's folder that can be read, the oldest first, whatever they were measured with."""
    found = []
    for file in (folder / "rounds").glob("r*.json"):
        with suppress(Unreadable, OSError):
            found.append(from_json(read_json(file), file))
    return sorted(found, key=lambda rounds: rounds.measured_at)


def measure(planned: Plan, fresh: bool | float = False, on_turn: OnTurn | None = None) -> Rounds | None:
    """The rounds of a plan's rows: the kept ones, or new ones; None if fewer than two rows run here. `fresh`: see `labkit.run`.

    `on_turn(row name, round)` is called before each turn. A row that fails in its first turn is left out, and told. Raises
    KeyboardInterrupt; OSError if the folder cannot be used."""
    rows = {row.name: row.spec for row in planned.runnable if row.spec}
    if len(rows) < 2:
        return None
    kept = None if fresh is True else kept_rounds(planned)
    if kept and kept.measured_at >= fresh:
        return kept
    least, most = planned.profile.rounds
    found = Rounds(tuple(rows), [], [], {}, False, time.time())
    with claimed(planned.folder / "rounds"):
        clear_abandoned()
        fork_server.warm(wait=True)
        for name, spec in rows.items():
            proof = proof_for(spec, proofs_folder())
            if proof is not None and not proof:
                found.failed[name] = f"not measured: {proof}"
        while len(found.turns) < most:
            specs = {name: spec for name, spec in rows.items() if name not in found.failed}
            if not specs:
                break
            first = next(iter(specs.values()))
            one_round(found, specs | {CONTROL: first.but(seed=first.seed + 1)}, planned.folder / "rounds", on_turn)
            if len(found.turns) >= least and (is_busy(found, rows) or sees_enough(found)):
                break
        found = Rounds(found.names, found.turns, found.others_cores, found.failed, is_busy(found, rows), found.measured_at)
        write_json(file_of(planned), conditions_of(planned) | {"commit": commit()} | found.to_json())
    return found


def one_round(found: Rounds, specs: dict[str, Spec], folder: Path, on_turn: OnTurn | None) -> None:
    """A turn of each row. What they give is added to `found`; the round of a row that failed is not."""
    rates: dict[str, float] = {}
    others: dict[str, float] = {}
    for name, spec in specs.items():
        if on_turn:
            on_turn(name, len(found.turns) + 1)
        watch = Watch()
        try:
            rates[name] = one_turn(spec, folder)
        except RunFailed as failed:
            if failed.status == "interrupted":
                raise KeyboardInterrupt(failed.reason) from None
            if not found.turns:
                found.failed[name] = failed.reason
                continue
            return
        others[name] = round(watch.taken().cores, 2)
    if rates:
        found.turns.append(rates)
        found.others_cores.append(others)


def one_turn(spec: Spec, folder: Path) -> float:
    """Images/s of all ranks of a row, over a few steps. Raises RunFailed."""
    arguments = {"spec": spec.to_dict(), "data_folder": str(prepare(spec.dataset)), "only_time": True}
    job = Job(
        target="labkit.engine.worker:train_row",
        processes=spec.processes,
        folder=folder,
        arguments=arguments,
        backend=process_group(spec),
        threads=spec.threads_per_rank,
        timeout_s=spec.timeout_s,
        deadline_s=spec.deadline_s,
    )
    return throughput(launch.launch(job))


def is_busy(found: Rounds, rows: dict[str, Spec]) -> bool:
    """Did others take cores that the rows needed, in more than BUSY_SHARE of the turns?"""
    cores = this_machine().cores
    needed = {name: spec.processes * max(1, spec.threads_per_rank) for name, spec in rows.items()}
    turns = [
        busy(others, needed.get(name, max(needed.values())), cores)
        for turn in found.others_cores
        for name, others in turn.items()
    ]
    return bool(turns) and statistics.mean(turns) > BUSY_SHARE


def sees_enough(found: Rounds) -> bool:
    """Would a difference of EQUAL_WITHIN between any two rows be seen?"""
    figures = list(found.figures.values())
    return len(found.turns) >= LEAST and len(figures) > 1 and (figures[0] / figures[1]).margin() <= EQUAL_WITHIN
