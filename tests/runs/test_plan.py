"""What a plan makes of rows on a machine: without CUDA, with one device, with two; and that bad input starts no process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit import Spec
from labkit.rows.params import all_names, profile, published
from labkit.runs import plan
from labkit.system.machine import Machine
from tests.helpers.refusals import refused

DDP_NCCL = "ddp_nccl_resnet18_bs128x2_cacheFalse_ampFalse"
DDP_GLOO = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
PS_GPU = "ps_gpu_mode_resnet18_bs128_workers2"
SINGLE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"


# -- the plan -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes this a machine with so many CUDA devices."""

    def become(devices: int) -> None:
        machine = Machine(cpu="some", cores=4, memory_gib=8, cuda=("some GPU",) * devices, system="Linux x86_64")
        monkeypatch.setattr(plan, "this_machine", lambda: machine)

    return become


def by_name(planned: plan.Plan) -> dict[str, plan.Planned]:
    assert len({row.name for row in planned}) == len(planned.rows), "a row is planned once"
    return {row.name: row for row in planned}


def test_without_cuda_nccl_rows_run_as_gloo_under_the_gloo_name(on_machine: Callable[[int], None]) -> None:
    on_machine(0)
    rows = by_name(plan.plan("all"))
    nccl = [name for name in all_names() if "_nccl_" in name]
    assert len(nccl) == 9
    for name in nccl:
        twin = name.replace("_nccl_", "_gloo_")
        assert rows[name].spec is None and "needs CUDA" in rows[name].reason and twin in rows[name].reason
        assert rows[twin].stands_for == [name]
        assert rows[twin].spec.backend == "gloo" and rows[twin].spec.device == "cpu"
    assert rows[PS_GPU].spec is None and "needs CUDA for its server" in rows[PS_GPU].reason
    for name in set(all_names()) - set(nccl) - {PS_GPU}:
        assert rows[name].spec.device == "cpu" and rows[name].reason == ""
    assert {name for row in rows.values() for name in row.stands_for} == set(nccl)


def test_a_row_that_is_asked_for_twice_is_planned_once(on_machine: Callable[[int], None]) -> None:
    on_machine(0)
    rows = by_name(plan.plan([1, "2", DDP_NCCL, [DDP_NCCL, 1]]))
    assert rows[DDP_GLOO].stands_for == [DDP_NCCL]


def test_one_cuda_device(on_machine: Callable[[int], None]) -> None:
    on_machine(1)
    rows = by_name(plan.plan("all"))
    for name, row in rows.items():
        if Spec.parse(name).strategy == "single":
            assert row.spec.device == "cuda"
        else:
            ranks = Spec.parse(name).world_size
            assert row.spec is None and row.reason.startswith(f"needs {ranks} CUDA devices, this machine has 1"), row
    on_cpu = by_name(plan.plan("all", overrides={"device": "cpu"}))
    assert on_cpu[DDP_GLOO].stands_for == [DDP_NCCL]
    assert "device=cpu was set" in on_cpu[DDP_NCCL].reason
    shared = by_name(plan.plan(DDP_GLOO, overrides={"share_device": True}))
    assert (shared[DDP_GLOO].spec.device, shared[DDP_GLOO].spec.backend) == ("cuda", "gloo")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("fsdp_full_resnet18_bs128x2_ampFalse", "fsdp on CUDA"),
        ("model_parallel_resnet18_bs256_cacheFalse+micro_batches=4", "micro_batches=4 on CUDA"),
    ],
)
def test_what_torch_cannot_send_over_gloo_from_a_device_is_refused(
    on_machine: Callable[[int], None], name: str, what: str
) -> None:
    """Seen on a GPU: fully_shard over gloo dies of SIGSEGV after some 40 steps, a pipeline in its first."""
    on_machine(2)
    (shared,) = plan.plan(name, overrides={"share_device": True})
    assert shared.spec is None and shared.reason.startswith(what) and "device=cpu" in shared.reason
    assert plan.plan(name).rows[0].spec.backend == "nccl"
    assert plan.plan(name, overrides={"share_device": True, "device": "cpu"}).rows[0].spec.backend == "gloo"


def test_two_cuda_devices_run_every_published_row_under_its_own_name(on_machine: Callable[[int], None]) -> None:
    on_machine(2)
    rows = by_name(plan.plan([row["experiment"] for row in published()], "reference"))
    assert list(rows) == [row["experiment"] for row in published()]
    for name, row in rows.items():
        assert row.spec is not None and row.spec.name == name and row.spec.device == "cuda" and not row.stands_for
        assert ("nccl" in name) <= (row.spec.backend == "nccl")
        assert ("gloo" in name) <= (row.spec.backend == "gloo")


def test_reference_profile_without_cuda(on_machine: Callable[[int], None]) -> None:
    on_machine(0)
    for row in plan.plan("all", "reference"):
        assert row.spec is None and "needs CUDA" in row.reason


def test_threads_are_the_cores_shared_out(on_machine: Callable[[int], None]) -> None:
    on_machine(0)
    rows = by_name(plan.plan([SINGLE, DDP_GLOO]))
    assert (rows[SINGLE].spec.threads_per_rank, rows[DDP_GLOO].spec.threads_per_rank) == (4, 2)
    assert plan.plan(DDP_GLOO, overrides={"threads_per_rank": 3}).rows[0].spec.threads_per_rank == 3


def test_a_spec_stands_as_it_is(on_machine: Callable[[int], None]) -> None:
    """A profile fills in the scale of a name; a Spec has one already, alone or in a list."""
    on_machine(0)
    spec = Spec(epochs=77)
    assert plan.plan(spec).rows[0].spec.epochs == plan.plan([spec]).rows[0].spec.epochs == 77
    assert plan.plan(spec.name).rows[0].spec.epochs == profile("quick").fields["epochs"]


def test_row_fields_can_be_set_and_change_the_name(on_machine: Callable[[int], None]) -> None:
    on_machine(0)
    assert (
        plan.plan(DDP_GLOO, overrides={"world_size": 4, "amp": True}).rows[0].name
        == "ddp_gloo_resnet18_bs128x4_cacheFalse_ampTrue"
    )


# -- bad input starts nothing -------------------------------------------------------------------------------------------


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import multiprocessing.process

    from labkit.processes import launch

    def fail(*args: Any, **kwargs: Any) -> None:
        pytest.fail("a process was started")

    for name in ("warm", "launch"):
        monkeypatch.setattr(launch, name, fail)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", fail)
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))


@pytest.mark.parametrize(
    ("rows", "arguments", "words"),
    [
        ("../x", {}, ("'../x'", "labkit rows")),
        ("../../etc", {}, ("'../../etc'", "labkit rows")),
        (77, {}, ("group 77", "known: 1, 2")),
        (["all", "nope"], {}, ("'nope'", "labkit rows")),
        (1, {"profile": "quik"}, ("'quik'", "did you mean 'quick'?")),
        (1, {"profile": "../profiles/quick"}, ("'../profiles/quick'", "known: classroom")),
        (1, {"repeats": 0}, ("repeats=0", "from 1 to 1000")),
        (1, {"repeats": "2"}, ("repeats='2'", "whole number")),
        (1, {"overrides": {"epoch": 3}}, ("'epoch'", "did you mean 'epochs'?")),
        (1, {"overrides": {"epochs": "3"}}, ("epochs='3'", "without quotes")),
        (1, {"overrides": {"lr": float("nan")}}, ("lr=nan", "finite")),
        (1, {"overrides": {"lr": -0.1}}, ("lr=-0.1", "more than 0")),
        (1, {"overrides": {"dataset": "fashion"}}, ("dataset='fashion'", "did you mean 'fashion_mnist'?")),
        ("ddp_gloo_resnet18_bs128x0_cacheFalse_ampFalse", {}, ("world_size=0", "at least 1")),
        ("ps_mode_resnet18_bs128_workers1000", {}, ("world_size=1000", "at most 63")),
        ("dp_resnet18_bs255_ngpu2_cacheFalse_ampFalse", {}, ("255", "divisor")),
        ("model_parallel_resnet18_bs256_cacheFalse", {"overrides": {"micro_batches": 3}}, ("micro_batches=3", "divisor")),
        ([DDP_GLOO, DDP_NCCL], {"overrides": {"backend": "nccl"}}, ("backend=nccl", "no CUDA here", "use backend=gloo")),
        (DDP_GLOO, {"overrides": {"train_samples": 100}}, ("batch_per_rank=128", "256 images", "more train_samples")),
        (DDP_GLOO, {"overrides": {"test_samples": 10**6}}, ("test_samples=1000000", "digits has 360", "0 for all")),
    ],
)
def test_bad_input_starts_no_process(
    no_process: None,
    on_machine: Callable[[int], None],
    tmp_path: Path,
    rows: Any,
    arguments: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    on_machine(0)
    refused(lambda: labkit.run(rows, **arguments), *words)
    assert not (tmp_path / "runs").exists()


def test_a_row_that_cannot_run_is_a_line_and_no_process(
    no_process: None, on_machine: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit.processes import launch

    on_machine(0)
    monkeypatch.setattr(launch, "warm", lambda *args: None)  # the fork server may warm up; nothing is launched
    frame = labkit.run(PS_GPU)
    assert list(frame["status"]) == ["needs"] and "CUDA" in frame["reason"][0]
