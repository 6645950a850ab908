"""One group's notebook: the question, the guess, the run, and what to read in it. The notebook explains; this calls.

Everything is checked when a Lesson is made, before any process starts. Nothing here trains: `labkit.run` does, the same
function that the command line and the tests call.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from labkit.notebook.cells import Grid, Html, Picture, Text, interactive
from labkit.notebook.ran import Ran, kept
from labkit.results.metrics import METRIC, QUESTIONS, ROW_QUESTIONS
from labkit.results.table import published_by_name
from labkit.rows import params
from labkit.rows.fields import SpecError, nearest
from labkit.runs import train
from labkit.runs.asked import check_lesson, check_overrides
from labkit.runs.plan import Plan, plan


class Lesson:
    """A group of rows at a profile. `rows`: other rows than the group file's; `overrides`: Spec fields on top of the profile.

    `fresh`: True trains again what has a result; a time (Unix seconds) only what is older than it. Raises SpecError for each of
    them that is not as it should be, in its type too, and says how papermill is told.
    """

    def __init__(
        self,
        group: int = 1,
        profile: str = "quick",
        repeats: int = 1,
        fresh: bool | float = False,
        overrides: dict[str, Any] | None = None,
        rows: Any = (),
        claim: str = "",
    ):
        check_lesson(group, rows, claim)
        check_overrides(overrides)
        found = params.group(group)
        self.group = dataclasses.replace(found, rows=tuple(rows) or found.rows, claim=claim.strip() or found.claim)
        self.profile, self.repeats, self.fresh, self.overrides = profile, repeats, fresh, dict(overrides or {})
        self.plan = train.get_ready(list(self.group.rows), profile, repeats, fresh, self.overrides)
        self.guess, self.guessed_by = as_published(self.group, self.plan), "default: as published"
        self.ran: Ran | None = None

    # -- before -----------------------------------------------------------------------------------------------------
    def question(self) -> Html:
        """The claim, the published rows that raise it, and what becomes of each of them on this machine."""
        there = published_by_name()
        here = {row.name: row.reason or "runs here" for row in self.plan}
        here |= {name: f"runs here on gloo, as {other}" for name, other in self.plan.stand_ins.items()}
        lines = [{"name": name, "here": here.get(name, ""), **there.get(name, {})} for name in self.group.rows]
        headings = {"name": "published row", "avg_throughput_img_s": "images/s", "best_acc_pct": "accuracy (%)"}
        headings |= {"max_gpu_mem_mb": "memory (MB)", "total_time_s": "time (s)", "here": "on this machine"}
        grid = Grid(
            lines,
            headings,
            "A dash: not in the published table." if len(lines) > sum(n in there for n in self.group.rows) else "",
        )
        claim = f"{self.group.title_en} · {self.group.title_zh}"
        return Html(f"<p><b>{claim}</b><br>{self.group.claim}</p>{grid.html()}", f"{claim}\n{self.group.claim}\n\n{grid}")

    def predict(self, fastest: str = "", factor: float = 0.0, least_memory: str = "", most_accurate: str = "") -> Any:
        """Commit a guess before the run: rows by name, the factor as a number. What is left out is guessed as published.

        In JupyterLab a card asks for it; elsewhere the arguments count. Raises SpecError for a row that does not run here.
        """
        asked = {"fastest": fastest, "factor": factor, "least_memory": least_memory, "most_accurate": most_accurate}
        for key, value in asked.items():
            if value:
                self.commit(key, value)
        if interactive():
            from labkit.notebook.widgets import prediction_card

            return prediction_card(self)
        return self.guess_table()

    def choices(self) -> list[str]:
        return [row.name for row in self.plan.runnable]

    def commit(self, key: str, value: Any) -> None:
        """Set one guess, as `predict` and the card do."""
        if key in ROW_QUESTIONS:
            value = self.plan.name_here(value)
            if value not in self.choices():
                raise SpecError(f"{key}={value!r}: no row of this lesson that runs here{nearest(value, self.choices())}")
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 1:
            raise SpecError(f"{key}={value!r}: must be a number of at least 1: the fastest row over the slowest")
        self.guess[key], self.guessed_by = value, "yours"

    def guess_table(self) -> Grid:
        lines = [{"question": question.text, "guess": self.guess[key]} for key, question in QUESTIONS.items()]
        return Grid(lines, {"question": "before the run", "guess": f"guess ({self.guessed_by})"})

    # -- run --------------------------------------------------------------------------------------------------------
    def run(self, rows: Any = None, **overrides: Any) -> Ran:
        """Train this lesson's rows, or others at the same profile, with a live view. What already has a result is not trained again.

        `overrides` come on top of the lesson's. A row that fails is a line with its reason; an interrupt ends all processes.
        """
        from labkit.notebook.live import Live

        asked, changed = rows or self.group.rows, {**self.overrides, **overrides}
        before = kept(asked, self.profile, changed)
        expected = {name: line["total_time_s"] for name, line in before.lines.items() if line["total_time_s"]}
        planned = train.get_ready(asked, self.profile, self.repeats, self.fresh, changed)
        live = Live(self.group.title_en if rows is None else "More rows", planned, self.repeats, expected)
        word = "stopped by an error"
        try:
            train.train_rows(planned, self.repeats, self.fresh, live)
            word = ""
        except KeyboardInterrupt:
            word = "interrupted; finished runs are kept"
            raise
        finally:
            ran = kept(asked, self.profile, changed, self.repeats)
            live.end(list(ran.lines.values()), ran.results, word)
        if rows is None and not overrides:
            self.ran = ran
        return ran

    def trace(self, row: str, exchange: bool = True, steps: int = 3, **overrides: Any) -> Any:
        """Where the steps of a row spend their time, and what each rank holds: `labkit.probes.trace.trace` at this lesson's profile.

        None if this machine cannot run the row.
        """
        from labkit.probes.trace import trace

        changed = {**self.overrides, **overrides}
        runnable = plan([row], self.profile, changed).runnable
        if not runnable:
            return None
        return trace(runnable[0].name, self.profile, overrides=changed, steps=steps, exchange=exchange, fresh=self.fresh is True)

    # -- after ------------------------------------------------------------------------------------------------------
    def done(self) -> Ran:
        if self.ran is None:
            raise SpecError("this lesson has not run yet: call lesson.run() first")
        return self.ran

    def outcome(self) -> Grid:
        """The guess beside what was measured."""
        ran, lines = self.done(), []
        for key, question in ROW_QUESTIONS.items():
            best = ran.best(question.metric, least=METRIC[question.metric].best == "least")
            if best is None:
                continue
            same = best == self.guess[key] or ran.order(question.metric, best, self.guess[key]) == 0
            word = "right" if best == self.guess[key] else "indistinguishable" if same else "no"
            lines.append({"question": question.text, "guess": self.guess[key], "measured": best, "verdict": word})
        fast, slow = ran.best("images_per_s"), ran.best("images_per_s", least=True)
        factor = ran.ratio("images_per_s", fast, slow) if fast and slow else None
        if factor:
            off = max(factor / self.guess["factor"], self.guess["factor"] / factor)
            word = "right within a tenth" if off < 1.1 else f"off by a factor of {off:.2f}"
            lines.append(
                {"question": QUESTIONS["factor"].text, "guess": float(self.guess["factor"]), "measured": factor, "verdict": word}
            )
        return Grid(
            lines, {"question": "question", "guess": f"guess ({self.guessed_by})", "measured": "measured here", "verdict": ""}
        )

    def table(self) -> Grid:
        return self.done().table()

    def beside(self) -> Grid:
        return self.done().beside(self.group)

    def figure(self) -> Picture | Text:
        """The group's figure, as in plots/: throughput, published ratios, accuracy, memory, where the time went."""
        from labkit.plots.groups import group_figure

        figure = group_figure(self.group, self.done().rows())
        return (
            Picture(figure, f"Group {self.group.number}: {self.group.title_en}")
            if figure
            else Text("*No row of this group ran here.*")
        )


def as_published(group: params.Group, planned: Plan) -> dict[str, Any]:
    """The guess of somebody who believes the published table: its best rows, under the names that run here."""
    published, runnable = published_by_name(), {row.name for row in planned.runnable}
    known = {name: published[name] for name in group.rows if name in published and planned.name_here(name) in runnable}
    if not known:  # nothing published runs here: the first row, and no difference
        first = next((row.name for row in planned.runnable), "")
        return dict.fromkeys(ROW_QUESTIONS, first) | {"factor": 1.0}
    guess: dict[str, Any] = {}
    for key, question in ROW_QUESTIONS.items():
        metric = METRIC[question.metric]
        best = metric.pick_best({name: figures[metric.published] for name, figures in known.items()})
        guess[key] = planned.name_here(str(best))
    rates = [figures["avg_throughput_img_s"] for figures in known.values()]
    return guess | {"factor": round(max(rates) / min(rates), 2)}
