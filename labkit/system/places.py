"""Where things are: the folders that the environment names, and the folders in which a process that we start looks for modules.

LABKIT_RUNS (results), LABKIT_DATA (data sets), LABKIT_NOTEBOOKS (notebooks), LABKIT_STRATEGIES (strategies of your own): an empty
value is none. A relative path means the
folder in which this process stood when it first asked for any of them. It is then written back as an absolute path: a kernel, a
fork server and a rank, which may stand elsewhere, inherit the same place, and no `os.chdir` or `%cd` moves it. `~` is the home folder.

`python -c` and `python -m` look for every module in the current folder first. A student's `random.py` or `torch.py` there would
be run by the fork server, the ranks and a batch's processes in place of the module that they want. So it comes last (`helper_path`).
"""

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

VARIABLES = ("LABKIT_RUNS", "LABKIT_DATA", "LABKIT_NOTEBOOKS", "LABKIT_STRATEGIES")


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


ROOT = str(Path(__file__).parents[2])  # the folder that holds the package labkit


def helper_path() -> list[str]:
    """sys.path for a process that we start: as it is here, but the current folder, the script's and the lab's own come last.

    They stay on the path, because a target for `launch` may be a module that lies there. The lab's folder comes before any
    other folder that holds a package labkit: our processes must import the code that we are."""
    last = {os.path.realpath(folder) for folder in (os.getcwd(), os.path.dirname(os.path.abspath(sys.argv[0])), ROOT)}
    entries = [entry or os.getcwd() for entry in sys.path]
    others = [entry for entry in entries if os.path.realpath(entry) not in last]
    late = [entry for entry in entries if os.path.realpath(entry) in last and os.path.realpath(entry) != os.path.realpath(ROOT)]
    at = next((at for at, entry in enumerate(others) if PathFinder.find_spec("labkit", [entry])), len(others))
    return list(dict.fromkeys([*others[:at], ROOT, *others[at:], *late]))


def helper_environment() -> dict[str, str]:
    """What to add to the environment of a Python that we start, so that it looks for modules in `helper_path()` alone."""
    return {"PYTHONPATH": os.pathsep.join(helper_path()), "PYTHONSAFEPATH": "1"}
