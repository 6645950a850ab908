"""Files that are read and written as a whole, and locked. A reader sees the old content or the new one, never a part of it.

In a folder that others can write into, too, nothing is opened through a symbolic link that somebody put there.
"""

import dataclasses
import errno
import fcntl
import json
import os
import platform
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable
from glob import escape
from pathlib import Path
from typing import IO, Any

import psutil


class Unreadable(OSError):
    """A file whose content cannot be used. The message names the file, what is wrong with it, and the remedy."""


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None if there is no file. Raises Unreadable for text that is no JSON, OSError for a file that
    may not be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path}: damaged ({error}); delete this file, and it is made again") from error


def read_kept(path: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """A JSON file that was kept, if it says the same `about` itself as would be written now; else None, and it is made again.

    Raises OSError for a file that may not be read."""
    try:
        kept = read_json(path)
    except Unreadable:
        return None
    same = isinstance(kept, dict) and all(kept.get(key) == value for key, value in about.items())
    return kept if same else None


def check_readable(folder: Path, variable: str = "LABKIT_RUNS") -> None:
    """Raise OSError for a folder that is there and may not be read: a glob finds nothing in it, and says nothing."""
    try:
        os.scandir(folder).close()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        remedy = f"see that you may read it, or set {variable} to another folder"
        raise OSError(f"{folder}: cannot be read ({error.strerror}); {remedy}") from error


def write_json(path: Path, content: Any) -> None:
    """Write plain data as JSON: the whole file or nothing."""
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write the whole file or nothing, even if the process or the machine stops in the middle: write a draft beside it, then give
    the draft its name. Drafts of this file that a killed process left are removed."""
    for old in path.parent.glob(f".{escape(path.name)}.*~*.*"):
        if abandoned(old.name.removeprefix(f".{path.name}.").rpartition(".")[0]):
            old.unlink(missing_ok=True)
    draft = path.with_name(f".{path.name}.{owner()}.{threading.get_ident()}")
    draft.unlink(missing_ok=True)  # of a process that had our number, or a link that somebody put there
    try:
        with open(draft, "xb") as file:  # x: never through a link
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def owner() -> str:
    """This process in the name of a file or folder that it alone uses: its host and its number."""
    return f"{platform.node()}~{os.getpid()}"


def abandoned(name: str) -> bool:
    """True if a process of this host made it (see `owner`) and has ended. False for other hosts: we cannot know."""
    host, _, number = name.rpartition("~")
    return host == platform.node() and number.isdecimal() and not psutil.pid_exists(int(number))


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


def remove_unless_held(folder: Path, lock_file: Path) -> None:
    """Delete a folder, unless a process holds this lock. Leaves it where the lock cannot be opened: it is not ours."""
    try:
        lock = os.open(lock_file, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # its owner lives
        pass
    finally:
        os.close(lock)


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


# -- plain data that was read back: is it what was written? ----------------------------------------------------------------
LARGEST = 2**53  # from here on a float does not hold every whole number; no figure of a run comes near
LATEST = 2**33  # the last second, in the year 2242, of a time that is told as a date


def one_line(error: Exception) -> str:
    """What an exception says, in a line that can be printed."""
    return " ".join(str(error).encode(errors="backslashreplace").decode().split())


def text(value: Any) -> bool:
    """Is it a text that can be printed? JSON can hold halves of characters, which have no UTF-8."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def whole(value: Any) -> bool:
    """Is it a whole number that a run could have counted?"""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST


def counts(value: Any) -> bool:
    """Is it how often each whole number was counted? As JSON has it: the numbers are texts."""
    return isinstance(value, dict) and all(
        key.isascii() and key.isdecimal() and len(key) < 16 and whole(n) for key, n in value.items()
    )


TYPES: dict[str, Callable[[Any], bool]] = {  # by the annotation of a field, or by its first word
    "str": text,
    "int": whole,
    "float": lambda value: whole(value) or (isinstance(value, float) and abs(value) <= LARGEST),  # NaN is not <= anything
    "bool | None": lambda value: value is None or isinstance(value, bool),
    "list": lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
    "dict": lambda value: isinstance(value, dict),
    "dict[str, str]": lambda value: isinstance(value, dict) and all(map(text, [*value, *value.values()])),
    "float | None": lambda value: value is None or TYPES["float"](value),
    "dict[str, list[float]] | None": lambda value: (
        value is None
        or (
            isinstance(value, dict)
            and all(isinstance(pair, list) and len(pair) == 2 and all(map(TYPES["float"], pair)) for pair in value.values())
            and all(map(text, value))
        )
    ),
    "Spec": lambda value: isinstance(value, dict),
    "Machine": lambda value: isinstance(value, dict),
    "tuple[str, ...]": lambda value: isinstance(value, (list, tuple)) and all(map(text, value)),
    "tuple[int, int] | None": lambda value: (
        value is None or (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(whole, value)))
    ),
}


def checked_fields(content: Any, shape: Any, where: str | Path, remedy: str) -> dict[str, Any]:
    """The values for the dataclass `shape`, from plain data. Raises Unreadable, with the remedy, unless each field is there and has its type;
    a field whose name ends in `_at` must be a time."""
    if not isinstance(content, dict):
        raise Unreadable(f"{where}: holds {type(content).__name__}, where key: value pairs were expected; {remedy}")
    fields = {one.name: one for one in dataclasses.fields(shape) if one.metadata.get("in_file", True)}
    needed = {name for name, one in fields.items() if one.default is dataclasses.MISSING}
    if odd := sorted((needed - content.keys()) | (content.keys() - fields.keys())):
        has = "lacks" if odd[0] in needed else "has"
        raise Unreadable(f"{where}: was written by another version of labkit (it {has} {odd[0][:40]!r}); {remedy}")
    for name, value in content.items():
        wanted = str(fields[name].type)
        fits = TYPES.get(wanted) or TYPES[wanted.partition("[")[0].partition(" ")[0]]
        if not fits(value) or (name.endswith("_at") and not 0 <= value <= LATEST):
            raise Unreadable(f"{where}: '{name}' is {str(value)[:40]!r}, where a value of type {wanted} was expected; {remedy}")
    return dict(content)
