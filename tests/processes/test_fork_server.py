"""The fork server: when there is another one, and what a process may do with one that was lent to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest

from labkit.batch import processes as batch_processes
from labkit.processes import fork_server
from labkit.processes.launch import in_a_rank
from tests.helpers.drill_targets import wait_for

ROOT = Path(__file__).parents[2]
ASKS = """
import os, psutil
from labkit.processes.diagnose import RunFailed
from labkit.processes.launch import in_a_rank
def ask(): print("server", in_a_rank("tests.processes.test_fork_server:parent"), flush=True)
def servers(): return sum("forkserver" in " ".join(one.cmdline()) for one in psutil.Process().children())
ask()
"""


def parent(**_: object) -> int:
    return os.getppid()


def stop(**_: object) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def borrower(code: str, **lent: str) -> subprocess.Popen:
    words = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-c", ASKS + code], cwd=ROOT, env={**os.environ, **lent}, **words)  # type: ignore[call-overload]


@pytest.fixture
def server() -> int:
    fork_server.warm(wait=True)
    return forkserver._forkserver._forkserver_pid


def test_the_server_is_replaced_when_the_code_changed_and_only_then(monkeypatch: pytest.MonkeyPatch, server: int) -> None:
    fork_server.warm(wait=True)
    assert forkserver._forkserver._forkserver_pid == server
    monkeypatch.setattr(fork_server, "code_digest", lambda: "edited")
    fork_server.warm(wait=True)
    assert forkserver._forkserver._forkserver_pid != server


def test_a_lent_server_is_used_and_stays(server: int) -> None:
    said, _ = borrower("ask(); print(servers())", **fork_server.lend()).communicate(timeout=60)
    assert said.split() == ["server", str(server), "server", str(server), "0"], said
    assert in_a_rank("tests.processes.test_fork_server:parent") == server, "it ended with its borrower"


@pytest.mark.parametrize("lent", ["", "other code:{address}", "{code}:/no/such/socket"])
def test_what_cannot_be_borrowed_is_not(server: int, lent: str) -> None:
    code, _, address = fork_server.lend()[fork_server.LENT].partition(":")
    said, _ = borrower("print(servers())", **{fork_server.LENT: lent.format(code=code, address=address)}).communicate(timeout=60)
    word, other, own = said.split()
    assert word == "server" and int(other) != server and own == "1"


def test_edited_code_is_not_left_to_a_lent_server(server: int) -> None:
    edit = "from labkit.processes import fork_server; fork_server.code_digest = lambda: 'edited'; ask(); print(servers())"
    said, _ = borrower(edit, **fork_server.lend()).communicate(timeout=60)
    _, first, _, second, own = said.split()
    assert int(first) == server != int(second) and own == "1"


def test_a_lent_server_dies(server: int) -> None:
    """The run that meets it fails and says why, the next has a server of its own; the lender starts another."""
    again = "input()\ntry: ask()\nexcept RunFailed as failed: print(failed.reason)\nask(); print(servers())"
    process = borrower(again, **fork_server.lend())
    assert process.stdout is not None and process.stdout.readline() == f"server {server}\n"
    psutil.Process(server).kill()
    wait_for(lambda: not psutil.pid_exists(server) or psutil.Process(server).status() == psutil.STATUS_ZOMBIE, 6, "it is dead")
    said, _ = process.communicate("\n", timeout=60)
    reason, own, count = said.splitlines()
    assert reason.startswith("the fork server ended") and own.startswith("server ") and count == "1", said
    assert int(own.split()[1]) != server != in_a_rank("tests.processes.test_fork_server:parent")


def test_a_rank_that_is_stopped_is_ended_with_its_borrower(server: int) -> None:
    """Stopped, it cannot see that the process which asked for it is gone: the lender has to look."""
    process = borrower("in_a_rank('tests.processes.test_fork_server:stop')", **fork_server.lend())
    wait_for(lambda: any(one.status() == psutil.STATUS_STOPPED for one in fork_server.forks()), 60, "the rank is stopped")
    process.kill()
    process.wait()
    batch_processes.end_family("nobody", patience_s=0)
    assert fork_server.forks() == []
