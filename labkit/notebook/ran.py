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
from labkit.runs.result import Outcomes, Result
from labkit.runs.rounds import Rounds, kept_rounds
from labkit.runs.spread import Difference, Measured, measured

UNMOVED = ("best_acc_pct", "train_loss", "max_mem_mib")  # figures that a busy machine does not change


class Ran:
    """The outcome of a plan. `lines`: {row name: medians and status}; `results`: {row name: the results of its repeats}; `rounds`: the
    images/s of rows that were measured in turn."""

    def __init__(self, planned: Plan, outcomes: Outcomes, rounds: Rounds | None = None):
        self.plan, self.rounds = planned, rounds
        self.lines = {line["name"]: line for line in lines_of(planned, outcomes)}
        ended_well = good(outcomes)
        self.results = {name: ended_well[name] for name in self.lines if name in ended_well}  # in the plan's order

    def name_here(self, name: str) -> str:
        """The name of the row that runs here for a published name: itself, or the Gloo row if NCCL cannot run."""
        return self.plan.name_here(name)

    def value(self, key: str, name: str) -> Measured | None:
        """A figure of a row (images_per_s, best_acc_pct, max_mem_mib, total_time_s, ..., or train_loss: of the last epoch), with its
        spread; None if the row has no result. Images/s come from rounds in which the rows were measured in turn, if there are any."""
        name = self.name_here(name)
        if key == "images_per_s" and self.rounds and (rate := self.rounds.of(name)):
            return rate
        of_run = (lambda run: run.epochs[-1].train_loss) if key == "train_loss" else (lambda run: getattr(run, key))
        runs = self.results.get(name, [])
        values = [value for value in map(of_run, runs) if value > 0]
        return measured(values, any(run.busy for run in runs) and key not in UNMOVED) if values else None

    def first(self, name: str) -> Result | None:
        """The Result of a row's first repeat that ended well; None if there is none."""
        return next(iter(self.results.get(self.name_here(name), [])), None)

    def steps(self, name: str) -> int | None:
        """The number of steps of each rank in the first repeat that ended well; None if there is none."""
        result = self.first(name)
        return result.steps if result else None

    def us_per_image(self, name: str) -> tuple[Measured, Measured] | tuple[None, None]:
        """Microseconds per image and rank: (waiting for images, the rest of training), over the repeats; (None, None) if there are
        none."""
        runs = self.results.get(self.name_here(name), [])
        if not runs:
            return None, None
        images = [run.steps * run.spec.images_per_step / run.spec.shards for run in runs]
        waiting = [1e6 * run.data_wait_s / n for run, n in zip(runs, images, strict=True)]
        rest = [1e6 * (run.train_s - run.data_wait_s) / n for run, n in zip(runs, images, strict=True)]
        busy = any(run.busy for run in runs)
        return measured(waiting, busy), measured(rest, busy)

    def ratio(self, key: str, one: str, other: str, of: "Ran | None" = None) -> Measured | None:
        """The figure of `one` divided by that of `other`; None if either is missing, or if both mean the same run. `of`: the Ran of
        `other`, if it was trained with other settings than `one`.

        The losses of two rows are divided training by training: trainings of the same number have the same seed, and so the same
        first weights and the same order of images."""
        of = of or self
        one, other = self.name_here(one), of.name_here(other)
        if one == other and of is self:
            return None
        a, b = self.value(key, one), of.value(key, other)
        if a is None or b is None:
            return None
        if key == "train_loss":
            return measured([x / y for x, y in zip(a.samples, b.samples, strict=False)])
        if key in METRIC and of is self:
            rows = [row for row in self.rows() if row.values(key)]
            figures = verdict.figures_of(METRIC[key], rows, self.rounds)
            if one in figures and other in figures:  # the errors of all rows together tell more than those of two
                return figures[one] / figures[other]
        return a / b

    def points(self, one: str, other: str, of: "Ran | None" = None) -> Difference | None:
        """Accuracy of `one` minus accuracy of `other`, in percentage points, and by how much they may differ by chance; None if either
        is missing, or if both mean the same run. `of`: the Ran of `other`, if it was trained with other settings than `one`."""
        of = of or self
        a = verdict.Row(self.name_here(one), good=self.results.get(self.name_here(one), []))
        b = verdict.Row(of.name_here(other), good=of.results.get(of.name_here(other), []))
        if not a.good or not b.good or (a.name == b.name and of is self):
            return None
        compared = verdict.compare(METRIC["best_acc_pct"], a, b, {})
        assert isinstance(compared, Difference)
        return compared

    def speeds(self) -> Grid:
        """Images/s of the rows that were measured in turn, and each over the first. The control is the first row again."""
        if self.rounds is None or not self.rounds.figures:
            return Grid([], {"name": "row"}, "No rows were measured in turn: fewer than two of them run here.")
        figures = self.rounds.figures
        first = next(iter(figures.values()))
        lines = [{"name": name, "rate": rate, "times": rate / first} for name, rate in figures.items()]
        lines += [{"name": f"{name}: {why}"} for name, why in self.rounds.failed.items()]
        word = "Too noisy to tell (噪声过大，无法判断). " if self.rounds.noisy else ""
        note = f"{word}Medians of {len(self.rounds.turns)} rounds, with least and most. The control is the first row again, with another seed."
        return Grid(lines, {"name": "row", "rate": "images/s", "times": "over the first row"}, note)

    @property
    def test_images(self) -> int:
        """The number of test images on which accuracy was measured; 1 if nothing ran."""
        return max((row.test_images for row in self.rows() if row.good), default=1)

    def rows(self) -> list[verdict.Row]:
        """The rows of the plan with their results, as `labkit.results` compares them with the published table."""
        return [verdict.Row(p.name, p.reason, tuple(p.stands_for), self.results.get(p.name, [])) for p in self.plan]

    def best(self, key: str, least: bool = False) -> str | None:
        """The name of the row with the largest figure (`least`: the smallest); None if no row has it.

        A figure of 0 does not count."""
        values = {row.name: self.value(key, row.name) for row in self.plan.runnable}
        known = {name: float(value) for name, value in values.items() if value}
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
            spread = {m.key: measured(v) for m in PUBLISHED if (v := [getattr(run, m.key) for run in self.results.get(name, [])])}
            lines.append({**line, **spread, "model": spec.model, "batch_size": spec.batch_size, "note": note})
        lines.sort(key=lambda line: -float(line["images_per_s"] or 0))
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
        facts = of_group(group, self.rows(), [self.rounds] if self.rounds else [])
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
        notes, in_turn = [], facts["rounds"]
        if facts["nccl"]:
            notes.append("The published figures are those of NCCL rows. These Gloo rows ran in their place.")
        if in_turn is None:
            notes.append("Images/s come from the trainings, which were not measured in turn.")
        elif in_turn["noisy"]:
            notes.append(f"Images/s: too noisy to tell (噪声过大，无法判断); the control came out {in_turn['control']} times.")
        return Grid(lines, headings, " ".join(notes))


def kept(rows: Any = "all", profile: str = "quick", overrides: dict[str, Any] | None = None, repeats: int = 1000) -> Ran:
    """The results of these rows that are already in the folders, at most `repeats` of each row. Trains nothing."""
    planned = plan(rows, profile, overrides)
    outcomes = read_results(planned.label, {row.name for row in planned})
    return Ran(planned, {name: of_row[:repeats] for name, of_row in outcomes.items()}, kept_rounds(planned))
