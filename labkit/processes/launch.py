"""Start the ranks of one run, watch over them, and leave none behind, whatever happens.

    warm()         the fork server is there, or on its way: it imports torch, which takes seconds
    start() x N    one rank after the other; an interrupt waits until each is known by its number
    supervise()    until every rank has left its result, or one is in trouble
    end_all()      always, after an error and an interrupt too

Ranks are forks of a warm fork server (`fork_server.py`). torch's elastic launcher can use the same server, but looks at its
processes once a second, replaces signal handlers, and waits for ever for a rank that left without a result.
"""

import multiprocessing
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.engine.job import Job
from labkit.processes import fork_server
from labkit.processes.begin import begin
from labkit.processes.fork_server import warm
from labkit.processes.supervise import Rank, supervise
from labkit.system.files import refuse_links
from labkit.system.temporary import own_folder

INTERRUPT_S = 2.0  # the longest that an interrupt waits for a start
START_S = 600.0  # for the fork server, which imports torch on a machine that may be busy
END_S = 5.0  # for ranks that were killed, until the fork server has told so


@contextmanager
def _interrupt_later() -> Iterator[list[float]]:
    """Hold an interrupt back to the end of the block: half of a start, or of an end, would leave a rank that nobody knows.

    Yields the times (monotonic clock) at which one came."""
    came: list[float] = []
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield came  # Python interrupts the main thread only, and cannot hold back what another library handles
        return
    before = signal.signal(signal.SIGINT, lambda *_: came.append(time.monotonic()))
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def launch(job: Job, on_progress: Callable[[list[dict[str, Any]]], None] | None = None) -> list[dict[str, Any]]:
    """Run a job to its end and return what each rank returned, by rank.

    `on_progress` is called a few times a second, in this thread, with the latest event of each rank. Raises RunFailed,
    which names the rank and the reason, ValueError for a target that another process could not find; KeyboardInterrupt passes
    through. On every way out no rank is left."""
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
    began = time.monotonic()
    try:
        with _interrupt_later() as came:

            def give_up() -> bool:
                now = time.monotonic()
                return now - began > max(START_S, job.deadline_s) or bool(came and now - came[0] > INTERRUPT_S)

            for number in range(job.processes):
                process = context.Process(target=begin, args=(job, number), name=f"rank{number}")
                fork_server.start(process, give_up)  # which waits until the fork server has imported torch
                ranks.append(Rank(process, folder, number))
        return supervise(job, ranks, on_progress)
    finally:
        with _interrupt_later():
            end_all(ranks)
            shutil.rmtree(folder / "scratch", ignore_errors=True)


def in_a_rank(target: str, **arguments: Any) -> Any:
    """Call a function that needs torch (named as in `Job`) in a process of its own, and return what it returns, which must be plain
    data. The fork server has imported torch already; here the import alone would take seconds. Raises RunFailed."""
    with tempfile.TemporaryDirectory(dir=own_folder()) as folder:
        return launch(Job(target, 1, Path(folder), arguments, backend=""))[0]


def end_all(ranks: list[Rank]) -> None:
    """Kill what still runs of these ranks, and wait until all have ended, whatever became of the fork server."""
    for rank in ranks:
        if rank.process.exitcode is None:
            rank.process.kill()
    until = time.monotonic() + END_S
    for rank in ranks:
        rank.process.join(max(0.0, until - time.monotonic()))
    if any(rank.process.exitcode is None for rank in ranks):  # it does not tell that they ended: it was stopped, or hangs
        fork_server.end()
    for rank in ranks:
        rank.process.join()
        rank.process.close()
