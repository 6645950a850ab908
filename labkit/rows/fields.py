"""One field of a Spec: its limits, and how a value is checked against them."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable
from typing import Any

TYPES = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a word"}


class SpecError(ValueError):
    """A value is wrong, and no run can start with it. The message names the key, the value and the remedy."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of this error: one line. The place in labkit's code would not help the reader to correct the value."""
        return [f"{type(self).__name__}: {self}"]


def field(default: Any, about: str, *, choices=None, also=None, low=None, high=None, above=None, scale=False) -> Any:
    """A field of a dataclass, with a description and limits: one of `choices`, low <= value <= high, value > above.
    `also`: a function that returns more choices, asked when a value is none of the others."""
    limits = {"about": about, "choices": choices, "also": also, "low": low, "high": high, "above": above, "scale": scale}
    return dataclasses.field(default=default, metadata=limits)


def scale(default: Any, about: str, **limits: Any) -> Any:
    """As `field`, for a field that a profile sets: how big, how long, on which device."""
    return field(default, about, scale=True, **limits)


def nearest(word: str, known_words: Iterable[str]) -> str:
    """The end of an error message about an unknown word: `; did you mean 'X'?`, or the list of known words if none is close."""
    close = difflib.get_close_matches(str(word), list(known_words), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known_words)}"


def check_value(f: dataclasses.Field, value: Any) -> None:
    """Raise SpecError unless `value` has the type of the field and is inside its limits."""
    wanted, limits, at = f.type, f.metadata, f"{f.name}={value!r}"
    fits = {
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, (int, float)) and not isinstance(value, bool),
        "str": isinstance(value, str),
    }[str(wanted)]
    if not fits:
        hint = ""
        if isinstance(value, str):
            hint = "; write it without quotes, and with a point: YAML reads 1e-4 as text, and 1.0e-4 as a number"
        elif wanted == "str" and isinstance(value, bool):
            hint = f"; write it in quotes: '{str(value).lower()}'"
        raise SpecError(f"{at}: must be {TYPES[str(wanted)]}, not {type(value).__name__}{hint}")
    if limits["choices"] and value not in limits["choices"]:
        more = limits["also"]() if limits["also"] else ()
        if value not in more:
            raise SpecError(f"{at}: there is no such choice{nearest(value, [*limits['choices'], *more])}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high, above = limits["low"], limits["high"], limits["above"]
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(f"{at}: must be a finite number ({f.metadata['about']}; the default is {f.default})")
        if (low is not None and value < low) or (above is not None and value <= above) or (high is not None and value > high):
            lower = f"at least {low}" if low is not None else f"more than {above}"
            upper = f" and at most {high}" if high is not None else ""
            raise SpecError(f"{at}: must be {lower}{upper} ({f.metadata['about']}; the default is {f.default})")


def read_text(f: dataclasses.Field, text: str) -> Any:
    """The value of a field from a text, as in the command line's `--set key=text`. Raises SpecError if the text is not of the
    field's type. It checks no limits: Spec does that."""
    wanted = str(f.type)
    if wanted in ("int", "float") and (re.match("[-+]?0[0-9]", text) or "_" in text or not text.isascii()):  # as YAML is read
        raise SpecError(f"{f.name}={text}: write the number with the digits 0 to 9, without a 0 in front ({f.metadata['about']})")
    try:
        if wanted == "bool":
            return {"true": True, "false": False}[text.lower()]
        return {"int": int, "float": float, "str": str}[wanted](text.lower() if f.name == "cache" else text)
    except (KeyError, ValueError):
        raise SpecError(f"{f.name}={text}: must be {TYPES[wanted]} ({f.metadata['about']})") from None
