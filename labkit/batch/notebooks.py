"""The notebooks as files: which there are, which parameters each is given, and what it depends on.

They lie in notebooks/, or in the folder that LABKIT_NOTEBOOKS names. A notebook is found by its name, `NN_words.ipynb`, and
never listed; if a group has the number NN, params/NN_words.yaml holds its parameters, under the same name.
"""

import ast
import hashlib
import importlib
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labkit.rows import params
from labkit.rows.fields import SpecError, nearest
from labkit.rows.kinds import own_strategies
from labkit.rows.yaml_files import read_yaml
from labkit.system.files import check_readable
from labkit.system.machine import versions
from labkit.system.places import place

EVERYTHING = 99  # the notebook that reads the results of all others


@dataclass(frozen=True)
class Notebook:
    """A notebook, and the group whose number it has."""

    path: Path
    number: int
    group: params.Group | None

    @property
    def name(self) -> str:
        """The file name without its ending."""
        return self.path.stem


def notebooks_folder() -> Path:
    """$LABKIT_NOTEBOOKS, or notebooks/ of the checkout; absolute (see `places`)."""
    return place("LABKIT_NOTEBOOKS", params.ROOT / "notebooks")


def discover(only: Iterable[int] | None = None) -> list[Notebook]:
    """All notebooks by number, or those whose numbers are in `only`. Raises SpecError for a number that no notebook has."""
    found: dict[int, Notebook] = {}
    groups = {group.number: group for group in params.groups()}
    check_readable(notebooks_folder(), "LABKIT_NOTEBOOKS")
    for path in sorted(notebooks_folder().glob("*.ipynb")):
        if not re.fullmatch(r"\d\d_\w+", path.stem):  # a student's Untitled.ipynb, or a copy
            continue
        number = int(path.stem[:2])
        group = groups.get(number)
        if group and group.file.stem != path.stem:
            raise SpecError(
                f"{path}: number {number} belongs to {group.file.name}; name it {group.file.stem}.ipynb or renumber it"
            )
        if number in found:
            raise SpecError(f"{path}: number {number} is taken by {found[number].path.name}; give it another, or move it away")
        found[number] = Notebook(path, number, group)
    if not found:
        raise SpecError(f"{notebooks_folder()}: holds no notebook (NN_words.ipynb); LABKIT_NOTEBOOKS names another folder")
    for number in only or ():
        if number not in found:
            raise SpecError(f"notebook {number}: there is none of that number; known: {', '.join(map(str, found))}")
    return [found[number] for number in (found if only is None else sorted(set(only)))]


def cells_of(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook, read without Jupyter's libraries. Raises SpecError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"{path}: cannot be read as a notebook ({type(error).__name__}: {error})") from None
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list):
        raise SpecError(f"{path}: cannot be read as a notebook: it has no list of cells")
    for number, cell in enumerate(cells, 1):
        if not (isinstance(cell, dict) and isinstance(cell.get("metadata"), dict) and isinstance(cell.get("cell_type"), str)):
            raise SpecError(f"{path}: cell {number} has no type, or no metadata: not a notebook of format 4")
        tags, source = cell["metadata"].get("tags", []), cell.get("source")
        lines = [source] if isinstance(source, str) else source
        if not (isinstance(tags, list) and isinstance(lines, list) and all(isinstance(line, str) for line in lines)):
            raise SpecError(f"{path}: cell {number} has no source of lines, or tags that are no list")
    return cells


def settable(path: Path) -> set[str]:
    """The names that a notebook's cell tagged `parameters` sets, each at the beginning of a line: papermill, which reads line by
    line, warns of others. Raises SpecError if the cell is missing, doubled or broken."""
    tagged = [cell for cell in cells_of(path) if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1 or tagged[0]["cell_type"] != "code":
        raise SpecError(f"{path}: {len(tagged)} cells are tagged 'parameters'; tag one, the first code cell")
    try:
        body = ast.parse("".join(tagged[0]["source"])).body
    except SyntaxError as error:
        raise SpecError(f"{path}: its parameters cell, line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # a character that is none, or nesting without end
        raise SpecError(f"{path}: its parameters cell cannot be read as Python: {error}") from None
    first = [line.targets[0] for line in body if isinstance(line, ast.Assign) and line.col_offset == 0]
    return {target.id for target in first if isinstance(target, ast.Name)}


def parameters_of(notebook: Notebook, **given: Any) -> dict[str, Any]:
    """The group's params file as `papermill -f` reads it, and what the caller gives to every notebook. Raises SpecError for a
    parameter that the notebook does not set itself: papermill would pass it on with a warning, and nothing would use it."""
    values = (read_yaml(notebook.group.file) if notebook.group else {}) | given
    known = settable(notebook.path)
    for key in values:
        if key not in known:
            raise SpecError(f"{notebook.path}: its parameters cell does not set '{key}'; add a line for it{nearest(key, known)}")
    return values


def inputs_of(notebook: Notebook, parameters: dict[str, Any], profile_folder: Path, rows: Iterable[str]) -> str:
    """A digest of all that the executed notebook depends on: itself, its parameters, labkit and params/, versions, strategies of
    one's own that its rows have, and the results of its rows (of all rows, for the last notebook). `fresh` decides what is trained,
    and is seen in the results. Probes are left out: a later notebook may be the first to probe a row that is this one's, too."""
    rows = sorted(rows)
    digest = hashlib.sha256(notebook.path.read_bytes())
    stable = {key: value for key, value in parameters.items() if key != "fresh"}
    digest.update(json.dumps([stable, versions(), jupyter_versions()], sort_keys=True).encode())
    package = [path for path in Path(__file__).parents[1].rglob("*") if path.is_file() and path.suffix != ".pyc"]
    for path in sorted([*package, *params.PARAMS.rglob("*.yaml"), *params.PARAMS.rglob("*.csv")]):
        digest.update(path.name.encode() + path.read_bytes())
    for strategy, file in own_strategies().items():
        if any(row.startswith(f"{strategy}_") for row in rows):
            digest.update(file.read_bytes())
    folders = ["*"] if notebook.number == EVERYTHING else rows
    for path in sorted(path for row in folders for path in profile_folder.glob(f"{row}/*/result.json")):
        digest.update(str(path.relative_to(profile_folder)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def jupyter_versions() -> dict[str, str]:
    """Versions of the packages that make and show notebooks."""
    return {name: version(name) for name in ("ipykernel", "papermill", "nbconvert", "matplotlib", "pandas")}


def import_jsonschema() -> None:
    """Import what all of Jupyter imports, without the checker of international addresses. The checker builds a grammar, which takes
    1.3 s of processor time in each process (measured five times on two busy cores: 1.5 s with it, 0.2 s without; on the clock 2.8 s
    and 0.3 s). No notebook has a field that would be checked by it."""
    if "jsonschema" not in sys.modules:
        sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
        importlib.import_module("jsonschema")
        del sys.modules["rfc3987_syntax"]
