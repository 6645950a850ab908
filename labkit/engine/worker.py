"""What one rank does: it joins the others, calls the job's target, and leaves what that returns in a file.

The fork server imports this module once, with everything that training needs; a rank is then a fork of it, ready in
a few milliseconds where a fresh Python would need seconds to import torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import sys
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
from labkit.strategies import strategy_class
from labkit.system.files import write_json
from labkit.system.machine import loopback

if TYPE_CHECKING:
    from labkit.engine.job import Job

# Imported by the fork server, so that no rank has to. A file that is broken breaks its own rows only: their ranks import it
# again, and say what is wrong with it.
for _name in STRATEGIES:
    with contextlib.suppress(Exception):
        strategy_class(_name)


def rank_main(job: Job, rank: int) -> None:
    """Call the job's target as this rank, and leave what it returns in scratch/rank<r>.json. What it raises, it raises."""
    # DataLoader's processes are to be forks of the rank, as in a script: multiprocessing would give each rank a fork server
    # of its own, which imports torch again for five seconds and is sent a copy of the images.
    multiprocessing.set_start_method("fork" if sys.platform == "linux" else "spawn", force=True)
    os.environ["LABKIT_STRATEGIES"] = job.strategies
    tune_process(job.threads)
    progress = Progress(job.folder / f"events/rank{rank}.jsonl", rank)
    try:
        join_group(job, rank)
        module, _, function = job.target.partition(":")
        result = getattr(importlib.import_module(module), function)(rank=rank, progress=progress, **job.arguments)
        progress.at("end")
        if dist.is_initialized():
            dist.barrier()  # FSDP aborts if a rank takes the group down while another still uses it
        write_json(job.folder / f"scratch/rank{rank}.json", result)
        if dist.is_initialized():
            dist.destroy_process_group()
    except BaseException:
        progress.write(progress.now())  # where it was
        raise


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
    next one: without this, a training step spends a tenth of its time there."""
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


def take_device(spec: Spec, rank: int, local_rank: int) -> torch.device:
    """The device of a rank (see `device_of`), ready for its first step.

    Convolutions of fp32 numbers may use TF32 on CUDA if the Spec says so. torch's default is the same, but it is a default, and a
    result must say what ran. Matrix products never do. See "TensorFloat-32" in torch's notes on CUDA; these two settings are those
    for torch 2.9 and later, which refuses a mixture with the older `allow_tf32`."""
    device = device_of(spec, rank, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.conv.fp32_precision = "tf32" if spec.tf32 else "ieee"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    return device


def train_row(
    *, rank: int, progress: Progress, spec: dict[str, Any], data_folder: str, only_time: bool = False
) -> dict[str, Any]:
    """The target that trains a row. `only_time`: a few steps of it, to time them."""
    row = Spec(**spec)
    device = take_device(row, rank, rank)
    return (loop.time_steps if only_time else loop.train)(row, rank, device, Path(data_folder), progress)
