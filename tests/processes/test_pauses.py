"""A pause of all processes, and a clock that is set, are no fault of a rank. A rank that hangs is one, also if its heart beats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from labkit.batch.processes import watch
from labkit.engine.job import Job
from labkit.processes import supervise as supervising
from labkit.processes.diagnose import RankView, diagnose
from labkit.processes.launch import launch
from labkit.processes.supervise import Rank, Watched
from labkit.runs import folders, train
from tests.helpers import drill_targets as drill
from tests.helpers.drill_targets import ROOT, SMALL, TAG, injected, wait_for

ALONE = SMALL.but(strategy="single", world_size=1, backend="auto")


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_a_pause_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(supervising, "time", clock)
    watched = Watched()
    for _ in range(10):
        clock.now += 0.1
        watched.look()
    assert watched.look() == pytest.approx(1.0)
    clock.now += 3600
    assert watched.look() == pytest.approx(2.0), "an hour without this process counts as one look"


def test_a_pause_is_not_a_notebook_s_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour passes between two looks of the batch."""
    clock = Clock()
    monkeypatch.setattr(supervising, "time", clock)

    def pause(_cell: int, _seconds: float) -> None:
        clock.now += 3600

    child = subprocess.Popen(["sleep", "1"])
    (tmp_path / "log").write_text("the end")
    told = watch(child, tmp_path / "events", tmp_path / "log", 100.0, pause)
    assert clock.now > 4000 and told == ("failed", "the notebook's process failed: the end (more in log)")


def test_a_pause_of_all_processes_ends_no_run(tmp_path: Path) -> None:
    """Longer than a rank may be silent, and longer than the deadline."""
    spec = ALONE.but(timeout_s=2.0, deadline_s=15.0)
    fired, tag = tmp_path / "fired", uuid.uuid4().hex
    code = (
        "from labkit.runs.train import run_once\nfrom labkit.rows.spec import Spec\nfrom tests.helpers.drill_targets import injected\n"
        f"with injected('wait', [0], {str(fired)!r}):\n    outcome = run_once(Spec(**{spec.to_dict()}), 'paused')\n"
        "print(outcome.status, outcome.reason)"
    )
    env = {**os.environ, TAG: tag, "LABKIT_RUNS": str(tmp_path / "runs")}
    lab = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    try:
        wait_for(fired.exists, 90, "the rank waits")
        family = drill.family(tag)
        for process in family:
            process.suspend()
        time.sleep(20)
        for process in family:  # the launcher first: it must not judge before the others go on
            process.resume()
        time.sleep(1)
        Path(f"{fired}.go").touch()
        said, _ = lab.communicate(timeout=90)
    finally:
        lab.kill()
    assert said.split() == ["ok"], said


def test_a_clock_that_is_set_changes_no_duration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It jumps an hour ahead as soon as the run has begun, as when a laptop learns the time."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    real, jumped = time.time, []
    opening = train.opening
    monkeypatch.setattr(train, "opening", lambda *words: (opening(*words), jumped.append(1))[0])
    for module in (train, folders):
        monkeypatch.setattr(module.time, "time", lambda: real() + 3600 * bool(jumped))
    outcome = train.run_once(ALONE, "clock")
    assert outcome.status == "ok" and jumped
    assert 0 < outcome.startup_s < outcome.total_time_s < 600
    assert outcome.started_at <= outcome.ranks[0].first_step_at <= outcome.started_at + outcome.total_time_s


# -- a rank that hangs -----------------------------------------------------------------------------------------------------

HANGS = {
    "single": (ALONE, 0, "rank 0 hung in phase 'step' of epoch 1, step 3: no progress for"),
    "DataParallel": (ALONE.but(strategy="data_parallel", world_size=2), 0, "rank 0 hung in phase 'step' of epoch 1, step 3: no progress for"),
    "a server": (SMALL.but(strategy="parameter_server", consistency="sync"), 0, "rank 0 hung in phase 'step' of epoch 1, step 3"),
    "a worker of a server": (SMALL.but(strategy="parameter_server", consistency="sync"), 1, "rank 1 hung in phase 'step' of epoch 1, step 3"),
}  # fmt: skip


@pytest.mark.parametrize("what", HANGS)
def test_a_rank_that_hangs_is_named_long_before_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    spec, number, reason = HANGS[what]
    if "server" in what:
        server = next(rank for rank in range(spec.processes) if spec.is_server(rank))
        number = server if number == 0 else next(rank for rank in range(spec.processes) if not spec.is_server(rank))
        reason = reason.replace(reason[:6], f"rank {number}")
    with injected("hang", [number], tmp_path / "fired"):
        outcome = train.run_once(spec.but(deadline_s=300.0), "hang")
    assert (tmp_path / "fired").exists(), "the fault did not fire"
    assert outcome.status == "timeout" and outcome.reason.startswith(reason), outcome.reason
    assert "in hang" in outcome.detail


def heard(rank: Rank, now: float, phase: str, step: int) -> Rank:
    """A rank that comes to a step at a time, as `listen` does it."""
    with open(rank.folder / "events/rank0.jsonl", "a") as file:
        file.write(f'{{"phase": "{phase}", "epoch": 0, "step": {step}, "loss": null, "t": 0.0}}\n')
    rank.listen(now)
    return rank


def test_only_a_step_far_longer_than_any_before_is_taken_for_a_hang(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    rank = Rank(None, tmp_path, 0)
    heard(rank, 1.0, "setup", 0)
    rank.listen(300.0)
    assert not rank.stuck(20.0), "it has not been through a setup before"
    for step in range(5):
        heard(rank, 300.0 + 4 * step, "step", step)
    rank.listen(316.0 + 39)
    assert not rank.stuck(20.0), "steps take 4 seconds; ten times as long may be a busy machine"
    rank.listen(316.0 + 41)
    assert rank.stuck(20.0) and not rank.stuck(60.0)
    heard(rank, 360.0, "data", 5)
    assert not rank.stuck(20.0)


def test_of_two_that_stand_still_the_one_that_waits_for_nobody_is_named(tmp_path: Path) -> None:
    """Their stacks tell: one is in a message to the other."""
    stack = "Current thread 0x1 (most recent call first):\n"
    waits = (
        stack
        + '  File "/x/torch/distributed/distributed_c10d.py", line 1 in recv\n  File "/x/labkit/strategies/a.py", line 1 in step'
    )
    hangs = stack + '  File "/x/threading.py", line 1 in wait\n  File "/x/labkit/engine/loop.py", line 1 in train_epoch'
    views = []
    for number, (log, step) in enumerate([(waits, 2), (hangs, 2)]):
        (tmp_path / f"{number}.log").write_text(log)
        event = {"phase": "step", "epoch": 0, "step": step}
        views.append(RankView(number, 2**22 + 1, None, None, None, event, tmp_path / f"{number}.log", still_s=40.0))
    assert diagnose(views, 20.0, None).rank == 1
    assert diagnose(views[::-1], 20.0, None).rank == 1


def beats(*, rank, progress):
    time.sleep(1)
    return os.getpid()


def test_heartbeats_do_not_ask_the_wall_clock(tmp_path: Path) -> None:
    launch(Job("tests.processes.test_pauses:beats", 1, tmp_path, backend=""))
    last = json.loads((tmp_path / "events/rank0.jsonl").read_text().splitlines()[-1])
    assert 0 <= time.monotonic() - last["t"] < 60
