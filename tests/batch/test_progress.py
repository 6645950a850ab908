"""What a batch says of itself: which row trains, how far it is, and how long it may still take."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labkit.batch.progress import Watch, duration
from labkit.runs import folders
from labkit.runs.plan import plan
from labkit.system.files import write_json
from labkit.terminal import notebook_bar
from tests.helpers.made_up import CPU, put, use

ROW = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"
OTHER = "single_gpu_resnet18_bs512_cacheFalse_ampFalse"


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    use(monkeypatch, CPU)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """The time that progress sees, in seconds since the run began."""
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0 + seconds)


def training(name: str, *events: dict[str, Any], label: str = "quick") -> Path:
    """A run under way, at these events of rank 0; of 24 epochs."""
    folder = folders.runs_folder() / label / name / "1"
    (folder / "events").mkdir(parents=True, exist_ok=True)
    write_json(folder / "attempt.json", {"status": "running", "started_at": 1_800_000_000.0, "spec": {"epochs": 24}})
    (folder / "events/rank0.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"half a li')
    return folder


def test_a_row_s_time_comes_from_last_time(clock: Callable[[float], None]) -> None:
    put(ROW, spec=plan(ROW).runnable[0].spec.but(epochs=24).to_dict())  # which took 10 s
    training(ROW, {"phase": "step", "epoch": 4}, {"phase": "step", "epoch": 5})
    clock(3.0)
    assert Watch("quick").row(ROW) == f"{ROW}: epoch 6 of 24, about 7 s more"
    clock(30.0)
    assert Watch("quick").row(ROW).endswith("about 0 s more"), "it takes longer than last time"
    training(ROW)
    clock(1.0)
    assert Watch("quick").row(ROW) == f"{ROW}: starting, 24 epochs, about 9 s more"


def test_else_from_the_epochs_that_have_ended(clock: Callable[[float], None]) -> None:
    training(OTHER, {"phase": "step", "epoch": 0}, label="quick+seed=1")
    clock(5.0)
    assert Watch("quick").row(OTHER) == f"{OTHER}: epoch 1 of 24", "nothing is known yet"
    training(OTHER, {"phase": "evaluate", "epoch": 6}, label="quick+seed=1")
    clock(60.0)
    assert Watch("quick").row(OTHER) == f"{OTHER}: epoch 7 of 24, about 3 min more"


def test_what_is_over_is_not_told(clock: Callable[[float], None]) -> None:
    assert Watch("quick").row(ROW) == ""
    folder = training(ROW, {"phase": "step", "epoch": 4})
    clock(3.0)
    write_json(folder / "attempt.json", json.loads((folder / "attempt.json").read_text()) | {"status": "failed"})
    assert Watch("quick").row(ROW) == ""
    (folder / "attempt.json").write_text("torn")
    assert Watch("quick").row(ROW) == ""


def test_notebooks_are_timed_by_last_time() -> None:
    folder = folders.runs_folder() / "quick/notebooks"
    folder.mkdir(parents=True)
    for name, status, seconds in (("01_x", "ok", 40.0), ("02_y", "ok", 80.0), ("03_z", "timeout", 600.0)):
        write_json(folder / f"{name}.status.json", {"notebook": name, "status": status, "seconds": seconds})
    watch = Watch("quick")
    assert watch.took_s(["01_x", "02_y"]) == 120.0
    assert watch.took_s(["01_x", "03_z"]) is None and watch.took_s(["04_w"]) is None
    assert [duration(seconds) for seconds in (0.4, 99.0, 120.0)] == ["0 s", "99 s", "2 min"]


def test_a_log_hears_of_each_row_and_then_twice_a_minute(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    training(ROW, {"phase": "step", "epoch": 5})
    clock(6.0)
    task = SimpleNamespace(notebook=SimpleNamespace(name="01_x"))

    def cell(number: int, seconds: float, row: str | None) -> dict[str, Any]:
        return {"cell": number, "cells": 9, "seconds": seconds, "row": row}

    with notebook_bar(["01_x"], Watch("quick"), "About this profile.") as on_progress:
        for number, seconds, row in ((1, 0.0, None), (3, 1.0, ROW), (3, 2.0, ROW), (3, 30.9, ROW), (3, 31.0, ROW)):
            on_progress(task, cell(number, seconds, row))
        training(OTHER, {"phase": "step", "epoch": 1})
        on_progress(task, cell(4, 32.0, OTHER))
        on_progress(task, {"status": "ok", "reason": "", "kept": False})
    assert capsys.readouterr().err.splitlines() == [
        "labkit: About this profile.",
        "labkit: notebook 1 of 1: 01_x",
        f"labkit: training {ROW}: epoch 6 of 24, about 23 s more",
        f"labkit: training {ROW}: epoch 6 of 24, about 23 s more",
        f"labkit: training {OTHER}: epoch 2 of 24, about 2 min more",
        "labkit: notebook 1 of 1: 01_x: ok",
    ]
