"""Watching a run in a notebook: what every rank does right now, and at the end one picture of what ran when.

One display that is replaced at most four times a second from the thread that runs, so that exactly one output is saved:
the last. Everything is HTML with SVG in it, and has a plain-text twin.
"""

from __future__ import annotations

import html
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from labkit.notebook.cells import Html
from labkit.results.table import time_parts
from labkit.runs.result import Results

UPDATE_S = 0.25
WINDOW_S = 3.0  # the live images/s are those of the last seconds
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


@dataclass
class Rank:
    """What is known of one rank: its last event, and (time, images so far) of the last seconds."""

    event: dict[str, Any] = field(default_factory=dict)
    seen: deque = field(default_factory=lambda: deque(maxlen=64))

    def hear(self, event: dict[str, Any], images: float) -> None:
        self.event = event
        if not self.seen or event["t"] > self.seen[-1][0]:
            self.seen.append((event["t"], images))
        while len(self.seen) > 2 and self.seen[-1][0] - self.seen[0][0] > WINDOW_S:
            self.seen.popleft()

    def images_per_s(self) -> float | None:
        if len(self.seen) < 2 or self.seen[-1][0] == self.seen[0][0]:
            return None
        return (self.seen[-1][1] - self.seen[0][1]) / (self.seen[-1][0] - self.seen[0][0])


class Live:
    """Give it to `labkit.run` as `on_progress`. `expected_s`: seconds that a row took last time, by name, where known.
    `show(html)`: where to show it, if not as the cell's output."""

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
        self.ranks: list[Rank] = []
        self.losses: list[tuple[float, float]] = []  # (epochs, loss) of this run
        self.row_began = self.began
        self.done: dict[tuple[str, int], float] = {}  # seconds of the runs that are over

    def __call__(self, row: Any, repeat: int, events: list[dict[str, Any]]) -> None:
        now = time.monotonic()
        if (row.name, repeat) != self.key:
            if self.key:
                self.done[self.key] = now - self.row_began
            self.key, self.row, self.row_began, self.losses = (row.name, repeat), row, now, []
            self.ranks = [Rank() for _ in events]
        steps = steps_per_epoch(row.spec)
        for rank, event in zip(self.ranks, events, strict=True):
            rank.hear(event, (event["epoch"] * steps + event["step"]) * row.spec.images_per_step)
        loss = next((event["loss"] for event in events if event["loss"] is not None), None)
        at = max(event["epoch"] + event["step"] / steps for event in events)
        if loss is not None and (not self.losses or at > self.losses[-1][0]):
            self.losses.append((at, loss))
        if now - self.shown_at >= UPDATE_S:
            self.shown_at = now
            self.show(self.now())

    def display(self, what: Html) -> None:
        from IPython.core.getipython import get_ipython
        from IPython.display import display

        if get_ipython() is None:  # a plain script: nothing to replace an output in
            return
        if self.handle is None:
            self.handle = display(what._repr_mimebundle_(), raw=True, display_id=True)
        else:
            self.handle.update(what._repr_mimebundle_(), raw=True)

    def fraction(self) -> float:
        """How much of the present run is done, by its furthest rank."""
        spec = self.row.spec
        steps = steps_per_epoch(spec)
        return max(min(1.0, (r.event["epoch"] + r.event["step"] / steps) / spec.epochs) for r in self.ranks)

    def remaining_s(self) -> float | None:
        """Seconds until all rows are through: from last time's where known, else as fast as this run goes on."""
        took, fraction = time.monotonic() - self.row_began, self.fraction()
        whole = self.expected_s.get(self.row.name) or (took / fraction if fraction > 0.05 else None)
        if whole is None:
            return None
        runs = [(row.name, repeat) for repeat in range(1, self.repeats + 1) for row in self.rows if row.spec]
        left = runs[runs.index(self.key) + 1 :] if self.key in runs else []
        return max(0.0, whole - took) + sum(self.expected_s.get(name, whole) for name, _ in left)

    def now(self) -> Html:
        name, repeat = self.key or ("", 1)
        runs = [row for row in self.rows if row.spec]
        position = (repeat - 1) * len(runs) + next((i for i, row in enumerate(runs) if row.name == name), 0) + 1
        left = self.remaining_s()
        times = f"{time.monotonic() - self.began:.0f} s so far, " + (
            f"about {left:.0f} s to go" if left is not None else "time to go not known yet"
        )
        head = f"{self.title}: run {position} of {len(runs) * self.repeats}, {name}" + (
            f", repeat {repeat}" if self.repeats > 1 else ""
        )
        lines = [told(i, rank, self.row.spec) for i, rank in enumerate(self.ranks)]
        text = "\n".join([f"{head} ({times})", *lines])
        colour = self.row.spec.kind.colour
        return Html(
            panel(
                head,
                times,
                [
                    *map(bar_of, self.ranks, [self.fraction_of(r) for r in self.ranks], lines, [colour] * len(lines)),
                    curve(self.losses, self.row.spec.epochs, colour),
                ],
            ),
            text,
        )

    def fraction_of(self, rank: Rank) -> float:
        spec = self.row.spec
        return min(1.0, (rank.event["epoch"] + rank.event["step"] / steps_per_epoch(spec)) / spec.epochs)

    def end(self, lines: list[dict[str, Any]], results: Results, word: str = "") -> None:
        """Replace the live view by the picture that stays. `lines`: the summary's rows; `word`: what ended it early."""
        self.show(ended(self.title, lines, results, self.called_at, time.monotonic() - self.began, word))


def steps_per_epoch(spec: Any) -> int:
    from labkit.rows.catalog import DATASETS

    return max(1, (spec.train_samples or DATASETS[spec.dataset].train_images) // spec.images_per_step)


def told(index: int, rank: Rank, spec: Any) -> str:
    event, rate = rank.event, rank.images_per_s()
    part = "server" if spec.is_server(index) else f"rank {index}"
    where = f"epoch {min(event['epoch'] + 1, spec.epochs)} of {spec.epochs}, step {event['step'] + 1} of {steps_per_epoch(spec)}"
    speed = f"{rate:,.0f} images/s" if rate and part != "server" and event["phase"] in ("step", "data") else ""
    loss = f"loss {event['loss']:.3f}" if event["loss"] is not None else ""
    return ", ".join(word for word in (f"{part}: {PHASES.get(event['phase'], event['phase'])}", where, speed, loss) if word)


def bar_of(_rank: Rank, fraction: float, line: str, colour: str) -> str:
    return (
        f'<div style="margin:3px 0"><div style="background:#e8e8e8;height:8px;border-radius:4px;max-width:{WIDTH}px">'
        f'<div style="background:{colour};height:8px;border-radius:4px;width:{100 * fraction:.1f}%"></div></div>'
        f'<div style="font-variant-numeric:tabular-nums">{html.escape(line)}</div></div>'
    )


def panel(head: str, times: str, parts: list[str]) -> str:
    return (
        f'<div style="font-size:13px;line-height:1.4;color:inherit"><div><b>{html.escape(head)}</b> '
        f'<span style="opacity:.75">{html.escape(times)}</span></div>{"".join(parts)}</div>'
    )


def curve(losses: list[tuple[float, float]], epochs: int, colour: str) -> str:
    """The loss so far over the epochs, as a small SVG."""
    if len(losses) < 2:
        return ""
    high = max(loss for _, loss in losses) or 1.0
    points = " ".join(f"{40 + 500 * at / epochs:.1f},{64 - 54 * loss / high:.1f}" for at, loss in losses)
    return (
        f'<svg width="600" height="80" role="img" aria-label="loss over epochs" font-size="11" fill="currentColor">'
        f'<line x1="40" y1="64" x2="540" y2="64" stroke="#999"/><text x="36" y="14" text-anchor="end">{high:.2f}</text>'
        f'<text x="36" y="66" text-anchor="end">0</text><text x="545" y="68">epoch {epochs}</text><text x="40" y="78">loss of this run</text>'
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/></svg>'
    )


def ended(title: str, lines: list[dict[str, Any]], results: Results, called_at: float, seconds: float, word: str) -> Html:
    """What ran when: a bar for each run, from its call to its end, cut into start-up, training and evaluation.

    `called_at`: the date (seconds since 1970) of the call, which took `seconds`.

    Rows whose result was kept from an earlier call show the times of that one, paler.
    """
    runs = [(line, one) for line in lines for one in results.get(line["name"], [])]
    longest = max((one.total_time_s for _, one in runs), default=1.0)
    scale, y, shapes, texts = 420 / longest, 8, [], []
    for line, one in runs:
        kept = one.started_at < called_at
        x, colour = 330.0, one.spec.kind.colour
        parts = time_parts(one)
        for key, _, grey in PARTS:
            width = parts[key] * scale
            shapes.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="14" fill="{grey or colour}" opacity="{0.45 if kept else 1}"/>'
            )
            x += width
        which = f" ({one.repeat})" if len(results[line["name"]]) > 1 else ""
        name = line["name"] + which
        narrow = ' textLength="316" lengthAdjust="spacingAndGlyphs"' if len(name) > 44 else ""  # all of it, in the room there is
        shapes.append(f'<text x="322" y="{y + 12}" text-anchor="end"{narrow}>{html.escape(name)}</text>')
        figures = f"{one.images_per_s:,.0f} images/s, {one.best_acc_pct:.1f} %, {one.total_time_s:.1f} s"
        shapes.append(
            f'<text x="{330 + one.total_time_s * scale + 8:.1f}" y="{y + 12}">{figures}{", kept" if kept else ""}</text>'
        )
        texts.append(f"{line['name']}{which}: {figures}{', kept from an earlier run' if kept else ''}")
        y += 20
    others = [f"{line['name']}: {line['reason'] or line['status']}" for line in lines if line["status"] != "ok"]
    head = f"{title}: {word or 'done'}"
    key = "".join(f'<tspan fill="{grey or "currentColor"}">■</tspan> {name}  ' for _, name, grey in PARTS)
    svg = f'<svg width="100%" viewBox="0 0 1000 {y + 20}" style="max-width:1000px" font-size="12" fill="currentColor" role="img" aria-label="{html.escape(head)}">{"".join(shapes)}<text x="330" y="{y + 12}">{key}</text></svg>'
    below = "".join(f"<div>{html.escape(other)}</div>" for other in others)
    took = f"{seconds:.0f} s"
    return Html(panel(head, took, [svg if runs else "", below]), "\n".join([f"{head} ({took})", *texts, *others]))
