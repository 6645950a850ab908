"""What one run left: a `Result` with its figures, or `NoResult` with the reason. Written as JSON by `train.py`, read back here.

Units stand in the names: `_s` seconds, `_mib` 2^20 bytes, `_pct` percent. Times named `_at` are Unix seconds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.rows.fields import SpecError
from labkit.rows.spec import Spec
from labkit.system.files import Unreadable, checked_fields, counts, one_line, read_json
from labkit.system.machine import Machine, busy

AGAIN = "train the row again to replace it"
ENDINGS = ("failed", "oom", "incomplete", "timeout", "interrupted", "running")  # of an attempt that gave no result


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    `after_s`: seconds from the call that launched the run to the end of this epoch's evaluation."""

    epoch: int
    train_loss: float
    test_acc_pct: float
    after_s: float


@dataclass(frozen=True)
class RankFigures:
    """What one rank measured. `shard` (i, n): it trained part i of the n parts of each step's images; None for a server.

    `images_timed` images were trained in `timed_s` seconds, without the warm-up steps. `strategy`: what the strategy counted.
    `messages_per_step`: {verb: [messages, bytes of their payload]} of a training step, the mean over the last epoch's steps after the
    warm-up; evaluation is not in it (`engine.counted.Counter`). `sent_bytes_per_step`: bytes that left this process in such a step, as
    the kernel counted them on its sockets, with gloo's headers. None: not counted (a result of before it was; NCCL; not Linux)."""

    rank: int
    shard: tuple[int, int] | None
    max_mem_mib: float
    images_timed: int
    timed_s: float
    images_per_s: float
    train_s: float
    eval_s: float
    data_wait_s: float
    steps: int
    first_step_at: float
    strategy: dict[str, Any]
    messages_per_step: dict[str, list[float]] | None = None
    sent_bytes_per_step: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """A run that ended well: what ran, on which machine, with which code, and what was measured.

    images_per_s    images trained per second by all ranks together, without warm-up steps and evaluation
    best_acc_pct    the best test accuracy after any epoch
    max_mem_mib     peak memory of the rank that needed most. CUDA: the allocator's peak; CPU: growth of the resident set
    startup_s       from the call to the first step; train_s, eval_s, data_wait_s: of the rank that took longest
    total_time_s    from the call until all ranks have ended
    others_cores    cores that other programs, and other guests of the host, took during the run; so just before and after it
    stolen_cores    what other guests took of it
    environment     variables set from outside that change speed (system/tuning.py)
    strategy        what strategies counted, such as a server's {"staleness": {updates late: gradients}}
    later_attempt   status and reason of a later try that gave no result; not part of the file"""

    name: str
    label: str
    repeat: int
    run_dir: str
    spec: Spec
    machine: Machine
    versions: dict[str, str]
    environment: dict[str, str]
    code: str
    commit: str
    started_at: float
    pid: int
    others_before_cores: float
    others_cores: float
    others_after_cores: float
    stolen_cores: float
    images_per_s: float
    best_acc_pct: float
    max_mem_mib: float
    total_time_s: float
    startup_s: float
    train_s: float
    eval_s: float
    data_wait_s: float
    steps: int
    epochs: list[Epoch]
    ranks: list[RankFigures]
    strategy: dict[str, Any]
    hosts: int = 1
    launcher: str = "labkit"
    status: str = "ok"
    reason: str = ""
    later_attempt: str = field(default="", metadata={"in_file": False})

    @classmethod
    def from_json(cls, content: Any, where: str | Path = "result") -> Result:
        """The Result that a JSON file holds. Raises Unreadable for a file of another version, or one that was edited or torn."""
        values = checked_fields(content, cls, where, AGAIN)
        checked_fields(values["machine"], Machine, f"{where}, machine", AGAIN)
        try:
            values["spec"], values["machine"] = Spec(**values["spec"]), machine_of(values["machine"])
        except (TypeError, SpecError) as error:
            raise Unreadable(f"{where}: was written by another version of labkit ({one_line(error)}); {AGAIN}") from None
        values["epochs"] = [Epoch(**checked_fields(epoch, Epoch, f"{where}, epochs", AGAIN)) for epoch in values["epochs"]]
        ranks = [checked_fields(rank, RankFigures, f"{where}, ranks", AGAIN) for rank in values["ranks"]]
        values["ranks"] = [RankFigures(**rank | {"shard": rank["shard"] and tuple(rank["shard"])}) for rank in ranks]
        if not values["epochs"] or not any(rank.shard for rank in values["ranks"]):
            raise Unreadable(f"{where}: no epoch, or no rank that trained, is in it; {AGAIN}")
        if not counts(values["strategy"].get("staleness", {})):
            raise Unreadable(f"{where}: 'staleness' must be numbers of gradients by how many updates late they were; {AGAIN}")
        return cls(**values)

    @property
    def busy(self) -> bool:
        """Did other programs take so much of the machine that the speed of this run says nothing? (See system/load.py.)"""
        spec = self.spec
        needed = spec.processes * max(1, spec.threads_per_rank, spec.loader_workers)
        return busy(self.others_cores, needed, self.machine.cores)

    def to_json(self) -> dict[str, Any]:
        """Plain data, as it stands in result.json."""
        content = dataclasses.asdict(self)
        content.pop("later_attempt")
        return content | {"machine": self.machine.to_dict()}


@dataclass(frozen=True, kw_only=True)
class NoResult:
    """A run without a result, or a file that cannot be read.

    status: failed, oom, incomplete, timeout, interrupted, running or unreadable. `reason`: the cause in one line. `detail`: more,
    such as the traceback of a rank or its last log lines."""

    name: str
    repeat: int
    run_dir: str
    status: str
    reason: str
    started_at: float = 0.0
    detail: str = ""

    @classmethod
    def from_json(cls, content: Any, where: str | Path) -> NoResult:
        """The outcome in the content of an attempt.json. Raises Unreadable if a field is missing or has another type."""
        if isinstance(content, dict):  # an attempt has more keys than we need
            names = {one.name for one in dataclasses.fields(cls)}
            content = {key: value for key, value in content.items() if key in names}
        outcome = cls(**checked_fields(content, cls, where, AGAIN))
        if outcome.status not in ENDINGS:
            raise Unreadable(f"{where}: the status {outcome.status[:40]!r} is none of {', '.join(ENDINGS)}; {AGAIN}")
        return outcome


def throughput(ranks: list[dict[str, Any]]) -> float:
    """Images/s of all ranks together, from what they measured. Ranks that share a shard (pipeline stages) count once, the others add
    up."""
    shards: dict[tuple, list[float]] = {}
    for rank in ranks:
        if rank["shard"] is not None:
            shards.setdefault(tuple(rank["shard"]), []).append(rank["images_per_s"])
    return sum(sum(rates) / len(rates) for rates in shards.values())


def machine_of(facts: dict[str, Any]) -> Machine:
    """The Machine from its facts in a JSON file. Raises TypeError for facts that a Machine does not have."""
    if "cuda" in facts:
        facts = facts | {"cuda": tuple(facts["cuda"])}
    return Machine(**facts)


Outcomes = dict[str, list[Result | NoResult]]  # by row name, one for each repeat
Results = dict[str, list[Result]]


def read_result(path: Path) -> Result | None:
    """The result in a file, or None if there is no file. Raises Unreadable, or OSError without permission to read the file."""
    content = read_json(path)
    return None if content is None else Result.from_json(content, path)
