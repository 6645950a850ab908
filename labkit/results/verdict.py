"""Comparison of a group's rows with the published rows. The figures choose the verdict; its words are in templates/words.*.yaml.

Absolute figures of two machines are never compared, only ratios to a row of the same table. Two figures are
*indistinguishable* if the ranges of their repeats overlap; with a single run, if they differ by less than 5 %. Accuracies are
also indistinguishable if they differ by less than two standard errors, which depend on the number of test images.
"""

import itertools
import math
import statistics
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from labkit.results.metrics import Metric
from labkit.rows import params
from labkit.rows.spec import Spec
from labkit.runs.result import NoResult, Result

CLOSE = 0.05
PUBLISHED_TEST_IMAGES = 10_000  # the published data set is most likely CIFAR-100
MOST_CLAUSES = 2
KINDS = (  # of a pair of rows
    "same",  # as published
    "equal",  # indistinguishable in both
    "opposite",  # in the opposite order
    "tie_only_here",  # distinguishable as published, but not here
    "tie_only_published",  # distinguishable here, but not as published
)
HEADS = ("differs", "equal", "agrees", "tie_here", "in_part", "not_published")  # of a verdict


@dataclass(frozen=True)
class Row:
    """A row and what is in its folder. `good`: the results of its repeats; `bad`: the attempts without a result.

    `reason`: why it cannot run on this machine, or "". `stands_for`: names of rows that cannot run here; this row runs in their
    place."""

    name: str
    reason: str = ""
    stands_for: tuple[str, ...] = ()
    good: list[Result] = field(default_factory=list)
    bad: list[NoResult] = field(default_factory=list)

    @cached_property
    def spec(self) -> Spec:
        """The Spec that the name of the row means."""
        return Spec.parse(self.name)

    def values(self, key: str) -> list[float]:
        """The figure in every repeat. A run that ended within its warm-up steps has no images_per_s."""
        values = [getattr(result, key) for result in self.good]
        return [value for value in values if value > 0] if key == "images_per_s" else values

    def median(self, key: str) -> float | None:
        """The median of a figure over the repeats; None if no repeat has it."""
        values = self.values(key)
        return statistics.median(values) if values else None

    @property
    def test_images(self) -> int:
        """The number of test images on which the accuracy was measured. Raises IndexError if no repeat has a result."""
        return self.good[0].spec.test_images


@dataclass(frozen=True)
class MatchedRow:
    """A row that ran, and the published row that it may be compared with (None if there is none).

    `nccl`: the name of the published NCCL row, if `row` is a Gloo row that ran in place of it; else ""."""

    row: Row
    published: dict[str, Any] | None
    nccl: str = ""


def short_name(name: str) -> str:
    """The name of a row without resnet18, cacheFalse and ampFalse, which most names have."""
    return name.replace("_resnet18", "").replace("_cacheFalse", "").replace("_ampFalse", "")


def match_rows(names: Iterable[str], rows: list[Row]) -> list[MatchedRow]:
    """The rows of a group that ran, in the order of its `names`; a row that could not run is replaced by its stand-in.

    All published figures of one group come from one backend. Otherwise their ratios would compare backends, not rows. They come
    from the published Gloo rows if every Gloo row here has one, else from the NCCL rows that these Gloo rows stand for. The name
    of an FSDP row has no backend; the published FSDP rows ran on CUDA, so they count as NCCL."""
    table = params.published_by_name()
    by_name = {row.name: row for row in rows}
    ran = [by_name[name] for name in names_here(names, rows).values() if name in by_name and by_name[name].good]
    ran = list({row.name: row for row in ran}.values())
    nccl = {row.name: next((name for name in row.stands_for if name in table), "") for row in ran}
    on_nccl = any((nccl[row.name] and row.name not in table) or row.spec.kind.published_on_nccl for row in ran)
    matched = []
    for row in ran:
        nccl_name = nccl[row.name] if on_nccl else ""
        matched.append(MatchedRow(row, table.get(nccl_name or row.name), nccl_name))
    return matched


def names_here(names: Iterable[str], rows: list[Row]) -> dict[str, str]:
    """For each row name of a group: the name of the row that runs on this machine, itself or its stand-in."""
    stand_ins = {name: row.name for row in rows for name in row.stands_for}
    return {name: stand_ins.get(name, name) for name in names}


def comparable(one: MatchedRow, two: MatchedRow) -> bool:
    """May the published figures of this pair be compared with the figures here?

    No if one is missing, or if one published row ran on Gloo and the other on NCCL while both rows here ran on Gloo."""
    if not (one.published and two.published):
        return False
    if bool(one.nccl) == bool(two.nccl):
        return True
    own_name = two.row.name if one.nccl else one.row.name  # this row is compared with the published row of its own name
    return "_gloo_" not in own_name


def chance_points(one_pct: float, two_pct: float, test_images: int) -> float:
    """Two standard errors, in percentage points: by so much two accuracies on this number of test images may differ by chance."""
    return 2 * math.sqrt((one_pct * (100 - one_pct) + two_pct * (100 - two_pct)) / test_images)


def order(metric: Metric, one: list[float], two: list[float], test_images: int) -> int:
    """1 if the median of `one` is larger, -1 if it is smaller, 0 if the two are indistinguishable. One value for each repeat."""
    high, low = statistics.median(one), statistics.median(two)
    gap = high - low
    if metric.compared == "points" and abs(gap) <= chance_points(high, low, test_images):
        return 0
    if min(len(one), len(two)) > 1:
        overlap = max(min(one), min(two)) <= min(max(one), max(two))
    else:
        overlap = metric.compared == "ratio" and abs(gap) < CLOSE * min(high, low)
    if overlap or gap == 0:
        return 0
    return 1 if gap > 0 else -1


def verdict(metric: Metric, group: list[MatchedRow]) -> dict[str, Any]:
    """Does the order of the rows agree with the published order? Every pair of rows is compared.

    Returns "figure" (the key of the metric), "head" (one of HEADS, or None if there is no pair to compare), "pairs" (the number
    of pairs), "kinds" (the number of pairs of each kind), "telling" (at most MOST_CLAUSES pairs to mention, see `compare_pair`),
    and "more" (True if there are more such pairs)."""
    kinds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for one, two in itertools.combinations([b for b in group if b.row.values(metric.key)], 2):
        if comparable(one, two):
            pair = compare_pair(metric, one, two)
            kinds[pair["kind"]].append(pair)
    counts = {kind: len(pairs) for kind, pairs in kinds.items() if pairs}
    telling = kinds["opposite"] + kinds["tie_only_here"] + kinds["tie_only_published"]
    if not telling:
        telling = kinds["same"] + kinds["equal"]
    return {
        "figure": metric.key,
        "head": verdict_head(counts.keys()) if counts else None,
        "pairs": sum(counts.values()),
        "kinds": counts,
        "telling": telling[:MOST_CLAUSES],
        "more": len(telling) > MOST_CLAUSES,
    }


def verdict_head(kinds: Set[str]) -> str:
    """The verdict (one of HEADS) on a group with pairs of these kinds, at least one."""
    if "opposite" in kinds:
        return "differs"
    if kinds == {"equal"}:
        return "equal"
    if kinds <= {"same", "equal"}:
        return "agrees"
    if kinds <= {"equal", "tie_only_here"}:
        return "tie_here"
    return "in_part" if kinds & {"same", "equal"} else "not_published"


def compare_pair(metric: Metric, one: MatchedRow, two: MatchedRow) -> dict[str, Any]:
    """One pair of rows. "kind": one of KINDS. "one" and "two": the names of the rows, the larger figure first.

    "measured" and "published": their ratio, or their difference in points (see "ratio"), as text. Both need a published row."""
    assert one.published and two.published
    images = min(one.row.test_images, two.row.test_images)
    here = order(metric, one.row.values(metric.key), two.row.values(metric.key), images)
    as_published = order(metric, [one.published[metric.published]], [two.published[metric.published]], PUBLISHED_TEST_IMAGES)
    if here < 0 or (here == 0 and as_published < 0):
        one, two, here, as_published = two, one, -here, -as_published
    assert one.published and two.published
    if here == 0:
        kind = "equal" if as_published == 0 else "tie_only_here"
    elif as_published == 0:
        kind = "tie_only_published"
    else:
        kind = "same" if here == as_published else "opposite"
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
