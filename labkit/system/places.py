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
    """The folder that a variable names, or the default; absolute. Raises OSError for a `~` where no home folder is known."""
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
        return os.path.abspath(Path(folder).expanduser())
    except RuntimeError as error:  # HOME is not set, and the user has no entry in /etc/passwd; or ~nobody-we-know
        raise OSError(f"{folder}: the home folder is not known; set HOME, or set {variable} to a folder") from error
