"""The command line training rows: what it prints where, what it keeps, and with which exit code it ends."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from labkit import run
from labkit.probes import doctor
from labkit.processes import launch
from labkit.rows.params import all_names
from tests.helpers.command_line import (
    DDP_GLOO,
    DDP_NCCL,
    FSDP,
    LABKIT,
    PROMISED,
    PS_GPU,
    SETS,
    SINGLE,
    Said,
    but,
    json_lines,
    one_line,
)
from tests.helpers.drill_targets import SMALL, obstructed

pytestmark = pytest.mark.usefixtures("runs")


def started_at(line: dict[str, Any]) -> float:
    return json.loads(Path(line["run_dir"], "result.json").read_text())["started_at"]


@pytest.fixture(scope="module")
def first(kept_runs: Path) -> tuple[Said, list[dict[str, Any]]]:
    """The first call of the module trains; in a process of its own, so that all that reaches stdout is seen."""
    words = [*LABKIT, "run", DDP_NCCL, PS_GPU, "--json", *SETS]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"LABKIT_RUNS": str(kept_runs)})
    return Said(done.returncode, done.stdout, done.stderr), json_lines(done.stdout)


def test_json_is_one_object_a_row(first: tuple[Said, list[dict[str, Any]]], runs: Path) -> None:
    said, lines = first
    assert [line["name"] for line in lines] == [DDP_NCCL, DDP_GLOO, PS_GPU], said.err
    for line in lines:
        assert set(line) >= PROMISED
    nccl, gloo, server = lines
    assert gloo["status"] == "ok" and gloo["reason"] is None and gloo["stands_for"] == [DDP_NCCL] and gloo["repeats"] == 1
    figures = ("images_per_s", "best_acc_pct", "max_mem_mib", "total_time_s", "startup_s")
    assert all(isinstance(gloo[key], float) and gloo[key] > 0 for key in figures)
    assert (gloo["world_size"], gloo["backend"], gloo["device"], gloo["dataset"]) == (2, "gloo", "cpu", "digits")
    assert isinstance(gloo["world_size"], int)
    assert Path(gloo["run_dir"], "result.json").is_file() and Path(gloo["run_dir"]).is_relative_to(runs)
    for line in (nccl, server):
        assert line["status"] == "needs" and "needs CUDA" in line["reason"]
        assert all(line[key] is None for key in (*figures, "world_size", "backend", "device", "dataset", "run_dir"))


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="here the GPU server could run")
def test_a_row_that_needs_more_is_code_3(first: tuple[Said, list[dict[str, Any]]]) -> None:
    said, _ = first
    assert said.code == 3
    assert said.err.splitlines() == [
        f"labkit: run 1 of 1: {DDP_GLOO}",
        f"labkit: {PS_GPU} needs CUDA for its server, this machine has none",
    ]


def test_a_second_call_trains_nothing(labkit: Callable[..., Said], first: tuple[Said, list[dict[str, Any]]]) -> None:
    before = started_at(first[1][1])
    said = labkit("run", DDP_NCCL, "--json", *SETS)
    assert said.code == 0 and said.err == "", "its twin has a result"
    assert [line["status"] for line in json_lines(said.out)] == ["needs", "ok"]
    assert started_at(json_lines(said.out)[1]) == before


def test_fresh_trains_again_and_repeats_have_a_folder_each(
    labkit: Callable[..., Said], first: tuple[Said, list[dict[str, Any]]]
) -> None:
    before = started_at(first[1][1])
    said = labkit("run", DDP_GLOO, "--fresh", "--repeats", "2", "--json", *SETS)
    (line,) = json_lines(said.out)
    assert said.code == 0 and line["repeats"] == 2
    assert [Path(line["run_dir"], repeat, "result.json").is_file() for repeat in "12"] == [True, True]
    assert (
        before < started_at(line | {"run_dir": f"{line['run_dir']}/1"}) < started_at(line | {"run_dir": f"{line['run_dir']}/2"})
    )
    assert said.err.splitlines() == [f"labkit: run {n} of 2: {DDP_GLOO}" for n in (1, 2)]


def test_plain_text_keeps_names_whole(labkit: Callable[..., Said], first: tuple[Said, list[dict[str, Any]]]) -> None:
    said = labkit("run", DDP_NCCL, SINGLE, *SETS)
    assert said.code == 0
    (row,) = [line for line in said.out.splitlines() if line.strip().startswith(SINGLE)]
    assert len(row.split()) == 6 and "\x1b" not in said.out
    assert "peak memory (MiB); CPU: growth of peak resident set" in said.out
    assert f"{DDP_NCCL}: needs CUDA, this machine has none; see {DDP_GLOO}\n" in said.out


def test_one_process_has_no_backend(labkit: Callable[..., Said]) -> None:
    (line,) = json_lines(labkit("run", SINGLE, "--json", *SETS).out)
    assert line["status"] == "ok" and line["backend"] is None and line["world_size"] == 1


def test_table_is_sorted_and_complete(labkit: Callable[..., Said], first: tuple[Said, list[dict[str, Any]]]) -> None:
    said = labkit("table", "--json", *SETS)
    lines = json_lines(said.out)
    assert said.code == 0 and said.err == ""
    assert {line["name"] for line in lines} >= set(all_names())
    speeds = [line["images_per_s"] or 0 for line in lines]
    assert speeds == sorted(speeds, reverse=True) and speeds[0] > 0
    for line in lines:
        assert set(line) >= PROMISED | {"model", "batch_size"}
        assert (line["status"] == "ok") == (line["run_dir"] is not None)
    plain = labkit("table", *SETS).out
    heading = plain.splitlines()[1]
    columns = (
        "experiment",
        "model",
        "batch size",
        "best accuracy (%)",
        "throughput (images/s)",
        "peak memory (MiB); CPU: growth of peak resident set",
        "total time (s)",
    )
    places = [heading.index(column) for column in columns]
    assert places == sorted(places)
    assert DDP_GLOO in plain and f"\n{PS_GPU}: needs " in plain and ": not run yet\n" in plain


def test_rows_says_what_becomes_of_each(labkit: Callable[..., Said]) -> None:
    lines = json_lines(labkit("rows", "--json").out)
    assert [line["name"] for line in lines] == all_names()
    by_name = {line["name"]: line for line in lines}
    assert by_name[DDP_NCCL]["groups"] == [1, 2, 3, 4, 5, 6, 8, 10] and by_name[DDP_NCCL]["batch_size"] == 256
    assert by_name[DDP_NCCL]["runs_as"] == DDP_GLOO
    assert by_name[DDP_GLOO]["status"] == "not run" and by_name[DDP_GLOO]["run_dir"] is None
    text = labkit("rows").out
    assert f"runs as {DDP_GLOO}" in text and "runs here" in text and "needs CUDA for its server" in text
    for name in all_names():
        assert sum(line.split()[0] == name for line in text.splitlines() if line.strip()) == 1


def test_rows_tells_of_a_result(labkit: Callable[..., Said], runs: Path, first: tuple[Said, list[dict[str, Any]]]) -> None:
    """The tiny run, put where the quick profile's would be: told for its own row, and refused for another."""
    trained = Path(first[1][1]["run_dir"].removesuffix("/1"), "1", "result.json").read_text()
    for name in (DDP_GLOO, FSDP):
        folder = runs / "quick" / name / "1"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(trained)
    lines = [line.strip() for line in labkit("rows").out.splitlines()]
    (own,) = [line for line in lines if line.startswith(DDP_GLOO)]
    (other,) = [line for line in lines if line.startswith(FSDP)]
    assert "has a result" in own
    assert "last time: unreadable" in other


# -- what goes wrong ----------------------------------------------------------------------------------------------------


def test_a_failed_run_is_code_1(labkit: Callable[..., Said]) -> None:
    too_long = [*but(epochs=10000), "--set", "deadline_s=0.5"]
    said = labkit("run", SINGLE, "--json", *too_long)
    (line,) = json_lines(said.out)
    assert said.code == 1 and line["status"] == "timeout" and "deadline_s=0.5" in line["reason"] and line["images_per_s"] is None
    below = [line for line in labkit("table", *too_long).out.splitlines() if line.startswith(f"{SINGLE}: ")]
    assert len(below) == 1 and "timed out: rank 0 hung" in below[0]


def test_results_that_cannot_be_kept(labkit: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "file" / "runs"))
    one_line(labkit("run", SINGLE, *SETS), 1, str(tmp_path / "file"), "LABKIT_RUNS")


@pytest.mark.parametrize("obstacle", ["a file in its place", "ro", "size=1m"])
def test_drill_25_results_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str) -> None:
    """Told before training starts, with the folder and the remedy. ro, size=1m: a file system mounted there."""
    launched = []
    monkeypatch.setattr(launch, "launch", lambda *_: launched.append(1))
    with obstructed(tmp_path / "elsewhere", obstacle) as folder:
        monkeypatch.setenv("LABKIT_RUNS", str(folder))
        with pytest.raises(OSError, match=rf"^{re.escape(str(folder))}\S*: .*(cannot keep results|1 MiB free).*set LABKIT_RUNS"):
            run([SMALL])
    assert not launched, "training was started"


def test_two_labs_on_one_row(labkit: Callable[..., Said], runs: Path) -> None:
    folder = runs / "quick+seed=9" / SINGLE / "1"
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        one_line(labkit("run", SINGLE, "--set", "seed=9"), 1, str(folder), "another labkit", "wait for it")


def test_interrupt_ends_all_processes_with_code_130(runs: Path) -> None:
    """As Ctrl-C on a terminal: the signal goes to every process of the job."""
    words = [*LABKIT, "run", DDP_GLOO, *but(epochs=100000)]
    job = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        folder = runs / f"quick+device=cpu+epochs=100000+test_samples=100+train_samples=512+warmup_steps=0/{DDP_GLOO}/1"
        until(lambda: all('"step"' in text for text in events(folder)) and len(events(folder)) == 2, 60)
        descendants = psutil.Process(job.pid).children(recursive=True)
        assert len(descendants) >= 3, "the fork server and two ranks"
        assert job.pid in doctor.workers()[1], "doctor sees the training"
        os.killpg(job.pid, signal.SIGINT)
        out, err = job.communicate(timeout=30)
    finally:
        job.kill()
    assert job.returncode == 130
    assert "labkit: interrupted" in err and "Traceback" not in err and out == ""
    until(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in descendants), 6)
    assert json.loads((folder / "attempt.json").read_text())["status"] == "interrupted"


def events(folder: Path) -> list[str]:
    return [path.read_text() for path in folder.glob("events/*.jsonl")]


def until(happened: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)
