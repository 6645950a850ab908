"""Comparison of a group's rows with the published rows. The figures choose the verdict; its words are in templates/words.*.yaml.

Absolute figures of two machines are never compared, only ratios to a row of the same table. What two figures here allow to say
follows from their spread (runs/spread.py): one is larger, they are *indistinguishable*, or it is *untold*, because the measurements
are too noisy, or fewer than three. Accuracies are also indistinguishable if they differ by less than two standard errors, which
depend on the number of test images. The published table has one figure of each row and no spread; there, less than 5 % counts as
no difference, which is an assumption.
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
from labkit.runs.rounds import Rounds
from labkit.runs.spread import LEAST, Difference, Measured, difference, in_rounds

CLOSE = 0.05  # of published figures
PUBLISHED_TEST_IMAGES = 10_000  # the published data set is most likely CIFAR-100
MOST_CLAUSES = 2
TINY = 1e-9  # in place of a figure of 0, which has no logarithm
KINDS = (  # of a pair of rows
    "same",  # as published
    "equal",  # indistinguishable in both
    "opposite",  # in the opposite order
    "tie_only_here",  # distinguishable as published, but not here
    "tie_only_published",  # distinguishable here, but not as published
    "untold",  # too noisy to tell here, or measured fewer than three times
)
HEADS = ("differs", "equal", "agrees", "tie_here", "in_part", "not_published", "untold", "too_few")  # of a verdict


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


Figures = dict[str, Measured]


def figures_of(metric: Metric, rows: Iterable[Row], rounds: Rounds | None = None) -> Figures:
    """A figure of each of these rows that has it, by name. Images/s come from the rounds in which the rows were measured in turn;
    other figures, and images/s without rounds, from the trainings: the first of each row makes a round, the second, and so on."""
    having = [row for row in rows if row.values(metric.key)]
    if metric.key == "images_per_s" and rounds and having and all(row.name in rounds.figures for row in having):
        return {row.name: rounds.of(row.name) for row in having}  # type: ignore[misc]
    trainings = min((len(row.values(metric.key)) for row in having), default=0)
    turns = [{row.name: max(row.values(metric.key)[k], TINY) for row in having} for k in range(trainings)]
    busy = metric.key == "images_per_s" and any(result.busy for row in having for result in row.good)
    return in_rounds(turns, busy) if turns else {}


def compare(metric: Metric, one: Row, two: Row, figures: Figures) -> Measured | Difference:
    """The first row's figure over the second's, or for accuracies their difference, with what its spread allows to say."""
    if metric.compared != "points":
        return figures[one.name] / figures[two.name]
    first, second = one.values(metric.key), two.values(metric.key)
    images = min(one.test_images, two.test_images)
    return difference(first, second, chance_points(statistics.median(first), statistics.median(second), images))


def published_order(metric: Metric, one: float, two: float) -> int:
    """1 if the first published figure is larger, -1 if it is smaller, 0 if they count as equal."""
    gap = one - two
    close = chance_points(one, two, PUBLISHED_TEST_IMAGES) if metric.compared == "points" else CLOSE * min(one, two)
    return 0 if abs(gap) <= close else (1 if gap > 0 else -1)


def verdict(metric: Metric, group: list[MatchedRow], rounds: Rounds | None = None) -> dict[str, Any]:
    """Does the order of the rows agree with the published order? Every pair of rows is compared. `rounds`: of the group's rows.

    Returns "figure" (the key of the metric), "head" (one of HEADS, or None if there is no pair to compare), "pairs" (the number
    of pairs), "kinds" (the number of pairs of each kind), "telling" (at most MOST_CLAUSES pairs to mention, see `compare_pair`),
    and "more" (True if there are more such pairs)."""
    kinds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    figures = figures_of(metric, [one.row for one in group], rounds)
    for one, two in itertools.combinations([b for b in group if b.row.values(metric.key)], 2):
        if comparable(one, two):
            pair = compare_pair(metric, one, two, figures)
            kinds[pair["kind"]].append(pair)
    counts = {kind: len(pairs) for kind, pairs in kinds.items() if pairs}
    telling = kinds["opposite"] + kinds["tie_only_here"] + kinds["tie_only_published"]
    telling = telling or kinds["same"] + kinds["equal"] or kinds["untold"]
    head = verdict_head(counts.keys()) if counts else None
    if head == "untold" and all(pair["few"] for pair in kinds["untold"]):
        head = "too_few"
    return {
        "figure": metric.key,
        "head": head,
        "pairs": sum(counts.values()),
        "kinds": counts,
        "telling": telling[:MOST_CLAUSES],
        "more": len(telling) > MOST_CLAUSES,
    }


def verdict_head(kinds: Set[str]) -> str:
    """The verdict (one of HEADS) on a group with pairs of these kinds, at least one. Pairs that are untold decide nothing."""
    kinds = kinds - {"untold"}
    if not kinds:
        return "untold"
    if "opposite" in kinds:
        return "differs"
    if kinds == {"equal"}:
        return "equal"
    if kinds <= {"same", "equal"}:
        return "agrees"
    if kinds <= {"equal", "tie_only_here"}:
        return "tie_here"
    return "in_part" if kinds & {"same", "equal"} else "not_published"


def compare_pair(metric: Metric, one: MatchedRow, two: MatchedRow, figures: Figures) -> dict[str, Any]:
    """One pair of rows. "kind": one of KINDS. "one" and "two": the names of the rows, the larger figure first.

    "measured" and "published": their ratio, or their difference in points (see "ratio"), as text. "few": was one of them measured
    fewer than three times? Both need a published row. `figures`: see `figures_of`."""
    assert one.published and two.published
    here = compare(metric, one.row, two.row, figures).order()
    as_published = published_order(metric, one.published[metric.published], two.published[metric.published])
    if (here or 0) < 0 or (not here and as_published < 0):
        one, two, as_published = two, one, -as_published
        here = None if here is None else abs(here)
    assert one.published and two.published
    if here is None:
        kind = "untold"
    elif here == 0:
        kind = "equal" if as_published == 0 else "tie_only_here"
    elif as_published == 0:
        kind = "tie_only_published"
    else:
        kind = "same" if here == as_published else "opposite"
    measured = compare(metric, one.row, two.row, figures)
    return {
        "kind": kind,
        "one": one.row.name,
        "two": two.row.name,
        "measured": measured.words()["points"] if isinstance(measured, Difference) else str(measured),
        "published": metric.difference(one.published[metric.published], two.published[metric.published]),
        "ratio": metric.compared == "ratio",
        "few": (measured.runs if isinstance(measured, Difference) else len(measured.samples)) < LEAST,
    }
