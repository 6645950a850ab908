"""The folder of a run: its name, the lock of the process that trains in it, its files, and when a kept result is still valid."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit.processes.digest import code_digest
from labkit.rows import params
from labkit.rows.spec import FIELDS, SCALE_FIELDS, Spec
from labkit.system.files import open_lock, refuse_links, remove_unless_held, take_lock, write_json
from labkit.system.machine import taken_now, this_machine, versions
from labkit.system.places import place
from labkit.system.tuning import outside_settings

FREE_BYTES_NEEDED = 64 * 2**20


def runs_folder() -> Path:
    """$LABKIT_RUNS, or runs/ of the checkout; absolute (see `places`)."""
    return place("LABKIT_RUNS", params.ROOT / "runs")


def proofs_folder() -> Path:
    """Where proofs of strategies are kept, a folder for each."""
    return runs_folder() / "probes/prove"


def label_of(profile: params.Profile, overrides: dict[str, Any]) -> str:
    """The name of the folder for a profile: its name, and the overrides that change it, as in "quick+epochs=1"."""
    scale = {k: float(v) if FIELDS[k].type == "float" else v for k, v in sorted(overrides.items()) if k in SCALE_FIELDS}
    changed = {k: v for k, v in scale.items() if profile.fields.get(k, FIELDS[k].default) != v}
    return profile.name + "".join(f"+{key}={value}" for key, value in changed.items())


def opening(spec: Spec, label: str, repeat: int, folder: Path, called_at: float) -> dict[str, Any]:
    """Write attempt.json with status "running", and return its content: every outcome of this run begins with it."""
    attempt = {"name": spec.name, "label": label, "repeat": repeat, "run_dir": str(folder), "status": "running", "reason": ""}
    attempt |= conditions(spec) | {
        "commit": commit(),
        "started_at": called_at,
        "pid": os.getpid(),
        "others_before_cores": taken_now().cores,
    }
    write_json(folder / "attempt.json", attempt)
    return attempt


def keep(folder: Path, outcome: dict[str, Any], began: float) -> None:
    """End a run that `began` at this time of the monotonic clock (s). A result replaces the last result; a failure is written to
    attempt.json, and the last result stays."""
    outcome["total_time_s"] = time.monotonic() - began
    for rank in outcome.get("ranks", []):
        rank["first_step_at"] += outcome["started_at"] - began  # as a date, like all that a result tells
    write_json(folder / ("result.json" if outcome["status"] == "ok" else "attempt.json"), outcome)
    if outcome["status"] == "ok":
        (folder / "attempt.json").unlink()


def conditions(spec: Spec) -> dict[str, Any]:
    """What a kept result and a new run must have in common, so that the result is still valid for the run."""
    return {"spec": spec.to_dict()} | surroundings() | {"code": code_digest(spec.strategy)}


def surroundings() -> dict[str, Any]:
    """What every figure depends on besides its row: machine, versions, code, and variables that change speed."""
    about = {"machine": this_machine().to_dict(), "versions": versions(), "code": code_digest()}
    return about | {"environment": outside_settings()}


def commit() -> str:
    """The commit of this checkout, with `+` if labkit/ or params/ have changes that are not committed; "unknown" outside a
    checkout."""
    git = ["git", "-C", str(params.ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "labkit", "params"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Lock a run's folder, so that only this process trains in it.

    Raises OSError before anything is trained; the message says what to do."""
    try:
        refuse_links(folder, runs_folder())
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        file = open_lock(folder / ".lock")
    except OSError as error:
        if error.errno is None:  # from refuse_links or open_lock, with a message that says what to do
            raise
        raise OSError(
            f"{folder}: cannot keep results there ({error.strerror}); set LABKIT_RUNS to a folder that can be written"
        ) from error
    with file:
        if free < FREE_BYTES_NEEDED:
            raise OSError(
                f"{folder}: {free / 2**20:.0f} MiB free, a run needs {FREE_BYTES_NEEDED / 2**20:.0f}; free some space or set LABKIT_RUNS"
            )
        try:
            take_lock(file, folder / ".lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"{folder}: another labkit is training this row right now; wait for it, or set LABKIT_RUNS to another folder"
            ) from None
        for draft in folder.glob(".*.json.*"):  # of a process that was killed while it wrote
            draft.unlink()
        yield


def clear_abandoned() -> None:
    """Remove what the ranks of killed launchers left for them: the `scratch` of every run that nobody holds."""
    folders = ("*/*/*", "*/*/trace/*", "*/rounds")
    for scratch in [scratch for folder in folders for scratch in runs_folder().glob(f"{folder}/scratch")]:
        remove_unless_held(scratch, scratch.parent / ".lock")


def held(folder: Path) -> bool:
    """Is a process training in this folder? The kernel releases a lock when the process that holds it ends, for any reason."""
    try:
        with open_lock(folder / ".lock", create=False) as file:
            take_lock(file, folder / ".lock", fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno is not None:
            raise
        return False  # the lock is a link or a pipe: labkit never trains with such a lock
    return False
