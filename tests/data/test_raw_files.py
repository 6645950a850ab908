"""Raw files: found in order, and refused when damaged. No test here touches the network."""

import dataclasses
import gzip
import hashlib
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from labkit.data import raw_files
from labkit.data.datasets import DatasetError, open_arrays, prepare, where
from labkit.rows.catalog import DATASETS

ROOT = Path(__file__).parents[2]
_, LABELS, _, _ = raw_files.FILES["fashion_mnist"]
needs_fashion = pytest.mark.needs("dataset-fashion-mnist")


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refuse(url):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(raw_files, "_open_url", refuse)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


# --- raw files that are found ---


def test_fashion_mnist_is_looked_for_in_order(tmp_path, monkeypatch):
    def put(folder):
        folder.mkdir(parents=True)
        for file in raw_files.FILES["fashion_mnist"]:
            (folder / file).touch()
        return where("fashion_mnist")

    monkeypatch.setattr(raw_files, "DEBIAN_FOLDER", tmp_path / "usr")
    assert "can be fetched" in where("fashion_mnist") and "apt-get install" in where("fashion_mnist")
    for folder in (tmp_path / "usr", tmp_path / "FashionMNIST" / "raw", tmp_path / "fashion_mnist"):
        assert put(folder) == f"found in {folder}"


def test_where_says_what_is_there(tmp_path, monkeypatch):
    assert where("digits").startswith("found in ") and where("synthetic") == "computed on first use"
    assert where("cifar10").startswith("can be fetched")
    (tmp_path / "cifar-10-python.tar.gz").touch()
    assert where("cifar10") == f"found in {tmp_path}"
    assert where("digits") != f"prepared in {prepare('digits')}" == where("digits")
    with pytest.raises(DatasetError, match="did you mean 'cifar10'"):
        where("cifar_10")


def test_digits_without_scikit_learn_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_files.importlib.util, "find_spec", lambda name: None)
    assert "pip install scikit-learn" in where("digits")
    with pytest.raises(DatasetError, match=r"dataset=digits.*not installed.*pip install scikit-learn.*another data set"):
        prepare("digits", tmp_path)


@needs_fashion
@pytest.mark.parametrize("harm", ["truncated", "changed", "no gzip", "other images", "empty"])
def test_a_damaged_file_is_refused(harm, tmp_path):
    good = (raw_files.DEBIAN_FOLDER / LABELS).read_bytes()
    unpacked = gzip.decompress(good)
    bad = {
        "truncated": good[:-1000],
        "changed": good[:5000] + bytes([good[5000] ^ 1]) + good[5001:],
        "no gzip": unpacked,
        "other images": gzip.compress(unpacked[:-1] + bytes([unpacked[-1] ^ 1])),
        "empty": b"",
    }[harm]
    (tmp_path / "fashion_mnist").mkdir()
    path = tmp_path / "fashion_mnist" / LABELS
    path.write_bytes(bad)
    with pytest.raises(DatasetError) as refused:
        prepare("fashion_mnist", tmp_path)
    message = str(refused.value)
    assert str(path) in message and raw_files.FILES["fashion_mnist"][LABELS] in message and "delete or replace" in message
    assert "cannot be read" in message or message.count("SHA-256") == 1
    assert files_in(tmp_path) == [f"fashion_mnist/{LABELS}"]
    path.write_bytes(gzip.compress(unpacked))  # packed anew: other bytes, the same labels
    assert prepare("fashion_mnist", tmp_path).is_dir()


def test_a_gzip_bomb_stops_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_files, "MAX_BYTES", 1000)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "digits.csv.gz").write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(DatasetError, match=hashlib.sha256(bytes(1000)).hexdigest()):
        prepare("digits", tmp_path)


@pytest.mark.parametrize(
    "harm", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"\x00\x00\x0d" + b[3:], lambda b: b[:3], lambda b: b""]
)
def test_idx_sizes_are_checked(harm, tmp_path, monkeypatch):
    info = dataclasses.replace(DATASETS["fashion_mnist"], side=2, train_images=3, test_images=3)
    monkeypatch.setitem(DATASETS, "fashion_mnist", info)
    images, labels = (
        b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (3, 2, 2)) + bytes(range(12)),
        b"\0\0\x08\x01\0\0\0\x03\1\2\3",
    )

    def put(cache, *contents):
        (cache / "fashion_mnist").mkdir(parents=True)
        for file, data in zip(raw_files.FILES["fashion_mnist"], contents, strict=True):
            (cache / "fashion_mnist" / file).write_bytes(gzip.compress(data))
            monkeypatch.setitem(raw_files.FILES["fashion_mnist"], file, hashlib.sha256(data).hexdigest())
        return prepare("fashion_mnist", cache)

    arrays = open_arrays(put(tmp_path / "good", images, labels, images, labels))
    assert arrays["train_images"][1, ..., 0].tolist() == [[4, 5], [6, 7]] and arrays["test_labels"].tolist() == [1, 2, 3]
    with pytest.raises(DatasetError, match="not an IDX file"):
        put(tmp_path / "bad", harm(images), labels, images, labels)
