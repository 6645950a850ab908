"""Homes, terminals, installations and launchers as they are not on the machine of who wrote this: a line with the remedy each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit.batch.batch import run_notebooks
from labkit.rows import params
from labkit.rows.params import ROOT
from labkit.torchrun import GIVEN
from tests.helpers.command_line import SETS, SINGLE, Said, one_line

NO_HOME = """
import os, pwd, sys
def nobody(*_): raise KeyError("no such user")
pwd.getpwuid = pwd.getpwnam = nobody
os.environ.pop("HOME", None)
from labkit.cli import main
main()
"""
C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def say(*words: str, code: tuple[str, ...] = ("-m", "labkit"), **environment: Any) -> Said:
    env = {key: value for key, value in {**os.environ, "PYTHONPATH": str(ROOT), **environment}.items() if value is not None}
    done = subprocess.run([sys.executable, *code, *words], env=env, capture_output=True, timeout=120, cwd="/")
    return Said(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


# -- no home ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("run", SINGLE, *SETS), ("report", "--profile", "tiny")])
def test_no_home_folder(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = say(*words, code=("-c", NO_HOME), LABKIT_RUNS=str(tmp_path / "runs"), LABKIT_DATA=None)
    one_line(said, 1, "home folder", "set HOME")


def test_no_home_folder_is_none_of_a_run_s_business_where_the_data_have_a_place(tmp_path: Path) -> None:
    """Only Jupyter cannot do without, which is told before the first notebook."""
    places = {"LABKIT_RUNS": str(tmp_path / "runs"), "LABKIT_DATA": str(tmp_path / "data")}
    said = say("table", "--profile", "tiny", code=("-c", NO_HOME), **places)
    assert said.code == 0 and SINGLE in said.out and said.err == ""
    one_line(say("report", "--profile", "tiny", code=("-c", NO_HOME), **places), 1, "HOME is not set", "Jupyter", "set HOME")


def test_doctor_says_what_no_home_means(monkeypatch: pytest.MonkeyPatch) -> None:
    from labkit.probes import doctor

    def unknown(_: str) -> str:
        raise OSError("~/.cache: the home folder is not known; set HOME, or set LABKIT_DATA to a folder")

    monkeypatch.setattr("labkit.data.datasets.where", unknown)
    monkeypatch.setattr(doctor, "CHECKS", (doctor.data_sets,))
    (finding,) = doctor.examine()
    told = ("problem", "~/.cache: the home folder is not known", "set HOME, or set LABKIT_DATA to a folder")
    assert (finding.level, finding.text, finding.remedy) == told


# -- letters ------------------------------------------------------------------------------------------------------------


def test_letters_that_the_output_cannot_show(tmp_path: Path) -> None:
    """The folder is good, only the terminal is poor: everything is printed, and JSON stays JSON."""
    runs = {"LABKIT_RUNS": str(tmp_path / "数据é😀"), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    said = say("run", SINGLE, *SETS, "--json", **runs)
    assert said.code == 0 and said.out.isascii() and said.err.isascii(), said
    assert "数据é😀" in json.loads(said.out)["run_dir"]
    said = say("table", "--profile", "tiny", **runs)
    assert said.code == 0 and said.out.isascii() and "Traceback" not in said.err
    (tmp_path / "数据é😀").rename(tmp_path / "x")
    (tmp_path / "数据é😀").write_text("")
    one_line(say("run", SINGLE, *SETS, **runs), 1, "\\u6570\\u636e", "LABKIT_RUNS")


def test_letters_that_the_locale_does_not_have(tmp_path: Path) -> None:
    """Python itself cannot spell the folder then: told before anything is started."""
    said = say("run", SINGLE, *SETS, LABKIT_RUNS=str(tmp_path / "数据"), **C)
    one_line(said, 1, "\\u6570\\u636e", "PYTHONUTF8=1", "LABKIT_RUNS")
    assert list(tmp_path.iterdir()) == []


# -- matplotlib ---------------------------------------------------------------------------------------------------------


def test_a_backend_that_matplotlib_does_not_have(tmp_path: Path) -> None:
    nonsense = {"MPLBACKEND": "nonsense", "LABKIT_RUNS": str(tmp_path / "runs")}
    one_line(say("report", "--profile", "tiny", **nonsense), 1, "MPLBACKEND=nonsense", "MPLBACKEND=agg")
    assert not list(tmp_path.rglob("*.ipynb")), "told before the first notebook"
    for code in ("import labkit.plots.groups", "import labkit as lab; lab.drawing('ring')"):
        told = say(code=("-c", code), **nonsense).err.strip().splitlines()[-1]
        assert told.startswith("OSError: MPLBACKEND=nonsense: ") and "unset MPLBACKEND" in told
    code = "from labkit.probes import doctor; doctor.CHECKS = (doctor.fonts,); print(*doctor.examine())"
    said = say(code=("-c", code), **nonsense)
    assert said.out.startswith("problem  fonts          MPLBACKEND=nonsense: ") and "-> unset MPLBACKEND" in said.out, said


# -- installed without the repository -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("rows",), ("run", "1"), ("run", SINGLE), ("table",), ("report",), ("check",)])
def test_every_command_without_the_repository(
    labkit: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(params, "PARAMS", tmp_path / "params")
    monkeypatch.setattr(params, "groups", params.groups.__wrapped__)
    one_line(labkit(*words), 2, str(tmp_path / "params"), "no such folder", "pip install -e .")


def test_a_package_without_its_repository(tmp_path: Path) -> None:
    """As `pip install .` leaves it, which copies the package and nothing else."""
    shutil.copytree(ROOT / "labkit", tmp_path / "site/labkit", ignore=shutil.ignore_patterns("__pycache__"))
    said = say("rows", PYTHONPATH=str(tmp_path / "site"), LABKIT_RUNS=str(tmp_path / "runs"), LABKIT_NOTEBOOKS=None)
    one_line(said, 2, str(tmp_path / "site/params"), "no such folder", "pip install -e .")


# -- torchrun -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", GIVEN)
@pytest.mark.parametrize("value", [None, "", "x"])
def test_torchrun_s_variables(variable: str, value: str | None, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from labkit import torchrun

    for name in GIVEN:
        monkeypatch.setenv(name, "1")
    torchrun.check_environment()
    monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    if (variable, value) == ("MASTER_ADDR", "x"):
        return torchrun.check_environment()
    with pytest.raises(ValueError, match=rf"^{variable} is .*started by torchrun.*`labkit run NAME`"):
        torchrun.check_environment()


def test_started_without_torchrun(tmp_path: Path) -> None:
    given = {name: "0" for name in GIVEN if name != "LOCAL_RANK"}
    words = (SINGLE, "--profile", "tiny")
    alone = {**dict.fromkeys(GIVEN), **given, "LABKIT_RUNS": str(tmp_path)}
    one_line(say(*words, code=("-m", "labkit.torchrun"), **alone), 2, "LOCAL_RANK is not set", "torchrun", "labkit run NAME")


def test_a_batch_looks_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OSError, match="set HOME"):
        run_notebooks("tiny")
