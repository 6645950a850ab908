"""The processes of one notebook in a batch: start them, watch them, and leave none behind, whatever happens.

The child (`labkit.batch_one`) has a kernel, which has a fork server, which has ranks. All carry a tag in their environment: by it
they are found and ended even if those in between are gone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.fork_server import forks

TAG = "LABKIT_BATCH"
TELL_S = 1.0  # how often a caller hears that a notebook is under way
LEAVE_S = 3.0  # for processes that are about to end by themselves
END_S = 10.0  # for processes that were killed


def run_child(
    job: dict[str, Any], log: Path, deadline_s: float, lent: dict[str, str], notify: Callable[[int, float], None]
) -> tuple[str, str]:
    """Run `labkit.batch_one` on a job, and return status and reason. `notify(cell, seconds)` is called every second.

    What the processes print goes to `log`; their temporary files go with them. No process is left on any way out. `lent`: the
    environment by which they find our fork server, if they are to use it.
    """
    tag, child = uuid.uuid4().hex, None
    scratch = Path(tempfile.mkdtemp(prefix="labkit-"))
    try:
        child = start(job | {"events": str(scratch / "events"), "parent": os.getpid()}, log, scratch, {TAG: tag, **lent})
        return watch(child, scratch / "events", log, deadline_s, notify)
    finally:
        end_family(tag, patience_s=0 if child is None or child.poll() is None else LEAVE_S)
        if child is not None:
            child.wait()
        shutil.rmtree(scratch, ignore_errors=True)


def start(job: dict[str, Any], log: Path, scratch: Path, own: dict[str, str]) -> subprocess.Popen:
    own |= {"TMPDIR": str(scratch), "JUPYTER_RUNTIME_DIR": str(scratch / "jupyter"), "LABKIT_WIDGETS": "0"}
    command = [sys.executable, "-m", "labkit.batch_one", json.dumps(job)]
    with open(log, "wb") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, **own})


def watch(child: subprocess.Popen, events: Path, log: Path, deadline_s: float, notify: Callable) -> tuple[str, str]:
    began = time.monotonic()
    while True:
        try:
            code = child.wait(TELL_S)
        except subprocess.TimeoutExpired:
            code = None
        told, seconds = last_event(events), time.monotonic() - began
        if code is not None:
            return (told["status"], told["reason"]) if "status" in told else ended(code, log)
        if seconds > deadline_s:
            return "timeout", f"in cell {told.get('cell', 0)}: the notebook took more than {deadline_s:g} s"
        notify(told.get("cell", 0), seconds)


def last_event(events: Path) -> dict[str, Any]:
    """The last whole line that the child wrote."""
    lines = events.read_bytes().rpartition(b"\n")[0].splitlines() if events.exists() else []
    return json.loads(lines[-1]) if lines else {}


def ended(code: int, log: Path) -> tuple[str, str]:
    """What it means that a child ended without a last event."""
    if code == -signal.SIGTERM:
        return "interrupted", "the notebook's process was ended by SIGTERM"
    if code < 0:
        memory = " (out of memory?)" if code == -signal.SIGKILL else ""
        return "failed", f"the notebook's process was killed by {signal.Signals(-code).name}{memory}"
    lines = log.read_text(errors="replace").strip().splitlines() or [f"exit code {code}"]
    return "failed", f"the notebook's process failed: {lines[-1]} (more in {log.name})"


def end_family(tag: str, patience_s: float) -> None:
    """Kill every process that carries the tag, whoever its parent is by now, and every fork of our fork server (its tag is not
    the child's), after they had `patience_s` to leave by themselves."""
    began = time.monotonic()
    while processes := family(tag) + forks():
        waited = time.monotonic() - began
        if waited > patience_s + END_S:
            raise OSError(
                f"processes {[process.pid for process in processes]} are still there after SIGKILL; look at them with `ps`"
            )
        if waited >= patience_s:
            for process in processes:
                process.kill()  # psutil kills no other process that got the number meanwhile
        time.sleep(0.05)


def family(tag: str) -> list[Any]:
    """Every living process that carries the tag in the environment it was started with."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(TAG) == tag:
                found.append(process)
        except psutil.Error:  # gone meanwhile, or somebody else's
            continue
    return found


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does. Outside the main thread, where Python allows no handlers, it does what it did."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt("SIGTERM")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
