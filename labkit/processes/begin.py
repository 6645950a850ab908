"""The beginning and the end of a rank's process. It loads no torch, so that a rank whose torch cannot be loaded can say so."""

import contextlib
import faulthandler
import os
import signal
import sys
import time
import traceback
from typing import Any

from labkit.engine.job import Job
from labkit.system.errors import blame
from labkit.system.files import write_json
from labkit.system.lifeline import end_with_parent

# How gloo and NCCL say that a peer is gone or silent: a plain RuntimeError, told from others by its words alone.
LOST_PEER_WORDS = ("gloo", "nccl", "timeout", "timed out", "by peer", "connection", "broken pipe", "socket", "pair closure")
MESSAGE_CHARACTERS = 2_000
TRACEBACK_CHARACTERS = 20_000
IMPORTED_BY = os.getpid()  # of the fork server, if it has imported this module; its forks inherit the number


def begin(job: Job, rank: int) -> None:
    """What a rank is forked for. Leaves rank<r>.json (what the target returned) or rank<r>.error.json, never both."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher decides what an interrupt means, and ends us
    end_with_parent(IMPORTED_BY if os.getpid() != IMPORTED_BY else None)
    log = open(job.folder / f"logs/rank{rank}.log", "a", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - for life
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    faulthandler.enable(log)
    faulthandler.register(signal.SIGUSR1, log, all_threads=True)
    try:
        try:
            from labkit.engine.worker import rank_main  # with it torch
        except Exception as error:
            raise ImportError(blame(error)) from error
        rank_main(job, rank)
    except BaseException as error:
        with contextlib.suppress(Exception):  # an exception can be such that even its traceback cannot be printed
            traceback.print_exc()
        with contextlib.suppress(OSError):  # the disk is full: the log, or the exit code, is all there is
            write_json(job.folder / f"scratch/rank{rank}.error.json", describe(error))
        leave(1)
    leave(0)


def leave(code: int) -> None:
    """End this process at once: threads that wait for a lost peer must not keep a finished rank."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as plain data, whatever its class and message are.

    error       class and message, cut to MESSAGE_CHARACTERS
    at          seconds of the monotonic clock, which all processes of a host share: who failed first
    oom         memory ran out
    lost_peer   it only says that another rank did not answer"""
    classes = [one.__name__ for one in type(error).__mro__]
    message = readable(lambda: str(error), MESSAGE_CHARACTERS)
    lowered = message.lower()
    memory = bool({"MemoryError", "OutOfMemoryError"} & set(classes)) or "can't allocate memory" in lowered
    says_so = type(error) is RuntimeError and any(word in lowered for word in LOST_PEER_WORDS)
    return {
        "at": time.monotonic(),
        "error": f"{classes[0]}: {message}" if message.strip() else f"{classes[0]} (without a message)",
        "traceback": readable(lambda: "".join(traceback.format_exception(error)), TRACEBACK_CHARACTERS),
        "oom": memory,
        "lost_peer": (says_so or "DistError" in classes) and not memory,
    }


def readable(make: Any, most: int) -> str:
    """A text that can be written to a file: its middle is cut out if it is long, and what is no character is spelt out."""
    try:
        text = str(make())
    except Exception as error:
        return f"(cannot be read: {type(error).__name__})"
    if len(text) > most:
        text = f"{text[: most // 2]} [... {len(text) - most} characters ...] {text[-most // 2 :]}"
    return text.encode("utf-8", "backslashreplace").decode()
