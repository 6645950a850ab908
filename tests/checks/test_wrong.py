"""No check accepts a wrong answer, or refuses a right one: wrong answers that are no known mistakes, right ones written otherwise."""

import ast
import json
from pathlib import Path

import pytest

import labkit as lab
from labkit import checks
from tests.helpers.answers import solutions as check_solutions
from tests.helpers.answers.right import RIGHT
from tests.helpers.answers.wrong_batches import WRONG as BATCHES
from tests.helpers.answers.wrong_collectives import WRONG as COLLECTIVES
from tests.helpers.answers.wrong_costs import WRONG as COSTS
from tests.helpers.answers.wrong_data import WRONG as DATA
from tests.helpers.answers.wrong_published import WRONG as PUBLISHED
from tests.helpers.answers.wrong_schedules import WRONG as SCHEDULES
from tests.helpers.answers.wrong_updates import WRONG as UPDATES

WRONG = BATCHES | COLLECTIVES | COSTS | DATA | PUBLISHED | SCHEDULES | UPDATES
PUBLISHED_NOTEBOOKS = 13
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
NAMES = sorted(name.removeprefix("check_") for name in dir(checks) if name.startswith("check_"))


def check(name):
    return getattr(checks, f"check_{name}")


@pytest.mark.parametrize(
    ("name", "what", "function"),
    [pytest.param(name, what, function, id=f"{name}: {what}") for name, many in WRONG.items() for what, function in many],
)
def test_a_wrong_answer_is_refused_and_explained(name, what, function):
    verdict = check(name)(function)
    assert not verdict, f"{name} accepts a wrong answer: {what}"
    assert verdict.message.endswith((".", "?"))
    assert "xpected" in verdict.message or verdict.hint, f"{verdict} says neither what was expected nor what to do"


def test_every_exercise_has_ten_wrong_answers_and_another_right_one():
    assert sorted(WRONG) == sorted(RIGHT) == NAMES
    for name, many in WRONG.items():
        assert len({what for what, _ in many}) == len(many) >= 10, name


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_written_in_other_ways_pass(name):
    for function in (*RIGHT[name], getattr(check_solutions, name)):
        verdict = check(name)(function)
        assert verdict, str(verdict)


def exercise_cells(notebook, tag):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [(cell, cell["metadata"].get("tags", [])) for cell in cells]
    return ["".join(cell["source"]) for cell, tags in tagged if tag in tags and "strategy" not in tags]  # those: tests/proof


def last_value(source, names):
    """Run a cell as a notebook does, and return what its last line gives."""
    tree = ast.parse(source)
    *before, last = tree.body
    assert isinstance(last, ast.Expr), f"the cell does not end with its check:\n{source}"
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebooks_solutions_pass_and_their_blanks_do_not(notebook):
    names = {"lab": lab}
    exercises, solutions = (exercise_cells(notebook, tag) for tag in ("exercise", "solution"))
    assert len(exercises) == len(solutions)
    for blank, solution in zip(exercises, solutions, strict=True):
        not_yet, passed = last_value(blank, names), last_value(solution, names)
        assert not not_yet and "Expected: " in str(not_yet)
        assert passed, str(passed)
        assert passed.exercise == not_yet.exercise


def test_every_exercise_is_used_by_one_notebook_and_every_solution_is_checked():
    """A notebook of one's own may begin as a copy of another, and have its exercises, too."""
    used = []
    for notebook in NOTEBOOKS:
        for source in exercise_cells(notebook, "solution"):
            [name] = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
            assert source.rstrip().endswith(f"lab.checks.check_{name.removeprefix('solution_')}({name})")
            used.append(name.removeprefix("solution_"))
        text = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for cell in text:
            assert "solution_" not in "".join(cell["source"]) or "solution" in cell["metadata"]["tags"]
    assert sorted(set(used)) == NAMES
    assert len(used) == len(NAMES) or len(NOTEBOOKS) > PUBLISHED_NOTEBOOKS, "an exercise stands in two notebooks"
