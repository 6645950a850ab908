"""Files that are read and written as a whole. A reader sees the old content or the new one, never a part of it."""

from __future__ import annotations

import json
import os
import platform
import threading
from glob import escape
from pathlib import Path
from typing import Any

import psutil


class Unreadable(ValueError):
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

    Raises OSError for a file that may not be read.
    """
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
    """Did a process of this host make it (`owner`) that is there no more? Of other hosts nothing is known."""
    host, _, number = name.rpartition("~")
    return host == platform.node() and number.isdecimal() and not psutil.pid_exists(int(number))
