"""The questions of a lesson before its run, what the reader guesses and why, and how the guesses look beside what was measured."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from labkit.notebook.cells import Grid
from labkit.notebook.ran import Ran
from labkit.results.metrics import METRIC
from labkit.rows.fields import SpecError, nearest
from labkit.runs.plan import Plan
from labkit.runs.spread import Difference, Measured

NONE = "no guess"
NEAR = 1.1  # a factor is guessed right if it is off by less than this
FASTEST, SLOWEST = "(the fastest row)", "(the slowest row)"
SINGLE, DDP = "single_gpu_resnet18_bs{}_cache{}_amp{}", "ddp_nccl_resnet18_bs{}x2_cache{}_amp{}"
ONE, TWO = SINGLE.format(256, False, False), DDP.format(128, False, False)
COLLECTIVE = "collective_{}_resnet18_bs128x2"


@dataclass(frozen=True)
class Question:
    """A question before the run. `key`: its name for `Lesson.predict`. `metric`: a key of METRIC. `of`: none, where a row is asked for:
    the best by the metric; or two rows (a, b), where a number is asked for: a / b, or a - b for a metric that is compared in points."""

    key: str
    metric: str
    text: str
    of: tuple[str, ...] = ()

    @property
    def points(self) -> bool:
        """Is a difference in percentage points asked for?"""
        return bool(self.of) and METRIC[self.metric].compared == "points"

    def check(self, value: Any) -> float:
        """The number that somebody guesses. Raises SpecError unless it can be an answer."""
        least, words = (-100.0, "from -100 to 100, in percentage points") if self.points else (0.0, "more than 0: how many times")
        if self.of == (FASTEST, SLOWEST):
            least, words = 1.0, "at least 1: the fastest row over the slowest"
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= least
        if not fits or (least == 0 and value == 0) or (self.points and value > 100):
            raise SpecError(f"{self.key}={value!r}: must be a number, {words}")
        return float(value)


FAST = Question("fastest", "images_per_s", "Which row trains most images per second?")
SMALL = Question("least_memory", "max_mem_mib", "Which needs least memory on a rank?")
ACCURATE = Question("most_accurate", "best_acc_pct", "Which ends most accurate?")
SPREAD = Question("factor", "images_per_s", "How many times as fast is it as the slowest?", (FASTEST, SLOWEST))
DEFAULT = (FAST, SPREAD, SMALL, ACCURATE)  # of a group that is not in GROUPS, and of rows of one's own


def speed(text: str, *of: str, key: str = "factor") -> Question:
    """How many times as fast is one row as another?"""
    return Question(key, "images_per_s", f"How many times as fast {text}?", (of[0], of[1]))


def points(text: str, *of: str) -> Question:
    """By how many percentage points are two accuracies different?"""
    return Question(
        "points", "best_acc_pct", f"By how many points does the accuracy change {text}? (minus: it falls)", (of[0], of[1])
    )


GROUPS = {  # number of a group: what is asked before its run, by the published names of rows
    1: (FAST, speed("as one process are two ranks of DDP", TWO, ONE), SMALL),
    2: (FAST, speed("is DDP as the hand-written all-reduce, both on Gloo", TWO.replace("nccl", "gloo"), COLLECTIVE.format("gloo"))),
    3: (FAST, SMALL, speed("as DDP is model parallel", "model_parallel_resnet18_bs256_cacheFalse", TWO)),
    4: (
        speed("is one process with the cache (true) as without", SINGLE.format(256, True, False), ONE),
        speed("are two ranks with the cache as without", DDP.format(128, True, False), TWO, key="factor_ddp"),
        points("from cache true to frozen", SINGLE.format(256, "Frozen", False), SINGLE.format(256, True, False)),
    ),
    5: (
        speed("is one process with AMP as without", SINGLE.format(256, False, True), ONE),
        speed("are two ranks with AMP as without", DDP.format(128, False, True), TWO, key="factor_ddp"),
        Question("memory", "max_mem_mib", "How many times the memory does one process need with AMP?",
                 (SINGLE.format(256, False, True), ONE)),
    ),
    6: (
        speed("are 256 images per rank as 64", DDP.format(256, False, False), DDP.format(64, False, False)),
        points("from 64 to 256 images per rank", DDP.format(256, False, False), DDP.format(64, False, False)),
    ),
    7: (
        speed("as ResNet-50 is ResNet-18", DDP.format(256, False, False), DDP.format(256, False, False).replace("18", "50")),
        SMALL,
        ACCURATE,
    ),
    8: (
        FAST,
        speed("is one process with cache and AMP as without", SINGLE.format(256, True, True), ONE),
        speed("are two ranks with cache and AMP as without", DDP.format(128, True, True), TWO, key="factor_ddp"),
        points("of one process with cache and AMP", SINGLE.format(256, True, True), ONE),
    ),
    9: (
        speed("is a batch of 512 as one of 128", SINGLE.format(512, False, False), SINGLE.format(128, False, False)),
        Question("memory", "max_mem_mib", "How many times the memory does a batch of 512 need, against 128?",
                 (SINGLE.format(512, False, False), SINGLE.format(128, False, False))),
        points("from a batch of 128 to 512", SINGLE.format(512, False, False), SINGLE.format(128, False, False)),
    ),
    10: (
        FAST,
        speed("as the parameter server is the hand-written all-reduce on Gloo", COLLECTIVE.format("gloo"), "ps_mode_resnet18_bs128_workers2"),
        SMALL,
    ),
}  # fmt: skip


class Guesses:
    """The questions of a group whose rows run here, and the guesses. `values`: {key of a question: row name or number}, empty at first.
    `why`: the reader's reason."""

    def __init__(self, group: int, planned: Plan):
        self.plan, self.choices = planned, [row.name for row in planned.runnable]
        can = [question for question in GROUPS.get(group, ()) if all(map(self.runs_here, question.of))]
        self.questions = {question.key: question for question in can or DEFAULT}
        self.values: dict[str, Any] = {}
        self.why = ""

    def runs_here(self, name: str) -> bool:
        """Is the row, or the row that stands in for it, among those that run?"""
        return self.plan.name_here(name) in self.choices

    def commit(self, key: str, value: Any) -> None:
        """Set one guess. Raises SpecError for a question that is not asked here, for a row that does not run here, and for a number
        that cannot be an answer."""
        if key not in self.questions:
            raise SpecError(f"{key}={value!r}: this lesson does not ask '{key}' on this machine{nearest(key, self.questions)}")
        question = self.questions[key]
        if question.of:
            self.values[key] = question.check(value)
            return
        name = self.plan.name_here(value) if isinstance(value, str) else value
        if name not in self.choices:
            raise SpecError(f"{key}={value!r}: no row of this lesson that runs here{nearest(str(value), self.choices)}")
        self.values[key] = name

    def table(self) -> Grid:
        """The questions and the guesses."""
        lines = [{"question": one.text, "key": key, "guess": self.values.get(key, NONE)} for key, one in self.questions.items()]
        return Grid(lines, {"question": "before the run", "key": "argument", "guess": "your guess"}, self.reason())

    def reason(self) -> str:
        """The reader's reason, as the note of a table."""
        return f"Your reason: {self.why}" if self.why else ""

    def outcome(self, ran: Ran) -> Grid:
        """The guesses beside what was measured. A question whose rows gave no result is left out."""
        lines = []
        for key, question in self.questions.items():
            guess = self.values.get(key)
            measured, word = number(ran, question, guess) if question.of else row(ran, question, guess)
            if measured is not None:
                told = NONE if guess is None else guess
                lines.append({"question": question.text, "guess": told, "measured": measured, "verdict": word})
        headings = {"question": "question", "guess": "your guess", "measured": "measured here", "verdict": ""}
        return Grid(lines, headings, self.reason())


def row(ran: Ran, question: Question, guess: str | None) -> tuple[str | None, str]:
    """The best row, and the verdict on a guess. A guess is right only if the best row can be distinguished from all others."""
    best = ran.best(question.metric, least=METRIC[question.metric].best == "least")
    if best is None or guess is None:
        return best, NONE
    others = [row.name for row in ran.plan.runnable if row.name != best and ran.value(question.metric, row.name)]
    if guess != best and guess not in others:
        return best, "the guessed row has no result"
    asked = others if guess == best else [guess]
    found = [
        ran.points(best, name) if question.metric == "best_acc_pct" else ran.ratio(question.metric, best, name) for name in asked
    ]
    return best, undecided(one.order() for one in found if one) or ("right" if guess == best else "wrong")


def number(ran: Ran, question: Question, guess: float | None) -> tuple[Measured | Difference | None, str]:
    """The ratio of two rows (or the difference of their accuracies), and the verdict on a guess. A guess is right if it is off by no
    more than chance allows, and a factor also if it is off by less than 10 %."""
    one, other = question.of
    if question.of == (FASTEST, SLOWEST):
        one, other = ran.best(question.metric) or "", ran.best(question.metric, least=True) or ""
    if not one or not other:
        return None, ""
    found = ran.points(one, other) if question.points else ran.ratio(question.metric, one, other)
    if found is None or guess is None:
        return found, NONE
    if word := undecided([found.order()]):
        return found, word
    if isinstance(found, Difference):
        off = abs(guess - found.points)
        return found, f"right within {found.margin:.1f} points" if off <= found.margin else f"wrong by {off:.1f} points"
    off, near = max(found.median / guess, guess / found.median), max(NEAR, math.exp(found.margin()))
    return found, f"right within {100 * (near - 1):.0f} %" if off < near else f"wrong by a factor of {off:.2f}"


def undecided(orders: Iterable[int | None]) -> str:
    """What stands in place of right and wrong, where rows that decide it cannot be told apart; "" where they can."""
    found = list(orders)
    if None in found:
        return "too noisy to tell"
    return "indistinguishable" if 0 in found else ""
