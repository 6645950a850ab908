"""Drawings, and figures of results and of probes, for notebooks. Each has a sentence that says what it shows."""

from typing import Any

from labkit.notebook.cells import Grid, Picture, Text
from labkit.notebook.ran import Ran
from labkit.probes.doctor import examine
from labkit.probes.wire import wire
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
AGREEMENT |= {"hardly": "almost no common order", "reversed": "the opposite order"}


def agreement(ran: Ran) -> Grid:
    """Do all rows together have the published order? Rank correlations (Spearman's rho, Kendall's tau), and numbers of pairs of rows."""
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
    return Grid(
        lines, headings | {"same": "as published", "equal": "indistinguishable in both", "opposite": "in the opposite order"}
    )


def factors(ran: Ran, *names: str) -> Picture | Text:
    """Images/s of these rows in this order, each also as a factor relative to the row before."""
    from labkit.plots.lessons import factor_ladder  # late: keeps matplotlib out of a process that does not need it

    here = {
        name: ran.results[name] for name in map(ran.name_here, names) if name in ran.results
    }  # by the name of the row that ran
    return picture_or_note(factor_ladder, here, "Throughput of the rows, each as a factor relative to the one before")


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

    return Picture(timeline_figure(trace, step), f"Timeline of one step of {trace.spec.name}") if trace else NOT_HERE


def split(traces: dict[str, Any]) -> Picture | Text:
    """How the time of a step divides into parts, for several traces. Rows that cannot run here (None) are left out."""
    from labkit.plots.traces import split_figure  # late: keeps matplotlib out of a process that does not need it

    return picture_or_note(split_figure, {name: trace for name, trace in traces.items() if trace}, "Parts of the time of a step")


def holds(traces: dict[str, Any]) -> Picture | Text:
    """The tensors that each rank holds in memory: parameters, gradients, optimizer state, activations, in MiB."""
    from labkit.plots.traces import holds_figure  # late: keeps matplotlib out of a process that does not need it

    return picture_or_note(holds_figure, {name: trace for name, trace in traces.items() if trace}, "What each rank holds")


def messages(ranks: int = 2, **more: Any) -> Picture:
    """The time of an all-reduce over the size of its message, measured now, or earlier on this machine. `more`: see `labkit.probes.wire.wire`."""
    from labkit.plots.wire import wire_figure as figure  # late: keeps matplotlib out of a process that does not need it

    return Picture(figure(wire(ranks, **more)), "Time of an all-reduce, and of a memory copy, over the size of the message")


def picture_or_note(draw: Any, data: Any, alt: str) -> Picture | Text:
    """The picture `draw(data)`; a sentence instead if there is no data. `data`: a dict by name; the names are added to `alt`."""
    return Picture(draw(data), f"{alt}: {', '.join(data)}") if data else NOT_HERE


NOT_HERE = Text("*No picture: the rows that it needs did not run on this machine.*")
