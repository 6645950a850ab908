"""Data sets: finds, fetches, verifies and decodes raw images into plain arrays. Imports no torch, and numpy late.

    <cache>/<name>/<raw file>       only what was fetched, or what you put there
    <cache>/<name>/arrays/*.npy     decoded once by the parent (`prepare`), memory-mapped by every worker (`open_arrays`)

Nothing is decoded before its SHA-256 is checked, and nothing half-written ever has a final name.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import json
import math
import os
import pickle
import secrets
import shutil
import sys
import tarfile
import time
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from labkit.spec import SpecError, nearest

if TYPE_CHECKING:
    import numpy as np

TIMEOUT_S = 30.0  # longest silence of a server
MAX_BYTES = 200 * 2**20  # more than the largest file here: an endless download or a gzip bomb stops at it
STALE_S = 24 * 3600.0  # a half-written leftover this old belongs to no living process
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
URLS = {
    "fashion_mnist": "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "cifar10": "https://www.cs.toronto.edu/~kriz/",
    "cifar100": "https://www.cs.toronto.edu/~kriz/",
}
# SHA-256 of a .tar.gz as it is, of any other .gz *unpacked*: Debian stamps its own time into the gzip headers and
# drops the names, so its files differ from the published ones though the images do not. Shown once for all four:
# with the published header put back (name, a time on 31 August 2017) Debian's files have the MD5 that torchvision
# pins. digits.csv is the same in scikit-learn 1.2 to 1.9. CIFAR's are what Keras pins; no archive was here to read.
FILES = {
    "digits": {"digits.csv.gz": "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"},
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    "cifar10": {"cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"},
    "cifar100": {"cifar-100-python.tar.gz": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"},
    "synthetic": {},
}


class DatasetError(SpecError):
    """Images that cannot be had. The message names the data set, the file or folder, and the remedy."""


@dataclass(frozen=True)
class DatasetInfo:
    """side: native, in pixels. mean, std: per channel, of pixels / 255. crop_padding: in pixels of the trained size.

    mean and std are over all pixels of all training images, and tests/test_datasets.py computes them again. Only
    CIFAR's are copied: the constants commonly published. (The std of 0.20 that many scripts give for cifar10 is
    another quantity, the mean over images of each image's own std.) flip: a mirror image keeps its class.
    """

    name: str
    channels: int
    classes: int
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int
    flip: bool
    train_images: int
    test_images: int


_ALL = (
    DatasetInfo("digits", 1, 10, 8, (0.3054,), (0.3757,), 2, False, 1437, 360),
    DatasetInfo("fashion_mnist", 1, 10, 28, (0.2860,), (0.3530,), 2, True, 60000, 10000),
    DatasetInfo("cifar10", 3, 10, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 4, True, 50000, 10000),
    DatasetInfo("cifar100", 3, 100, 32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), 4, True, 50000, 10000),
    DatasetInfo("synthetic", 3, 100, 32, (0.4977, 0.4976, 0.5005), (0.2048, 0.2046, 0.2061), 4, False, 5000, 1000),
)
DATASETS = {info.name: info for info in _ALL}


def cache_folder() -> Path:
    """$LABKIT_DATA, or ~/.cache/labkit; absolute, since a worker may stand in another folder."""
    return Path(os.environ.get("LABKIT_DATA") or "~/.cache/labkit").expanduser().absolute()


def prepare(name: str, cache: Path | None = None) -> Path:
    """The folder with train_images.npy (N, H, W, C uint8), train_labels.npy (N, int64) and the same for test.

    Made if it is not there, which may fetch files: call it in the parent, before any worker starts. Any number
    of processes may call it at once. Raises DatasetError.
    """
    info, cache = _known(name), Path(cache or cache_folder()).absolute()
    folder = cache / name / "arrays"
    if not os.path.lexists(folder):
        raw = {file: _contents(name, file, cache) for file in FILES[name]}
        try:
            arrays = dict(zip(ARRAYS, _DECODERS[name](info, raw), strict=True))
            _check(info, arrays)
        except ValueError as error:
            raise DatasetError(f"dataset={name}: {', '.join(raw)} holds other data ({error}); {_remedy(name, cache)}") from error
        _store(folder, name, arrays)
    open_arrays(folder)
    return folder


def open_arrays(folder: Path) -> dict[str, np.ndarray]:
    """What `prepare` stored, as read-only memory maps by name. Raises DatasetError if the folder is damaged."""
    import numpy as np

    try:
        about = json.loads((folder / "info.json").read_text())
        arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False) for key in ARRAYS}
        _check(_known(about["name"]), arrays)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder}: the prepared arrays are damaged ({error}); delete this folder and start again") from error
    return arrays


def where(name: str) -> str:
    """One line on where the images are, or how to get them. Opens and fetches nothing."""
    _known(name)
    cache = cache_folder()
    found = {file: _find(name, file, cache) for file in FILES[name]}
    folders = sorted({str(path.parent) for path in found.values() if path})
    missing = ", ".join(file for file, path in found.items() if path is None)
    if os.path.isfile(cache / name / "arrays" / "info.json"):
        return f"prepared in {cache / name / 'arrays'}"
    if missing:
        how = "can be fetched over https on first use; without a network," if name in URLS else "not here:"
        return f"{how} {_remedy(name, cache)} (missing: {missing})"
    return f"found in {', '.join(folders)}" if folders else "computed on first use"


def _known(name: str) -> DatasetInfo:
    if name not in DATASETS:
        raise DatasetError(f"dataset={name!r}: no such data set{nearest(name, DATASETS)}")
    return DATASETS[name]


def _check(info: DatasetInfo, arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless the arrays are those that `prepare` promises. Labels are small enough to look at all."""
    for part, count in (("train", info.train_images), ("test", info.test_images)):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        expected = (count, info.side, info.side, info.channels)
        if images.shape != expected or images.dtype != "uint8" or labels.shape != (count,) or labels.dtype != "int64":
            found = f"{images.dtype} images {images.shape}, {labels.dtype} labels {labels.shape}"
            raise ValueError(f"{part}: {found}; expected uint8 images {expected}, int64 labels ({count},)")
        if labels.min() < 0 or labels.max() >= info.classes:
            raise ValueError(f"{part}: labels {labels.min()} to {labels.max()}; expected 0 to {info.classes - 1}")


# Raw files: found or fetched, always verified.


def _remedy(name: str, cache: Path) -> str:
    if name == "digits":
        return "install it with `pip install scikit-learn`, or use another data set, such as dataset=fashion_mnist"
    debian = ", or on Debian `apt-get install dataset-fashion-mnist`" if name == "fashion_mnist" else ""
    return f"put {', '.join(FILES[name])} into {cache / name}{debian}, or use dataset=digits"


def _find(name: str, file: str, cache: Path) -> Path | None:
    """The first place that has the file. scikit-learn is located, not imported: that would take a second."""
    places = [cache / name]
    if name == "digits":
        package = importlib.util.find_spec("sklearn")
        places += [Path(p, "datasets", "data") for p in (package and package.submodule_search_locations) or ()]
    elif name == "fashion_mnist":
        places += [cache / "FashionMNIST" / "raw", DEBIAN_FOLDER]  # torchvision's layout with root=cache
    else:
        places += [cache]  # torchvision's layout with root=cache
    return next((place / file for place in places if os.path.isfile(place / file)), None)


def _contents(name: str, file: str, cache: Path) -> bytes:
    path, remedy = _find(name, file, cache), _remedy(name, cache)
    if path:
        return _verified(name, file, path, str(path), f"delete or replace this file, or {remedy}")
    if name not in URLS:
        raise DatasetError(f"dataset={name}: {file} is part of scikit-learn, which is not installed; {remedy}")
    url = URLS[name] + file
    with _writing(cache / name) as temporary:
        with open(temporary / file, "xb") as out:
            for piece in _pieces(name, url, remedy):
                out.write(piece)
            _to_disk(out)
        data = _verified(name, file, temporary / file, url, remedy)
        os.replace(temporary / file, cache / name / file)
    return data


def _verified(name: str, file: str, path: Path, called: str, remedy: str) -> bytes:
    """The bytes of a .tar.gz, the unpacked bytes of any other .gz. Raises DatasetError unless they are as pinned."""
    expected = FILES[name][file]
    try:
        data = path.read_bytes()
        if not file.endswith(".tar.gz"):
            data = zlib.decompressobj(wbits=31).decompress(data, MAX_BYTES)  # of a truncated file: what there is
        found = f"has SHA-256 {hashlib.sha256(data).hexdigest()}"
    except (OSError, zlib.error) as error:
        data, found = b"", f"cannot be read ({error})"
    if found != f"has SHA-256 {expected}":
        raise DatasetError(f"dataset={name}: {called} {found}, expected {expected}; truncated or changed: {remedy}")
    return data


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.lower().startswith("https://"):
            raise OSError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open_url(url: str) -> Any:
    return urllib.request.build_opener(_OnlyHttps).open(url, timeout=TIMEOUT_S)


def _pieces(name: str, url: str, remedy: str) -> Iterator[bytes]:
    print(f"labkit: fetching {url}", file=sys.stderr)
    size = 0
    try:
        with _open_url(url) as reply:
            while piece := reply.read(2**20):
                size += len(piece)
                if size > MAX_BYTES:
                    raise OSError(f"longer than {MAX_BYTES} bytes")
                yield piece
    except (OSError, HTTPException) as error:
        raise DatasetError(f"dataset={name}: {url} could not be fetched ({error}); {remedy}") from error


# Writing: whole or not at all.


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, to fill and then rename from; what is left of it goes. OSError becomes DatasetError."""
    temporary = folder / f".part-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
        for old in folder.glob(".part-*"):
            with suppress(FileNotFoundError):  # renamed just now by a living process
                if time.time() - os.path.getmtime(old) > STALE_S:
                    shutil.rmtree(old, ignore_errors=True)
        yield temporary
    except OSError as error:
        remedy = "free some space, or set LABKIT_DATA to a folder that can be written"
        raise DatasetError(f"{folder}: cannot be written ({error}); {remedy}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _to_disk(out: BinaryIO) -> None:
    """Without it a power cut could leave a final name on an empty file."""
    out.flush()
    os.fsync(out.fileno())


def _store(folder: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    import numpy as np

    shapes = {key: list(array.shape) for key, array in arrays.items()}
    with _writing(folder.parent) as temporary:
        for key, array in arrays.items():
            with open(temporary / f"{key}.npy", "xb") as out:
                np.save(out, array, allow_pickle=False)
                _to_disk(out)
        with open(temporary / "info.json", "xb") as out:
            out.write(json.dumps({"name": name, "sha256": FILES[name], "shapes": shapes}, indent=1).encode())
            _to_disk(out)
        try:
            os.rename(temporary, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # else another process was first, and its arrays are the same


# Decoders: (info, verified bytes by file name) -> the four ARRAYS. They raise ValueError, and open no file.


def _digits(info: DatasetInfo, raw: dict[str, bytes]) -> tuple[np.ndarray, ...]:
    """scikit-learn's 8x8 digits: a line is 64 pixels of 0..16, scaled to 0..255, and a label. Split once and for all."""
    import numpy as np

    lines = np.loadtxt(io.BytesIO(raw["digits.csv.gz"]), delimiter=",", dtype=np.int64)
    # RandomState, not default_rng: numpy promises that its stream never changes, so the split never does.
    lines = lines[np.random.RandomState(0).permutation(len(lines))]
    images = ((lines[:, :-1] * 255 + 8) // 16).astype(np.uint8).reshape(-1, info.side, info.side, 1)
    labels, n = lines[:, -1], info.train_images
    return images[:n], labels[:n], images[n:], labels[n:]


def _fashion_mnist(info: DatasetInfo, raw: dict[str, bytes]) -> tuple[np.ndarray, ...]:
    train_images, train_labels, test_images, test_labels = (_idx(data) for data in raw.values())
    return train_images[..., None], train_labels.astype("int64"), test_images[..., None], test_labels.astype("int64")


def _idx(data: bytes) -> np.ndarray:
    """An IDX file of unsigned bytes: 0, 0, 8, number of axes; the length of each (big-endian, 4 bytes); the values.

    Source: the file format at the foot of http://yann.lecun.com/exdb/mnist/.
    """
    import numpy as np

    start = 4 + 4 * data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if not shape or len(data) != start + math.prod(shape):
        raise ValueError(f"not an IDX file of bytes: starts with {data[:4]!r}, shape {shape}, {len(data)} bytes")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numbers, text, lists, dicts and numpy arrays, and refuses every other name: no code of the file's runs."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        rebuild = np.empty(0).__reduce__()[0]  # what CIFAR's files call numpy.core.multiarray._reconstruct
        arrays = {"numpy.core.multiarray._reconstruct": rebuild, "numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
        if f"{module}.{name}" not in arrays:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which no array needs")
        return arrays[f"{module}.{name}"]


def _cifar(info: DatasetInfo, raw: dict[str, bytes]) -> tuple[np.ndarray, ...]:
    """CIFAR's "python version": a tar of pickled batches, each a dict with data (n, 3 * 32 * 32 uint8) and labels.

    Only regular members with exactly the expected names are read, in memory: a path in the archive leads nowhere.
    Source: https://www.cs.toronto.edu/~kriz/cifar.html. Tested on archives made like it, not on the real ones.
    """
    import numpy as np

    if info.name == "cifar10":
        key, test = "labels", "cifar-10-batches-py/test_batch"
        train = [f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)]
    else:
        key, test, train = "fine_labels", "cifar-100-python/test", ["cifar-100-python/train"]
    [packed], images, labels = raw.values(), {}, {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() and member.name in (*train, test) else None
                if stream:
                    batch = _ArraysOnly(stream, encoding="latin1").load()  # written by Python 2, whose text was bytes
                    images[member.name] = batch["data"].reshape(-1, 3, info.side, info.side).transpose(0, 2, 3, 1)
                    labels[member.name] = np.array(batch[key], np.int64)
        train_images = np.concatenate([images[name] for name in train])
        train_labels = np.concatenate([labels[name] for name in train])
        return train_images, train_labels, images[test], labels[test]
    except Exception as error:  # a pickle that is not what it should be can raise anything
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _synthetic(info: DatasetInfo, raw: dict[str, bytes]) -> tuple[np.ndarray, ...]:
    """One blocky picture per class, and noise on it, of the shape of CIFAR-100: a network can learn them.

    For checks on machines without any data set, never for a published figure.
    """
    import numpy as np

    random, count = np.random.RandomState(0), info.train_images + info.test_images
    blocks = random.randint(64, 192, (info.classes, 8, 8, info.channels)).astype(np.int16)
    pictures = blocks.repeat(info.side // 8, axis=1).repeat(info.side // 8, axis=2)
    labels = random.permutation(np.arange(count, dtype=np.int64) % info.classes)
    noise = random.randint(-64, 64, (count, *pictures.shape[1:]), dtype=np.int16)  # 64 - 64 >= 0, 191 + 63 <= 255
    images, n = (pictures[labels] + noise).astype(np.uint8), info.train_images
    return images[:n], labels[:n], images[n:], labels[n:]


_DECODERS = {
    "digits": _digits,
    "fashion_mnist": _fashion_mnist,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "synthetic": _synthetic,
}
