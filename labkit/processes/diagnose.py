"""From the files of the ranks to one sentence: which rank failed, why, and which ranks only lost their peer."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from labkit.system.errors import killed_by, limit_behind

LOG_LINES, LOG_BYTES = 30, 20_000
NCCL_GAVE_UP = "collective operation timeout"
FORK_SERVER_GONE = 255  # what multiprocessing gives as exit code when the fork server died first
WAITING_PLACES = ("/torch/distributed/", "/torch/autograd/", "/concurrent/futures/")  # DDP's messages are sent by autograd
SILENT_S = 3.0  # a rank writes an event every second, unless it is stopped or one of its threads keeps the GIL


@dataclass
class RankView:
    """All that is known of a rank.

    exitcode    None while it lives, < 0: the signal that ended it
    silent_s    seconds since its last event, which comes every second
    still_s     seconds since it last came to another step or phase"""

    rank: int
    pid: int
    exitcode: int | None
    result: Any
    error: dict[str, Any] | None
    event: dict[str, Any]
    log: Path
    silent_s: float = 0.0
    still_s: float = 0.0

    @property
    def finished(self) -> bool:
        """Did the rank end well and leave its result?"""
        return self.exitcode == 0 and self.result is not None

    @property
    def where(self) -> str:
        """Phase, epoch and step of the last event, in words."""
        return f"in phase '{self.event['phase']}' of epoch {self.event['epoch'] + 1}, step {self.event['step'] + 1}"

    @property
    def last_heard(self) -> str:
        """Of a rank that could not say itself where it was: its last event may be a fraction of a second older."""
        return f"last heard of {self.where}"

    @property
    def silent(self) -> bool:
        """Has the rank sent no event for SILENT_S, as one that was stopped or holds the GIL?"""
        return self.silent_s > SILENT_S

    @property
    def waits(self) -> bool:
        """Was it in a message to or from another rank when it wrote its stack (`supervise.failure`)? Then another one hangs."""
        _, _, stack = self.log_tail().rpartition("most recent call first):")
        for frame in stack.splitlines():
            if "/labkit/" in frame:
                return False
            if any(place in frame for place in WAITING_PLACES):
                return True
        return False

    @property
    def progress(self) -> tuple[int, int, bool]:
        """How far the rank is; a rank with less holds the others up."""
        return self.event["epoch"], self.event["step"], self.event["phase"] != "data"

    def log_tail(self) -> str:
        """The last lines that the rank wrote."""
        if not self.log.exists():
            return ""
        with open(self.log, "rb") as file:
            file.seek(max(0, os.path.getsize(self.log) - LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])


class RunFailed(RuntimeError):
    """A run that gave no result. `status`: failed, oom, incomplete, timeout, interrupted; `reason`: a line; `detail`: more."""

    def __init__(self, status: str, rank: int, reason: str, detail: str = ""):
        super().__init__(f"{reason}\n{detail}" if detail else reason)
        self.status, self.rank, self.reason, self.detail = status, rank, reason, detail


def diagnose(views: list[RankView], timeout_s: float, deadline_s: float | None) -> RunFailed:
    """The first cause, in the order of how much each kind of sign proves."""
    failed = sorted(((view.error, view) for view in views if view.error), key=lambda pair: pair[0]["at"])
    for error, view in failed:
        if error["oom"]:
            return _from_error("oom", view, "ran out of memory")
    hung = [view for view in views if view.exitcode is None]
    if hung:  # NCCL ends a rank that waited too long for another: a victim. (Not met on a GPU yet.)
        views = [view for view in views if view.exitcode != -signal.SIGABRT or NCCL_GAVE_UP not in view.log_tail()]
    for view in views:
        if view.exitcode in (-signal.SIGTERM, FORK_SERVER_GONE):
            gone = view.exitcode == FORK_SERVER_GONE
            what = "ended because the fork server that started it had ended" if gone else "was ended by SIGTERM"
            reason = f"rank {view.rank} {what}, as when a kernel or a batch system shuts down; {view.last_heard}"
            return RunFailed("interrupted", view.rank, reason, view.log_tail())
        if view.exitcode is not None and view.exitcode < 0:
            reason = f"rank {view.rank} was {killed_by(view.exitcode)}, {view.last_heard}"
            return RunFailed("failed", view.rank, reason, view.log_tail())
    for error, view in failed:
        if not error["lost_peer"]:
            return _from_error("failed", view, "failed")
    for view in views:
        if view.exitcode == 0 and view.result is None:
            reason = f"rank {view.rank} left with exit code 0 before its result was written, {view.last_heard}"
            return RunFailed("incomplete", view.rank, reason, view.log_tail())
        if view.exitcode and not view.error:
            lines = view.log_tail().splitlines()
            last_line = f"; it said: {lines[-1][:500]}{limit_behind(lines[-1])}" if lines else ""
            reason = f"rank {view.rank} left with exit code {view.exitcode}, {view.last_heard}{last_line}"
            return RunFailed("failed", view.rank, reason, view.log_tail())
    if hung:
        first = min(hung, key=lambda v: (not v.silent, v.waits, v.progress))
        over = f"no answer for timeout_s={timeout_s:g}"
        if deadline_s:
            over = f"the run took longer than deadline_s={deadline_s:g}"
        elif not first.silent and len(hung) == len(views):
            over = f"no progress for {first.still_s:.0f} s, far longer than ever before in this phase (timeout_s={timeout_s:g})"
        where = f", {first.last_heard}" if first.silent else f" {first.where}"
        reason = f"rank {first.rank} hung{_state(first.pid)}{where}: {over}"
        return RunFailed("timeout", first.rank, reason, f"its stack and last log lines:\n{first.log_tail()}")
    return _from_error("failed", failed[0][1], "lost contact")


def _from_error(status: str, view: RankView, verb: str) -> RunFailed:
    error = view.error or {}
    kind, _, message = str(error["error"]).partition(": ")
    first_line = ": ".join([kind, *[line for line in message.splitlines() if line.strip()][:1]])
    first_line += limit_behind(error["error"])
    tail = view.log_tail()
    lines = "" if error["traceback"].strip() in tail else f"\nlast log lines of rank {view.rank}:\n{tail}"
    return RunFailed(status, view.rank, f"rank {view.rank} {verb} {view.where}: {first_line}", f"{error['traceback']}{lines}")


def _state(pid: int) -> str:
    try:
        status = psutil.Process(pid).status()
    except psutil.Error:
        return ""
    return " (stopped by a signal)" if status == psutil.STATUS_STOPPED else ""
