"""Raw images: the right ones or none, whole or not at all. No test here touches the network."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from labkit.data import datasets, raw_files
from labkit.data.datasets import DatasetError, open_arrays, prepare, where
from labkit.rows.catalog import DATASETS
from tests.helpers import promised

ROOT = Path(__file__).parents[2]
_, _, TEST_IMAGES, _ = raw_files.FILES["fashion_mnist"]
needs_fashion = pytest.mark.needs("dataset-fashion-mnist")


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refuse(url):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(raw_files, "_open_url", refuse)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


# --- the real images ---


@pytest.mark.parametrize("name", ["digits", pytest.param("fashion_mnist", marks=needs_fashion), "synthetic"])
def test_arrays_are_as_described(name, tmp_path):
    info = DATASETS[name]
    arrays = open_arrays(prepare(name, tmp_path))
    image = (info.side, info.side, info.channels)
    assert {k: (v.dtype.name, v.shape) for k, v in arrays.items()} == {
        "train_images": ("uint8", (info.train_images, *image)),
        "train_labels": ("int64", (info.train_images,)),
        "test_images": ("uint8", (info.test_images, *image)),
        "test_labels": ("int64", (info.test_images,)),
    }
    assert all(isinstance(v, np.memmap) and not v.flags.writeable for v in arrays.values())
    assert set(arrays["train_labels"]) == set(arrays["test_labels"]) == set(range(info.classes))
    for c in range(info.channels):
        counts = np.bincount(arrays["train_images"][..., c].ravel(), minlength=256)
        mean = np.average(np.arange(256) / 255, weights=counts)
        std = np.average((np.arange(256) / 255 - mean) ** 2, weights=counts) ** 0.5
        assert (info.mean[c], info.std[c]) == (pytest.approx(mean, abs=5.1e-5), pytest.approx(std, abs=5.1e-5))


def test_digits_are_scikit_learns(tmp_path):
    published = promised.module("sklearn.datasets").load_digits()
    arrays = open_arrays(prepare("digits", tmp_path))
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])[..., 0]
    labels = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    order = np.random.RandomState(0).permutation(1797)
    assert (labels == published.target[order]).all()
    assert images.max() == 255 and (np.rint(images / 255 * 16) == published.images[order]).all()


@needs_fashion
def test_fashion_mnist_is_the_published_one(tmp_path):
    arrays = open_arrays(prepare("fashion_mnist", tmp_path))
    raw = gzip.decompress((raw_files.DEBIAN_FOLDER / TEST_IMAGES).read_bytes())
    assert arrays["test_images"][7, 3:5].tobytes() == raw[16 + 7 * 784 + 3 * 28 :][: 2 * 28]
    assert (np.bincount(arrays["train_labels"]) == 6000).all() and (np.bincount(arrays["test_labels"]) == 1000).all()
    assert arrays["train_labels"][:3].tolist() == [9, 0, 0] and arrays["test_labels"][:3].tolist() == [9, 2, 1]


def test_synthetic_is_the_same_every_time_and_can_be_learnt(tmp_path):
    first, second = (open_arrays(prepare("synthetic", tmp_path / part)) for part in "ab")
    assert all((first[key] == second[key]).all() for key in first)
    means = np.stack([first["train_images"][first["train_labels"] == c].mean(0).ravel() for c in range(100)])
    images = first["test_images"][:200].reshape(200, -1).astype(float)
    nearest = ((images[:, None] - means) ** 2).sum(2).argmin(1)
    assert (nearest == first["test_labels"][:200]).mean() > 0.99


def test_importing_and_locating_load_no_big_library():
    code = (
        "import sys, labkit.data.datasets as d\n"
        "for name in d.DATASETS: d.where(name)\n"
        "print({'torch', 'sklearn', 'numpy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- the prepared folder ---


def test_several_processes_prepare_at_once(tmp_path):
    code = (
        "import pathlib, sys, time; from labkit.data.datasets import *\n"
        "print('ready', flush=True)\n"
        "while not pathlib.Path(sys.argv[1], 'go').exists(): time.sleep(0.001)\n"
        "print(open_arrays(prepare('synthetic', pathlib.Path(sys.argv[1])))['test_labels'].sum())\n"
    )
    start = [sys.executable, "-c", code, str(tmp_path)]
    others = [subprocess.Popen(start, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for other in others:
        assert other.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    told = [other.communicate(timeout=60) for other in others]
    assert [other.returncode for other in others] == [0] * 4, told
    assert {out for out, _ in told} == {f"{open_arrays(prepare('synthetic'))['test_labels'].sum()}\n"}
    assert os.listdir(tmp_path / "synthetic") == ["arrays"]


def test_who_comes_second_takes_what_is_there(tmp_path, monkeypatch):
    rename, inner = os.rename, []

    def late(source, target):
        monkeypatch.setattr(os, "rename", rename)
        inner.append((prepare("digits") / "info.json").stat().st_ino)  # another process, just before our rename
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / ".part-gone").symlink_to("nowhere")  # listed, but renamed before it was looked at
    assert inner == [(prepare("digits") / "info.json").stat().st_ino]
    assert sorted(os.listdir(tmp_path / "digits")) == [".part-gone", "arrays"]


def test_a_killed_process_leaves_no_torn_arrays(tmp_path):
    code = (
        "import os, signal; from labkit.data.datasets import *\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare('digits')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -signal.SIGKILL
    [left] = (tmp_path / "digits").iterdir()
    assert left.name.startswith(".part-") and where("digits").startswith("found in ")
    elsewhere = tmp_path / "digits" / f".part-another host~{os.getpid()}.1234"  # on a shared disk; it may still be at work
    elsewhere.mkdir()
    shutil.rmtree(tmp_path / "digits/arrays", ignore_errors=True)
    prepare("digits")
    assert sorted(os.listdir(tmp_path / "digits")) == [elsewhere.name, "arrays"]
    os.utime(elsewhere, (0, 0))  # long ago
    shutil.rmtree(tmp_path / "digits/arrays")
    prepare("digits")
    assert os.listdir(tmp_path / "digits") == ["arrays"]


@pytest.mark.parametrize("harm", ["truncated", "empty", "pickled", "missing", "swapped", "no info", "other info"])
def test_a_damaged_folder_is_refused(harm, tmp_path):
    folder = prepare("digits")
    file = folder / "train_labels.npy"
    if harm in ("truncated", "empty"):
        os.truncate(file, 1000 if harm == "truncated" else 0)
    elif harm == "pickled":
        np.save(file, np.array([Payload(tmp_path / "fired")]), allow_pickle=True)
    elif harm == "missing":
        file.unlink()
    elif harm == "swapped":
        os.replace(folder / "test_labels.npy", file)
    elif harm == "no info":
        (folder / "info.json").unlink()
    else:
        (folder / "info.json").write_text('{"name": "cifar10"}')
    for use in (lambda: prepare("digits"), lambda: open_arrays(folder)):
        with pytest.raises(DatasetError, match=rf"{folder}: .*damaged.*delete this folder"):
            use()
    assert not (tmp_path / "fired").exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """Root may write anywhere, so a file stands where a folder is wanted, and the disk is made to be full."""
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=rf"{tmp_path}/file/digits: cannot be written .*LABKIT_DATA"):
        prepare("digits", tmp_path / "file")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        DatasetError, match=rf"{tmp_path}/digits: cannot be written .*No space left.*free some space.*LABKIT_DATA"
    ):
        prepare("digits")
    assert os.listdir(tmp_path / "digits") == []


def test_prepared_arrays_serve_from_a_read_only_cache(monkeypatch):
    folder = prepare("digits")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "read-only")

    for writer in ("mkdir", "rename", "replace"):
        monkeypatch.setattr(os, writer, refuse)
    assert prepare("digits") == folder
    with pytest.raises(DatasetError, match=r"synthetic: cannot be written .*read-only.*LABKIT_DATA"):
        prepare("synthetic")


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    assert datasets.cache_folder() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "~/.cache/labkit"):
        monkeypatch.setenv("LABKIT_DATA", value)
        assert datasets.cache_folder() == tmp_path / ".cache" / "labkit"
    with pytest.raises(DatasetError, match="no such data set; did you mean 'digits'"):
        prepare("digit")
