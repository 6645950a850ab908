"""What is set in the environment and changes speed: part of what a kept result must share, and told in the report."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing import forkserver
from typing import Any

import pytest

from labkit.processes import fork_server
from labkit.processes.launch import in_a_rank
from labkit.report.source import from_folders
from labkit.report.view import Found, view
from labkit.rows.spec import Spec
from labkit.runs import train
from labkit.runs.folders import conditions
from labkit.system.tuning import FAMILIES, outside_settings, settings_mark
from tests.helpers.made_up import CPU, put, use, written
from tests.runs.test_row_figures import rank

SINGLE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"
DDP = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
DETAIL = {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}
COUNT = [
    ("TORCH_DISTRIBUTED_DEBUG", "DETAIL"),
    ("OMP_WAIT_POLICY", "passive"),
    ("GOMP_SPINCOUNT", "0"),
    ("KMP_BLOCKTIME", "0"),
    ("MKL_ENABLE_INSTRUCTIONS", "SSE4_2"),
    ("ATEN_CPU_CAPABILITY", "default"),
    ("ONEDNN_MAX_CPU_ISA", "SSE41"),
    ("DNNL_VERBOSE", "1"),
    ("NCCL_P2P_DISABLE", "1"),
    ("GLOO_DEVICE_TRANSPORT", "TCP_TLS"),
    ("MALLOC_ARENA_MAX", "1"),
    ("GLIBC_TUNABLES", "glibc.malloc.check=3"),
    ("LD_PRELOAD", "libjemalloc.so"),
    ("CUDA_LAUNCH_BLOCKING", "1"),
    ("PYTORCH_NO_CUDA_MEMORY_CACHING", "1"),
]
DO_NOT = [
    ("OMP_NUM_THREADS", "1"),  # torchrun sets it; torch.set_num_threads is called after
    ("GLOO_SOCKET_IFNAME", "lo"),
    ("TORCH_HOME", "/x"),
    ("NCCL_VERSION", "2.27"),
    ("KMP_INIT_AT_FORK", "FALSE"),
    ("TORCHELASTIC_RUN_ID", "7"),
    ("TORCH_DISTRIBUTED_DEBUG", ""),
    ("PATH", "/bin"),
]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in outside_settings():
        monkeypatch.delenv(name)
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))


@pytest.mark.parametrize(("name", "value"), COUNT)
def test_what_changes_speed_counts(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert outside_settings() == {name: value}
    assert conditions(Spec())["environment"] == {name: value}


@pytest.mark.parametrize(("name", "value"), DO_NOT)
def test_what_does_not_is_left_out(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert outside_settings() == {} and settings_mark() == ""


def test_what_torch_and_labkit_set_themselves_is_left_out() -> None:
    """A process that trained, and one that did not, must agree on the conditions of a result."""
    code = "import sklearn, torch.distributed.run; from labkit.engine import job, worker; from labkit.system import tuning\n"
    code += "worker.tune_process(1); worker.join_group(job.Job('', 1, None, backend=''), 0)\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "print(tuning.outside_settings())"], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "{}", done.stderr


def test_a_result_under_other_settings_is_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def pretend(spec: Spec, folder: Any, data: Any, called_at: float, on_progress: Any) -> dict[str, Any]:
        trained.append(dict(outside_settings()))
        return train.figures([rank(0, [0, 1], 100.0)], called_at)

    monkeypatch.setattr(train, "train", pretend)
    monkeypatch.setattr("labkit.processes.fork_server.warm", lambda wait=False: None)
    row = Spec(device="cpu", backend="auto", threads_per_rank=1)
    train.run_once(row, "tiny")
    train.run_once(row, "tiny")
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "DETAIL")
    train.run_once(row, "tiny")
    train.run_once(row, "tiny")
    assert trained == [{}, DETAIL], "each settings once"


def setting(**_: Any) -> str:
    import os

    return os.environ.get("TORCH_DISTRIBUTED_DEBUG", "")


def test_ranks_run_under_the_settings_that_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that is made after the fork server started, as in a cell: it would count as noted, and reach no rank."""
    target = "tests.system.test_tuning:setting"
    assert in_a_rank(target) == ""
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    fork_server.warm()
    assert forkserver._forkserver._forkserver_pid == server, "nothing changed"  # type: ignore[attr-defined]
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "DETAIL")
    assert in_a_rank(target) == "DETAIL"


def test_the_report_names_the_rows_and_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("labkit.plots.overviews.save_plots", lambda *_: [])
    use(monkeypatch, CPU)
    put(SINGLE)
    assert not [note for note in view(Found(from_folders("quick", {}), tmp_path))["notes"] if note["kind"] == "environment"]
    put(DDP, environment=DETAIL)
    (note,) = [note for note in view(Found(from_folders("quick", {}), tmp_path))["notes"] if note["kind"] == "environment"]
    assert note == {"kind": "environment", "settings": "TORCH_DISTRIBUTED_DEBUG=DETAIL", "names": [DDP]}
    assert "TORCH_DISTRIBUTED_DEBUG=DETAIL" in written(tmp_path).replace("\\", "")


def test_families_are_prefixes_of_what_is_tried() -> None:
    assert all(name.startswith(FAMILIES) for name, _ in COUNT)
