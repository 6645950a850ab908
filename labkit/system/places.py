"""The folders that the environment names: LABKIT_RUNS (results), LABKIT_DATA (data sets), LABKIT_NOTEBOOKS (notebooks).

An empty value is none. A relative path means the folder in which this process stood when it first asked for any of them. It is
then written back as an absolute path: a kernel, a fork server and a rank, which may stand elsewhere, inherit the same place,
and no `os.chdir` or `%cd` moves it. `~` is the home folder.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLES = ("LABKIT_RUNS", "LABKIT_DATA", "LABKIT_NOTEBOOKS")


def place(variable: str, default: Path | str) -> Path:
    """The folder that a variable names, or the default; absolute. Raises OSError for a `~` where no home folder is known,
    and for a name that this locale cannot spell."""
    settle()
    return Path(os.environ.get(variable) or absolute(variable, str(default)))


def settle() -> None:
    """Make the variables absolute, for this process and for those that it starts."""
    for variable in VARIABLES:
        if named := os.environ.get(variable):
            os.environ[variable] = absolute(variable, named)


def absolute(variable: str, folder: str) -> str:
    """The absolute path of the folder that a variable of the environment names. Raises OSError with the remedy."""
    try:
        path = os.path.abspath(Path(folder).expanduser())
        path.encode()  # with surrogates: the locale cannot spell the name, and neither could a result
    except RuntimeError as error:  # HOME is not set, and the user has no entry in /etc/passwd; or ~nobody-we-know
        raise OSError(f"{folder}: the home folder is not known; set HOME, or set {variable} to a folder") from error
    except UnicodeEncodeError as error:
        spelled = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        raise OSError(f"{spelled}: this locale has no such letters; set PYTHONUTF8=1, or {variable} to another folder") from error
    return path


def check_home() -> None:
    """Raise OSError where no home folder is known: Jupyter asks for one when a page is made."""
    try:
        Path.home()
    except RuntimeError as error:
        raise OSError(
            "HOME is not set, and this user has no entry in /etc/passwd: Jupyter needs a home folder; set HOME"
        ) from error
