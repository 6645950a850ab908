"""Files read and written whole. A reader sees the old content or the new one, never a part."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None if there is none. Raises OSError, as it is if the file cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:  # what it says; that it cannot be read is another matter, and told as it is
        raise OSError(f"{path}: damaged ({error}); delete this file to have the row trained again") from error


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
    """Write plain data as JSON, the file whole or not at all."""
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the process or the machine dies in between."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    draft.unlink(missing_ok=True)  # of a process that had our number, or a link that somebody put there
    try:
        with open(draft, "xb") as file:  # x: never through a link
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
