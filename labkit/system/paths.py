"""Where a process that we start looks for modules: never first in the folder that the user happens to stand in.

`python -c` and `python -m` look for every module in the current folder first. A student's `random.py` or `torch.py` there would
be run by the fork server, the ranks and a batch's processes in place of the module that they want.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

ROOT = str(Path(__file__).parents[2])  # the folder that holds the package labkit


def helper_path() -> list[str]:
    """sys.path for a process that we start: as it is here, but the current folder, the script's and the lab's own come last.

    They stay on the path, because a target for `launch` may be a module that lies there. The lab's folder comes before any
    other folder that holds a package labkit: our processes must import the code that we are.
    """
    last = {os.path.realpath(folder) for folder in (os.getcwd(), os.path.dirname(os.path.abspath(sys.argv[0])), ROOT)}
    entries = [entry or os.getcwd() for entry in sys.path]
    others = [entry for entry in entries if os.path.realpath(entry) not in last]
    mine = [entry for entry in entries if os.path.realpath(entry) in last and os.path.realpath(entry) != os.path.realpath(ROOT)]
    at = next((at for at, entry in enumerate(others) if PathFinder.find_spec("labkit", [entry])), len(others))
    return list(dict.fromkeys([*others[:at], ROOT, *others[at:], *mine]))


def helper_environment() -> dict[str, str]:
    """What to add to the environment of a Python that we start, so that it looks for modules in `helper_path()` alone."""
    return {"PYTHONPATH": os.pathsep.join(helper_path()), "PYTHONSAFEPATH": "1"}
