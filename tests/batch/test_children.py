"""The process of the next notebook gets ready while one is at work, and never while a row is measured."""

from __future__ import annotations

import fcntl
import io
import time
from pathlib import Path

import psutil
import pytest

from labkit.batch import batch
from labkit.batch import child as batch_one
from labkit.batch import processes as batch_processes
from labkit.batch.processes import Child
from labkit.probes.trace import trace
from labkit.probes.wire import wire
from labkit.processes import launch
from labkit.runs import train
from labkit.runs.folders import QUIET, quiet
from tests.helpers.batch_notebooks import made_in, outputs_of, write_notebook
from tests.helpers.drill_targets import SMALL, wait_for

FRESH = """
import sys
print(sorted(name for name in dir() if name[0] != "_" and name not in ("In", "Out", "exit", "quit", "get_ipython", "open", "sys")))
print("matplotlib.figure" in sys.modules, "torch" in sys.modules, "pandas" in sys.modules)
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two notebooks, of which the first shows something for four seconds after its rows have run."""
    made_in(tmp_path, monkeypatch)
    write_notebook(tmp_path / "notebooks", "20_first", "print('ran')  # lesson.run()", "import time; time.sleep(4)")
    write_notebook(tmp_path / "notebooks", "21_second", FRESH)
    return tmp_path


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What became of each child, by number."""
    said: list[str] = []

    class Watched(Child):
        def __init__(self, *words) -> None:
            self.number = 1 + sum("starts" in one for one in said)
            said.append(f"{self.number} starts")
            super().__init__(*words)

        def begin(self, job, log) -> None:
            said.append(f"{self.number} has {Path(job['notebook']).stem}")
            super().begin(job, log)

        def end(self) -> None:
            super().end()
            said.append(f"{self.number} ends")

    monkeypatch.setattr(batch_processes, "Child", Watched)
    return said


def test_the_next_child_gets_ready_before_it_is_needed(lab: Path, happened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And its kernel is as new as any: it has imported what draws, and no name is set."""
    monkeypatch.setattr(batch, "lend", dict)
    assert [status.status for status in batch.run_notebooks("tiny")] == ["ok", "ok"]
    assert happened == ["1 starts", "1 has 20_first", "2 starts", "1 ends", "2 has 21_second", "2 ends"]
    folder = lab / "runs/tiny/notebooks"
    assert outputs_of(folder / "21_second.ipynb")[-1].splitlines() == [
        "['fresh', 'overrides', 'profile', 'repeats']",
        "True False False",
    ]
    assert not list(folder.glob(".*.log"))


def test_a_child_that_has_old_code_is_not_used(lab: Path, happened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lent = iter([{"A_SERVER": "with the code before"}, {"A_SERVER": "with the code after an edit"}])
    monkeypatch.setattr(batch, "lend", lambda: next(lent))
    assert [status.status for status in batch.run_notebooks("tiny")] == ["ok", "ok"]
    assert happened[2:] == ["2 starts", "1 ends", "2 ends", "3 starts", "3 has 21_second", "3 ends"]


def test_one_that_is_not_needed_is_ended(lab: Path, happened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook that it was for turned out to be valid."""
    monkeypatch.setattr(batch, "lend", dict)
    second = batch.Status("21_second", "ok")
    monkeypatch.setattr(batch, "still_valid", lambda task: second if task.notebook.name == second.notebook else None)
    assert [status.status for status in batch.run_notebooks("tiny")] == ["ok", "ok"]
    assert happened == ["1 starts", "1 has 20_first", "2 starts", "1 ends", "2 ends"]


def test_a_kernel_that_dies_while_it_waits_is_told(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its child lives, and finds out with the first cell."""

    class Robbed(Child):
        def begin(self, job, log) -> None:
            wait_for(lambda: kernels_of(self) and free(lab / "runs/tiny/notebooks/.quiet"), 60, "the kernel is ready")
            kernels_of(self)[0].kill()
            super().begin(job, log)

    monkeypatch.setattr(batch, "lend", dict)
    monkeypatch.setattr(batch_processes, "Child", Robbed)
    (status,) = batch.run_notebooks("tiny", only=[21])
    assert status.status == "kernel died" and status.reason


def test_what_cannot_be_imported_early_fails_where_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A student's slip in a module that draws stops no notebook that does without it."""
    monkeypatch.setattr(batch_one, "SHOWING", "labkit.no_such_module")
    path = write_notebook(tmp_path, "20_x", "print(1 + 1)")
    job = {"notebook": str(path), "output": str(tmp_path / "out.ipynb"), "cwd": str(tmp_path), "cell_timeout_s": None}
    kernel = batch_one.get_ready(str(tmp_path))
    assert batch_one.execute(job | {"parameters": {}}, kernel, io.StringIO()) == ("ok", "")
    assert outputs_of(tmp_path / "out.ipynb")[-1] == "2\n"


# -- the lock ---------------------------------------------------------------------------------------------------------------


def test_a_measurement_and_the_rest_of_a_batch_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many may get ready at a time. Outside a batch nobody waits."""
    lock = tmp_path / "quiet"
    monkeypatch.setenv(QUIET, str(lock))
    with quiet(alone=False), quiet(lock, alone=False):
        assert not free(lock) and free(lock, alone=False)
    with quiet():
        assert not free(lock, alone=False)
    assert free(lock)
    monkeypatch.delenv(QUIET)
    with quiet(), quiet():
        pass


MEASURED = {
    "a run": lambda: train.run_once(SMALL, "tiny"),
    "a probe": lambda: trace("ddp_gloo_resnet18_bs128x2_cacheTrue_ampFalse", "tiny"),
    "messages": wire,
}


@pytest.mark.parametrize("what", MEASURED)
def test_what_is_measured_holds_the_lock_alone(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, seen = tmp_path / "quiet", []

    def instead(*_: object) -> None:
        seen.append(free(lock, alone=False))
        raise KeyboardInterrupt

    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv(QUIET, str(lock))
    monkeypatch.setattr(launch, "launch", instead)
    with pytest.raises(KeyboardInterrupt):
        MEASURED[what]()
    assert seen == [False]


def test_a_page_is_made_while_nothing_is_measured(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, seen = lab / "runs/tiny/notebooks/.quiet", []
    monkeypatch.setattr(batch, "lend", dict)
    monkeypatch.setattr(batch, "publish", lambda *_: seen.append((free(lock), free(lock, alone=False))))
    batch.run_notebooks("tiny", only=[21])
    assert seen == [(False, True)]


def test_a_child_waits_until_nothing_is_measured(tmp_path: Path) -> None:
    with quiet(tmp_path / ".quiet"):
        child = Child(str(tmp_path), tmp_path, {})
        try:
            time.sleep(3)  # a kernel is there after half a second, if nothing holds it up
            assert child.process.poll() is None and kernels_of(child) == []
        except BaseException:
            child.end()
            raise
    try:
        wait_for(lambda: kernels_of(child), 60, "the kernel starts")
    finally:
        child.end()


def kernels_of(child: Child) -> list[psutil.Process]:
    return psutil.Process(child.process.pid).children()


def free(lock: Path, alone: bool = True) -> bool:
    """Could it be had now?"""
    with open(lock, "a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
