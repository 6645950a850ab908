"""The fork server: one process that has imported torch, of which every rank is a fork.

It is the standard library's. Ranks are forks of it and not of the launching process: a kernel or a test runner has threads that
a fork would not survive. A batch lends its own to the kernels of its notebooks, one after the other: a kernel that starts
one waits three seconds for it. The library knows no lending, so `_borrow` sets what `ensure_running` would (Python 3.11 to 3.13).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from labkit.processes.diagnose import RunFailed
from labkit.processes.digest import code_digest
from labkit.system.tuning import settings_mark

PRELOAD = ["labkit.engine.worker", "labkit.processes.launch"]
LENT = "LABKIT_FORK_SERVER"  # the address of a fork server that may be used, and the digest of the code that it has imported
_server: Any = forkserver._forkserver
_starting = threading.Lock()
_imported = ""  # the digest of the code that the fork server has imported


def warm(wait: bool = False) -> None:
    """Start the fork server, so that it imports torch while the caller does something else; `wait` until it has.

    One that imported the code before a file of it was edited is replaced: a student's change counts from the next run on. So is
    one that was started with other settings of torch in its environment, which its forks inherit.
    """
    global _imported
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking for CUDA any other way would spoil it for forks
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with without_main():
        if _imported != (now := code_digest() + settings_mark()) and not multiprocessing.active_children():
            if not _give_back():
                _server._stop()
            _imported = now
            _borrow(now)
        # The server keeps this mask for life, and so do its ranks: an interrupt of the kernel's process group is not theirs.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            _server.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        if wait:
            first = context.Process(target=os.getpid)
            start(first)
            first.join()


def start(process: Any) -> None:
    """Start a process as a fork of the server. Raises RunFailed if there is none any more; the next `warm` starts another."""
    try:
        process.start()
    except (EOFError, ConnectionError, FileNotFoundError) as error:
        _give_back()
        reason = "the fork server ended while it started a process; what it said stands above, or in the terminal; run again"
        raise RunFailed("failed", 0, reason) from error


@contextmanager
def without_main() -> Iterator[None]:
    """Hide `__main__`: multiprocessing would run the caller's script again in every rank, and a rank needs only labkit."""
    with _starting:
        main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def lend() -> dict[str, str]:
    """Start the fork server, and return the environment in which a child process uses it instead of one of its own.

    Its forks end with this process. With the child they end only if they can see it go: whoever lends ends the rest (`forks`).
    """
    warm()
    return {LENT: f"{_imported}:{_server._forkserver_address}"}


def forks() -> list[Any]:
    """The processes (psutil) that the fork server has forked and that live, and theirs."""
    import psutil

    try:
        return psutil.Process(_server._forkserver_pid).children(recursive=True) if _server._forkserver_pid else []
    except psutil.NoSuchProcess:
        return []


def _borrow(code: str) -> None:
    """Use the fork server that was lent, if there is one and it has imported this code."""
    lent_code, _, address = os.environ.get(LENT, "").partition(":")
    if lent_code == code and Path(address).exists() and sys.version_info < (3, 14):
        _server._forkserver_address = address
        _server._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)  # what keeps a server alive is its lender's alone
        _server.ensure_running = resource_tracker.ensure_running


def _give_back() -> bool:
    """Use a borrowed fork server no longer. False: it was not borrowed."""
    if "ensure_running" not in vars(_server):
        return False
    os.environ.pop(LENT, None)
    os.close(_server._forkserver_alive_fd)
    _server._forkserver_address = _server._forkserver_alive_fd = None
    del _server.ensure_running
    return True
