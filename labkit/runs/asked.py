"""What a person asks for, by type, before anything is done with it: values may come from papermill, which makes texts of many.

`papermill -p key value` knows whole numbers, numbers, True, False and None (with a capital letter); all else arrives as a text.
`papermill -y "key: value"` reads YAML: lists and mappings come so.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from labkit.rows.fields import SpecError
from labkit.rows.spec import Spec

A_TIME_S = 1e9  # Unix seconds in 2001: a smaller number is no time at which something was trained


def check_times(repeats: Any, fresh: Any) -> None:
    """Raise SpecError unless `repeats` is a number of repeats, and `fresh` True, False or a time."""
    if isinstance(repeats, bool) or not isinstance(repeats, int) or not 1 <= repeats <= 1000:
        raise SpecError(f"repeats={repeats!r}: must be a whole number from 1 to 1000; for papermill: -p repeats 2")
    a_time = isinstance(fresh, (int, float)) and not isinstance(fresh, bool) and math.isfinite(fresh) and fresh >= A_TIME_S
    if not isinstance(fresh, bool) and not a_time:
        raise SpecError(
            f"fresh={fresh!r}: must be True, False, or a time in Unix seconds (what is older is trained again); "
            "for papermill: -p fresh True"
        )


def check_overrides(overrides: Any) -> None:
    """Raise SpecError unless it is a mapping of names of fields. Whether there are such fields is for Spec to say."""
    if overrides is not None and (not isinstance(overrides, dict) or not all(isinstance(key, str) for key in overrides)):
        raise SpecError(
            f"overrides={overrides!r}: must be a mapping of fields, not {type(overrides).__name__}, such as {{'epochs': 2}}; "
            'for papermill: -y "overrides: {epochs: 2}"'
        )


def check_rows(rows: Any) -> None:
    """Raise SpecError unless it is the name of a row, the number of a group, a Spec, or a list of such."""
    if isinstance(rows, Collection) and not isinstance(rows, (str, bytes, dict)):
        for row in rows:
            check_rows(row)
    elif isinstance(rows, bool) or not isinstance(rows, (str, int, Spec)):
        raise SpecError(
            f"rows={rows!r}: must be names of rows or numbers of groups, not {type(rows).__name__}; `labkit rows` lists them"
        )


def check_lesson(group: Any, rows: Any, claim: Any) -> None:
    """Raise SpecError unless a lesson can be made of these: a group's number, a list of names of rows, a text."""
    if isinstance(group, bool) or not isinstance(group, int):
        raise SpecError(f"group={group!r}: must be the number of a group, such as 4; for papermill: -p group 4")
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, str) for row in rows):
        raise SpecError(f'rows={rows!r}: must be a list of names of rows; for papermill: -y "rows: [name, name]"')
    if not isinstance(claim, str):
        raise SpecError(f"claim={claim!r}: must be a text, not {type(claim).__name__}; for papermill: -r claim 'a sentence'")
