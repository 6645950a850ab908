"""What a rank measures and reports of itself: its memory, its time, and its progress."""

import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

from labkit.engine.counted import Traffic
from labkit.rows.fit import process_group
from labkit.rows.spec import Spec

BEAT_S = 0.25  # how often the thread looks for something new
MIB = 2**20


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all work that was given to it. On a CPU there is nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_resident_bytes() -> int:
    """The most memory, in bytes, that this process ever had resident."""
    unit_bytes = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes


class Memory:
    """Peak memory of training in MiB.

    On CUDA: the peak of torch's allocator, without evaluation. On a CPU: by how much the peak resident set of the process
    grew since this object was made; so make it before the data and the model."""

    def __init__(self, device: torch.device):
        self.device, self.peak = device, 0.0
        self.before = peak_resident_bytes()
        if device.type == "cuda":
            torch.cuda.init()
        self.forget_evaluation()

    def peak_mib(self) -> float:
        """The peak so far, in MiB."""
        if self.device.type == "cuda":
            self.peak = max(self.peak, torch.cuda.max_memory_allocated(self.device) / MIB)
        else:
            self.peak = (peak_resident_bytes() - self.before) / MIB
        return self.peak

    def forget_evaluation(self) -> None:
        """Start a new peak on CUDA, so that the memory of an evaluation does not count. On a CPU that is not possible."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)


class Clock:
    """Where the time goes, in seconds. It waits for the device at the end of an epoch, and once after the warm-up steps; a wait
    in every step would slow training down.

        step 1   step 2 | step 3   step 4   ...   step n | evaluation | step 1   ...
        warm-up         | timed: images_per_s            | eval_s     | timed
        <-------------- train_s ------------------------>              <------- ...
                        <- bytes are counted (last epoch) ->"""

    def __init__(self, spec: Spec, device: torch.device, total_steps: int):
        self.device, self.warmup_steps = device, min(spec.warmup_steps, total_steps // 2)  # a short run has timed steps, too
        self.steps = self.images = 0
        self.timed_s = self.train_s = self.eval_s = self.data_wait_s = 0.0
        self.first_step_at = 0.0
        self.traffic = Traffic(sockets="nccl" not in process_group(spec))

    def start_epoch(self) -> None:
        """The training part of an epoch begins."""
        self.epoch_began = self.timing_since = time.perf_counter()
        self.first_step_at = self.first_step_at or time.monotonic()
        self.traffic.begin(self.steps)

    def stepped(self, images: int, waited_s: float) -> None:
        """A step with this many images is over, before which the rank waited `waited_s` seconds for them."""
        self.steps += 1
        self.data_wait_s += waited_s
        if self.steps > self.warmup_steps:
            self.images += images
        elif self.steps == self.warmup_steps:
            synchronise(self.device)  # the device may still work on the warm-up steps: they must not count as timed
            self.traffic.begin(self.steps)
            self.timing_since = time.perf_counter()

    def end_epoch(self) -> None:
        """The training part of an epoch is over. Waits for the device."""
        synchronise(self.device)
        now = time.perf_counter()
        self.train_s += now - self.epoch_began
        self.traffic.end(self.steps)
        if self.steps > self.warmup_steps:
            self.timed_s += now - self.timing_since

    def figures(self) -> dict[str, Any]:
        """Keys of the result (`runs.result.RankFigures` explains them): seconds end in `_s`; first_step_at is in seconds of the monotonic clock, and
        `runs.folders.keep` makes a date of it; images are this rank's."""
        return {
            "images_timed": self.images,
            "timed_s": self.timed_s,
            "images_per_s": self.images / self.timed_s if self.images else 0.0,
            "train_s": self.train_s,
            "eval_s": self.eval_s,
            "data_wait_s": self.data_wait_s,
            "steps": self.steps,
            "first_step_at": self.first_step_at,
            "messages_per_step": self.traffic.per_step,
            "sent_bytes_per_step": self.traffic.sent_bytes_per_step,
        }


class Progress:
    """Tells the launcher what this rank is doing: a JSON line in the file `events` when something changed, and at least one a
    second.

    A thread writes the lines, so that the training loop only sets attributes. The lines have three uses: they are the
    heartbeat of the rank, the source of the live view, and, if a run fails, the record of what each rank was doing."""

    def __init__(self, events: Path, rank: int):
        self.rank, self.phase, self.epoch_index, self.step = rank, "start", 0, 0
        self.loss: torch.Tensor | None = None
        self.lock = threading.Lock()
        self.file = open(events, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - open for the life of the process
        threading.Thread(target=self.beat, daemon=True, name="progress").start()

    def at(self, phase: str, epoch: int | None = None, step: int = 0) -> None:
        """Set what the rank does now: a phase ("data", "step", "evaluate", ...), and epoch and step, both from 0."""
        self.phase, self.step = phase, step
        if epoch is not None:
            self.epoch_index = epoch

    def epoch(self, record: dict[str, Any]) -> None:
        """Write the figures of an epoch that has just ended, at once."""
        self.write(self.now() | {"epoch_end": record})

    def now(self) -> dict[str, Any]:
        """What the rank is doing: rank, phase, epoch, step, and the last loss (None before the first one)."""
        loss = None if self.loss is None else float(self.loss)
        return {"rank": self.rank, "phase": self.phase, "epoch": self.epoch_index, "step": self.step, "loss": loss}

    def write(self, event: dict[str, Any]) -> None:
        """Append one line, with the time `t` in seconds of the monotonic clock."""
        with self.lock:
            self.file.write(json.dumps({"t": time.monotonic(), **event}) + "\n")

    def beat(self) -> None:
        """The thread: looks every BEAT_S seconds whether there is something new, for as long as the process lives."""
        last, written_at = None, 0.0
        while True:
            where = (self.phase, self.epoch_index, self.step)
            if where != last or time.monotonic() - written_at > 1:
                last, written_at = where, time.monotonic()
                self.write(self.now())
            time.sleep(BEAT_S)
