"""Do all rows together have the published order? Rank correlations, and the number of pairs of rows that agree."""

import itertools
import math
import statistics
from collections import Counter
from typing import Any

from labkit.results.metrics import COMPARED, Metric
from labkit.results.verdict import KINDS, MatchedRow, Row, compare_pair, figures_of, match_rows
from labkit.rows import params

FEWEST = 4  # rows; with fewer rows, any order is likely
MOST = 0.5  # of the pairs
NOT_TOLD_HERE = ("untold", "equal", "tie_only_here")  # kinds of pairs whose rows the measurements here do not tell apart
MOSTLY, PARTLY = 0.7, 0.3  # the smallest Spearman's rho of these levels


def agreement(rows: list[Row]) -> list[dict[str, Any]]:
    """How well the order of all rows agrees with the published order: one dict for each compared figure (see `metric_agreement`).

    A Gloo row that stands for an NCCL row is compared with the published NCCL row, as in its group."""
    matched = [one for one in match_rows(params.all_names(), rows) if one.published]
    if any(one.nccl for one in matched):  # then Gloo rows with published Gloo figures are not comparable: see verdict.comparable
        matched = [one for one in matched if one.nccl or "_gloo_" not in one.row.name]
    return [metric_agreement(metric, [one for one in matched if one.row.values(metric.key)]) for metric in COMPARED]


def metric_agreement(metric: Metric, matched: list[MatchedRow]) -> dict[str, Any]:
    """The agreement of one figure over rows that have it.

    "n": the number of rows. "spearman", "kendall": correlations as text, None with fewer than FEWEST rows, and where most pairs of
    rows cannot be told apart. "level": the word for rho. "pairs": the number of pairs of rows; "kinds": how many pairs are of each kind (see verdict.KINDS)."""
    here = [one.row.median(metric.key) or 0.0 for one in matched]
    published = [one.published[metric.published] for one in matched if one.published]
    figures = figures_of(metric, [one.row for one in matched])
    kinds = Counter(compare_pair(metric, one, two, figures)["kind"] for one, two in itertools.combinations(matched, 2))
    rho = tau = None
    if len(matched) >= FEWEST:
        rho, tau = spearman(here, published), kendall(here, published)
    not_told = sum(kinds[kind] for kind in NOT_TOLD_HERE)
    level = agreement_level(rho, not_told / max(1, sum(kinds.values())))
    if level == "untold":  # then the order of the medians is mostly chance, and so are correlations with it
        rho = tau = None
    return {
        "figure": metric.key,
        "n": len(matched),
        "spearman": signed_text(rho),
        "kendall": signed_text(tau),
        "level": level,
        "pairs": sum(kinds.values()),
        "kinds": {kind: kinds[kind] for kind in KINDS},
    }


def agreement_level(rho: float | None, untold: float) -> str:
    """The word for a Spearman's rho: unknown (None), mostly, partly, hardly or reversed; or untold, if that is so of most pairs.
    `untold`: the share of pairs (0 to 1) whose two rows cannot be told apart here."""
    if rho is None:
        return "unknown"
    if untold > MOST:
        return "untold"
    if rho >= MOSTLY:
        return "mostly"
    if rho >= PARTLY:
        return "partly"
    return "hardly" if rho > -PARTLY else "reversed"


def signed_text(value: float | None) -> str | None:
    """A correlation with its sign and two digits; None stays None."""
    return None if value is None else f"{value:+z.2f}".replace("-", "−")


def ranks(values: list[float]) -> list[float]:
    """The rank of each value, 1 for the smallest; equal values get the mean of their ranks."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]


def spearman(one: list[float], two: list[float]) -> float | None:
    """Spearman's rho: the correlation of the ranks. None if all values of one side are equal."""
    if len(set(one)) < 2 or len(set(two)) < 2:
        return None
    return statistics.correlation(ranks(one), ranks(two))


def kendall(one: list[float], two: list[float]) -> float | None:
    """Kendall's tau-b: (pairs in the same order - pairs in the opposite order) / sqrt(untied pairs of one * untied pairs of two).

    None if all values of one side are equal."""
    pairs = list(itertools.combinations(zip(one, two, strict=True), 2))
    signs = [(sign(a - b), sign(x - y)) for (a, x), (b, y) in pairs]
    untied_one = len([s for s, _ in signs if s != 0])
    untied_two = len([t for _, t in signs if t != 0])
    if untied_one == 0 or untied_two == 0:
        return None
    return sum(s * t for s, t in signs) / math.sqrt(untied_one * untied_two)


def sign(value: float) -> int:
    """1, 0 or -1."""
    if value > 0:
        return 1
    return -1 if value < 0 else 0
