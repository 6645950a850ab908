"""One environment, written down in three files: pyproject.toml (what), requirements.lock (which), environment.yml (conda)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import labkit
from labkit.system import machine

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
# Lessons and report are written for these, whatever else changes.
FIXED = ["torch", "torchvision", "jupyterlab", "ipywidgets", "pandas", "matplotlib", "papermill"]


def read_lock(text: str) -> dict[str, tuple[str, list[str]]]:
    """name -> (version, sha256 hashes). Every line must be a comment, or belong to a pin of this one shape."""
    pins = {}
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for entry in "\n".join(lines).replace("\\\n", " ").splitlines():
        match = re.fullmatch(r"(\S+?)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", entry)
        assert match, f"requirements.lock: not a pin with hashes: {entry[:200]!r}"
        name, version, hashes = match.groups()
        assert name not in pins, f"requirements.lock: {name} is pinned twice"
        pins[name] = (version, hashes.split())
    return pins


PINS = read_lock(LOCK)
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = {"dependencies": PROJECT["project"]["dependencies"], "build-system": PROJECT["build-system"]["requires"], **EXTRAS}


@pytest.mark.parametrize("group", GROUPS)
def test_lock_pins_what_pyproject_asks_for(group: str) -> None:
    assert GROUPS[group]
    for requirement in map(Requirement, GROUPS[group]):
        name = canonicalize_name(requirement.name)
        assert name in PINS, f"{name} ({group}) is not in requirements.lock; run `make lock`"
        version = PINS[name][0]
        assert requirement.specifier.contains(version, prereleases=True), f"{name}=={version} does not satisfy {requirement}"


def test_lock_names_no_index_and_no_place() -> None:
    """A line that `read_lock` accepts cannot hold one; comments could still."""
    assert len(PINS) > 100
    for word in ("://", "-url", "--find-links", "--trusted-host", " @ "):
        assert word not in LOCK, f"requirements.lock contains {word!r}"
    assert not re.search(r"(^|[\s='\"])(~|\.{0,2})/", LOCK), "requirements.lock names a path"
    assert not re.search(r"\b[\w-]+\.(org|com|net|io)\b", LOCK), "requirements.lock names a host"
    assert "make lock" in LOCK.split("==")[0], "the head of requirements.lock does not say how to make it again"


def test_conda_uses_conda_forge_only() -> None:
    # `nodefaults` is no channel: it keeps conda from adding the ones that the machine is configured for.
    assert CONDA["name"] == "labkit"
    assert [c for c in CONDA["channels"] if c != "nodefaults"] == ["conda-forge"]


def test_conda_installs_the_lock_and_nothing_beside_it() -> None:
    packages = [d for d in CONDA["dependencies"] if isinstance(d, str)]
    by_pip = [d["pip"] for d in CONDA["dependencies"] if isinstance(d, dict)]
    assert sorted(re.split("[=<>]", p)[0] for p in packages) == ["pip", "python"]
    # Not `-e .` as well: pip refuses an editable package in a run that checks hashes.
    assert by_pip == [["-r requirements.lock"]]


def test_python_versions_agree() -> None:
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    (python,) = (d for d in CONDA["dependencies"] if isinstance(d, str) and d.startswith("python="))
    version = python.removeprefix("python=")
    assert version in allowed
    assert f"with Python {version}\n" in LOCK, "environment.yml and requirements.lock are for different Pythons"
    assert PROJECT["tool"]["mypy"]["python_version"] == version
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + version.replace(".", "")


@pytest.mark.parametrize("name", FIXED)
def test_fixed_packages_are_asked_for_and_pinned(name: str) -> None:
    asked = {canonicalize_name(Requirement(r).name) for group in GROUPS.values() for r in group}
    assert name in asked
    assert PINS[name][1]


def test_no_pin_is_a_local_build() -> None:
    """`2.13.0+cpu` would be a file that only one machine has."""
    assert not [f"{name}=={version}" for name, (version, _) in PINS.items() if "+" in version]


def test_the_devcontainer_has_what_ci_has() -> None:
    """No container can be built here: held against .ci/run and the Makefile instead."""
    folder = ROOT / ".devcontainer"
    container = json.loads((folder / "devcontainer.json").read_text())
    dockerfile = (folder / container["build"]["dockerfile"]).read_text()
    assert re.search(r"^FROM debian:bookworm$", dockerfile, re.M), "the lock is for Python 3.11, which is Debian 12's"
    needed = re.findall(r"^need (\S+)", (ROOT / ".ci/run").read_text(), re.M)
    assert len(needed) >= 3
    for package in [*needed, "make", "python3", "python3-venv", "git"]:
        assert re.search(rf"\s{re.escape(package)}(\s|$)", dockerfile), f"{package} is not in the Dockerfile"
    make, target = container["postCreateCommand"].split()
    assert make == "make" and re.search(rf"^{target}:.*\$\(READY\)", (ROOT / "Makefile").read_text(), re.M)


def test_a_checkout_that_was_never_installed_knows_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make gpu PYTHON=python3` installs nothing, so no metadata of labkit need be there; where it is, it says the same."""
    installed = metadata.version("labkit")

    def of_others(name: str) -> str:
        assert name != "labkit", "asks for metadata that only an installed labkit has"
        return metadata.version(name)

    monkeypatch.setattr(machine, "version", of_others)
    assert machine.versions()["labkit"] == labkit.__version__ == installed


def test_set_up_hides_pip_s_warnings_and_shows_its_errors() -> None:
    """A machine's own settings of pip make it warn at every call, such as of a folder that is not there."""
    text = (ROOT / "Makefile").read_text()
    (flags,) = re.findall(r"^QUIET := (.*)", text, re.M)
    recipe = text.partition("$(VENV)/.done: ")[2].partition("\n\n")[0]
    assert recipe.count("pip install") == recipe.count("pip install $(QUIET)") == 2
    command = [sys.executable, "-m", "pip", "install", *flags.split(), "--no-index", "no-such-package"]
    done = subprocess.run(command, env={**os.environ, "PIP_FIND_LINKS": "/no/such/folder"}, capture_output=True, text=True)
    assert done.returncode == 1 and "No matching distribution found for no-such-package" in done.stderr
    assert "WARNING" not in done.stderr
