"""The live view of a run in a notebook: what every rank does now, and at the end one picture of all runs.

There is one output. The thread that runs replaces it at most four times a second, so that only the last one is saved. It is HTML
with SVG, and it also has a plain text.
"""

import html
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from labkit.notebook.cells import Html, panel, yellow
from labkit.results.table import time_parts
from labkit.runs.result import Result, Results
from labkit.runs.rounds import Rounds
from labkit.system.machine import Watch, busy, this_machine

UPDATE_S = 0.25
WINDOW_S = 3.0  # the live view shows the images/s of the last seconds
PHASES = {
    "start": "starting",
    "setup": "loading data",
    "data": "waiting for data",
    "step": "training",
    "evaluate": "evaluating",
    "end": "done",
}
PARTS = (("startup_s", "start-up", "#c9c9c9"), ("train_s", "training", ""), ("eval_s", "evaluation", "#f3d9a4"))
WIDTH = 860
LOOK_AGAIN_S = 1.0  # between two looks at what other programs take
OTHERS = (
    "Other programs take up to {:.1f} cores that these rows need. Close them and run again with fresh = True: speeds measured now are too noisy to tell "
    "anything (噪声过大，无法判断)."
)


@dataclass
class RankProgress:
    """What is known of one rank. `event`: its last event. `seen`: (time in seconds, images so far) of the last seconds."""

    event: dict[str, Any] = field(default_factory=dict)
    seen: deque = field(default_factory=lambda: deque(maxlen=64))

    def update(self, event: dict[str, Any], images: float) -> None:
        """Take the latest event of the rank. `images`: the number that it has trained so far in this run."""
        self.event = event
        if not self.seen or event["t"] > self.seen[-1][0]:
            self.seen.append((event["t"], images))
        while len(self.seen) > 2 and self.seen[-1][0] - self.seen[0][0] > WINDOW_S:
            self.seen.popleft()

    def images_per_s(self) -> float | None:
        """Images/s in the last seconds; None if that is not known yet."""
        if len(self.seen) < 2 or self.seen[-1][0] == self.seen[0][0]:
            return None
        return (self.seen[-1][1] - self.seen[0][1]) / (self.seen[-1][0] - self.seen[0][0])


class Live:
    """The live view; pass it to `labkit.run` as `on_progress`.

    `expected_s`: {row name: seconds that the row took last time}. `show(html)`: shows the view; default: the output of the cell.
    """

    def __init__(
        self,
        title: str,
        rows: Iterable[Any],
        repeats: int = 1,
        expected_s: dict[str, float] | None = None,
        show: Callable[[Html], None] | None = None,
    ):
        self.show = show or self.display
        self.title, self.rows, self.repeats, self.expected_s = title, list(rows), repeats, expected_s or {}
        self.called_at, self.began, self.shown_at, self.handle = time.time(), time.monotonic(), 0.0, None
        self.key: tuple[str, int] | None = None
        self.ranks: list[RankProgress] = []
        self.losses: list[tuple[float, float]] = []  # (epochs, loss) of this run
        self.row_began = self.began
        self.watch, self.others = Watch(), ""  # what other programs take

    def __call__(self, row: Any, repeat: int, events: list[dict[str, Any]]) -> None:
        """Take the latest event of each rank, and show the view if the last update was at least UPDATE_S ago."""
        now = time.monotonic()
        if (row.name, repeat) != self.key:
            self.key, self.row, self.row_began, self.losses = (row.name, repeat), row, now, []
            self.ranks = [RankProgress() for _ in events]
        steps = row.spec.steps_per_epoch
        for rank, event in zip(self.ranks, events, strict=True):
            rank.update(event, (event["epoch"] * steps + event["step"]) * row.spec.images_per_step)
        loss = next((event["loss"] for event in events if event["loss"] is not None), None)
        at = max(event["epoch"] + event["step"] / steps for event in events)
        if loss is not None and (not self.losses or at > self.losses[-1][0]):
            self.losses.append((at, loss))
        if now - self.watch.began >= LOOK_AGAIN_S:
            taken, needed = self.watch.taken().cores, row.spec.processes * max(1, row.spec.threads_per_rank)
            self.others = OTHERS.format(taken) if busy(taken, needed, this_machine().cores) else ""
            self.watch = Watch()
        if now - self.shown_at >= UPDATE_S:
            self.shown_at = now
            self.show(self.now())

    def turn(self, name: str, number: int) -> None:
        """The speed of a row is measured now, in this round (1, 2, ...)."""
        times = f"{time.monotonic() - self.began:.0f} s so far"
        head = f"{self.title}: measuring speeds in turn, round {number}, {name}"
        self.show(Html(panel(head, times, []), f"{head} ({times})"))

    def display(self, view: Html) -> None:
        """Show the view as the output of the cell, in place of the last one. Does nothing outside IPython."""
        from IPython.core.getipython import get_ipython  # late: keeps IPython out of a process that does not need it
        from IPython.display import display  # late: keeps IPython out of a process that does not need it

        if get_ipython() is None:  # a plain script has no output that could be replaced
            return
        if self.handle is None:
            self.handle = display(view._repr_mimebundle_(), raw=True, display_id=True)
        else:
            self.handle.update(view._repr_mimebundle_(), raw=True)

    def fraction(self) -> float:
        """The part of the present run that is done, 0 to 1, by the rank that is furthest."""
        return max(self.fraction_of(rank) for rank in self.ranks)

    def remaining_s(self) -> float | None:
        """Seconds until all rows are done, estimated from their times last time, else from the speed of this run; None if not known yet."""
        took, fraction = time.monotonic() - self.row_began, self.fraction()
        whole = self.expected_s.get(self.row.name) or (took / fraction if fraction > 0.05 else None)
        if whole is None:
            return None
        runs = [(row.name, repeat) for repeat in range(1, self.repeats + 1) for row in self.rows if row.spec]
        left = runs[runs.index(self.key) + 1 :] if self.key in runs else []
        return max(0.0, whole - took) + sum(self.expected_s.get(name, whole) for name, _ in left)

    def now(self) -> Html:
        """The view of the present run: its position, the time to go, a bar for each rank, and the loss so far."""
        name, repeat = self.key or ("", 1)
        runs = [row for row in self.rows if row.spec]
        position = (repeat - 1) * len(runs) + next((i for i, row in enumerate(runs) if row.name == name), 0) + 1
        left = self.remaining_s()
        to_go = "time to go not known yet" if left is None else f"about {left:.0f} s to go"
        times = f"{time.monotonic() - self.began:.0f} s so far, {to_go}"
        head = f"{self.title}: run {position} of {len(runs) * self.repeats}, {name}"
        if self.repeats > 1:
            head += f", repeat {repeat}"
        lines = [rank_line(i, rank, self.row.spec) for i, rank in enumerate(self.ranks)]
        colour = self.row.spec.kind.colour
        parts = [progress_bar(self.fraction_of(rank), line, colour) for rank, line in zip(self.ranks, lines, strict=True)]
        parts.append(loss_curve(self.losses, self.row.spec.epochs, colour))
        parts.append(yellow(self.others))
        return Html(panel(head, times, parts), "\n".join([f"{head} ({times})", *lines, *filter(None, [self.others])]))

    def fraction_of(self, rank: RankProgress) -> float:
        """The part of the present run that a rank has done, 0 to 1."""
        spec = self.row.spec
        return min(1.0, (rank.event["epoch"] + rank.event["step"] / spec.steps_per_epoch) / spec.epochs)

    def end(self, lines: list[dict[str, Any]], results: Results, word: str = "", rounds: Rounds | None = None) -> None:
        """Replace the live view by the final picture. `lines`: the table lines of the rows; `word`: why it ended early, or ""."""
        taken = [run.others_cores for repeats in results.values() for run in repeats if run.busy]
        if rounds and rounds.busy:
            taken += [cores for turn in rounds.others_cores for cores in turn.values()]
        told = OTHERS.format(max(taken)) if taken else ""
        seconds = time.monotonic() - self.began
        self.show(final_view(self.title, lines, results, self.called_at, seconds, word, told))


def rank_line(index: int, rank: RankProgress, spec: Any) -> str:
    """One line of text about a rank: phase, epoch and step, images/s, loss."""
    event, rate = rank.event, rank.images_per_s()
    part = "server" if spec.is_server(index) else f"rank {index}"
    where = f"epoch {min(event['epoch'] + 1, spec.epochs)} of {spec.epochs}, step {event['step'] + 1} of {spec.steps_per_epoch}"
    words = [f"{part}: {PHASES.get(event['phase'], event['phase'])}", where]
    if rate and part != "server" and event["phase"] in ("step", "data"):
        words.append(f"{rate:,.0f} images/s")
    if event["loss"] is not None:
        words.append(f"loss {event['loss']:.3f}")
    return ", ".join(words)


def progress_bar(fraction: float, line: str, colour: str) -> str:
    """HTML: a bar that is filled to `fraction`, and a line of text below it."""
    return (
        f'<div style="margin:3px 0"><div style="background:#e8e8e8;height:8px;border-radius:4px;max-width:{WIDTH}px">'
        f'<div style="background:{colour};height:8px;border-radius:4px;width:{100 * fraction:.1f}%"></div></div>'
        f'<div style="font-variant-numeric:tabular-nums">{html.escape(line)}</div></div>'
    )


def loss_curve(losses: list[tuple[float, float]], epochs: int, colour: str) -> str:
    """A small SVG of the loss over the epochs, from (epochs so far, loss); "" with fewer than two points."""
    if len(losses) < 2:
        return ""
    high = max(loss for _, loss in losses) or 1.0
    points = " ".join(f"{40 + 500 * at / epochs:.1f},{64 - 54 * loss / high:.1f}" for at, loss in losses)
    return (
        f'<svg width="600" height="80" role="img" aria-label="loss over epochs" font-size="11" fill="currentColor">'
        f'<line x1="40" y1="64" x2="540" y2="64" stroke="#999"/><text x="36" y="14" text-anchor="end">{high:.2f}</text>'
        f'<text x="36" y="66" text-anchor="end">0</text><text x="545" y="68">epoch {epochs}</text>'
        f'<text x="40" y="78">loss of this run</text>'
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/></svg>'
    )


def final_view(
    title: str, lines: list[dict[str, Any]], results: Results, called_at: float, seconds: float, word: str, warning: str = ""
) -> Html:
    """All runs as bars (see `run_bars`), and below them the rows without a result. `called_at`: Unix seconds of the call,
    which took `seconds`.

    Kept results of an earlier call are paler, and their times are those of the earlier call."""
    runs = []
    for line in lines:
        repeats = results.get(line["name"], [])
        for result in repeats:
            name = f"{line['name']} ({result.repeat})" if len(repeats) > 1 else line["name"]
            figures = f"{result.images_per_s:,.0f} images/s, {result.best_acc_pct:.1f} %, {result.total_time_s:.1f} s"
            runs.append((name, figures, result, result.started_at < called_at))
    texts = [f"{name}: {figures}{', kept from an earlier run' if kept else ''}" for name, figures, _, kept in runs]
    others = [f"{line['name']}: {line['reason'] or line['status']}" for line in lines if line["status"] != "ok"]
    head = f"{title}: {word or 'done'}"
    took = f"{seconds:.0f} s"
    below = "".join(f"<div>{html.escape(other)}</div>" for other in others)
    parts = [yellow(warning), run_bars(runs, head) if runs else "", below]
    return Html(panel(head, took, parts), "\n".join([f"{head} ({took})", *filter(None, [warning]), *texts, *others]))


def run_bars(runs: list[tuple[str, str, Result, bool]], label: str) -> str:
    """An SVG with a bar for each run (name, figures, result, kept), divided into start-up, training and evaluation."""
    scale = 420 / max(result.total_time_s for _, _, result, _ in runs)
    y, shapes = 8, []
    for name, figures, result, kept in runs:
        x, colour, opacity = 330.0, result.spec.kind.colour, 0.45 if kept else 1
        parts = time_parts(result)
        for key, _, grey in PARTS:
            width = parts[key] * scale
            place = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="14"'
            shapes.append(f'<rect {place} fill="{grey or colour}" opacity="{opacity}"/>')
            x += width
        narrow = ' textLength="316" lengthAdjust="spacingAndGlyphs"' if len(name) > 44 else ""  # a long name must fit, too
        shapes.append(f'<text x="322" y="{y + 12}" text-anchor="end"{narrow}>{html.escape(name)}</text>')
        x = 330 + result.total_time_s * scale + 8
        shapes.append(f'<text x="{x:.1f}" y="{y + 12}">{figures}{", kept" if kept else ""}</text>')
        y += 20
    key = "".join(f'<tspan fill="{grey or "currentColor"}">■</tspan> {name}  ' for _, name, grey in PARTS)
    shapes.append(f'<text x="330" y="{y + 12}">{key}</text>')
    size = f'width="100%" viewBox="0 0 1000 {y + 20}" style="max-width:1000px" font-size="12" fill="currentColor"'
    return f'<svg {size} role="img" aria-label="{html.escape(label)}">{"".join(shapes)}</svg>'
