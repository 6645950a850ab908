"""Picture of what a message costs: `labkit.probes.wire` measures it."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from labkit.plots.style import styled
from labkit.probes.wire import WAYS, fit


def wire_figure(lines: list[dict[str, Any]]) -> Any:
    """Time over size, both logarithmic, a line per way named at its end; latency and bandwidth in the name."""
    looks = {"all_reduce": ("#1f5fa8", "s", "-"), "ring": ("#2f8f5b", "v", "--"), "copy": ("#262626", "o", ":")}

    def draw() -> Figure:
        figure = Figure(figsize=(12, 5.4), layout="constrained")
        axes, ends = figure.add_subplot(xscale="log", yscale="log"), []
        for way, words in WAYS.items():
            mine = sorted((line for line in lines if line["way"] == way), key=lambda line: line["bytes"])
            if not mine:
                continue
            colour, marker, dash = looks[way]
            xs, ys = [line["bytes"] for line in mine], [line["median_s"] * 1e6 for line in mine]
            spread = [
                [y - line["min_s"] * 1e6 for y, line in zip(ys, mine, strict=True)],
                [line["max_s"] * 1e6 - y for y, line in zip(ys, mine, strict=True)],
            ]
            axes.errorbar(
                xs, ys, yerr=spread, color=colour, marker=marker, linestyle=dash, capsize=3, linewidth=1.8, markersize=7
            )
            latency, bandwidth = fit(mine)
            told = f"{words.format(backend=mine[0]['backend'])}\n{latency * 1e6:,.0f} µs, then {bandwidth / 1e9:.2g} GB/s"
            ends.append((ys[-1], xs[-1], told, colour))
        axes.set_xlim(right=axes.get_xlim()[1] * 30)
        axes.set_xticks([4**k * 2**10 for k in range(9)])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: size(x)))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("size of the message")
        axes.minorticks_off()
        axes.set_ylabel("time (µs; median, least and most)")
        below = 0.0
        for y, x, told, colour in sorted(ends):  # names of two lines, which may end close together, are kept apart
            below = max(y, below * (axes.get_ylim()[1] / axes.get_ylim()[0]) ** 0.13)
            line = {"arrowstyle": "-", "color": colour, "linewidth": 0.8} if below > y else None
            axes.annotate(told, (x, y), (x * 1.5, below), va="center", fontsize=11, color=colour, arrowprops=line)
        axes.grid(color="#eeeeee")
        axes.set_title(f"What a message costs between {lines[0]['ranks']} ranks on this machine", fontsize=12)
        return figure

    return styled(draw)()


def size(x: float) -> str:
    return f"{x / 2**20:g} MiB" if x >= 2**20 else f"{x / 2**10:g} KiB" if x >= 2**10 else f"{x:g} B"
