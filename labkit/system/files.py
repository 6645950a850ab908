"""Files that are read and written as a whole. A reader sees the old content or the new one, never a part of it."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None if there is no such file. Raises OSError for a damaged file, with the remedy."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise OSError(f"{path}: damaged ({error}); delete this file to have the row trained again") from error


def write_json(path: Path, content: Any) -> None:
    """Write plain data as JSON: the whole file or nothing."""
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write the whole file or nothing, even if the process or the machine stops in the middle: write a draft beside it, then give
    the draft its name."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
