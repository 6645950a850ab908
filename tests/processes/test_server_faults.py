"""Fault drills with the fork server: stopped, interrupted, without its socket, or unable to start.

After each: no rank is left, and the next run of the same row works.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import psutil
import pytest

from labkit.processes import fork_server, launch
from labkit.runs.train import run_once
from tests.helpers import drill_targets as drill
from tests.helpers.drill_targets import SMALL, TAG, injected, wait_for


def server() -> int:
    return forkserver._forkserver._forkserver_pid


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fork server whose ranks can be told from everybody else's."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv(TAG, uuid.uuid4().hex)
    fork_server.end()
    fork_server.warm(wait=True)
    try:
        with drill.within(120):  # what a fault here breaks waits for ever
            yield tmp_path
        with drill.within(60):
            wait_for(lambda: not ranks(), 6, "every rank is gone")
            assert run_once(SMALL, "next").status == "ok", "the next run does not work"
    finally:
        fork_server.end()


def ranks() -> list[psutil.Process]:
    known = (os.getpid(), server(), resource_tracker._resource_tracker._pid)
    return [process for process in drill.family(os.environ[TAG]) if process.pid not in known]


def stop_once(fired: Path, also=lambda: None):
    """An `on_progress` that stops the fork server while rank 1 hangs."""
    sent: list[int] = []

    def look(_events) -> None:
        if fired.exists() and not sent:
            sent.append(server())
            os.kill(server(), signal.SIGSTOP)
            also()

    return look


def test_stopped_while_ranks_train(lab: Path) -> None:
    with injected("hang", [0, 1], lab / "fired"):
        outcome = run_once(SMALL.but(timeout_s=600.0, deadline_s=60.0), "stopped", on_progress=stop_once(lab / "fired"))
    assert (outcome.status, outcome.reason.partition(",")[0]) == ("failed", "the fork server was stopped by a signal")


def test_stopped_and_the_deadline_passes(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever became of the server: here nobody sees that it is stopped."""
    monkeypatch.setattr(fork_server, "is_stopped", lambda: False)
    before = server()
    with injected("hang", [0, 1], lab / "fired"):
        outcome = run_once(SMALL.but(timeout_s=600.0, deadline_s=8.0), "late", on_progress=stop_once(lab / "fired"))
    assert (lab / "fired").exists() and outcome.status == "timeout" and "deadline_s=8" in outcome.reason, outcome
    assert not psutil.pid_exists(before)


def test_stopped_and_an_interrupt(lab: Path) -> None:
    asked = []

    def interrupt() -> None:
        asked.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)

    with injected("hang", [0, 1], lab / "fired"), pytest.raises(KeyboardInterrupt):
        run_once(SMALL, "interrupted", on_progress=stop_once(lab / "fired", interrupt))
    assert asked and time.monotonic() - asked[0] < 15


def test_stopped_before_a_launch() -> None:
    before = server()
    os.kill(before, signal.SIGSTOP)
    assert run_once(SMALL, "before").status == "ok"
    assert server() != before and not psutil.pid_exists(before)


@pytest.mark.parametrize("interrupted", [False, True])
def test_stopped_while_it_is_asked_for_a_rank(monkeypatch: pytest.MonkeyPatch, interrupted: bool) -> None:
    stopped = []

    def warm_and_stop() -> None:
        fork_server.warm()
        os.kill(server(), signal.SIGSTOP)
        stopped.append(time.monotonic())
        if interrupted:
            signal.setitimer(signal.ITIMER_REAL, 0.5)

    was = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(launch, "warm", warm_and_stop)
            if interrupted:
                patch.setattr(fork_server, "is_stopped", lambda: False)  # the interrupt alone must end the wait
                with pytest.raises(KeyboardInterrupt):
                    run_once(SMALL, "asked")
                assert time.monotonic() - stopped[0] < 15
            else:
                outcome = run_once(SMALL, "asked")
                assert outcome.status == "failed" and "was stopped by a signal, and was ended" in outcome.reason, outcome
    finally:
        signal.signal(signal.SIGALRM, was)


def test_an_interrupt_of_the_server_is_none_of_its_business(lab: Path) -> None:
    before, sent = server(), []

    def interrupt(_events) -> None:
        if not sent:
            sent.append(os.kill(before, signal.SIGINT))

    assert run_once(SMALL, "run", on_progress=interrupt).status == "ok" and sent
    os.kill(before, signal.SIGINT)
    assert run_once(SMALL, "again").status == "ok" and server() == before


def test_an_interrupt_while_the_server_imports_torch(lab: Path) -> None:
    """The standard library's server ignores one only when its imports are over."""
    fork_server.end()
    fork_server.warm()
    before = server()
    wait_for(lambda: "preload" in " ".join(psutil.Process(before).cmdline()), 10, "it is another program")
    time.sleep(0.2)
    os.kill(before, signal.SIGINT)
    assert run_once(SMALL, "early").status == "ok" and server() == before


def test_its_socket_is_removed() -> None:
    """As programs do that clear /tmp."""
    before = server()
    os.unlink(forkserver._forkserver._forkserver_address)
    assert run_once(SMALL, "socket").status == "ok"
    assert server() != before
