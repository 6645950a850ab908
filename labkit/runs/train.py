"""Trains the rows of a plan: skips rows with a valid result, trains the others, and keeps every result in a folder.

    runs/<profile>/<row>/<repeat>/result.json     what was measured, and everything that it depends on
                                 /attempt.json    the last attempt without a result: the reason, or "running"
                                 /logs /events    of each rank

Overrides that change the profile are part of the folder's name: runs/quick+epochs=1/...
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.data.datasets import prepare
from labkit.engine.job import Job
from labkit.processes import fork_server, launch
from labkit.processes.diagnose import RunFailed
from labkit.proof.prove import Proof, held, marks, proof_for, spec_of
from labkit.rows.fit import process_group
from labkit.rows.kinds import own_strategies
from labkit.rows.spec import Spec
from labkit.runs.asked import check_times
from labkit.runs.folders import claimed, clear_abandoned, conditions, keep, opening, proofs_folder, runs_folder
from labkit.runs.plan import Plan, Planned, plan
from labkit.runs.result import NoResult, Outcomes, Result, throughput
from labkit.system.files import Unreadable, read_kept, write_json, write_whole
from labkit.system.machine import Watch, taken_now

OnProgress = Callable[[Planned, int, list[dict[str, Any]]], None]


def get_ready(
    rows: Any, profile: str, repeats: int = 1, fresh: bool | float = False, overrides: dict[str, Any] | None = None
) -> Plan:
    """The plan for these rows. If a row must be trained, this also starts the fork server, which begins to import torch.

    `fresh`: see `labkit.run`. Raises SpecError before any process starts."""
    check_times(repeats, fresh)
    planned = plan(rows, profile, overrides)
    kept = all((planned.folder / row.name / str(repeats) / "result.json").exists() for row in planned.runnable)
    if planned.runnable and (fresh is not False or not kept):
        fork_server.warm()
    return planned


def train_rows(planned: Plan, repeats: int, fresh: bool | float, on_progress: OnProgress | None = None) -> Outcomes:
    """Train every row of a plan that this machine can run, and return the outcomes of its repeats by row name.

    Repeats are interleaved: every row once, then every row again. So if the machine is slow for a minute, all rows are affected
    alike. Raises KeyboardInterrupt if a run was interrupted; OSError if a folder cannot be used."""
    outcomes: Outcomes = {row.name: [] for row in planned}
    for repeat in range(1, repeats + 1):
        for row in planned:
            if row.spec is None:
                continue
            notify = functools.partial(on_progress, row, repeat) if on_progress else None
            outcome = run_once(row.spec, planned.label, repeat, fresh, notify)
            if outcome.status == "interrupted":  # somebody ends our processes, so start no more
                raise KeyboardInterrupt(outcome.reason)
            outcomes[row.name].append(outcome)
    return outcomes


def run_once(spec: Spec, label: str, repeat: int = 1, fresh: bool | float = False, on_progress=None) -> Result | NoResult:
    """One run of a Spec that fits this machine, or its kept result if that is still valid. `fresh`: see `labkit.run`.

    A strategy of one's own is proved first, once for each state of its file, and a copy of the file is kept with the run. One that is
    not single's arithmetic, and does not say `exact = False`, is not trained: the outcome says what differs."""
    folder, spec = runs_folder() / label / spec.name / str(repeat), of_repeat(spec, repeat)
    kept = None if fresh is True else kept_result(folder, spec)
    if kept and kept.started_at >= fresh:
        return kept
    with claimed(folder):
        clear_abandoned()
        data_folder = prepare(spec.dataset)
        fork_server.warm(wait=True)  # else the first row of a session would also measure the start of the fork server
        own, proof = own_strategies().get(spec.strategy), proof_for(spec, proofs_folder())
        began, watch = time.monotonic(), Watch()
        attempt = opening(spec, label, repeat, folder, time.time())
        try:
            if own:
                write_whole(folder / own.name, own.read_bytes())
            if proof is None or proof:
                outcome = attempt | train(spec, folder, data_folder, began, on_progress)
            else:
                outcome = attempt | {"status": "failed", "reason": f"not trained: {proof}", "detail": "", "rank": 0}
            if outcome["status"] == "ok":
                outcome["strategy"] |= marks(spec, proof)
            outcome |= seen_of_others(watch)
            keep(folder, outcome, began)
        except BaseException as stopped:
            write_json(
                folder / "attempt.json",
                attempt | {"status": "interrupted", "reason": f"{type(stopped).__name__} in the launching process"},
            )
            raise
    return Result.from_json(outcome) if outcome["status"] == "ok" else NoResult.from_json(outcome, folder)


def of_repeat(spec: Spec, repeat: int) -> Spec:
    """The Spec of a row's repeat: each has a seed of its own. With one seed for all, equal accuracies would say nothing."""
    return spec.but(seed=spec.seed + repeat - 1)


def seen_of_others(watch: Watch) -> dict[str, float]:
    """What others took of the machine during a run, and what they take just after it."""
    during = watch.taken()
    return {"others_cores": during.cores, "stolen_cores": during.stolen_cores, "others_after_cores": taken_now().cores}


def kept_result(folder: Path, spec: Spec) -> Result | None:
    """The result in a run's folder if it is valid: its conditions are those of now (see `conditions`), and its file can be read.

    Else None."""
    kept = read_kept(folder / "result.json", conditions(spec))
    try:
        return None if kept is None else Result.from_json(kept, folder / "result.json")
    except Unreadable:
        return None


def train(spec: Spec, folder: Path, data_folder: Path, began: float, on_progress) -> dict[str, Any]:
    """Start the ranks, and combine what they return (see `figures`); if the run failed: its status, reason, detail and rank."""
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
        return figures(launch.launch(job, on_progress), began)
    except RunFailed as failed:
        return {"status": failed.status, "reason": failed.reason, "detail": failed.detail, "rank": failed.rank}


def prove(strategy: str, ranks: int = 2, **settings: Any) -> Proof:
    """Hold a strategy against `single`: is each of its steps the step of one process that trains all images?

    `settings`: its own row fields, such as form="ring". A strategy that hangs or raises gives a Proof with the rank and the reason.
    Raises SpecError for a name that no strategy has, for wrong settings, and for a strategy that is not meant to equal single."""
    return held(spec_of(strategy, ranks, settings), proofs_folder())


def figures(ranks: list[dict[str, Any]], began: float) -> dict[str, Any]:
    """The figures of a row, from the figures of its ranks. `began`: when the run was called, on the ranks' monotonic clock (s).

    Images/s: see `throughput`. Memory: the rank that needed most. Times: the rank that took longest. Accuracy and loss are equal on all ranks already."""
    epochs = [epoch | {"after_s": epoch.pop("ended_at") - began} for epoch in ranks[0]["epochs"]]
    training = [rank for rank in ranks if rank["shard"] is not None]
    return {
        "status": "ok",
        "images_per_s": throughput(ranks),
        "best_acc_pct": max(epoch["test_acc_pct"] for epoch in epochs),
        "max_mem_mib": max(rank["max_mem_mib"] for rank in ranks),
        "startup_s": max(rank["first_step_at"] for rank in training) - began,
        **{key: max(rank[key] for rank in training) for key in ("train_s", "eval_s", "data_wait_s", "steps")},
        "epochs": epochs,
        "strategy": {key: value for rank in ranks for key, value in rank["strategy"].items()},
        "ranks": [{key: value for key, value in rank.items() if key != "epochs"} for rank in ranks],
    }
