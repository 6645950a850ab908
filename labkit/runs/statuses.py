"""How each notebook of a batch ended: a small JSON file next to each executed notebook."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.runs.folders import held, runs_folder
from labkit.system.files import Unreadable, check_readable, checked_fields, read_json


@dataclass
class Status:
    """How one notebook ended. status: ok, failed, timeout, kernel died, interrupted, or running.

    `started_at`: Unix seconds. `inputs`: a digest of everything that the notebook depends on. `kept`: an earlier call executed
    it."""

    notebook: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    started_at: float = 0.0
    inputs: str = ""
    kept: bool = field(default=False, compare=False, metadata={"in_file": False})


def read_status(path: Path) -> Status | None:
    """The status in a notebook's file; None if there is no file. Raises Unreadable."""
    content = read_json(path)
    return None if content is None else status_from(content, path, "run `labkit report` again to replace it")


def status_from(content: Any, where: str | Path, remedy: str) -> Status:
    """A status from plain data. Raises Unreadable, with the place and the remedy, for data of another version of labkit."""
    return Status(**checked_fields(content, Status, where, remedy))


def read_statuses(label: str) -> list[Status]:
    """The status of each notebook that was executed for a profile's folder, sorted by number.

    A notebook without a status, or with the status "running" while no batch runs, was interrupted. A
    notebook whose file cannot be used has the status "unreadable", with the reason."""
    folder = runs_folder() / label / "notebooks"
    check_readable(folder)
    statuses = []
    for name in sorted({path.name.partition(".")[0] for path in folder.glob("[0-9]*.*")}):
        try:
            status = read_status(folder / f"{name}.status.json") or Status(name, "running")
        except Unreadable as error:
            status = Status(name, "unreadable", str(error))
        if status.status == "running" and not held(folder):
            status.status, status.reason = "interrupted", "the batch ended before the notebook did"
        statuses.append(status)
    return statuses
