"""Reads results from their folders (one folder for each run), and makes the rows of a plan into lines of a table."""

import statistics
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from labkit.results.metrics import METRICS
from labkit.runs.folders import held, runs_folder
from labkit.runs.plan import Plan, Planned, plan
from labkit.runs.result import AGAIN, NoResult, Outcomes, Result, Results, read_result
from labkit.runs.train import OnProgress, get_ready, train_rows
from labkit.system.files import Unreadable, check_readable, read_json

ABOUT = ("world_size", "backend", "device", "dataset")  # of a row's Spec, in its line
TIMES = ("startup_s", "train_s", "data_wait_s", "eval_s", "rest_s", "total_time_s")  # of time_parts


def read_results(label: str, names: Iterable[str] | None = None) -> Outcomes:
    """All outcomes in a profile's folder, by row name: the result of each repeat, or the reason why there is none.

    `names`: only these rows. An attempt of status "running" whose process has ended gets the status "interrupted". If a later
    attempt failed, the kept result has its status and reason as `later_attempt`. A file that cannot be used is an outcome of
    status "unreadable". Raises OSError for a folder or file without permission to read."""
    outcomes: Outcomes = {}
    for folder in (runs_folder() / label, *(runs_folder() / label).glob("*/")):
        check_readable(folder)
    for folder in run_folders(runs_folder() / label):
        name = folder.parent.name
        if names is not None and name not in names:
            continue
        outcome = outcome_in(folder)
        if outcome is None:
            continue
        if name not in outcomes:
            outcomes[name] = []
        outcomes[name].append(outcome)
    return outcomes


def run_folders(folder: Path) -> list[Path]:
    """The folders <row>/<repeat> in a profile's folder, sorted by row name and number of the repeat."""
    folders = [path for path in folder.glob("*/[0-9]*") if path.name.isdecimal()]
    return sorted(folders, key=lambda path: (path.parent.name, int(path.name)))


def outcome_in(folder: Path) -> Result | NoResult | None:
    """The outcome in the folder of one run; None if nothing has run there.

    Raises OSError for a file without permission to read."""
    result, attempt, unreadable = None, None, None
    about: dict[str, Any] = {"name": folder.parent.name, "repeat": int(folder.name), "run_dir": str(folder)}
    try:
        result = read_result(folder / "result.json")
        if result and (result.name, result.repeat) != (about["name"], about["repeat"]):
            where = f"{result.name}, repeat {result.repeat}"
            result, unreadable = (
                None,
                NoResult(**about, status="unreadable", reason=f"{folder / 'result.json'}: is of {where}; {AGAIN}"),
            )
    except Unreadable as error:
        unreadable = NoResult(**about, status="unreadable", reason=str(error))
    try:
        content = read_json(folder / "attempt.json")
        attempt = None if content is None else NoResult.from_json(content, folder / "attempt.json")
    except Unreadable as error:
        attempt = NoResult(**about, status="unreadable", reason=str(error))
    if attempt and attempt.status == "running" and not held(folder):
        attempt = replace(attempt, status="interrupted", reason="the launching process died")
    if result and attempt and attempt.started_at > result.started_at and attempt.status != "running":
        return replace(result, later_attempt=f"{attempt.status}: {attempt.reason}")
    return result or attempt or unreadable


def good(outcomes: Outcomes) -> Results:
    """The results by row name, for the rows with at least one."""
    results = {name: [one for one in repeats if isinstance(one, Result)] for name, repeats in outcomes.items()}
    return {name: repeats for name, repeats in results.items() if repeats}


def line_of(row: Planned, outcomes: list[Result | NoResult], folder: Path) -> dict[str, Any]:
    """A row as a line of a table. `folder`: the folder that holds the runs of the row.

    Figures are medians over the repeats that succeeded, with <figure>_min and <figure>_max; None if not measured. status: ok,
    failed, oom, incomplete, timeout, interrupted, unreadable, needs (this machine cannot run it) or not run. If a repeat failed,
    status and reason are those of the first failure."""
    results = [one for one in outcomes if isinstance(one, Result)]
    failed = next((one for one in outcomes if isinstance(one, NoResult)), None)
    status, reason = "not run" if row.spec else "needs", row.reason
    if failed:
        status, reason = failed.status, failed.reason
    elif results:
        later = [f"a later try gave no result: {one.later_attempt}" for one in results if one.later_attempt]
        status, reason = "ok", "; ".join(later)
    line: dict[str, Any] = {"name": row.name, "status": status, "reason": reason}
    for metric in METRICS:
        values = [getattr(result, metric.key) for result in results]
        line[metric.key] = statistics.median(values) if values else None
        if values:
            line |= {f"{metric.key}_min": min(values), f"{metric.key}_max": max(values)}
    line |= {key: getattr(row.spec, key) if row.spec else None for key in ABOUT}
    line |= {"repeats": len(outcomes), "stands_for": row.stands_for, "run_dir": None}
    if row.spec:
        line["run_dir"] = str(folder / "1" if len(outcomes) == 1 else folder)
    return line


def lines_of(planned: Plan, outcomes: Outcomes) -> list[dict[str, Any]]:
    """One line for each row of a plan (see `line_of`), in its order. `outcomes`: by row name."""
    return [line_of(row, outcomes.get(row.name, []), planned.folder / row.name) for row in planned]


def here_text(line: dict[str, Any], ended: str) -> str:
    """Does the row of a line have a result, or does it run on this machine? `ended`: how its last run did, if that gave none."""
    words = {"ok": "has a result", "not run": "runs here", "needs": line["reason"]}
    return words.get(line["status"], f"runs here; last time: {ended}")


def kept_lines(planned: Plan) -> list[dict[str, Any]]:
    """One line for each row of a plan, from the results that are already in the folders. Trains nothing."""
    return lines_of(planned, read_results(planned.label, {row.name for row in planned}))


def run(
    rows: Any,
    profile: str = "quick",
    *,
    repeats: int = 1,
    fresh: bool | float = False,
    overrides: dict[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> Any:
    """Train rows and return a pandas DataFrame with one line per row (see `line_of`).

    The same spec on the same machine, code and versions is not trained again unless `fresh`: True always trains again; a time
    (Unix seconds) trains again what is older. `on_progress(row, repeat, events)` is called a few times a second with the
    latest event of each rank. A failed run is a line with its status and reason. Raises SpecError for a bad value before any
    process starts. An interrupt ends all processes and is raised again."""
    planned = get_ready(rows, profile, repeats, fresh, overrides)
    return frame(lines_of(planned, train_rows(planned, repeats, fresh, on_progress)))


def table(profile: str = "quick", rows: Any = "all", overrides: dict[str, Any] | None = None) -> Any:
    """A pandas DataFrame of the results that are already in the folders, one line per row (see `line_of`). Trains nothing."""
    return frame(kept_lines(plan(rows, profile, overrides)))


def frame(lines: list[dict[str, Any]]) -> Any:
    """Lines as a pandas DataFrame."""
    import pandas as pd  # takes a second, and only callers from Python need it

    return pd.DataFrame(lines)


def time_parts(result: Result) -> dict[str, float]:
    """How the total time of a run divides into parts, in seconds (keys: TIMES), by the rank that trained longest. rest_s: the
    remainder."""
    rank = max((rank for rank in result.ranks if rank.shard is not None), key=lambda rank: rank.train_s)
    start = rank.first_step_at - result.started_at
    rest = result.total_time_s - start - rank.train_s - rank.eval_s
    return dict(zip(TIMES, (start, rank.train_s, result.data_wait_s, rank.eval_s, rest, result.total_time_s), strict=True))
