"""Fixtures of several modules: `labkit words...`, and one folder of results for a module."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import promised
from tests.helpers.command_line import Said, call
from tests.helpers.report_pages import PNG

LONGEST = ("test_notebooks.py", "test_prove.py", "test_extending.py", "test_axes.py", "test_faults.py", "test_drills_kernel.py")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # pytest is a background job of a script: tests and children want it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before fixtures, which may need the package, too
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        promised.need(*mark.args)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that with two files at a time no long one is left for the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def labkit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    return lambda *words: call(capsys, monkeypatch, *words)


@pytest.fixture(scope="module")
def kept_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def runs(kept_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One results folder for the module, so that a row is trained once and then looked at from all sides."""
    monkeypatch.setenv("LABKIT_RUNS", str(kept_runs))
    return kept_runs


@pytest.fixture
def pictures(tmp_path):
    """A plot of every kind, of one pixel."""
    (tmp_path / "plots").mkdir()
    for name in ("throughput", "accuracy_over_time", "memory_and_throughput", "group_04", "group_11"):
        (tmp_path / "plots" / f"{name}.png").write_bytes(PNG)
