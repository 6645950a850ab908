"""Fault drills 19 to 21: a batch is stopped, or a notebook of it, while ranks are in a collective.

After each: no process is left, the executed notebooks can be read, every status is the true one, and the next call goes on
where this one was stopped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest

from labkit.batch import processes as batch_processes
from labkit.batch.batch import run_notebooks
from labkit.results.table import read_results
from labkit.runs.statuses import read_statuses
from tests.helpers import drill_targets as drill
from tests.helpers.batch_notebooks import made_in, outputs_of, write_notebook
from tests.helpers.drill_targets import ROOT, SMALL, TAG, wait_for

SLOW = SMALL.but(timeout_s=60.0)  # a rank that waits for a hung one waits longer than a drill takes
TRAINS = """
from contextlib import nullcontext
from pathlib import Path
from labkit.runs import plan, train
from labkit.results import table
from labkit.rows.spec import Spec
from tests.helpers.drill_targets import injected
fired, mended = Path(FIRED), Path(FIRED + ".mended")
with nullcontext() if mended.exists() else injected(FAULT, [1], str(fired)):
    print(train.run_once(Spec(**ROW), "tiny").status)
"""
GONE_S = 6.0
REPORT = [sys.executable, "-c", """
import sys
from labkit import cli
from labkit.report import write as report
report.write_report = lambda *words, **keys: []  # which would replace the repository's report
sys.argv = ["labkit", "report", "--profile", "tiny", *sys.argv[1:]]
cli.main()
"""]  # fmt: skip


class Drill:
    """Three notebooks, of which the second trains a row whose rank 1 suffers a fault until the file `mended` is there: it hangs,
    or it holds the GIL, so that no thread of it can see its launcher die."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, fault: str):
        self.lab, self.tag, self.fired = made_in(folder, patch), uuid.uuid4().hex, folder / "fired"
        patch.setenv(TAG, self.tag)  # in this process only for what it starts
        write_notebook(self.lab / "notebooks", "20_first", "print('first')")
        write_notebook(
            self.lab / "notebooks",
            "21_trains",
            "print('before')",
            f"FIRED, FAULT, ROW = {str(self.fired)!r}, {fault!r}, {SLOW.to_dict()}\n{TRAINS}",
            "print('after')",
        )
        write_notebook(self.lab / "notebooks", "22_last", "print('last')")

    def start(self) -> subprocess.Popen:
        """`labkit report` in a session of its own, as a terminal has it, until rank 0 waits in a collective for rank 1."""
        batch = subprocess.Popen(
            REPORT, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        wait_for(lambda: self.fired.exists() or batch.poll() is not None, 90, "the fault fired")
        assert batch.poll() is None, batch.stdout.read()
        self.family = drill.family(self.tag)
        assert len(self.family) == 7, f"batch, child, kernel, fork server, resource tracker, two ranks: {self.family}"
        assert not drill.open_to_others(self.family), "something listens off the loopback"
        return batch

    def gone(self) -> bool:
        return not [process for process in drill.family(self.tag) if process.pid != os.getpid()]

    def statuses(self) -> dict[str, str]:
        return {status.notebook: status.status for status in read_statuses("tiny")}

    def check_what_is_left(self, second: str) -> None:
        wait_for(self.gone, GONE_S, f"no survivor of {self.family}")
        assert self.statuses() == {"20_first": "ok", "21_trains": second}
        assert all(status.reason or status.status == "ok" for status in read_statuses("tiny"))
        executed = self.lab / "runs/tiny/notebooks/21_trains.ipynb"
        nbformat.validate(nbformat.read(executed, as_version=4))
        assert "before\n" in outputs_of(executed) and "after\n" not in outputs_of(executed)
        [[row]] = read_results("tiny").values()
        assert row.status == "interrupted" and row.reason

    def check_that_it_goes_on(self) -> None:
        Path(f"{self.fired}.mended").touch()
        statuses = run_notebooks("tiny")
        assert [(status.notebook, status.status, status.kept) for status in statuses] == [
            ("20_first", "ok", True), ("21_trains", "ok", False), ("22_last", "ok", False),
        ]  # fmt: skip
        assert outputs_of(self.lab / "runs/tiny/notebooks/21_trains.ipynb")[-3:] == ["before\n", "ok\n", "after\n"]
        [[row]] = read_results("tiny").values()
        assert row.status == "ok"


@pytest.fixture
def batch(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = Drill(tmp_path, monkeypatch, request.param)
    yield made
    for process in drill.family(made.tag):
        if process.pid != os.getpid():
            process.kill()


def child_of(batch: subprocess.Popen) -> psutil.Process:
    """The process of the notebook at work."""
    [child] = [process for process in psutil.Process(batch.pid).children() if "labkit.batch.child" in process.cmdline()]
    return child


STOPS: dict[str, tuple[Callable[[subprocess.Popen], None], int, str]] = {
    "Ctrl-C": (lambda batch: os.killpg(batch.pid, signal.SIGINT), 130, "KeyboardInterrupt in the batch"),
    "SIGTERM": (lambda batch: batch.terminate(), 130, "KeyboardInterrupt in the batch"),
    "SIGKILL": (lambda batch: batch.kill(), -signal.SIGKILL, "the batch ended before the notebook did"),
    "SIGTERM of the child": (lambda batch: child_of(batch).terminate(), 130, "the notebook's process was ended by SIGTERM"),
}


@pytest.mark.parametrize(
    ("batch", "stop"),
    [*(("hang", stop) for stop in STOPS), ("hold_the_gil", "Ctrl-C"), ("hold_the_gil", "SIGKILL")],
    indirect=["batch"],
)
def test_batch_is_stopped_during_a_collective(batch: Drill, stop: str) -> None:
    process = batch.start()
    send, code, reason = STOPS[stop]
    send(process)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == code, said
    assert "Traceback" not in said and (code != 130 or "interrupted; finished runs are kept" in said), said
    batch.check_what_is_left("interrupted")
    assert read_statuses("tiny")[1].reason == reason
    if stop in ("Ctrl-C", "SIGKILL"):
        batch.check_that_it_goes_on()


@pytest.mark.parametrize("batch", ["hang", "hold_the_gil"], indirect=True)
def test_child_is_killed_and_the_batch_goes_on(batch: Drill) -> None:
    """As the kernel of Linux does when memory runs out. The Jupyter kernel looks for its parent once a second."""
    process = batch.start()
    child_of(process).kill()
    wait_for(lambda: "22_last" in batch.statuses(), 20, "the next notebook is begun")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said
    told = (
        "notebook 21_trains: failed: the notebook's process was killed by SIGKILL (perhaps by the kernel, because memory ran out)"
    )
    assert told in said.splitlines(), said
    assert batch.statuses() == {"20_first": "ok", "21_trains": "failed", "22_last": "ok"}
    wait_for(batch.gone, GONE_S, f"no survivor of {batch.family}")


@pytest.mark.parametrize("batch", ["hang"], indirect=True)
def test_time_is_over_during_a_collective(batch: Drill) -> None:
    """Drill 21."""
    for seconds in (15, 60, 240):  # a busy machine takes its time until the fault fires
        statuses = run_notebooks("tiny", only=[20, 21], deadline_s=seconds)
        if batch.fired.exists():
            break
    assert batch.fired.exists(), "the fault did not fire in time: nothing is proved"
    assert [status.status for status in statuses] == ["ok", "timeout"], statuses
    assert f"{seconds} s" in statuses[1].reason and "in cell 5" in statuses[1].reason
    batch.family = []
    batch.check_what_is_left("timeout")


def test_processes_are_ended_by_their_tag(tmp_path: Path) -> None:
    """One that was started by a child which is gone, in a session of its own, and that ignores SIGTERM."""
    tag = uuid.uuid4().hex
    ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(100)"
    starts = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {ignores!r}], start_new_session=True, stdout=subprocess.PIPE); p.stdout.readline()"
    subprocess.run([sys.executable, "-c", starts], env={**os.environ, batch_processes.TAG: tag}, check=True)
    assert len(batch_processes.family(tag)) == 1
    batch_processes.end_family(tag, patience_s=0)
    assert batch_processes.family(tag) == []
