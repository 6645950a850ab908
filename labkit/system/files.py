"""Files read and written whole. A reader sees the old content or the new one, never a part."""

from __future__ import annotations

import json
import os
import platform
import threading
from glob import escape
from pathlib import Path
from typing import Any

import psutil


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise OSError(f"{path}: damaged ({error}); delete this file to have the row trained again") from error


def write_json(path: Path, content: Any) -> None:
    """Write plain data as JSON, the file whole or not at all."""
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the process or the machine dies in between. Drafts of this
    file that a killed process left are removed."""
    for old in path.parent.glob(f".{escape(path.name)}.*~*.*"):
        if abandoned(old.name.removeprefix(f".{path.name}.").rpartition(".")[0]):
            old.unlink(missing_ok=True)
    draft = path.with_name(f".{path.name}.{owner()}.{threading.get_ident()}")
    try:
        with open(draft, "wb") as file:
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
