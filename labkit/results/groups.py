"""A group in the report, as plain data: its claim, its rows' ratios here and as published, the verdicts, and what is missing."""

from __future__ import annotations

from typing import Any

from labkit.results.metrics import COMPARED
from labkit.results.verdict import Beside, Row, answered, besides, comparable, verdict
from labkit.rows import params


def of_group(group: params.Group, rows: list[Row]) -> dict[str, Any]:
    """`rows`: one for each that ran, with a ratio (accuracy: points) here and as published for each figure, None where there
    is nothing to compare. `verdicts` are there if two rows ran."""
    found = besides(group, rows)
    return {
        "number": group.number,
        "title": {"en": group.title_en, "zh": group.title_zh},
        "claim": {"en": group.claim, "zh": group.claim_zh},
        "compares": compares(group),
        "nccl": any(b.nccl for b in found),
        "rows": [{"name": b.row.name, "stands_for": bool(b.row.stands_for), "ratios": ratios(b, found[0])} for b in found],
        "verdicts": [verdict(metric, found) for metric in COMPARED] if len(found) > 1 else [],
        **unanswered(group, rows),
    }


def compares(group: params.Group) -> dict[str, str]:
    """What the published table of groups says that it compares; of a group that is not there, its rows."""
    told = params.compares().get(group.number)
    return {"en": told["compares"], "zh": told["compares_zh"]} if told else dict.fromkeys(("en", "zh"), ", ".join(group.rows))


def ratios(one: Beside, first: Beside) -> list[dict[str, Any]]:
    """Each figure relative to the group's first row, here and as published; `nccl`: the published one is an NCCL row's."""
    cells = []
    for metric in COMPARED:
        mine, base = one.row.median(metric.key), first.row.median(metric.key)
        here = None if mine is None or base is None else metric.difference(mine, base)
        there = None
        if comparable(one, first):
            assert one.published and first.published
            there = metric.difference(one.published[metric.published], first.published[metric.published])
        cells.append({"figure": metric.key, "here": here, "published": there, "nccl": bool(there and one.nccl)})
    return cells


def unanswered(group: params.Group, rows: list[Row]) -> dict[str, Any]:
    """What the group asks and this machine cannot tell: rows that nothing answers for, and pairs of which one row answers for both."""
    ran, answers = {row.name for row in rows if row.good}, answered(group, rows)
    missing = {name: answer for name, answer in answers.items() if name not in ran}
    return {
        "nobody": [name for name, answer in missing.items() if answer not in ran],
        "folded": [[name, answer] for name, answer in missing.items() if answer in ran and answer in group.rows],
    }
