"""Drawings, and figures of results and of probes, for notebooks. Each has a sentence that says what it shows."""

import statistics
from typing import Any

from labkit.engine.formula import sent_by_formula
from labkit.notebook.cells import Grid, Picture, Text
from labkit.notebook.ran import Ran
from labkit.probes.doctor import examine
from labkit.probes.trace import Trace
from labkit.probes.wire import BEFORE, wire
from labkit.probes.wire import latency as waits
from labkit.processes.launch import in_a_rank
from labkit.results.metrics import METRIC
from labkit.results.ranks import agreement as ranks
from labkit.results.readings import TABLES
from labkit.rows.fields import SpecError, nearest
from labkit.system.fonts import check_backend


def drawing(name: str) -> Picture:
    """A drawing that explains something; `labkit.drawings.gallery` lists the names. Raises SpecError for an unknown name."""
    check_backend()
    from labkit.drawings import gallery as drawings  # late: keeps matplotlib out of a process that does not need it

    return Picture(drawings.drawing(name), drawings.alt(name))


def networks() -> Grid:
    """Parameters, MiB of gradients, and multiply-adds of the three networks at the published size, computed from `labkit.engine.models`."""
    from labkit.drawings.models import NETWORKS  # late: keeps matplotlib out of a process that does not need it

    lines: list[dict[str, Any]] = []
    for model, parts in in_a_rank("labkit.drawings.computed:parts_of", models=NETWORKS).items():
        parameters, work = (sum(part[key] for part in parts) for key in ("parameters", "work"))
        lines.append({"model": model, "parameters": parameters / 1e6, "mib": 4 * parameters / 2**20, "work": work / 1e9})
        lines[-1] |= {"per_byte": work / (4 * parameters), "times": lines[-1]["work"] / lines[0]["work"]}
    headings = {"model": "published size", "parameters": "P (10⁶ parameters)", "mib": "gradients (MiB)", "work": "M (10⁹)"}
    return Grid(lines, headings | {"times": "work, relative", "per_byte": "per image and byte: M / (4 · P)"})


def check_machine() -> Grid:
    """Problems of this machine that could disturb a run, and what to do about them: `labkit doctor` as a table."""
    return Grid(
        [vars(finding) for finding in examine()], {"level": "", "what": "checked", "text": "result", "remedy": "what to do"}
    )


def accuracy(ran: Ran, *more: Ran) -> Picture | Text:
    """Test accuracy over epochs and over time, of all rows that ran. If several runs have a row of the same name, its overrides follow the name."""
    from labkit.plots.lessons import accuracy_figure  # late: keeps matplotlib out of a process that does not need it

    results = dict(ran.results)
    for other in more:
        for name, repeats in other.results.items():
            changed = repeats[0].label.partition("+")[2]
            results[f"{name} ({changed})" if name in results else name] = repeats
    return picture_or_note(accuracy_figure, results, "Test accuracy over epochs and over time")


def overview(name: str, ran: Ran) -> Picture | Text:
    """An overview of the report: throughput, accuracy_over_time or memory_and_throughput. Raises SpecError for another name."""
    from labkit.plots.overviews import PLOTS  # late: keeps matplotlib out of a process that does not need it

    if name not in PLOTS:
        raise SpecError(f"overview '{name}'{nearest(name, PLOTS)}")
    return picture_or_note(PLOTS[name], ran.results, name.replace("_", " "))


PUBLISHED_FIGURES = {
    "outside_figure": "Seconds of an epoch outside training, against images/s, for each published row",
    "memory_figure": "The published memory against the batch of one device, and what the line does not explain",
}


def reading(name: str) -> Grid | Picture:
    """What arithmetic tells of the published table: a table of `labkit.results.readings`, or a figure of `labkit.plots.published`.
    Raises SpecError for an unknown name."""
    if name in PUBLISHED_FIGURES:
        from labkit.plots.published import PICTURES  # late: keeps matplotlib out of a process that does not need it

        return Picture(PICTURES[name](), PUBLISHED_FIGURES[name])
    if name not in TABLES:
        raise SpecError(f"reading '{name}'{nearest(name, [*TABLES, *PUBLISHED_FIGURES])}")
    table = TABLES[name]()
    return Grid(table.lines, table.headings, table.note)


AGREEMENT = {"unknown": "unknown: too few rows", "mostly": "mostly the same order", "partly": "partly the same order"}
AGREEMENT |= {"untold": "too noisy to tell", "hardly": "almost no common order", "reversed": "the opposite order"}


def agreement(ran: Ran) -> Grid:
    """Do all rows together have the published order? Rank correlations (Spearman's rho, Kendall's tau), and numbers of pairs of rows.
    There is no correlation where most pairs cannot be told apart here: then the order of the medians is mostly chance."""
    lines = [
        {**one, **one["kinds"], "figure": METRIC[one["figure"]].title["en"], "level": AGREEMENT[one["level"]]}
        for one in ranks(ran.rows())
    ]
    headings = {
        "figure": "figure",
        "n": "rows",
        "level": "order",
        "spearman": "Spearman",
        "kendall": "Kendall",
        "pairs": "pairs of rows",
    }
    kinds = {"same": "as published", "opposite": "in the opposite order", "equal": "indistinguishable in both"}
    kinds |= {"tie_only_here": "different as published, indistinguishable here", "untold": "too noisy to tell here"}
    return Grid(lines, headings | kinds | {"tie_only_published": "indistinguishable as published, different here"})


def factors(ran: Ran, *names: str) -> Picture | Text:
    """Images/s of these rows in this order, each also as a factor relative to the row before."""
    from labkit.plots.lessons import factor_ladder  # late: keeps matplotlib out of a process that does not need it

    rates = {name: rate for name in map(ran.name_here, names) if (rate := ran.value("images_per_s", name))}
    return picture_or_note(factor_ladder, rates, "Throughput of the rows, each as a factor relative to the one before")


def staleness(ran: Ran) -> Picture | Text:
    """A histogram of the staleness of gradients (updates late), for every row with a parameter server."""
    from labkit.plots.lessons import staleness_figure  # late: keeps matplotlib out of a process that does not need it

    histograms = {}
    for name, repeats in ran.results.items():
        counted = repeats[0].strategy
        if "staleness" in counted:
            histograms[name] = {int(updates): gradients for updates, gradients in counted["staleness"].items()}
    return picture_or_note(staleness_figure, histograms, "Staleness of the applied gradients")


def timeline(trace: Any, step: int = 0) -> Picture | Text:
    """The timeline of one recorded step: what every rank did, and when.

    `trace` None: the row cannot run here; a sentence says so."""
    from labkit.plots.traces import timeline_figure  # late: keeps matplotlib out of a process that does not need it

    if trace is None:
        return NOT_HERE
    trace = getattr(trace, "trace", trace)
    return Picture(timeline_figure(trace, step), f"Timeline of one step of {trace.spec.name}")


def split(traces: dict[str, Any]) -> Picture | Text:
    """How the time of a step divides into parts, for several traces. Rows that cannot run here (None) are left out."""
    from labkit.plots.traces import split_figure  # late: keeps matplotlib out of a process that does not need it

    return picture_or_note(split_figure, only_traces(traces), "Parts of the time of a step")


def holds(traces: dict[str, Any]) -> Picture | Text:
    """The tensors that each rank holds in memory: parameters, gradients, optimizer state, activations, in MiB."""
    from labkit.plots.traces import holds_figure  # late: keeps matplotlib out of a process that does not need it

    return picture_or_note(holds_figure, only_traces(traces), "What each rank holds")


def only_traces(traces: dict[str, Any]) -> dict[str, Trace]:
    """The traces that there are; of a row that was traced in rounds, the first."""
    return {name: getattr(one, "trace", one) for name, one in traces.items() if one}


def messages(ranks: int = 2, **more: Any) -> Picture:
    """The time of an all-reduce over the size of its message, measured now, or earlier on this machine. `more`: see `labkit.probes.wire.wire`."""
    from labkit.plots.wire import wire_figure as figure  # late: keeps matplotlib out of a process that does not need it

    return Picture(figure(wire(ranks, **more)), "Time of an all-reduce, and of a memory copy, over the size of the message")


def latency(step: Any = None, ranks: int = 2) -> Grid:
    """The latency of a message of one number after other messages, a pause, computing, and copying; and at the end of the steps of
    the trace `step`, if there is one. The note says which of them differ beyond their spread (quartiles that do not overlap)."""
    keys = ("median", "low", "high", "min", "max")
    lines = [{"before": BEFORE[one["before"]], **{key: 1e6 * one[f"{key}_s"] for key in keys}} for one in waits(ranks)]
    reasons = [
        (0, 1, "Threads that sleep must be woken by the kernel"),
        (1, 2, "Sleeping threads are not the whole cause, because a rank that computed waits longer"),
        (2, 3, "What a message needs is no longer in the caches"),
    ]
    told = [
        f"{why}: {lines[b]['median']:,.0f} µs after {lines[b]['before']}, {lines[a]['median']:,.0f} after {lines[a]['before']}."
        if lines[b]["low"] > lines[a]["high"]
        else f"After {lines[b]['before']} it is not longer, beyond the spread, than after {lines[a]['before']}."
        for a, b, why in reasons
    ]
    if step and step.link:
        lines.append({"before": f"a training step of {step.spec.name}", "median": 1e6 * step.link["group"][0]})
    headings = {
        "before": "before the message",
        "median": "latency (µs, median)",
        "low": "a quarter is below",
        "high": "a quarter is above",
    }
    about = "From the last rank's call of an all-reduce of one number until every rank goes on."
    return Grid(lines, headings | {"min": "least", "max": "most"}, " ".join([about, *told]))


def sent(ran: Ran) -> Grid:
    """What each rank sends in a training step: messages and bytes as counted, by the formula, and as the kernel counted them."""
    lines: list[dict[str, Any]] = []
    for name, repeats in ran.results.items():
        spec = repeats[0].spec
        for rank in repeats[0].ranks:
            line: dict[str, Any] = {"row": name, "rank": "server" if spec.is_server(rank.rank) else rank.rank}
            if (counted := rank.messages_per_step) is not None:
                sends = [sent_by_formula(verb, n, spec.processes, spec.backend) for verb, (_, n) in counted.items()]
                line["verbs"] = ", ".join(f"{count:g} {verb}" for verb, (count, _) in counted.items()) or "none"
                line["payload"] = sum(n for _, n in counted.values()) / 2**10
                line["formula"] = None if None in sends else sum(n for n in sends if n is not None) / 2**10
            kernel = rank.sent_bytes_per_step
            lines.append(line | {"kernel": None if kernel is None else kernel / 2**10})
    headings = {"row": "row", "rank": "rank", "verbs": "messages in a step", "payload": "their payload (KiB)"}
    note = (
        "Payload: the whole tensor of each message, sent or received. By the formula: what of it the rank sends. The kernel counts "
        "all bytes that left the process, with gloo's headers; –: not counted (NCCL does not use these sockets)."
    )
    return Grid(lines, headings | {"formula": "sent, by the formula (KiB)", "kernel": "sent, counted by the kernel (KiB)"}, note)


PARTS = {  # of `labkit.probes.parts` -> in words, and what would make it shorter
    "moving": ("moving bytes", "A faster link, or fewer bytes, would help."),
    "latency": ("latency", "Fewer messages would help; a faster link would not."),
    "delayed": (
        "delays of messages that neither latency nor bytes explain",
        "So it is when the threads that send must wait for a core. A faster link would not help.",
    ),
    "peer": ("waiting for a slower rank", "Ranks that come at the same time would help; a faster link would not."),
    "waking": ("waking up after a message", "A faster link would not help."),
    "other": ("the rest (copies, Python, the loss)", "A faster link would not help."),
}


def exchange(traces: Any) -> Text:
    """What the ranks of a trace did while they computed nothing, and whether a faster link would help: only if moving bytes is the
    largest part, beyond the spread of the recorded steps. Times are means over the training ranks; median, least and most of the
    steps, of a row that was traced in rounds over all rounds. Of several traces, {name: trace}, a list."""
    if isinstance(traces, dict):
        return Text("\n".join(f"- **{name}**: {exchange(one)}" for name, one in traces.items()))
    waited = traces and traces.waited()
    if not waited:
        return Text("*Not measured: the row did not run here, sent no message, or sent its messages over NCCL.*")

    def told(part: str) -> str:
        ms = [1e3 * s for s in waited.seconds[part]]
        return f"{statistics.median(ms):.1f} ms ({min(ms):.1f} to {max(ms):.1f})"

    shares = [100 * moved / step for moved, step in zip(waited.seconds["moving"], waited.seconds["step"], strict=True)]
    order = sorted(PARTS, key=lambda part: -statistics.median(waited.seconds[part]))
    parts = "; ".join(f"{PARTS[part][0]} {told(part)}" for part in order)
    text = f"A step takes {told('step')}. While its ranks compute nothing: {parts}. "
    if waited.clear:
        text += f"The largest part, beyond the spread, is {PARTS[waited.largest][0]}. {PARTS[waited.largest][1]} "
    else:
        why = (
            "other programs used the cores meanwhile" if waited.busy else "no part is the largest beyond the spread of the steps"
        )
        text += f"Which part decides: too noisy to tell ({why}). "
        if waited.busy:
            return Text(text)
    return Text(f"{text}Moving the bytes is {min(shares):.1f} to {max(shares):.1f} % of a step; a faster link cannot save more.")


def picture_or_note(draw: Any, data: Any, alt: str) -> Picture | Text:
    """The picture `draw(data)`; a sentence instead if there is no data. `data`: a dict by name; the names are added to `alt`."""
    return Picture(draw(data), f"{alt}: {', '.join(data)}") if data else NOT_HERE


NOT_HERE = Text("*No picture: the rows that it needs did not run on this machine.*")
