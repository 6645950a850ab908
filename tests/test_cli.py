"""The command line, as a person meets it: what it prints where, and with which exit code it ends."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from labkit import cli, doctor
from labkit.params import all_names

SINGLE = "single_gpu_resnet18_bs256_cacheTrue_ampFalse"
DDP_NCCL = "ddp_nccl_resnet18_bs128x2_cacheFalse_ampFalse"
DDP_GLOO = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
PS_GPU = "ps_gpu_mode_resnet18_bs128_workers2"
TINY = ["epochs=1", "width=8", "train_samples=512", "test_samples=100", "warmup_steps=0", "device=cpu"]
SETS = [word for setting in TINY for word in ("--set", setting)]
PROMISED = {"name", "status", "reason", "images_per_s", "best_acc_pct", "max_mem_mb", "total_time_s", "startup_s", "world_size",
            "backend", "device", "dataset", "run_dir", "repeats", "stands_for"}  # fmt: skip
LABKIT = [sys.executable, "-c", "from labkit.cli import main; main()"]

Said = namedtuple("Said", "code out err")


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> Said:
    """`labkit words...` in this process, where torch is loaded already."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["labkit", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return Said(left.value.code or 0, *capsys.readouterr())


@pytest.fixture
def labkit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    return lambda *words: call(capsys, monkeypatch, *words)


@pytest.fixture(scope="module")
def kept_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def runs(kept_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One results folder for the module, so that a row is trained once and then looked at from all sides."""
    monkeypatch.setenv("LABKIT_RUNS", str(kept_runs))
    return kept_runs


def json_lines(text: str) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def one_line(said: Said, code: int, *words: str) -> None:
    assert said.code == code, said
    assert said.out == ""
    assert said.err.startswith("labkit: ") and said.err.count("\n") == 1 and "Traceback" not in said.err
    for word in words:
        assert word in said.err


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
    assert not {"torch", "pandas", "numpy", "matplotlib"} & set(modules.split())
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
        (["run", "11"], ["group 11", "known: 1, 2"]),
        (["run", "1", "--profile", "quik"], ["'quik'", "did you mean 'quick'?"]),
        (["run", "1", "--set", "epoch=3"], ["'epoch'", "did you mean 'epochs'?"]),
        (["run", "1", "--set", "epochs"], ["epochs=", "whole number"]),
        (["run", "1", "--set", "epochs='3'"], ["epochs='3'", "whole number"]),
        (["run", "1", "--set", "lr=nan"], ["lr=nan", "finite"]),
        (["run", "1", "--set", "lr=-1"], ["lr=-1", "more than 0"]),
        (["run", "1", "--set", "amp=yes"], ["amp=yes", "true or false"]),
        (["run", DDP_GLOO, "--set", "world_size=0"], ["world_size=0", "at least 1"]),
        (["run", DDP_GLOO, "--set", "world_size=1000"], ["world_size=1000", "at most 63"]),
        (["run", "1", "--repeats", "0"], ["repeats=0", "from 1 to 1000"]),
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


# -- running ------------------------------------------------------------------------------------------------------------


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
    figures = ("images_per_s", "best_acc_pct", "max_mem_mb", "total_time_s", "startup_s")
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
    assert "peak memory MiB (growth of resident set)" in said.out
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
        "best accuracy %",
        "images/s",
        "peak memory MiB (growth of resident set)",
        "total time s",
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
    """The tiny run, put where the quick profile's would be."""
    name = "fsdp_grad_resnet18_bs128x2_ampFalse"
    folder = runs / "quick" / name / "1"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(Path(first[1][1]["run_dir"].removesuffix("/1"), "1", "result.json").read_text())
    (line,) = [line for line in labkit("rows").out.splitlines() if line.strip().startswith(name)]
    assert "has a result" in line


# -- what goes wrong ----------------------------------------------------------------------------------------------------


def test_a_failed_run_is_code_1(labkit: Callable[..., Said]) -> None:
    too_long = [*SETS, "--set", "epochs=10000", "--set", "deadline_s=0.5"]
    said = labkit("run", SINGLE, "--json", *too_long)
    (line,) = json_lines(said.out)
    assert said.code == 1 and line["status"] == "timeout" and "deadline_s=0.5" in line["reason"] and line["images_per_s"] is None
    below = [line for line in labkit("table", *too_long).out.splitlines() if line.startswith(f"{SINGLE}: ")]
    assert len(below) == 1 and "timed out: rank 0 hung" in below[0]


def test_results_that_cannot_be_kept(labkit: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "file" / "runs"))
    one_line(labkit("run", SINGLE, *SETS), 1, str(tmp_path / "file"), "LABKIT_RUNS")


def test_two_labs_on_one_row(labkit: Callable[..., Said], runs: Path) -> None:
    folder = runs / "quick+seed=9" / SINGLE / "1"
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        one_line(labkit("run", SINGLE, "--set", "seed=9"), 1, str(folder), "another labkit", "wait for it")


def test_interrupt_ends_all_processes_with_code_130(runs: Path) -> None:
    """As Ctrl-C on a terminal: the signal goes to every process of the job."""
    words = [*LABKIT, "run", DDP_GLOO, *SETS, "--set", "epochs=100000"]
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


# -- bench ------------------------------------------------------------------------------------------------------


def test_bench_is_called_with_its_words(labkit: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    from labkit import bench

    calls = []
    monkeypatch.setattr(bench, "main", lambda names, pairs: calls.append((names, pairs)))
    assert labkit("bench").code == labkit("bench", "startup", "floors", "--pairs", "2").code == 0
    assert calls == [([], 5), (["startup", "floors"], 2)]


# -- doctor -------------------------------------------------------------------------------------------------------------


def found(name: str) -> list[doctor.Finding]:
    return [finding for finding in doctor.examine() if finding.what == name]


def test_doctor_looks_at_everything(labkit: Callable[..., Said]) -> None:
    said = labkit("doctor", "--json")
    findings = json_lines(said.out)
    assert {finding["what"] for finding in findings} == {check.__name__.replace("_", " ") for check in doctor.CHECKS}
    assert all(set(finding) == {"level", "what", "text", "remedy"} for finding in findings)
    assert {finding["level"] for finding in findings} <= {"ok", "note", "problem"}
    assert said.code == any(finding["level"] == "problem" for finding in findings)
    assert not [finding for finding in findings if "could not be looked at" in finding["text"]]
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
        ("problem", "could not be looked at: ZeroDivisionError: some fault")
    ]


def test_small_shared_memory_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: Usage(32 * 2**20, 0, 32 * 2**20))
    ((level, text, remedy),) = doctor.shared_memory(tmp_path)
    assert level == "note" and "32 MiB free" in text and "--shm-size" in remedy
    ((level, text, remedy),) = doctor.shared_memory(tmp_path / "none")
    assert level == "note" and "loader_workers=0" in remedy


def test_container_limits_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**29}\n")
    (tmp_path / "memory.current").write_text(f"{2**28}\n")
    assert [finding[0] for finding in doctor.cores()] == ["note"] and "0.5 of them" in next(doctor.cores())[1]
    assert next(doctor.memory())[:2] == ("problem", "0.2 GiB free of 0.5")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert "container" not in next(doctor.cores())[1]


def test_data_sets_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from labkit import datasets

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
    code = "import time; from multiprocessing import forkserver; from labkit.launch import warm; warm()\n"
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
    finally:
        os.kill(server, signal.SIGKILL)
        launcher.kill()
        os.waitpid(server, 0)
