"""The same rows on several hosts, under torchrun, which starts the ranks and lets them find each other.

On every host:

    torchrun --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint HOST:29400 \\
        -m labkit.torchrun ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse --profile quick

The host of rank 0 keeps the result, in the same folder as a run on one host. Choosing the network interface
(GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME), restarts and time-outs of the rendezvous are torchrun's affair.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer

from labkit.data.datasets import prepare
from labkit.engine import loop
from labkit.engine.measure import Progress
from labkit.engine.worker import device_of, tune_process
from labkit.rows.fields import SpecError
from labkit.rows.fit import Needs, fit, process_group
from labkit.rows.params import profile as read_profile
from labkit.rows.spec import Spec
from labkit.runs.folders import claimed, keep, label_of, opening, runs_folder
from labkit.runs.train import figures
from labkit.system.lifeline import end_with_parent
from labkit.system.locks import refuse_links
from labkit.system.machine import this_machine
from labkit.terminal import print_all_letters, read_sets, say

GIVEN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def train(name: str, profile: str, overrides: dict[str, Any], repeat: int) -> None:
    started_at = time.time()
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    processes, ranks_here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    spec = fit(Spec.parse(name, **{**read_profile(profile).fields, **overrides}), this_machine(), ranks_here)
    if processes != spec.processes:
        raise SpecError(
            f"{spec.name} is {spec.processes} processes, and torchrun started {processes}: make --nnodes times --nproc-per-node {spec.processes}"
        )
    tune_process(spec.threads_per_rank)
    if local_rank == 0:
        prepare(spec.dataset)
    dist.init_process_group(process_group(spec) or "gloo", init_method="env://", timeout=timedelta(seconds=spec.timeout_s))
    dist.barrier()  # the host's first rank has fetched the data
    folder = runs_folder() / label_of(profile, overrides) / spec.name / str(repeat)
    if rank == 0:
        with claimed(folder):
            attempt = opening(spec, label_of(profile, overrides), repeat, folder, started_at)
            ranks = rank_results(spec, rank, local_rank, folder)
            keep(folder, attempt | figures(ranks, started_at) | {"hosts": processes // ranks_here, "launcher": "torchrun"})
            print(folder / "result.json")
    else:
        rank_results(spec, rank, local_rank, folder)
    dist.barrier()
    dist.destroy_process_group()


def check_environment() -> None:
    """Raise SpecError unless torchrun, or what stands for it, told this process who it is."""
    for variable in GIVEN:
        if not (value := os.environ.get(variable)) or (variable != "MASTER_ADDR" and not value.isdecimal()):
            told = f"is {value!r}, not a number" if value else "is not set"
            raise SpecError(
                f"{variable} {told}: labkit.torchrun is started by torchrun, which sets {', '.join(GIVEN)}; on one host use `labkit run NAME`"
            )


def rank_results(spec: Spec, rank: int, local_rank: int, folder) -> list[dict[str, Any]]:
    """Train as this rank; on rank 0, what all ranks measured, by rank."""
    refuse_links(folder, runs_folder())
    (folder / "events").mkdir(parents=True, exist_ok=True)
    device = device_of(spec, rank, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    events = folder / f"events/rank{rank}.jsonl"
    events.unlink(missing_ok=True)
    mine = loop.train(spec, rank, device, prepare(spec.dataset), Progress(events, rank))
    ranks: list[Any] = [None] * spec.processes
    dist.gather_object(mine, ranks if rank == 0 else None)
    return ranks


def main(
    name: Annotated[str, typer.Argument(help="The row to train.")],
    profile: Annotated[str, typer.Option(help="How big.")] = "quick",
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, any field of Spec.")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="The number of the repeat, which names the folder.")] = 1,
) -> None:
    """One rank of a row, started by torchrun."""
    end_with_parent()
    print_all_letters()
    try:
        check_environment()
        train(name, profile, read_sets(set_), repeat)
    except (SpecError, Needs, OSError) as error:
        say(error)
        raise typer.Exit(1 if isinstance(error, OSError) else 2) from None


if __name__ == "__main__":
    typer.run(main)
