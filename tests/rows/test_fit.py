"""A row on a machine: what every `auto` becomes, threads, and what is refused; and the limits at which fields fit each other."""

from __future__ import annotations

from typing import Any

import pytest

from labkit import Spec
from labkit.rows.fit import Needs, fit, process_group
from labkit.rows.spec import LAYERS
from labkit.system.machine import Machine
from tests.helpers.refusals import refused


def machine(cores: int = 4, devices: int = 0) -> Machine:
    return Machine(cpu="some", cores=cores, memory_gib=8, cuda=("some GPU",) * devices, system="Linux x86_64")


def row(strategy: str, ranks: int = 2, **fields: Any) -> Spec:
    return Spec(strategy=strategy, world_size=ranks, **fields)


@pytest.mark.parametrize(
    ("ranks", "here", "cores", "threads"),
    [(2, None, 4, 2), (4, 2, 8, 4), (4, 1, 8, 8), (3, None, 8, 2), (4, None, 2, 1), (1, None, 6, 6)],
)
def test_the_cores_of_a_host_are_shared_by_its_ranks(ranks: int, here: int | None, cores: int, threads: int) -> None:
    """Those of other hosts have cores of their own; a rank has one thread at least."""
    fitted = fit(row("ddp", ranks), machine(cores), here)
    assert (fitted.threads_per_rank, fitted.device, fitted.backend) == (threads, "cpu", "gloo")
    assert fit(row("ddp", ranks, threads_per_rank=3), machine(cores), here).threads_per_rank == 3


@pytest.mark.parametrize(
    ("spec", "devices", "backend", "group"),
    [
        (row("ddp"), 0, "gloo", "gloo"),
        (row("ddp"), 2, "nccl", "cpu:gloo,cuda:nccl"),
        (row("ddp", share_device=True), 1, "gloo", "gloo"),  # NCCL refuses two ranks on one device
        (row("parameter_server"), 2, "gloo", "gloo"),
        (row("data_parallel"), 2, "auto", ""),
        (row("single", 1), 1, "auto", ""),
    ],
)
def test_who_carries_the_messages(spec: Spec, devices: int, backend: str, group: str) -> None:
    fitted = fit(spec, machine(devices=devices))
    assert (fitted.backend, process_group(fitted)) == (backend, group)
    assert fitted.device == ("cuda" if devices else "cpu")


def test_a_device_for_each_rank_of_this_host_is_needed() -> None:
    for ranks, here, devices in ((2, None, 1), (4, 2, 1), (4, None, 3)):
        with pytest.raises(Needs, match=rf"needs {here or ranks} CUDA devices, this machine has {devices}"):
            fit(row("ddp", ranks), machine(devices=devices), here)
    assert fit(row("ddp", 4), machine(devices=2), 2).device == "cuda"


def test_a_pipeline_has_at_most_as_many_parts_as_the_network_has_layers() -> None:
    for model, layers in LAYERS.items():
        assert row("model_parallel", layers, model=model).world_size == layers
        refused(
            lambda n=layers + 1, model=model: row("model_parallel", n, model=model), f"world_size={layers + 1}", f"{layers} parts"
        )


def test_1f1b_needs_a_slice_for_each_stage() -> None:
    assert row("model_parallel", 4, micro_batches=4, schedule="1f1b").micro_batches == 4
    refused(lambda: row("model_parallel", 4, micro_batches=2, schedule="1f1b"), "micro_batches >= 4", "not 2")
