"""The process of the next notebook gets ready while one is at work, and never while a row is measured."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from labkit import batch, batch_processes
from labkit.batch_processes import Child
from labkit.folders import QUIET, quiet
from tests.batch_notebooks import made_in, outputs_of, write_notebook

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


def test_nothing_is_measured_while_another_gets_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many may get ready at a time; a measurement waits for them, and they for it. Outside a batch nobody waits."""
    monkeypatch.setenv(QUIET, str(tmp_path / "quiet"))
    order: list[str] = []

    def measure() -> None:
        with quiet():
            order.append("measured")

    with quiet(alone=False), quiet(tmp_path / "quiet", alone=False):
        measuring = threading.Thread(target=measure)
        measuring.start()
        time.sleep(0.5)
        order.append("ready")
    measuring.join()
    assert order == ["ready", "measured"]
    monkeypatch.delenv(QUIET)
    with quiet(), quiet():
        pass
