"""Figures of all rows: throughput, accuracy over time, memory against throughput. Without pyplot.

The functions take the results of rows that ended well: {row name: [Result, one for each repeat]}.
"""

import io
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from labkit.plots.colours import row_colours
from labkit.plots.groups import accuracy_over_time, group_figure
from labkit.plots.style import (
    DASHES,
    MARKERS,
    draw_range,
    in_fixed_order,
    legend,
    line_widths,
    log_ticks,
    median,
    name_points,
    origin_text,
    strategy,
    strategy_look,
    styled,
)
from labkit.results.metrics import memory_is
from labkit.results.verdict import Row, short_name
from labkit.rows import params
from labkit.runs.result import Results
from labkit.runs.rounds import Rounds
from labkit.system.files import write_whole

# Inches. The accuracy plot: its width, the height of its title, and the height of each line of panels. Then the width of a panel
# with few rows (their names stand above it) and of a panel with many rows (their names stand at its right).
PAGE, TITLE, LINE, FEW, MANY = 13.2, 0.65, 2.75, 4.35, 13.2


@styled
def throughput_overview(rows: Results) -> Figure:
    """Images per second of every row, the fastest on top; repeated rows also show minimum and maximum."""
    names = sorted(rows, key=lambda name: (median(rows[name], "images_per_s"), name))
    figure = Figure(figsize=(12, 1.8 + 0.3 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for y, name in enumerate(names):
        rates = [result.images_per_s for result in rows[name]]
        rate = statistics.median(rates)
        axes.barh(y, rate, color=strategy_look(rows[name])[0], height=0.72)
        draw_range(axes, y, rates, cap=3, wide=1.2)
        text = f"{rate:,.0f}" if rate else "too few steps to time"
        axes.annotate(text, (max(rates), y), (6, 0), textcoords="offset points", va="center", fontsize=10)
    axes.set_yticks(range(len(names)), names, fontsize=10)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("training throughput of all ranks together (images/s)")
    axes.set_title(f"Training throughput\n{origin_text(rows, 'median, least and most')}", fontsize=12)
    legend(figure, rows, marker="s", loc="outside lower center", ncols=7, columnspacing=1.2, handletextpad=0.2)
    return figure


@styled
def accuracy_overview(rows: Results) -> Figure:
    """Test accuracy over the time since launch: a panel for each strategy, with the curves of the other strategies in grey."""
    curves = {name: accuracy_over_time(repeats) for name, repeats in rows.items()}
    panels = {one: [name for name in rows if strategy(rows[name]) == one] for one in in_fixed_order(map(strategy, rows.values()))}
    spots = panel_places([FEW if len(names) <= 3 else MANY for names in panels.values()])
    height = TITLE + LINE * (1 + max((line for line, _ in spots), default=0))
    figure = Figure(figsize=(PAGE, height))
    for (panel, names), (line, left) in zip(panels.items(), spots, strict=True):
        bottom = height - TITLE - (line + 1) * LINE + 0.6
        wide, high = (FEW - 0.85, LINE - 1.45) if len(names) <= 3 else (MANY - 5.6, LINE - 0.95)
        axes = figure.add_axes(((left + 0.7) / PAGE, bottom / height, wide / PAGE, high / height), xscale="log", ylim=(0, 102))
        for x, y in curves.values():
            axes.plot(x, y, color="#e2e2e2", linewidth=1, zorder=1)
        colours = row_colours([strategy_look(rows[name])[0] for name in names])
        for i, name in enumerate(sorted(names, key=lambda name: (-max(curves[name][1]), name))):
            (x, y), every = curves[name], -(-len(curves[name][0]) // 8)
            (drawn,) = axes.plot(x, y, DASHES[i % len(DASHES)], color=colours[i], linewidth=line_widths(len(names))[i])
            drawn.set(marker=MARKERS[i % len(MARKERS)], markersize=6, markeredgecolor="white")
            drawn.set_markevery((i * every // len(names), every))
            drawn.set_label(f"{median(rows[name], 'best_acc_pct'):.1f} %  {short_name(name)}".replace("+", "\n+"))
        spot: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.03, 1.0)}
        if len(names) > 3:
            spot = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        spot |= {"title": panel.replace("_", " "), "title_fontproperties": {"weight": "bold", "size": 12.5}, "alignment": "left"}
        axes.legend(frameon=False, fontsize=11, handlelength=3, **spot).get_title().set_color(strategy_look(rows[names[0]])[0])
        axes.grid(color="#eeeeee")
        log_ticks(axes.xaxis, [seconds for x, _ in curves.values() for seconds in x])
        axes.set_xlabel("time since launch (s, log scale)")
        axes.set_ylabel("test accuracy (%)")
    title_text = f"Test accuracy over time, and the best of each row; grey: the other strategies\n{origin_text(rows, 'medians')}"
    figure.text(0.15 / PAGE, 1 - 0.12 / height, title_text, va="top", fontsize=12)
    return figure


def panel_places(widths: list[float]) -> list[tuple[int, float]]:
    """(line, left edge in inches) of each panel. Panels fill a line of PAGE inches from left to right, then the next line."""
    spots, line, left = [], 0, 0.0
    for width in widths:
        if left + width > PAGE:
            line, left = line + 1, 0.0
        spots.append((line, left))
        left += width
    return spots


@styled
def memory_overview(rows: Results) -> Figure:
    """Peak memory against throughput, with a named point for each row. Rows that were not timed are left out."""
    rows = {name: repeats for name, repeats in rows.items() if median(repeats, "images_per_s") > 0}
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.add_subplot(yscale="log")
    points = {}
    for name, repeats in rows.items():
        colour, marker = strategy_look(repeats)
        x, y = median(repeats, "images_per_s"), max(median(repeats, "max_mem_mib"), 1.0)
        axes.plot(x, y, color=colour, marker=marker, markersize=11, markeredgecolor="white", linestyle="", zorder=3)
        points[short_name(name)] = (x, y)
    memory_means = memory_is(result.spec.device for repeats in rows.values() for result in repeats)
    axes.set_ylabel(f"peak memory of one rank (MiB, log scale; {memory_means})")
    axes.set_xlabel("training throughput of all ranks together (images/s)")
    axes.margins(0.1)
    axes.set_xlim(left=0)
    axes.grid(color="#eeeeee")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    log_ticks(axes.yaxis, [y for _, y in points.values()])
    if rows:
        axes.set_title(
            f"Memory against throughput (right: faster, down: less memory)\n{origin_text(rows, 'medians')}", fontsize=12
        )
        legend(figure, rows, loc="outside lower center", ncols=7, columnspacing=1.2, handletextpad=0.2)
    name_points(figure, axes, points)
    return figure


PLOTS = {"throughput": throughput_overview, "accuracy_over_time": accuracy_overview, "memory_and_throughput": memory_overview}


def save_plots(rows: list[Row], folder: Path, rounds: Iterable[Rounds] = ()) -> list[Path]:
    """Write the overviews, and a figure for each group with a row that ran, as PNG and SVG files into `folder`. Returns their
    paths.

    Writes nothing, and returns an empty list, if no row ended well. The same results give the same bytes."""
    results = {row.name: row.good for row in rows if row.good}
    if not results:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = [path for name, draw in PLOTS.items() for path in save(draw(results), folder / name)]
    for group in params.groups():
        figure = group_figure(group, rows, rounds)
        if figure is not None:
            written += save(figure, folder / f"group_{group.number:02}")
    return written


@styled
def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as <stem>.png and <stem>.svg; return their paths.

    Without date and software, so that the same figure gives the same bytes."""
    written = []
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata=metadata)
        written.append(stem.with_name(f"{stem.name}.{kind}"))
        write_whole(written[-1], content.getvalue())
    return written
