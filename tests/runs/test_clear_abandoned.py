"""What the ranks of a killed launcher left is cleared by the next run, of whatever row; what is in use is not touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.runs.folders import claimed, clear_abandoned
from labkit.runs.train import run_once
from tests.helpers.drill_targets import SMALL


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    return tmp_path


def left(folder: Path, locked: bool = True) -> Path:
    (folder / "scratch").mkdir(parents=True)
    (folder / "scratch/rendezvous").touch()
    if locked:
        (folder / ".lock").touch()
    return folder


def test_scratch_of_a_killed_launcher(runs: Path) -> None:
    row, trace, rounds = (left(runs / folder) for folder in ("tiny/a_row/1", "tiny/a_row/trace/3", "tiny/rounds"))
    busy, strange = left(runs / "tiny/b_row/1"), left(runs / "tiny/c_row/1", locked=False)
    (runs / "elsewhere").mkdir()
    link = left(runs / "tiny/d_row/1") / "scratch"
    (link / "rendezvous").unlink()
    link.rmdir()
    link.symlink_to(runs / "elsewhere")
    (runs / "elsewhere/kept").touch()
    with claimed(busy):
        clear_abandoned()
    assert not any((folder / "scratch").exists() for folder in (row, trace, rounds))
    assert (busy / "scratch/rendezvous").exists(), "a run is under way"
    assert (strange / "scratch/rendezvous").exists(), "no folder of a run"
    assert (runs / "elsewhere/kept").exists()


def test_the_next_run_clears(runs: Path) -> None:
    other = left(runs / "tiny/a_row/1")
    assert run_once(SMALL.but(strategy="single", world_size=1, backend="auto"), "tiny").status == "ok"
    assert not (other / "scratch").exists()
