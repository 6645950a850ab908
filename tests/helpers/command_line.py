"""The command line, called as a person calls it: rows and settings that tests give it, and what must hold for all it says."""

from __future__ import annotations

import json
import sys
from collections import namedtuple
from typing import Any

import pytest

from labkit import cli

SINGLE = "single_gpu_resnet18_bs256_cacheTrue_ampFalse"
DDP_NCCL = "ddp_nccl_resnet18_bs128x2_cacheFalse_ampFalse"
DDP_GLOO = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
FSDP = "fsdp_grad_resnet18_bs128x2_ampFalse"
PS_GPU = "ps_gpu_mode_resnet18_bs128_workers2"
TINY = ["epochs=1", "width=8", "train_samples=512", "test_samples=100", "warmup_steps=0", "device=cpu"]
SETS = [word for setting in TINY for word in ("--set", setting)]
PROMISED = {"name", "status", "reason", "images_per_s", "best_acc_pct", "max_mem_mib", "total_time_s", "startup_s", "world_size",
            "backend", "device", "dataset", "run_dir", "repeats", "stands_for"}  # fmt: skip
LABKIT = [sys.executable, "-c", "from labkit.cli import main; main()"]

Said = namedtuple("Said", "code out err")


def but(**changed: Any) -> list[str]:
    """SETS, with some fields set otherwise."""
    settings = dict(setting.split("=") for setting in TINY) | changed
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> Said:
    """`labkit words...` in this process, where torch is loaded already."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["labkit", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return Said(left.value.code or 0, *capsys.readouterr())


def json_lines(text: str) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def one_line(said: Said, code: int, *words: str) -> None:
    assert said.code == code, said
    assert said.out == ""
    assert said.err.startswith("labkit: ") and said.err.count("\n") == 1 and "Traceback" not in said.err
    for word in words:
        assert word in said.err
