"""Watch over the ranks of one run until each has left its result, or one is in trouble."""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import Any

from labkit.engine.job import Job
from labkit.processes import fork_server
from labkit.processes.diagnose import RankView, RunFailed, diagnose

POLL_S = 0.1
GRACE_S = 5.0  # after a rank lost its peer, the time for the peer to say why
STACK_S = 0.5  # for a hung rank to write its stack
LONGEST_LOOK_S = 1.0  # more than that between two looks: this process did not run, or was busy elsewhere
TIMES_LONGER = 10  # a step that takes this many times as long as any before, and longer than timeout_s, hangs


class Watched:
    """Seconds that this process has watched. They stand still while it does not run: while all processes are paused, because a
    lid was closed or somebody stopped them, no rank can be heard, and none of them hangs. No wall clock is asked, which can be set."""

    def __init__(self) -> None:
        self.seconds, self.looked_at = 0.0, time.monotonic()

    def look(self) -> float:
        """Look at the clock, and return the seconds that were watched so far."""
        now = time.monotonic()
        self.seconds += min(now - self.looked_at, LONGEST_LOOK_S)
        self.looked_at = now
        return self.seconds


class Rank:
    """The launcher's side of one rank: its process, and the files through which it reports. Times are those of `Watched`."""

    def __init__(self, process: Any, folder: Path, rank: int):
        self.process, self.folder, self.rank = process, folder, rank
        self.event: dict[str, Any] = {"rank": rank, "phase": "start", "epoch": 0, "step": 0, "loss": None, "t": time.monotonic()}
        self.read_to = 0
        self.now = self.heard_at = self.moved_at = 0.0
        self.longest: dict[str, float] = {}  # by phase: the longest that the rank stayed at one place in it

    def listen(self, now: float) -> None:
        """Read the events that came since the last call; a line still being written is left for the next."""
        self.now = now
        try:
            with open(self.folder / f"events/rank{self.rank}.jsonl", "rb") as file:
                file.seek(self.read_to)
                news, _, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        if news:
            self.read_to += len(news) + 1
            before, self.event, self.heard_at = self.event, json.loads(news.splitlines()[-1]), now
            if any(self.event[key] != before[key] for key in ("phase", "epoch", "step")):
                through = {kind_of_phase(before)} | ({"step"} if self.event["step"] > 0 else set())  # steps between two events
                for kind in through:
                    self.longest[kind] = max(self.longest.get(kind, 0.0), now - self.moved_at)
                self.moved_at = now

    def stuck(self, timeout_s: float) -> bool:
        """Is it in one step for far longer than in any before? Its heartbeat tells that it lives, not that it works."""
        longest = self.longest.get(kind_of_phase(self.event))
        return longest is not None and self.now - self.moved_at > max(timeout_s + GRACE_S, TIMES_LONGER * longest)

    def view(self) -> RankView:
        """All that is known of the rank now."""
        return RankView(
            rank=self.rank,
            pid=self.process.pid,
            exitcode=self.process.exitcode,
            result=self.left("json"),
            error=self.left("error.json"),
            event=self.event,
            silent_s=self.now - self.heard_at,
            still_s=self.now - self.moved_at,
            log=self.folder / f"logs/rank{self.rank}.log",
        )

    def left(self, ending: str) -> Any:
        """The content of a file that the rank left in `scratch`, or None."""
        path = self.folder / f"scratch/rank{self.rank}.{ending}"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def kind_of_phase(event: dict[str, Any]) -> str:
    """Waiting for images is a part of a step."""
    return "step" if event["phase"] == "data" else event["phase"]


def supervise(job: Job, ranks: list[Rank], on_progress: Callable | None) -> list[dict[str, Any]]:
    """Watch until every rank has left its result, and return the results by rank. Raises RunFailed, which names the first cause.

                        rank 0   ---step---step---error "connection reset"     only lost its peer
                        rank 1   ---step---killed
        this process    .  .  .  .  .  .  .  .  .  .  |<- GRACE_S ->| diagnose

    A rank that fails takes the others with it. So the first sign of trouble is not the end: the cause gets GRACE_S to show."""
    watched, stopped = Watched(), 0
    first_trouble: float | None = None
    while True:
        alive = [rank for rank in ranks if rank.process.exitcode is None]
        if alive:
            connection.wait([rank.process.sentinel for rank in alive], timeout=POLL_S)
        now = watched.look()
        for rank in ranks:
            rank.listen(now)
        if on_progress:
            on_progress([rank.event for rank in ranks])
        views = [rank.view() for rank in ranks]
        if all(view.finished for view in views):
            return [view.result for view in views]
        stopped = stopped + 1 if fork_server.is_stopped() else 0
        if stopped * POLL_S >= fork_server.STOPPED_S:
            raise RunFailed("failed", 0, "the fork server was stopped by a signal, and cannot tell how ranks end; run again")
        gone = [view for view in views if view.exitcode is not None and not view.finished]
        late = now > job.deadline_s
        silent = [view for view in views if view.exitcode is None and view.silent_s > job.timeout_s + GRACE_S]
        # Where others wait for a rank that hangs, they say so after timeout_s. This is for a rank that nobody waits for.
        stuck = len(gone) == 0 and all(rank.stuck(job.timeout_s) for rank in alive)
        waiting_for_last = any(view.finished for view in views) and not gone
        if gone or late or silent or stuck or waiting_for_last:
            first_trouble = now if first_trouble is None else first_trouble
            # A rank that says what went wrong ends the run soon; one that only lost its peer gives the peer time to speak.
            cause_known = any(not (view.error or {}).get("lost_peer") for view in gone)
            patience = GRACE_S
            if cause_known:
                patience = 1.0
            elif waiting_for_last:
                patience = job.timeout_s + GRACE_S
            if late or silent or stuck or len(gone) == len(views) or now - first_trouble > patience:
                raise failure(job, views, late)


def failure(job: Job, views: list[RankView], late: bool) -> RunFailed:
    """Judged by `views`, the ranks as they were: the signal sent here may move a rank, and even end one that is young."""
    alive = [view for view in views if view.exitcode is None]
    for view in alive:
        with suppress(ProcessLookupError):
            os.kill(view.pid, signal.SIGUSR1)  # faulthandler writes the stack into its log
    time.sleep(STACK_S if alive else 0)
    return diagnose(views, job.timeout_s, job.deadline_s if late else None)
