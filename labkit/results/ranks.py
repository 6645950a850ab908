"""Do all rows together stand in the published order? Rank correlations, and how many pairs of rows agree."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from typing import Any

from labkit.results.metrics import COMPARED, Metric
from labkit.results.verdict import KINDS, Beside, Row, besides, judged
from labkit.rows import params

FEWEST = 4  # rows; of fewer, any order is likely
MOSTLY, PARTLY = 0.7, 0.3  # Spearman's rho from which the order is called so


def agreement(rows: list[Row]) -> list[dict[str, Any]]:
    """For each figure: n, spearman, kendall, pairs by kind (see verdict.KINDS), and a level that names it in a word.

    A Gloo row that stands for an NCCL row is taken beside the published NCCL row, as its group does.
    """
    everything = params.Group(0, params.PARAMS, "", "", "", "", tuple(params.all_names()))
    found = [b for b in besides(everything, rows) if b.published]
    if any(b.nccl for b in found):
        found = [b for b in found if b.nccl or "_gloo_" not in b.row.name]  # like with like, see verdict.comparable
    return [of_metric(metric, [b for b in found if b.row.values(metric.key)]) for metric in COMPARED]


def of_metric(metric: Metric, found: list[Beside]) -> dict[str, Any]:
    here = [b.row.median(metric.key) or 0.0 for b in found]
    there = [b.published[metric.published] for b in found if b.published]
    kinds = Counter(judged(metric, one, two)["kind"] for one, two in itertools.combinations(found, 2))
    rho, tau = (spearman(here, there), kendall(here, there)) if len(found) >= FEWEST else (None, None)
    if rho is None:
        level = "unknown"
    else:
        level = "mostly" if rho >= MOSTLY else "partly" if rho >= PARTLY else "hardly" if rho > -PARTLY else "reversed"
    counts = {kind: kinds[kind] for kind in KINDS}
    told = {"spearman": number(rho), "kendall": number(tau)}
    return {"figure": metric.key, "n": len(found), **told, "level": level, "pairs": sum(kinds.values()), "kinds": counts}


def number(value: float | None) -> str | None:
    return None if value is None else f"{value:+z.2f}".replace("-", "−")


def ranks(values: list[float]) -> list[float]:
    """1 for the least; equal values share the mean of their ranks."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]


def spearman(one: list[float], two: list[float]) -> float | None:
    """Spearman's rho: the correlation of the ranks. None if one side is all equal."""
    if len(set(one)) < 2 or len(set(two)) < 2:
        return None
    return statistics.correlation(ranks(one), ranks(two))


def kendall(one: list[float], two: list[float]) -> float | None:
    """Kendall's tau-b: pairs in the same order less pairs in opposite order, over the geometric mean of the pairs that each
    side tells apart. None if one side is all equal."""
    pairs = list(itertools.combinations(zip(one, two, strict=True), 2))
    signs = [(sign(a - b), sign(x - y)) for (a, x), (b, y) in pairs]
    told_apart = math.sqrt(sum(s != 0 for s, _ in signs) * sum(s != 0 for _, s in signs))
    return sum(s * t for s, t in signs) / told_apart if told_apart else None


def sign(value: float) -> int:
    return (value > 0) - (value < 0)
