"""One group of the report as plain data: its claim, the ratios of its rows here and as published, the verdicts, and the missing
rows.
"""

from collections.abc import Iterable
from typing import Any

from labkit.results.metrics import COMPARED
from labkit.results.verdict import Figures, MatchedRow, Row, comparable, figures_of, match_rows, names_here, verdict
from labkit.rows import params
from labkit.runs.rounds import Rounds


def of_group(group: params.Group, rows: list[Row], rounds: Iterable[Rounds] = ()) -> dict[str, Any]:
    """A group as a report shows it. `rows`: all rows of the plan, whether they ran or not. `rounds`: all that were measured.

    In the result, "rows" has one entry for each row that ran, with its ratios (see `ratios`). "verdicts" has one entry for each
    compared figure if at least two rows ran, else none. "nobody" and "folded" name the missing rows (see `missing_rows`)."""
    matched = match_rows(group.rows, rows)
    own = rounds_with([one.row.name for one in matched], rounds)
    figures = {metric.key: figures_of(metric, [one.row for one in matched], own) for metric in COMPARED}
    return {
        "number": group.number,
        "title": {"en": group.title_en, "zh": group.title_zh},
        "claim": {"en": group.claim, "zh": group.claim_zh},
        "compares": compared_text(group),
        "nccl": any(one.nccl for one in matched),
        "rows": [
            {"name": one.row.name, "stands_for": bool(one.row.stands_for), "ratios": row_ratios(one, matched[0], figures)}
            for one in matched
        ],
        "verdicts": [verdict(metric, matched, own) for metric in COMPARED] if len(matched) > 1 else [],
        "rounds": rounds_facts(own),
        **missing_rows(group, rows),
    }


def rounds_with(names: list[str], rounds: Iterable[Rounds]) -> Rounds | None:
    """The latest rounds in which all these rows were measured; None if there are none."""
    having = [one for one in rounds if names and set(names) <= one.figures.keys()]
    return max(having, key=lambda one: one.measured_at, default=None)


def rounds_facts(rounds: Rounds | None) -> dict[str, Any] | None:
    """What a report says of the rounds behind a group's ratios of images/s; "key": of its text."""
    if rounds is None:
        return None
    key = "rounds_busy" if rounds.busy else "rounds_noisy" if rounds.noisy else "rounds"
    return {"key": key, "n": len(rounds.turns), "control": str(rounds.control or "–")}


def compared_text(group: params.Group) -> dict[str, str]:
    """What a group compares, by language, from the published table of groups.

    For a group that is not in it: the names of its rows."""
    published = params.compares().get(group.number)
    if published:
        return {"en": published["compares"], "zh": published["compares_zh"]}
    return dict.fromkeys(("en", "zh"), ", ".join(group.rows))


def row_ratios(one: MatchedRow, first: MatchedRow, figures: dict[str, Figures]) -> list[dict[str, Any]]:
    """Each compared figure of a row, relative to the first row of its group: a ratio, or points of accuracy.

    "here": as measured; "published": as published; each a number as text, or None if there is nothing to compare. "nccl": the
    published figure is that of an NCCL row."""
    cells = []
    for metric in COMPARED:
        value, base = one.row.median(metric.key), first.row.median(metric.key)
        here = None
        if value is not None and base is not None:
            by_name = figures[metric.key]
            points = metric.compared == "points"
            here = metric.difference(value, base) if points else str(by_name[one.row.name] / by_name[first.row.name])
        published = None
        if comparable(one, first):
            assert one.published and first.published
            published = metric.difference(one.published[metric.published], first.published[metric.published])
        cells.append({"figure": metric.key, "here": here, "published": published, "nccl": bool(published and one.nccl)})
    return cells


def missing_rows(group: params.Group, rows: list[Row]) -> dict[str, Any]:
    """The rows of the group that did not run on this machine.

    "nobody": rows for which no other row ran. "folded": [row, stand-in] where the stand-in is itself a row of this group, so that
    one row stands for both."""
    ran, stand_ins = {row.name for row in rows if row.good}, names_here(group.rows, rows)
    missing = {name: stand_in for name, stand_in in stand_ins.items() if name not in ran}
    return {
        "nobody": [name for name, stand_in in missing.items() if stand_in not in ran],
        "folded": [[name, stand_in] for name, stand_in in missing.items() if stand_in in ran and stand_in in group.rows],
    }
