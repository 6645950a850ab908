"""The exercises' checks: solutions pass, mistakes are named, and nothing that a student's function does raises."""

import inspect
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

import labkit as lab
from labkit import checks
from labkit.checks.collectives import require_sum
from labkit.checks.judge import NotYet, same
from tests.helpers.answers import solutions as right
from tests.helpers.answers.mistakes import MISTAKES

EVERY = [name.removeprefix("check_") for name in dir(checks) if name.startswith("check_")]
GARBAGE = [
    0,
    -1,
    10**9,
    10**400,
    10**5000,
    0.5,
    float("nan"),
    float("inf"),
    1j,
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


def check(name):
    return getattr(checks, f"check_{name}")


def told(name):
    """(the signature, what the function returns), as the docstring of a check tells them."""
    return re.search(r"\n\nYou write: (.*)\nIt returns (.*)\.$", check(name).__doc__).groups()


def solution(name):
    return getattr(right, name)


@pytest.mark.parametrize("name", EVERY)
def test_a_solution_passes_at_once(name):
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return solution(name)(*arguments)

    verdict = check(name)(counted)
    assert verdict, str(verdict)
    assert verdict.message and str(verdict).startswith(f"✓ {name}: passed.")
    assert len(calls) < 12_000


@pytest.mark.parametrize("name", EVERY)
def test_a_docstring_tells_the_task_the_signature_and_what_comes_back(name):
    signature, returns = told(name)
    named = re.findall(r"(\w+)(?::|,|\))", re.sub(r"\[[^()]*?\](?=[,)])", "", signature.partition(" -> ")[0].partition("(")[2]))
    asked = [word for word in inspect.signature(solution(name)).parameters]
    assert [word for word in named if word in asked] == asked
    assert signature.startswith(f"{name}(") and " -> " in signature
    task = check(name).__doc__.partition("\n")[0]
    assert len(task) > 40 and len(returns) > 15


@pytest.mark.parametrize("name", EVERY)
def test_a_blank_is_told_what_is_expected(name):
    for blank, what in ((lambda *_: None, "returned None"), (lambda *_: ..., "returned ...")):
        verdict = check(name)(blank)
        assert not verdict and verdict.hint
        assert verdict.message.startswith(f"{name}(") and what in verdict.message
        assert told(name)[1] in verdict.message


@pytest.mark.parametrize("name", EVERY)
def test_a_function_that_prints_and_returns_nothing_is_told_to_return(name, capsys):
    verdict = check(name)(lambda *arguments: print(solution(name)(*arguments)))
    assert not verdict and "returned None" in verdict.message and "`print` only shows a value" in verdict.hint
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", EVERY)
def test_no_function_the_wrong_arguments_and_an_error_are_told(name):
    signature, returns = told(name)
    for given in (None, 3, [1, 2]):
        assert "is not a function" in check(name)(given).message
    verdict = check(name)(lambda: 0)
    assert "cannot be called as" in verdict.message and signature in verdict.message

    def failing(*_):
        raise KeyError("so it goes")

    verdict = check(name)(failing)
    assert "raised KeyError: 'so it goes', at `raise KeyError(\"so it goes\")`" in verdict.message
    assert returns in verdict.message
    assert not check(name)(lambda *_: sys.exit())

    def endless(*arguments):
        return endless(*arguments)

    assert "raised RecursionError" in check(name)(endless).message


def test_an_interrupt_is_not_swallowed():
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checks.check_amdahl(interrupted)


class Unshowable:
    def __repr__(self):
        raise ValueError("not shown")


@pytest.mark.parametrize("name", EVERY)
def test_whatever_comes_back_at_whatever_call_is_judged(name):
    """Right answers up to the k-th call, then something else: never an exception, and never passed."""
    answers = []

    def noting(*arguments):
        answers.append(solution(name)(*arguments))
        return answers[-1]

    assert check(name)(noting)
    calls = len(answers)
    for k in sorted({0, 1, 2, calls // 2, calls - 2, calls - 1} & set(range(calls))):
        for thing in [*GARBAGE, Unshowable()]:
            count = iter(range(calls + 1))

            def spoiled(*arguments, k=k, thing=thing, count=count):
                answer = solution(name)(*arguments)
                return thing if next(count) == k else answer

            verdict = check(name)(spoiled)
            assert isinstance(str(verdict), str) and verdict._repr_mimebundle_()
            usable = same(thing, answers[k]) or thing == answers[k] or type(thing) is type(answers[k]) is list
            assert usable or not verdict, f"{thing!r} in place of {answers[k]!r} at call {k}: {verdict}"


@pytest.mark.parametrize("name", EVERY)
def test_typical_mistakes_are_named(name):
    for wrong, words in MISTAKES[name]:
        verdict = check(name)(wrong)
        assert not verdict, f"passed, but should say: {words}"
        assert words in str(verdict), str(verdict)


def test_every_exercise_has_a_solution_and_mistakes():
    assert set(EVERY) == MISTAKES.keys()
    assert set(EVERY) == {name for name, value in vars(right).items() if inspect.isfunction(value)}


def test_dir_lists_the_checks_and_an_unknown_name_gives_the_nearest():
    assert dir(lab.checks) == sorted([*(f"check_{name}" for name in MISTAKES), "Verdict"])
    assert lab.checks.check_push is checks.check_push
    for wrong, near in (("check_pusch", "check_push"), ("shard_of", "check_shard_of"), ("verdict", "Verdict")):
        with pytest.raises(AttributeError, match=f"has no '{wrong}'. The nearest name is '{near}'"):
            getattr(lab.checks, wrong)


def test_other_types_of_values_are_taken():
    import torch  # late: seconds that no other test here needs

    assert checks.check_average_gradients(lambda grads: torch.tensor(grads, dtype=torch.float64).mean(0))
    assert checks.check_average_gradients(lambda grads: torch.tensor(grads, requires_grad=True).mean(0))
    assert checks.check_one_f_one_b(lambda *arguments: (tuple(pair) for pair in right.one_f_one_b(*arguments)))
    assert checks.check_steps_per_epoch(lambda *arguments: np.int64(right.steps_per_epoch(*arguments)))
    assert checks.check_steps_per_epoch(lambda *arguments: np.array(right.steps_per_epoch(*arguments)))
    assert checks.check_may_update(lambda *arguments: torch.tensor(right.may_update(*arguments)))
    endless = checks.check_one_f_one_b(lambda stage, stages, m: iter(lambda: ("F", 0), None))
    assert "100000 times" in endless.message


def test_a_set_has_no_order_and_is_told():
    verdict = checks.check_shard_of(lambda *arguments: set(right.shard_of(*arguments)))
    assert "returned {40, 10}, expected a list of images" in str(verdict)


def test_values_that_look_the_same_are_told_apart():
    verdict = checks.check_amdahl(lambda share, factor: right.amdahl(share, factor) * (1 + 1.2e-6))
    assert "returned 1.3333349" in str(verdict) and "(float), expected 1.33333333" in str(verdict)
    assert "returned True, expected 7424." in str(checks.check_gradient_bytes(lambda *_: True))
    assert not same(True, 1) and not same(1, True)
    assert not same(1_000_001, 1_000_000) and same(1_000_000.5, 1_000_000.0) and same(3.0, 3)


def test_a_function_that_changes_its_arguments_gets_fresh_ones():
    def pops(order, rank, world_size):
        each = len(order) // world_size
        for _ in range(rank * each):
            order.pop(0)
        return [order.pop(0) for _ in range(each)]

    def emptied(gradient, images, parts):
        answer = right.accumulated(gradient, images, parts)
        images.clear()
        return answer

    def sorts(version, computing, bound):
        computing.sort()
        return not computing or computing[0] >= version + 1 - bound

    assert checks.check_shard_of(pops)
    assert checks.check_accumulated(emptied)
    assert checks.check_may_update(sorts)
    wrong = checks.check_average_gradients(lambda grads: grads.pop())
    assert "average_gradients([[1, 2], [3, 6]]) returned [3, 6], expected [2, 4]" in wrong.message


def test_a_verdict_shows_itself_in_html_and_in_words():
    verdict = checks.Verdict(False, "f", "f(<b>) & more", "try <i>", "a < b")
    bundle = verdict._repr_mimebundle_()
    assert bundle["text/plain"] == str(verdict) == "✗ f: not yet. f(<b>) & more\na < b\nHint: try <i>"
    assert "f(&lt;b&gt;) &amp; more" in bundle["text/html"] and "<pre" in bundle["text/html"] and "<i>" not in bundle["text/html"]
    assert (
        "with <code>a &lt; b</code>." in checks.Verdict(False, "f", "", "end it with `a < b`.")._repr_mimebundle_()["text/html"]
    )
    passed = checks.check_one_f_one_b(right.one_f_one_b)
    assert "stage 2" in passed.picture and passed.picture in str(passed)
    assert passed._repr_mimebundle_()["text/html"] != bundle["text/html"]


def test_a_sum_with_a_rank_counted_twice_is_told():
    with pytest.raises(NotYet, match="chunk 0 on rank 1 is not the sum: the numbers of rank 2 are in it 2 times"):
        require_sum(Counter({0: 1, 1: 1, 2: 2}), 1, 0, 3, "")


def test_checks_load_no_torch():
    code = "import labkit.checks, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
