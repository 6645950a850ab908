"""CIFAR: fetched, verified, and unpickled without running anything. No test here touches the network."""

import dataclasses
import hashlib
import http.client
import io
import os
import pickle
import tarfile
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from urllib.response import addinfourl

import numpy as np
import pytest

from labkit.data import raw_files
from labkit.data.datasets import DatasetError, open_arrays, prepare, where
from labkit.rows.catalog import DATASETS

ROOT = Path(__file__).parents[2]
IMAGES, _, _, _ = raw_files.FILES["fashion_mnist"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refuse(url):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(raw_files, "_open_url", refuse)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


# --- CIFAR: an archive made like the real one, which is not on the build machine ---


def python2_batch(images, labels, key):
    """A batch as Python 2's cPickle wrote CIFAR's: text and pixels are byte strings (opcodes U and T), not unicode."""

    def text(data):
        return b"U" + bytes([len(data)]) + data

    def number(n):
        return b"J" + n.to_bytes(4, "little", signed=True)

    pixels = images.transpose(0, 3, 1, 2).tobytes()
    shape = number(len(images)) + number(3072) + b"\x86"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"tR"
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR(" + number(3) + text(b"|") + b"NNN"
    dtype += number(-1) + number(-1) + number(0) + b"tb"
    array = empty + b"(" + number(1) + shape + dtype + b"\x89T" + len(pixels).to_bytes(4, "little") + pixels + b"tb"
    items = text(b"batch_label") + text(b"made up") + text(key) + b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + items + text(b"data") + array + b"u."


class Cifar:
    """A small archive in the layout of the real one; `put` makes it the file that `prepare` finds and trusts."""

    def __init__(self, name, cache, monkeypatch):
        self.name, self.cache, self.monkeypatch = name, cache, monkeypatch
        info = dataclasses.replace(DATASETS[name], train_images=10, test_images=4)
        monkeypatch.setitem(DATASETS, name, info)
        self.images = np.random.RandomState(1).randint(0, 256, (14, 32, 32, 3), np.uint8)
        self.labels = np.arange(14) * 7 % info.classes
        [self.file] = raw_files.FILES[name]
        folder, key, train, test = {
            "cifar10": ("cifar-10-batches-py", b"labels", [f"data_batch_{i}" for i in range(1, 6)], "test_batch"),
            "cifar100": ("cifar-100-python", b"fine_labels", ["train"], "test"),
        }[name]
        size, self.test = 10 // len(train), f"{folder}/{test}"
        self.members = {f"{folder}/readme.html": b"<p>"}
        for i, batch in reversed(list(enumerate([*train, test]))):  # their order in the archive must not matter
            part = slice(i * size, (i + 1) * size) if batch != test else slice(10, 14)
            self.members[f"{folder}/{batch}"] = python2_batch(self.images[part], self.labels[part].tolist(), key)

    def pack(self, *links):
        with tarfile.open(fileobj=(out := io.BytesIO()), mode="w:gz") as archive:
            for name, data in self.members.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            for name, target in links:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, target
                archive.addfile(member)
        self.monkeypatch.setitem(raw_files.FILES[self.name], self.file, hashlib.sha256(out.getvalue()).hexdigest())
        return out.getvalue()

    def put(self, *links):
        (self.cache / self.name).mkdir(exist_ok=True)
        (self.cache / self.name / self.file).write_bytes(self.pack(*links))


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path, monkeypatch):
    return Cifar(request.param, tmp_path, monkeypatch)


def test_cifar_is_decoded(cifar):
    batch = pickle.loads(cifar.members[cifar.test], encoding="latin1")  # what torchvision does
    assert (batch["data"].reshape(4, 3, 32, 32).transpose(0, 2, 3, 1) == cifar.images[10:]).all()
    cifar.put()
    arrays = open_arrays(prepare(cifar.name))
    assert (arrays["train_images"] == cifar.images[:10]).all() and (arrays["test_images"] == cifar.images[10:]).all()
    assert (arrays["train_labels"] == cifar.labels[:10]).all() and (arrays["test_labels"] == cifar.labels[10:]).all()


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_never_runs(protocol, cifar, tmp_path):
    evil = pickle.dumps({"data": Payload(tmp_path / "fired"), "labels": [0]}, protocol)
    pickle.loads(evil)
    (tmp_path / "fired").rmdir()  # so the payload works: plain pickle ran it
    cifar.members[cifar.test] = evil
    cifar.put()
    with pytest.raises(DatasetError, match=r"asks for posix\.mkdir"):
        prepare(cifar.name)
    assert not (tmp_path / "fired").exists()


@pytest.mark.parametrize(
    "asked", ["builtins eval", "numpy load", "numpy ndarray.tofile", "numpy.core.multiarray fromfile", "os system"]
)
def test_names_close_to_the_allowed_ones_are_refused(asked, cifar):
    module, name = asked.split()
    cifar.members[cifar.test] = f"c{module}\n{name}\n.".encode()
    cifar.put()
    with pytest.raises(DatasetError, match=f"asks for {module}.{name}"):
        prepare(cifar.name)


def test_a_path_in_the_archive_leads_nowhere(cifar, tmp_path):
    cifar.members["../escaped"] = cifar.members[f"../{cifar.test}"] = b"never unpickled"
    cifar.members[str(tmp_path / "absolute")] = b"x"
    cifar.put(("../link", "/etc/passwd"))
    folder = prepare(cifar.name)
    expected = [f"{cifar.name}/{cifar.file}"] + [f"{cifar.name}/arrays/{f}" for f in files_in(folder)]
    assert sorted(expected) == files_in(tmp_path) and not (tmp_path.parent / "escaped").exists()


@pytest.mark.parametrize("harm", ["missing", "link", "cut", "text", "label", "short", "float"])
def test_an_archive_of_something_else_is_refused(harm, cifar):
    good, links = cifar.members.pop(cifar.test), []
    if harm == "link":
        cifar.members["elsewhere"], links = good, [(cifar.test, "../elsewhere")]  # would do, were links followed
    elif harm != "missing":
        key = b"labels" if cifar.name == "cifar10" else b"fine_labels"
        changed = {
            "cut": good[:-9],
            "text": b"not a pickle",
            "label": python2_batch(cifar.images[10:], [0, 1, 2, 100], key),
            "short": python2_batch(cifar.images[10:13], [0, 1, 2], key),
            "float": good.replace(b"u1", b"f1"),
        }
        cifar.members[cifar.test] = changed[harm]
    cifar.put(*links)
    with pytest.raises(DatasetError, match=rf"dataset={cifar.name}: {cifar.file} holds other data"):
        prepare(cifar.name)
    assert files_in(cifar.cache) == [f"{cifar.name}/{cifar.file}"]


# --- fetching ---


def test_what_is_fetched_is_verified_and_kept(cifar, monkeypatch):
    urls = []
    monkeypatch.setattr(raw_files, "_open_url", lambda url: urls.append(url) or io.BytesIO(packed))
    packed = cifar.pack()
    folder = prepare(cifar.name)
    assert urls == [f"https://www.cs.toronto.edu/~kriz/{cifar.file}"]
    assert (cifar.cache / cifar.name / cifar.file).read_bytes() == packed
    assert not [f for f in files_in(cifar.cache) if ".part" in f]
    prepare(cifar.name)
    (folder / "info.json").unlink()
    assert len(urls) == 1 and where(cifar.name) == f"found in {cifar.cache / cifar.name}"


class Broken(io.BytesIO):
    def read(self, size=-1):
        if self.tell():
            raise http.client.IncompleteRead(b"", 5)
        return super().read(10)


@pytest.mark.parametrize("reply", ["wrong", "cut", "broken", "endless", "offline", "silent"])
def test_a_failed_fetch_leaves_nothing_and_says_what_to_do(reply, cifar, monkeypatch):
    packed = cifar.pack()
    if reply == "endless":
        monkeypatch.setattr(raw_files, "MAX_BYTES", 1000)

    def answer(url):
        if reply in ("offline", "silent"):
            raise urllib.error.URLError("Name or service not known") if reply == "offline" else TimeoutError("timed out")
        return {
            "wrong": io.BytesIO(b"<html>"),
            "cut": io.BytesIO(packed[:-5]),
            "broken": Broken(packed),
            "endless": io.BytesIO(packed),
        }[reply]

    monkeypatch.setattr(raw_files, "_open_url", answer)
    with pytest.raises(DatasetError, match=rf"{cifar.file} (could not be fetched|has SHA-256)") as refused:
        prepare(cifar.name)
    assert f"put {cifar.file} into {cifar.cache / cifar.name}, or use dataset=digits" in str(refused.value)
    assert files_in(cifar.cache) == [] and not list(cifar.cache.glob("*/.*"))


def test_offline_fashion_mnist_names_the_debian_package(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_files, "DEBIAN_FOLDER", tmp_path / "none")
    with pytest.raises(
        DatasetError, match=rf"{IMAGES} could not be fetched.*no network.*put .*apt-get install dataset-fashion-mnist"
    ):
        prepare("fashion_mnist")


@pytest.mark.parametrize("target", ["http://elsewhere/x", "ftp://elsewhere/x", "HTTPS://elsewhere/x"])
def test_only_https_is_followed(target):
    asked = []

    class Server(urllib.request.HTTPSHandler):
        def https_open(self, request):
            asked.append(request.full_url)
            headers = Message()
            headers["Location"] = target
            reply = addinfourl(io.BytesIO(b"data"), headers, request.full_url, 302 if len(asked) == 1 else 200)
            reply.msg = "Found"
            return reply

    opener = urllib.request.build_opener(raw_files._OnlyHttps, Server)
    if target.startswith("HTTPS"):
        assert opener.open("https://here/x").read() == b"data" and len(asked) == 2
    else:
        with pytest.raises(OSError, match=r"redirected to .*not https"):
            opener.open("https://here/x")
        assert asked == ["https://here/x"]
    assert all(url.startswith("https://") for url in raw_files.URLS.values())
