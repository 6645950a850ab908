"""How each notebook of a batch ended: a small JSON file next to each executed notebook."""

from __future__ import annotations

from dataclasses import dataclass, field

from labkit.runs.folders import held, runs_folder
from labkit.runs.result import checked_fields
from labkit.system.files import Unreadable, check_readable, read_json


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


def read_statuses(label: str) -> list[Status]:
    """The status of each notebook that was executed for a profile's folder, sorted by number.

    A notebook without a status, or with the status "running" while no batch runs, was interrupted. A
    notebook whose file cannot be used has the status "unreadable", with the reason."""
    folder = runs_folder() / label / "notebooks"
    check_readable(folder)
    statuses = []
    for name in sorted({path.name.partition(".")[0] for path in folder.glob("[0-9]*.*")}):
        path = folder / f"{name}.status.json"
        try:
            content = read_json(path)
            fields = {"notebook": name, "status": "running"} if content is None else content
            status = Status(**checked_fields(fields, Status, path, "run `labkit report` again to replace it"))
        except Unreadable as error:
            status = Status(name, "unreadable", str(error))
        if status.status == "running" and not held(folder):
            status.status, status.reason = "interrupted", "the batch ended before the notebook did"
        statuses.append(status)
    return statuses
