"""Start the ranks of one run, watch over them, and leave none behind, whatever happens.

Ranks are forks of a warm fork server (`fork_server.py`). torch's elastic launcher can use the same server, but looks at its
processes once a second, replaces signal handlers, and waits for ever for a rank that left without a result.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

from labkit.processes.diagnose import RankView, RunFailed, diagnose
from labkit.processes.fork_server import start, warm, without_main

POLL_S = 0.1
GRACE_S = 5.0  # after a rank lost its peer, the time for the peer to say why
STACK_S = 0.5  # for a hung rank to write its stack


@dataclass(frozen=True)
class Job:
    """What to start: `processes` copies of `target`, "module:function", called with `arguments` and the keywords
    rank, progress; what it returns must be plain data (JSON)."""

    target: str
    processes: int
    folder: Path
    arguments: dict[str, Any] = field(default_factory=dict)
    backend: str = "gloo"  # "" for no process group
    threads: int = 1
    timeout_s: float = 20.0
    deadline_s: float = 3600.0


@contextmanager
def _interrupt_later() -> Iterator[None]:
    """Hold an interrupt back to the end of the block: half of a start, or of an end, would leave a rank that nobody knows."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield  # Python interrupts the main thread only, and cannot hold back what another library handles
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def launch(job: Job, on_progress: Callable[[list[dict[str, Any]]], None] | None = None) -> list[dict[str, Any]]:
    """Run a job to its end and return what each rank returned, by rank.

    `on_progress` is called a few times a second, in this thread, with the latest event of each rank. Raises RunFailed,
    which names the rank and the reason; KeyboardInterrupt passes through. On every way out no process is left.
    """
    if not isinstance(job.target, str) or job.target.startswith("__main__:") or "<" in job.target:
        raise ValueError(
            f"target {job.target}: a function defined in a cell or script cannot run in another process; put it in a module"
        )
    folder = job.folder
    for name in ("logs", "events", "scratch"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    warm()
    context = multiprocessing.get_context("forkserver")
    ranks: list[Rank] = []
    try:
        with _interrupt_later(), without_main():
            for rank in range(job.processes):
                ranks.append(Rank(context.Process(target=begin, args=(job, rank), name=f"rank{rank}"), folder, rank))
        return supervise(job, ranks, on_progress)
    finally:
        with _interrupt_later():
            end_all(ranks)
            shutil.rmtree(folder / "scratch", ignore_errors=True)


def in_a_rank(target: str, **arguments: Any) -> Any:
    """What a function (as `Job` names it) returns that needs torch: from a fork of the warm server, which has imported it
    already. Here the import alone would take seconds."""
    with tempfile.TemporaryDirectory(prefix="labkit-") as folder:
        return launch(Job(target, 1, Path(folder), arguments, backend=""))[0]


def begin(job: Job, rank: int) -> None:
    """What a rank is forked for. The launching process itself never imports the worker, and with it torch: that takes seconds."""
    from labkit.engine.worker import rank_main

    rank_main(job, rank)


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
        return json.loads(path.read_text()) if path.exists() else None


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


def end_all(ranks: list[Rank]) -> None:
    for rank in ranks:
        if rank.process.pid is not None and rank.process.exitcode is None:
            rank.process.kill()
    for rank in ranks:
        if rank.process.pid is not None:
            rank.process.join()
            rank.process.close()
