"""The report's section on the published figures: for each group its claim, the ratios here and there, and the verdict."""

from __future__ import annotations

from collections.abc import Callable

from labkit import params
from labkit.markdown import plain, table
from labkit.verdict import FIGURES, Beside, Row, answered, besides, comparable, verdict

INTRO = """\
## Beside the published report

The published figures come from GPUs and most likely from a larger data set, so only ratios are compared: each row to
the first row of its group that ran here, and its published row to the published figure of the same.
*Indistinguishable* means that the ranges of the repeats overlap, or with a single run that less than 5 % lies between;
accuracies also where chance explains the difference (two standard errors; 10,000 published test images assumed). The
published figures are single runs. Memory is not the same quantity on a CPU as on a GPU. † ran on Gloo and also stands for
an NCCL row. In the sentences, names leave out resnet18, cacheFalse and ampFalse."""
NCCL = """\
Published figures marked NCCL are those of the NCCL rows of the same settings: not every Gloo row of this group was
published, and a ratio of Gloo to NCCL would tell the backends apart, not the rows."""
HEADER = ["Row", "Images/s, ratio", "published", "Accuracy, points", "published", "Memory, ratio", "published"]


def section(rows: list[Row], link: Callable[[str], str]) -> str:
    """All groups. `link` makes a row's name a link to its folder."""
    return "\n\n".join([INTRO, *(of_group(group, rows, link) for group in params.groups())])


def of_group(group: params.Group, rows: list[Row], link: Callable[[str], str]) -> str:
    found = besides(group, rows)
    parts = [f"### {group.number}. {plain(group.title_en)} · {plain(group.title_zh)}", f"> {plain(group.claim)}"]
    if any(b.nccl for b in found):
        parts.append(NCCL)
    if found:
        parts.append(table(HEADER, [[link(b.row.name) + " †" * bool(b.row.stands_for), *ratios(b, found[0])] for b in found]))
    if len(found) > 1:
        parts.append("\n".join(f"- **{figure.title}**: {verdict(figure, found)}" for figure in FIGURES))
    else:
        parts.append("Nothing to compare: fewer than two rows of this group have run here.")
    return "\n\n".join([*parts, *unanswered(group, rows)])


def ratios(one: Beside, first: Beside) -> list[str]:
    """Six cells: each figure relative to the group's first row, here and as published."""
    cells = []
    for figure in FIGURES:
        mine, base = one.row.middle(figure.key), first.row.middle(figure.key)
        cells.append("–" if mine is None or base is None else number(figure.apart(mine, base)))
        if not comparable(one, first):
            cells.append("–")
        else:
            assert one.published and first.published
            there = number(figure.apart(one.published[figure.published], first.published[figure.published]))
            cells.append(there + (" (NCCL)" if one.nccl else ""))
    return cells


def number(apart: str) -> str:
    return apart.removesuffix(" times").removesuffix(" points")


def unanswered(group: params.Group, rows: list[Row]) -> list[str]:
    """What the group asks and this machine cannot tell, as at most one paragraph."""
    ran, answers = {row.name for row in rows if row.good}, answered(group, rows)
    missing = {name: answer for name, answer in answers.items() if name not in ran}
    nobody = [f"`{name}`" for name, answer in missing.items() if answer not in ran]
    folded = [f"`{name}` against `{answer}`" for name, answer in missing.items() if answer in ran and answer in group.rows]
    parts = [f"Did not run here: {', '.join(nobody)}."] if nobody else []
    if folded:
        parts.append(f"Nothing is said here of {', or of '.join(folded)}: only the latter ran.")
    return [" ".join(parts)] if parts else []
