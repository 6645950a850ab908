"""Who can press a button: a person in JupyterLab, and nobody in a notebook that papermill executes, whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.notebook import cells
from labkit.rows.params import ROOT
from tests.helpers.batch_notebooks import outputs_of, write_notebook

ASKS = "from labkit.notebook.cells import interactive; print(interactive())"
SESSION = {"JPY_SESSION_NAME": "/home/somebody/lesson.ipynb"}


def answer(*words: str, **more: str) -> str:
    env = {key: value for key, value in os.environ.items() if key not in ("LABKIT_WIDGETS", "JPY_SESSION_NAME")}
    env |= {"PYTHONPATH": str(ROOT), **more}
    return subprocess.run([sys.executable, "-c", *words], env=env, capture_output=True, text=True, timeout=120).stdout.strip()


@pytest.fixture(autouse=True)
def no_session_of_ours() -> None:
    assert "JPY_SESSION_NAME" not in os.environ, "start pytest from a terminal: the tests stand for Jupyter's server here"


def test_a_kernel_of_the_server_is_interactive() -> None:
    assert answer(ASKS, **SESSION) == "True"
    assert answer(ASKS) == "False", "as in a script"


def test_a_kernel_whose_parent_has_the_same_session_is_not() -> None:
    starts = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    assert answer(starts, ASKS, **SESSION) == "False"
    other = "import os, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], env=os.environ | {'JPY_SESSION_NAME': 'y'})"
    assert answer(other, ASKS, **SESSION) == "True", "a server that was started from a cell names its own sessions"


@pytest.mark.parametrize(("widgets", "right"), [("0", "False"), ("1", "True"), ("", "False")])
def test_the_variable_decides(widgets: str, right: str) -> None:
    starts = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    assert answer(starts, ASKS, LABKIT_WIDGETS=widgets, **SESSION) == right


def test_papermill_started_from_a_cell(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path, "20_x", ASKS)
    run = "from papermill.__main__ import papermill; papermill()"
    answer(run, str(notebook), str(tmp_path / "out.ipynb"), **SESSION)
    assert outputs_of(tmp_path / "out.ipynb")[-1].strip() == "False", "its widgets would be dead"


def test_a_parent_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_WIDGETS", raising=False)
    monkeypatch.setenv("JPY_SESSION_NAME", "x")
    monkeypatch.setattr("os.getppid", lambda: 2**22 + 1)
    assert cells.interactive()
