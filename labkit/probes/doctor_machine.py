"""The checks of `labkit doctor` that look at the machine itself: system, cores, arithmetic, environment, memory, network.

Each is a generator of (level, text) or (level, text, remedy); the level is "ok", "note" or "problem".
"""

import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from labkit.system import machine, tuning

MIB, GIB = 2**20, 2**30
SHARED_MEMORY_NEEDED, MEMORY_NEEDED = 64 * MIB, GIB

Findings = Iterator[tuple[str, ...]]  # level, text and, where there is one, remedy


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
    if not (found := tuning.outside_settings()):
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
