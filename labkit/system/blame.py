"""Where in our own code an error arose: `labkit/strategies/ddp.py, line 12`."""

from __future__ import annotations

import traceback
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def blame(error: BaseException) -> str:
    """File, line, class and message of an error that the import of a module of labkit raised, in one line."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
        message = error.msg
    else:
        message = str(error)
    ours = [(Path(file), line) for file, line in places if Path(file).is_relative_to(PACKAGE)]
    text = f"{type(error).__name__}: {message}"
    return f"{ours[-1][0].relative_to(PACKAGE.parent)}, line {ours[-1][1]}: {text}" if ours else text
