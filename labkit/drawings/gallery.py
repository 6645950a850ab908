"""Drawings of how things work: who holds what, who sends what to whom, and when.

    drawing("ring") -> Figure        alt("ring") -> what it shows, in a sentence        names() -> all of them

Schedules, bytes and layers are computed, so that a drawing stays right when the code changes. All others are schematic, and
each drawing says which it is.
"""

from matplotlib.figure import Figure

from labkit.drawings import data as drawings_data
from labkit.drawings import messages as drawings_messages
from labkit.drawings import models as drawings_models
from labkit.drawings import numbers as drawings_numbers
from labkit.drawings import steps as drawings_steps
from labkit.drawings.sheet import DRAWINGS
from labkit.rows.fields import SpecError, nearest

MODULES = (drawings_steps, drawings_messages, drawings_data, drawings_numbers, drawings_models)


def names() -> list[str]:
    """The names of all drawings, sorted."""
    return sorted(DRAWINGS)


def known(name: str) -> str:
    """The name itself. Raises SpecError, with the nearest name, if there is no such drawing."""
    if name not in DRAWINGS:
        raise SpecError(f"drawing '{name}': there is no such drawing{nearest(name, names())}")
    return name


def drawing(name: str) -> Figure:
    """The drawing of this name, as a new figure. Raises SpecError for an unknown name."""
    return DRAWINGS[known(name)]()


def alt(name: str) -> str:
    """What a drawing shows, on one line, for readers who cannot see it: the first paragraph of its function's docstring. Raises
    SpecError for an unknown name."""
    docstring = DRAWINGS[known(name)].__doc__ or ""
    return " ".join(docstring.split("\n\n")[0].split())
