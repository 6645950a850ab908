"""The strategy files are a lesson: from `single` to `ddp` little changes, and each file can be read in one go."""

import ast
import difflib
from pathlib import Path

import pytest

from labkit.rows.kinds import STRATEGIES

FOLDER = Path(__file__).parents[2] / "labkit/strategies"
MOST_CHANGED = 16  # lines: what `diff single.py ddp.py | grep -c '^[<>]'` counts
MOST_LINES = 250


def changed_lines(one, other):
    """Lines that only one of two strategy files has."""
    before, after = ((FOLDER / f"{name}.py").read_text().splitlines() for name in (one, other))
    return [line for line in difflib.ndiff(before, after) if line.startswith(("- ", "+ "))]


def test_from_single_to_ddp_only_the_lesson_changes():
    changed = changed_lines("single", "ddp")
    assert len(changed) <= MOST_CHANGED, f"{len(changed)} lines change, at most {MOST_CHANGED} may:\n" + "\n".join(changed)
    text = "\n".join(line for line in changed if line.startswith("+"))
    for seen in ("DistributedDataParallel", "broadcast_from_rank0(", "place.processes", "self.replica, x, y", "rank0_buffers("):
        assert seen in text, f"a student must see {seen!r} in what changes from single.py to ddp.py"


@pytest.mark.parametrize("name", STRATEGIES)
def test_file_says_what_each_part_does(name):
    """A docstring for the file, each class and each function; methods that Python calls (__init__) have none."""
    source = (FOLDER / f"{name}.py").read_text()
    tree = ast.parse(source)
    assert len(source.splitlines()) <= MOST_LINES
    parts = [node for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    without = [node.name for node in parts if not node.name.startswith("__") and not ast.get_docstring(node)]
    assert ast.get_docstring(tree) and not without, f"{name}.py: no docstring: {without}"
