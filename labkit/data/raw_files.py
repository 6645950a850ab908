"""Raw files of the data sets: found on disk or fetched, always verified, written as a whole or not at all. Imports no numpy."""

import hashlib
import importlib.util
import os
import secrets
import shutil
import sys
import time
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

from labkit.rows.fields import SpecError
from labkit.system.files import abandoned, owner

TIMEOUT_S = 30.0  # longest wait for a server that sends nothing
MAX_BYTES = 200 * 2**20  # more than the largest file here: the limit of a download, and of what a gzip file unpacks to
STALE_S = 24 * 3600.0  # an incomplete folder that another host made is given up at this age
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
URLS = {
    "fashion_mnist": "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "cifar10": "https://www.cs.toronto.edu/~kriz/",
    "cifar100": "https://www.cs.toronto.edu/~kriz/",
}
# SHA-256 of a .tar.gz as it is, and of any other .gz *unpacked*. Debian packs the files again: its gzip headers have another
# time and no name, so the packed files differ from the published ones, and the images do not. This was checked once for all
# four files: with the published header (name, a time on 31 August 2017) Debian's files have the MD5 that torchvision expects.
# digits.csv is the same in scikit-learn 1.2 to 1.9. CIFAR's sums are those that Keras expects; no archive was read here.
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
    """The images of a data set cannot be had. The message names the data set, the file or folder, and the remedy."""


def remedy(name: str, cache: Path) -> str:
    """What to do when the images of a data set are missing: the end of an error message."""
    if name == "digits":
        return "install it with `pip install scikit-learn`, or use another data set, such as dataset=fashion_mnist"
    debian = ", or on Debian `apt-get install dataset-fashion-mnist`" if name == "fashion_mnist" else ""
    return f"put {', '.join(FILES[name])} into {cache / name}{debian}, or use dataset=digits"


def find(name: str, file: str, cache: Path) -> Path | None:
    """The path of a raw file, from the first folder that has it; None if no folder has it. scikit-learn's folder is found
    without importing it, which would take a second."""
    places = [cache / name]
    if name == "digits":
        package = importlib.util.find_spec("sklearn")
        places += [Path(p, "datasets", "data") for p in (package and package.submodule_search_locations) or ()]
    elif name == "fashion_mnist":
        places += [cache / "FashionMNIST" / "raw", DEBIAN_FOLDER]  # torchvision's layout with root=cache
    else:
        places += [cache]  # torchvision's layout with root=cache
    return next((place / file for place in places if os.path.isfile(place / file)), None)


def contents(name: str, file: str, cache: Path) -> bytes:
    """The verified bytes of a raw file, found on disk or fetched: of a .tar.gz as it is, of any other .gz unpacked. Raises
    DatasetError if the file cannot be had, or is not the published one."""
    path, cure = find(name, file, cache), remedy(name, cache)
    if path:
        return _verified(name, file, path, str(path), f"delete or replace this file, or {cure}")
    if name not in URLS:
        raise DatasetError(f"dataset={name}: {file} is part of scikit-learn, which is not installed; {cure}")
    url = URLS[name] + file
    with writing(cache / name) as temporary:
        with open(temporary / file, "xb") as out:
            for piece in _pieces(name, url, cure):
                out.write(piece)
            to_disk(out)
        data = _verified(name, file, temporary / file, url, cure)
        os.replace(temporary / file, cache / name / file)
    return data


def _verified(name: str, file: str, path: Path, called: str, remedy: str) -> bytes:
    """The bytes of a .tar.gz, the unpacked bytes of any other .gz. Raises DatasetError unless they are as pinned."""
    expected = FILES[name][file]
    try:
        data = path.read_bytes()
        if not file.endswith(".tar.gz"):
            data = zlib.decompressobj(wbits=31).decompress(data, MAX_BYTES)  # of a truncated file: what can be unpacked
        found = f"has SHA-256 {hashlib.sha256(data).hexdigest()}"
    except OSError as error:
        raise DatasetError(f"dataset={name}: {called} cannot be read ({error}); see that you may read it, or {remedy}") from error
    except zlib.error as error:
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


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A new, empty folder inside `folder`. Write files into it, then rename them (or the new folder) to their final names. What
    is left in it at the end is deleted. Raises DatasetError where the file system raises OSError."""
    temporary = folder / f".part-{owner()}.{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
        for old in folder.glob(".part-*"):
            with suppress(FileNotFoundError):  # renamed just now by a living process
                made_by = old.name.removeprefix(".part-").rpartition(".")[0]
                if abandoned(made_by) or time.time() - os.path.getmtime(old) > STALE_S:
                    shutil.rmtree(old, ignore_errors=True)
        yield temporary
    except OSError as error:
        remedy = "free some space, or set LABKIT_DATA to a folder that can be written"
        raise DatasetError(f"{folder}: cannot be written ({error}); {remedy}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def to_disk(out: BinaryIO) -> None:
    """Put a file's content on the disk before it gets its final name. Without this, a power cut could leave an empty file."""
    out.flush()
    os.fsync(out.fileno())
