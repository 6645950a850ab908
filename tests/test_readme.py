"""Every command that the README shows is real: its target, subcommand, options, row names and files exist.

Commands are parsed, not run. Nothing is passed over: a program that CHECKS does not list, a code block that names no
language, and an argument of `labkit` that no rule below covers are all failures.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from labkit.names import fields_of
from labkit.params import group
from labkit.spec import FIELDS, Spec

ROOT = Path(__file__).parent.parent
DOCS = sorted(ROOT.glob("README*.md"))
SHELLS = {"console", "bash", "sh"}
MADE_BY_COMMANDS = ("runs/", "build/", ".venv/", "/tmp/")  # paths that a fresh clone does not have yet
PLACEHOLDERS = {"NAME": "single_gpu_resnet18_bs128_cacheFalse_ampFalse"}  # what a word in capitals stands for
SYSTEM_PACKAGES = {"make", "git", "python3", "python3-venv"}  # beside those that .ci/run installs


# --- reading ------------------------------------------------------------------------------------------------------------


def blocks(text: str) -> list[tuple[int, str, list[str]]]:
    """(line number of its first line, language, lines) of every fenced block."""
    found: list[tuple[int, str, list[str]]] = []
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r"\s*(`{3,}|~{3,})\s*([\w-]*)", line)
        if not fence and match:
            fence = match[1]
            found.append((number + 1, match[2], []))
        elif fence and line.strip() == fence:
            fence = ""
        elif fence:
            found[-1][2].append(line)
    assert not fence, "a code block is not closed"
    return found


def commands(text: str) -> list[tuple[int, str]]:
    """(line number, command) of every shell block; and of every `make ...` and `labkit ...` between backticks in the text."""
    found: list[tuple[int, str]] = []
    prose = text.splitlines()
    for first, language, lines in blocks(text):
        assert language, f"line {first - 1}: a code block names no language; write ```console, ```text, ```python, ..."
        prompted = language == "console" and any(line.lstrip().startswith("$ ") for line in lines)
        if language not in SHELLS:
            assert not any(line.lstrip().startswith("$ ") for line in lines), f"line {first}: commands in a {language} block"
        pending = ""
        for number, line in enumerate(lines, first):
            prose[number - 1] = ""
            line = line.strip()
            if language not in SHELLS or (prompted and not pending and not line.startswith("$ ")):
                continue  # another language, or what a command printed
            pending += line.removeprefix("$ ") if not pending else " " + line.removeprefix(">").lstrip()
            if pending.endswith("\\"):
                pending = pending[:-1].rstrip()
                continue
            if pending and not pending.startswith("#"):
                found.append((number, pending))
            pending = ""
        assert not pending, f"line {first}: the block ends inside a command"
    for number, line in enumerate(prose, 1):
        for span in re.findall(r"(?<!`)`((?:make|labkit) [^`]+)`(?!`)", line):
            named_only = re.fullmatch(r"labkit \w+", span)  # "see `labkit run`": a subcommand without its arguments
            found.append((number, span + " --help" if named_only else span))
    return sorted(found)


def split(line: str) -> list[list[str]]:
    """The simple commands of one line, without assignments before them and without redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    simple: list[list[str]] = [[]]
    redirected = False
    for word in lexer:
        if redirected:
            redirected = False
        elif word in {"&&", "||", ";", "|", "&"}:
            simple.append([])
        elif set(word) <= set("<>&"):
            redirected = True
        elif simple[-1] or not re.match(r"\w+=", word):
            assert not set(word) <= set("();<>|&"), f"{line!r}: {word!r} is more shell than this test reads"
            simple[-1].append(PLACEHOLDERS.get(word, word))
    return [words for words in simple if words]


# --- checking -----------------------------------------------------------------------------------------------------------


def exists(path: str) -> None:
    assert path.startswith(MADE_BY_COMMANDS) or (ROOT / path).exists(), f"{path}: no such file or folder in the repository"


def check_paths(args: list[str]) -> None:
    for arg in args:
        if not arg.startswith("-"):
            exists(arg)


def check_make(args: list[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)", text, re.M)
    for arg in args:
        name, is_setting, _ = arg.partition("=")
        if is_setting:
            assert f"$({name})" in text, f"the Makefile does not use {name}"
        elif not arg.startswith("-"):
            assert arg in phony.split(), f"the Makefile has no target {arg}; it has {phony}"
    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTHON", "PROFILE", "ARGS"}  # of a `make test` around us
    env = {key: value for key, value in os.environ.items() if key not in outer}
    done = subprocess.run(["make", "-n", *args], cwd=ROOT, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        if re.match(r"(\S*/)?labkit ", line):
            check(line)


def record(command: Any, path: tuple[str, ...], calls: list[tuple[tuple[str, ...], Any, dict[str, Any]]]) -> None:
    """Replaces what every (sub)command does by a note of how it was called. Parsing stays as it is."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        command.callback = lambda **values: calls.append((path, command, values))
    else:
        command.callback = None
        for name, subcommand in subcommands.items():
            record(subcommand, (*path, name), calls)


def check_labkit(args: list[str]) -> None:
    from typer.main import get_command

    from labkit.cli import app

    calls: list[tuple[tuple[str, ...], Any, dict[str, Any]]] = []
    command = get_command(app)
    record(command, (), calls)
    try:
        command.main(list(args), prog_name="labkit", standalone_mode=False)
    except Exception as error:
        raise AssertionError(f"labkit {shlex.join(args)}: {getattr(error, 'message', error)}") from error
    assert calls or "--help" in args or "--version" in args, f"labkit {shlex.join(args)}: runs nothing"
    for path, called, values in calls:
        positional = {p.name for p in called.params if p.param_type_name == "argument"}
        for name, value in values.items():
            given = [v for v in (value if isinstance(value, list | tuple) else [value]) if v is not None]
            rule = LABKIT_VALUES.get(name)
            assert rule or name not in positional or not given, f"no rule here for the argument {name} of labkit {' '.join(path)}"
            if rule:
                for v in given:
                    rule(v)


def check_row(name: str) -> None:
    if name.isdecimal():
        group(int(name))
    elif name != "all":
        Spec(**fields_of(name))  # raises SpecError, which says what is wrong


def check_profile(name: str) -> None:
    exists(f"params/profiles/{name}.yaml")


def check_setting(text: str) -> None:
    key, equals, _ = text.partition("=")
    assert equals and key in FIELDS, f"{text!r} is not KEY=VALUE with a field of Spec"


# What the values of labkit's arguments and options must be, by the name of the Python parameter.
LABKIT_VALUES: dict[str, Callable[[str], None]] = {
    **dict.fromkeys(["name", "names", "row", "rows"], check_row),
    "profile": check_profile,
    **dict.fromkeys(["set", "sets", "set_", "setting", "settings"], check_setting),
}


def check_python(args: list[str]) -> None:
    if args[:1] != ["-m"]:
        return check_paths(args[:1])
    module, rest = args[1], args[2:]
    if module == "venv":
        return None
    if module == "labkit.torchrun":
        return check_row(rest[0])
    assert module in {"pip", "pytest", "labkit", "labkit.cli", "jupyterlab"}, f"no rule here for python -m {module}"
    return check([module.removesuffix(".cli"), *rest])


def check_pip(args: list[str]) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert args[0] == "install", f"no rule here for pip {args[0]}"
    before = ""
    for arg in args[1:]:
        if before in {"-r", "-e"}:
            exists(arg)
        elif arg.startswith("-"):
            known = {"-r", "-e", "--no-deps", "--no-build-isolation", "--require-hashes", "--upgrade"}
            assert arg in known, f"no rule here for pip install {arg}"
        else:
            assert re.search(rf"^{re.escape(arg)}==", lock, re.M), f"pip install {arg}: not in requirements.lock"
        before = arg


def check_conda(args: list[str]) -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    match args:
        case ["env", "create" | "update", "-f" | "--file", path]:
            exists(path)
        case ["activate", name]:
            assert name == conda["name"]
        case ["run", "-n", name, *rest]:
            assert name == conda["name"]
            check(rest)
        case _:
            raise AssertionError(f"no rule here for conda {shlex.join(args)}")


def check_apt(args: list[str]) -> None:
    words = [arg for arg in args if not arg.startswith("-")]
    if words != ["update"]:
        assert words[0] == "install", f"no rule here for apt-get {words[0]}"
        installed = set(re.findall(r"^need (\S+)", (ROOT / ".ci/run").read_text(), re.M)) | SYSTEM_PACKAGES
        assert set(words[1:]) <= installed, f"{sorted(set(words[1:]) - installed)}: .ci/run never installs these"


def check_torchrun(args: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    try:
        parsed = get_args_parser().parse_args(args)
    except SystemExit as error:
        raise AssertionError(f"torchrun {shlex.join(args)}: not understood") from error
    check((["python", "-m"] if parsed.module else ["python"]) + [parsed.training_script, *parsed.training_script_args])


def check_git(args: list[str]) -> None:
    assert args[0] == "clone", f"no rule here for git {args[0]}"


def check_jupyter(args: list[str]) -> None:
    assert args[0] == "lab", f"no rule here for jupyter {args[0]}"
    check_paths(args[1:])


def check_papermill(args: list[str]) -> None:
    check_paths(args[:1])


def check_nothing(args: list[str]) -> None:
    """`cd` into the clone, and the like: nothing in the repository that could be missing."""


CHECKS: dict[str, Callable[[list[str]], Any]] = {
    "make": check_make,
    "labkit": check_labkit,
    **dict.fromkeys(["python", "python3", "python3.11"], check_python),
    **dict.fromkeys(["pip", "pip3"], check_pip),
    **dict.fromkeys(["conda", "mamba", "micromamba"], check_conda),
    **dict.fromkeys(["apt", "apt-get"], check_apt),
    "sudo": lambda args: check(args),
    "torchrun": check_torchrun,
    "git": check_git,
    "jupyter": check_jupyter,
    "jupyterlab": check_paths,
    "papermill": check_papermill,
    "cd": check_nothing,
    **dict.fromkeys(["bash", "sh", ".", "source", "cat", "ls", "less", "diff", "pytest"], check_paths),
}


def check(command: str | list[str]) -> None:
    for words in split(command) if isinstance(command, str) else [command]:
        program = words[0].removeprefix(".venv/bin/")
        if program in CHECKS:
            CHECKS[program](words[1:])
        else:  # a script of the repository, called by its path
            assert "/" in program, f"{program}: tests/test_readme.py has no rule for this program; add one to CHECKS"
            assert os.access(ROOT / program, os.X_OK), f"{program}: no such program in the repository"


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
        "torchrun --no-such-option labkit/worker.py",
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
