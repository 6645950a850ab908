"""What a call to `Lesson.run` measured. A row that ran in place of another (Gloo for NCCL) can be asked for by both names."""

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
    """The outcome of a plan. `lines`: {row name: medians and status}; `results`: {row name: the results of its repeats}."""

    def __init__(self, planned: Plan, outcomes: Outcomes):
        self.plan = planned
        self.lines = {line["name"]: line for line in lines_of(planned, outcomes)}
        ended_well = good(outcomes)
        self.results = {name: ended_well[name] for name in self.lines if name in ended_well}  # in the plan's order

    def name_here(self, name: str) -> str:
        """The name of the row that runs here for a published name: itself, or the Gloo row if NCCL cannot run."""
        return self.plan.name_here(name)

    def value(self, key: str, name: str) -> float | None:
        """The median of a figure (images_per_s, best_acc_pct, max_mem_mib, total_time_s, ...) of a row; None if the row has no
        result."""
        line = self.lines.get(self.name_here(name))
        return line[key] if line and line["status"] == "ok" else None

    def first(self, name: str) -> Result | None:
        """The Result of a row's first repeat that ended well; None if there is none."""
        return next(iter(self.results.get(self.name_here(name), [])), None)

    def steps(self, name: str) -> int | None:
        """The number of steps of each rank in the first repeat that ended well; None if there is none."""
        result = self.first(name)
        return result.steps if result else None

    def last_epoch(self, name: str) -> Epoch | None:
        """The last epoch of the first repeat that ended well; None if there is none."""
        result = self.first(name)
        return result.epochs[-1] if result else None

    def us_per_image(self, name: str) -> tuple[float, float] | tuple[None, None]:
        """Microseconds per image and rank: (waiting for images, the rest of training), in the first repeat that ended well; else
        (None, None)."""
        result = self.first(name)
        if result is None:
            return None, None
        images = result.steps * result.spec.images_per_step / result.spec.shards
        return 1e6 * result.data_wait_s / images, 1e6 * (result.train_s - result.data_wait_s) / images

    def ratio(self, key: str, one: str, other: str) -> float | None:
        """The figure of `one` divided by that of `other`; None if either is missing or 0, or if both names mean the same run."""
        a, b = self.value(key, one), self.value(key, other)
        return a / b if a and b and self.name_here(one) != self.name_here(other) else None

    def points(self, one: str, other: str) -> float | None:
        """Accuracy of `one` minus accuracy of `other`, in percentage points; None if either is missing, or if both names mean the
        same run."""
        a, b = self.value("best_acc_pct", one), self.value("best_acc_pct", other)
        return a - b if a is not None and b is not None and self.name_here(one) != self.name_here(other) else None

    @property
    def test_images(self) -> int:
        """The number of test images on which accuracy was measured; 1 if nothing ran."""
        return max((row.test_images for row in self.rows() if row.good), default=1)

    def chance(self, one_pct: float, other_pct: float) -> float:
        """Two standard errors, in percentage points: by so much two accuracies of these rows may differ by chance."""
        return verdict.chance_points(one_pct, other_pct, self.test_images)

    def order(self, key: str, one: str, other: str) -> int | None:
        """1 if the figure of `one` is larger, -1 if smaller, 0 if the two are indistinguishable (see `verdict.order`); None if
        either is missing."""
        rows = [verdict.Row(name, good=self.results.get(name, [])) for name in (self.name_here(one), self.name_here(other))]
        if not all(row.values(key) for row in rows) or rows[0].name == rows[1].name:
            return None
        return verdict.order(METRIC[key], rows[0].values(key), rows[1].values(key), min(row.test_images for row in rows))

    def rows(self) -> list[verdict.Row]:
        """The rows of the plan with their results, as `labkit.results` compares them with the published table."""
        return [verdict.Row(p.name, p.reason, tuple(p.stands_for), self.results.get(p.name, [])) for p in self.plan]

    def best(self, key: str, least: bool = False) -> str | None:
        """The name of the row with the largest figure (`least`: the smallest); None if no row has it.

        A figure of 0 does not count."""
        values = {name: self.value(key, name) for name in self.results}
        known = {name: value for name, value in values.items() if value}
        if not known:
            return None
        choose = min if least else max
        return choose(known, key=lambda name: known[name])

    def table(self) -> Grid:
        """The rows in the form of the published table, the fastest first. Rows that did not run come last, with the reason."""
        lines = []
        for name, line in self.lines.items():
            spec = Spec.parse(name)
            note = ""
            if line["stands_for"]:
                note = f"also for {', '.join(line['stands_for'])}"
            elif line["status"] == "needs":
                note = line["reason"]
            elif line["status"] != "ok":
                note = f"{line['status']}: {line['reason']}"
            elif any(one.strategy.get("proved") is False for one in self.results[name]):
                note = "not proved: its class says exact = False"
            lines.append({**line, "model": spec.model, "batch_size": spec.batch_size, "note": note})
        lines.sort(key=lambda line: -(line["images_per_s"] or 0))
        headings = {"name": "experiment", "model": "model", "batch_size": "batch size"}
        headings |= {metric.key: metric.heading["en"] for metric in PUBLISHED}
        if any(line["note"] for line in lines):
            headings["note"] = ""
        return Grid(lines, headings)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return self.table()._repr_mimebundle_()

    def ratios(self, group: params.Group) -> Grid:
        """Each row relative to the first row of a group, here and as published.

        Absolute figures of two machines are never compared."""
        facts = of_group(group, self.rows())
        lines: list[dict[str, Any]] = []
        for row in facts["rows"]:
            line = {"name": row["name"]}
            for ratio in row["ratios"]:
                unit = "times" if METRIC[ratio["figure"]].compared == "ratio" else "points"
                line[ratio["figure"]] = ratio["here"] and f"{ratio['here']} {unit}"
                line["published " + ratio["figure"]] = ratio["published"] and f"{ratio['published']} {unit}"
            lines.append(line)
        headings = {"name": "relative to the first row"}
        for metric in COMPARED:
            headings |= {metric.key: metric.title["en"].lower(), "published " + metric.key: "published"}
        note = "The published figures are those of NCCL rows. These Gloo rows ran in their place." if facts["nccl"] else ""
        return Grid(lines, headings, note)


def kept(rows: Any = "all", profile: str = "quick", overrides: dict[str, Any] | None = None, repeats: int = 1000) -> Ran:
    """The results of these rows that are already in the folders, at most `repeats` of each row. Trains nothing."""
    planned = plan(rows, profile, overrides)
    outcomes = read_results(planned.label, {row.name for row in planned})
    return Ran(planned, {name: of_row[:repeats] for name, of_row in outcomes.items()})
