"""Fault drills with a real Jupyter kernel: what becomes of the ranks, and of the run, when the notebook is stopped."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from jupyter_client import KernelManager

from labkit.results.table import read_results
from labkit.runs import train
from tests.helpers import drill_targets as drill
from tests.helpers.drill_targets import ROOT, SMALL, TAG, wait_for

SLOW = SMALL.but(timeout_s=60.0)  # a rank that waits for a hung one waits longer than a drill takes
PREPARE = f"""
import os, signal
from labkit.processes.fork_server import warm
warm()
from labkit.runs import plan, train
from labkit.results import table
from labkit.rows.spec import Spec
from tests.helpers.drill_targets import injected
row = Spec(**{SLOW.to_dict()})
handlers = [signal.getsignal(s) for s in signal.valid_signals()]
train.run_once(row, "earlier")
"""


RESTART_SERVER = """
from multiprocessing import forkserver
server = forkserver._forkserver
server._stop()
warm()
pid = server._forkserver_pid
"""
LAUNCH = "import pathlib, labkit.processes.launch; labkit.processes.launch.launch(labkit.processes.launch.Job({}, 1, pathlib.Path('unused')))"


class Kernel:
    """A kernel as JupyterLab starts it: in a session of its own, interrupted by a signal to its whole process group."""

    def __init__(self, folder: Path, temporary: str):
        self.folder, self.tag = folder, uuid.uuid4().hex
        self.manager = KernelManager(connection_file=str(folder / f"{self.tag}.json"))
        self.manager.start_kernel(cwd=str(ROOT), env={**os.environ, TAG: self.tag, "TMPDIR": temporary})
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def cell(self, code: str, fails: str = "") -> str:
        """Run a cell to its end, and return the error it showed, which must be `fails`."""
        reply = self.client.execute_interactive(code, timeout=90, output_hook=lambda message: None)["content"]
        assert reply.get("ename", "") == fails, f"the cell ended with {reply.get('ename', 'no error')}: {reply.get('evalue')}"
        return reply.get("evalue", "")

    def start_hanging_run(self, label: str, fault: str = "hang") -> list[psutil.Process]:
        """Start a run whose rank 0 is in a collective while rank 1 hangs. Returns every process of this kernel."""
        fired = self.folder / f"{label}.fired"
        self.client.execute(f"with injected({fault!r}, [1], {str(fired)!r}): train.run_once(row, {label!r})")
        wait_for(fired.exists, 60, "the fault fired")
        time.sleep(1)
        events = self.folder / "runs" / label / SLOW.name / "1/events/rank0.jsonl"
        where = json.loads(events.read_text().splitlines()[-1])
        assert (where["phase"], where["step"]) == ("step", drill.AT_STEP), f"rank 0 is not in a collective: {where}"
        family = drill.family(self.tag)
        assert len(family) == 5, f"a kernel, a resource tracker, a fork server and two ranks should be there, not {family}"
        assert not drill.open_to_others(family), "something listens off the loopback"
        return family


@pytest.fixture
def kernel(tmp_path_factory, monkeypatch):
    """A kernel with labkit loaded and one earlier result. After the drill: no process, nothing changed, the next run works."""
    folder = tmp_path_factory.mktemp("kernel")
    monkeypatch.setenv("LABKIT_RUNS", str(folder / "runs"))
    with tempfile.TemporaryDirectory(prefix="drills") as temporary:  # a kernel that is killed leaves its temporary files
        yield from kernel_in(folder, temporary)


def kernel_in(folder: Path, temporary: str) -> Iterator[Kernel]:
    kernel = Kernel(folder, temporary)
    try:
        kernel.cell(PREPARE)
        earlier = (folder / "runs/earlier" / SLOW.name / "1/result.json").read_bytes()
        yield kernel
        assert (folder / "runs/earlier" / SLOW.name / "1/result.json").read_bytes() == earlier, "an earlier result was changed"
        assert train.run_once(SLOW, "drill", fresh=True).status == "ok", "the next run of the same row does not work"
    finally:
        kernel.client.stop_channels()
        with suppress(Exception):
            kernel.manager.shutdown_kernel(now=True)
    wait_for(lambda: not drill.family(kernel.tag), 6, "every process of the kernel is gone")


def survivors(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def outcome_of(label: str) -> dict:
    [[outcome]] = read_results(label).values()
    return outcome


def kill(kernel: Kernel, number: int) -> None:
    os.kill(kernel.manager.provisioner.pid, number)
    wait_for(lambda: not kernel.manager.is_alive(), 6, "Jupyter notices that the kernel is gone")


WAYS = {
    "14 restart": lambda kernel: kernel.manager.restart_kernel(now=False),
    "14 shutdown request alone": lambda kernel: kernel.client.shutdown(),
    "15 shutdown now": lambda kernel: kernel.manager.shutdown_kernel(now=True),
    "16 SIGKILL": lambda kernel: kill(kernel, signal.SIGKILL),
}


@pytest.mark.parametrize("way", WAYS)
def test_kernel_is_stopped_during_a_collective(kernel, way):
    """Drills 14 to 16. At the SIGKILL rank 1 holds the GIL, so that none of its threads can see its parent die."""
    family = kernel.start_hanging_run("drill", "hold_the_gil" if "SIGKILL" in way else "hang")
    WAYS[way](kernel)
    wait_for(lambda: not survivors(family), 6, f"no survivor of {family}")
    outcome = outcome_of("drill")
    assert outcome.status == "interrupted", outcome
    assert outcome.reason, "interrupted, without a reason"


def test_kernel_interrupt_and_what_a_cell_may_define(kernel):
    """Drills 13 and 22, one after the other in one kernel, which stays usable."""
    family = kernel.start_hanging_run("drill")
    kernel.manager.interrupt_kernel()
    wait_for(lambda: len(survivors(family)) == 3, 6, "the two ranks, and they alone, are gone")
    reply = kernel.client.get_shell_msg(timeout=10)["content"]
    assert reply.get("ename") == "KeyboardInterrupt", f"the cell ended with {reply}"
    outcome = outcome_of("drill")
    assert (outcome.status, outcome.reason) == ("interrupted", "KeyboardInterrupt in the launching process"), outcome
    kernel.cell("assert [signal.getsignal(s) for s in signal.valid_signals()] == handlers, 'signal handlers are not as before'")
    kernel.cell("assert train.run_once(row, 'after').status == 'ok'")
    kernel.cell(RESTART_SERVER)
    time.sleep(0.5)
    kernel.manager.interrupt_kernel()  # the server is importing torch, and must go on with it
    kernel.cell(
        "assert train.run_once(row, 'again').status == 'ok' and server._forkserver_pid == pid, 'the server was interrupted'"
    )
    kernel.cell("def train(rank, progress): return rank")
    for target in ("'__main__:train'", "train", "lambda rank, progress: rank"):
        told = kernel.cell(LAUNCH.format(target), fails="ValueError")
        assert "\n" not in told and "in a cell" in told and "put it in a module" in told, told
