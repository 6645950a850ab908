"""A job: what the launcher starts, and with which limits."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.rows.kinds import own_folder


@dataclass(frozen=True)
class Job:
    """`processes` processes that each call one function.

    target       "module:function". It is called with `arguments`, and with the keywords `rank` (0, 1, ...) and `progress`
                 (engine/measure.py). It must return plain data (JSON).
    folder       where the ranks leave their logs, events and results
    backend      of the process group: "gloo", "nccl", or "cpu:gloo,cuda:nccl"; "" starts no group
    threads      CPU threads of each process
    timeout_s    longest wait of one rank for another, in seconds
    deadline_s   longest run of the whole job, in seconds
    strategies   the folder of strategies of one's own (the fork server may have started when it was another)"""

    target: str
    processes: int
    folder: Path
    arguments: dict[str, Any] = field(default_factory=dict)
    backend: str = "gloo"
    threads: int = 1
    timeout_s: float = 20.0
    deadline_s: float = 3600.0
    strategies: str = field(default_factory=lambda: str(own_folder()))
