"""LABKIT_RUNS, LABKIT_DATA, LABKIT_NOTEBOOKS and LABKIT_STRATEGIES: one meaning in every process, wherever it stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.batch.notebooks import notebooks_folder
from labkit.data.datasets import cache_folder
from labkit.rows import params
from labkit.rows.kinds import own_folder
from labkit.runs.folders import runs_folder
from labkit.system import places
from tests.helpers.batch_notebooks import outputs_of, write_notebook

PLACES = {"LABKIT_RUNS": runs_folder, "LABKIT_DATA": cache_folder, "LABKIT_NOTEBOOKS": notebooks_folder}
PLACES["LABKIT_STRATEGIES"] = own_folder
SHOWS = """
import os
from labkit.batch.notebooks import notebooks_folder
from labkit.data.datasets import cache_folder
from labkit.runs.folders import runs_folder
os.chdir("/")  # as %cd does
print(runs_folder(), cache_folder(), notebooks_folder())
"""
STANDS = [sys.executable, "-c", "import json, os; print(json.dumps([os.environ.get(v) for v in " + repr(places.VARIABLES) + "]))"]


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in places.VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_empty_is_unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = {variable: folder() for variable, folder in PLACES.items()}
    assert list(usual.values()) == [params.ROOT / "runs", tmp_path / "home/.cache/labkit", params.ROOT / "notebooks",
                                    params.ROOT / "notebooks/my_strategies"]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for variable in PLACES:
        monkeypatch.setenv(variable, "")
    assert {variable: folder() for variable, folder in PLACES.items()} == usual


@pytest.mark.parametrize("asked_first", PLACES)
def test_a_relative_path_is_settled_when_the_first_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked_first: str
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for variable, named in zip(PLACES, ("r", "../d", "./n/", "s"), strict=True):
        monkeypatch.setenv(variable, named)
    monkeypatch.chdir(tmp_path / "one")
    PLACES[asked_first]()
    monkeypatch.chdir(tmp_path / "two")
    right = [tmp_path / "one/r", tmp_path / "d", tmp_path / "one/n", tmp_path / "one/s"]
    assert [folder() for folder in PLACES.values()] == right
    told = subprocess.run(STANDS, cwd="/", capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == [str(path) for path in right], "a process that stands elsewhere inherits the same places"


@pytest.mark.parametrize("variable", PLACES)
def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str) -> None:
    monkeypatch.setenv(variable, "~/here")
    assert PLACES[variable]() == tmp_path / "home/here"


def test_the_notebooks_of_a_batch_share_the_callers_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel stands in the repository; the caller, the batch and the kernel must mean the same folders."""
    (tmp_path / "nb").mkdir()
    write_notebook(tmp_path / "nb", "20_shows", SHOWS)
    for variable, named in zip(PLACES, ("out", "data", "nb", "own"), strict=True):
        monkeypatch.setenv(variable, named)
    environment = {**os.environ, "PYTHONPATH": str(params.ROOT)}
    batch = "from labkit.batch.batch import run_notebooks; print(run_notebooks('tiny')[0].status)"
    done = subprocess.run(
        [sys.executable, "-c", batch], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["ok"], done.stderr
    shown = outputs_of(tmp_path / "out/tiny/notebooks/20_shows.ipynb")[-1].split()
    assert shown == [str(tmp_path / name) for name in ("out", "data", "nb")]
