"""Results read back: every result is a folder, and all of them are one glob."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from labkit.rows import params
from labkit.runs.folders import held, label_of, runs_folder
from labkit.runs.plan import Planned, plan
from labkit.runs.train import train_rows
from labkit.system.files import check_readable, read_json

MEASURED = ("images_per_s", "best_acc_pct", "max_mem_mb", "total_time_s", "startup_s", "train_s", "eval_s", "data_wait_s")
COLUMNS = (
    "name",
    "status",
    "reason",
    *MEASURED,
    "world_size",
    "backend",
    "device",
    "dataset",
    "repeats",
    "stands_for",
    "run_dir",
)
TIMES = ("startup_s", "train_s", "data_wait_s", "eval_s", "rest_s", "total_time_s")  # of time_parts


def read_results(label: str, names: Iterable[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """All results under a profile's folder, by row name: result.json of each repeat, or its attempt.json if there is no
    result. An attempt that says it is running, while its process is gone, was interrupted. A result that a later attempt
    could not replace has that attempt's status and reason as `later_attempt`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for folder in (runs_folder() / label, *(runs_folder() / label).glob("*/")):
        check_readable(folder)
    folders = [path for path in (runs_folder() / label).glob("*/[0-9]*") if path.name.isdecimal()]
    for folder in sorted(folders, key=lambda path: (path.parent.name, int(path.name))):
        if names is not None and folder.parent.name not in names:
            continue
        result, attempt = read_json(folder / "result.json"), read_json(folder / "attempt.json")
        if attempt and attempt["status"] == "running" and not held(folder):
            attempt |= {"status": "interrupted", "reason": "the launching process died"}
        if result and attempt and attempt["started_at"] > result["started_at"] and attempt["status"] != "running":
            result["later_attempt"] = f"{attempt['status']}: {attempt['reason']}"
        result = result or attempt
        if result is None:
            continue
        found.setdefault(folder.parent.name, []).append(result)
    return found


def line_of(row: Planned, outcomes: list[dict[str, Any]], label: str) -> dict[str, Any]:
    """One row of the summary: medians over the repeats that succeeded; the first failure's status if any failed."""
    line: dict[str, Any] = dict.fromkeys(COLUMNS)
    line |= {"name": row.name, "stands_for": row.stands_for, "repeats": len(outcomes), "reason": row.reason, "status": "needs"}
    if row.spec:
        spec, folder = row.spec, runs_folder() / label / row.name
        line |= {key: getattr(spec, key) for key in ("world_size", "backend", "device", "dataset")}
        line |= {"status": "not run", "run_dir": str(folder / "1" if len(outcomes) == 1 else folder)}
    failed = [outcome for outcome in outcomes if outcome["status"] != "ok"]
    good = [outcome for outcome in outcomes if outcome["status"] == "ok"]
    later = "; ".join(f"a later try gave no result: {outcome['later_attempt']}" for outcome in good if "later_attempt" in outcome)
    if outcomes:
        line |= {"status": failed[0]["status"] if failed else "ok", "reason": failed[0]["reason"] if failed else later}
    for key in MEASURED if good else ():
        values = [outcome[key] for outcome in good]
        line[key] = statistics.median(values)
        line[f"{key}_min"], line[f"{key}_max"] = min(values), max(values)
    return line


def summary(planned: list[Planned], outcomes: dict[str, list[dict[str, Any]]], label: str) -> Any:
    """A pandas DataFrame, one line per planned row: name, status, reason, medians of what was measured (with _min and
    _max over the repeats), and where it lies. status: ok, failed, oom, incomplete, timeout, interrupted, needs, not run."""
    import pandas as pd

    return pd.DataFrame([line_of(row, outcomes.get(row.name, []), label) for row in planned])


def run(
    rows: Any,
    profile: str = "quick",
    *,
    repeats: int = 1,
    fresh: bool | float = False,
    overrides: dict[str, Any] | None = None,
    on_progress: Callable[[Planned, int, list[dict[str, Any]]], None] | None = None,
) -> Any:
    """Train rows and return a pandas DataFrame with one line per row (see `results.summary`).

    The same spec on the same machine, code and versions is not trained again unless `fresh`: True for always, or a time
    (Unix seconds) before which a result is too old. Repeats are interleaved: every row once, then every row again, so
    that a slow minute of the machine hits all alike. `on_progress(row, repeat, events)` is called a few times a second with the latest event of each rank. A failed run is a line with its status
    and reason; a bad value raises SpecError before any process starts; an interrupt ends all processes and passes on.
    """
    return summary(*train_rows(rows, profile, repeats, fresh, overrides, on_progress))


def table(profile: str = "quick", rows: Any = "all", overrides: dict[str, Any] | None = None) -> Any:
    """The summary of what is already there, without running anything."""
    planned, label = plan(rows, profile, overrides), label_of(profile, overrides or {})
    return summary(planned, read_results(label, {row.name for row in planned}), label)


def published_by_name() -> dict[str, dict[str, Any]]:
    return {row["experiment"]: row for row in params.published()}


def folder_of(result: dict[str, Any]) -> Path:
    return Path(result["run_dir"])


def time_parts(result: dict[str, Any]) -> dict[str, float]:
    """Where a run's time went, in seconds, by the rank that trained longest. The rest is what nobody claims."""
    rank = max((rank for rank in result["ranks"] if rank["shard"] is not None), key=lambda rank: rank["train_s"])
    start, train, evaluation = rank["first_step_at"] - result["started_at"], rank["train_s"], rank["eval_s"]
    rest = result["total_time_s"] - start - train - evaluation
    return dict(zip(TIMES, (start, train, result["data_wait_s"], evaluation, rest, result["total_time_s"]), strict=True))
