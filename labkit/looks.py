"""How all pictures look: one style, one colour and marker for each strategy, where names go, what a caption must say.

The colours also differ in grey, and nothing is told by colour alone.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterable
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
from matplotlib.transforms import Bbox

Results = dict[str, list[dict[str, Any]]]
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
STRATEGIES = {  # colour, marker
    "single": ("#262626", "o"),
    "ddp": ("#1f5fa8", "s"),
    "data_parallel": ("#8a3ffc", "D"),
    "model_parallel": ("#c1440e", "^"),
    "fsdp": ("#5fb3e6", "P"),
    "collective": ("#2f8f5b", "v"),
    "parameter_server": ("#e3a600", "X"),
}
ANOTHER = ("#8c8c8c", "h")
AROUND = [(1, 0), (-1, 0), (0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7), (0, 1), (0, -1)]
LEADER = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 5}


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Draw in our style, whatever the user's own says."""

    @functools.wraps(draw)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with matplotlib.style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return wrapped


def strategy(repeats: list[dict[str, Any]]) -> str:
    return repeats[0]["spec"]["strategy"]


def look(repeats: list[dict[str, Any]]) -> tuple[str, str]:
    """The colour and the marker of a row."""
    return STRATEGIES.get(strategy(repeats), ANOTHER)


def in_order(strategies: Iterable[str]) -> list[str]:
    there = set(strategies)
    return [name for name in STRATEGIES if name in there] + sorted(there - STRATEGIES.keys())


def lighter(colour: str, white: float) -> tuple[float, ...]:
    return tuple(part + (1 - part) * white for part in to_rgb(colour))


def middle(repeats: list[dict[str, Any]], key: str) -> float:
    return statistics.median(result[key] for result in repeats)


def where(results: Results, figures: str) -> str:
    """What a caption says of the origin: data, scale, machine, and what `figures` are shown of the repeats."""
    every = [result for repeats in results.values() for result in repeats]
    data = dict.fromkeys(f"{r['spec']['dataset']} at width {r['spec']['width']}" for r in every)
    cuda = [" + ".join(dict.fromkeys(r["machine"]["cuda"])) for r in every]
    machines = dict.fromkeys(name or f"{r['machine']['cores']} CPU cores" for name, r in zip(cuda, every, strict=True))
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
    taken = [Bbox.from_bounds(x - 6 * px, y - 6 * px, 12 * px, 12 * px) for x, y in centres]
    frame = axes.get_window_extent(renderer)
    for (name, point), (x, y) in zip(points.items(), centres, strict=True):
        tried = []
        for distance in (9, 18, 30, 44, 60):
            for right, up in AROUND:
                text = label(axes, name, point, (right * distance, up * distance))
                box = text.get_window_extent(renderer)
                text.remove()
                hidden = sum(overlap(box, other) for other in taken) + 3 * (box.width * box.height - overlap(box, frame))
                on_line = [distance * part * px for part in (0.5, 0.7, 0.9) if distance * part > 9]
                leader = [(x + right * far, y + up * far) for far in on_line]
                crossed = sum(other.contains(*spot) for other in taken for spot in leader)
                tried.append((hidden + 300 * crossed + distance, len(tried), (right * distance, up * distance), box))
        _, _, offset, box = min(tried)
        taken.append(box)
        label(axes, name, point, offset, arrowprops=LEADER if math.hypot(*offset) > 15 else None)


def label(axes: Axes, name: str, point: tuple[float, float], offset: tuple[float, float], **more: Any) -> Annotation:
    right, up = offset
    more |= {"ha": "left" if right > 0 else "right" if right < 0 else "center"}
    more |= {"va": "bottom" if up > 0 else "top" if up < 0 else "center"}
    return axes.annotate(name, point, offset, textcoords="offset points", fontsize=9, in_layout=False, **more)


def overlap(one: Bbox, two: Bbox) -> float:
    both = Bbox.intersection(one, two)
    return both.width * both.height if both else 0.0
