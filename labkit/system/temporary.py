"""One folder for the temporary files of this process, and an end to those that a killed process left.

Whoever owns a folder holds a lock on its file `owner`; the operating system releases it when the owner ends, for any
reason. The next process that needs a folder removes those that nobody holds.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from labkit.system.files import remove_unless_held

PREFIX = "labkit-"
LONGEST_SOCKET_PATH = 103  # characters: macOS allows 104 bytes with the zero at the end, Linux 108
SOCKET_NAME = len("/labkit-12345678/listener-12345678")
_own: tuple[int, Path] | None = None  # the process that made it, since a fork inherits this variable, and the folder
_locks: list[int] = []  # open for the life of the process


def own_folder() -> Path:
    """This process's temporary folder, with a path short enough for a socket in it. It is removed when the process ends.

    Raises OSError where TMPDIR is too long for a socket's path and /tmp cannot be written."""
    global _own
    if _own is None or _own[0] != os.getpid() or not _own[1].is_dir():
        place = _short_place()
        _clear_abandoned(place)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        _locks.append(os.open(folder / "owner", os.O_CREAT | os.O_RDWR, 0o600))
        fcntl.flock(_locks[-1], fcntl.LOCK_EX)
        _own = os.getpid(), folder
        atexit.register(_remove, folder, os.getpid())
    return _own[1]


def _short_place() -> str:
    place = tempfile.gettempdir()
    if len(os.fsencode(place)) + SOCKET_NAME <= LONGEST_SOCKET_PATH:
        return place
    if os.access("/tmp", os.W_OK | os.X_OK):
        return "/tmp"
    most = LONGEST_SOCKET_PATH - SOCKET_NAME
    raise OSError(
        f"TMPDIR={place}: has {len(os.fsencode(place))} characters, and a socket's path allows {most}; set TMPDIR to a shorter folder"
    )


def _clear_abandoned(place: str) -> None:
    for folder in Path(place).glob(f"{PREFIX}*"):
        remove_unless_held(folder, folder / "owner")


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a fork of it
        shutil.rmtree(folder, ignore_errors=True)
