"""What the notebooks show besides tables: drawings, and figures of results and of probes, each with a sentence for who cannot see it."""

from __future__ import annotations

from typing import Any

from labkit.notebook.cells import Grid, Picture, Text
from labkit.notebook.ran import Ran
from labkit.results.metrics import METRIC


def drawing(name: str) -> Picture:
    """A drawing of how something works (`labkit.drawings.gallery` has them all). Raises SpecError for an unknown name."""
    from labkit.system.fonts import check_backend

    check_backend()
    from labkit.drawings import gallery as drawings

    return Picture(drawings.drawing(name), drawings.alt(name))


def networks() -> Grid:
    """Parameters, bytes of gradients and work of the three networks at the published size, computed from `labkit.engine.models`."""
    from labkit.drawings.models import NETWORKS
    from labkit.processes.launch import in_a_rank

    lines: list[dict[str, Any]] = []
    for model, parts in in_a_rank("labkit.drawings.computed:parts_of", models=NETWORKS).items():
        parameters, work = (sum(part[key] for part in parts) for key in ("parameters", "work"))
        lines.append({"model": model, "parameters": parameters / 1e6, "mib": 4 * parameters / 2**20, "work": work / 1e9})
        lines[-1] |= {"per_byte": work / (4 * parameters), "times": lines[-1]["work"] / lines[0]["work"]}
    headings = {"model": "published size", "parameters": "P (10⁶ parameters)", "mib": "gradients (MiB)", "work": "M (10⁹)"}
    return Grid(lines, headings | {"times": "work, relative", "per_byte": "per image and byte: M / (4 · P)"})


def check_machine() -> Grid:
    """What of this machine could spoil a run, and what to do about it: `labkit doctor` as a table."""
    from labkit.probes.doctor import examine

    return Grid(
        [vars(finding) for finding in examine()], {"level": "", "what": "looked at", "text": "found", "remedy": "what to do"}
    )


def accuracy(ran: Ran, *more: Ran) -> Picture | Text:
    """Test accuracy over epochs and over time, of all rows that ran; of several runs, those of one name are told apart by what was set."""
    from labkit.plots.lessons import accuracy_figure

    results = dict(ran.results)
    for other in more:
        for name, found in other.results.items():
            changed = found[0].label.partition("+")[2]
            results[f"{name} ({changed})" if name in results else name] = found
    return picture(accuracy_figure, results, "Test accuracy over epochs and over time")


def overview(name: str, ran: Ran) -> Picture | Text:
    """One of the report's overviews: throughput, accuracy_over_time, memory_and_throughput."""
    from labkit.plots.overviews import PLOTS
    from labkit.rows.fields import SpecError, nearest

    if name not in PLOTS:
        raise SpecError(f"overview '{name}'{nearest(name, PLOTS)}")
    return picture(PLOTS[name], ran.results, name.replace("_", " "))


AGREEMENT = {"unknown": "too few rows to tell", "mostly": "mostly the same order", "partly": "partly the same order"}
AGREEMENT |= {"hardly": "hardly any common order", "reversed": "the other way round"}


def agreement(ran: Ran) -> Grid:
    """Do all rows together stand in the published order? Rank correlations (Spearman's rho, Kendall's tau) and pairs of rows."""
    from labkit.results.ranks import agreement as ranks

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
        lines, headings | {"same": "as published", "equal": "indistinguishable in both", "opposite": "the other way round"}
    )


def factors(ran: Ran, *names: str) -> Picture | Text:
    """Images/s of one row after the other, each as a factor to the one before."""
    from labkit.plots.lessons import factor_ladder

    here = {name: ran.results[name] for name in map(ran.name_here, names) if name in ran.results}  # under the name that ran
    return picture(factor_ladder, here, "What each change brings, one after the other")


def staleness(ran: Ran) -> Picture | Text:
    """How many gradients were applied how many updates late, for every row with a server."""
    from labkit.plots.lessons import staleness_figure

    late = {name: found[0].strategy["staleness"] for name, found in ran.results.items() if "staleness" in found[0].strategy}
    return picture(
        staleness_figure,
        {name: {int(k): n for k, n in one.items()} for name, one in late.items()},
        "Staleness of the applied gradients",
    )


def timeline(trace: Any, step: int = 0) -> Picture | Text:
    """What every rank did when, in one recorded step."""
    from labkit.plots.traces import timeline as figure

    return Picture(figure(trace, step), f"Timeline of one step of {trace.spec.name}") if trace else NOT_HERE


def split(traces: dict[str, Any]) -> Picture | Text:
    """Where the time of a step goes, for several traces side by side. Rows that cannot run here are left out."""
    from labkit.plots.traces import split_figure

    return picture(split_figure, {name: trace for name, trace in traces.items() if trace}, "Where the time of a step goes")


def holds(traces: dict[str, Any]) -> Picture | Text:
    """What each rank keeps in memory: parameters, gradients, optimizer state, activations."""
    from labkit.plots.traces import holds_figure

    return picture(holds_figure, {name: trace for name, trace in traces.items() if trace}, "What each rank holds")


def messages(ranks: int = 2, **more: Any) -> Picture:
    """Time of an all-reduce over its size, measured here now or kept (`labkit.probes.wire`)."""
    from labkit.plots.wire import wire_figure as figure
    from labkit.probes.wire import wire

    return Picture(figure(wire(ranks, **more)), "Time of an all-reduce, and of a memory copy, over the size of the message")


def picture(draw: Any, what: Any, alt: str) -> Picture | Text:
    return Picture(draw(what), f"{alt}: {', '.join(what)}") if what else NOT_HERE


NOT_HERE = Text("*Nothing to show: no row that this needs ran on this machine.*")
