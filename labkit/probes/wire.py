"""A probe: what a message costs. It times an all-reduce of several sizes, by the backend and by our own ring, and a memory copy.

time = latency + bytes / bandwidth (the model of Hockney, 1994). For a small message the latency counts, for a large one the
bytes: `fit` takes the latency from the smallest message and the bandwidth from the two largest.

That latency is of ranks that do nothing but send. `latency` measures it again after what ranks do in a training step.
"""

import hashlib
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from labkit.engine.job import Job
from labkit.processes import launch
from labkit.rows.fields import SpecError
from labkit.runs.folders import claimed, commit, runs_folder, surroundings
from labkit.system.files import read_kept, write_json
from labkit.system.machine import this_machine

SIZES = tuple(2**k for k in range(10, 27, 2))  # 1 KiB to 64 MiB
LARGE = 2**24  # bytes; from this size on there are at most three turns: one of 64 MiB takes 80 ms between two CPU ranks
WAYS = {"all_reduce": "all-reduce ({backend})", "ring": "our own ring all-reduce", "copy": "memory copy in one rank"}


BEFORE = {  # what a rank does before it sends a message of one number -> in words
    "message": "other messages, without a pause",
    "pause": "a pause of 20 ms",
    "cache": "20 ms of computing in the caches",
    "memory": "20 ms of copying 64 MiB",
}
PAUSE_S = 0.02


def wire(
    ranks: int = 2, sizes: tuple[int, ...] = SIZES, turns: int = 7, backend: str = "gloo", fresh: bool = False
) -> list[dict[str, Any]]:
    """A dict for each way (a key of WAYS) and size: way, backend, ranks, bytes, median_s, min_s, max_s, over `turns` repetitions
    (at most three from LARGE bytes on). `sizes`: in bytes. The result is kept in runs/probes/wire/, and read again while
    nothing has changed; fresh=True measures again.

    Raises SpecError for a wrong number of ranks and for a backend that this machine cannot run; RunFailed if a rank fails."""
    if backend not in ("gloo", "nccl"):
        raise SpecError(f"backend={backend!r}: must be gloo or nccl")
    if not 2 <= ranks <= 64:
        raise SpecError(f"ranks={ranks!r}: must be from 2 to 64")
    if backend == "nccl" and len(this_machine().cuda) < ranks:
        raise SpecError(
            f"backend=nccl: needs {ranks} CUDA devices, this machine has {len(this_machine().cuda)}; use backend=gloo"
        )
    folder = runs_folder() / "probes/wire" / f"{backend}-{ranks}-{turns}-{max(sizes)}"
    about = surroundings() | {"sizes": list(sizes), "probe": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]}
    kept = None if fresh else read_kept(folder / "wire.json", about)
    if kept is None:
        with claimed(folder):
            group = "gloo" if backend == "gloo" else "cpu:gloo,cuda:nccl"
            threads = max(1, this_machine().cores // ranks)
            job = Job(
                "labkit.probes.wire:wire_rank",
                ranks,
                folder,
                {"sizes": list(sizes), "turns": turns, "backend": backend},
                group,
                threads,
            )
            kept = about | {"commit": commit(), "measured_at": time.time(), "lines": launch.launch(job)[0]}
            write_json(folder / "wire.json", kept)
    return kept["lines"]


def wire_rank(*, rank: int, progress: Any, sizes: list[int], turns: int, backend: str) -> list[dict[str, Any]]:
    """One rank of the benchmark, in its own process: returns the dicts of `wire`. The time of a turn is that of the slowest rank."""
    import torch  # late: keeps torch out of a process that does not need it
    import torch.distributed as dist  # late: keeps torch out of a process that does not need it

    from labkit.engine.measure import synchronise  # late: keeps torch out of a process that does not need it
    from labkit.strategy import ring_all_reduce  # late: keeps torch out of a process that does not need it

    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    lines = []
    for size in sizes:
        progress.at(f"{size} bytes")
        message = torch.zeros(max(1, size // 4), device=device)
        into = torch.empty_like(message)
        ways: dict[str, Callable[[], Any]] = {
            "all_reduce": partial(dist.all_reduce, message),
            "ring": partial(ring_all_reduce, message),
            "copy": partial(into.copy_, message),
        }
        for way, operation in ways.items():
            seconds = []
            for _ in range(1 + (turns if size < LARGE else min(turns, 3))):  # the first one is a warm-up
                dist.barrier()
                if way == "copy" and rank:  # only rank 0 copies
                    continue
                began = time.perf_counter()
                operation()
                synchronise(device)
                took = torch.tensor([time.perf_counter() - began], dtype=torch.float64)
                if way != "copy":
                    dist.all_reduce(took, op=dist.ReduceOp.MAX)
                seconds.append(float(took))
            if way == "copy" and rank:
                continue
            timed = seconds[1:]
            lines.append({"way": way, "backend": backend, "ranks": dist.get_world_size(), "bytes": message.nbytes})
            lines[-1] |= {"median_s": statistics.median(timed), "min_s": min(timed), "max_s": max(timed)}
    return lines


def latency(ranks: int = 2, turns: int = 15, fresh: bool = False) -> list[dict[str, Any]]:
    """The latency of gloo on CPUs after other work: a dict for each key of BEFORE: before, ranks, and median_s, low_s, high_s (quartiles), min_s,
    max_s of `turns`.

    It is the time of an all-reduce of one number from the last rank's call until all ranks go on, so no rank's lateness is in it.
    Kept and read again as in `wire`. Raises SpecError for a wrong number of ranks or turns; RunFailed if a rank fails."""
    if not 2 <= ranks <= 64 or not 2 <= turns <= 1000:
        raise SpecError(f"ranks={ranks!r}, turns={turns!r}: must be from 2 to 64, and from 2 to 1000")
    folder = runs_folder() / "probes/wire" / f"latency-{ranks}-{turns}"
    about = surroundings() | {"probe": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]}
    kept = None if fresh else read_kept(folder / "latency.json", about)
    if kept is None:
        with claimed(folder):
            job = Job("labkit.probes.wire:latency_rank", ranks, folder, {"turns": turns}, "gloo", 1)
            kept = about | {"measured_at": time.time(), "ranks": launch.launch(job)}
            write_json(folder / "latency.json", kept)
    lines = []
    for before in BEFORE:
        turns_of_ranks = zip(*(rank[before] for rank in kept["ranks"]), strict=True)  # [(called, went on) of each rank], by turn
        took = [max(on for _, on in turn) - max(called for called, _ in turn) for turn in turns_of_ranks]
        low, _, high = statistics.quantiles(took, n=4, method="inclusive")
        lines.append({"before": before, "ranks": ranks, "median_s": statistics.median(took), "low_s": low, "high_s": high})
        lines[-1] |= {"min_s": min(took), "max_s": max(took)}
    return lines


def latency_rank(*, rank: int, progress: Any, turns: int) -> dict[str, list[tuple[float, float]]]:
    """One rank of `latency`: for each key of BEFORE, [when it called, when it went on] of each turn, on the monotonic clock."""
    import torch  # late: keeps torch out of a process that does not need it
    import torch.distributed as dist  # late: keeps torch out of a process that does not need it

    number, small, large = torch.zeros(1), torch.ones(128, 128), torch.ones(2**24)
    into = torch.empty_like(large)

    def repeat(work: Callable[[], Any]) -> None:
        until = time.monotonic() + PAUSE_S
        while time.monotonic() < until:
            work()

    first: dict[str, Callable[[], Any]] = {
        "message": lambda: [dist.all_reduce(number) for _ in range(3)],
        "pause": lambda: time.sleep(PAUSE_S),
        "cache": lambda: repeat(lambda: small @ small),
        "memory": lambda: repeat(lambda: into.copy_(large)),
    }
    stamps: dict[str, list[tuple[float, float]]] = {before: [] for before in BEFORE}
    for turn in range(1 + turns):  # the ways take turns, so that a busy second meets them all; the first turn is a warm-up
        progress.at("latency", 0, turn)
        for before, work in first.items():
            dist.barrier()
            work()
            called = time.monotonic()
            dist.all_reduce(number)
            if turn:
                stamps[before].append((called, time.monotonic()))
    return stamps


def fit(lines: list[dict[str, Any]]) -> tuple[float, float]:
    """(latency in seconds, bandwidth in bytes per second) from the dicts of one way: the least time of the smallest message, and
    the slope between the two largest ones; infinity if the slope is not above 0."""
    small, *_, before, largest = sorted(lines, key=lambda line: line["bytes"])
    rise = largest["median_s"] - before["median_s"]
    return small["min_s"], (largest["bytes"] - before["bytes"]) / rise if rise > 0 else float("inf")
