"""Whatever a rank raises, and whatever it cannot import: class, message and rank are told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.engine.job import Job
from labkit.processes.begin import MESSAGE_CHARACTERS, describe
from labkit.processes.diagnose import RunFailed
from labkit.processes.launch import launch

ROOT = Path(__file__).parents[2]


class Silent(Exception):
    def __str__(self) -> str:
        raise ValueError("no message to be had")


class Unpicklable(Exception):
    def __init__(self, first: str, second: str):
        super().__init__(first)
        self.lock = open(os.devnull)  # noqa: SIM115 - an open file cannot be sent

    def __reduce__(self):
        raise TypeError("cannot be pickled")


class NotText(Exception):
    def __str__(self) -> str:
        return 17  # type: ignore[return-value]


class Unprintable(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise ValueError("no traceback can be printed")


def local() -> BaseException:
    class Odd(BaseException):
        __module__ = "nowhere"

    return Odd("of a class that nobody can import")


ERRORS = {  # what is raised; how the reason begins
    "empty": (lambda: ValueError(), "ValueError (without a message)"),
    "blank": (lambda: ValueError("\n \n"), "ValueError (without a message)"),
    "first line blank": (lambda: ValueError("\nthe second line"), "ValueError: the second line"),
    "very long": (lambda: ValueError("x" * 10_000_000), "ValueError: xxx"),
    "many lines": (lambda: ValueError("first\n" * 100_000), "ValueError: first"),
    "unpicklable": (lambda: Unpicklable("kept", "lost"), "Unpicklable: kept"),
    "no message": (Silent, "Silent: (cannot be read: ValueError)"),
    "no text": (NotText, "NotText: (cannot be read: TypeError)"),
    "no traceback": (lambda: Unprintable("kept"), "Unprintable: kept"),
    "no characters": (lambda: ValueError("half \ud800 a pair"), "ValueError: half \\ud800 a pair"),
    "local class": (local, "Odd: of a class that nobody can import"),
    "exit": (lambda: SystemExit(3), "SystemExit: 3"),
    "interrupt": (lambda: KeyboardInterrupt(), "KeyboardInterrupt (without a message)"),
    "group": (lambda: ExceptionGroup("two", [ValueError("a"), OSError("b")]), "ExceptionGroup: two (2 sub-exceptions)"),
    "stop": (lambda: StopIteration(), "StopIteration (without a message)"),
}


def raise_it(*, rank, progress, name):
    raise ERRORS[name][0]()


@pytest.mark.parametrize("name", ERRORS)
def test_an_unusual_exception_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunFailed) as failed:
        launch(Job("tests.processes.test_begin:raise_it", 1, tmp_path, {"name": name}, backend=""))
    assert failed.value.status == "failed"
    assert failed.value.reason.startswith(f"rank 0 failed in phase 'start' of epoch 1, step 1: {ERRORS[name][1]}")
    assert len(failed.value.reason) < MESSAGE_CHARACTERS + 200 and "\n" not in failed.value.reason
    assert len(failed.value.detail) < 100_000


def test_what_is_described_can_be_written() -> None:
    for make, _ in ERRORS.values():
        json.dumps(describe(make()), ensure_ascii=False).encode()


def unserialisable(*, rank, progress):
    return {"a set": {1}}


def test_a_result_that_is_no_plain_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"rank 0 failed .* TypeError: .*set"):
        launch(Job("tests.processes.test_begin:unserialisable", 1, tmp_path, backend=""))


# -- a file that cannot be imported ------------------------------------------------------------------------------------------

BROKEN = {  # what somebody wrote into a strategy's file; what is told of it
    "a wrong import": ("import no_such_module\n", "labkit/strategies/ddp.py, line 1: ModuleNotFoundError: No module named 'no_such_module'"),
    "a syntax error": ("x = 1\ndef step(:\n", "labkit/strategies/ddp.py, line 2: SyntaxError: invalid syntax"),
    "a name that is not there": ("\n\nno_such_name\n", "labkit/strategies/ddp.py, line 3: NameError: name 'no_such_name' is not defined"),
    "no class": ("x = 1\n", "labkit/strategies/ddp.py: holds no class with a method `step`"),
}  # fmt: skip
TRAIN = """
import json, labkit
assert labkit.__file__.startswith({root!r}), labkit.__file__
lines = labkit.run({rows}, "tiny", overrides={{"epochs": 1, "device": "cpu"}})
print(json.dumps([[status, reason] for status, reason in zip(lines.status, lines.reason)]))
"""
SINGLE, DDP = "single_gpu_resnet18_bs256_cacheTrue_ampFalse", "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"


def train_in(root: Path, rows: list[str]) -> list[list[str]]:
    """Status and reason of rows that a copy of the lab trains."""
    env = {**os.environ, "PYTHONPATH": str(root), "LABKIT_RUNS": str(root / "runs")}
    command = [sys.executable, "-c", TRAIN.format(root=str(root), rows=rows)]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, "what the fork server says belongs into its log"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in ("labkit", "params"):
        shutil.copytree(ROOT / folder, tmp_path / "copy" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_strategy_breaks_only_its_own_rows(copy: Path, what: str) -> None:
    text, told = BROKEN[what]
    (copy / "labkit/strategies/ddp.py").write_text(text)
    single, ddp = train_in(copy, [SINGLE, DDP])
    assert single[0] == "ok", single
    assert ddp[0] == "failed" and told in ddp[1], ddp


def test_a_broken_file_of_the_engine_is_named(copy: Path) -> None:
    with open(copy / "labkit/engine/loop.py", "a") as file:
        file.write("\nno_such_name\n")
    [[status, reason]] = train_in(copy, [SINGLE])
    assert status == "failed" and "labkit/engine/loop.py, line" in reason and "NameError: name 'no_such_name'" in reason
