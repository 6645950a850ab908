"""A file in the current folder that is called like a module is not run by the processes that we start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.processes.launch import in_a_rank
from labkit.system import places as paths
from labkit.system.places import helper_path
from tests.helpers.batch_notebooks import GIVEN, write_notebook
from tests.helpers.command_line import SINGLE

NAMES = ["random", "queue", "torch", "signal", "json", "profile", "labkit", "selectors", "struct", "numpy", "sklearn", "pathlib", "fnmatch"]  # fmt: skip
ROOT = Path(__file__).parents[2]
LABKIT = Path(sys.executable).with_name("labkit")
TINY = ["--profile", "tiny", "--set", "epochs=1", "--set", "device=cpu"]

RUNS_NOTEBOOKS = """
from pathlib import Path
from labkit.batch import batch
from labkit.rows import params
params.ROOT = Path.cwd()  # where the batch starts its kernels
print(batch.run_notebooks("tiny"))
"""


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A folder in which every name is a trap: a module that leaves a file when it is run."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(
            f"open({str(folder)!r} + '/ran.{name}', 'w').close()\nraise RuntimeError('{name} of the folder')\n"
        )
    return folder


def call(folder: Path, *words: str | Path) -> subprocess.CompletedProcess:
    env = {**os.environ, "LABKIT_RUNS": str(folder.parent / "runs"), "LABKIT_NOTEBOOKS": str(folder.parent / "notebooks")}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def ran(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("ran.*"))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_run(trapped: Path, workers: str) -> None:
    done = call(trapped, LABKIT, "run", SINGLE, *TINY, "--set", f"loader_workers={workers}", "--json")
    assert ran(trapped) == [] and done.returncode == 0 and '"status": "ok"' in done.stdout, done.stderr


def test_doctor(trapped: Path) -> None:
    done = call(trapped, LABKIT, "doctor")
    assert ran(trapped) == [] and "gloo available" in done.stdout, done.stdout + done.stderr


def test_batch(trapped: Path) -> None:
    """The child, its kernel, which stands in the lab's folder, and the kernel's fork server."""
    notebooks = trapped.parent / "notebooks"
    notebooks.mkdir()
    trains = f"import labkit; print(labkit.run({SINGLE!r}, 'tiny', overrides={{'epochs': 1, 'device': 'cpu'}}).status[0])"
    write_notebook(notebooks, "20_x", trains, parameters=GIVEN)
    (trapped.parent / "script").mkdir()
    (trapped.parent / "script/run.py").write_text(RUNS_NOTEBOOKS)
    done = call(trapped, sys.executable, trapped.parent / "script/run.py")
    executed = (trapped.parent / "runs/tiny/notebooks/20_x.ipynb").read_text()
    assert "status='ok'" in done.stdout, done.stdout + done.stderr
    assert '"ok\\n"' in executed
    assert ran(trapped) == []


def test_the_lab_that_we_are_comes_before_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what else lies in its folder, or in the current one, comes last."""
    (tmp_path / "other/labkit").mkdir(parents=True)
    (tmp_path / "other/labkit/__init__.py").touch()
    standard, here = str(Path(os.__file__).parent), str(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py")])
    monkeypatch.setattr(sys, "path", ["", paths.ROOT, standard, f"{here}/other"])
    assert helper_path() == [standard, paths.ROOT, f"{here}/other", here]
    monkeypatch.setattr(sys, "path", ["", paths.ROOT, standard])
    assert helper_path() == [standard, paths.ROOT, here]


def path_of_a_rank(**_: object) -> list[str]:
    return sys.path


def test_a_rank_looks_in_the_current_folder_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert in_a_rank("tests.system.test_paths:path_of_a_rank")[-1] == str(tmp_path)
    assert sys.path[0] == "", "here it is as it was"
