"""What only CUDA can check: `make gpu`, or `make gpu PYTHON=python3` where torch is installed already.

Full-width networks on made-up images (no data set is needed), a few dozen steps each. Ends with the memory column of
the single rows beside the published one. What of it a GPU has confirmed, the README says.
"""

import pytest
import torch

import labkit
from labkit.data.batches import Data
from labkit.data.datasets import prepare
from labkit.probes.trace import trace
from labkit.rows.fit import fit
from labkit.rows.params import all_names, published
from labkit.runs.train import run_once
from labkit.system.machine import this_machine

pytestmark = pytest.mark.gpu

SMALL = {
    "dataset": "synthetic",
    "image_size": 32,
    "width": 64,
    "epochs": 2,
    "lr": 0.02,
    "device": "cuda",
    "warmup_steps": 3,
    "timeout_s": 60.0,
}
SINGLE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"
ONE_RANK = [
    "ddp_nccl_resnet18_bs128x1_cacheTrue_ampFalse",
    "ddp_nccl_resnet18_bs128x1_cacheTrue_ampTrue",
    "ddp_nccl_resnet18_bs128x1_cacheTrue_ampFalse+gradient_as_bucket_view=True+static_graph=True",
    "collective_nccl_resnet18_bs128x1+cache=true",
    *(f"collective_nccl_resnet18_bs128x1+cache=true+form={form}" for form in ("flat", "buckets", "ring")),
    "fsdp_grad_resnet18_bs128x1_ampFalse+cache=true",
    "fsdp_full_resnet18_bs128x1_ampTrue+cache=true+amp_dtype=bf16",
    "fsdp_full_resnet18_bs128x1_ampTrue+cache=true+amp_dtype=fp16",
    "dp_resnet18_bs128_ngpu1_cacheTrue_ampFalse",
]
SHARING = [
    "ddp_gloo_resnet18_bs64x2_cacheTrue_ampFalse",
    "ddp_gloo_resnet18_bs64x2_cacheTrue_ampTrue",
    "collective_gloo_resnet18_bs64x2+cache=true",
    *(f"collective_gloo_resnet18_bs64x2+cache=true+form={form}" for form in ("flat", "ring")),
    "collective_gloo_resnet18_bs64x2+cache=true+form=buckets",
    "model_parallel_resnet18_bs128_cacheTrue",
    "ps_gpu_mode_resnet18_bs64_workers2+cache=true",
    "ps_gpu_mode_resnet18_bs64_workers2+cache=true+consistency=sync",
    "ps_mode_resnet18_bs64_workers2+cache=true+consistency=ssp",
]
PROBED = [
    "single_gpu_resnet18_bs128_cacheTrue_ampFalse",
    "ddp_gloo_resnet18_bs64x2_cacheTrue_ampFalse",
    "model_parallel_resnet18_bs128_cacheTrue",
    "ps_gpu_mode_resnet18_bs64_workers2+cache=true",
]


@pytest.fixture(autouse=True)
def needs_cuda(tmp_path, monkeypatch):
    assert this_machine().cuda, "make gpu needs a CUDA device, and torch finds none here (nvidia-smi shows what the driver sees)"
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))


def trained(name, **fields):
    """The result of a row, which must have come out well: trained on CUDA, with a loss that fell."""
    spec = fit(labkit.Spec.parse(name, **{**SMALL, **fields}), this_machine())
    result = run_once(spec, "gpu", fresh=True)
    assert result.status == "ok", f"{result.reason}\n{getattr(result, 'detail', '')}"
    assert result.spec.device == "cuda" and result.max_mem_mib > 0
    first, last = result.epochs[0].train_loss, result.epochs[-1].train_loss
    assert last < first, f"the loss did not fall: {first} -> {last}"
    return result


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("batch", [128, 256])
def test_single_with_mixed_precision_needs_less_memory(batch, dtype):
    full = trained(f"single_gpu_resnet18_bs{batch}_cacheTrue_ampFalse", epochs=2)
    half = trained(f"single_gpu_resnet18_bs{batch}_cacheTrue_ampTrue+amp_dtype={dtype}", epochs=2)
    assert half.max_mem_mib < full.max_mem_mib


@pytest.mark.parametrize("name", ONE_RANK)
def test_every_strategy_on_nccl_with_one_rank(name):
    trained(name)


@pytest.mark.parametrize("name", SHARING)
def test_two_gloo_ranks_share_one_device(name):
    trained(name, share_device=True)


def test_ranks_that_share_a_device_train_what_one_rank_trains():
    """norm=group: every split of a batch is exact, so the loss curves must lie on each other."""
    one = trained("single_gpu_resnet18_bs128_cacheTrue_ampFalse+norm=group")
    for name in (
        "ddp_gloo_resnet18_bs64x2_cacheTrue_ampFalse+norm=group",
        "collective_gloo_resnet18_bs64x2+cache=true+norm=group",
    ):
        two = trained(name, share_device=True)
        for here, there in zip(one.epochs, two.epochs, strict=True):
            assert there.train_loss == pytest.approx(here.train_loss, rel=0.02), name


@pytest.mark.parametrize("name", PROBED)
def test_a_probe_splits_a_step_on_the_device(name):
    share = {} if name.startswith("single") else {"share_device": True}
    found = trace(name, overrides={**SMALL, **share}, fresh=True)
    assert found.spec.device == "cuda" and found.spec.name == name
    for line in found.split():
        assert line["step_s"] == pytest.approx(sum(part for key, part in line.items() if key not in ("rank", "step_s")))
        server = name.startswith("ps") and line["rank"] == found.spec.world_size
        assert (line["forward_s"] > 0 and line["backward_s"] > 0) is not server, line


def test_a_probe_weighs_less_under_mixed_precision():
    full, half = (
        trace(f"single_gpu_resnet18_bs128_cacheTrue_amp{amp}", overrides=SMALL, fresh=True).ranks[0]["holds"]
        for amp in (False, True)
    )
    assert half["activations"] < 0.8 * full["activations"] and half["parameters"] == full["parameters"]


def test_tf32_trains_other_losses_than_23_bits_of_fraction():
    """On a GPU that has TF32 (NVIDIA's since 2020); on an older one, the setting changes nothing. The row a second time is the chance."""
    name = "single_gpu_resnet18_bs128_cacheTrue_ampFalse"
    tf32, ieee, again = (trained(name, tf32=on).epochs[0].train_loss for on in (True, False, False))
    assert (abs(tf32 - ieee) > 3 * abs(again - ieee)) is (torch.cuda.get_device_capability()[0] >= 8)


def test_cache_on_the_device_gives_the_images_of_the_data_loader():
    spec = fit(labkit.Spec.parse(SINGLE, **SMALL), this_machine())
    folder, device = prepare("synthetic"), torch.device("cuda", 0)
    loaded, cached = Data(spec, folder, device), Data(spec.but(cache="true"), folder, device)
    assert cached.cached.is_cuda
    for (x, y, _), (x2, y2, _) in zip(loaded.train_batches(1, (0, 1)), cached.train_batches(1, (0, 1)), strict=True):
        assert x.is_cuda and torch.allclose(x, x2, atol=1e-6) and torch.equal(y, y2)


def test_memory_of_the_single_rows_beside_the_published(capsys):
    theirs = {row["experiment"]: row["max_gpu_mem_mb"] for row in published()}
    lines = []
    for name in (name for name in theirs if name.startswith("single_gpu")):
        ours = memory_of(name)
        lines.append(f"{name:50s} {ours:8.0f} MB here {theirs[name]:8.0f} MB published, ratio {ours / theirs[name]:.2f}")
        assert 0.5 < ours / theirs[name] < 2, lines[-1]
    with capsys.disabled():
        print("\n" + "\n".join(lines))


def memory_of(name):
    spec = fit(labkit.Spec.parse(name, **{**SMALL, "epochs": 1, "train_samples": 2560, "cache_on": "host"}), this_machine())
    result = run_once(spec, "gpu", fresh=True)
    assert result.status == "ok", result.reason
    return result.max_mem_mib


@pytest.mark.two_devices
def test_every_published_row():
    frame = labkit.run(all_names(), overrides={**SMALL, "epochs": 1})
    assert list(frame.status) == ["ok"] * len(frame), frame[["name", "status", "reason"]].to_string()
