"""Every command that the README shows is real: its target, subcommand, options, row names and files exist.

Commands are parsed, not run. Nothing is passed over: a program that CHECKS does not list, a code block that names no
language, and an argument of `labkit` that no rule below covers are all failures.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.readme_commands import commands, split
from tests.helpers.readme_rules import check

ROOT = Path(__file__).parent.parent
DOCS = sorted(ROOT.glob("README*.md"))
PLACEHOLDERS = {"NAME": "single_gpu_resnet18_bs128_cacheFalse_ampFalse"}  # what a word in capitals stands for


# --- the tests ----------------------------------------------------------------------------------------------------------

SHOWN = [(path.name, number, line) for path in DOCS for number, line in commands(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    ("readme", "number", "line"), SHOWN, ids=[f"{readme}:{number}: {line}" for readme, number, line in SHOWN]
)
def test_command_of_the_readme_is_real(readme: str, number: int, line: str) -> None:
    check(line)


@pytest.mark.parametrize("line", ["make report", "make test"])
def test_readme_shows(line: str) -> None:
    assert line in [shown for _, _, shown in SHOWN]


def test_labkit_starts_by_its_own_name() -> None:
    """The console script that `pip install -e .` makes beside this Python."""
    script = Path(sys.executable).with_name("labkit")
    assert script.exists(), f"{script}: run `pip install -e . --no-deps --no-build-isolation`"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "make raport",
        "make labkit",  # a folder of that name is no target
        "make report PROFIL=quick",
        "make report PROFILE=no_such_profile",
        "labkit no_such_subcommand",
        "labkit rows --no-such-option",
        "labkit run single_gpu_resnet99_bs128_cacheFalse_ampFalse --profile quick",
        "labkit run NAME --profile no_such_profile",
        "no_such_program",
        "cat no/such/file",
        "make test && cat no/such/file",
        "pip install -r no_such.lock",
        "conda env create -f no_such.yml",
        "torchrun --no-such-option labkit/engine/worker.py",
    ],
)
def test_what_is_not_real_is_refused(line: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check(line)


def test_commands_are_found() -> None:
    text = (
        "Run `make report`, see `labkit/cli.py`, `labkit run`.\n"
        "```console\n$ make test  # all\nprinted\n$ labkit run \\\n>   NAME\n```\n"
        "```text\nno command\n```\n~~~bash\n# only a comment\nA=1 make lint && make bench > out\n~~~\n"
    )
    found = commands(text)
    assert found == [
        (1, "labkit run --help"),
        (1, "make report"),
        (3, "make test  # all"),
        (6, "labkit run NAME"),
        (13, "A=1 make lint && make bench > out"),
    ]
    assert [split(line) for _, line in found] == [
        [["labkit", "run", "--help"]],
        [["make", "report"]],
        [["make", "test"]],
        [["labkit", "run", PLACEHOLDERS["NAME"]]],
        [["make", "lint"], ["make", "bench"]],
    ]
    for bad in ("```\nmake test\n```\n", "```text\n$ make test\n```\n", "```bash\nmake test\n"):
        with pytest.raises(AssertionError):
            commands(bad)
