"""Which outcome a run's folder holds, where it holds more than one."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.results.table import read_results
from labkit.runs.folders import claimed
from labkit.runs.result import NoResult, Result
from labkit.system.files import read_json, write_json
from tests.helpers.made_up import CPU, put, use

SINGLE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"
LATER, EARLIER = 60.0, -60.0  # seconds


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a row's first repeat, with a result."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    use(monkeypatch, CPU)
    put(SINGLE)
    return tmp_path / "quick" / SINGLE / "1"


def attempt(folder: Path, status: str, after: float) -> Result | NoResult:
    """What is read after a try of this status that began so many seconds after the result."""
    told = read_json(folder / "result.json")
    write_json(folder / "attempt.json", told | {"status": status, "reason": "why", "started_at": told["started_at"] + after})
    [[outcome]] = read_results("quick").values()
    return outcome


def test_a_later_try_without_a_result_is_told_beside_the_result(folder: Path) -> None:
    assert attempt(folder, "failed", LATER).later_attempt == "failed: why"  # type: ignore[union-attr]
    assert attempt(folder, "running", LATER).later_attempt == "interrupted: the launching process died"  # type: ignore[union-attr]


def test_an_earlier_try_and_one_that_goes_on_are_not(folder: Path) -> None:
    assert attempt(folder, "failed", EARLIER).later_attempt == ""  # type: ignore[union-attr]
    with claimed(folder):
        outcome = attempt(folder, "running", LATER)
    assert isinstance(outcome, Result) and outcome.later_attempt == ""


def test_a_result_that_was_put_into_another_repeat_is_not_its(folder: Path) -> None:
    folder.rename(folder.with_name("2"))
    [[outcome]] = read_results("quick").values()
    assert outcome.status == "unreadable" and f"is of {SINGLE}, repeat 1" in outcome.reason


def test_repeats_come_by_number() -> None:
    for repeat in (10, 2):
        put(SINGLE, repeat=repeat)
    assert [one.repeat for one in read_results("quick")[SINGLE]] == [1, 2, 10]
    assert read_results("quick", ["another"]) == {}


def test_a_try_of_a_status_that_is_none_is_told(folder: Path) -> None:
    told = read_json(folder / "result.json")
    (folder / "result.json").unlink()
    write_json(folder / "attempt.json", told | {"status": "gone", "reason": "why"})
    [[outcome]] = read_results("quick").values()
    assert outcome.status == "unreadable" and "attempt.json: the status 'gone' is none of failed, oom" in outcome.reason
