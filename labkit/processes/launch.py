"""Start the ranks of one run, watch over them, and leave none behind, whatever happens.

Ranks are forks of a warm fork server (`fork_server.py`). torch's elastic launcher can use the same server, but looks at its
processes once a second, replaces signal handlers, and waits for ever for a rank that left without a result.
"""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.engine.job import Job
from labkit.processes.fork_server import warm, without_main
from labkit.processes.supervise import Rank, supervise
from labkit.system.locks import refuse_links

POLL_S = 0.1
GRACE_S = 5.0  # after a rank lost its peer, the time for the peer to say why
STACK_S = 0.5  # for a hung rank to write its stack


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
    refuse_links(folder, folder)
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


def end_all(ranks: list[Rank]) -> None:
    for rank in ranks:
        if rank.process.pid is not None and rank.process.exitcode is None:
            rank.process.kill()
    for rank in ranks:
        if rank.process.pid is not None:
            rank.process.join()
            rank.process.close()
