"""The fork server: one process that has imported torch, of which every rank is a fork.

It is the standard library's. Ranks are forks of it and not of the launching process: a kernel or a test runner has threads that
a fork would not survive.
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
from multiprocessing import forkserver
from typing import Any

from labkit.processes.diagnose import RunFailed
from labkit.processes.digest import code_digest

PRELOAD = ["labkit.engine.worker", "labkit.processes.launch"]
_server: Any = forkserver._forkserver
_starting = threading.Lock()
_imported = ""  # the digest of the code that the fork server has imported


def warm(wait: bool = False) -> None:
    """Start the fork server, so that it imports torch while the caller does something else; `wait` until it has.

    One that imported the code before a file of it was edited is replaced: a student's change counts from the next run on.
    """
    global _imported
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking for CUDA any other way would spoil it for forks
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with without_main():
        if _imported != (now := code_digest()) and not multiprocessing.active_children():
            _server._stop()
            _imported = now
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
