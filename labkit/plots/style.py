"""How all pictures look: one style, one colour and marker for each strategy, where names go, what a caption must say.

The colours also differ in grey, and nothing is told by colour alone.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from labkit.rows.kinds import KINDS
from labkit.rows.params import chinese_letters
from labkit.runs.result import Result, Results
from labkit.system.fonts import font_with

Box = Sequence[float]  # left, bottom, right, top
Repeats = list[Result]  # of one row
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "svg.hashsalt": "labkit",  # with no date in it either, the same figures give the same bytes
    "savefig.dpi": 110,
}
DASHES, MARKERS, HATCHES = (
    ("-", "--", "-.", ":"),
    "os^DvPX*",
    ("", "//", "..", "xx"),
)  # rows of one strategy, told apart in grey too
WORK = {  # what a rank does in a step: colour, hatch
    "data": ("#d9d9d9", ".."),
    "forward": ("#a6cde8", ""),
    "backward": ("#2f6ea5", ""),
    "exchange": ("#f0a34a", "//"),
    "update": ("#a9d3a1", "xx"),
    "waiting": ("#ffffff", ""),
}
AROUND = [(1, 0), (-1, 0), (0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7), (0, 1), (0, -1)]
LEADER = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 5}


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Draw in our style, whatever the user's own says."""

    @functools.wraps(draw)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with matplotlib.style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return wrapped


def strategy(repeats: Repeats) -> str:
    return repeats[0].spec.strategy


def look(repeats: Repeats) -> tuple[str, str]:
    """The colour and the marker of a row."""
    kind = repeats[0].spec.kind
    return kind.colour, kind.marker


def in_order(strategies: Iterable[str]) -> list[str]:
    there = set(strategies)
    return [name for name in KINDS if name in there] + sorted(there - KINDS.keys())


def apart(rows: Results) -> dict[str, dict[str, Any]]:
    """For each row a colour, hatch, marker and dash: the colour is the strategy's, and what shares it is told apart by the rest."""
    looks, used = {}, dict.fromkeys(map(strategy, rows.values()), 0)
    for name, repeats in rows.items():
        i, (colour, marker) = used[strategy(repeats)], look(repeats)
        used[strategy(repeats)] += 1
        of_many = sum(strategy(other) == strategy(repeats) for other in rows.values()) > 1
        looks[name] = {
            "colour": lighter(colour, (0.0, 0.3, 0.5, 0.15)[i % 4]),
            "hatch": HATCHES[i % len(HATCHES)],
            "marker": MARKERS[i % len(MARKERS)] if of_many else marker,
            "dash": DASHES[i % len(DASHES)],
        }
    return looks


def chinese_font() -> str:
    """The name of a font that has the Chinese titles' characters; "" if there is none."""
    return font_with(chinese_letters())


def ink(colour: Any) -> str:
    """Black or white, whichever reads better on a colour."""
    red, green, blue = to_rgb(colour)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"


def family() -> list[str]:
    """For a text that may hold Chinese: matplotlib takes each character from the first font that has it."""
    return ["DejaVu Sans", *filter(None, [chinese_font()])]


def bilingual(number: int, title_en: str, title_zh: str) -> str:
    """A group's heading in both languages, or in English where no font can draw the Chinese one."""
    return f"{number} · {title_en}" + (f" · {title_zh}" if chinese_font() else "")


def two_lines(name: str, longest: int = 20) -> str:
    """A row's name, broken before its settings, or near its middle, if it is long."""
    settings = [at for at in (name.find(word, 1) for word in ("_cache", "_amp", "+", " (")) if at > 0]
    cuts = settings or [i for i, letter in enumerate(name) if letter == "_" and i]
    if len(name) <= longest or not cuts:
        return name
    cut = min(settings) if settings else min(cuts, key=lambda i: abs(i - len(name) / 2))
    return f"{name[:cut]}\n{name[cut:]}"


def lighter(colour: str, white: float) -> tuple[float, ...]:
    return tuple(part + (1 - part) * white for part in to_rgb(colour))


def median(repeats: Repeats, key: str) -> float:
    """The median of a metric over the repeats of a row."""
    return statistics.median(getattr(result, key) for result in repeats)


def where(results: Results, figures: str) -> str:
    """What a caption says of the origin: data, scale, machine, and what `figures` are shown of the repeats."""
    every = [result for repeats in results.values() for result in repeats]
    data = dict.fromkeys(f"{r.spec.dataset} at width {r.spec.width}" for r in every)
    cuda = [" + ".join(dict.fromkeys(r.machine.cuda)) for r in every]
    machines = dict.fromkeys(name or f"{r.machine.cores} CPU cores" for name, r in zip(cuda, every, strict=True))
    repeats = max(len(one) for one in results.values())
    runs = f"{figures} of {repeats} runs" if repeats > 1 else "one run of each row"
    return f"{' / '.join(data)}, {' / '.join(machines)}; {runs}"


def legend(axes: Any, results: Results, marker: str = "", **place: Any) -> None:
    """Name the strategies that are there, each with its colour and its marker (or `marker`)."""
    looks = {strategy(repeats): look(repeats) for repeats in results.values()}
    handles = []
    for name in in_order(looks):
        colour, own = looks[name]
        spot = Line2D([], [], color=colour, marker=marker or own, linestyle="", markersize=9)
        spot.set_label(name.replace("_", " "))
        handles.append(spot)
    axes.legend(handles=handles, frameon=False, **place)


def log_ticks(axis: Axis, values: list[float]) -> None:
    """Plain numbers along a logarithmic axis, enough of them also where the values are close together."""
    close = max(values, default=1) < 8 * min(values, default=1)
    axis.set_major_locator(MaxNLocator(5) if close else LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,.4g}")
    axis.set_minor_locator(NullLocator())


def name_points(figure: Figure, axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Write each point's name at the nearest of some places around it that is still free."""
    if not points:
        return
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # fixes the layout, so that places can be measured
    renderer, px = canvas.get_renderer(), figure.dpi / 72  # pixels in a point
    centres = axes.transData.transform(list(points.values()))
    taken = [(x - 6 * px, y - 6 * px, x + 6 * px, y + 6 * px) for x, y in centres.tolist()]
    frame = [float(edge) for edge in axes.get_window_extent(renderer).extents]
    for (name, point), (x, y) in zip(points.items(), centres.tolist(), strict=True):
        text = label(axes, name, point, (1, 1))
        wide, high = map(float, text.get_window_extent(renderer).size)
        text.remove()
        tried = []
        for distance in (9, 18, 30, 44, 60, 80, 105):
            for right, up in AROUND:
                left = x + right * distance * px - wide * (0.0 if right > 0 else 1.0 if right < 0 else 0.5)
                bottom = y + up * distance * px - high * (0.0 if up > 0 else 1.0 if up < 0 else 0.5)
                box = (left, bottom, left + wide, bottom + high)
                hidden = sum(overlap(box, other) for other in taken) + 3 * (wide * high - overlap(box, frame))
                on_line = [distance * part * px for part in (0.5, 0.7, 0.9) if distance * part > 9]
                leader = [(x + right * far, y + up * far) for far in on_line]
                crossed = sum(a <= right_of <= c and b <= above <= d for a, b, c, d in taken for right_of, above in leader)
                tried.append((hidden + 300 * crossed + distance, len(tried), (right * distance, up * distance), box))
        _, _, offset, box = min(tried)
        taken.append(box)
        label(axes, name, point, offset, arrowprops=LEADER if math.hypot(*offset) > 15 else None)


def label(axes: Axes, name: str, point: tuple[float, float], offset: tuple[float, float], **more: Any) -> Annotation:
    right, up = offset
    more |= {"ha": "left" if right > 0 else "right" if right < 0 else "center"}
    more |= {"va": "bottom" if up > 0 else "top" if up < 0 else "center"}
    return axes.annotate(name, point, offset, textcoords="offset points", fontsize=10, in_layout=False, **more)


def overlap(one: Box, two: Box) -> float:
    """The area that two boxes share. In plain numbers: matplotlib's own takes 100 times as long, and we ask thousands of times."""
    wide, high = min(one[2], two[2]) - max(one[0], two[0]), min(one[3], two[3]) - max(one[1], two[1])
    return wide * high if wide > 0 and high > 0 else 0.0
