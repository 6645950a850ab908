"""DataLoader's processes and shared memory that is too small for them: the cause and the remedy, not only that one died."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from labkit.data import batches
from labkit.data.datasets import prepare
from labkit.rows.params import ROOT
from labkit.rows.spec import Spec

LOADS = """
import sys, torch
from pathlib import Path
from labkit.data.batches import Data
from labkit.rows.spec import Spec
spec = Spec(dataset="digits", image_size=128, batch_per_rank=64, loader_workers=2, train_samples=256)
data = Data(spec, Path(sys.argv[1]), torch.device("cpu"))
try:
    print("steps", sum(1 for _ in data.train_batches(0, (0, 1))))
except OSError as error:
    print(error)
"""
SMALL = 'mount -t tmpfs -o size="$0" tmpfs /dev/shm && exec "$@"'


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare("digits", tmp_path_factory.mktemp("data"))


def can_mount() -> bool:
    return os.geteuid() == 0 and not subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]).returncode


@pytest.mark.parametrize("size", ["4k", "64k", "1m"])
def test_a_shared_memory_that_is_too_small(size: str, digits: Path) -> None:
    """In a mount namespace of its own. Where nobody may make one, the test below stands for it."""
    if can_mount():
        words = ["unshare", "-m", "sh", "-c", SMALL, size, sys.executable, "-c", LOADS, str(digits)]
        done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120)
        (line,) = done.stdout.splitlines() or [done.stderr]
        assert line.startswith("loader_workers=2: /dev/shm has "), line
        assert "MiB free of" in line and "loader_workers=0" in line and "--shm-size" in line


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"), "Bus error"),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback:\n  x\nRuntimeError: unable to write to file </torch_1>: No space left on device (28)\n"), "unable to write to file"),
        (RuntimeError("unable to mmap 77 bytes from file </torch_2>: Cannot allocate memory (12)"), "unable to mmap"),
    ],
)  # fmt: skip
def test_what_torch_says_then(error: Exception, cause: str, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loader:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __iter__(self) -> Any:
            yield torch.zeros(64, 1, 16, 16)
            raise error

    monkeypatch.setattr(batches, "DataLoader", Loader)
    spec = Spec(dataset="digits", batch_per_rank=64, train_samples=256, loader_workers=2)
    with pytest.raises(OSError, match=rf"^loader_workers=2: /dev/shm has .*{cause}.*set loader_workers=0") as told:
        list(batches.Data(spec, digits, torch.device("cpu")).train_batches(0, (0, 1)))
    assert "\n" not in str(told.value)
    with pytest.raises(type(error)) as same:
        list(batches.Data(spec.but(loader_workers=0), digits, torch.device("cpu")).train_batches(0, (0, 1)))
    assert same.value is error, "without processes it is something else"


def test_other_errors_stay_as_they_are(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, i: int) -> None:
        raise ValueError("another fault")

    monkeypatch.setattr(batches.Pictures, "__getitem__", broken)
    spec = Spec(dataset="digits", batch_per_rank=64, train_samples=256)
    with pytest.raises(ValueError, match="another fault"):
        list(batches.Data(spec, digits, torch.device("cpu")).train_batches(0, (0, 1)))
