"""Data sets: finds, fetches, verifies and decodes raw images into plain arrays. Imports no torch, and numpy late.

    <cache>/<name>/<raw file>       only what was fetched, or what you put there
    <cache>/<name>/arrays/*.npy     decoded once by the parent (`prepare`), memory-mapped by every worker (`open_arrays`)

Nothing is decoded before its SHA-256 is checked, and nothing half-written ever has a final name.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.data.decoders import DECODERS
from labkit.data.raw_files import FILES, URLS, DatasetError, contents, find, remedy, to_disk, writing
from labkit.rows.spec import nearest

if TYPE_CHECKING:
    import numpy as np

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


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
        raw = {file: contents(name, file, cache) for file in FILES[name]}
        try:
            arrays = dict(zip(ARRAYS, DECODERS[name](info, raw), strict=True))
            _check(info, arrays)
        except ValueError as error:
            raise DatasetError(f"dataset={name}: {', '.join(raw)} holds other data ({error}); {remedy(name, cache)}") from error
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
    found = {file: find(name, file, cache) for file in FILES[name]}
    folders = sorted({str(path.parent) for path in found.values() if path})
    missing = ", ".join(file for file, path in found.items() if path is None)
    if os.path.isfile(cache / name / "arrays" / "info.json"):
        return f"prepared in {cache / name / 'arrays'}"
    if missing:
        how = "can be fetched over https on first use; without a network," if name in URLS else "not here:"
        return f"{how} {remedy(name, cache)} (missing: {missing})"
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


def _store(folder: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    import numpy as np

    shapes = {key: list(array.shape) for key, array in arrays.items()}
    with writing(folder.parent) as temporary:
        for key, array in arrays.items():
            with open(temporary / f"{key}.npy", "xb") as out:
                np.save(out, array, allow_pickle=False)
                to_disk(out)
        with open(temporary / "info.json", "xb") as out:
            out.write(json.dumps({"name": name, "sha256": FILES[name], "shapes": shapes}, indent=1).encode())
            to_disk(out)
        try:
            os.rename(temporary, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # else another process was first, and its arrays are the same
