"""A sheet with boxes, arrows and texts, which all drawings use. Positions are in inches from the lower left corner."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.patheffects import withStroke

from labkit.plots.colours import ink
from labkit.plots.style import WORK, styled

DRAWINGS: dict[str, Callable[[], Figure]] = {}
GREY, LINE, MESSAGE = "#555555", "#333333", "#b5530a"


def drawn(draw: Callable[[], Figure]) -> Callable[[], Figure]:
    """Register a function as a drawing under its name. The first paragraph of its docstring is the text for readers who cannot see
    the drawing."""
    DRAWINGS[draw.__name__] = styled(draw)
    return DRAWINGS[draw.__name__]


class Sheet:
    """A figure of `wide` x `high` inches with a heading, and a smaller line below it. No text is smaller than 10 points on a sheet
    of 12 inches."""

    def __init__(self, wide: float, high: float, heading: str, below: str = ""):
        self.figure = Figure(figsize=(wide, high))
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, wide), ylim=(0, high))
        self.axes.set_axis_off()
        self.wide, self.high = wide, high
        self.text(0.2, high - 0.3, heading, size=15, ha="left", weight="bold")
        if below:
            self.text(0.2, high - 0.62, below, size=11, ha="left", color=GREY)

    def text(self, x: float, y: float, words: str, size: float = 11, ha: str = "center", halo: Any = None, **more: Any) -> None:
        """Words at (x, y), their vertical centre. `size`: in points. `halo`: a colour drawn around the letters."""
        vertical = "center" if "\n" in words else "center_baseline"  # single lines beside each other get the same baseline
        look: dict[str, Any] = {"va": vertical, "color": "black", "linespacing": 1.25} | more
        if halo is not None:
            look["path_effects"] = [withStroke(linewidth=4, foreground=halo)]
        self.axes.text(x, y, words, fontsize=max(size, 10 * self.wide / 12), ha=ha, **look)

    def box(
        self, x: float, y: float, wide: float, high: float, words: str = "", fill: Any = "white", hatch: str = "", **more: Any
    ) -> None:
        """A box with its lower left corner at (x, y), and words in its centre. `more`: edge (a colour), line (its width in points),
        style (of the edge), size and weight (of the words)."""
        look = {"edgecolor": more.get("edge", LINE), "linewidth": more.get("line", 1.0), "linestyle": more.get("style", "-")}
        self.axes.add_patch(Rectangle((x, y), wide, high, facecolor=fill, hatch=hatch, **look))
        if words:
            halo = fill if hatch else None
            self.text(
                x + wide / 2,
                y + high / 2,
                words,
                more.get("size", 11),
                halo=halo,
                color=ink(fill),
                weight=more.get("weight", "normal"),
            )

    def work(self, kind: str, x: float, y: float, wide: float, high: float, words: str = "", **more: Any) -> None:
        """A box in the colour and hatch of a kind of work, a key of plots.style.WORK."""
        colour, hatch = WORK[kind]
        style = {"style": (0, (3, 2)), "edge": "#888888"} if kind == "waiting" else {}
        self.box(x, y, wide, high, words, colour, hatch, **style, **more)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str = LINE, **more: Any) -> None:
        """An arrow from `start` to `end`; `more`: settings of matplotlib's FancyArrowPatch."""
        look: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 13, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0} | more
        self.axes.add_patch(FancyArrowPatch(start, end, color=colour, **look))

    def line(self, xs: list[float], ys: list[float], colour: str = LINE, **more: Any) -> None:
        """A line through these points."""
        self.axes.plot(xs, ys, color=colour, **({"linewidth": 1.0} | more))

    def key(self, x: float, y: float, kinds: dict[str, str], step: float = 1.7) -> None:
        """A legend, in a line from (x, y): the colour and hatch of each kind of work, from {kind: words}."""
        for kind, words in kinds.items():
            self.work(kind, x, y - 0.1, 0.34, 0.2)
            self.text(x + 0.42, y, words, 10.5, ha="left")
            x += step
