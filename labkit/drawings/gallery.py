"""Drawings of how things work: who holds what, who sends what to whom, and when. Schematic, unless they say that they are computed.

    drawing("ring") -> Figure        alt("ring") -> what it shows, in a sentence        names() -> all of them

What can be computed is (schedules, bytes, layers): a drawing that computes cannot drift from the code.
"""

from __future__ import annotations

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
    return sorted(DRAWINGS)


def known(name: str) -> str:
    if name not in DRAWINGS:
        raise SpecError(f"drawing '{name}': there is none of that name{nearest(name, names())}")
    return name


def drawing(name: str) -> Figure:
    """Draw one, by name. Raises SpecError for an unknown name, with the nearest known one."""
    return DRAWINGS[known(name)]()


def alt(name: str) -> str:
    """What a drawing shows: the first sentence of its function's docstring."""
    told = DRAWINGS[known(name)].__doc__ or ""
    return " ".join(told.split("\n\n")[0].split())
