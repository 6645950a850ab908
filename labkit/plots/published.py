"""Two figures of the published table: seconds outside training against the training speed, and memory against the batch.

Without pyplot. They show published figures alone; nothing in them was measured here."""

from typing import Any

from matplotlib.figure import Figure

from labkit.plots.style import styled
from labkit.results.published import IMAGE_MIB, P_MIB, Line, expected_mib, kind_of_run, lines, memory_of
from labkit.results.verdict import short_name
from labkit.rows.kinds import KINDS

SOURCE = "published rows, one run each"


def look(line: Line) -> dict[str, Any]:
    """How a row's point looks: the colour and marker of its strategy."""
    kind = KINDS[line.spec.strategy]
    return {"color": kind.colour, "marker": kind.marker, "markersize": 9, "markeredgecolor": "white", "linestyle": ""}


def strategies(figure: Figure, shown: list[Line]) -> None:
    """A legend below the figure, with the strategies of these rows."""
    handles = {}
    for line in shown:
        name = line.spec.strategy.replace("_", " ")
        if name not in handles:
            (handles[name],) = figure.axes[0].plot([], [], label=name, **look(line))
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=7, frameon=False, handletextpad=0.2)


@styled
def outside_figure() -> Figure:
    """Seconds of an epoch outside training, against images/s: a point for each published row."""
    shown = list(lines().values())
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    axes = figure.add_subplot()
    for line in shown:
        axes.plot(line.images_per_s, line.outside_s, zorder=3, **look(line))
    words = {
        "two processes: DDP on gloo": (2150, 13.83),
        "two processes, no cache named": (2900, 11.1),
        "two processes, with cache": (5250, 4.0),
        "DataParallel": (3805, 2.9),
        "one GPU, batch 128": (4144, 0.1),
        "one GPU, batch 256 or 512": (5220, 0.88),
        "model parallel": (4805, 1.6),
    }
    for kind in dict.fromkeys(map(kind_of_run, shown)):
        x, y = words[kind]
        centred = kind in ("DataParallel", "one GPU, batch 128", "model parallel")
        axes.text(x, y, kind, va="center", ha="center" if centred else "left", fontsize=11)
    axes.set(xlim=(0, 8400), ylim=(-0.4, 15))
    axes.grid(color="#eeeeee")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("training throughput of all ranks together (images/s)")
    axes.set_ylabel("seconds of an epoch outside training")
    axes.set_title(f"Seconds of an epoch outside training\n{SOURCE}; 50 epochs of 50,000 images", fontsize=12)
    strategies(figure, shown)
    return figure


@styled
def memory_figure() -> Figure:
    """Left: the memory column without its copies of P, against the images of one device, with the two lines (fp32 and AMP). Right: the
    column less the line, for each row."""
    shown = sorted((line for line in lines().values() if memory_of(line)), key=lambda line: -abs(residual_mib(line)))
    figure = Figure(figsize=(12, 6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    for of_image, dash, words in ((IMAGE_MIB, "-", "fp32: 4.57 · B"), (IMAGE_MIB / 2, "--", "AMP: half of it")):
        left.plot((0, 540), (0, 540 * of_image), dash, color="#777777", linewidth=1.3)
        left.annotate(words, (330, 330 * of_image), (8, -8), textcoords="offset points", va="top", fontsize=11)
    side: dict[str, Any]
    for y, line in enumerate(shown):
        left.plot(line.spec.batch_per_rank, line.max_mem_mib - copies_mib(line), zorder=3, **look(line))
        right.plot(residual_mib(line), y, zorder=3, **look(line))
        x = residual_mib(line)
        text = f"{x:+.1f}".replace("-", "−")
        side = {"xytext": (9, 0), "ha": "left"} if x > 0 else {"xytext": (-9, 0), "ha": "right"}
        right.annotate(text, (x, y), textcoords="offset points", va="center", **side)
    left.set(xlim=(0, 540), ylim=(0, 2500), xlabel="B: images of one device in a step", xticks=(0, 64, 128, 256, 512))
    left.set_ylabel("memory column less the copies of P (MiB)")
    left.yaxis.set_major_formatter("{x:,.0f}")
    right.set_yticks(range(len(shown)), [short_name(line.name) for line in shown], fontsize=10)
    right.set(xlim=(-16, 66), xlabel="column less line (MiB)")
    right.axvline(0, color="#777777", linewidth=1.3)
    for axes in (left, right):
        axes.grid(color="#eeeeee")
    figure.suptitle(f"Memory, and what the line does not explain\n{SOURCE}, ResNet-18", x=0.01, ha="left", fontsize=12)
    strategies(figure, shown)
    return figure


def copies_mib(line: Line) -> float:
    """The part of the memory line that does not depend on the batch, in MiB. Only for rows that the line describes."""
    copies, _ = memory_of(line) or (0.0, 0.0)
    return copies * P_MIB


def residual_mib(line: Line) -> float:
    """The memory column less the line, in MiB. Only for rows that the line describes."""
    return line.max_mem_mib - (expected_mib(line) or 0.0)


PICTURES = {"outside_figure": outside_figure, "memory_figure": memory_figure}
