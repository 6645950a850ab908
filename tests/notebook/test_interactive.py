"""Who can press a button: a person in JupyterLab, and nobody in a notebook that papermill executes, whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from labkit import Lesson
from labkit.notebook import cells
from labkit.notebook import widgets as labkit_widgets
from labkit.processes.diagnose import RunFailed
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


def test_the_explorer_frees_its_buttons_after_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where the run cannot even be planned: the reader sees why, and can press "Run" again."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    monkeypatch.setattr(labkit_widgets, "interactive", lambda: True)

    def no_server(*_: object) -> None:
        raise RunFailed("failed", 0, "the fork server could not be started")

    monkeypatch.setattr(labkit_widgets, "get_ready", no_server)
    box = labkit_widgets.explorer("tiny")
    _, rows, (run, stop), live, _ = (getattr(one, "children", one) if n == 2 else one for n, one in enumerate(box.children))
    rows.value = rows.options[:1]
    run.click()
    for thread in threading.enumerate():
        if thread.name == "row explorer":
            thread.join(60)
    assert (run.disabled, stop.disabled) == (False, True)
    assert "the fork server could not be started" in live.value


def test_the_prediction_card_starts_empty_and_keeps_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    monkeypatch.setattr("labkit.processes.fork_server.warm", lambda wait=False: None)
    monkeypatch.setattr("labkit.notebook.lesson.interactive", lambda: True)
    lesson = Lesson(4, profile="tiny")
    *answers, _, why, (commit, state) = (getattr(one, "children", one) for one in lesson.predict().children)
    factor, two, points = answers[1::2]
    assert [one.value for one in (factor, two, points, why)] == [""] * 4, "nothing is answered for the reader"
    assert all(one.placeholder for one in (factor, two, points, why))
    assert "cache" in answers[0].value, "the question stands above its field"
    commit.click()
    assert "answer at least one" in state.value and lesson.guesses.values == {} and not factor.disabled
    factor.value, why.value = "twice", " <decoding> takes longest "
    commit.click()
    assert "factor=&#x27;twice&#x27;: must be a number, more than 0" in state.value and not commit.disabled
    factor.value, points.value = "1,5", "\N{MINUS SIGN}18"
    commit.click()
    assert lesson.guesses.values == {"factor": 1.5, "points": -18.0} and lesson.guesses.why == "<decoding> takes longest"
    assert "Committed" in state.value and all(one.disabled for one in (factor, two, points, why, commit))
    assert str(lesson.guesses.table()).count("no guess") == 1 and "&lt;decoding&gt;" in lesson.guesses.table().html()
    rows = Lesson(1, profile="tiny").predict().children[1]
    assert rows.value == "" and rows.options[0] == ("choose ...", "")
