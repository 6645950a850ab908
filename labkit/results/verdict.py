"""What may be said of a group's rows beside the published ones: like with like, and verdicts that the figures choose. Their
words lie in templates/words.*.yaml.

Absolute figures of two machines are never compared, only ratios to a row of the same table. Two figures are
*indistinguishable* where the ranges of their repeats overlap; with a single run, where they differ by less than 5 %.
Accuracies are also indistinguishable within two standard errors of what chance does to that many test images.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from labkit.results.metrics import Metric
from labkit.rows import params
from labkit.rows.catalog import DATASETS
from labkit.rows.spec import Spec
from labkit.runs.result import NoResult, Result

CLOSE = 0.05
PUBLISHED_TEST_IMAGES = 10_000  # the published data set is most likely CIFAR-100
MOST_CLAUSES = 2
KINDS = (  # of a pair of rows
    "same",  # as published
    "equal",  # indistinguishable in both
    "opposite",  # the other way round
    "tie_only_here",  # indistinguishable only here
    "tie_only_published",  # indistinguishable only as published
)
HEADS = ("differs", "equal", "agrees", "tie_here", "in_part", "not_published")  # of a verdict


@dataclass(frozen=True)
class Row:
    """A row as its folder tells it: `good` are the results of its repeats, `bad` the attempts that gave none.

    `reason`: why it cannot run on this machine, or "". `stands_for`: rows that could not run, which this one answers for.
    """

    name: str
    reason: str = ""
    stands_for: tuple[str, ...] = ()
    good: list[Result] = field(default_factory=list)
    bad: list[NoResult] = field(default_factory=list)

    @cached_property
    def spec(self) -> Spec:
        return Spec.parse(self.name)

    def values(self, key: str) -> list[float]:
        """The figure in every repeat. No images/s if a run was over before its warm-up steps were."""
        values = [getattr(result, key) for result in self.good]
        return [value for value in values if value > 0] if key == "images_per_s" else values

    def median(self, key: str) -> float | None:
        return statistics.median(self.values(key)) if self.values(key) else None

    @property
    def test_images(self) -> int:
        """Images that the accuracy was counted on."""
        spec = self.good[0].spec
        return spec.test_samples or DATASETS[spec.dataset].test_images


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
    on_nccl = any((nccl[row.name] and row.name not in table) or row.spec.kind.published_on_nccl for row in ran)
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


def chance_points(one_pct: float, two_pct: float, test_images: int) -> float:
    """Points by which two accuracies, each counted on so many test images, may differ by chance: two standard errors."""
    return 2 * math.sqrt((one_pct * (100 - one_pct) + two_pct * (100 - two_pct)) / test_images)


def order(metric: Metric, one: list[float], two: list[float], test_images: int) -> int:
    """1 if `one` is more than `two`, -1 if less, 0 if they are indistinguishable."""
    high, low = statistics.median(one), statistics.median(two)
    gap = high - low
    if metric.compared == "points" and abs(gap) <= chance_points(high, low, test_images):
        return 0
    if min(len(one), len(two)) > 1:
        overlap = max(min(one), min(two)) <= min(max(one), max(two))
    else:
        overlap = metric.compared == "ratio" and abs(gap) < CLOSE * min(high, low)
    return 0 if overlap or gap == 0 else 1 if gap > 0 else -1


def verdict(metric: Metric, group: list[Beside]) -> dict[str, Any]:
    """Does the order of the rows agree with the published one? Chosen by the figures, pair by pair.

    Returns the figure's key, a `head` (one of HEADS, or None where there is no pair to compare), the number of pairs in all and
    of each kind, the pairs that tell most (see `judged`), and whether there are more of these.
    """
    kinds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for one, two in itertools.combinations([b for b in group if b.row.values(metric.key)], 2):
        if comparable(one, two):
            pair = judged(metric, one, two)
            kinds[pair["kind"]].append(pair)
    found = {kind: len(pairs) for kind, pairs in kinds.items() if pairs}
    telling = kinds["opposite"] + kinds["tie_only_here"] + kinds["tie_only_published"] or kinds["same"] + kinds["equal"]
    return {
        "figure": metric.key,
        "head": head(found.keys()) if found else None,
        "pairs": sum(found.values()),
        "kinds": found,
        "telling": telling[:MOST_CLAUSES],
        "more": len(telling) > MOST_CLAUSES,
    }


def head(kinds: Set[str]) -> str:
    if "opposite" in kinds:
        return "differs"
    if kinds == {"equal"}:
        return "equal"
    if kinds <= {"same", "equal"}:
        return "agrees"
    if kinds <= {"equal", "tie_only_here"}:
        return "tie_here"
    return "in_part" if kinds & {"same", "equal"} else "not_published"


def judged(metric: Metric, one: Beside, two: Beside) -> dict[str, Any]:
    """One pair: its kind (see KINDS), its rows, the one with more of the figure first, and how far they are apart here and as
    published: numbers as text, ratios or points."""
    assert one.published and two.published
    images = min(one.row.test_images, two.row.test_images)
    here = order(metric, one.row.values(metric.key), two.row.values(metric.key), images)
    there = order(metric, [one.published[metric.published]], [two.published[metric.published]], PUBLISHED_TEST_IMAGES)
    if here < 0 or (here == 0 and there < 0):
        one, two, here, there = two, one, -here, -there
    assert one.published and two.published
    if here == 0:
        kind = "tie_only_here" if there else "equal"
    else:
        kind = "tie_only_published" if there == 0 else "same" if here == there else "opposite"
    measured = metric.difference(one.row.median(metric.key) or 0.0, two.row.median(metric.key) or 0.0)
    published = metric.difference(one.published[metric.published], two.published[metric.published])
    return {
        "kind": kind,
        "one": one.row.name,
        "two": two.row.name,
        "measured": measured,
        "published": published,
        "ratio": metric.compared == "ratio",
    }
