"""`labkit doctor`: what it looks at, and what it says of what it finds."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from labkit.engine.job import Job
from labkit.probes import doctor
from labkit.processes.launch import launch
from tests.helpers.command_line import Said, json_lines

pytestmark = pytest.mark.usefixtures("runs")


def found(name: str) -> list[doctor.Finding]:
    return [finding for finding in doctor.examine() if finding.what == name]


def test_doctor_looks_at_everything(labkit: Callable[..., Said]) -> None:
    said = labkit("doctor", "--json")
    findings = json_lines(said.out)
    assert {finding["what"] for finding in findings} == {check.__name__.replace("_", " ") for check in doctor.CHECKS}
    assert all(set(finding) == {"level", "what", "text", "remedy"} for finding in findings)
    assert {finding["level"] for finding in findings} <= {"ok", "note", "problem"}
    assert said.code == any(finding["level"] == "problem" for finding in findings)
    assert not [finding for finding in findings if "could not be checked" in finding["text"]]
    assert all(finding["remedy"] for finding in findings if finding["level"] == "problem")


def test_doctor_ends_with_code_1_where_there_is_a_problem(
    labkit: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "file" / "runs"))
    monkeypatch.setattr(doctor, "CHECKS", (doctor.system, doctor.runs_folder))
    said = labkit("doctor")
    assert said.code == 1
    assert "problem  runs folder" in said.out and "-> set LABKIT_RUNS" in said.out


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[tuple[str, ...]]:
        raise ZeroDivisionError("some fault")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (broken,))
    assert [(finding.level, finding.text) for finding in doctor.examine()] == [
        ("problem", "could not be checked: ZeroDivisionError: some fault")
    ]


def test_a_broken_torch_is_a_problem_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('planted: libtorch is broken')")
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    told = subprocess.run([sys.executable, "-m", "labkit", "doctor"], env=env, capture_output=True, text=True, timeout=60)
    assert told.returncode == 1 and told.stderr == "", "the reason is in the finding, not on the terminal"
    said = " ".join(told.stdout.split())
    assert (
        "no rank could start and import torch: rank 0" in said and "planted: libtorch is broken" in said and "make setup" in said
    ), told.stdout


def test_small_shared_memory_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: Usage(32 * 2**20, 0, 32 * 2**20))
    ((level, text, remedy),) = doctor.shared_memory(tmp_path)
    assert level == "note" and "32 MiB free" in text and "--shm-size" in remedy
    ((level, text, remedy),) = doctor.shared_memory(tmp_path / "none")
    assert level == "note" and "loader_workers=0" in remedy


def test_container_limits_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("labkit.system.machine.CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**29}\n")
    (tmp_path / "memory.current").write_text(f"{2**28}\n")
    assert [finding[0] for finding in doctor.cores()] == ["note"] and "0.5 of them" in next(doctor.cores())[1]
    assert next(doctor.memory())[:2] == ("problem", "0.2 GiB free of 0.5")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert "container" not in next(doctor.cores())[1]


@pytest.mark.parametrize(("bf16", "levels"), [(True, ["ok"]), (False, ["note"]), (None, [])])
def test_a_processor_without_bf16_is_noted(monkeypatch: pytest.MonkeyPatch, bf16: bool | None, levels: list[str]) -> None:
    monkeypatch.setattr("labkit.system.machine.computes_in_bf16", lambda: bf16)
    assert [finding[0] for finding in doctor.arithmetic()] == levels


def test_data_sets_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from labkit.data import datasets

    monkeypatch.setattr(datasets, "where", lambda name: "not here: install it" if name == "digits" else "found in /x")
    findings = list(doctor.data_sets())
    assert findings[0] == ("problem", "digits: not here", "install it") and {level for level, *_ in findings[1:]} == {"ok"}


@pytest.fixture
def adopts_orphans() -> Iterator[None]:
    """Makes this process the one that orphans fall to, as a session manager is, in place of process 1."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)
    yield
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 0, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="a stopped fork server that outlives its launcher")
def test_stray_workers_are_found(adopts_orphans: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork server that is stopped cannot notice that its launcher died: that is what a stray worker looks like."""
    code = "import time; from multiprocessing import forkserver; from labkit.processes.fork_server import warm; warm()\n"
    code += "print(forkserver._forkserver._forkserver_pid, flush=True); time.sleep(60)"
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    server = int(launcher.stdout.readline())
    try:
        assert server not in doctor.workers()[0], "its launcher lives"
        os.kill(server, signal.SIGSTOP)
        launcher.kill()
        launcher.wait()
        assert psutil.Process(server).ppid() == os.getpid()
        monkeypatch.setattr(doctor, "CHECKS", (doctor.processes,))
        (finding,) = [finding for finding in doctor.examine() if finding.level == "problem"]
        assert str(server) in finding.text.split() and str(server) in finding.remedy.split()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getuid", lambda: 12345)
            assert doctor.workers() == (set(), set()), "those of other users are none of ours"
    finally:
        os.kill(server, signal.SIGKILL)
        launcher.kill()
        os.waitpid(server, 0)


def test_ranks_of_this_process_are_not_another_training(tmp_path: Path) -> None:
    """As in a notebook that looks while it trains: only what somebody else trains makes measurements slower."""
    seen = []
    job = Job("tests.processes.test_pauses:beats", 1, tmp_path, backend="")
    launch(job, lambda _: seen.append((bool(psutil.Process().children(recursive=True)), os.getpid() in doctor.workers()[1])))
    assert (True, False) in seen and (True, True) not in seen


def test_settings_that_change_speed_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    from labkit.system import tuning

    monkeypatch.setattr(tuning, "outside_settings", lambda: {})
    assert [finding[0] for finding in doctor.environment()] == ["ok"]
    monkeypatch.setattr(tuning, "outside_settings", lambda: {"LD_PRELOAD": "/x.so"})
    ((level, text, remedy),) = doctor.environment()
    assert level == "note" and "LD_PRELOAD=/x.so" in text and "unset LD_PRELOAD" in remedy
