"""Fault drills: each one breaks a run in one way, shows that it did, and looks at what the student is told and what is left.

A time is counted from the moment the fault fired. The drills with a kernel are in test_drills_kernel.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import tempfile
import threading
import time
import uuid
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path

import psutil
import pytest

import labkit
import labkit.processes.launch as launching
from labkit.engine.job import Job
from labkit.processes import fork_server
from labkit.processes.diagnose import RunFailed
from labkit.processes.fork_server import warm
from labkit.processes.launch import launch
from labkit.results.table import read_results
from labkit.runs import train
from tests.helpers import drill_targets as drill
from tests.helpers.drill_targets import SMALL, TAG, injected, wait_for

T = SMALL.timeout_s
ME = psutil.Process()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A runs folder with one earlier result, and a fork server whose children can be told from everyone else's."""
    folder = tmp_path_factory.mktemp("drills")
    util.get_temp_dir()  # multiprocessing keeps its own for life: it must not be in the one that goes
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="drills") as temporary:
        patch.setenv("LABKIT_RUNS", str(folder / "runs"))
        patch.setenv(TAG, uuid.uuid4().hex)
        patch.setenv("TMPDIR", temporary)
        patch.setattr(tempfile, "tempdir", None)
        forkserver._forkserver._stop()
        OTHERS.update(child.pid for child in ME.children(recursive=True))
        assert train.run_once(SMALL, "earlier").status == "ok"
        yield folder
        forkserver._forkserver._stop()


OTHERS: set[int] = set()  # children that other tests left to this process


def strangers() -> list[psutil.Process]:
    """Processes of the lab that should not be there: all but this one, the fork server and the resource tracker."""
    allowed = OTHERS | {ME.pid, forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid}
    everyone = [*ME.children(recursive=True), *drill.family(os.environ[TAG])]
    return [process for process in everyone if process.pid not in allowed]


@pytest.fixture(autouse=True)
def aftermath(lab):
    """What must hold after every drill."""
    earlier, handlers = drill.digests(lab / "runs/earlier"), [signal.getsignal(number) for number in signal.valid_signals()]
    yield
    wait_for(lambda: not strangers(), 6, "every process of the drill is gone")
    assert not drill.open_to_others([ME, *ME.children(recursive=True)]), "something listens off the loopback"
    assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers, "signal handlers are not as before"
    assert drill.digests(lab / "runs/earlier") == earlier, "an earlier result was changed"
    drill.check_outcomes(lab / "runs")
    assert train.run_once(SMALL, "next", fresh=True).status == "ok", "the next run does not work"


FAULTS = [  # fault, ranks that suffer it, status, reason and detail (regular expressions), seconds until it is told
    ("raise_error", [1], "failed", "rank 1 failed in phase 'step' of epoch 1, step 3: ValueError: picture 17",
     "Traceback.*in raise_error", 10),
    ("kill_myself", [0], "failed", r"rank 0 was killed by SIGKILL \(.*memory ran out\)", "", 10),
    ("read_null", [1], "failed", "rank 1 was killed by SIGSEGV", "in read_null.*in train_epoch", 10),
    ("leave_quietly", [1], "incomplete", "rank 1 left with exit code 0 before its result was written", "", 15),
    ("leave_quietly", [0, 1], "incomplete", "rank 0 left with exit code 0 before its result was written", "", 15),
    ("hang", [1], "timeout", "rank 1 hung in phase 'step' of epoch 1, step 3", "in hang.*in train_epoch", T + 8),
    ("hold_the_gil", [0], "timeout", "rank 0 hung, last heard of in phase .* epoch 1", "in hold_the_gil.*in train_epoch", T + 12),
    ("stop_myself", [1], "timeout", r"rank 1 hung \(stopped by a signal\), last heard of in phase .* epoch 1", "", T + 12),
    ("spoil_loss", [1], "failed", "loss of rank 1 was not finite in epoch 1, step 3, before any other", "", 10),
    ("spoil_loss", [0, 1], "failed", "not finite in epoch 1, step 3, on every rank.*learning rate.*data", "", 10),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "ranks", "status", "reason", "detail", "within_s"), FAULTS, ids=[row[0] for row in FAULTS])
def test_fault_in_a_rank(lab, fault, ranks, status, reason, detail, within_s):
    """Drills 1 to 8, 10 and 44."""
    label = f"{fault}{len(ranks)}"
    fired, listening = lab / label, []

    def look(events):
        if fired.exists() and not listening:
            listening.append(drill.open_to_others([ME, *ME.children(recursive=True)]))

    with injected(fault, ranks, fired):
        outcome = train.run_once(SMALL, label, on_progress=look)
    took = time.time() - fired.stat().st_mtime
    assert not strangers(), f"left behind: {strangers()}"
    assert outcome.status == status, f"{outcome.reason}\n{getattr(outcome, 'detail', '')}"
    assert re.search(reason, outcome.reason), outcome.reason
    assert re.search(detail, outcome.detail, re.DOTALL), outcome.detail
    assert took < within_s, f"told after {took:.1f} s, not {within_s:g}"
    assert read_results(label) == {SMALL.name: [outcome]}, "the outcome on disk is another one"
    assert listening == [[]], f"open to other machines while the ranks ran: {listening}"


def test_loader_processes_end_with_their_rank(lab):
    with injected("kill_myself", [0], lab / "loaders"):
        outcome = train.run_once(SMALL.but(loader_workers=2), "loaders")
    assert (lab / "loaders").read_text() == "kill_myself with 2 children", "the loader's processes were not there"
    assert "rank 0 was killed by SIGKILL" in outcome.reason, outcome.reason


def test_one_process_that_hangs_meets_the_deadline(lab):
    """Nobody waits for it, so nothing but the deadline can tell."""
    with injected("hang", [0], lab / "alone"):
        outcome = train.run_once(SMALL.but(strategy="single", world_size=1, backend="auto", deadline_s=3.0), "alone")
    assert (lab / "alone").exists(), "the fault did not fire"
    assert outcome.status == "timeout" and "deadline_s=3" in outcome.reason, outcome.reason


@pytest.mark.parametrize("moment", ["start", "run", "end"])
def test_interrupt_at_a_bad_moment(lab, monkeypatch, moment):
    """Drill 13: right after a rank was started; while ranks run; a second time, while they are being ended."""
    start, end_all, there = fork_server.start, launching.end_all, []

    def interrupt(*_):
        there.append(strangers())
        signal.raise_signal(signal.SIGINT)

    hits = {
        "start": {(fork_server, "start"): lambda *words: (start(*words), words[0].name == "rank0" and interrupt())},
        "run": {(launching, "supervise"): interrupt},
        "end": {(launching, "supervise"): interrupt, (launching, "end_all"): lambda ranks: (interrupt(), end_all(ranks))},
    }
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for (module, name), hit in hits[moment].items():
            patch.setattr(module, name, hit)
        train.run_once(SMALL, f"interrupt-{moment}")
    assert len(there) == len(hits[moment]) and all(there), f"no rank was there to be lost: {there}"
    assert not strangers(), f"left behind: {strangers()}"
    [[outcome]] = read_results(f"interrupt-{moment}").values()
    assert (outcome.status, outcome.reason) == ("interrupted", "KeyboardInterrupt in the launching process"), outcome


def test_fork_server_is_killed(lab):
    """Drill 17: the run says so, and no other row is started."""
    fired, killed = lab / "server", []

    def kill_it(*_):
        if fired.exists() and not killed:
            killed.append(forkserver._forkserver._forkserver_pid)
            os.kill(killed[0], signal.SIGKILL)

    with injected("hang", [1], fired), pytest.raises(KeyboardInterrupt, match="rank 0 ended because the fork server"):
        labkit.run([SMALL, SMALL.but(batch_per_rank=32)], on_progress=kill_it)
    assert killed, "nothing was killed"
    statuses = {name: [outcome.status for outcome in outcomes] for name, outcomes in read_results("quick").items()}
    assert statuses == {SMALL.name: ["interrupted"]}, statuses


def test_launch_from_a_thread_whose_starter_has_ended(lab):
    """Drill 18. The fork server is started by a thread that is gone when the ranks are."""
    outcomes = []

    def second(starter):
        starter.join()
        outcomes.append((starter.is_alive(), train.run_once(SMALL, "thread").status))

    def first():
        warm()
        threading.Thread(target=second, args=(threading.current_thread(),)).start()

    forkserver._forkserver._stop()
    threading.Thread(target=first).start()
    wait_for(lambda: outcomes, 60, "the run is over")
    assert outcomes == [(False, "ok")], f"the starter lives, status: {outcomes}"


def test_two_labs_at_once(lab):
    """Drill 23: they train different rows, and one is told that a row is taken."""
    fired, trains = lab / "two", "print(run_once(SMALL.but(timeout_s=60.0), 'two').status)"
    other = drill.lab_in_another_process(f"with injected('wait', [1], {str(fired)!r}):\n {trains}")
    wait_for(fired.exists, 60, "the other lab trains")
    assert train.run_once(SMALL.but(batch_per_rank=32), "two").status == "ok", "a second lab could not train another row"
    with pytest.raises(OSError, match="another labkit is training this row right now; wait for it, or set LABKIT_RUNS"):
        train.run_once(SMALL, "two", fresh=True)
    assert other.poll() is None, "the other lab was over before"
    Path(f"{fired}.go").touch()
    assert other.communicate(timeout=60)[0].split() == ["ok"], "the other lab was disturbed"


def test_twenty_launches_leave_nothing_more_behind(lab):
    """Drill 23."""

    def once():
        return launch(Job("tests.helpers.drill_targets:sum_of_ranks", 2, lab / "twenty", timeout_s=T))

    def left():
        two = (ME, psutil.Process(forkserver._forkserver._forkserver_pid))
        folders = (Path(os.environ["TMPDIR"]), Path(util.get_temp_dir()), lab / "twenty")
        counts = {"processes": len(ME.children(recursive=True)), "descriptors": [process.num_fds() for process in two]}
        files = sorted(str(path) for folder in folders for path in folder.rglob("*"))
        return counts | {"threads": [process.num_threads() for process in two], "files": files}

    once()
    before = left()
    ranks = [rank for _ in range(20) for rank in once()]
    assert [rank["sum"] for rank in ranks] == [1.0] * 40
    assert left() == before, f"{left()}, before: {before}"
    assert not re.findall("|".join(rf"\b{rank['pid']}\b|_{rank['pid']}_" for rank in ranks), " ".join(os.listdir("/dev/shm")))


def test_kill_while_a_result_is_written(tmp_path):
    """Drill 24: the old one or the new one, never a torn one."""
    path, old, new = tmp_path / "result.json", {"status": "ok", "n": ["old"]}, {"status": "ok", "n": ["new"] * 50000}
    points = ["half fsync", "before fsync", "after fsync", "before replace", "after replace"]
    for point in points + [f"after_s {n / 60:.3f}" for n in range(1, 11)]:
        whole = [new] if point == "after replace" else [old] if point in points else [old, new]
        path.write_text(json.dumps(old))
        arguments = {"path": str(path), "point": point, "content": new}
        with pytest.raises(RunFailed, match="killed by SIGKILL"):
            launch(Job("tests.helpers.drill_targets:die_while_writing", 1, tmp_path / "job", arguments, backend=""))
        assert json.loads(path.read_text()) in whole, f"killed {point}: torn, or not the expected one"


def test_lab_is_killed_around_its_result(lab):
    """Drill 24, the whole of it: an old result outlives the kill, a new one is found, and the next run clears up."""
    kept = {moment: train.run_once(SMALL, moment) for moment in ("before", "after")}
    lines = [f"die_at_result({moment!r}); run_once(SMALL, {moment!r}, fresh=True)" for moment in kept]
    for moment, other in zip(kept, list(map(drill.lab_in_another_process, lines)), strict=True):
        assert other.wait(60) == -signal.SIGKILL, f"the lab was not killed {moment} its result was written"
        [[found]] = read_results(moment).values()
        later = found.later_attempt  # the old result stands, and the try that died is told beside it
        is_old = dataclasses.replace(found, later_attempt="") == kept[moment]
        assert found.status == "ok" and is_old == (moment == "before") == bool(later), f"{moment}: {found}"
        assert train.run_once(SMALL, moment, fresh=True).status == "ok"
        left = sorted(path.name for path in Path(found.run_dir).iterdir())
        assert left == [".lock", "events", "logs", "result.json"], left
