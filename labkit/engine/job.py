"""What the launcher is told to start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """What to start: `processes` copies of `target`, "module:function", called with `arguments` and the keywords
    rank, progress; what it returns must be plain data (JSON)."""

    target: str
    processes: int
    folder: Path
    arguments: dict[str, Any] = field(default_factory=dict)
    backend: str = "gloo"  # "" for no process group
    threads: int = 1
    timeout_s: float = 20.0
    deadline_s: float = 3600.0
