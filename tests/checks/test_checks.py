"""The exercises' checks: solutions pass, mistakes are named, and nothing that a student's function does raises."""

import inspect
import re
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from labkit import checks
from labkit.checks.collectives import check_sum
from labkit.checks.judge import EXERCISES, NotYet, same
from tests.helpers import check_solutions as right
from tests.helpers.check_mistakes import MISTAKES

EVERY = sorted(EXERCISES)
GARBAGE = [
    0,
    -1,
    10**9,
    0.5,
    float("nan"),
    float("inf"),
    "x",
    True,
    [],
    [None],
    [[1]],
    (1, 2),
    ("F", 0),
    {},
    object(),
    {1},
    range(3),
    b"x",
]


def solution(name):
    return getattr(right, name.removeprefix("check_"))


@pytest.mark.parametrize("name", EVERY)
def test_a_solution_passes_at_once(name):
    began = time.process_time()
    verdict = EXERCISES[name].check(solution(name))
    assert verdict, str(verdict)
    assert verdict.message and str(verdict).startswith(f"✓ {name.removeprefix('check_')}: passed.")
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize("name", EVERY)
def test_a_solution_takes_what_the_signature_says(name):
    said = EXERCISES[name].signature
    named = re.findall(r"(\w+)(?::|,|\))", re.sub(r"\[[^()]*?\](?=[,)])", "", said.partition(" -> ")[0].partition("(")[2]))
    asked = [word for word in inspect.signature(solution(name)).parameters]
    assert [word for word in named if word in asked] == asked
    assert said.startswith(f"{name.removeprefix('check_')}(")


@pytest.mark.parametrize("name", EVERY)
def test_a_blank_is_told_what_is_expected(name):
    exercise = EXERCISES[name]
    for blank, what in ((lambda *_: None, "returned None"), (lambda *_: ..., "returned ...")):
        verdict = exercise.check(blank)
        assert not verdict and verdict.hint
        assert verdict.message.startswith(f"{name.removeprefix('check_')}(") and what in verdict.message
        assert exercise.returns in verdict.message


@pytest.mark.parametrize("name", EVERY)
def test_no_function_the_wrong_arguments_and_an_error_are_told(name):
    exercise = EXERCISES[name]
    for given in (None, 3, [1, 2]):
        assert "is no function" in exercise.check(given).message
    verdict = exercise.check(lambda: 0)
    assert "cannot be called as" in verdict.message and exercise.signature in verdict.message

    def failing(*_):
        raise KeyError("so it goes")

    verdict = exercise.check(failing)
    assert "raised KeyError: 'so it goes', at `raise KeyError(\"so it goes\")`" in verdict.message
    assert exercise.returns in verdict.message
    assert not exercise.check(lambda *_: sys.exit())


def test_an_interrupt_is_not_swallowed():
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checks.check_amdahl(interrupted)


@pytest.mark.parametrize("name", EVERY)
def test_whatever_comes_back_at_whatever_call_is_judged(name):
    """Right answers up to the k-th call, then something else: never an exception, and never passed."""
    answers = []

    def noting(*arguments):
        answers.append(solution(name)(*arguments))
        return answers[-1]

    assert EXERCISES[name].check(noting)
    calls = len(answers)
    for k in sorted({0, 1, 2, calls // 2, calls - 2, calls - 1} & set(range(calls))):
        for thing in GARBAGE:
            count = iter(range(calls + 1))

            def spoiled(*arguments, k=k, thing=thing, count=count):
                answer = solution(name)(*arguments)
                return thing if next(count) == k else answer

            verdict = EXERCISES[name].check(spoiled)
            assert isinstance(str(verdict), str) and verdict._repr_mimebundle_()
            usable = same(thing, answers[k]) or thing == answers[k] or type(thing) is type(answers[k]) is list
            assert usable or not verdict, f"{thing!r} in place of {answers[k]!r} at call {k}: {verdict}"


@pytest.mark.parametrize("name", EVERY)
def test_typical_mistakes_are_named(name):
    for wrong, words in MISTAKES[name.removeprefix("check_")]:
        verdict = EXERCISES[name].check(wrong)
        assert not verdict, f"passed, but should say: {words}"
        assert words in str(verdict), str(verdict)


def test_every_exercise_has_solutions_and_mistakes_and_every_group_two_exercises():
    names = {name.removeprefix("check_") for name in EVERY}
    assert names == MISTAKES.keys()
    assert names == {name for name, value in vars(right).items() if inspect.isfunction(value)}
    for group in range(1, 11):
        assert sum(group in exercise.groups for exercise in EXERCISES.values()) >= 2
    assert set(EVERY) == {name for name in checks.__all__ if name.startswith("check_")}


def test_the_table_is_that_of_the_checks():
    text = checks.__doc__
    for name, exercise in EXERCISES.items():
        groups = ", ".join(map(str, exercise.groups))
        task = re.split(r"(?<=[.?])\s", exercise.check.__doc__, maxsplit=1)[0]
        entry = f"{name}  [{groups}]\n    {exercise.signature}\n"
        assert entry in text, entry
        assert " ".join(task.split()) in " ".join(text.partition(entry)[2].partition("\n\n")[0].split())


def test_a_docstring_tells_the_task_the_signature_and_what_comes_back():
    for exercise in EXERCISES.values():
        assert exercise.check.__doc__.endswith(f"{exercise.signature}\nIt returns {exercise.returns}.")


def test_numpy_and_torch_values_and_generators_are_taken():
    torch = pytest.importorskip("torch")
    assert checks.check_average_gradients(lambda grads: np.array(grads).mean(0))
    assert checks.check_average_gradients(lambda grads: torch.tensor(grads, dtype=torch.float64).mean(0))
    assert checks.check_gpipe(lambda stage, stages, m: ((kind, i) for kind in "FB" for i in range(m)))
    assert checks.check_steps_per_epoch(lambda *arguments: np.int64(right.steps_per_epoch(*arguments)))
    endless = checks.check_gpipe(lambda stage, stages, m: iter(lambda: ("F", 0), None))
    assert "100000 times" in endless.message


def test_a_function_that_changes_its_arguments_gets_fresh_ones():
    def pops(order, rank, world_size):
        each = len(order) // world_size
        for _ in range(rank * each):
            order.pop(0)
        return [order.pop(0) for _ in range(each)]

    assert checks.check_shard_of(pops)


def test_other_correct_ways_pass():
    assert checks.check_shard_of(lambda order, rank, n: order[: len(order) // n * n][rank::n])

    def reverse(stage, stages, m):
        return [("F", i) for i in range(m)] + [("B", i) for i in reversed(range(m))]

    def balanced(length, r, n):
        return (a := length * r // n, b := length * (r + 1) // n, -(-length // n) - (b - a))

    assert checks.check_gpipe(reverse)
    assert checks.check_shard_bounds(balanced)
    assert checks.check_crop_offset(lambda *key: int(np.random.default_rng(key).integers(9)))


def test_a_verdict_shows_itself_in_html_and_in_words():
    verdict = checks.Verdict(False, "f", "f(<b>) & more", "try <i>", "a < b")
    bundle = verdict._repr_mimebundle_()
    assert bundle["text/plain"] == str(verdict) == "✗ f: not yet. f(<b>) & more\na < b\nHint: try <i>"
    assert "f(&lt;b&gt;) &amp; more" in bundle["text/html"] and "<pre" in bundle["text/html"] and "<i>" not in bundle["text/html"]
    assert (
        "with <code>a &lt; b</code>." in checks.Verdict(False, "f", "", "end it with `a < b`.")._repr_mimebundle_()["text/html"]
    )
    passed = checks.check_gpipe(right.gpipe)
    assert "stage 2" in passed.picture and passed.picture in str(passed)
    assert passed._repr_mimebundle_()["text/html"] != bundle["text/html"]


def test_a_sum_with_a_rank_counted_twice_is_told():
    with pytest.raises(NotYet, match="rank 1 holds chunk 0 with what rank 2 had counted 2 times"):
        check_sum(Counter({0: 1, 1: 1, 2: 2}), 1, 0, 3, "")


def test_not_yet_stays_inside():
    assert isinstance(checks.check_push(lambda *_: 1 / 0), checks.Verdict)


def test_checks_load_no_torch():
    code = "import labkit.checks, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
