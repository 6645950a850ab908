"""Locks, and folders that others can write into, too: nothing is opened through a symbolic link that somebody put there."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
from pathlib import Path
from typing import IO


def refuse_links(folder: Path, root: Path) -> None:
    """Raise OSError for a symbolic link where labkit puts its own files: the folder, those above it up to `root` (which may be
    one), and what lies in the folder. Training empties `logs` and `events`: behind a link they would be somebody else's."""
    above = [folder, *(path for path in folder.parents if root in path.parents)]
    inside = [Path(entry.path) for entry in os.scandir(folder) if entry.is_symlink()] if folder.is_dir() else []
    for path in [*above, *inside]:
        if path.is_symlink():
            raise OSError(f"{path}: is a symbolic link, and labkit writes nothing through one there; remove it")


def take_lock(file: IO[bytes], path: Path, how: int) -> None:
    """fcntl.flock. Raises BlockingIOError where another holds it, and OSError with the remedy where the file system keeps no locks."""
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        raise OSError(
            f"{path.parent}: its file system keeps no locks ({error.strerror}); set LABKIT_RUNS to a folder on a local disk"
        ) from error


def try_folder(folder: Path) -> None:
    """Make a file there and lock it. Raises OSError with the remedy where that cannot be."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            take_lock(file, folder / ".lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno is None:  # ours, which says what to do
            raise
        raise OSError(f"{folder}: {error.strerror}; set LABKIT_RUNS to a folder that can be written") from error


def open_lock(path: Path, create: bool = True) -> IO[bytes]:
    """A file to lock, made if it is not there and never changed. Raises OSError for a symbolic link, and for what is no file."""
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(f"{path}: is a symbolic link, and labkit locks nothing through one; remove it") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path}: must be a file that labkit can lock; remove what stands there")
    return os.fdopen(descriptor, "rb")
