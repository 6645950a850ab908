"""How all figures look: one style, one colour and marker for each strategy, names at points, and the text about the origin of the
data.

Rows also differ in grey (see `colours`), and no information is shown by colour alone.
"""

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from labkit.plots.colours import row_colours
from labkit.rows.kinds import KINDS
from labkit.rows.params import chinese_letters
from labkit.runs.result import Result, Results
from labkit.system.fonts import font_with

Box = Sequence[float]  # left, bottom, right, top
Repeats = list[Result]  # of one row
HALO = [withStroke(linewidth=3, foreground="white")]
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that the picture is the same everywhere
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "svg.hashsalt": "labkit",  # so that the same figures give the same bytes
    "savefig.dpi": 110,
}
# Rows of one strategy differ by these, so that they can be distinguished without colours.
DASHES, MARKERS, HATCHES = ("-", "--", "-.", ":"), "os^DvPX*", ("", "//", "..", "xx")
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
    """A decorator: draw in the lab's style, not in the style that the user has set."""

    @functools.wraps(draw)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with matplotlib.style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return wrapped


def strategy(repeats: Repeats) -> str:
    """The strategy of a row."""
    return repeats[0].spec.strategy


def strategy_look(repeats: Repeats) -> tuple[str, str]:
    """The colour and the marker of a row's strategy."""
    kind = repeats[0].spec.kind
    return kind.colour, kind.marker


def in_fixed_order(strategies: Iterable[str]) -> list[str]:
    """Each of these strategies once: first those of KINDS, in its order, then the others by name."""
    names = set(strategies)
    return [name for name in KINDS if name in names] + sorted(names - KINDS.keys())


def row_looks(rows: Results) -> dict[str, dict[str, Any]]:
    """For each row a colour, hatch and marker.

    No two rows are equally light (see `row_colours`). Rows of one strategy differ in hue, hatch and marker, too."""
    looks, used = {}, dict.fromkeys(map(strategy, rows.values()), 0)
    colours = row_colours([strategy_look(repeats)[0] for repeats in rows.values()])
    for (name, repeats), colour in zip(rows.items(), colours, strict=True):
        i, marker = used[strategy(repeats)], strategy_look(repeats)[1]
        used[strategy(repeats)] += 1
        same_strategy = [other for other in rows.values() if strategy(other) == strategy(repeats)]
        looks[name] = {
            "colour": colour,
            "hatch": HATCHES[i % len(HATCHES)],
            "marker": MARKERS[i % len(MARKERS)] if len(same_strategy) > 1 else marker,
        }
    return looks


def chinese_font() -> str:
    """The name of an installed font that has all characters of the Chinese titles; "" if there is none."""
    return font_with(chinese_letters())


def font_family() -> list[str]:
    """The fonts for a text that may have Chinese characters. Matplotlib takes each character from the first font that has it."""
    return ["DejaVu Sans", *filter(None, [chinese_font()])]


def bilingual(number: int, title_en: str, title_zh: str) -> str:
    """The heading of a group in both languages, or only in English if no font has the Chinese characters."""
    if chinese_font():
        return f"{number} · {title_en} · {title_zh}"
    return f"{number} · {title_en}"


def two_lines(name: str, longest: int) -> str:
    """A row's name.

    If it has more than `longest` characters, it is broken into two lines: before its settings, or near its middle."""
    settings = [at for at in (name.find(word, 1) for word in ("_cache", "_amp", "+", " (")) if at > 0]
    cuts = settings or [i for i, letter in enumerate(name) if letter == "_" and i]
    if len(name) <= longest or not cuts:
        return name
    cut = min(settings) if settings else min(cuts, key=lambda i: abs(i - len(name) / 2))
    return f"{name[:cut]}\n{name[cut:]}"


def median(repeats: Repeats, key: str) -> float:
    """The median of a metric over the repeats of a row."""
    return statistics.median(getattr(result, key) for result in repeats)


def draw_range(axes: Axes, at: float, values: list[float], upright: bool = False, cap: float = 4, wide: float = 1.3) -> None:
    """Mark minimum, median and maximum of repeated runs on the bar at the position `at`; nothing for a single run."""
    if len(values) < 2:
        return
    middle = statistics.median(values)
    ends = [[middle - min(values)], [max(values) - middle]]
    if upright:
        axes.errorbar(at, middle, yerr=ends, color="black", capsize=cap, linewidth=wide, path_effects=HALO)
    else:
        axes.errorbar(middle, at, xerr=ends, color="black", capsize=cap, linewidth=wide, path_effects=HALO)


def origin_text(results: Results, figures: str) -> str:
    """The text about the origin of the data: data set, width, machine, and number of runs.

    `figures`: what is shown of them ("medians")."""
    every = [result for repeats in results.values() for result in repeats]
    data = dict.fromkeys(f"{r.spec.dataset} at width {r.spec.width}" for r in every)
    cuda = [" + ".join(dict.fromkeys(r.machine.cuda)) for r in every]
    machines = dict.fromkeys(name or f"{r.machine.cores} CPU cores" for name, r in zip(cuda, every, strict=True))
    repeats = max(len(one) for one in results.values())
    runs = f"{figures} of {repeats} runs" if repeats > 1 else "one run of each row"
    return f"{' / '.join(data)}, {' / '.join(machines)}; {runs}"


def legend(axes: Any, results: Results, marker: str = "", **place: Any) -> None:
    """Add a legend with the strategies of these results, each with its colour and its marker (or `marker`).

    `place`: see Axes.legend."""
    looks = {strategy(repeats): strategy_look(repeats) for repeats in results.values()}
    handles = []
    for name in in_fixed_order(looks):
        colour, own = looks[name]
        spot = Line2D([], [], color=colour, marker=marker or own, linestyle="", markersize=9)
        spot.set_label(name.replace("_", " "))
        handles.append(spot)
    axes.legend(handles=handles, frameon=False, **place)


def log_ticks(axis: Axis, values: list[float]) -> None:
    """Plain numbers at the ticks of a logarithmic axis; enough ticks also if the values are close together."""
    close = max(values, default=1) < 8 * min(values, default=1)
    axis.set_major_locator(MaxNLocator(5) if close else LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,.4g}")
    axis.set_minor_locator(NullLocator())


def name_points(figure: Figure, axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Write the name of each point next to it, at the position nearby that hides least of the other points and names."""
    if not points:
        return
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # fixes the layout, so that places can be measured
    renderer, px = canvas.get_renderer(), figure.dpi / 72  # pixels in a point
    centres = axes.transData.transform(list(points.values()))
    taken = [(x - 6 * px, y - 6 * px, x + 6 * px, y + 6 * px) for x, y in centres.tolist()]
    frame = [float(edge) for edge in axes.get_window_extent(renderer).extents]
    for (name, point), (x, y) in zip(points.items(), centres.tolist(), strict=True):
        text = place_name(axes, name, point, (1, 1))
        wide, high = map(float, text.get_window_extent(renderer).size)
        text.remove()
        tried = []
        for distance in (9, 18, 30, 44, 60, 80, 105):
            for right, up in AROUND:
                left = x + right * distance * px - wide * anchor(right)
                bottom = y + up * distance * px - high * anchor(up)
                box = (left, bottom, left + wide, bottom + high)
                hidden = sum(overlap(box, other) for other in taken) + 3 * (wide * high - overlap(box, frame))
                on_line = [distance * part * px for part in (0.5, 0.7, 0.9) if distance * part > 9]
                leader = [(x + right * far, y + up * far) for far in on_line]
                hits = [1 for a, b, c, d in taken for leader_x, leader_y in leader if a <= leader_x <= c and b <= leader_y <= d]
                tried.append((hidden + 300 * len(hits) + distance, len(tried), (right * distance, up * distance), box))
        _, _, offset, box = min(tried)
        taken.append(box)
        place_name(axes, name, point, offset, arrowprops=LEADER if math.hypot(*offset) > 15 else None)


def place_name(axes: Axes, name: str, point: tuple[float, float], offset: tuple[float, float], **more: Any) -> Annotation:
    """Write a name at an offset (right, up), in points of 1/72 inch, from a point; the text begins at the side next to the point."""
    right, up = offset
    more["ha"] = {0.0: "left", 0.5: "center", 1.0: "right"}[anchor(right)]
    more["va"] = {0.0: "bottom", 0.5: "center", 1.0: "top"}[anchor(up)]
    return axes.annotate(name, point, offset, textcoords="offset points", fontsize=10, in_layout=False, **more)


def anchor(direction: float) -> float:
    """The part of a box before its anchor: 0 if the box extends in the positive direction, 1 in the negative, 0.5 if it is
    centred."""
    if direction > 0:
        return 0.0
    return 1.0 if direction < 0 else 0.5


def overlap(one: Box, two: Box) -> float:
    """The area that two boxes share.

    Own code, because matplotlib's takes 100 times as long, and `name_points` asks thousands of times."""
    wide, high = min(one[2], two[2]) - max(one[0], two[0]), min(one[3], two[3]) - max(one[1], two[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def line_widths(rows: int) -> list[float]:
    """Line widths, in points, of curves that are drawn one over the other: the first is the widest, so that it is seen below a later
    one that has the same values."""
    step = min(1.1, 3 / rows)
    return [1.6 + step * (rows - 1 - at) for at in range(rows)]
