"""`labkit doctor`: what of this machine could spoil a run, and what to do. A check yields (level, text) or (level, text, remedy)."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from labkit.processes.strays import workers
from labkit.rows.params import chinese_letters
from labkit.system import machine
from labkit.system.fonts import font_with

MIB, GIB = 2**20, 2**30
SHARED_MEMORY_NEEDED, MEMORY_NEEDED = 64 * MIB, GIB

Findings = Iterator[tuple[str, ...]]  # level, text and, where there is one, remedy


@dataclass
class Finding:
    """level: "ok"; "note": good to know, or makes runs slower; "problem": runs will fail. what: the name of the check. remedy: what
    to do, "" if nothing."""

    level: str
    what: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.level:8} {self.what:14} {self.text}"
        return f"{line}\n{'':23} -> {self.remedy}" if self.remedy else line


def examine() -> list[Finding]:
    """The findings of all checks, in the order of CHECKS. A check that raises becomes a finding of level "problem"."""
    findings = []
    for check in CHECKS:
        what = check.__name__.replace("_", " ")
        try:
            findings += [Finding(level, what, *words) for level, *words in check()]
        except Exception as error:
            findings.append(Finding("problem", what, f"could not be checked: {type(error).__name__}: {error}"))
    return findings


def system() -> Findings:
    """Operating system, kernel and Python."""
    text = f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}"
    numbers = [int(number) for number in re.findall(r"\d+", platform.release())[:2]]
    if sys.platform != "linux":
        yield "note", text, "made for Linux: on other systems the ranks of a killed launcher may live on for a moment"
    elif numbers < [5, 5]:
        yield "note", text, "kernels before 5.5 are known to hang training with several processes; use a newer one"
    else:
        yield "ok", text


def cores() -> Findings:
    """How many cores this process may use, and whether something else uses them now."""
    usable, busy = machine.available_cores(), os.getloadavg()[0]
    text = f"{usable} of {os.cpu_count()} can be used; load of the last minute {busy:.1f}"
    share = machine.cgroup_limit("cpu.max", lambda quota, period: int(quota) / int(period))
    if share is not None and share < usable:
        yield "note", f"{text}; a container may use {share:g} of them", "set threads_per_rank so that all ranks together fit"
    elif usable < 2:
        yield "note", text, "two ranks will share it, and no row with two can be faster than one"
    elif busy > usable / 2:
        yield "note", text, "other programs use the cores: figures measured now will be too low"
    else:
        yield "ok", text


def arithmetic() -> Findings:
    """Does the processor have instructions for bf16? Nothing is said where that is unknown."""
    has_bf16 = machine.computes_in_bf16()
    if has_bf16:
        yield "ok", "the processor computes with bf16 itself"
    elif has_bf16 is not None:
        remedy = "on this CPU rows with AMP may take several times as long as rows without; a CPU that has bf16 is different"
        yield "note", "the processor imitates bf16", remedy


def environment() -> Findings:
    """Variables of the environment that change speed."""
    from labkit.system.tuning import outside_settings

    if not (found := outside_settings()):
        yield "ok", "nothing is set that changes the speed of torch, its libraries or malloc"
    for name, value in found.items():
        yield "note", f"{name}={value} may change speed", f"unset {name}, unless you mean it: results are kept apart by it"


def memory() -> Findings:
    """Free memory, of the machine or of its container."""
    free, total = psutil.virtual_memory().available, psutil.virtual_memory().total
    limit, used = machine.cgroup_limit("memory.max", int), machine.cgroup_limit("memory.current", int)
    if limit is not None and limit < total:
        free, total = min(free, int(limit - (used or 0))), int(limit)
    text = f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"
    if free < MEMORY_NEEDED:
        yield "problem", text, "a rank needs about 0.5 GiB: close something, or set a smaller batch_per_rank and width"
    else:
        yield "ok", text


def shared_memory(folder: Path = Path("/dev/shm")) -> Findings:
    """Room in the shared memory, through which DataLoader's processes send their images."""
    remedy = "start the container with --shm-size=1g, or keep loader_workers=0: DataLoader processes pass images through it"
    if not folder.is_dir():
        yield "note", f"there is no {folder}", remedy
    elif not os.access(folder, os.W_OK):
        yield "problem", f"{folder} cannot be written", f"chmod 1777 {folder}"
    else:
        space = shutil.disk_usage(folder)
        text = f"{space.free / MIB:.0f} MiB free of {space.total / MIB:.0f} in {folder}"
        if space.free < SHARED_MEMORY_NEEDED:
            yield "note", text, remedy
        else:
            yield "ok", text


def loopback() -> Findings:
    """Can the ranks of this machine reach each other?"""
    try:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(1)
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        yield "problem", f"127.0.0.1 does not answer: {error}", f"bring it up: ip link set {machine.loopback()} up"
        return
    if machine.loopback() in psutil.net_if_addrs():
        yield "ok", f"127.0.0.1 answers on {machine.loopback()}"
    else:
        yield "problem", f"no network interface is called {machine.loopback()}", "gloo looks for it under this name; rename it"


def torch_build() -> Findings:
    """Can a rank start and import torch, and which backends does torch have?"""
    from labkit.processes.diagnose import RunFailed
    from labkit.processes.launch import in_a_rank

    try:
        answer = in_a_rank("labkit.probes.doctor:torch_of_a_rank")
    except RunFailed as failed:
        remedy = f'`{sys.executable} -c "import torch"` shows whether torch is the reason; if so, `rm -r .venv && make setup`'
        yield "problem", f"no rank could start and import torch: {failed.reason}", remedy
        return
    gloo, nccl = ("available" if answer[name] else "missing" for name in ("gloo", "nccl"))
    text = f"{answer['version']}; gloo {gloo}, nccl {nccl}"
    if answer["gloo"]:
        yield "ok", text
    else:
        yield "problem", text, "rows with several ranks need gloo: install an official build of torch"


def torch_of_a_rank(**_: Any) -> dict[str, Any]:
    """In a rank's process: torch's version, and whether it has the backends gloo and nccl."""
    import torch
    import torch.distributed as dist

    available = {name: dist.is_available() and getattr(dist, f"is_{name}_available")() for name in ("gloo", "nccl")}
    return {"version": torch.__version__} | available


def cuda() -> Findings:
    """The CUDA devices."""
    devices = machine.this_machine().cuda
    for index, name in enumerate(devices):
        yield "ok", f"device {index}: {name}"
    if not devices:
        yield "note", "no device: rows that can run on the CPU do so, other rows say what they need"
    elif len(devices) == 1:
        yield "note", "one device: rows with two ranks need two", "their gloo rows run with --set device=cpu"


def fonts() -> Findings:
    """Is there a font for the Chinese titles of plots?"""
    if name := font_with(chinese_letters()):
        yield "ok", f"{name} has the characters of the Chinese titles"
    else:
        yield "note", "no font has Chinese characters: plots can only be labelled in English", "apt-get install fonts-noto-cjk"


def data_sets() -> Findings:
    """Where the images of each data set are, or how to get them."""
    from labkit.data.datasets import where
    from labkit.rows.catalog import DATASETS

    for name in DATASETS:
        text = where(name)
        if text.startswith("not here: "):
            yield "problem", f"{name}: not here", text.removeprefix("not here: ")
        else:
            yield "note" if "can be fetched" in text else "ok", f"{name}: {text}"


def runs_folder() -> Findings:
    """Can results be written, and is there room for them?"""
    from labkit.runs import folders

    folder = folders.runs_folder().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        yield "problem", f"{existing}: {error.strerror}", "set LABKIT_RUNS to a folder that can be written"
        return
    text = f"{folder}: {shutil.disk_usage(existing).free / GIB:.1f} GiB free"
    if shutil.disk_usage(existing).free < folders.FREE_BYTES_NEEDED:
        yield "problem", text, "free some space, or set LABKIT_RUNS to another folder"
    else:
        yield "ok", text


def processes() -> Findings:
    """Ranks that outlived their launcher, and trainings that run now."""
    stray, launchers = workers()
    if stray:
        time.sleep(1)  # if their launcher has just ended, they will end in a moment
        stray &= workers()[0]
    if stray:
        numbers = " ".join(map(str, sorted(stray)))
        yield "problem", f"workers without a launcher: {numbers}", f"end them: kill -9 {numbers}"
    for pid in sorted(launchers):
        yield "note", f"process {pid} is training now", "wait for it: two trainings at once slow each other down"
    if not stray and not launchers:
        yield "ok", "no stray workers, and no other training"


CHECKS = (
    system,
    cores,
    arithmetic,
    environment,
    memory,
    shared_memory,
    loopback,
    torch_build,
    cuda,
    fonts,
    data_sets,
    runs_folder,
    processes,
)
