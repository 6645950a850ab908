"""`labkit bench`: what the engine costs and saves, compared with plain PyTorch and with the limits of the machine.

On a shared machine the speed changes with time. So every comparison runs its sides one after the other, several times, and
uses the ratio within each turn:

    turn 1   A B C      ratio A / B of this turn
    turn 2   B C A      ratio A / B of this turn      the order changes, so that no side is always the first
    turn 3   C A B      ...                           reported: median, least and greatest of the ratios

Nothing here is a test. The figures go into runs/bench/.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labkit.probes.wire import wire
from labkit.processes import fork_server
from labkit.processes.digest import code_digest
from labkit.rows.fields import SpecError, nearest
from labkit.rows.fit import fit
from labkit.rows.spec import Spec
from labkit.runs import folders
from labkit.runs.result import NoResult, Result
from labkit.runs.train import run_once
from labkit.system.files import write_json
from labkit.system.machine import this_machine
from labkit.system.places import helper_environment

DDP = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
FASHION = {
    "dataset": "fashion_mnist",
    "image_size": 28,
    "width": 16,
    "epochs": 2,
    "train_samples": 8192,
    "test_samples": 2000,
    "lr": 0.1,
    "device": "cpu",
}


def measured(name: str, **fields: Any) -> Result:
    """One fresh run of a row; raises if it gave no result."""
    spec = fit(Spec.parse(name, **fields), this_machine())
    outcome = run_once(spec, "bench", fresh=True)
    if isinstance(outcome, NoResult):
        raise RuntimeError(f"{name}: {outcome.status}: {outcome.reason}")
    return outcome


def in_turns(sides: dict[str, Callable[[], dict[str, float]]], turns: int) -> Iterator[dict[str, dict[str, float]]]:
    """Yields, for each turn, the figures of every side by name. The order of the sides changes from turn to turn."""
    names = list(sides)
    for turn in range(turns):
        first = turn % len(names)
        yield {name: sides[name]() for name in names[first:] + names[:first]}


def ratios(turns: list[dict[str, dict[str, float]]], over: str, under: str, key: str) -> dict[str, float]:
    """How many times the figure `key` of side `over` is that of side `under`, within each turn: median, min, max, turns."""
    values = [turn[over][key] / turn[under][key] for turn in turns]
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "turns": len(values)}


def medians(turns: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The median of each side's figures over the turns."""
    return {side: {key: statistics.median(turn[side][key] for turn in turns) for key in turns[0][side]} for side in turns[0]}


def tutorial(turns: int) -> dict[str, Any]:
    """Training throughput compared with DDP as in the tutorials; Fashion-MNIST 8,192, width 16, 2 ranks x 128, one thread each."""
    environment = {**os.environ, **helper_environment()}

    def plain(workers: int) -> dict[str, float]:
        command = [sys.executable, "-m", "labkit.probes.plain_ddp", "--workers", str(workers)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True, env=environment)
        return json.loads(done.stdout.splitlines()[-1])

    def ours(name: str) -> dict[str, float]:
        outcome = measured(name, **FASHION, threads_per_rank=1)
        return {"images_per_s": outcome.images_per_s, "accuracy_pct": outcome.epochs[-1].test_acc_pct}

    done = list(
        in_turns(
            {
                "plain, loader in the process": lambda: plain(0),
                "plain, two loader processes": lambda: plain(2),
                "labkit, cache false": lambda: ours(DDP),
                "labkit, cache true": lambda: ours(DDP.replace("cacheFalse", "cacheTrue")),
            },
            turns,
        )
    )
    of_side = medians(done)
    best = max((side for side in of_side if side.startswith("plain")), key=lambda side: of_side[side]["images_per_s"])
    return {
        "medians": of_side,
        "cache false / better plain (wanted: 1.15)": ratios(done, "labkit, cache false", best, "images_per_s"),
        "cache true / better plain (wanted: 1.5)": ratios(done, "labkit, cache true", best, "images_per_s"),
    }


def two_ranks(turns: int) -> dict[str, Any]:
    """DDP on two ranks with one thread each compared with one process with two threads, on the same global batch of 256."""
    single = "single_gpu_resnet18_bs256_cacheTrue_ampFalse"

    def rate(name: str, threads: int) -> dict[str, float]:
        return {"images_per_s": measured(name, **FASHION, threads_per_rank=threads).images_per_s}

    sides = {
        "ddp 2 x 1 thread": lambda: rate(DDP.replace("cacheFalse", "cacheTrue"), 1),
        "single, 2 threads": lambda: rate(single, 2),
    }
    done = list(in_turns(sides, turns))
    return {
        "medians": medians(done),
        "ddp / single (wanted: 0.95)": ratios(done, "ddp 2 x 1 thread", "single, 2 threads", "images_per_s"),
    }


def startup(turns: int) -> dict[str, Any]:
    """Seconds from the call to the first step of a second run; and seconds that a fresh Python for each rank takes to import torch."""
    small = {"epochs": 1, "width": 8, "train_samples": 512, "test_samples": 64}
    names = [
        DDP,
        "single_gpu_resnet18_bs256_cacheTrue_ampFalse",
        "ps_mode_resnet18_bs128_workers2",
        "fsdp_full_resnet18_bs128x2_ampFalse",
    ]
    measured(DDP, **small)
    figures: dict[str, Any] = {}
    for name in names:
        seconds = [measured(name, **small).startup_s for _ in range(turns)]
        figures[f"{name} (wanted: 0.5 s)"] = {
            "median": statistics.median(seconds),
            "min": min(seconds),
            "max": max(seconds),
            "turns": turns,
        }
    began = time.perf_counter()
    environment = {**os.environ, **helper_environment()}
    both = [subprocess.Popen([sys.executable, "-c", "import labkit.engine.worker"], env=environment) for _ in range(2)]
    for process in both:
        process.wait()
    figures["two fresh Pythons importing the worker"] = {"median": time.perf_counter() - began, "turns": 1}
    return figures


def floors(turns: int) -> dict[str, Any]:
    """The limits of a step: a memory copy and an all-reduce of as many bytes as ResNet-18's gradients have (gloo, two ranks)."""
    lines = wire(sizes=(1024, 4 * 11_173_962), turns=max(5, turns), fresh=True)
    return {f"{line['way']}, {line['bytes']} bytes": {"median_ms": 1e3 * line["median_s"]} for line in lines}


BENCHES = {function.__name__: function for function in (tutorial, two_ranks, startup, floors)}


def main(names: list[str], pairs: int = 5) -> Path:
    """Run the named benchmarks, or all if none is named, with `pairs` turns each. Prints the figures and returns the file in
    runs/bench/ that keeps them. Raises SpecError for an unknown name."""
    import rich  # late: keeps rich out of a process that does not need it

    for name in names:
        if name not in BENCHES:
            raise SpecError(f"benchmark '{name}'{nearest(name, BENCHES)}")
    fork_server.warm(wait=True)
    figures: dict[str, Any] = {"machine": this_machine().to_dict(), "commit": folders.commit(), "code": code_digest()}
    for name in names or BENCHES:
        rich.print(f"[bold]{name}[/]: {BENCHES[name].__doc__}")
        figures[name] = BENCHES[name](pairs)
        rich.print_json(data=figures[name])
    path = folders.runs_folder() / "bench" / f"{time.strftime('%Y-%m-%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, figures)
    rich.print(f"kept in {path}")
    return path
