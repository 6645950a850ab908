"""The command line, as a person meets it: help, what it refuses, and what it passes on. Running stands in test_cli_runs.py."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.helpers.command_line import DDP_GLOO, Said, one_line

pytestmark = pytest.mark.usefixtures("runs")


# -- help ---------------------------------------------------------------------------------------------------------------


def test_help_comes_at_once() -> None:
    code = "import sys; sys.argv = ['labkit', '--help']; from labkit.cli import main\n"
    code += "try: main()\nfinally: print('MODULES', *sys.modules)"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    text, _, modules = done.stdout.partition("MODULES")
    assert all(word in text for word in ("rows", "run", "table", "report", "doctor", "bench", "Exit codes"))
    assert not {"torch", "pandas", "numpy", "matplotlib", "multiprocessing", "ssl"} & set(modules.split())
    assert seconds < 5, "generous, for a busy machine: it takes 0.3 s"


@pytest.mark.parametrize("command", ["rows", "run", "table", "report", "doctor", "bench"])
def test_every_command_explains_itself(labkit: Callable[..., Said], command: str) -> None:
    said = labkit(command, "--help")
    assert said.code == 0 and said.err == ""
    if command not in ("doctor", "bench"):
        assert f"\n labkit {command}" in said.out, "an example, on a line of its own"


def test_version_and_bare_call(labkit: Callable[..., Said]) -> None:
    assert labkit("--version") == Said(0, "labkit 0.1.0\n", "")
    assert "Usage" in "".join(labkit()[1:])


# -- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "../x"], ["'../x'", "labkit rows"]),
        (["run", DDP_GLOO[:-1]], [f"did you mean '{DDP_GLOO}'?"]),
        (["run", "77"], ["group 77", "known: 1, 2"]),
        (["run", "1", "--profile", "quik"], ["'quik'", "did you mean 'quick'?"]),
        (["run", "1", "--set", "epoch=3"], ["'epoch'", "did you mean 'epochs'?"]),
        (["run", "1", "--set", "epochs"], ["epochs=", "whole number"]),
        (["run", "1", "--set", "epochs='3'"], ["epochs='3'", "whole number"]),
        (["run", "1", "--set", "lr=nan"], ["lr=nan", "finite"]),
        (["run", "1", "--set", "lr=-1"], ["lr=-1", "more than 0"]),
        (["run", "1", "--set", "amp=yes"], ["amp=yes", "true or false"]),
        (["run", DDP_GLOO, "--set", "world_size=0"], ["world_size=0", "at least 1"]),
        (["run", DDP_GLOO, "--set", "world_size=1000"], ["world_size=1000", "at most 63"]),
        (["run", "1", "--repeats", "-1"], ["repeats=-1", "from 1 to 1000"]),
        (["run", DDP_GLOO, "--set", "train_samples=10"], ["256 images", "more train_samples"]),
        (["table", "--profile", "nope"], ["'nope'", "known: classroom"]),
        (["table", "--set", "ephocs=3"], ["did you mean 'epochs'?"]),
        (["rows", "--profile", "nope"], ["'nope'"]),
        (["report", "--set", "lr=0"], ["lr=0", "more than 0"]),
        (["bench", "nope"], ["'nope'"]),
    ],
)
def test_bad_input_is_one_line_and_code_2(labkit: Callable[..., Said], words: list[str], told: list[str]) -> None:
    one_line(labkit(*words), 2, *told)


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="here NCCL could be had")
def test_nccl_without_cuda(labkit: Callable[..., Said]) -> None:
    one_line(labkit("run", DDP_GLOO, "--set", "backend=nccl"), 2, "backend=nccl", "use backend=gloo")


@pytest.mark.parametrize("words", [["nope"], ["run"], ["run", "1", "--nope"], ["rows", "extra"]])
def test_unknown_words_are_refused(labkit: Callable[..., Said], words: list[str]) -> None:
    said = labkit(*words)
    assert said.code == 2 and said.out == "" and "Traceback" not in said.err


# -- bench ------------------------------------------------------------------------------------------------------


def test_bench_is_called_with_its_words(labkit: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    from labkit.probes import bench

    calls = []
    monkeypatch.setattr(bench, "main", lambda names, pairs: calls.append((names, pairs)))
    assert labkit("bench").code == labkit("bench", "startup", "floors", "--pairs", "2").code == 0
    assert calls == [([], 5), (["startup", "floors"], 2)]
