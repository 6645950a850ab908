"""run(): from names to results. Plans the rows, skips what is done, trains the rest, keeps every result in a folder.

    runs/<profile>/<row>/<repeat>/result.json     what was measured, with all that it depends on; written once, atomically
                                 /attempt.json    the last try that gave no result: why, or still running
                                 /logs /events    of each rank

Values that `overrides` set on top of the profile stand in the folder's name: runs/quick+epochs=1/...
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.rows import params
from labkit.rows.spec import Spec, SpecError
from labkit.runs.folders import claimed, conditions, keep, label_of, opening, quiet, read_json, runs_folder, write_json
from labkit.system.machine import Needs, fit, process_group, this_machine


@dataclass
class Planned:
    """A row as this machine will run it; `spec` None: it cannot, for `reason`. `stands_for`: rows that it runs in place of."""

    name: str
    spec: Spec | None
    reason: str = ""
    stands_for: list[str] = field(default_factory=list)


def plan(rows: Any, profile: str = "quick", overrides: dict[str, Any] | None = None) -> list[Planned]:
    """The rows that `rows` names, as this machine runs them, each once: a group's number, a row's name, a Spec, "all",
    or a list of these. Raises SpecError before anything is started."""
    return fit_all(wanted(rows, profile, overrides), overrides or {})


def fit_all(specs: list[Spec], overrides: dict[str, Any]) -> list[Planned]:
    machine = this_machine()
    if overrides.get("backend") == "nccl" and (not machine.cuda or overrides.get("device") == "cpu"):
        raise SpecError("backend=nccl: NCCL moves CUDA tensors, and there is no CUDA here; use backend=gloo")
    planned: dict[str, Planned] = {}
    for spec in specs:
        name, reason, twin = spec.name, "", None
        try:
            fitted: Spec | None = fit(spec, machine)
        except Needs as needs:
            fitted, reason, twin = None, needs.reason, needs.instead
        if fitted is not None:
            planned.setdefault(fitted.name, Planned(fitted.name, fitted))
        else:
            planned.setdefault(name, Planned(name, None, reason))
        if twin is not None:
            stands_for = planned.setdefault(twin.name, Planned(twin.name, twin)).stands_for
            stands_for.extend([name] if name not in stands_for else [])  # a row may be asked for through two groups
    return list(planned.values())


def wanted(rows: Any, profile: str, overrides: dict[str, Any] | None = None) -> list[Spec]:
    """The Specs that are asked for, checked as far as can be without looking at the machine, which takes seconds."""
    scale = params.profile(profile).fields
    specs = [asked.but(**(overrides or {})) for asked in _specs(rows, scale)]
    for spec in specs:
        _check_samples(spec)
    return specs


def _specs(rows: Any, scale: dict[str, Any]) -> Iterator[Spec]:
    if isinstance(rows, Spec):
        yield rows
    elif rows == "all":
        yield from _specs(params.all_names(), scale)
    elif isinstance(rows, int) or (isinstance(rows, str) and rows.isdecimal()):
        yield from _specs(params.group(int(rows)).rows, scale)
    elif isinstance(rows, str):
        yield Spec.parse(rows, **scale)
    else:
        for row in rows:
            yield from _specs(row, scale)


def _check_samples(spec: Spec) -> None:
    from labkit.data.datasets import DATASETS

    info = DATASETS[spec.dataset]
    for key, most in (("train_samples", info.train_images), ("test_samples", info.test_images)):
        if getattr(spec, key) > most:
            raise SpecError(f"{key}={getattr(spec, key)}: {spec.dataset} has {most}; use at most that, or 0 for all")
    images = spec.train_samples or info.train_images
    if images < spec.images_per_step:
        raise SpecError(f"batch_per_rank={spec.batch_per_rank}: one step of {spec.name} takes {spec.images_per_step} images, "
                        f"and there are {images}; use a smaller batch or more train_samples")  # fmt: skip


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
    from labkit.results.table import summary

    return summary(*train_rows(rows, profile, repeats, fresh, overrides, on_progress))


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
    with claimed(folder), quiet():
        data_folder = prepare(spec.dataset)
        warm(wait=True)  # the first row of a session must not pay for what the others find ready
        called_at = time.time()
        attempt = opening(spec, label, repeat, folder, called_at)
        try:
            outcome = attempt | train(spec, folder, data_folder, called_at, on_progress)
            keep(folder, outcome)
        except BaseException as stopped:
            write_json(
                folder / "attempt.json",
                attempt | {"status": "interrupted", "reason": f"{type(stopped).__name__} in the launching process"},
            )
            raise
    return outcome


def train(spec: Spec, folder: Path, data_folder: Path, called_at: float, on_progress) -> dict[str, Any]:
    """Start the ranks, and boil down what they return; or the status and the reason why there is nothing."""
    from labkit.processes.launch import Job, RunFailed, launch

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
        return figures(launch(job, on_progress), called_at)
    except RunFailed as failed:
        return {"status": failed.status, "reason": failed.reason, "detail": failed.detail, "rank": failed.rank}


def figures(ranks: list[dict[str, Any]], called_at: float) -> dict[str, Any]:
    """The figures of a row from those of its ranks.

    Images/s: ranks that share a shard (pipeline stages) count once, the others add up. Memory: the rank that needed
    most. Times: the rank that took longest. Accuracy and loss are equal on all ranks already.
    """
    shards: dict[tuple, list[float]] = {}
    for rank in ranks:
        if rank["shard"] is not None:
            shards.setdefault(tuple(rank["shard"]), []).append(rank["images_per_s"])
    epochs = [epoch | {"after_s": epoch.pop("ended_at") - called_at} for epoch in ranks[0]["epochs"]]
    training = [rank for rank in ranks if rank["shard"] is not None]
    return {
        "status": "ok",
        "images_per_s": sum(sum(rates) / len(rates) for rates in shards.values()),
        "best_acc_pct": max(epoch["test_acc_pct"] for epoch in epochs),
        "max_mem_mb": max(rank["max_mem_mb"] for rank in ranks),
        "startup_s": max(rank["first_step_at"] for rank in training) - called_at,
        **{key: max(rank[key] for rank in training) for key in ("train_s", "eval_s", "data_wait_s", "steps")},
        "epochs": epochs,
        "strategy": {key: value for rank in ranks for key, value in rank["strategy"].items()},
        "ranks": [{key: value for key, value in rank.items() if key != "epochs"} for rank in ranks],
    }
