"""What may be said of a group's rows beside the published ones: like with like, and sentences that the figures choose.

Absolute figures of two machines are never compared, only ratios to a row of the same table. Two figures are
*indistinguishable* where the ranges of their repeats overlap; with a single run, where they differ by less than 5 %.
Accuracies are also indistinguishable within two standard errors of what chance does to that many test images.
"""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from labkit import params
from labkit.spec import Spec

CLOSE = 0.05
PUBLISHED_TEST_IMAGES = 10_000  # the published data set is most likely CIFAR-100
MOST_CLAUSES = 2
KINDS = {  # of a pair of rows
    "same": "as published",
    "equal": "indistinguishable in both",
    "opposite": "the other way round",
    "lost": "indistinguishable only here",
    "new": "indistinguishable only as published",
}


@dataclass(frozen=True)
class Figure:
    """One measured quantity: its key in a result and in the published table, and the words for more of it."""

    key: str
    published: str
    title: str
    more: str
    ratio: bool = True  # compared as a ratio; accuracy as a difference in points

    def apart(self, one: float, two: float) -> str:
        if not self.ratio:
            return f"{one - two:+z.1f} points".replace("-", "−")
        return f"{one / two:.2f} times" if two else "–"


FIGURES = (
    Figure("images_per_s", "avg_throughput_img_s", "Images/s", "was faster than"),
    Figure("best_acc_pct", "best_acc_pct", "Accuracy", "was more accurate than", ratio=False),
    Figure("max_mem_mb", "max_gpu_mem_mb", "Memory", "needed more memory than"),
)


@dataclass(frozen=True)
class Row:
    """A row as its folder tells it: `good` are the results of its repeats, `bad` the attempts that gave none.

    `reason`: why it cannot run on this machine, or "". `stands_for`: rows that could not run, which this one answers for.
    """

    name: str
    reason: str = ""
    stands_for: tuple[str, ...] = ()
    good: list[dict[str, Any]] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def spec(self) -> Spec:
        return Spec.parse(self.name)

    def values(self, key: str) -> list[float]:
        """The figure in every repeat. No images/s if a run was over before its warm-up steps were."""
        return [result[key] for result in self.good if key != "images_per_s" or result[key] > 0]

    def middle(self, key: str) -> float | None:
        return statistics.median(self.values(key)) if self.values(key) else None

    @property
    def test_images(self) -> int:
        from labkit.datasets import DATASETS

        spec = self.good[0]["spec"]
        return spec["test_samples"] or DATASETS[spec["dataset"]].test_images


@dataclass(frozen=True)
class Beside:
    """A row that ran, beside the published row that it may be compared with, if there is one.

    `nccl`: the published figure is that of the NCCL row of this name, for which the Gloo row `row` stands.
    """

    row: Row
    published: dict[str, Any] | None
    nccl: str = ""


def short_name(name: str) -> str:
    """A row's name without what most rows share: resnet18, cacheFalse, ampFalse."""
    return name.replace("_resnet18", "").replace("_cacheFalse", "").replace("_ampFalse", "")


def besides(group: params.Group, rows: list[Row]) -> list[Beside]:
    """The group's rows that ran, in its order; a row that could not is answered by the one that stands for it.

    The published figures of one group all come from one backend, or their ratios would tell the backends apart and not
    the rows: from the published Gloo rows if every Gloo row here has one, else from the NCCL rows they stand for. FSDP's
    name tells no backend; as published it ran on CUDA, so it goes with NCCL.
    """
    table = {row["experiment"]: row for row in params.published()}
    by_name = {row.name: row for row in rows}
    ran = [by_name[name] for name in answered(group, rows).values() if name in by_name and by_name[name].good]
    ran = list({row.name: row for row in ran}.values())
    nccl = {row.name: next((name for name in row.stands_for if name in table), "") for row in ran}
    on_nccl = any((nccl[row.name] and row.name not in table) or row.spec.strategy == "fsdp" for row in ran)
    found = []
    for row in ran:
        via = nccl[row.name] if on_nccl else ""
        found.append(Beside(row, table.get(via or row.name), via))
    return found


def answered(group: params.Group, rows: list[Row]) -> dict[str, str]:
    """The group's row names, each with the name of the row that answers for it on this machine."""
    instead = {name: row.name for row in rows for name in row.stands_for}
    return {name: instead.get(name, name) for name in group.rows}


def comparable(one: Beside, two: Beside) -> bool:
    """Whether the published pair differs as the pair here does. Gloo here against NCCL there would not."""
    if not (one.published and two.published):
        return False
    plain = [b.row.name for b in (one, two) if not b.nccl]
    return len(plain) != 1 or "_gloo_" not in plain[0]


def order(figure: Figure, one: list[float], two: list[float], test_images: int) -> int:
    """1 if `one` is more than `two`, -1 if less, 0 if they are indistinguishable."""
    high, low = statistics.median(one), statistics.median(two)
    gap = high - low
    if not figure.ratio:
        chance = 2 * math.sqrt((high * (100 - high) + low * (100 - low)) / test_images)
        if abs(gap) <= chance:
            return 0
    if min(len(one), len(two)) > 1:
        overlap = max(min(one), min(two)) <= min(max(one), max(two))
    else:
        overlap = figure.ratio and abs(gap) < CLOSE * min(high, low)
    return 0 if overlap or gap == 0 else 1 if gap > 0 else -1


def verdict(figure: Figure, group: list[Beside]) -> str:
    """One sentence: does the order of the rows agree with the published one? Chosen by the figures, pair by pair."""
    kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for one, two in itertools.combinations([b for b in group if b.row.values(figure.key)], 2):
        if comparable(one, two):
            kind, clause = judged(figure, one, two)
            kinds[kind].append(clause)
    found = {kind: clauses for kind, clauses in kinds.items() if clauses}
    pairs = sum(map(len, found.values()))
    if not pairs:
        return "nothing to compare: fewer than two rows have both run here and a published figure that fits."
    if "opposite" in found:
        head = "the order **differs** from the published one"
    elif found.keys() == {"equal"}:
        head = "**indistinguishable** here, as published"
    elif found.keys() <= {"same", "equal"}:
        head = "the order **agrees** with the published one"
    elif found.keys() <= {"equal", "lost"}:
        head = "**indistinguishable** here, where not all published figures are"
    elif found.keys() & {"same", "equal"}:
        head = "the order **agrees in part** with the published one"
    else:
        head = "the order is **not the published one**"
    counts = ", ".join(f"{len(clauses)} {KINDS[kind]}" for kind, clauses in found.items())
    clauses = kinds["opposite"] + kinds["lost"] + kinds["new"] or kinds["same"] + kinds["equal"]
    told = "; ".join(clauses[:MOST_CLAUSES]) + (", among others" if len(clauses) > MOST_CLAUSES else "")
    scope = "" if pairs == 1 else f" (all {pairs} pairs of rows)" if len(found) == 1 else f" ({pairs} pairs of rows: {counts})"
    return f"{head}{scope}: {told}."


def judged(figure: Figure, one: Beside, two: Beside) -> tuple[str, str]:
    """The kind of one pair (see KINDS), and the clause that tells it."""
    assert one.published and two.published
    images = min(one.row.test_images, two.row.test_images)
    here = order(figure, one.row.values(figure.key), two.row.values(figure.key), images)
    there = order(figure, [one.published[figure.published]], [two.published[figure.published]], PUBLISHED_TEST_IMAGES)
    if here < 0 or (here == 0 and there < 0):
        one, two, here, there = two, one, -here, -there
    assert one.published and two.published
    a, b = f"`{short_name(one.row.name)}`", f"`{short_name(two.row.name)}`"
    measured = figure.apart(one.row.middle(figure.key) or 0.0, two.row.middle(figure.key) or 0.0)
    published = figure.apart(one.published[figure.published], two.published[figure.published]).split()[0]
    if here == 0:
        return ("lost" if there else "equal"), f"{a} and {b} are indistinguishable ({measured}; published {published})"
    clause = f"{a} {figure.more} {b} ({measured}; published {'indistinguishable, ' if there == 0 else ''}{published})"
    return ("new" if there == 0 else "same" if here == there else "opposite"), clause
