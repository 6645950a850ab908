"""Decoders: (info, verified bytes by file name) -> train_images, train_labels, test_images, test_labels.

Images are (n, h, w, c) uint8, labels (n,) int64. Decoders open no file, and import numpy only when they run. They raise
ValueError for bytes that they cannot read.
"""

from __future__ import annotations

import io
import math
import pickle
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from labkit.rows.catalog import DatasetInfo


def _digits(info: DatasetInfo, raw: dict[str, bytes]) -> tuple[np.ndarray, ...]:
    """scikit-learn's 8x8 digits: a line is 64 pixels from 0 to 16 (scaled here to 0 to 255) and a label. The split into
    training and test images is always the same."""
    import numpy as np  # late: keeps numpy out of a process that does not need it

    lines = np.loadtxt(io.BytesIO(raw["digits.csv.gz"]), delimiter=",", dtype=np.int64)
    # RandomState, not default_rng: numpy promises that RandomState's numbers never change, so the split never changes.
    lines = lines[np.random.RandomState(0).permutation(len(lines))]
    images = ((lines[:, :-1] * 255 + 8) // 16).astype(np.uint8).reshape(-1, info.side, info.side, 1)
    labels, n = lines[:, -1], info.train_images
    return images[:n], labels[:n], images[n:], labels[n:]


def _fashion_mnist(info: DatasetInfo, raw: dict[str, bytes]) -> tuple[np.ndarray, ...]:
    train_images, train_labels, test_images, test_labels = (_idx(data) for data in raw.values())
    return train_images[..., None], train_labels.astype("int64"), test_images[..., None], test_labels.astype("int64")


def _idx(data: bytes) -> np.ndarray:
    """An IDX file of unsigned bytes: 0, 0, 8, number of axes; the length of each (big-endian, 4 bytes); the values.

    Source: the file format at the foot of http://yann.lecun.com/exdb/mnist/."""
    import numpy as np  # late: keeps numpy out of a process that does not need it

    start = 4 + 4 * data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if not shape or len(data) != start + math.prod(shape):
        raise ValueError(f"not an IDX file of bytes: starts with {data[:4]!r}, shape {shape}, {len(data)} bytes")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numbers, text, lists, dicts and numpy arrays, and refuses every other name, so that no code from the file runs."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np  # late: keeps numpy out of a process that does not need it

        rebuild = np.empty(0).__reduce__()[0]  # what CIFAR's files call numpy.core.multiarray._reconstruct
        arrays = {"numpy.core.multiarray._reconstruct": rebuild, "numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
        if f"{module}.{name}" not in arrays:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which no array needs")
        return arrays[f"{module}.{name}"]


def _cifar(info: DatasetInfo, raw: dict[str, bytes]) -> tuple[np.ndarray, ...]:
    """CIFAR's "python version": a tar of pickled batches, each a dict with data (n, 3 * 32 * 32 uint8) and labels.

    Only regular members with exactly the expected names are read, and in memory: a path in the archive is never used on disk.
    Source: https://www.cs.toronto.edu/~kriz/cifar.html. Tested on archives made in the same way, not on the real ones."""
    import numpy as np  # late: keeps numpy out of a process that does not need it

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
    except Exception as error:  # a damaged pickle can raise any exception
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _synthetic(info: DatasetInfo, raw: dict[str, bytes]) -> tuple[np.ndarray, ...]:
    """Images of the shape of CIFAR-100: one picture of coloured blocks per class, with noise. A network can learn the classes.

    For checks on machines without a data set. Never use it for a published figure."""
    import numpy as np  # late: keeps numpy out of a process that does not need it

    random, count = np.random.RandomState(0), info.train_images + info.test_images
    blocks = random.randint(64, 192, (info.classes, 8, 8, info.channels)).astype(np.int16)
    pictures = blocks.repeat(info.side // 8, axis=1).repeat(info.side // 8, axis=2)
    labels = random.permutation(np.arange(count, dtype=np.int64) % info.classes)
    noise = random.randint(-64, 64, (count, *pictures.shape[1:]), dtype=np.int16)  # 64 - 64 >= 0, 191 + 63 <= 255
    images, n = (pictures[labels] + noise).astype(np.uint8), info.train_images
    return images[:n], labels[:n], images[n:], labels[n:]


DECODERS = {"digits": _digits, "fashion_mnist": _fashion_mnist, "cifar10": _cifar, "cifar100": _cifar, "synthetic": _synthetic}
