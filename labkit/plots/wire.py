"""A figure of the time that messages take, as measured by `labkit.probes.wire`."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from labkit.plots.style import styled
from labkit.probes.wire import WAYS, fit


@styled
def wire_figure(lines: list[dict[str, Any]]) -> Figure:
    """Time over size of a message, both logarithmic. `lines`: what `labkit.probes.wire.wire` returns. One named curve for each
    way to send, with its latency and bandwidth."""
    looks = {"all_reduce": ("#1f5fa8", "s", "-"), "ring": ("#2f8f5b", "v", "--"), "copy": ("#262626", "o", ":")}
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    axes, ends = figure.add_subplot(xscale="log", yscale="log"), []
    for way, words in WAYS.items():
        of_way = sorted((line for line in lines if line["way"] == way), key=lambda line: line["bytes"])
        if not of_way:
            continue
        colour, marker, dash = looks[way]
        xs, ys = [line["bytes"] for line in of_way], [line["median_s"] * 1e6 for line in of_way]
        spread = [
            [y - line["min_s"] * 1e6 for y, line in zip(ys, of_way, strict=True)],
            [line["max_s"] * 1e6 - y for y, line in zip(ys, of_way, strict=True)],
        ]
        axes.errorbar(xs, ys, yerr=spread, color=colour, marker=marker, linestyle=dash, capsize=3, linewidth=1.8, markersize=7)
        latency_s, bytes_per_s = fit(of_way)
        name = words.format(backend=of_way[0]["backend"])
        text = f"{name}\n{latency_s * 1e6:,.0f} µs, then {bytes_per_s / 1e9:.2g} GB/s"
        ends.append((ys[-1], xs[-1], text, colour))
    axes.set_xlim(right=axes.get_xlim()[1] * 30)
    axes.set_xticks([4**k * 2**10 for k in range(9)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: size(x)))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("size of the message")
    axes.minorticks_off()
    axes.set_ylabel("time (µs; median, least and most)")
    below = 0.0
    for y, x, text, colour in sorted(ends):  # two curves may end close together: keep a distance between their names
        below = max(y, below * (axes.get_ylim()[1] / axes.get_ylim()[0]) ** 0.13)
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.8} if below > y else None
        axes.annotate(text, (x, y), (x * 1.5, below), va="center", fontsize=11, color=colour, arrowprops=line)
    axes.grid(color="#eeeeee")
    axes.set_title(f"What a message costs between {lines[0]['ranks']} ranks on this machine", fontsize=12)
    return figure


def size(n_bytes: float) -> str:
    """A number of bytes as text, in B, KiB or MiB."""
    if n_bytes >= 2**20:
        return f"{n_bytes / 2**20:g} MiB"
    return f"{n_bytes / 2**10:g} KiB" if n_bytes >= 2**10 else f"{n_bytes:g} B"
