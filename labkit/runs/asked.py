"""Checks the types of what a person asks for, before anything is started. Values may come from papermill, which passes many as
texts.

`papermill -p key value` reads whole numbers, numbers, True, False and None (with a capital letter); everything else becomes a
text. `papermill -y "key: value"` reads YAML, so it can pass lists and mappings.
"""

import math
from collections.abc import Collection
from typing import Any

from labkit.rows.fields import SpecError
from labkit.rows.spec import Spec

A_TIME_S = 1e9  # Unix seconds in 2001; a smaller number cannot be the time of a run


def check_times(repeats: Any, fresh: Any) -> None:
    """Raise SpecError unless `repeats` is a whole number from 1 to 1000, and `fresh` is True, False or a time in Unix seconds."""
    if isinstance(repeats, bool) or not isinstance(repeats, int) or not 1 <= repeats <= 1000:
        raise SpecError(f"repeats={repeats!r}: must be a whole number from 1 to 1000; for papermill: -p repeats 2")
    a_time = isinstance(fresh, (int, float)) and not isinstance(fresh, bool) and math.isfinite(fresh) and fresh >= A_TIME_S
    if not isinstance(fresh, bool) and not a_time:
        raise SpecError(
            f"fresh={fresh!r}: must be True, False, or a time in Unix seconds (what is older is trained again); "
            "for papermill: -p fresh True"
        )


def check_overrides(overrides: Any) -> None:
    """Raise SpecError unless it is None or a mapping with texts as keys. Spec checks that its fields exist."""
    if overrides is not None and (not isinstance(overrides, dict) or not all(isinstance(key, str) for key in overrides)):
        raise SpecError(
            f"overrides={overrides!r}: must be a mapping of fields, not {type(overrides).__name__}, such as {{'epochs': 2}}; "
            'for papermill: -y "overrides: {epochs: 2}"'
        )


def check_rows(rows: Any) -> None:
    """Raise SpecError unless it is the name of a row, the number of a group, a Spec, or a list of these."""
    if isinstance(rows, Collection) and not isinstance(rows, (str, bytes, dict)):
        for row in rows:
            check_rows(row)
    elif isinstance(rows, bool) or not isinstance(rows, (str, int, Spec)):
        raise SpecError(
            f"rows={rows!r}: must be names of rows or numbers of groups, not {type(rows).__name__}; `labkit rows` lists them"
        )


def check_lesson(group: Any, rows: Any, claim: Any, claim_zh: Any = "") -> None:
    """Raise SpecError unless `group` is a whole number, `rows` is a list of names of rows, and the claims are texts."""
    if isinstance(group, bool) or not isinstance(group, int):
        raise SpecError(f"group={group!r}: must be the number of a group, such as 4; for papermill: -p group 4")
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, str) for row in rows):
        raise SpecError(f'rows={rows!r}: must be a list of names of rows; for papermill: -y "rows: [name, name]"')
    for key, text in (("claim", claim), ("claim_zh", claim_zh)):
        if not isinstance(text, str):
            raise SpecError(f"{key}={text!r}: must be a text, not {type(text).__name__}; for papermill: -r {key} 'a sentence'")
