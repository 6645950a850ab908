"""All notebooks through papermill, one after the other: `labkit report` without the report.

runs/<profile>/notebooks/<name>.ipynb          as it was executed
                        /<name>.html           the same as a page that needs no network
                        /<name>.status.json    how it ended: papermill's metadata says `completed` after every end
                        /<name>.log            what was printed outside of cells, if anything was
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from labkit.batch.notebooks import Notebook, cells_of, discover, inputs_of, parameters_of
from labkit.batch.pages import publish
from labkit.batch.processes import run_child, sigterm_interrupts
from labkit.rows import params
from labkit.rows.fields import SpecError
from labkit.rows.spec import FIELDS
from labkit.runs.asked import check_times
from labkit.runs.folders import claimed, runs_folder
from labkit.runs.plan import Planned, plan
from labkit.runs.result import Result, read_result
from labkit.runs.statuses import Status, read_status
from labkit.runs.train import kept_result, of_repeat
from labkit.system.files import Unreadable, write_json
from labkit.system.fonts import check_backend
from labkit.system.places import check_home

FILES = ("ipynb", "html", "log")


@dataclass
class Task:
    """A notebook with all that one batch asks of it. `folder`: where its files go."""

    notebook: Notebook
    parameters: dict[str, Any]
    rows: list[Planned]
    repeats: int
    deadline_s: float
    folder: Path

    def path(self, ending: str) -> Path:
        """The file of this notebook with an ending, such as "html"."""
        return self.folder / f"{self.notebook.name}.{ending}"

    def inputs(self) -> str:
        """A digest of all that the executed notebook depends on."""
        return inputs_of(self.notebook, self.parameters, self.folder.parent, [row.name for row in self.rows])

    def write(self, status: Status) -> None:
        """Write how the notebook ended beside it."""
        write_json(self.path("status.json"), {key: value for key, value in asdict(status).items() if key != "kept"})


def run_notebooks(
    profile: str = "quick",
    only: Iterable[int] | None = None,
    repeats: int = 0,
    fresh: bool = False,
    overrides: dict[str, Any] | None = None,
    deadline_s: float | None = None,
    on_progress: Callable[[Task, dict[str, Any]], None] | None = None,
) -> list[Status]:
    """Execute the notebooks whose numbers are in `only` (None: all), in order, and return how each ended. `repeats`: trainings of each
    row; 0: as many as the profile says.

    One that ended well is not executed again until something that it depends on changes, or a row of its group lacks a valid
    result; `fresh` executes all, and trains each row once more. A notebook that fails does not stop the others. `deadline_s`
    (default: ten minutes, and twice what the rows of its group may take) ends a notebook with all its processes.
    `on_progress(task, event)` hears {"cell", "cells", "seconds", "row"} every
    second, and {"status", "reason", "kept"} at the end.

    Raises SpecError before any process starts. KeyboardInterrupt and SIGTERM end all processes, and pass on as KeyboardInterrupt.
    """
    tasks = get_ready(profile, only, repeats, time.time() if fresh else False, overrides or {}, deadline_s)
    statuses = []
    with claimed(tasks[0].folder), sigterm_interrupts():
        for task in tasks:
            status = None if fresh else still_valid(task)
            if status is None:
                status = finish(task, execute(task, on_progress))
            statuses.append(status)
            if on_progress:
                on_progress(task, {"status": status.status, "reason": status.reason, "kept": status.kept})
    return statuses


def get_ready(
    profile: str,
    only: Iterable[int] | None,
    repeats: int,
    fresh: bool | float,
    overrides: dict[str, Any],
    deadline_s: float | None,
) -> list[Task]:
    """All that is asked for, checked as far as can be without executing it."""
    repeats = params.repeats(repeats, profile)
    check_times(repeats, fresh)
    check_home()
    check_backend()
    if deadline_s is not None and not 0 < deadline_s < 10**7:
        raise SpecError(f"deadline={deadline_s:g}: must be a number of seconds above 0")
    folder = plan("all", profile, overrides).folder.absolute() / "notebooks"
    given = {"profile": profile, "repeats": repeats, "fresh": fresh, "overrides": overrides}
    row_s = {**params.profile(profile).fields, **overrides}.get("deadline_s", FIELDS["deadline_s"].default)
    tasks = []
    for notebook in discover(only):
        rows = list(plan(list(notebook.group.rows), profile, overrides)) if notebook.group else []
        longest_s = deadline_s or 600 + 2 * row_s * repeats * max(1, len(rows))
        tasks.append(Task(notebook, parameters_of(notebook, **given), rows, repeats, longest_s, folder))
    return tasks


def still_valid(task: Task) -> Status | None:
    """The status that an earlier call left, if nothing has to be done again."""
    try:
        kept = read_status(task.path("status.json"))
    except Unreadable:
        return None  # the notebook is executed again, and the file replaced
    if not kept or kept.status != "ok" or not task.path("ipynb").exists() or not task.path("html").exists():
        return None
    if kept.inputs != task.inputs() or not all(has_results(row, task) for row in task.rows if row.spec):
        return None
    return replace(kept, kept=True)


def has_results(row: Planned, task: Task) -> bool:
    """Would `labkit.run` train nothing of this row?"""
    folder, spec = task.folder.parent / row.name, row.spec
    return spec is not None and all(kept_result(folder / str(n), of_repeat(spec, n)) for n in range(1, task.repeats + 1))


def execute(task: Task, on_progress: Callable | None) -> Status:
    """Run a notebook in a child process, and note how it ended. Raises KeyboardInterrupt if that was by an interrupt."""
    status, began = Status(task.notebook.name, "running", started_at=time.time()), time.monotonic()
    for ending in FILES:
        task.path(ending).unlink(missing_ok=True)
    task.write(status)
    job = {
        "notebook": str(task.notebook.path.absolute()),
        "output": str(task.path("ipynb")),
        "parameters": task.parameters,
        "cwd": str(params.ROOT),
    }
    cells = len(cells_of(task.notebook.path)) + 1  # papermill adds one, with the parameters

    def notify(cell: int, seconds: float) -> None:
        if on_progress:
            row = row_in_training(task.parameters["profile"], status.started_at)
            on_progress(task, {"cell": cell, "cells": cells, "seconds": seconds, "row": row})

    try:
        status.status, status.reason = run_child(job, task.path("log"), task.deadline_s, notify)
    except BaseException as error:
        status.status, status.reason = "interrupted", f"{type(error).__name__} in the batch"
        raise
    finally:
        status.seconds = time.monotonic() - began
        task.write(status)
    if status.status == "interrupted":  # somebody ends our processes: start no others
        raise KeyboardInterrupt(f"{status.notebook}: {status.reason}")
    return status


def row_in_training(profile: str, since: float) -> str | None:
    """The row whose run began last. An attempt is there as long as the run is under way."""
    newest, name = since, None
    for path in runs_folder().glob(f"{profile}*/*/*/attempt.json"):  # extra rows of a notebook may lie under other labels
        with suppress(FileNotFoundError):
            if path.stat().st_mtime >= newest:
                newest, name = path.stat().st_mtime, path.parent.parent.name
    return name


def finish(task: Task, status: Status) -> Status:
    """Make the page, and note what the notebook depends on."""
    if task.path("log").exists() and not task.path("log").stat().st_size:
        task.path("log").unlink()
    try:
        if task.path("ipynb").exists():
            publish(task.path("ipynb"), status.status, status.reason)
    except Exception as error:  # whatever nbconvert or the disk cannot do: the other notebooks go on
        before = "" if status.status == "ok" else f"{status.status}: {status.reason}; then "
        status.status, status.reason = "failed", f"{before}no HTML: {type(error).__name__}: {error}"
    status.inputs = task.inputs()
    task.write(status)
    return status


def results_at() -> dict[Path, int]:
    """All results of runs, whatever their profile, and when each was written (ns). Only to be compared: clocks can be set."""
    return {path: path.stat().st_mtime_ns for path in runs_folder().glob("*/*/*/result.json")}


def results_since(before: dict[Path, int]) -> list[Result]:
    """All results that were not there `before` (`results_at`), or were other ones."""
    found = []
    for path, written in results_at().items():
        if before.get(path) != written:
            with suppress(Unreadable):
                found.append(read_result(path))
    return [result for result in found if result]
