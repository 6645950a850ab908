"""Figures of traces: a timeline of a step, how its time divides into parts, and the tensors that each rank holds.

Without pyplot.
"""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from labkit.plots.style import WORK, styled
from labkit.probes.trace import Trace
from labkit.results.verdict import short_name

PARTS = {"data_s": "data", "forward_s": "forward", "backward_s": "backward", "update_s": "update", "exchange_s": "exchange"}
WORDS = {"data": "waiting for images", "exchange": "exchange, waiting and the rest"}
HELD = {  # colour, hatch
    "parameters": ("#1f5fa8", ""),
    "gradients": ("#5fb3e6", "//"),
    "optimizer": ("#a9d3a1", "xx"),
    "activations": ("#f0a34a", ".."),
}


@styled
def timeline_figure(trace: Trace, step: int = 0) -> Figure:
    """One recorded step: a lane for each rank (and each replica), time to the right in ms.

    The micro-batches of a pipeline are numbered."""
    begin = min(rank["steps"][step][0] for rank in trace.ranks)
    end = max(rank["steps"][step][1] for rank in trace.ranks)
    several = any(event[3] > 0 for events in trace.step(step).values() for event in events)
    lanes = [(rank, lane) for rank, events in trace.step(step).items() for lane in sorted({event[1] for event in events} or {0})]
    figure = Figure(figsize=(12, 1.7 + 0.62 * len(lanes)), layout="constrained")
    axes = figure.add_subplot()
    for y, (rank, lane) in enumerate(reversed(lanes)):
        start, finish = ((t - begin) * 1e3 for t in trace.ranks[rank]["steps"][step])
        axes.barh(y, finish - start, left=start, height=0.62, color="white", edgecolor="#bbbbbb", linewidth=0.8)
        for kind, _, _, _, a, b in [event for event in trace.step(step)[rank] if event[1] == lane]:
            colour, hatch = WORK[kind]
            left, width = (a - begin) * 1e3, (b - a) * 1e3
            axes.barh(y, width, left=left, height=0.62, color=colour, hatch=hatch, edgecolor="white", linewidth=0.3)
        for (kind, micro), (a, b) in micro_batches(trace.step(step)[rank]).items() if several else ():
            colour, ground = ("black", WORK[kind][0]) if kind == "forward" else ("white", WORK[kind][0])
            centre_ms, box = ((a + b) / 2 - begin) * 1e3, {"facecolor": ground, "edgecolor": "none", "pad": 1}
            axes.text(centre_ms, y, str(micro + 1), ha="center", va="center", fontsize=11, color=colour, bbox=box)
    axes.set_yticks(range(len(lanes)), [lane_name(trace, rank, lane, lanes) for rank, lane in reversed(lanes)], fontsize=11)
    axes.set_xlim(0, (end - begin) * 1e3)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("time since the step began (ms)")
    title = f"One step of {short_name(trace.spec.name)}"
    if not trace.exchange:
        title += ", without any exchange"
    if several:
        title += " (numbers: micro-batches)"
    axes.set_title(title, fontsize=12)
    work_legend(figure, ("data", "forward", "backward", "update"), blank=True)
    return figure


def micro_batches(events: list[list[Any]]) -> dict[tuple[str, int], tuple[float, float]]:
    """{("forward" or "backward", micro-batch): (start, end)} of a stage, in seconds, from its events."""
    spans: dict[tuple[str, int], tuple[float, float]] = {}
    for kind, _, _, micro, start, end in events:
        if kind in ("forward", "backward"):
            a, b = spans.get((kind, micro), (start, end))
            spans[kind, micro] = min(a, start), max(b, end)
    return spans


def lane_name(trace: Trace, rank: int, lane: int, lanes: list[tuple[int, int]]) -> str:
    """The name of a lane: "server", "rank 1", or "replica 1" if `lanes` (rank, lane) has several lanes of this rank."""
    if trace.spec.is_server(rank):
        return "server"
    lanes_of_rank = [one for one, _ in lanes if one == rank]
    return f"replica {lane}" if len(lanes_of_rank) > 1 else f"rank {rank}"


@styled
def split_figure(traces: dict[str, Trace]) -> Figure:
    """How the time of a step divides into parts: for each trace a stacked bar of its slowest training rank, in ms."""
    figure = Figure(figsize=(12, 1.9 + 0.62 * len(traces)), layout="constrained")
    axes = figure.add_subplot()
    for y, trace in enumerate(reversed(traces.values())):
        trained = [line for line in trace.split() if line["rank"] < trace.spec.world_size]
        slowest, left = max(trained, key=lambda line: line["step_s"]), 0.0
        for key, kind in PARTS.items():
            width = slowest[key] * 1e3
            colour, hatch = WORK[kind]
            axes.barh(y, width, left=left, height=0.62, color=colour, hatch=hatch, edgecolor="white")
            left += width
        text = f"{left:,.0f} ms" if left >= 100 else f"{left:,.1f} ms"
        axes.annotate(text, (left, y), (6, 0), textcoords="offset points", va="center", fontsize=11)
    axes.set_yticks(range(len(traces)), list(reversed(traces)), fontsize=11)
    axes.set_ylim(-0.6, len(traces) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel("the median step of the slowest rank (ms)")
    work_legend(figure, PARTS.values())
    return figure


@styled
def holds_figure(traces: dict[str, Trace]) -> Figure:
    """The tensors that each rank holds, in MiB: parameters, gradients and optimizer state between steps; activations at their
    peak."""
    bars = [(label, trace, rank) for label, trace in traces.items() for rank in trace.ranks]
    figure = Figure(figsize=(12, 1.9 + 0.45 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    for y, (_, _, rank) in enumerate(reversed(bars)):
        left = 0.0
        for what, (colour, hatch) in HELD.items():
            width = rank["holds"][what] / 2**20
            axes.barh(y, width, left=left, height=0.7, color=colour, hatch=hatch, edgecolor="white")
            left += width
        axes.annotate(f"{left:.1f} MiB", (left, y), (6, 0), textcoords="offset points", va="center", fontsize=11)
    names = [f"{label}, {lane_name(trace, rank['rank'], 0, [])}" for label, trace, rank in bars]
    axes.set_yticks(range(len(bars)), names[::-1], fontsize=11)
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel("tensors that a rank holds (MiB; activations at their peak)")
    handles = [Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=what) for what, (colour, hatch) in HELD.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=11)
    return figure


def work_legend(figure: Figure, kinds, blank: bool = False) -> None:
    """A legend of these kinds of work (keys of WORK). `blank`: also name the empty parts of a lane."""
    handles = [Patch(facecolor=WORK[k][0], hatch=WORK[k][1], edgecolor="white", label=WORDS.get(k, k)) for k in kinds]
    if blank:
        handles.append(Patch(facecolor="white", edgecolor="#bbbbbb", label=WORDS["exchange"]))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=11)
