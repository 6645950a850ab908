"""Data sets: finds, fetches, verifies and decodes raw images into plain arrays. Imports no torch, and numpy only in functions.

    <cache>/<name>/<raw file>       what was fetched, or what you put there
    <cache>/<name>/arrays/*.npy     decoded once by the parent (`prepare`), memory-mapped by every rank (`open_arrays`)

A file is decoded only after its SHA-256 was checked. A file or folder gets its final name only when it is complete.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.data.decoders import DECODERS
from labkit.data.raw_files import FILES, URLS, DatasetError, contents, find, remedy, to_disk, writing
from labkit.rows.catalog import DATASETS, DatasetInfo
from labkit.rows.fields import nearest
from labkit.system.places import place

if TYPE_CHECKING:
    import numpy as np

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def cache_folder() -> Path:
    """$LABKIT_DATA, or ~/.cache/labkit; absolute (see `places`)."""
    return place("LABKIT_DATA", "~/.cache/labkit")


def prepare(name: str, cache: Path | None = None) -> Path:
    """The folder with train_images.npy (n, h, w, c) uint8, train_labels.npy (n,) int64, and the same for test.

    If the folder is not there, it is made, and files may be fetched for it: so call this in the parent, before any rank
    starts. Several processes may call it at the same time. Raises DatasetError for an unknown data set, for files that
    cannot be had or are damaged, and for a folder that cannot be written."""
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
    """The arrays that `prepare` stored, by their names in ARRAYS, as read-only memory maps. Raises DatasetError if the folder is
    damaged, or may not be read."""
    import numpy as np  # late: keeps numpy out of a process that does not need it

    try:
        about = json.loads((folder / "info.json").read_text(encoding="utf-8"))
        arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False) for key in ARRAYS}
        _check(_known(about["name"]), arrays)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        what, remedy = "are damaged", "delete this folder and start again"
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):  # permission is not damage
            what, remedy = "cannot be read", "see that you may read it, or set LABKIT_DATA to another folder"
        raise DatasetError(f"{folder}: the prepared arrays {what} ({error}); {remedy}") from error
    return arrays


def where(name: str) -> str:
    """One line that says where the images are, or how to get them. Opens no file and fetches none. Raises DatasetError for an
    unknown data set."""
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
    """Raise ValueError unless shapes, types and labels are those of the data set."""
    for part, count in (("train", info.train_images), ("test", info.test_images)):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        expected = (count, info.side, info.side, info.channels)
        if images.shape != expected or images.dtype != "uint8" or labels.shape != (count,) or labels.dtype != "int64":
            found = f"{images.dtype} images {images.shape}, {labels.dtype} labels {labels.shape}"
            raise ValueError(f"{part}: {found}; expected uint8 images {expected}, int64 labels ({count},)")
        if labels.min() < 0 or labels.max() >= info.classes:
            raise ValueError(f"{part}: labels {labels.min()} to {labels.max()}; expected 0 to {info.classes - 1}")


def _store(folder: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    import numpy as np  # late: keeps numpy out of a process that does not need it

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
