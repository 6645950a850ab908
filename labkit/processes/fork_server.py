"""The fork server: one process that has imported torch, of which every rank is a fork.

It is the standard library's. Ranks are forks of it and not of the launching process: a kernel or a test runner has threads that
a fork would not survive.

    launcher (kernel, command line)         fork server                    rank
        warm()  ------ starts ------------->  imports torch, seconds
        start() ------ asks, by a socket -->  forks --------------------->  begin()
                <----- number of the rank --
                <----- exit code ------------ waits for its forks <-------  ends

The library waits for the server's answers without end. A server that was stopped by a signal gives none, so every wait here has
a second look at the server. Ending the server always helps: its end of each pipe closes, and its ranks end with it (lifeline.py).
"""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil

from labkit.processes.diagnose import RunFailed
from labkit.processes.digest import code_digest
from labkit.system.errors import limit_behind
from labkit.system.places import helper_environment, helper_path
from labkit.system.temporary import LONGEST_SOCKET_PATH, own_folder
from labkit.system.tuning import settings_mark, waiting_settings

PRELOAD = ["labkit.processes.preload"]
LOG = "LABKIT_SERVER_LOG"  # where the fork server is to write what it says
LOOK_S = 0.1
STOPPED_S = 5.0  # a server that is stopped this long will not go on: after a pause of all processes it runs again at once
_server: Any = forkserver._forkserver
_starting = threading.RLock()
_imported = ""  # the digest of the code that the fork server has imported


def warm(wait: bool = False) -> None:
    """Start the fork server, so that it imports torch while the caller does something else; `wait` until it has.

    One that imported the code before a file of it was edited is replaced: a student's change counts from the next run on. So is
    one that was stopped, whose socket somebody removed, or that was started with other settings of torch in its environment,
    which its forks inherit. Raises RunFailed if it cannot be started."""
    global _imported
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking for CUDA any other way would spoil it for forks
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with without_main():
        edited = _imported != (now := code_digest() + settings_mark()) and not multiprocessing.active_children()
        if edited or is_stopped() or (_server._forkserver_address and not Path(_server._forkserver_address).exists()):
            end()
            _imported = now
        with _surroundings():
            try:
                _server.ensure_running()
            except OSError as error:
                raise _failed(f"could not be started: {error}") from error
        atexit.unregister(_end_at_exit)
        atexit.register(_end_at_exit, os.getpid())
    if wait:
        first = context.Process(target=os.getpid)
        start(first)
        first.join(STOPPED_S)


def start(process: Any, give_up: Callable[[], bool] = lambda: False) -> None:
    """Start a process as a fork of the server, which may first have to import torch.

    `give_up` is asked ten times a second. Raises RunFailed if it says so, if the server was stopped, or if it ended; the
    next `warm` then starts another one."""
    over, why = threading.Event(), []
    watcher = threading.Thread(target=_watch_start, args=(over, why, give_up), daemon=True)
    try:
        watcher.start()
        with without_main():
            process.start()
    except (EOFError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "thread" not in str(error):
            raise
        cause = why[0] if why else f"ended while it started a process: {_last_words() or error}"
        end()
        raise _failed(cause) from error
    finally:
        over.set()


def _watch_start(over: threading.Event, why: list[str], give_up: Callable[[], bool]) -> None:
    """While the main thread waits for the server: end the server if it will not answer. The wait is over with it."""
    pid, stopped = _server._forkserver_pid, 0
    while not over.wait(LOOK_S):
        stopped = stopped + 1 if is_stopped() else 0
        if stopped * LOOK_S >= STOPPED_S:
            why.append(f"(process {pid}) was stopped by a signal, and was ended")
        elif give_up():
            why.append("did not start a process in time, and was ended")
        if why:
            with suppress(ProcessLookupError, TypeError):
                os.kill(_server._forkserver_pid, signal.SIGKILL)
            return


def is_stopped() -> bool:
    """Was the fork server stopped by a signal, so that it neither forks nor tells how ranks end?"""
    try:
        return bool(_server._forkserver_pid) and psutil.Process(_server._forkserver_pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def end() -> None:
    """End the fork server, if there is one, and with it every rank that lives. The next `warm` starts another one."""
    if _server._forkserver_pid is None:
        return
    with suppress(ProcessLookupError):
        os.kill(_server._forkserver_pid, signal.SIGKILL)
    try:
        _server._stop()
    except (FileNotFoundError, ChildProcessError):  # its socket was removed, or somebody else has waited for it
        _server._forkserver_pid = _server._forkserver_address = None


def _end_at_exit(launcher: int) -> None:
    """End the server when this process ends; otherwise it would go on importing torch for seconds after a run that was refused at
    once."""
    if os.getpid() == launcher:  # not a fork of it
        end()


def _failed(what: str) -> RunFailed:
    return RunFailed("failed", 0, f"the fork server {what}{limit_behind(what)}; run again")


def _last_words() -> str:
    """The last line that the fork server wrote."""
    log = own_folder() / "fork_server.log"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else ""


@contextmanager
def _surroundings() -> Iterator[None]:
    """What the fork server gets from this process and keeps for life, and so do its ranks."""
    folder = own_folder()
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    if len(config.get("tempdir") or LONGEST_SOCKET_PATH * "x") + len("/listener-12345678") > LONGEST_SOCKET_PATH:
        config["tempdir"] = str(folder)  # where multiprocessing puts sockets
    given = helper_environment() | waiting_settings() | {LOG: str(folder / "fork_server.log")}
    before = {key: os.environ.get(key) for key in given}
    # An interrupt goes to the kernel's whole process group, and is not theirs: it is blocked.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        (folder / "fork_server.log").unlink(missing_ok=True)
        os.environ.update(given)
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


@contextmanager
def without_main() -> Iterator[None]:
    """Hide `__main__`: multiprocessing would run the caller's script again in every rank, and a rank needs only labkit. And let
    processes that start here look for modules in the current folder last."""
    with _starting:
        main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
        path, sys.path = sys.path, helper_path()
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            sys.path = path
