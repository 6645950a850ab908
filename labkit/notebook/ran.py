"""What a call to `Lesson.run` measured, in the words of the published names: a row that stood in for another answers for it."""

from __future__ import annotations

from typing import Any

from labkit.notebook.cells import Grid
from labkit.results import verdict
from labkit.results.groups import of_group
from labkit.results.metrics import COMPARED, METRIC, PUBLISHED
from labkit.results.table import good, lines_of, read_results
from labkit.rows import params
from labkit.rows.spec import Spec
from labkit.runs.plan import Plan, plan
from labkit.runs.result import Epoch, Outcomes, Result


class Ran:
    """`plan`: what was asked for; `lines`: row name -> medians and status; `results`: row name -> the results of its repeats."""

    def __init__(self, planned: Plan, outcomes: Outcomes):
        self.plan = planned
        self.lines = {line["name"]: line for line in lines_of(planned, outcomes)}
        ended_well = good(outcomes)
        self.results = {name: ended_well[name] for name in self.lines if name in ended_well}  # in the plan's order

    def name_here(self, name: str) -> str:
        """The row that ran for a published name: itself, or its gloo twin where NCCL cannot run."""
        return self.plan.name_here(name)

    def value(self, key: str, name: str) -> float | None:
        """A row's median of a measured key (images_per_s, best_acc_pct, max_mem_mib, total_time_s, ...); None if it gave no result."""
        line = self.lines.get(self.name_here(name))
        return line[key] if line and line["status"] == "ok" else None

    def first(self, name: str) -> Result | None:
        """The whole result of a row's first good repeat: its steps, epochs, spec, ...; None if it gave none."""
        return next(iter(self.results.get(self.name_here(name), [])), None)

    def steps(self, name: str) -> int | None:
        """How many steps each rank of a row made in its first good repeat; None if it gave no result."""
        result = self.first(name)
        return result.steps if result else None

    def last_epoch(self, name: str) -> Epoch | None:
        """The last epoch of a row's first good repeat; None if it gave no result."""
        result = self.first(name)
        return result.epochs[-1] if result else None

    def us_per_image(self, name: str) -> tuple[float, float] | tuple[None, None]:
        """Microseconds per image and rank in a row's first good repeat: (waiting for images, all the rest of training)."""
        result = self.first(name)
        if result is None:
            return None, None
        images = result.steps * result.spec.images_per_step / result.spec.shards
        return 1e6 * result.data_wait_s / images, 1e6 * (result.train_s - result.data_wait_s) / images

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
        if not all(row.values(key) for row in rows) or rows[0].name == rows[1].name:
            return None
        return verdict.order(METRIC[key], rows[0].values(key), rows[1].values(key), min(row.test_images for row in rows))

    def rows(self) -> list[verdict.Row]:
        """For the figures that compare with the published table."""
        return [verdict.Row(p.name, p.reason, tuple(p.stands_for), self.results.get(p.name, [])) for p in self.plan]

    def best(self, key: str, least: bool = False) -> str | None:
        """The name of the row with most (or least) of a measured key."""
        values = {name: self.value(key, name) for name in self.results}
        known = {name: value for name, value in values.items() if value}
        return (min if least else max)(known, key=lambda name: known[name]) if known else None

    def table(self) -> Grid:
        """The rows in the published form, fastest first; rows that did not run come last, with what they need."""
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
        headings = {"name": "experiment", "model": "model", "batch_size": "batch size"}
        headings |= {metric.key: metric.heading["en"] for metric in PUBLISHED}
        return Grid(lines, headings | ({"note": ""} if any(line["note"] for line in lines) else {}))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return self.table()._repr_mimebundle_()

    def beside(self, group: params.Group) -> Grid:
        """Each row relative to the first of its group, here and as published: machines are never compared, ratios are."""
        found = of_group(group, self.rows())
        lines: list[dict[str, Any]] = []
        for row in found["rows"]:
            lines.append({"name": row["name"]})
            for ratio in row["ratios"]:
                unit = "times" if METRIC[ratio["figure"]].compared == "ratio" else "points"
                lines[-1][ratio["figure"]] = ratio["here"] and f"{ratio['here']} {unit}"
                lines[-1]["published " + ratio["figure"]] = ratio["published"] and f"{ratio['published']} {unit}"
        headings = {"name": "relative to the first row"}
        for metric in COMPARED:
            headings |= {metric.key: metric.title["en"].lower(), "published " + metric.key: "published"}
        note = "Published figures are those of the NCCL rows that these Gloo rows stand for." if found["nccl"] else ""
        return Grid(lines, headings, note)


def kept(rows: Any = "all", profile: str = "quick", overrides: dict[str, Any] | None = None, repeats: int = 1000) -> Ran:
    """What has been measured of these rows so far (of each, the first `repeats`). Runs nothing."""
    planned = plan(rows, profile, overrides)
    found = read_results(planned.label, {row.name for row in planned})
    return Ran(planned, {name: outcomes[:repeats] for name, outcomes in found.items()})
