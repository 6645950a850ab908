"""Watch over the ranks of one run until each has left its result, or one is in trouble."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import Any

from labkit.engine.job import Job
from labkit.processes.diagnose import RankView, RunFailed, diagnose
from labkit.processes.fork_server import start

POLL_S = 0.1
GRACE_S = 5.0  # after a rank lost its peer, the time for the peer to say why
STACK_S = 0.5  # for a hung rank to write its stack


class Rank:
    """The launcher's side of one rank: its process, and the files it is heard through."""

    def __init__(self, process: Any, folder: Path, rank: int):
        self.process, self.folder, self.rank = process, folder, rank
        start(self.process)  # which waits until the fork server has imported torch: the clock starts after it
        self.event: dict[str, Any] = {"rank": rank, "phase": "start", "epoch": 0, "step": 0, "loss": None, "t": time.time()}
        self.read_to = 0

    def listen(self) -> None:
        """Read the events that came since the last call; a line still being written is left for the next."""
        try:
            with open(self.folder / f"events/rank{self.rank}.jsonl", "rb") as file:
                file.seek(self.read_to)
                news, _, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        if news:
            self.read_to += len(news) + 1
            self.event = json.loads(news.splitlines()[-1])

    def view(self) -> RankView:
        return RankView(
            rank=self.rank,
            pid=self.process.pid,
            exitcode=self.process.exitcode,
            result=self.left("json"),
            error=self.left("error.json"),
            event=self.event,
            log=self.folder / f"logs/rank{self.rank}.log",
        )

    def left(self, ending: str) -> Any:
        path = self.folder / f"scratch/rank{self.rank}.{ending}"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def supervise(job: Job, ranks: list[Rank], on_progress) -> list[dict[str, Any]]:
    began = first_trouble = time.monotonic()
    trouble = False
    while True:
        alive = [rank for rank in ranks if rank.process.exitcode is None]
        if alive:
            connection.wait([rank.process.sentinel for rank in alive], timeout=POLL_S)
        for rank in ranks:
            rank.listen()
        if on_progress:
            on_progress([rank.event for rank in ranks])
        views = [rank.view() for rank in ranks]
        if all(view.finished for view in views):
            return [view.result for view in views]
        now = time.monotonic()
        gone = [view for view in views if view.exitcode is not None and not view.finished]
        late = now - began > job.deadline_s
        silent = [v for v in views if v.exitcode is None and time.time() - v.event["t"] > job.timeout_s + GRACE_S]
        waiting_for_last = any(v.finished for v in views) and not gone
        if gone or late or silent or waiting_for_last:
            if not trouble:
                trouble, first_trouble = True, now
            # A rank that says what went wrong ends the run soon; one that only lost its peer gives the peer time to speak.
            cause_known = any(not (v.error or {}).get("lost_peer") for v in gone)
            patience = 1.0 if cause_known else job.timeout_s + GRACE_S if waiting_for_last else GRACE_S
            if late or silent or len(gone) == len(views) or now - first_trouble > patience:
                raise failure(job, views, late)


def failure(job: Job, views: list[RankView], late: bool) -> RunFailed:
    """Judged by `views`, the ranks as they were: the signal sent here may move a rank, and even end one that is young."""
    alive = [view for view in views if view.exitcode is None]
    for view in alive:
        with suppress(ProcessLookupError):
            os.kill(view.pid, signal.SIGUSR1)  # faulthandler writes the stack into its log
    time.sleep(STACK_S if alive else 0)
    return diagnose(views, job.timeout_s, job.deadline_s if late else None)
