"""The processes of the notebooks in a batch: start them, watch them, and leave none behind, whatever happens.

The child (`labkit.batch.child`) has a kernel, which has a fork server, which has ranks. All carry a tag in their environment: by it
they are found and ended even if those in between are gone.
"""

from __future__ import annotations

import json
import math
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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from labkit.processes.fork_server import forks
from labkit.runs.folders import QUIET

TAG = "LABKIT_BATCH"
LOOK_S = 0.1  # how often we look at a child
TELL_S = 1.0  # how often a caller hears that a notebook is under way
LEAVE_S = 3.0  # for processes that are about to end by themselves
END_S = 10.0  # for processes that were killed


class Child:
    """The process of one notebook, which gets ready before it is told which. `folder`: of the executed notebooks."""

    def __init__(self, cwd: str, folder: Path, lent: dict[str, str]):
        self.tag, self.lent = uuid.uuid4().hex, lent
        self.draft_log = folder / f".{self.tag}.log"
        self.scratch = Path(tempfile.mkdtemp(prefix="labkit-"))
        self.events = self.scratch / "events"
        own = {TAG: self.tag, QUIET: str(folder / ".quiet"), "TMPDIR": str(self.scratch), "LABKIT_WIDGETS": "0"}
        own |= {"JUPYTER_RUNTIME_DIR": str(self.scratch / "jupyter"), **lent}
        start = json.dumps({"events": str(self.events), "parent": os.getpid(), "cwd": cwd})
        command = [sys.executable, "-m", "labkit.batch.child", start]
        with open(self.draft_log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env={**os.environ, **own})

    def begin(self, job: dict[str, Any], log: Path) -> None:
        """Hand the job over. What the processes print, and printed, goes to `log`."""
        self.draft_log.rename(log)
        assert self.process.stdin
        with suppress(BrokenPipeError), self.process.stdin as line:  # it is gone: whoever watches will see
            line.write(json.dumps(job).encode() + b"\n")

    def end(self) -> None:
        """Leave no process, and no temporary file."""
        end_family(self.tag, patience_s=0 if self.process.poll() is None else LEAVE_S)
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        self.draft_log.unlink(missing_ok=True)
        shutil.rmtree(self.scratch, ignore_errors=True)


class Children:
    """One child after the other. The next may start while one is at work, and then waits until it is needed."""

    def __init__(self, cwd: str, folder: Path):
        self.cwd, self.folder = cwd, folder
        self.ready: Child | None = None

    def __enter__(self) -> Children:
        for log in self.folder.glob(".*.log"):  # of a batch that was killed
            log.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        if self.ready:
            self.ready.end()

    def run(
        self,
        job: dict[str, Any],
        log: Path,
        deadline_s: float,
        lent: dict[str, str],
        notify: Callable[[int, float], None],
        next_from: float = math.inf,
    ) -> tuple[str, str]:
        """Run `labkit.batch.child` on a job, and return status and reason. `notify(cell, seconds)` is called every second.

        The processes' temporary files go with them. No process is left on any way out, but for the next child: it starts when
        cell `next_from` does. `lent`: the environment by which they find our fork server, if they are to use it.
        """

        told = 0

        def heard(cell: int, seconds: float) -> None:
            nonlocal told
            if cell >= next_from and not self.ready:
                self.ready = Child(self.cwd, self.folder, lent)
            if seconds >= told * TELL_S:
                told += 1
                notify(cell, seconds)

        if self.ready and (self.ready.lent != lent or self.ready.process.poll() is not None):
            self.ready.end()  # its kernel has imported code that was edited since, or somebody killed it
            self.ready = None
        child, self.ready = self.ready or Child(self.cwd, self.folder, lent), None
        try:
            child.begin(job, log)
            return watch(child.process, child.events, log, deadline_s, heard)
        finally:
            child.end()


def watch(child: subprocess.Popen, events: Path, log: Path, deadline_s: float, notify: Callable) -> tuple[str, str]:
    began = time.monotonic()
    while True:
        try:
            code = child.wait(LOOK_S)
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
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [f"exit code {code}"]
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
