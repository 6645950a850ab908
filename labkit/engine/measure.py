"""Memory, device time and progress of one process: what a rank can say of itself."""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

BEAT_S = 0.25
MIB = 2**20


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_resident_bytes() -> int:
    """The most memory this process ever had resident. (Linux counts in KiB, macOS in bytes.)"""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Memory:
    """Peak memory of training in MiB. CUDA: the allocator's peak, evaluation left out. CPU: by how much the process's
    peak resident set grew since this object was made, which is before data and model are."""

    def __init__(self, device: torch.device):
        self.device, self.peak = device, 0.0
        self.before = peak_resident_bytes()
        if device.type == "cuda":
            torch.cuda.init()
        self.forget_evaluation()

    def peak_mb(self) -> float:
        if self.device.type == "cuda":
            self.peak = max(self.peak, torch.cuda.max_memory_allocated(self.device) / MIB)
        else:
            self.peak = (peak_resident_bytes() - self.before) / MIB
        return self.peak

    def forget_evaluation(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)


class Progress:
    """Tells the launcher where this rank is: one JSON line in `events` whenever something changed, at least every second.

    A thread writes, so that the training loop only sets attributes. The lines serve as heartbeat, as the live view's
    source, and afterwards as the record of what each rank was doing when something went wrong.
    """

    def __init__(self, events: Path, rank: int):
        self.rank, self.phase, self.epoch_index, self.step = rank, "start", 0, 0
        self.loss: torch.Tensor | None = None
        self.lock = threading.Lock()
        self.file = open(events, "a", buffering=1)  # noqa: SIM115 - open for the life of the process
        threading.Thread(target=self.beat, daemon=True, name="progress").start()

    def at(self, phase: str, epoch: int | None = None, step: int = 0) -> None:
        self.phase, self.step = phase, step
        if epoch is not None:
            self.epoch_index = epoch

    def epoch(self, record: dict[str, Any]) -> None:
        self.write(self.now() | {"epoch_end": record})

    def now(self) -> dict[str, Any]:
        loss = None if self.loss is None else float(self.loss)
        return {"rank": self.rank, "phase": self.phase, "epoch": self.epoch_index, "step": self.step, "loss": loss}

    def write(self, event: dict[str, Any]) -> None:
        with self.lock:
            self.file.write(json.dumps({"t": time.monotonic(), **event}) + "\n")

    def beat(self) -> None:
        last, written_at = None, 0.0
        while True:
            where = (self.phase, self.epoch_index, self.step)
            if where != last or time.monotonic() - written_at > 1:
                last, written_at = where, time.monotonic()
                self.write(self.now())
            time.sleep(BEAT_S)
