"""The process that launches, and what is said of ranks that only a GPU could show."""

import os
import subprocess
import sys

import pytest
import torch

from labkit.engine.job import Job
from labkit.engine.models import build_model
from labkit.processes import launch
from labkit.processes.diagnose import NCCL_GAVE_UP, RankView, diagnose
from labkit.results import table
from labkit.results import table as results
from labkit.rows.spec import LAYERS
from labkit.runs import train
from labkit.system import machine


def cuda_spoilt(*, rank, progress):
    import torch

    return torch.cuda._is_in_bad_fork()


def test_a_rank_could_use_cuda(tmp_path):
    """The fork server must not have asked the CUDA driver for anything: its forks could then not use it."""
    assert launch.launch(Job("tests.processes.test_launch:cuda_spoilt", 1, tmp_path, backend="")) == [False]


def test_a_process_that_launches_does_not_import_torch(tmp_path):
    """It would take seconds of every notebook; and of the first row's time, if it happened while that row starts."""
    code = (
        "import ctypes, sys, labkit\n"
        "def no_driver(name): raise OSError(name)\n"  # on a machine with one, too
        "ctypes.CDLL = no_driver\n"
        "print(labkit.run('single_gpu_resnet18_bs256_cacheTrue_ampFalse', 'tiny').status[0], 'torch' in sys.modules)"
    )
    env = os.environ | {"LABKIT_RUNS": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert told.stdout.split() == ["ok", "False"], told.stderr


@pytest.mark.parametrize(
    "driver, build, devices", [(True, "2.14.1+cu130", 2), (False, "2.14.1+rocm7", 2), (False, "2.14.1+cu130", 0)]
)
def test_torch_is_asked_for_devices_where_there_may_be_some(monkeypatch, driver, build, devices):
    """With NVIDIA's driver, or a torch for AMD's, which needs none of NVIDIA's. Without either the machine has none."""

    def load(name):
        assert name == "libcuda.so.1"
        if not driver:
            raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(machine.ctypes, "CDLL", load)
    monkeypatch.setattr(machine, "version", lambda package: build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"card {i}")
    assert machine._cuda_names() == ("card 0", "card 1")[:devices]


@pytest.mark.parametrize(
    "told, bf16, name",
    [
        ("model name\t: Some CPU\nflags\t\t: fpu avx2 avx512_bf16\n", True, "Some CPU"),
        ("model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f\n", False, "Some CPU"),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", True, None),
        ("", None, None),
    ],
)
def test_what_linux_tells_of_the_processor(monkeypatch, told, bf16, name):
    monkeypatch.setattr(machine.Path, "read_text", lambda path, **_: told)
    assert machine.computes_in_bf16() is bf16
    assert machine._cpu_name() == (name or machine.platform.processor() or machine.platform.machine())


def view(tmp_path, rank, exitcode, log, step):
    path = tmp_path / f"rank{rank}.log"
    path.write_text(log)
    event = {"rank": rank, "phase": "step", "epoch": 0, "step": step, "loss": None, "t": 0.0}
    return RankView(rank=rank, pid=2**22 + 1, exitcode=exitcode, result=None, error=None, event=event, log=path)


@pytest.mark.parametrize(("log", "status", "rank"), [(f"Watchdog caught {NCCL_GAVE_UP}", "timeout", 1), ("abort", "failed", 0)])
def test_a_rank_that_nccl_ended_for_waiting_is_a_victim(tmp_path, log, status, rank):
    """The form of NCCL's message is from torch's source; no GPU has shown it to us."""
    told = diagnose([view(tmp_path, 0, -6, log, 3), view(tmp_path, 1, None, "", 3)], 20.0, None)
    assert (told.status, told.rank) == (status, rank), told.reason


def test_a_try_that_failed_after_a_result_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    small = {"epochs": 1, "width": 8, "train_samples": 512, "test_samples": 64}
    row = "single_gpu_resnet18_bs128_cacheTrue_ampFalse"
    kept = table.run(row, overrides=small)
    again = table.run(row, overrides={**small}, fresh=True)
    assert list(kept.status) == list(again.status) == ["ok"]
    monkeypatch.setattr(train, "train", lambda *_: {"status": "failed", "reason": "planted"})
    assert list(table.run(row, overrides=small, fresh=True).status) == ["failed"]
    (line,) = results.table("quick", row, small).to_dict("records")
    assert line["status"] == "ok" and line["reason"] == "a later try gave no result: failed: planted"


@pytest.mark.parametrize("model", LAYERS)
def test_where_a_pipeline_can_be_cut(model):
    assert len(build_model(model, 4, 1, 10)) == LAYERS[model]
