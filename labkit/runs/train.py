"""run(): from names to results. Plans the rows, skips what is done, trains the rest, keeps every result in a folder.

    runs/<profile>/<row>/<repeat>/result.json     what was measured, with all that it depends on; written once, atomically
                                 /attempt.json    the last try that gave no result: why, or still running
                                 /logs /events    of each rank

Values that `overrides` set on top of the profile stand in the folder's name: runs/quick+epochs=1/...
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.rows.fields import SpecError
from labkit.rows.fit import process_group
from labkit.rows.spec import Spec
from labkit.runs.folders import claimed, clear_abandoned, conditions, keep, label_of, opening, runs_folder
from labkit.runs.plan import Planned, fit_all, wanted
from labkit.system.files import read_json, write_json


def train_rows(
    rows: Any,
    profile: str,
    repeats: int,
    fresh: bool | float,
    overrides: dict[str, Any] | None,
    on_progress: Callable[[Planned, int, list[dict[str, Any]]], None] | None,
) -> tuple[list[Planned], dict[str, list[dict[str, Any]]], str]:
    """What `run` does, without pandas: what was planned, the outcomes of each row that runs here, and the folder's label."""
    if isinstance(repeats, bool) or not isinstance(repeats, int) or not 1 <= repeats <= 1000:
        raise SpecError(f"repeats={repeats!r}: must be a whole number from 1 to 1000")
    specs = get_ready(rows, profile, repeats, fresh, overrides)
    planned, label = fit_all(specs, overrides or {}), label_of(profile, overrides or {})
    outcomes: dict[str, list[dict[str, Any]]] = {row.name: [] for row in planned}
    for repeat in range(1, repeats + 1):
        for row in planned:
            if row.spec is not None:
                notify = functools.partial(on_progress, row, repeat) if on_progress else None
                outcome = run_once(row.spec, label, repeat, fresh, notify)
                if outcome["status"] == "interrupted":  # somebody ends our processes: start no others
                    raise KeyboardInterrupt(outcome["reason"])
                outcomes[row.name].append(outcome)
    return planned, outcomes, label


def get_ready(rows: Any, profile: str, repeats: int, fresh: bool | float, overrides: dict[str, Any] | None) -> list[Spec]:
    """What is asked for, checked; and the fork server on its way, importing torch while this process looks at the machine.

    It is not started where every row seems to have its result already (here, or under the name of its gloo twin), nor for
    backend=nccl, which may have to be refused, and then nothing may have started.
    """
    from labkit.processes.fork_server import warm

    specs, folder = wanted(rows, profile, overrides), runs_folder() / label_of(profile, overrides or {})
    names = [{spec.name, spec.but(backend="gloo").name if spec.backend == "nccl" else spec.name} for spec in specs]
    kept = all(any((folder / name / str(repeats) / "result.json").exists() for name in either) for either in names)
    if (fresh is not False or not kept) and (overrides or {}).get("backend") != "nccl":
        warm()
    return specs


def run_once(spec: Spec, label: str, repeat: int = 1, fresh: bool | float = False, on_progress=None) -> dict[str, Any]:
    """One run of a fitted Spec, or its kept result. Returns the content of result.json (or of attempt.json if it failed)."""
    from labkit.data.datasets import prepare
    from labkit.processes.fork_server import warm

    folder = runs_folder() / label / spec.name / str(repeat)
    about = conditions(spec)
    kept = read_json(folder / "result.json")
    too_old = fresh is True or (kept and kept["started_at"] < fresh)
    if kept and not too_old and all(kept.get(key) == about[key] for key in about):
        return kept
    with claimed(folder):
        clear_abandoned()
        data_folder = prepare(spec.dataset)
        warm(wait=True)  # the first row of a session must not pay for what the others find ready
        began = time.monotonic()
        attempt = opening(spec, label, repeat, folder, time.time())
        try:
            outcome = attempt | train(spec, folder, data_folder, began, on_progress)
            keep(folder, outcome, began)
        except BaseException as stopped:
            write_json(
                folder / "attempt.json",
                attempt | {"status": "interrupted", "reason": f"{type(stopped).__name__} in the launching process"},
            )
            raise
    return outcome


def train(spec: Spec, folder: Path, data_folder: Path, began: float, on_progress) -> dict[str, Any]:
    """Start the ranks, and boil down what they return; or the status and the reason why there is nothing."""
    from labkit.engine.job import Job
    from labkit.processes.diagnose import RunFailed
    from labkit.processes.launch import launch

    job = Job(
        target="labkit.engine.worker:train_row",
        processes=spec.processes,
        folder=folder,
        arguments={"spec": spec.to_dict(), "data_folder": str(data_folder)},
        backend=process_group(spec),
        threads=spec.threads_per_rank,
        timeout_s=spec.timeout_s,
        deadline_s=spec.deadline_s,
    )
    try:
        return figures(launch(job, on_progress), began)
    except RunFailed as failed:
        return {"status": failed.status, "reason": failed.reason, "detail": failed.detail, "rank": failed.rank}


def figures(ranks: list[dict[str, Any]], began: float) -> dict[str, Any]:
    """The figures of a row from those of its ranks. `began`: when it was called, on the clock of the ranks (monotonic).

    Images/s: ranks that share a shard (pipeline stages) count once, the others add up. Memory: the rank that needed
    most. Times: the rank that took longest. Accuracy and loss are equal on all ranks already.
    """
    shards: dict[tuple, list[float]] = {}
    for rank in ranks:
        if rank["shard"] is not None:
            shards.setdefault(tuple(rank["shard"]), []).append(rank["images_per_s"])
    epochs = [epoch | {"after_s": epoch.pop("ended_at") - began} for epoch in ranks[0]["epochs"]]
    training = [rank for rank in ranks if rank["shard"] is not None]
    return {
        "status": "ok",
        "images_per_s": sum(sum(rates) / len(rates) for rates in shards.values()),
        "best_acc_pct": max(epoch["test_acc_pct"] for epoch in epochs),
        "max_mem_mb": max(rank["max_mem_mb"] for rank in ranks),
        "startup_s": max(rank["first_step_at"] for rank in training) - began,
        **{key: max(rank[key] for rank in training) for key in ("train_s", "eval_s", "data_wait_s", "steps")},
        "epochs": epochs,
        "strategy": {key: value for rank in ranks for key, value in rank["strategy"].items()},
        "ranks": [{key: value for key, value in rank.items() if key != "epochs"} for rank in ranks],
    }
