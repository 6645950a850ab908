"""A Lesson is what the notebook of one group calls: the question, the guess, the run, and tables and figures of its results.

All arguments are checked when a Lesson is made, before any process starts. Training is done by `labkit.runs.train`, as for
`labkit.run` and the command line.
"""

import dataclasses
import html
from collections.abc import Mapping
from typing import Any

from labkit.notebook.cells import Grid, Html, Picture, Text, interactive
from labkit.notebook.guesses import Guesses
from labkit.notebook.live import Live
from labkit.notebook.ran import Ran, kept
from labkit.notebook.widgets import prediction_card
from labkit.probes.steps import Traced, traces
from labkit.probes.trace import trace
from labkit.rows import params
from labkit.rows.fields import SpecError
from labkit.runs.asked import check_lesson, check_overrides
from labkit.runs.plan import plan
from labkit.runs.rounds import measure
from labkit.runs.train import get_ready, train_rows


class Lesson:
    """A group of rows at a profile. `repeats`: trainings of each row; 0: as many as the profile says. `rows`: rows to use instead of
    those in the group's file. `overrides`: Spec fields on top of the profile.

    `fresh`: True trains again rows that have a result; a time (Unix seconds) trains again only results that are older. Raises
    SpecError for an argument with a wrong value or type; the message says how to pass it to papermill."""

    def __init__(
        self,
        group: int = 1,
        profile: str = "quick",
        repeats: int = 0,
        fresh: bool | float = False,
        overrides: dict[str, Any] | None = None,
        rows: Any = (),
        claim: str = "",
        claim_zh: str = "",
    ):
        check_lesson(group, rows, claim, claim_zh)
        check_overrides(overrides)
        asked, repeats = params.group(group), params.repeats(repeats, profile)
        claim, claim_zh = claim.strip() or asked.claim, claim_zh.strip()
        if claim == asked.claim:
            claim_zh = asked.claim_zh  # a claim of one's own has no Chinese, unless it is given
        self.group = dataclasses.replace(asked, rows=tuple(rows) or asked.rows, claim=claim, claim_zh=claim_zh)
        self.profile, self.repeats, self.fresh, self.overrides = profile, repeats, fresh, dict(overrides or {})
        self.plan = get_ready(list(self.group.rows), profile, repeats, fresh, self.overrides)
        self.guesses = Guesses(group, self.plan)
        self.ran: Ran | None = None

    # -- before -----------------------------------------------------------------------------------------------------
    def question(self) -> Html:
        """The claim of the group, the published figures of its rows, and whether each of them runs on this machine."""
        published = params.published_by_name()
        here = {row.name: row.reason or "runs here" for row in self.plan}
        here |= {name: f"runs here on gloo, as {other}" for name, other in self.plan.stand_ins.items()}
        lines = [{"name": name, "here": here.get(name, ""), **published.get(name, {})} for name in self.group.rows]
        headings = {"name": "published row", "avg_throughput_img_s": "images/s", "best_acc_pct": "accuracy (%)"}
        headings |= {"max_gpu_mem_mb": "memory (MB)", "total_time_s": "time (s)", "here": "on this machine"}
        complete = all(name in published for name in self.group.rows)
        grid = Grid(lines, headings, "" if complete else "A dash: not in the published table.")
        title, claims = f"{self.group.title_en} · {self.group.title_zh}", [self.group.claim, self.group.claim_zh]
        shown = "<br>".join(html.escape(claim) for claim in filter(None, claims))
        text = "\n".join(filter(None, [title, *claims]))
        return Html(f"<p><b>{html.escape(title)}</b><br>{shown}</p>{grid.html()}", f"{text}\n\n{grid}")

    def predict(self, why: str = "", **guesses: Any) -> Any:
        """Commit guesses before the run: rows by name, factors and points as numbers. `guesses`: {key of a question: answer}; the
        questions are those of the group (see `labkit.notebook.guesses`). `why`: your reason. What is not guessed stays "no guess".

        In JupyterLab this shows a card with the questions; elsewhere it shows a table with the guesses. Raises SpecError for a key that
        is not asked, for a row that does not run here, and for a number that cannot be an answer."""
        for key, value in guesses.items():
            self.guesses.commit(key, value)
        self.guesses.why = why.strip() or self.guesses.why
        if interactive():
            return prediction_card(self.guesses)
        return self.guesses.table()

    # -- run --------------------------------------------------------------------------------------------------------
    def run(self, rows: Any = None, beside: Any = (), train: bool = True, **overrides: Any) -> Ran:
        """Train the rows of this lesson, or `rows` at the same profile, and then measure their speeds in turn, with a live view. Rows
        with a valid result are not trained again, and valid rounds are not measured again.

        `beside`: more rows that are measured in the same rounds, and not trained now. `train` False: the speeds alone. `overrides`:
        Spec fields on top of those of the lesson. A row that fails is a line with its reason. An interrupt ends all processes, and
        KeyboardInterrupt is raised. Raises SpecError for a bad value before any process starts."""
        asked, changed = rows or self.group.rows, {**self.overrides, **overrides}
        before = kept(asked, self.profile, changed)
        expected = {name: line["total_time_s"] for name, line in before.lines.items() if line["total_time_s"]}
        planned = get_ready(asked, self.profile, self.repeats, self.fresh, changed)
        live = Live(self.group.title_en if rows is None else "More rows", planned, self.repeats, expected)
        word, rounds = "stopped by an error", None
        try:
            if train:
                train_rows(planned, self.repeats, self.fresh, live)
            rounds = measure(plan([asked, *beside], self.profile, changed), self.fresh, live.turn)
            word = ""
        except KeyboardInterrupt:
            word = "interrupted; finished runs are kept"
            raise
        finally:
            ran = kept(asked, self.profile, changed, self.repeats)
            ran.rounds = rounds or ran.rounds
            live.end(list(ran.lines.values()) if train else [], ran.results, word, ran.rounds)
        if rows is None and not overrides:
            self.ran = ran
        return ran

    def trace(self, row: str, exchange: bool = True, steps: int = 3, **overrides: Any) -> Any:
        """A trace of a few steps of a row at the profile of this lesson (see `labkit.probes.trace.trace`), or None if it cannot
        run here.

        `exchange`: False switches communication between ranks off. `overrides`: Spec fields on top of those of the lesson."""
        changed = {**self.overrides, **overrides}
        runnable = plan([row], self.profile, changed).runnable
        if not runnable:
            return None
        return trace(runnable[0].name, self.profile, overrides=changed, steps=steps, exchange=exchange, fresh=self.fresh is True)

    def traces(self, asked: Mapping[str, Any], rounds: int = 3, steps: int = 3) -> dict[str, Traced]:
        """Traces of several rows at the profile of this lesson, in turn, `rounds` times, so that their step times may be compared (see
        `labkit.probes.steps`). `asked`: {label: row}, or {label: (row, False)} for a row without exchange between ranks, or
        {label: (row, True, {"width": 8})} with Spec fields on top of those of the lesson. Rows that cannot run here are left out. There
        are at most as many rounds as the profile allows for speeds (tiny: one). Two labels in three rounds say next to nothing of their
        spread: take three labels or more, or more rounds."""
        wanted = {}
        for label, one in asked.items():
            row, exchange, more = (*one, {})[:3] if isinstance(one, tuple) else (one, True, {})
            changed = {**self.overrides, **more}
            if runnable := plan([row], self.profile, changed).runnable:
                about = {"profile": self.profile, "overrides": changed, "steps": steps, "exchange": exchange}
                wanted[label] = {"row": runnable[0].name, **about}
        return traces(wanted, min(rounds, self.plan.profile.rounds[1]), fresh=self.fresh is True)

    # -- after ------------------------------------------------------------------------------------------------------
    def finished_run(self) -> Ran:
        """What `run()` measured. Raises SpecError if it was not called yet."""
        if self.ran is None:
            raise SpecError("this lesson has not run yet: call lesson.run() first")
        return self.ran

    def outcome(self) -> Grid:
        """A table of the guesses and what was measured, and the reader's reason. Raises SpecError before `run()`."""
        return self.guesses.outcome(self.finished_run())

    def table(self) -> Grid:
        """The rows in the form of the published table. Raises SpecError before `run()`."""
        return self.finished_run().table()

    def ratios(self) -> Grid:
        """Each row relative to the first row of the group, here and as published. Raises SpecError before `run()`."""
        return self.finished_run().ratios(self.group)

    def figure(self) -> Picture | Text:
        """The figure of the group, as in plots/: throughput, ratios, memory, parts of the time, accuracy. Raises SpecError before `run()`."""
        from labkit.plots.groups import group_figure  # late: keeps matplotlib out of a process that does not need it

        ran = self.finished_run()
        figure = group_figure(self.group, ran.rows(), [ran.rounds] if ran.rounds else [])
        if figure is None:
            return Text("*No row of this group ran here.*")
        return Picture(figure, f"Group {self.group.number}: {self.group.title_en}")
