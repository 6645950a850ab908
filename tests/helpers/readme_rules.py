"""What must hold for a command of a README to be real: a rule for each program."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from labkit.rows.kinds import STRATEGIES
from labkit.rows.params import group
from labkit.rows.spec import FIELDS, Spec
from tests.helpers.readme_commands import split

ROOT = Path(__file__).parents[2]
MADE_BY_COMMANDS = ("runs/", "build/", ".venv/", "/tmp/")  # paths that a fresh clone does not have yet
SYSTEM_PACKAGES = {"make", "git", "python3", "python3-venv"}  # beside those that .ci/run installs


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
        Spec.parse(name)  # raises SpecError, which says what is wrong


def check_profile(name: str) -> None:
    exists(f"params/profiles/{name}.yaml")


def check_setting(text: str) -> None:
    key, equals, _ = text.partition("=")
    assert equals and key in FIELDS, f"{text!r} is not KEY=VALUE with a field of Spec"


def check_strategy(name: str) -> None:
    assert name in [*STRATEGIES, "my_idea"], f"{name}: no strategy of the lab, and not the README's own"


# What the values of labkit's arguments and options must be, by the name of the Python parameter.
LABKIT_VALUES: dict[str, Callable[[str], None]] = {
    **dict.fromkeys(["name", "names", "row", "rows"], check_row),
    "profile": check_profile,
    "strategy": check_strategy,
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
