"""The same rows on several hosts, under torchrun, which starts the ranks and lets them find each other.

On every host:

    torchrun --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint HOST:29400 \\
        -m labkit.torchrun ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse --profile quick

The host of rank 0 keeps the result, in the same folder as a run on one host. torchrun handles restarts and
time-outs of the rendezvous; GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME choose the network interface.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.system.tuning import waiting_settings

os.environ.update(waiting_settings())  # before torch is imported, which reads them once

import torch.distributed as dist

from labkit.data.datasets import prepare
from labkit.engine import loop
from labkit.engine.measure import Progress
from labkit.engine.worker import take_device, tune_process
from labkit.processes.begin import describe
from labkit.proof.prove import marks, proof_for
from labkit.rows.fields import SpecError
from labkit.rows.fit import Needs, fit, process_group
from labkit.rows.params import profile as read_profile
from labkit.rows.spec import Spec
from labkit.runs.folders import claimed, keep, label_of, opening, proofs_folder, runs_folder
from labkit.runs.plan import check_samples, parsed
from labkit.runs.train import figures, of_repeat, seen_of_others
from labkit.system.files import refuse_links
from labkit.system.lifeline import end_with_parent
from labkit.system.machine import Watch, this_machine
from labkit.terminal import print_all_letters, print_message, read_sets

GIVEN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

GRACE_S = 5.0  # for the other ranks to say what they saw
TERM_S = 10.0  # how long a rank lives on after SIGTERM; torchrun waits 30 s before it kills


def train(name: str, profile: str, overrides: dict[str, Any], repeat: int) -> None:
    """Train a row as one rank of those that torchrun started. Raises SpecError or Needs for a row that cannot run so."""
    began, called_at = time.monotonic(), time.time()
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    processes, ranks_here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    spec = fit(parsed(name, {**read_profile(profile).fields, **overrides}), this_machine(), ranks_here)
    spec = of_repeat(spec, repeat)
    check_samples(spec)
    if processes != spec.processes:
        raise SpecError(
            f"{spec.name} is {spec.processes} processes, and torchrun started {processes}: make --nnodes times --nproc-per-node {spec.processes}"
        )
    proof = proof_for(spec, proofs_folder(), start=False) if rank == 0 else None
    if proof is not None and not proof:
        raise SpecError(str(proof))
    tune_process(spec.threads_per_rank)
    if local_rank == 0:
        prepare(spec.dataset)
    dist.init_process_group(process_group(spec) or "gloo", init_method="env://", timeout=timedelta(seconds=spec.timeout_s))
    store = dist.distributed_c10d._get_default_store()  # torchrun's own, which a dead rank does not take with it
    dist.barrier()  # the host's first rank has fetched the data
    label = label_of(read_profile(profile), overrides)
    folder = runs_folder() / label / spec.name / str(repeat)
    if rank == 0:
        with claimed(folder):
            attempt, watch = opening(spec, label, repeat, folder, called_at), Watch(os.getppid())
            attempt |= {"hosts": processes // ranks_here, "launcher": "torchrun"}
            terminated = {"status": "interrupted", "reason": "rank 0 was ended by SIGTERM", "rank": 0}
            last_words(lambda: keep(folder, attempt | terminated, began))
            try:
                outcome = figures(rank_results(spec, rank, local_rank, folder, began), 0.0)
            except BaseException as error:
                keep(folder, attempt | first_cause(describe(error), store, processes), began)
                raise
            for measured in outcome["ranks"]:
                measured["first_step_at"] += began  # each rank told it from its own beginning
            outcome["strategy"] |= marks(spec, proof)
            keep(folder, attempt | outcome | seen_of_others(watch), began)
            print(folder / "result.json")
    else:
        last_words()
        try:
            rank_results(spec, rank, local_rank, folder, began)
        except BaseException as error:
            store.set(f"labkit/error{rank}", json.dumps(describe(error)))
            raise
    dist.barrier()
    dist.destroy_process_group()


def check_environment() -> None:
    """Raise SpecError unless torchrun, or what stands for it, told this process who it is."""
    for variable in GIVEN:
        if not (value := os.environ.get(variable)) or (variable != "MASTER_ADDR" and not value.isdecimal()):
            state = f"is {value!r}, not a number" if value else "is not set"
            raise SpecError(
                f"{variable} {state}: labkit.torchrun is started by torchrun, which sets {', '.join(GIVEN)}; on one host use `labkit run NAME`"
            )


def last_words(say: Callable[[], None] = lambda: None) -> None:
    """After SIGTERM, live on for TERM_S, say something, and leave. torchrun sends it to all ranks of a host as soon as one has
    died: the others must still find out which one it was, and tell."""

    def leave() -> None:
        say()
        os._exit(128 + signal.SIGTERM)

    def later(*_: Any) -> None:
        timer = threading.Timer(TERM_S, leave)
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, later)


def first_cause(seen: dict[str, Any], store: Any, processes: int) -> dict[str, Any]:
    """What ended a run that rank 0 saw failing with the error `seen`: which rank, and why. A rank that only lost another one says
    so within GRACE_S; one that says nothing is the one that was lost."""
    errors, until = {0: seen}, time.monotonic() + GRACE_S
    while time.monotonic() < until and len(errors) < processes and all(error["lost_peer"] for error in errors.values()):
        for rank in range(1, processes):
            if rank not in errors and store.check([f"labkit/error{rank}"]):
                errors[rank] = json.loads(store.get(f"labkit/error{rank}"))
        time.sleep(0.1)
    causes = [rank for rank, error in errors.items() if not error["lost_peer"]]
    silent = [rank for rank in range(processes) if rank not in errors]
    rank = (causes or silent or [0])[0]
    if rank in errors:
        reason, detail = f"rank {rank} failed: {errors[rank]['error']}", errors[rank]["traceback"]
    else:
        silently = f"rank {rank} ended without an error message, as a killed process does"
        reason, detail = f"{silently}; the other ranks lost the connection to it", seen["traceback"]
    status = "oom" if rank in errors and errors[rank]["oom"] else "failed"
    return {"status": status, "reason": reason, "detail": detail, "rank": rank}


def rank_results(spec: Spec, rank: int, local_rank: int, folder: Path, began: float) -> list[dict[str, Any]]:
    """Train as this rank; on rank 0, what all ranks measured, by rank. Hosts share no clock, so every time is told in seconds
    since this rank `began`."""
    refuse_links(folder, runs_folder())
    (folder / "events").mkdir(parents=True, exist_ok=True)
    device = take_device(spec, rank, local_rank)
    events = folder / f"events/rank{rank}.jsonl"
    events.unlink(missing_ok=True)
    measured = loop.train(spec, rank, device, prepare(spec.dataset), Progress(events, rank))
    measured["first_step_at"] -= began
    for epoch in measured["epochs"]:
        epoch["ended_at"] -= began
    ranks: list[Any] = [None] * spec.processes
    dist.gather_object(measured, ranks if rank == 0 else None)
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
        print_message(error)
        raise typer.Exit(1 if isinstance(error, OSError) else 2) from None


if __name__ == "__main__":
    typer.run(main)
