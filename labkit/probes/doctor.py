"""What of this machine could spoil a run, and what to do about it: `labkit doctor`."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from labkit.processes.strays import workers
from labkit.rows.params import chinese_letters
from labkit.system.fonts import check_backend, font_with
from labkit.system.locks import try_folder

MIB, GIB = 2**20, 2**30
SHARED_MEMORY_NEEDED, MEMORY_NEEDED = 64 * MIB, GIB

Findings = Iterator[tuple[str, ...]]  # level, text and, where there is one, remedy


@dataclass
class Finding:
    """level: ok; note: good to know, or will cost something; problem: runs will fail. `remedy` says what to do."""

    level: str
    what: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:8} {self.what:14} {self.text}" + (f"\n{'':23} -> {self.remedy}" if self.remedy else "")


def examine() -> list[Finding]:
    """Every check, in a fixed order. A check that fails itself is a finding, not an exception."""
    findings = []
    for check in CHECKS:
        what = check.__name__.replace("_", " ")
        try:
            findings += [Finding(level, what, *words) for level, *words in check()]
        except OSError as error:  # one of ours says what to do
            text, _, remedy = str(error).partition("; ")
            findings.append(Finding("problem", what, text, remedy))
        except Exception as error:
            findings.append(Finding("problem", what, f"could not be looked at: {type(error).__name__}: {error}"))
    return findings


def system() -> Findings:
    text = f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}"
    numbers = [int(number) for number in re.findall(r"\d+", platform.release())[:2]]
    if sys.platform != "linux":
        yield "note", text, "made for Linux: elsewhere, killing a launcher may leave its ranks for a moment"
    elif numbers < [5, 5]:
        yield "note", text, "kernels before 5.5 are known to hang training with several processes; use a newer one"
    else:
        yield "ok", text


def cores() -> Findings:
    from labkit.system.machine import available_cores, cgroup_limit

    usable, busy = available_cores(), os.getloadavg()[0]
    text = f"{usable} of {os.cpu_count()} can be used; load of the last minute {busy:.1f}"
    share = cgroup_limit("cpu.max", lambda quota, period: int(quota) / int(period))
    if share is not None and share < usable:
        yield "note", f"{text}; a container may use {share:g} of them", "set threads_per_rank so that all ranks together fit"
    elif usable < 2:
        yield "note", text, "two ranks will share it, and no row with two can be faster than one"
    elif busy > usable / 2:
        yield "note", text, "something else is at work: figures measured now will be too low"
    else:
        yield "ok", text


def arithmetic() -> Findings:
    from labkit.system.machine import computes_in_bf16

    if (itself := computes_in_bf16()) is not None:
        remedy = "rows with AMP may take several times as long as without on this CPU, and say nothing of one that has bf16"
        yield ("ok", "the processor computes with bf16 itself") if itself else ("note", "the processor imitates bf16", remedy)


def environment() -> Findings:
    from labkit.system.tuning import outside_settings

    if not (found := outside_settings()):
        yield "ok", "nothing is set that changes the speed of torch, its libraries or malloc"
    for name, value in found.items():
        yield "note", f"{name}={value} may change speed", f"unset {name}, unless you mean it: results are kept apart by it"


def memory() -> Findings:
    from labkit.system.machine import cgroup_limit

    free, total = psutil.virtual_memory().available, psutil.virtual_memory().total
    limit, used = cgroup_limit("memory.max", int), cgroup_limit("memory.current", int)
    if limit is not None and limit < total:
        free, total = min(free, int(limit - (used or 0))), int(limit)
    text = f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"
    if free < MEMORY_NEEDED:
        yield "problem", text, "a rank needs about 0.5 GiB: close something, or set a smaller batch_per_rank and width"
    else:
        yield "ok", text


def shared_memory(folder: Path = Path("/dev/shm")) -> Findings:
    remedy = "start the container with --shm-size=1g, or keep loader_workers=0: DataLoader processes pass images through it"
    if not folder.is_dir():
        yield "note", f"there is no {folder}", remedy
    elif not os.access(folder, os.W_OK):
        yield "problem", f"{folder} cannot be written", f"chmod 1777 {folder}"
    else:
        space = shutil.disk_usage(folder)
        text = f"{space.free / MIB:.0f} MiB free of {space.total / MIB:.0f} in {folder}"
        yield ("note", text, remedy) if space.free < SHARED_MEMORY_NEEDED else ("ok", text)


def loopback() -> Findings:
    from labkit.system.machine import loopback as interface

    try:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(1)
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        yield "problem", f"127.0.0.1 does not answer: {error}", f"bring it up: ip link set {interface()} up"
        return
    if interface() in psutil.net_if_addrs():
        yield "ok", f"127.0.0.1 answers on {interface()}"
    else:
        yield "problem", f"no network interface is called {interface()}", "gloo looks for it by this name; call it so"


def torch_build() -> Findings:
    from labkit.processes.diagnose import RunFailed
    from labkit.processes.launch import in_a_rank

    try:
        said = in_a_rank("labkit.probes.doctor:torch_of_a_rank")
    except RunFailed as failed:
        remedy = f'`{sys.executable} -c "import torch"` shows why, if it is torch; then `rm -r .venv && make setup`'
        yield "problem", f"no rank could start and import torch: {failed.reason}", remedy
        return
    gloo, nccl = ("available" if said[name] else "missing" for name in ("gloo", "nccl"))
    text = f"{said['version']}; gloo {gloo}, nccl {nccl}"
    if said["gloo"]:
        yield "ok", text
    else:
        yield "problem", text, "rows with several ranks need gloo: install an official build of torch"


def torch_of_a_rank(**_: Any) -> dict[str, Any]:
    import torch
    import torch.distributed as dist

    there = {name: dist.is_available() and getattr(dist, f"is_{name}_available")() for name in ("gloo", "nccl")}
    return {"version": torch.__version__} | there


def cuda() -> Findings:
    from labkit.system.machine import this_machine

    devices = this_machine().cuda
    for index, name in enumerate(devices):
        yield "ok", f"device {index}: {name}"
    if not devices:
        yield "note", "no device: what can runs on the CPU, other rows say what they need"
    elif len(devices) == 1:
        yield "note", "one device: rows with two ranks need two", "their gloo rows run with --set device=cpu"


def fonts() -> Findings:
    check_backend()
    if name := font_with(chinese_letters()):
        yield "ok", f"{name} has the characters of the Chinese titles"
    else:
        yield "note", "no font has Chinese characters: plots can only be labelled in English", "apt-get install fonts-noto-cjk"


def data_sets() -> Findings:
    from labkit.data.datasets import where
    from labkit.rows.catalog import DATASETS

    for name in DATASETS:
        text = where(name)
        if text.startswith("not here: "):
            yield "problem", f"{name}: not here", text.removeprefix("not here: ")
        else:
            yield "note" if "can be fetched" in text else "ok", f"{name}: {text}"


def runs_folder() -> Findings:
    from labkit.runs import folders

    folder = folders.runs_folder().absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try_folder(there)
    text = f"{folder}: {shutil.disk_usage(there).free / GIB:.1f} GiB free"
    if shutil.disk_usage(there).free < folders.FREE_BYTES_NEEDED:
        yield "problem", text, "free some space, or set LABKIT_RUNS to another folder"
    else:
        yield "ok", text


def processes() -> Findings:
    stray, launchers = workers()
    if stray:
        time.sleep(1)  # those whose launcher has just died are about to follow it
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
