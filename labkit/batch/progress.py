"""How far a batch is, in words: which row trains, at which epoch, and how long it may still take, from what last time took."""

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from labkit.runs.folders import runs_folder
from labkit.runs.result import read_result
from labkit.runs.statuses import read_statuses
from labkit.system.files import Unreadable, read_json

TAIL_BYTES = 4096  # of a rank's events: more than its last line


class Watch:
    """What each notebook took last time, read before a batch begins. `label`: the name of the profile's folder."""

    def __init__(self, label: str):
        self.profile = label.partition("+")[0]
        self.last_s = {one.notebook: one.seconds for one in read_statuses(label) if one.status == "ok"}

    def took_s(self, names: Iterable[str]) -> float | None:
        """The seconds that these notebooks took last time together; None if one of them has not ended well yet."""
        seconds = [self.last_s.get(name) for name in names]
        return None if None in seconds else sum(one for one in seconds if one is not None)

    def row(self, name: str) -> str:
        """How far a row is that is being trained: `name: epoch 3 of 24, about 12 s more`; "" if none of that name is."""
        attempts = list(runs_folder().glob(f"{self.profile}*/{name}/*/attempt.json"))  # a notebook may set fields of its own
        with suppress(OSError, ValueError, KeyError, TypeError):  # it has just ended, and its files went with it
            return how_far(max(attempts, key=lambda path: path.stat().st_mtime).parent, name)
        return ""


def how_far(folder: Path, name: str) -> str:
    """How far the run in this folder is, in the form of `Watch.row`. Last time's result tells how long it takes; without one, the
    epochs that have ended."""
    attempt = read_json(folder / "attempt.json")
    if attempt["status"] != "running":
        return ""
    epochs, elapsed_s, ended = attempt["spec"]["epochs"], time.time() - attempt["started_at"], last_epoch(folder)
    last_s = None
    with suppress(Unreadable):
        last = read_result(folder / "result.json")
        last_s = last.total_time_s if last and last.spec.epochs == epochs else None
    if last_s is None and ended:
        last_s = elapsed_s * epochs / ended
    more = "" if last_s is None else f", about {duration(max(last_s - elapsed_s, 0))} more"
    return f"{name}: starting, {epochs} epochs{more}" if ended is None else f"{name}: epoch {ended + 1} of {epochs}{more}"


def last_epoch(folder: Path) -> int | None:
    """How many epochs rank 0 has ended; None before its first step."""
    try:
        text = (folder / "events/rank0.jsonl").read_bytes()[-TAIL_BYTES:]
    except FileNotFoundError:
        return None
    lines = text.rpartition(b"\n")[0].splitlines()
    event = json.loads(lines[-1]) if lines else {"phase": "start"}
    return None if event["phase"] == "start" else int(event["epoch"])


def duration(seconds: float) -> str:
    """`8 s`, `12 min`"""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
