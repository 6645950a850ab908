"""A Lesson is what the notebook of one group calls: the question, the guess, the run, and tables and figures of its results.

All arguments are checked when a Lesson is made, before any process starts. Training is done by `labkit.runs.train`, as for
`labkit.run` and the command line.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from labkit.notebook.cells import Grid, Html, Picture, Text, interactive
from labkit.notebook.live import Live
from labkit.notebook.ran import Ran, kept
from labkit.notebook.widgets import prediction_card
from labkit.probes.steps import Traced, traces
from labkit.probes.trace import trace
from labkit.results.metrics import METRIC, QUESTIONS, ROW_QUESTIONS
from labkit.rows import params
from labkit.rows.fields import SpecError, nearest
from labkit.runs.asked import check_lesson, check_overrides
from labkit.runs.plan import Plan, plan
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
    ):
        check_lesson(group, rows, claim)
        check_overrides(overrides)
        asked, repeats = params.group(group), params.repeats(repeats, profile)
        self.group = dataclasses.replace(asked, rows=tuple(rows) or asked.rows, claim=claim.strip() or asked.claim)
        self.profile, self.repeats, self.fresh, self.overrides = profile, repeats, fresh, dict(overrides or {})
        self.plan = get_ready(list(self.group.rows), profile, repeats, fresh, self.overrides)
        self.guess, self.guessed_by = as_published(self.group, self.plan), "default: as published"
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
        claim = f"{self.group.title_en} · {self.group.title_zh}"
        return Html(f"<p><b>{claim}</b><br>{self.group.claim}</p>{grid.html()}", f"{claim}\n{self.group.claim}\n\n{grid}")

    def predict(self, fastest: str = "", factor: float = 0.0, least_memory: str = "", most_accurate: str = "") -> Any:
        """Commit a guess before the run: rows by name, the factor as a number. Without an argument, the guess is as published.

        In JupyterLab this shows a card with the questions; elsewhere it shows a table with the guesses. Raises SpecError for a
        row that does not run here, and for a factor below 1."""
        asked = {"fastest": fastest, "factor": factor, "least_memory": least_memory, "most_accurate": most_accurate}
        for key, value in asked.items():
            if value:
                self.commit(key, value)
        if interactive():
            return prediction_card(self)
        return self.guess_table()

    def choices(self) -> list[str]:
        """The names of the rows that this machine can run."""
        return [row.name for row in self.plan.runnable]

    def commit(self, key: str, value: Any) -> None:
        """Set one guess.

        `key`: a key of QUESTIONS. Raises SpecError for a row that does not run here, and for a factor below 1."""
        if key in ROW_QUESTIONS:
            value = self.plan.name_here(value)
            if value not in self.choices():
                raise SpecError(f"{key}={value!r}: no row of this lesson that runs here{nearest(value, self.choices())}")
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 1:
            raise SpecError(f"{key}={value!r}: must be a number of at least 1: the fastest row over the slowest")
        self.guess[key], self.guessed_by = value, "yours"

    def guess_table(self) -> Grid:
        """The questions and the guesses as a table."""
        lines = [{"question": question.text, "guess": self.guess[key]} for key, question in QUESTIONS.items()]
        return Grid(lines, {"question": "before the run", "guess": f"guess ({self.guessed_by})"})

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
        {label: (row, True, {"width": 8})} with Spec fields on top of those of the lesson. Rows that cannot run here are left out. At a
        profile that measures in one round (tiny), one round is traced."""
        wanted = {}
        for label, one in asked.items():
            row, exchange, more = (*one, {})[:3] if isinstance(one, tuple) else (one, True, {})
            changed = {**self.overrides, **more}
            if runnable := plan([row], self.profile, changed).runnable:
                about = {"profile": self.profile, "overrides": changed, "steps": steps, "exchange": exchange}
                wanted[label] = {"row": runnable[0].name, **about}
        return traces(wanted, min(rounds, self.plan.profile.rounds[0]), fresh=self.fresh is True)

    # -- after ------------------------------------------------------------------------------------------------------
    def finished_run(self) -> Ran:
        """What `run()` measured. Raises SpecError if it was not called yet."""
        if self.ran is None:
            raise SpecError("this lesson has not run yet: call lesson.run() first")
        return self.ran

    def outcome(self) -> Grid:
        """A table of the guesses and what was measured. Raises SpecError before `run()`."""
        ran, lines = self.finished_run(), []
        for key, question in ROW_QUESTIONS.items():
            best = ran.best(question.metric, least=METRIC[question.metric].best == "least")
            if best is None:
                continue
            word = self.judged(ran, question.metric, best, self.guess[key])
            lines.append({"question": question.text, "guess": self.guess[key], "measured": best, "verdict": word})
        fast, slow = ran.best("images_per_s"), ran.best("images_per_s", least=True)
        factor = ran.ratio("images_per_s", fast, slow) if fast and slow else None
        if factor:
            off = factor.median / self.guess["factor"]
            chance = max(math.expm1(factor.margin()), 0.1)
            word = (
                f"right within {100 * chance:.0f} %"
                if 1 / (1 + chance) < off < 1 + chance
                else f"wrong by a factor of {max(off, 1 / off):.2f}"
            )
            word = "too noisy to tell" if factor.order() is None else word
            lines.append(
                {"question": QUESTIONS["factor"].text, "guess": float(self.guess["factor"]), "measured": factor, "verdict": word}
            )
        return Grid(
            lines, {"question": "question", "guess": f"guess ({self.guessed_by})", "measured": "measured here", "verdict": ""}
        )

    def judged(self, ran: Ran, figure: str, best: str, guess: str) -> str:
        """Was the guess for the best row by a figure right? It is only if that row is distinguishable from all others."""
        others = [row.name for row in ran.plan.runnable if row.name != best and ran.value(figure, row.name)]
        asked = {name: ran.points(best, name) if figure == "best_acc_pct" else ran.ratio(figure, best, name) for name in others}
        if guess != best:
            asked = {guess: asked.get(guess)}
        orders = [found.order() for found in asked.values() if found is not None]
        if None in orders:
            return "too noisy to tell"
        if 0 in orders:
            return "indistinguishable"
        return "right" if guess == best else "wrong"

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


def as_published(group: params.Group, planned: Plan) -> dict[str, Any]:
    """The guesses that agree with the published table: its best rows, by the names of the rows that run here.

    Keys: those of QUESTIONS."""
    published, runnable = params.published_by_name(), {row.name for row in planned.runnable}
    known = {name: published[name] for name in group.rows if name in published and planned.name_here(name) in runnable}
    if not known:  # no published row runs here: guess the first row, and no difference
        first = next((row.name for row in planned.runnable), "")
        return dict.fromkeys(ROW_QUESTIONS, first) | {"factor": 1.0}
    guess: dict[str, Any] = {}
    for key, question in ROW_QUESTIONS.items():
        metric = METRIC[question.metric]
        best = metric.pick_best({name: figures[metric.published] for name, figures in known.items()})
        guess[key] = planned.name_here(str(best))
    rates = [figures["avg_throughput_img_s"] for figures in known.values()]
    return guess | {"factor": round(max(rates) / min(rates), 2)}
