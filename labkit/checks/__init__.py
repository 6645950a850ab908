"""Exercises that explain. A student writes a small function; `lab.checks.check_<name>(function)` says whether it is right.

A check calls the function with made-up values and returns a Verdict: passed or not yet, what was called, what the function
returned, what was expected, and why. A notebook shows the verdict as a box; `if verdict:` is true where the function passed.
A mistake in the function never raises here. `dir(lab.checks)` lists the checks; `help(lab.checks.check_push)` describes one.
Plain Python: importing this loads neither torch nor numpy.
"""

from difflib import get_close_matches

from labkit.checks import batches, collectives, costs, data, published, schedules, updates
from labkit.checks.judge import Verdict

CHECKS = {
    name: check
    for module in (batches, collectives, costs, data, published, schedules, updates)
    for name, check in vars(module).items()
    if name.startswith("check_")
}


def __getattr__(name: str):
    if name in CHECKS:
        return CHECKS[name]
    nearest = get_close_matches(name, [*CHECKS, "Verdict"], n=1, cutoff=0)[0]
    raise AttributeError(f"labkit.checks has no '{name}'. The nearest name is '{nearest}'; dir(labkit.checks) lists all names.")


def __dir__() -> list[str]:
    return sorted([*CHECKS, Verdict.__name__])
