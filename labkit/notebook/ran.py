"""What a call to `Lesson.run` measured, in the words of the published names: a row that stood in for another answers for it."""

from __future__ import annotations

from typing import Any

from labkit.notebook.cells import Grid
from labkit.results import verdict
from labkit.rows import params
from labkit.runs.folders import label_of
from labkit.runs.plan import Planned, plan

PUBLISHED_FORM = {
    "name": "experiment",
    "model": "model",
    "batch_size": "batch size",
    "best_acc_pct": "best accuracy (%)",
    "images_per_s": "throughput (images/s)",
    "max_mem_mb": "peak memory (MB)",
    "total_time_s": "total time (s)",
}


class Ran:
    """`results`: row name -> the results of its repeats, as their folders hold them; `lines`: row name -> medians and status."""

    def __init__(self, planned: list[Planned], lines: list[dict[str, Any]], results: dict[str, list[dict[str, Any]]]):
        self.planned = planned
        self.lines = {line["name"]: line for line in lines}
        self.results = {name: [r for r in results.get(name, []) if r["status"] == "ok"] for name in self.lines}  # as planned
        self.results = {name: found for name, found in self.results.items() if found}
        self.instead = {other: row.name for row in planned for other in row.stands_for}

    def name_here(self, name: str) -> str:
        """The row that ran for a published name: itself, or its gloo twin where NCCL cannot run."""
        return self.instead.get(name, name)

    def value(self, key: str, name: str) -> float | None:
        """A row's median of a measured key (images_per_s, best_acc_pct, max_mem_mb, total_time_s, ...); None if it gave no result."""
        line = self.lines.get(self.name_here(name))
        return line[key] if line and line["status"] == "ok" else None

    def first(self, name: str) -> dict[str, Any] | None:
        """The whole result of a row's first good repeat: its steps, epochs, spec, ...; None if it gave none."""
        return next(iter(self.results.get(self.name_here(name), [])), None)

    def ratio(self, key: str, one: str, other: str) -> float | None:
        """How many times `other`'s figure `one`'s is; None if either is missing, or if both are the same run."""
        a, b = self.value(key, one), self.value(key, other)
        return a / b if a and b and self.name_here(one) != self.name_here(other) else None

    def points(self, one: str, other: str) -> float | None:
        """By how many percentage points `one` is more accurate than `other`; None if either is missing."""
        a, b = self.value("best_acc_pct", one), self.value("best_acc_pct", other)
        return a - b if a is not None and b is not None and self.name_here(one) != self.name_here(other) else None

    @property
    def test_images(self) -> int:
        """How many images an accuracy was counted on; 1 if nothing ran."""
        return max((row.test_images for row in self.rows() if row.good), default=1)

    def chance(self, one_pct: float, other_pct: float) -> float:
        """Points by which two accuracies of these rows may differ by chance (two standard errors of what the test images allow)."""
        return verdict.chance_points(one_pct, other_pct, self.test_images)

    def order(self, key: str, one: str, other: str) -> int | None:
        """1 if `one` has more of `key`, -1 if less, 0 if the two are indistinguishable (verdict.order says when)."""
        rows = [verdict.Row(name, good=self.results.get(name, [])) for name in (self.name_here(one), self.name_here(other))]
        figure = next(figure for figure in verdict.FIGURES if figure.key == key)
        if not all(row.values(key) for row in rows) or rows[0].name == rows[1].name:
            return None
        return verdict.order(figure, rows[0].values(key), rows[1].values(key), min(row.test_images for row in rows))

    def rows(self) -> list[verdict.Row]:
        """For the figures that compare with the published table."""
        return [verdict.Row(p.name, p.reason, tuple(p.stands_for), self.results.get(p.name, [])) for p in self.planned]

    def best(self, key: str, least: bool = False) -> str | None:
        """The name of the row with most (or least) of a measured key."""
        values = {name: self.value(key, name) for name in self.results}
        known = {name: value for name, value in values.items() if value}
        return (min if least else max)(known, key=lambda name: known[name]) if known else None

    def table(self) -> Grid:
        """The rows in the published form, fastest first; rows that did not run come last, with what they need."""
        from labkit.rows.spec import Spec

        lines = []
        for name, line in self.lines.items():
            spec = Spec.parse(name)
            ok = line["status"] == "ok"
            lines.append(
                {
                    **line,
                    "model": spec.model,
                    "batch_size": spec.batch_size,
                    "note": "" if ok else line["reason"] if line["status"] == "needs" else f"{line['status']}: {line['reason']}",
                }
            )
            if line["stands_for"]:
                lines[-1]["note"] = f"also for {', '.join(line['stands_for'])}"
        lines.sort(key=lambda line: -(line["images_per_s"] or 0))
        return Grid(lines, PUBLISHED_FORM | ({"note": ""} if any(line["note"] for line in lines) else {}))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return self.table()._repr_mimebundle_()

    def beside(self, group: params.Group) -> Grid:
        """Each row relative to the first of its group, here and as published: machines are never compared, ratios are."""
        found = verdict.besides(group, self.rows())
        lines = []
        for one in found:
            line: dict[str, Any] = {"name": one.row.name}
            for figure in verdict.FIGURES:
                mine, base = one.row.middle(figure.key), found[0].row.middle(figure.key)
                line[figure.key] = None if mine is None or base is None else figure.apart(mine, base)
                line["published " + figure.key] = None
                if verdict.comparable(one, found[0]) and one.published and found[0].published:
                    line["published " + figure.key] = figure.apart(
                        one.published[figure.published], found[0].published[figure.published]
                    )
            lines.append(line)
        headings = {"name": "relative to the first row"}
        for figure in verdict.FIGURES:
            headings |= {figure.key: figure.title.lower(), "published " + figure.key: "published"}
        nccl = any(one.nccl for one in found)
        return Grid(
            lines, headings, "Published figures are those of the NCCL rows that these Gloo rows stand for." if nccl else ""
        )


def kept(rows: Any = "all", profile: str = "quick", overrides: dict[str, Any] | None = None, repeats: int = 1000) -> Ran:
    """What has been measured of these rows so far (of each, the first `repeats`). Runs nothing."""
    from labkit.results.table import line_of, read_results

    planned, label = plan(rows, profile, overrides), label_of(profile, overrides or {})
    found = read_results(label, {row.name for row in planned})
    found = {name: one[:repeats] for name, one in found.items()}
    return Ran(planned, [line_of(row, found.get(row.name, []), label) for row in planned], found)
