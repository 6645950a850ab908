"""What a notebook is given is checked when its lesson is made, also in its type: papermill makes texts of many values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit import Lesson
from labkit.batch.batch import run_notebooks
from labkit.runs.plan import plan
from tests.helpers.batch_notebooks import write_notebook
from tests.helpers.refusals import refused

ONE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"
WRONG = [
    ("fresh", "true", ("fresh='true'", "-p fresh True")),
    ("fresh", 1, ("fresh=1", "Unix seconds")),
    ("fresh", 0, ("fresh=0",)),
    ("fresh", None, ("fresh=None",)),
    ("fresh", float("nan"), ("fresh=nan",)),
    ("repeats", 2.0, ("repeats=2.0", "whole number", "-p repeats 2")),
    ("repeats", "2", ("repeats='2'",)),
    ("repeats", True, ("repeats=True",)),
    ("repeats", -1, ("repeats=-1", "from 1 to 1000")),
    ("overrides", '{"epochs": 1}', ("overrides='{\"epochs\": 1}'", "not str", '-y "overrides: {epochs: 2}"')),
    ("overrides", ["epochs=1"], ("overrides=['epochs=1']", "not list")),
    ("overrides", "", ("overrides=''",)),
    ("overrides", {1: 2}, ("overrides={1: 2}",)),
    ("profile", 5, ("profile '5'", "known: classroom")),
    ("profile", ["quick"], ("profile",)),
    ("profile", None, ("profile 'None'",)),
    ("rows", ONE, (f"rows='{ONE}'", "a list", '-y "rows: ')),
    ("rows", [7], ("rows=[7]",)),
    ("rows", {"a": 1}, ("rows={'a': 1}",)),
    ("claim", 5, ("claim=5", "a text", "-r claim")),
    ("claim", None, ("claim=None",)),
    ("group", "4", ("group='4'", "-p group 4")),
    ("group", 4.0, ("group=4.0",)),
    ("group", True, ("group=True",)),
]


@pytest.fixture(autouse=True)
def nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("labkit.processes.fork_server.warm", lambda wait=False: pytest.fail("a process was started"))


@pytest.mark.parametrize(("key", "value", "words"), WRONG)
def test_every_argument_of_a_lesson_is_checked(key: str, value: Any, words: tuple[str, ...]) -> None:
    refused(lambda: Lesson(**{"group": 1, "profile": "tiny", key: value}), *words)


@pytest.mark.parametrize(
    ("key", "value", "words"), [one for one in WRONG if one[0] in ("fresh", "repeats", "overrides", "profile")]
)
def test_run_and_the_batch_check_alike(key: str, value: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    refused(lambda: labkit.run(ONE, **{"profile": "tiny", key: value}), *words)
    assert not (tmp_path / "runs").exists()
    if key in ("repeats", "profile"):
        refused(lambda: run_notebooks(**{"profile": "tiny", key: value}), *words)


@pytest.mark.parametrize("rows", [None, 1.5, True, {"a": 1}, [None], [[True]], b"x"])
def test_rows_of_another_type(rows: Any) -> None:
    refused(lambda: labkit.run(rows, "tiny"), "must be names of rows or numbers of groups")


def test_more_rows_of_a_lesson_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.notebook.lesson.get_ready", lambda rows, profile, *words: plan(rows, profile))
    lesson = Lesson(1, "tiny")
    refused(lambda: lesson.run(1.5), "rows=1.5")
    refused(lambda: lesson.run("nope"), "'nope': not the name of a row")


def given(folder: Path, *words: str) -> dict[str, Any]:
    """The parameters that reach a notebook from papermill's command line."""
    notebook = write_notebook(folder, "20_x", parameters="")
    command = [sys.executable, "-m", "papermill", str(notebook), str(folder / "out.ipynb"), "--prepare-only", *words]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    cells = json.loads((folder / "out.ipynb").read_text(encoding="utf-8"))["cells"]
    (injected,) = [cell["source"] for cell in cells if "injected-parameters" in cell["metadata"].get("tags", [])]
    values: dict[str, Any] = {}
    exec("".join(injected), values)
    values.pop("__builtins__")
    return values


def test_what_the_messages_say_of_papermill_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["-p", "fresh", "True", "-p", "repeats", "2", "-p", "group", "4", "-p", "profile", "tiny", "-r", "claim", "1 of 2"]
    words += ["-y", "overrides: {epochs: 2}", "-y", f"rows: [{ONE}]"]
    values = given(tmp_path, *words)
    assert values["fresh"] is True and values["overrides"] == {"epochs": 2} and values["rows"] == [ONE]
    monkeypatch.setattr("labkit.notebook.lesson.get_ready", lambda rows, profile, *words: plan(rows, profile))
    assert Lesson(**values).repeats == 2
    wrong = given(tmp_path, "-p", "fresh", "true", "-p", "repeats", "2.0", "-p", "overrides", '{"epochs": 1}', "-p", "rows", ONE)
    assert wrong == {"fresh": "true", "repeats": 2.0, "overrides": '{"epochs": 1}', "rows": ONE}, "each of these is refused above"
