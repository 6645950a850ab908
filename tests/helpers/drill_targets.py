"""What the drills share: faults that fire inside a rank, targets for `launch`, and a look at every process of a drill."""

from __future__ import annotations

import ctypes
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import psutil
import torch
import torch.distributed as dist
from torch.nn import functional

from labkit.engine.job import Job
from labkit.engine.worker import train_row
from labkit.processes import launch
from labkit.results.table import read_results
from labkit.rows.spec import Spec
from labkit.system import files

ROOT = Path(__file__).parents[2]
TAG = "LABKIT_DRILL"  # in the environment of every process of a drill, so that orphans are found too
SMALL = Spec(
    strategy="ddp", world_size=2, batch_per_rank=64, backend="gloo", device="cpu", threads_per_rank=1,
    dataset="digits", width=8, train_samples=512, test_samples=100, timeout_s=6.0,
)  # fmt: skip
AT_STEP = 2  # where a fault fires: the third of four steps


def raise_error() -> None:
    raise ValueError("picture 17 is broken")


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def read_null() -> None:
    ctypes.string_at(0)


def leave_quietly() -> None:
    os._exit(0)


def hang() -> None:
    threading.Event().wait()


def hold_the_gil() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        ctypes.PyDLL(None).sleep(3600)  # a PyDLL call keeps the lock: no Python thread of this process runs any more


def stop_myself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def spoil_loss() -> None:
    """From this step on, this rank's loss is not a number."""
    cross_entropy = functional.cross_entropy
    functional.cross_entropy = lambda *arguments, **keywords: cross_entropy(*arguments, **keywords) * float("nan")


def faulty_row(*, rank: int, progress: Any, fault: str, on_ranks: list[int], fired: str, **row: Any) -> dict[str, Any]:
    """Train a row; the ranks `on_ranks` write the file `fired` in their third step, and then suffer the fault."""
    at = progress.at

    def at_with_fault(phase: str, epoch: int | None = None, step: int = 0) -> None:
        at(phase, epoch, step)
        if rank in on_ranks and (phase, epoch, step) == ("step", 0, AT_STEP):
            Path(fired).write_text(f"{fault} with {len(multiprocessing.active_children())} children")
            if fault == "wait":
                wait_for(Path(f"{fired}.go").exists, 60, "a sign to go on")
            else:
                globals()[fault]()

    progress.at = at_with_fault
    return train_row(rank=rank, progress=progress, **row)


@contextmanager
def injected(fault: str, on_ranks: list[int], fired: Path | str) -> Iterator[None]:
    """Runs that start meanwhile train `faulty_row`."""
    real = launch.launch
    arguments = {"fault": fault, "on_ranks": on_ranks, "fired": str(fired)}

    def faulty(job: Job, on_progress: Callable | None = None) -> list[dict[str, Any]]:
        return real(
            replace(job, target="tests.helpers.drill_targets:faulty_row", arguments=job.arguments | arguments), on_progress
        )

    launch.launch = faulty
    try:
        yield
    finally:
        launch.launch = real


def sum_of_ranks(*, rank: int, progress: Any) -> dict[str, Any]:
    """A target that is over at once: the ranks add up their numbers."""
    total = torch.tensor(float(rank))
    dist.all_reduce(total)
    return {"sum": total.item(), "pid": os.getpid()}


def die_while_writing(*, rank: int, progress: Any, path: str, point: str, content: dict[str, Any]) -> None:
    """A target that writes a result and is killed at `point`: before or after a call of write_json's, with half of it written, or after some seconds."""
    when, _, name = point.partition(" ")
    if when == "after_s":
        threading.Timer(float(name), kill_myself).start()
        while True:
            files.write_json(Path(path), content)
    real = getattr(os, name)

    def fatal(*arguments: Any, **keywords: Any) -> None:
        if when == "after":
            real(*arguments, **keywords)
        elif when == "half":
            os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
        kill_myself()

    setattr(os, name, fatal)
    files.write_json(Path(path), content)


def die_at_result(moment: str) -> None:
    """Let this process be killed just before, or just after, its next result takes the old one's place."""
    replace_file = os.replace

    def fatal(draft: str, path: Any) -> None:
        if Path(path).name == "result.json" and moment == "before":
            kill_myself()
        replace_file(draft, path)
        if Path(path).name == "result.json":
            kill_myself()

    os.replace = fatal


def lab_in_another_process(code: str) -> subprocess.Popen:
    code = f"from labkit.runs.train import run_once\nfrom tests.helpers.drill_targets import *\n{code}"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def family(tag: str) -> list[psutil.Process]:
    """Every living process that carries the tag in the environment it was started with, whoever its parent is now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(TAG) == tag:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait until `condition` holds. Fails with `what` if it does not in time."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail in this thread, the main one, if the block takes longer: also while it waits for a process that will not end."""

    def over(*_: Any) -> None:
        raise AssertionError(f"still waiting after {seconds:g} s")

    was = signal.signal(signal.SIGUSR2, over)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR2))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR2, was)


def open_to_others(processes: list[psutil.Process]) -> list[str]:
    """The addresses off the loopback on which one of the processes listens."""
    found = []
    for process in processes:
        try:
            sockets = process.net_connections(kind="inet")
        except psutil.Error:
            continue
        found += [f"{s.laddr.ip}:{s.laddr.port}" for s in sockets if s.status == psutil.CONN_LISTEN]
    return [address for address in found if not address.startswith(("127.", "::1:", "::ffff:127."))]


def digests(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.json")}


def check_outcomes(runs_folder: Path) -> None:
    """Every run has one outcome, and a reason if it is not a good one."""
    for label in (path.name for path in runs_folder.iterdir()):
        for outcome in (outcome for outcomes in read_results(label).values() for outcome in outcomes):
            left = sorted(path.name for path in Path(outcome.run_dir).glob("*.json"))
            assert len(left) == 1, f"{label}: {left} where one outcome should be"
            assert outcome.status != "running", f"{label} is said to be running"
            assert outcome.status == "ok" or outcome.reason, f"{label}: {outcome.status} without a reason"


@contextmanager
def obstructed(folder: Path, obstacle: str) -> Iterator[Path]:
    """A folder that cannot keep results: a file, or a file system mounted with the options `obstacle`. Where mounting is
    not allowed: a folder in which nobody can make one, or a disk that is said to be full."""
    if obstacle == "a file in its place":
        folder.touch()
        yield folder
        return
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", obstacle, "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    elif obstacle == "ro":
        yield Path("/sys")
    else:
        with mock.patch("shutil.disk_usage", lambda path: SimpleNamespace(free=2**20)):
            yield folder
