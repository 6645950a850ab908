"""One rank's process: born from the fork server, bound to its parent's life, heard through files.

The fork server imports this module once, with everything that training needs; a rank is then a fork of it, ready in
a few milliseconds where a fresh Python would need seconds to import torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp
import torch.distributed.pipelining
import torch.distributed.tensor

from labkit.engine import loop
from labkit.engine.measure import Progress
from labkit.rows.kinds import STRATEGIES
from labkit.rows.spec import Spec
from labkit.strategy import strategy_class
from labkit.system.files import write_json
from labkit.system.lifeline import end_with_parent
from labkit.system.machine import loopback

if TYPE_CHECKING:
    from labkit.engine.job import Job

# How gloo and NCCL say that a peer is gone or silent: a plain RuntimeError, told from others by its words alone.
LOST_PEER_WORDS = ("gloo", "nccl", "timeout", "timed out", "by peer", "connection", "broken pipe", "socket", "pair closure")

for _name in STRATEGIES:  # imported by the fork server, so that no rank has to
    strategy_class(_name)


def rank_main(job: Job, rank: int) -> None:
    """The whole life of a rank. Leaves rank<r>.json (what the target returned) or rank<r>.error.json, never both."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means, and ends us
    end_with_parent()
    # DataLoader's processes are to be forks of the rank, as in a script: multiprocessing would give each rank a fork server
    # of its own, which imports torch again for five seconds and is sent a copy of the images.
    multiprocessing.set_start_method("fork" if sys.platform == "linux" else "spawn", force=True)
    log = open(job.folder / f"logs/rank{rank}.log", "a", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - open for the life of the process
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    faulthandler.enable(log)
    faulthandler.register(signal.SIGUSR1, log, all_threads=True)
    progress = None
    try:
        tune_process(job.threads)
        progress = Progress(job.folder / f"events/rank{rank}.jsonl", rank)
        join_group(job, rank)
        module, _, function = job.target.partition(":")
        result = getattr(importlib.import_module(module), function)(rank=rank, progress=progress, **job.arguments)
        progress.at("end")
        if dist.is_initialized():
            dist.barrier()  # FSDP aborts if a rank takes the group down while another still uses it
        write_json(job.folder / f"scratch/rank{rank}.json", result)
        if dist.is_initialized():
            dist.destroy_process_group()
    except BaseException as error:
        if progress:
            progress.write(progress.now())
        write_json(job.folder / f"scratch/rank{rank}.error.json", describe(error))
        traceback.print_exc()
        end(1)
    end(0)


def end(code: int) -> None:
    """Leave at once: threads that wait for a lost peer must not keep a finished rank."""
    sys.stdout.flush()
    os._exit(code)


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as plain data. `lost_peer`: it only says that another rank did not answer."""
    text = f"{type(error).__name__}: {error}"
    lowered = text.lower()
    memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in lowered
    says_so = type(error) is RuntimeError and any(word in lowered for word in LOST_PEER_WORDS)
    return {
        "at": time.time(),
        "error": text,
        "traceback": "".join(traceback.format_exception(error)),
        "oom": memory,
        "lost_peer": (says_so or isinstance(error, dist.DistError)) and not memory,
    }


def join_group(job: Job, rank: int) -> None:
    """Ranks of one host meet over a file: no port is chosen, so none can clash, and nothing listens but the loopback."""
    os.environ.update(GLOO_SOCKET_IFNAME=loopback(), NCCL_SOCKET_IFNAME=loopback())
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job.processes))
    if job.backend:
        dist.init_process_group(
            job.backend,
            init_method=f"file://{job.folder.resolve()}/scratch/rendezvous",
            rank=rank,
            world_size=job.processes,
            timeout=timedelta(seconds=job.timeout_s),
        )


def tune_process(threads: int) -> None:
    """Threads before the first parallel operation; and malloc keeps freed memory instead of handing it back.

    glibc returns every large block to the kernel at once and pays a page fault for each 4 KiB when it gets the
    next one: without this, a training step spends a tenth of its time there.
    """
    torch.set_num_threads(threads)
    with contextlib.suppress(OSError, AttributeError):  # not glibc: nothing to tune
        libc, m_trim_threshold, m_mmap_threshold = ctypes.CDLL("libc.so.6"), -1, -3
        libc.mallopt(m_mmap_threshold, 2**30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def device_of(spec: Spec, rank: int, local_rank: int) -> torch.device:
    """The device of a rank, the `local_rank`-th of its host. A CUDA server shares cuda:0 with a worker, if there is one."""
    server = spec.is_server(rank)
    if spec.device == "cpu" or (server and spec.server_device == "cpu"):
        return torch.device("cpu")
    return torch.device("cuda", 0 if spec.share_device or server else local_rank)


def train_row(*, rank: int, progress: Progress, spec: dict[str, Any], data_folder: str) -> dict[str, Any]:
    """The target that trains a row."""
    row = Spec(**spec)
    device = device_of(row, rank, rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return loop.train(row, rank, device, Path(data_folder), progress)
