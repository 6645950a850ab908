"""The fork server's start: what it says when it cannot, where its socket lies, and that it goes with its launcher."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest

from labkit.processes import fork_server
from labkit.processes.diagnose import RankView, RunFailed, diagnose
from labkit.processes.launch import in_a_rank
from labkit.system import errors, temporary
from labkit.system.temporary import own_folder
from tests.helpers import drill_targets as drill
from tests.helpers.command_line import LABKIT, SINGLE
from tests.helpers.drill_targets import ROOT, TAG, wait_for

TINY = ["--profile", "tiny", "--set", "epochs=1", "--set", "device=cpu"]


def lab(folder: Path, *words: str, before: str = "", **env: str) -> subprocess.CompletedProcess:
    """The command line in a shell, after a line `before`."""
    line = f'{before}\nexec "$@"'
    env = {**os.environ, "LABKIT_RUNS": str(folder / "runs"), **env}
    return subprocess.run(
        ["bash", "-c", line, "-", *LABKIT, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=200
    )


# -- limits ------------------------------------------------------------------------------------------------------------------


def test_too_little_address_space_is_told(tmp_path: Path) -> None:
    done = lab(tmp_path, "run", SINGLE, *TINY, before="ulimit -v 1000000")
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout, done.stderr
    assert "a limit of this process is too low: address space (ulimit -v, here 1000000 KiB)" in done.stdout + done.stderr, done


def test_too_few_open_files_are_told(tmp_path: Path) -> None:
    done = lab(tmp_path, "run", SINGLE, *TINY, before="ulimit -n 14")
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout, done.stderr
    assert "limit" in done.stdout + done.stderr and "ulimit -n" in done.stdout + done.stderr, done


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("RuntimeError: can't start new thread", "ulimit -u, here 17"),
        ("[Errno 11] Resource temporarily unavailable", "ulimit -u, here 17"),
        ("[Errno 24] Too many open files", "ulimit -n, here 17"),
        ("ImportError: libtorch_cpu.so: failed to map segment from shared object", "ulimit -v, here 1 KiB"),
    ],
)
def test_the_limit_behind_an_error_is_named(monkeypatch: pytest.MonkeyPatch, text: str, kind: str) -> None:
    values = {resource.RLIMIT_AS: 1024}
    monkeypatch.setattr(errors.resource, "getrlimit", lambda what: (values.get(what, 17), 0))
    assert kind in errors.limit_behind(text) and "limit" in errors.limit_behind(text)
    assert errors.limit_behind("ValueError: picture 17") == ""
    monkeypatch.setattr(errors.resource, "getrlimit", lambda what: (resource.RLIM_INFINITY, 0))
    assert errors.limit_behind(text) == ""


LIMITED = r" \(a limit of this process is too low: .*ulimit -u, here 17"


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Says that this process has limits of 17; to be given one would need another user than root."""
    monkeypatch.setattr(errors.resource, "getrlimit", lambda what: (17, 17))


def test_the_limit_is_named_where_the_server_cannot_be_started(limited: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(fork_server._server, "ensure_running", refuse)
    with pytest.raises(RunFailed, match=rf"^the fork server could not be started: .* unavailable{LIMITED}.*; run again$"):
        fork_server.warm()


def test_the_limit_is_named_where_a_rank_left_only_its_log(limited: None, tmp_path: Path) -> None:
    """As one that ends before its first line of Python: what it said last stands in the reason, and so does the limit behind it."""
    (tmp_path / "log").write_text("first\nOpenBLAS: pthread_create failed for thread 3 of 4\n")
    event = {"phase": "start", "epoch": 0, "step": 0}
    told = diagnose([RankView(0, 2**22 + 1, 1, None, None, event, tmp_path / "log")], 20.0, None)
    assert re.search(rf"^rank 0 left with exit code 1, .*; it said: OpenBLAS: pthread_create .* of 4{LIMITED}", told.reason), (
        told.reason
    )


def no_fork() -> int:
    raise BlockingIOError(11, "Resource temporarily unavailable")


def test_what_the_server_said_last_is_in_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies when it may fork no more; no limit can be set for root, so the fork is taken from it."""
    preload = tmp_path / "takes_the_fork.py"
    preload.write_text("import os\nfrom tests.processes.test_server_start import no_fork\nos.fork = no_fork\n")
    monkeypatch.setattr(fork_server, "PRELOAD", [*fork_server.PRELOAD, "takes_the_fork"])
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    fork_server.end()
    try:
        with pytest.raises(
            RunFailed, match=r"ended while it started a process: BlockingIOError: .* Resource temporarily unavailable"
        ):
            fork_server.warm(wait=True)
    finally:
        monkeypatch.undo()
        fork_server.end()
    assert in_a_rank("tests.processes.test_server_start:number") > 0, "the next one works"


def number(**_: object) -> int:
    return os.getpid()


def test_a_failure_while_it_warms_up_is_one_line(capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, labkit) -> None:
    def fails(wait: bool = False) -> None:
        raise RunFailed("failed", 0, "the fork server could not be started: planted; run again")

    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    monkeypatch.setattr(fork_server, "warm", fails)
    said = labkit("run", SINGLE, *TINY)
    assert said.code == 1 and said.err == "labkit: the fork server could not be started: planted; run again\n"


# -- a run that is refused -----------------------------------------------------------------------------------------------------


def test_a_refused_run_leaves_no_server() -> None:
    """It ends, for whatever reason, while the fork server imports torch."""
    tag = uuid.uuid4().hex
    code = "from labkit.processes.fork_server import warm; warm(); raise SystemExit('refused')"
    env = {**os.environ, TAG: tag}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "refused"
    servers = [process for process in drill.family(tag) if "forkserver" in " ".join(process.cmdline())]
    assert servers == [], "it goes on importing torch"
    wait_for(lambda: not drill.family(tag), 6, "its resource tracker is gone, too")


# -- temporary files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("characters", [60, 78, 120, 200])
def test_a_long_tmpdir(tmp_path: Path, characters: int) -> None:
    """A path of a socket has at most 107 characters."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        folder = Path(short, "x" * (characters - len(short) - 1))
        folder.mkdir()
        done = lab(tmp_path, "run", SINGLE, *TINY, "--set", "loader_workers=2", "--json", TMPDIR=str(folder))
        assert done.returncode == 0 and '"status": "ok"' in done.stdout, done
        assert list(folder.iterdir()) == [], "nothing is left"


def test_a_tmpdir_that_is_too_long_and_no_other_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 90)
    monkeypatch.setattr(temporary.os, "access", lambda *_: False)
    monkeypatch.setattr(temporary, "_own", None)
    with pytest.raises(OSError, match=r"TMPDIR=/xxx.*: has 91 characters, and a socket's path allows \d+; set TMPDIR"):
        own_folder()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """An empty folder whose path is short enough for a socket in it; `tmp_path` can be too long."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_the_folder_of_a_killed_process_is_cleared_by_the_next(short_folder: Path) -> None:
    """Of a launcher that was killed, with its fork server: folder, socket and log. One whose owner lives stays."""
    code = "import os, signal; from labkit.processes.fork_server import warm; warm(wait=True); print('up', flush=True); {}"
    env = {**os.environ, "TMPDIR": str(short_folder)}

    def start(end: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", code.format(end)], cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    lives = start("input()")
    lives.stdout.readline()
    [kept] = short_folder.iterdir()
    start("os.kill(os.getpid(), signal.SIGKILL)").wait(60)
    [left] = [folder for folder in short_folder.iterdir() if folder != kept]
    assert (left / "fork_server.log").exists() and any(path.is_socket() for path in left.iterdir())
    start("").wait(60)
    assert list(short_folder.iterdir()) == [kept]
    lives.communicate(b"\n", timeout=60)
    assert list(short_folder.iterdir()) == []


def test_a_folder_without_an_owner_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "labkit-theirs").mkdir()
    (tmp_path / "labkit-held").mkdir()
    with open(tmp_path / "labkit-held/owner", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        temporary._clear_abandoned(str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2
    temporary._clear_abandoned(str(tmp_path))
    assert [folder.name for folder in tmp_path.iterdir()] == ["labkit-theirs"]


def test_the_socket_lies_in_this_process_s_folder() -> None:
    fork_server.end()
    fork_server.warm()
    assert Path(forkserver._forkserver._forkserver_address).exists()
    assert (own_folder() / "owner").exists()
