"""The table in CONTRIBUTING.md names tests that are there."""

from __future__ import annotations

import ast
import re

import pytest

from labkit.rows.params import ROOT

TABLE = re.findall(r"^\| (.+?) \| `(tests/[^`]*)::(test_\w+)` \|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)


def test_the_table_was_found() -> None:
    """Every line of it: one that is written otherwise would be looked at by nobody."""
    lines = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("the test that proves it")[2].partition("\n## ")[0]
    assert len(TABLE) == lines.count("\n| ") - 2 >= 20
    assert len({claim for claim, _, _ in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("claim", "path", "name"), TABLE, ids=[name for _, _, name in TABLE])
def test_the_test_of_a_claim_exists(claim: str, path: str, name: str) -> None:
    functions = [
        node.name for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
    ]
    assert name in functions, f"{claim}: {path} has no {name}"
