"""One figure for the rows of a group that ran: throughput, ratios here and as published, memory, parts of the time, accuracy.

Without pyplot, because widgets draw on other threads.
"""

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labkit.plots.style import (
    DASHES,
    HALO,
    Repeats,
    bilingual,
    draw_range,
    font_family,
    line_widths,
    median,
    origin_text,
    row_looks,
    styled,
    two_lines,
)
from labkit.results.groups import rounds_with
from labkit.results.metrics import METRIC, memory_is
from labkit.results.table import time_parts
from labkit.results.verdict import Figures, MatchedRow, Row, comparable, figures_of, match_rows, short_name
from labkit.rows import params
from labkit.runs.result import Results
from labkit.runs.rounds import Rounds

WIDE = 9.6  # inches: as wide as a notebook, so that its letters are not made smaller
HEADING: dict[str, Any] = {"fontsize": 15, "va": "top"}
TIMES = {  # key of results.table.time_parts: label, colour, hatch
    "startup_s": ("start-up", "#f0a34a", "//"),
    "compute_s": ("training", "#2f6ea5", ""),
    "data_wait_s": ("training: waiting for data", "#d9d9d9", ".."),
    "eval_s": ("evaluation", "#a6cde8", ""),
    "rest_s": ("rest", "#ffffff", ""),
}


@styled
def group_figure(group: params.Group, every_row: list[Row], rounds: Iterable[Rounds] = ()) -> Figure | None:
    """The figure of a group, or None if none of its rows ran. `rounds`: all that were measured.

    Names of rows are short: without resnet18, cacheFalse and ampFalse."""
    matched = match_rows(group.rows, every_row)
    if not matched:
        return None
    rows = {one.row.name: one.row.good for one in matched}
    rates = figures_of(METRIC["images_per_s"], [one.row for one in matched], rounds_with(list(rows), rounds))
    looks, panel = row_looks(rows), max(1.7, 0.5 * len(rows))
    figure = Figure(figsize=(WIDE, high := 4.6 + 3 * panel))
    figure.text(0.01, 1 - 0.1 / high, bilingual(group.number, group.title_en, group.title_zh), **HEADING, family=font_family())
    figure.text(0.01, 1 - 0.45 / high, origin_text(rows, "medians with least and most"), fontsize=11, va="top", color="#555555")

    def add_panel(left: float, right: float, line: int) -> Axes:  # in inches; lines 0 to 2 from below
        bottom = (0.65, 2.25 + panel, 3.5 + 2 * panel)[line]
        return figure.add_axes((left / WIDE, bottom / high, (right - left) / WIDE, panel / high))

    draw_throughput(add_panel(2.2, 5.4, 2), rows, rates, looks)
    draw_ratios(add_panel(6.0, 9.2, 2), matched, rates, looks)
    draw_times(add_panel(2.2, 5.4, 1), rows)
    draw_memory(add_panel(6.0, 9.2, 1), rows, looks)
    axes = add_panel(0.9, 5.4, 0)
    draw_curves(axes, rows, looks, accuracy_over_epochs, named=True)
    axes.set(xlabel="epoch", ylabel="test accuracy (%)")
    axes.set_title("Accuracy, and the best of each row", fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def draw_bars(axes: Axes, rows: Results, looks: dict[str, Any], figures: dict[str, list[float]], none: str = "0") -> None:
    """A bar for each row, the first on top: the median of its `figures`, and where there are several, the least and the most. `none`:
    what stands where the figure is 0, or there is none."""
    for y, name in enumerate(rows):
        values = figures.get(name) or [0.0]
        value = statistics.median(values)
        axes.barh(y, value, color=looks[name]["colour"], hatch=looks[name]["hatch"], edgecolor="white", height=0.66)
        draw_range(axes, y, values)
        axes.annotate(
            f"{value:,.0f}" if value else none, (max(values), y), (6, 0), textcoords="offset points", va="center", fontsize=11
        )
    rows_axis(axes, rows)
    axes.margins(x=0.2)
    axes.set_xlim(left=0)


def rows_axis(axes: Axes, rows: Results, names: bool = True) -> None:
    """Give the y axis one position for each row, the first on top.

    `names` False: without names, since the panel at the left has them."""
    labels = [two_lines(short_name(name), 22) if names else "" for name in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=11)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:,g}")


def draw_throughput(axes: Axes, rows: Results, rates: Figures, looks: dict[str, Any]) -> None:
    """Panel: images/s of each row."""
    draw_bars(axes, rows, looks, {name: list(rate.samples) for name, rate in rates.items()}, "too few steps to time")
    axes.set_title("Throughput of all ranks", fontsize=12)
    axes.set_xlabel("images/s")


def draw_memory(axes: Axes, rows: Results, looks: dict[str, Any]) -> None:
    """Panel: peak memory of each row in MiB."""
    draw_bars(axes, rows, looks, {name: [result.max_mem_mib for result in repeats] for name, repeats in rows.items()})
    rows_axis(axes, rows, names=False)
    axes.set_title("Peak memory of one rank", fontsize=12)
    axes.set_xlabel("MiB\n" + memory_is(result.spec.device for repeats in rows.values() for result in repeats))


def draw_ratios(axes: Axes, matched: list[MatchedRow], rates: Figures, looks: dict[str, Any]) -> None:
    """Panel: images/s divided by those of the first row, with least and most.

    Filled: measured here; hollow: published, if the pair may be compared."""
    first, any_published, ends = matched[0], False, [1.0]
    base, base_published = rates.get(first.row.name), first.published
    axes.axvline(1, color="#999999", linewidth=1)
    for y, one in enumerate(matched):
        look, rate = looks[one.row.name], rates.get(one.row.name)
        if rate and base:
            here = rate / base
            draw_range(axes, y - 0.14, list(here.samples))
            draw_point(axes, here.median, y - 0.14, look["colour"], look["colour"], look["marker"], f"{here:.2f}")
            ends.append(max(here.samples))
        if base_published and one.published and comparable(one, first):
            any_published = True
            ratio = one.published["avg_throughput_img_s"] / base_published["avg_throughput_img_s"]
            if one.nccl:
                draw_point(axes, ratio, y + 0.2, "white", "black", "o", f"{ratio:.2f} NCCL")
                ends.append(1.2 * ratio)  # room for the longer text
            else:
                draw_point(axes, ratio, y + 0.2, "white", "black", "o", f"{ratio:.2f}")
                ends.append(ratio)
    rows_axis(axes, {one.row.name: one.row.good for one in matched}, names=False)
    axes.set_xlim(0, 1.3 * max(ends))  # room for the text at the last point
    axes.grid(axis="x", color="#eeeeee")
    axes.set_title("Relative to the first row", fontsize=12)
    key = "filled: here, hollow: published" if any_published else "here; not comparable with published"
    axes.set_xlabel(f"times its images/s\n{key}")


def draw_point(axes: Axes, x: float, y: float, face: Any, edge: Any, marker: str, text: str) -> None:
    """A marker at (x, y), with a text to its right."""
    axes.plot(x, y, marker=marker, markersize=9, markerfacecolor=face, markeredgecolor=edge, linestyle="", zorder=3)
    axes.annotate(text, (x, y), (9, 0), textcoords="offset points", va="center", fontsize=11, path_effects=HALO)


def draw_times(axes: Axes, rows: Results) -> None:
    """Panel: how the total time of each row's median run divides into parts, in seconds."""
    for y, repeats in enumerate(rows.values()):
        total = statistics.median_low(result.total_time_s for result in repeats)
        parts = time_parts(next(result for result in repeats if result.total_time_s == total))
        parts["compute_s"] = parts["train_s"] - parts["data_wait_s"]
        left = 0.0
        for key, (words, colour, hatch) in TIMES.items():
            wide = max(parts[key], 0.0)
            axes.barh(y, wide, left=left, color=colour, hatch=hatch, edgecolor="#555555", linewidth=0.6, height=0.6, label=words)
            left += wide
        axes.annotate(f"{total:,.1f} s", (left, y), (6, 0), textcoords="offset points", va="center", fontsize=11)
    rows_axis(axes, rows)
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.set_title("Where the wall time went", fontsize=12)
    axes.set_xlabel("seconds from launch to finish (median run)")
    handles, labels = axes.get_legend_handles_labels()
    below: dict[str, Any] = {
        "loc": "upper left",
        "bbox_to_anchor": (-2.1 / 3.2, -0.7 / axes.get_window_extent().height * axes.figure.dpi),
    }
    axes.legend(handles[: len(TIMES)], labels[: len(TIMES)], **below, ncols=5, frameon=False, columnspacing=1.2)


Curve = Callable[[Repeats], tuple[list[float], list[float]]]


def accuracy_over_time(repeats: Repeats) -> tuple[list[float], list[float]]:
    """(seconds since launch, test accuracy in percent) after each epoch: medians over the repeats."""
    by_epoch = list(zip(*(result.epochs for result in repeats), strict=False))  # the same epoch of every repeat
    after_s = [statistics.median(epoch.after_s for epoch in same) for same in by_epoch]
    return after_s, [statistics.median(epoch.test_acc_pct for epoch in same) for same in by_epoch]


def accuracy_over_epochs(repeats: Repeats) -> tuple[list[float], list[float]]:
    """(number of the epoch, test accuracy in percent after it): medians over the repeats."""
    accuracy_pct = accuracy_over_time(repeats)[1]
    return [epoch.epoch for epoch in repeats[0].epochs[: len(accuracy_pct)]], accuracy_pct


def draw_curves(axes: Axes, rows: Results, looks: dict[str, Any], curve: Curve, named: bool) -> None:
    """The curve of each row. Where curves coincide, the wider one below is seen at both sides, and the markers stand apart. `named`: a
    legend at the right of the axes has the best accuracy and the name of each row, the most accurate first."""
    for at, ((name, repeats), wide) in enumerate(zip(rows.items(), line_widths(len(rows)), strict=True)):
        x, y = curve(repeats)
        look, every = looks[name], -(-len(x) // 8)
        (drawn,) = axes.plot(x, y, DASHES[at % len(DASHES)], color=look["colour"], linewidth=wide)
        drawn.set(marker=look["marker"], markersize=7, markeredgecolor="white", markevery=(at * every // len(rows), every))
        drawn.set_label(f"{median(repeats, 'best_acc_pct'):.1f} %  {two_lines(short_name(name), 32)}")
    axes.grid(color="#eeeeee")
    if named:
        order = sorted(range(len(rows)), key=lambda at: -median(list(rows.values())[at], "best_acc_pct"))
        handles, labels = axes.get_legend_handles_labels()
        beside: dict[str, Any] = {
            "loc": "center left",
            "bbox_to_anchor": (1.0, 0.5),
            "frameon": False,
            "fontsize": 11,
            "handlelength": 3.2,
        }
        axes.legend([handles[at] for at in order], [labels[at] for at in order], **beside)
