"""The processes of the notebooks in a batch: start them, watch them, and leave none behind, whatever happens.

The child (`labkit.batch.child`) has a kernel, which has a fork server, which has ranks. All carry a tag in their environment: by it
they are found and ended even if those in between are gone.
"""

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

import psutil

from labkit.processes.supervise import Watched
from labkit.system.errors import killed_by
from labkit.system.places import helper_environment
from labkit.system.temporary import own_folder

TAG = "LABKIT_BATCH"
LOOK_S = 0.1  # how often we look at a child
TELL_S = 1.0  # how often a caller hears that a notebook is under way
LEAVE_S = 3.0  # for processes that are about to end by themselves
END_S = 10.0  # for processes that were killed


def run_child(job: dict[str, Any], log: Path, deadline_s: float, notify: Callable[[int, float], None]) -> tuple[str, str]:
    """Run `labkit.batch.child` on a job, and return the notebook's status and the reason for it.

    What the processes print goes to `log`. `notify(cell, seconds)` is called every second. On every way out no process is left,
    nor any temporary file of theirs."""
    tag, scratch = uuid.uuid4().hex, Path(tempfile.mkdtemp(dir=own_folder()))
    job |= {"events": str(scratch / "events"), "parent": os.getpid()}
    own = {TAG: tag, "TMPDIR": str(scratch), "JUPYTER_RUNTIME_DIR": str(scratch / "jupyter"), "LABKIT_WIDGETS": "0"}
    command = [sys.executable, "-m", "labkit.batch.child", json.dumps(job)]
    try:
        with open(log, "wb") as out:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **helper_environment(), **own}
            )
        try:
            return watch(child, scratch / "events", log, deadline_s, notify)
        finally:
            end_family(tag, patience_s=0 if child.poll() is None else LEAVE_S)
            child.wait()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def watch(child: subprocess.Popen, events: Path, log: Path, deadline_s: float, notify: Callable) -> tuple[str, str]:
    """Wait for a child, and return (status, reason). `notify(cell, seconds)` is called every second."""
    watched, told_at = Watched(), -TELL_S  # a pause of all processes is not the notebook's
    while True:
        try:
            code = child.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            code = None
        event, seconds = last_event(events), watched.look()
        if code is not None:
            return (event["status"], event["reason"]) if "status" in event else ended(code, log)
        if seconds > deadline_s:
            return "timeout", f"in cell {event.get('cell', 0)}: the notebook took more than {deadline_s:g} s"
        if seconds - told_at >= TELL_S:
            told_at = seconds
            notify(event.get("cell", 0), seconds)


def last_event(events: Path) -> dict[str, Any]:
    """The last whole line that the child wrote."""
    lines = events.read_bytes().rpartition(b"\n")[0].splitlines() if events.exists() else []
    return json.loads(lines[-1]) if lines else {}


def ended(code: int, log: Path) -> tuple[str, str]:
    """What it means that a child ended without a last event."""
    if code == -signal.SIGTERM:
        return "interrupted", "the notebook's process was ended by SIGTERM"
    if code < 0:
        return "failed", f"the notebook's process was {killed_by(code)}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [f"exit code {code}"]
    return "failed", f"the notebook's process failed: {lines[-1]} (more in {log.name})"


def end_family(tag: str, patience_s: float) -> None:
    """Kill every process that carries the tag, whoever its parent is by now, after they had `patience_s` to leave by themselves."""
    began = time.monotonic()
    while processes := family(tag):
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
    """SIGTERM does what Ctrl-C does. Outside the main thread nothing changes: Python allows no handlers there."""
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
