"""The notebooks of the lab: how they are kept, and that each runs through papermill at the tiny profile."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit.batch import pages
from labkit.batch.batch import run_notebooks
from labkit.batch.notebooks import Notebook, discover, parameters_of
from labkit.rows import params
from labkit.runs.statuses import Status, read_statuses
from tests.helpers.batch_notebooks import fetched
from tests.helpers.folded import REMEDY, fold, is_folded, must_be_folded, unfolded

FOLDER = Path(__file__).parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
GIVEN = {"profile": "tiny", "repeats": 1, "fresh": False, "overrides": {}}


def stem_of(value: Any) -> str:
    return value.stem if isinstance(value, Path) else value.name


@pytest.fixture(autouse=True)
def this_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_NOTEBOOKS", raising=False)


# -- as they are kept -------------------------------------------------------------------------------------------------------


def test_there_is_one_for_the_start_for_each_group_and_for_the_report() -> None:
    found = discover()
    assert [notebook.path for notebook in found] == PATHS, "a file in notebooks/ that no batch would run"
    numbers = [notebook.number for notebook in found]
    assert {0, 99, *(group.number for group in params.groups())} <= set(numbers)
    assert numbers[0] == 0 and numbers[-1] == 99
    assert {notebook.group.number for notebook in found if notebook.group} == {group.number for group in params.groups()}


@pytest.mark.parametrize("path", PATHS, ids=stem_of)
def test_notebook_is_kept_as_a_source(path: Path) -> None:
    """Without outputs and widgets, one cell of parameters before all other code, unique ids, and the kernel that `make lab` installs."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5), "cells have ids from 4.5 on"
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata and "papermill" not in notebook.metadata
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert [number for number, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])] == [0]
    assert not any("raises-exception" in cell.metadata.get("tags", []) for cell in code), (
        "it fails the run at its end all the same"
    )
    assert not any("execution" in cell.metadata or "papermill" in cell.metadata for cell in notebook.cells)


@pytest.mark.parametrize("path", PATHS, ids=stem_of)
def test_no_answer_stands_above_its_question(path: Path) -> None:
    """Cells of parameters, of sentences that the outcome chooses, and of solutions open folded. Other cells do not."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not [cell["id"] for cell in unfolded(cells)], REMEDY
    needless = [cell["id"] for cell in cells if is_folded(cell) and not must_be_folded(cell)]
    assert not needless, f"{needless}: the reader should see this code"


@pytest.mark.parametrize(
    ("source", "tags", "folded"),
    [
        ("lab.say((True, 'a'))", [], True),
        ("x = 1\nlab.tell(x, more='a', less='b', same='c') if x else lab.Text('d')", [], True),
        ("profile = 'quick'", ["parameters"], True),
        ("def solution(): ...", ["solution"], True),
        ("def answer(): ...\n\n\nlab.checks.check_answer(answer)", ["exercise"], False),
        ("lesson.run()  # lab.say( later", [], False),
    ],
)
def test_which_cells_are_folded_and_how(tmp_path: Path, source: str, tags: list[str], folded: bool) -> None:
    metadata = {"tags": tags} if tags else {}
    cell = {"cell_type": "code", "id": "a", "metadata": metadata, "outputs": [], "source": source.splitlines(keepends=True)}
    path = tmp_path / "20_x.ipynb"
    path.write_text(json.dumps({"cells": [cell, {"cell_type": "markdown", "id": "b", "metadata": {}, "source": ["中 say("]}]}))
    assert fold(path) == folded and fold(path) == 0
    first, second = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert (first["metadata"].get("jupyter", {}).get("source_hidden") is True) == folded and second["metadata"] == {}
    assert first["metadata"].get("tags", []) == tags and first["source"] == cell["source"]


@pytest.mark.parametrize("path", PATHS, ids=stem_of)
def test_a_page_shows_no_solution_and_folds_the_rest(path: Path) -> None:
    """A page is what a batch makes of an executed notebook. Here nothing was executed: a page shows the same code."""
    notebook = nbformat.read(path, as_version=4)
    solutions = [cell for cell in notebook.cells if "solution" in cell.metadata.get("tags", [])]
    for cell in solutions:
        cell.outputs = [nbformat.v4.new_output("stream", text="what a solution prints")]
    page = pages.page(notebook, path.stem)
    text = html.unescape(re.sub(r"<[^>]*>", "", page))
    lines = {line.strip() for line in text.splitlines()}
    others = {line.strip() for cell in notebook.cells if cell not in solutions for line in cell.source.splitlines()}
    for line in {line.strip() for cell in solutions for line in cell.source.splitlines()} - others:
        assert line not in lines, f"a page that shows a solution: {line}"
    assert "what a solution prints" not in page and text.count("Here is a solution. This page") == len(solutions)
    folded = re.sub(r'<details class="labkit-code">.*?</details>', "", page, flags=re.S)
    seen = html.unescape(re.sub(r"<[^>]*>", "", folded))
    sentences = [cell.source for cell in notebook.cells if is_folded(cell) and cell not in solutions]
    assert page.count('<details class="labkit-code">') == len(sentences) > 0
    for source in sentences:
        longest = max(source.splitlines(), key=len)
        assert longest.strip() in text and longest.strip() not in seen, "one click away, and not before"


@pytest.mark.parametrize("notebook", discover() if PATHS else [], ids=stem_of)
def test_notebook_takes_its_parameters(notebook: Notebook) -> None:
    """All keys of its params file, and what the batch gives; as `papermill -f` would, without a warning."""
    assert parameters_of(notebook, **GIVEN)["profile"] == "tiny"


@pytest.mark.parametrize("path", PATHS, ids=stem_of)
def test_notebook_needs_no_network_to_be_read(path: Path) -> None:
    """No picture, script or formula of a text cell is fetched from elsewhere: TeX needs MathJax."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"!\[[^\]]*\]\((?!data:|attachment:)", cell.source), (
                f"a picture that is not drawn here: {cell.source}"
            )
            assert fetched(cell.source) == []
            assert not re.search(r"\$[^$\n]+\$|\\\(|\\\[", cell.source), f"TeX in: {cell.source}"


# -- executed ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Status]]:
    """All of them at the tiny profile, as `labkit report` executes them."""
    folder = tmp_path_factory.mktemp("notebooks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(folder))
        patch.setenv("LABKIT_STRATEGIES", str(folder / "strategies"))
        patch.delenv("LABKIT_NOTEBOOKS", raising=False)
        statuses = run_notebooks("tiny", deadline_s=600)
        assert statuses == read_statuses("tiny")
        again = run_notebooks("tiny")
        assert [status.notebook for status in again if not status.kept] == [], "a second call repeats what is still valid"
    return folder / "tiny/notebooks", {status.notebook: status for status in statuses}


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=stem_of)
def test_notebook_runs(executed: tuple[Path, dict[str, Status]], path: Path) -> None:
    folder, statuses = executed
    status = statuses[path.stem]
    assert (status.status, status.reason) == ("ok", "")
    notebook = nbformat.read(folder / path.name, as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "missing from font" not in printed, "boxes in place of characters"
    assert "Warning" not in printed, printed
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert "application/vnd.jupyter.widget-view+json" not in kinds, "a widget in a run that nobody watches"
    assert "text/plain" in kinds
    assert fetched((folder / f"{path.stem}.html").read_text(encoding="utf-8")) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=stem_of)
def test_executed_notebook_got_its_parameters(executed: tuple[Path, dict[str, Status]], path: Path) -> None:
    cells = json.loads((executed[0] / path.name).read_text(encoding="utf-8"))["cells"]
    [injected] = ["".join(cell["source"]) for cell in cells if "injected-parameters" in cell["metadata"].get("tags", [])]
    assert 'profile = "tiny"' in injected and "\\u" not in injected, "papermill's escapes of Chinese cannot be read"
    if int(path.stem[:2]) in {group.number for group in params.groups()}:
        assert params.group(int(path.stem[:2])).claim_zh in injected
    assert not list(unfolded(cells))


@pytest.mark.slow
def test_the_strategies_that_notebooks_write_lie_outside_the_repository(executed: tuple[Path, dict[str, Status]]) -> None:
    """In the folder that LABKIT_STRATEGIES names; the one beside the notebooks is ignored by git."""
    written = sorted(path.name for path in (executed[0].parents[1] / "strategies").iterdir())
    assert written == ["my_ddp.py", "solution_ddp.py"]
    assert "/notebooks/my_strategies/\n" in (FOLDER.parent / ".gitignore").read_text(encoding="utf-8")
    cells = nbformat.read(executed[0] / "02_communication_backend.ipynb", as_version=4).cells
    (blank, run), (solved,) = (
        [cell.outputs[0].data["text/plain"] for cell in cells if {"strategy", tag} <= set(cell.metadata.get("tags", [])) and "%%" not in cell.source]
        for tag in ("exercise", "solution")
    )  # fmt: skip
    assert "Every gradient is 2.00 times single's" in blank and "Correct the strategy first" in run and "proved." in solved
