"""Which cells of a notebook are folded, so that no answer stands above its question; and a script that folds them.

    python -m tests.helpers.folded

Run it after you wrote a cell with `lab.say` or `lab.tell`. It changes the metadata of such cells in notebooks/, and nothing else.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
REMEDY = "fold it: run `python -m tests.helpers.folded` and commit the notebooks"
SENTENCES = {"say", "tell"}
TAGS = {"parameters", "injected-parameters", "solution"}


def must_be_folded(cell: dict[str, Any]) -> bool:
    """Is this a cell of parameters or of a solution, or one that chooses a sentence by what was measured?"""
    if cell["cell_type"] != "code":
        return False
    if TAGS & set(cell["metadata"].get("tags", [])):
        return True
    source = "".join(cell["source"])
    if source.startswith("%%"):  # a file that the cell writes: no Python of the notebook
        return False
    return any(isinstance(node, ast.Call) and name_of(node.func) in SENTENCES for node in ast.walk(ast.parse(source)))


def name_of(called: ast.expr) -> str:
    """`say` for both `say(...)` and `lab.say(...)`."""
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def is_folded(cell: dict[str, Any]) -> bool:
    """Does JupyterLab open the notebook with the source of this cell hidden?"""
    return cell["metadata"].get("jupyter", {}).get("source_hidden") is True


def unfolded(cells: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The cells that must be folded, and are not."""
    return (cell for cell in cells if must_be_folded(cell) and not is_folded(cell))


def fold(path: Path) -> int:
    """Fold the cells of a notebook that must be folded. Returns how many were not. A notebook without such a cell is not written."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    found = list(unfolded(notebook["cells"]))
    for cell in found:
        kept = dict(cell["metadata"])
        hidden = kept.pop("jupyter", {}) | {"source_hidden": True}
        cell["metadata"] = {"jupyter": hidden, **kept}
    if found:
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(found)


if __name__ == "__main__":
    for one in sorted(NOTEBOOKS.glob("*.ipynb")):
        print(f"{one.name}: {fold(one)} cells folded")
