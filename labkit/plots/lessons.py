"""Figures for notebooks: accuracy, a ladder of factors, staleness, any figure against any other. Without pyplot."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from labkit.plots.groups import accuracy_over_epochs, accuracy_over_time, draw_curves
from labkit.plots.style import (
    HATCHES,
    draw_range,
    legend,
    log_ticks,
    median,
    name_points,
    origin_text,
    row_looks,
    strategy_look,
    styled,
    two_lines,
)
from labkit.results.metrics import METRIC, memory_is
from labkit.results.verdict import short_name
from labkit.rows.fields import SpecError, nearest
from labkit.rows.kinds import KINDS
from labkit.rows.spec import Spec
from labkit.runs.result import Results
from labkit.runs.spread import Measured


@styled
def accuracy_figure(rows: Results) -> Figure:
    """Test accuracy of every row: at the left over epochs, at the right over the time since launch."""
    looks = row_looks(rows)
    figure = Figure(figsize=(13, 3.6 + 0.2 * max(len(rows) - 3, 0)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    draw_curves(left, rows, looks, accuracy_over_epochs, named=True)
    draw_curves(right, rows, looks, accuracy_over_time, named=False)
    left.set(xlabel="epoch", ylabel="test accuracy (%)")
    left.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    right.set(xlabel="time since launch (s)", xlim=(0, None))
    figure.suptitle(f"Test accuracy, and the best of each row\n{origin_text(rows, 'medians')}", x=0.01, ha="left", fontsize=12)
    return figure


@styled
def factor_ladder(rates: dict[str, Measured]) -> Figure:
    """Images/s of rows by name, in the given order, each also as a factor relative to the row before."""
    names = list(rates)
    figure = Figure(figsize=(max(7.5, 1.5 + 2.3 * len(rates)), 4.8), layout="constrained")
    axes = figure.add_subplot()
    top = max((max(rate.samples) for rate in rates.values()), default=1.0)
    for x, (name, rate) in enumerate(rates.items()):
        axes.bar(
            x, rate.median, color=Spec.parse(name).kind.colour, hatch=HATCHES[x % len(HATCHES)], edgecolor="white", width=0.56
        )
        draw_range(axes, x, list(rate.samples), upright=True)
        axes.annotate(f"{rate:,.0f}", (x, max(rate.samples)), (0, 4), textcoords="offset points", ha="center", fontsize=11)
        if x:
            step = rate / rates[names[x - 1]]
            axes.annotate(
                "", (x - 0.12, 1.19 * top), (x - 0.88, 1.19 * top), arrowprops={"arrowstyle": "-|>", "color": "#555555"}
            )
            axes.text(x - 0.5, 1.21 * top, factor(step), ha="center", va="bottom", fontsize=12, weight="bold")
    labels = [two_lines(short_name(name), 16).replace("+", "\n+").replace("\n\n", "\n") for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize=11)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1.45 * top)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel("images/s of all ranks together")
    rounds = max((len(rate.samples) for rate in rates.values()), default=0)
    axes.set_title(
        f"Throughput, each as a factor relative to the one before\nmedians of {rounds} rounds, with least and most", fontsize=12
    )
    return figure


def factor(step: Measured) -> str:
    """A ratio of images/s as text, with what its spread allows to say."""
    word = {None: "\ntoo noisy to tell", 0: "\nindistinguishable"}.get(step.order(), "")
    return f"×{step:.2f}{word}"


@styled
def staleness_figure(late: dict[str, dict[int, int]]) -> Figure:
    """A histogram for each label. `late`: {label: {number of updates late: number of gradients}}."""
    figure = Figure(figsize=(12, 1.4 + 1.7 * len(late)), layout="constrained")
    panels = figure.subplots(len(late), 1, sharex=True, squeeze=False)[:, 0]
    most = max((updates for one in late.values() for updates in one), default=0)
    for axes, (name, one) in zip(panels, late.items(), strict=True):
        gradients = sum(one.values())
        for updates, n in sorted(one.items()):
            axes.bar(updates, n / gradients, color=KINDS["parameter_server"].colour, edgecolor="black", width=0.7)
            share = f"{100 * n / gradients:.1f} %" if n < gradients else "all"
            axes.annotate(share, (updates, n / gradients), (0, 3), textcoords="offset points", ha="center", fontsize=11)
        mean = sum(updates * n for updates, n in one.items()) / gradients
        axes.set_title(f"{short_name(name)}: {gradients:,} gradients, {mean:.2f} updates late on average", fontsize=12)
        axes.set_ylim(0, 1.2)
        axes.set_yticks([0, 0.5, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[-1].set_xlabel("staleness: updates between reading the weights and applying the gradient computed on them")
    panels[-1].set_xlim(-0.6, max(most, 1) + 0.6)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supylabel("share of gradients", fontsize=11)
    return figure


@styled
def comparison_figure(rows: Results, x: str, y: str) -> Figure:
    """Two measured figures (keys of METRIC) against each other, with a named point for each row.

    Raises SpecError for an unknown key."""
    for key in (x, y):
        if key not in METRIC:
            raise SpecError(f"{key!r}: no figure of a result{nearest(key, METRIC)}")
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.add_subplot()
    points = {}
    for name, repeats in rows.items():
        colour, marker = strategy_look(repeats)
        points[short_name(name)] = spot = median(repeats, x), median(repeats, y)
        axes.plot(*spot, color=colour, marker=marker, markersize=11, markeredgecolor="white", linestyle="", zorder=3)
    memory = memory_is(result.spec.device for repeats in rows.values() for result in repeats)
    for i, (key, axis, set_scale) in enumerate(((x, axes.xaxis, axes.set_xscale), (y, axes.yaxis, axes.set_yscale))):
        values = [spot[i] for spot in points.values()]
        wide = min(values, default=0) > 0 and max(values) > 8 * min(values)
        text = METRIC[key].axis
        if key == "max_mem_mib":
            text += f"; {memory}"
        if wide:
            axis.set_label_text(f"{text}, log scale")
            set_scale("log")
            log_ticks(axis, values)
        else:
            axis.set_label_text(text)
            axis.set_major_formatter("{x:,.6g}")
    axes.margins(0.1)
    axes.grid(color="#eeeeee")
    if rows:
        axes.set_title(origin_text(rows, "medians"), fontsize=12)
        legend(figure, rows, loc="outside lower center", ncols=7, columnspacing=1.2, handletextpad=0.2)
    name_points(figure, axes, points)
    return figure
