"""Figures of traces: a timeline of a step, how its time divides into parts, and the tensors that each rank holds.

Without pyplot.
"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from labkit.plots.style import WORK, styled
from labkit.probes.parts import EXCHANGE, last_calls, phases
from labkit.probes.trace import Trace
from labkit.results.verdict import short_name

COMPUTED = ("data", "forward", "backward", "update")
LOOKS = WORK | {  # colour, hatch; the parts of a message are those of `labkit.probes.parts`
    "moving": ("#d1495b", ""),
    "latency": ("#f0a34a", "//"),
    "delayed": ("#b9a0d0", "xx"),
    "peer": ("#f2e6c9", ".."),
    "waking": ("#7a5c3e", ""),
    "other": ("#ffffff", ""),
}
WORDS = {
    "data": "waiting for images",
    "moving": "bytes moving",
    "delayed": "message delayed",
    "peer": "waiting for a slower rank",
    "waking": "waking up",
    "other": "the rest",
}
HELD = {  # colour, hatch
    "parameters": ("#1f5fa8", ""),
    "gradients": ("#5fb3e6", "//"),
    "optimizer": ("#a9d3a1", "xx"),
    "activations": ("#f0a34a", ".."),
}


@styled
def timeline_figure(trace: Trace, step: int = 0) -> Figure:
    """One recorded step: a lane for each rank (and each replica), under it its messages in their parts, time to the right in ms.

    The micro-batches of a pipeline are numbered."""
    begin = min(rank["steps"][step][0] for rank in trace.ranks)
    end = max(rank["steps"][step][1] for rank in trace.ranks)
    events, sent = trace.step(step), trace.messages(step)
    several = any(event[3] > 0 for one in events.values() for event in one)
    lanes = [(rank, lane) for rank, one in events.items() for lane in sorted({event[1] for event in one} or {0})]
    called, y, ticks = last_calls([one for rank in trace.ranks for one in rank["messages"]]), 0.0, []
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    for rank, lane in lanes:
        start, finish = ((t - begin) * 1e3 for t in trace.ranks[rank]["steps"][step])
        bar(axes, y, start, finish, ("white", ""), edge="#bbbbbb")
        for kind, _, _, _, a, b in [event for event in events[rank] if event[1] == lane]:
            bar(axes, y, (a - begin) * 1e3, (b - begin) * 1e3, WORK[kind])
        for (kind, micro), (a, b) in micro_batches(events[rank]).items() if several else ():
            colour, ground = ("black", WORK[kind][0]) if kind == "forward" else ("white", WORK[kind][0])
            centre_ms, box = ((a + b) / 2 - begin) * 1e3, {"facecolor": ground, "edgecolor": "none", "pad": 1}
            axes.text(centre_ms, y, str(micro + 1), ha="center", va="center", fontsize=11, color=colour, bbox=box)
        ticks.append((y, lane_name(trace, rank, lane, lanes)))
        y -= 0.75
        for n, row in enumerate(side_by_side(sent[rank]) if lane == 0 else ()):
            ticks.append((y, "" if n else "messages"))
            free_from = 0.0  # where the last name ends
            for message in row:
                for part, a, b in phases(message, called, trace.link):
                    bar(axes, y, max(0.0, (a - begin) * 1e3), (b - begin) * 1e3, LOOKS[part], height=0.34)
                left = max(0.0, (message["called"] - begin) * 1e3)
                text, width_ms = message_name(message), (end - begin) * 1e3
                long_ms = (len(text) + 1) * width_ms / 140
                left = min(left, width_ms - long_ms)
                if left >= free_from:
                    axes.text(left, y - 0.2, text, ha="left", va="top", fontsize=9.5)
                    free_from = left + long_ms
            y -= 0.75
        y -= 0.2
    figure.set_size_inches(12, 1.9 + 0.62 * -y)
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=11)
    axes.set_xlim(0, (end - begin) * 1e3)
    axes.set_ylim(y + 0.4, 0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("time since the step began (ms)")
    title = f"One step of {short_name(trace.spec.name)}"
    if not trace.exchange:
        title += ", without any exchange"
    if several:
        title += " (numbers: micro-batches)"
    axes.set_title(title, fontsize=12)
    work_legend(figure, (*COMPUTED, *(part for part in EXCHANGE if part != "other" and any(sent.values()))), blank=True)
    return figure


def bar(
    axes: Axes, y: float, start_ms: float, end_ms: float, look: tuple[str, str], height: float = 0.62, edge: str = "white"
) -> None:
    """One bar of a timeline, from start to end, with a colour and a hatch."""
    axes.barh(y, end_ms - start_ms, left=start_ms, height=height, color=look[0], hatch=look[1], edgecolor=edge, linewidth=0.3)


def side_by_side(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Messages in rows such that those of a row do not overlap: each goes to the first row that is free when it is called."""
    rows: list[list[dict[str, Any]]] = []
    for message in sorted(messages, key=lambda one: one["called"]):
        free = next((row for row in rows if row[-1]["ended"] <= message["called"]), None)
        if free is None:
            rows.append([message])
        else:
            free.append(message)
    return rows


def message_name(message: dict[str, Any]) -> str:
    """What a message is, in words: "all_reduce 689 KiB", "send to rank 2, 689 KiB"."""
    peer = {"send": f" to rank {message['peer']},", "recv": f" from rank {message['peer']},"}.get(message["verb"], "")
    n = message["bytes"]
    amount = f"{n / 2**20:.1f} MiB" if n >= 2**20 else f"{n / 2**10:.0f} KiB" if n >= 2**10 else f"{n} B"
    return f"{message['verb']}{peer} {amount}"


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
        for kind in (*COMPUTED, *EXCHANGE):
            width = slowest[f"{kind}_s"] * 1e3
            colour, hatch = LOOKS[kind]
            axes.barh(
                y, width, left=left, height=0.62, color=colour, hatch=hatch, edgecolor="#bbbbbb" if kind == "other" else "white"
            )
            left += width
        text = f"{left:,.0f} ms" if left >= 100 else f"{left:,.1f} ms"
        axes.annotate(text, (left, y), (6, 0), textcoords="offset points", va="center", fontsize=11)
    axes.set_yticks(range(len(traces)), list(reversed(traces)), fontsize=11)
    axes.set_ylim(-0.6, len(traces) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel("the median step of the slowest rank (ms)")
    work_legend(figure, (*COMPUTED, *EXCHANGE))
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
    handles = []
    for kind in kinds:
        edge = "#bbbbbb" if kind == "other" else "white"
        handles.append(Patch(facecolor=LOOKS[kind][0], hatch=LOOKS[kind][1], edgecolor=edge, label=WORDS.get(kind, kind)))
    if blank:
        handles.append(Patch(facecolor="white", edgecolor="#bbbbbb", label="waiting, messages and the rest"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=11)
