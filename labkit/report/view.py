"""The report as plain data: all its content, without its words. The templates say it, in two languages.

Figures are texts with the digits that are shown; None where there is none. Links are relative to the report's folder, by
row name in `links`.
"""

import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from labkit.report.source import FILE, Source, relative
from labkit.results import groups, provenance
from labkit.results.metrics import PUBLISHED
from labkit.results.ranks import agreement
from labkit.results.table import TIMES, good, time_parts
from labkit.results.verdict import Row
from labkit.rows import params
from labkit.runs.plan import Planned
from labkit.runs.result import NoResult, Outcomes, Results


class Found:
    """What the source of a report holds, as rows. `folder`: where the report lies."""

    def __init__(self, source: Source, folder: Path):
        self.source, self.folder = source, folder
        planned, found = source.planned, source.outcomes
        ended_well = good(found)
        self.rows = [row_of(one, found, ended_well) for one in planned]
        # Where NCCL ran, its Gloo stand-in is not missing.
        spare = {p.name for p in planned if p.stands_for and all(map(ended_well.get, p.stands_for))} - set(params.all_names())
        self.rows = [row for row in self.rows if row.name in found or row.name not in spare]
        self.others = sorted(found.keys() - {row.name for row in self.rows})
        self.ran = sorted((row for row in self.rows if row.good), key=lambda row: (-(row.median("images_per_s") or 0), row.name))
        self.results = [result for row in self.ran for result in row.good]

    def link(self, name: str, repeats: list[int]) -> str:
        """The way to what a row's runs left."""
        return self.source.link(self.folder, name, repeats)


def row_of(planned: Planned, found: Outcomes, ended_well: Results) -> Row:
    """A planned row with its outcomes. It stands for an NCCL row only where that has no result of its own."""
    name, stands_for = planned.name, tuple(other for other in planned.stands_for if other not in ended_well)
    bad = [one for one in found.get(name, []) if isinstance(one, NoResult)]
    return Row(name, planned.reason, stands_for, ended_well.get(name, []), bad)


def view(found: Found) -> dict[str, Any]:
    """All that the report tells. A published report says nothing of the machine that it is read on."""
    source, profile = found.source, found.source.profile
    notes = provenance.notes(profile, source.overrides, found.results)
    return {
        "profile": profile.name,
        "file": FILE if source.published else None,
        "about": {"en": profile.about, "zh": profile.about_zh},
        "changed": [f"{key}={value}" for key, value in sorted(source.overrides.items())],
        "settings": source.settings,
        "facts": provenance.facts(found.results) if found.ran else None,
        "notes": [note for note in notes if not (source.published and note["kind"] == "other_machine")],
        "devices": sorted({result.spec.device for result in found.results}),
        "results": [line_of(row) for row in found.ran],
        "others": found.others,
        "groups": [groups.of_group(group, found.rows, source.rounds) for group in params.groups()],
        "absent": absent(found),
        "agreement": agreement(found.rows) if found.ran else [],
        "time": time(found) if found.ran else None,
        "staleness": staleness(found),
        "notebooks": notebooks(found),
        "links": links(found),
    }


def links(found: Found) -> dict[str, str]:
    """Where each row's results lie: those of its run, or of all its repeats."""
    outcomes = {row.name: row.good or row.bad for row in found.rows} | {
        name: found.source.outcomes[name] for name in found.others
    }
    return {name: found.link(name, [one.repeat for one in runs]) for name, runs in outcomes.items() if runs}


def line_of(row: Row) -> dict[str, Any]:
    """A line of the table in the published form."""
    figures = {metric.key: with_spread(row, metric.key, metric.digits) for metric in PUBLISHED}
    stands_for = bool(row.stands_for)
    return {"name": row.name, "stands_for": stands_for, "model": row.spec.model, "batch_size": row.spec.batch_size, **figures}


def with_spread(row: Row, key: str, digits: int) -> str | None:
    """The median, and over several repeats their range if it shows: `4785.2 (4700.1–4801.0)`."""
    values = row.values(key)
    if not values:
        return None
    median, least, most = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return median if least == most else f"{median} ({least}–{most})"


def absent(found: Found) -> list[dict[str, Any]]:
    """Runs that gave no result, with the reason that they left; and rows without a run, with what they need or how to run them."""
    lines: list[dict[str, Any]] = []
    for row in found.rows:
        nothing: dict[str, Any] = {"name": row.name, "href": None, "repeat": None, "reason": None, "command": None}
        for result in row.bad:
            repeat = result.repeat if len(row.good) + len(row.bad) > 1 else None
            told = {"href": found.link(row.name, [result.repeat]), "repeat": repeat, "reason": result.reason}
            lines.append(nothing | told | {"status": result.status})
        if row.good or row.bad:
            continue
        if row.reason:
            lines.append(nothing | {"status": "needs", "reason": row.reason})
        else:
            command = f"labkit run {row.name} {found.source.settings}"
            lines.append(nothing | {"status": "not run", "command": command})
    return lines


def time(found: Found) -> dict[str, Any]:
    """Parts of the time of each row, and of all rows together."""
    lines = []
    for row in found.ran:
        each = [time_parts(result) for result in row.good]
        medians = {key: f"{statistics.median(parts[key] for parts in each):.2f}" for key in TIMES}
        waiting = statistics.median(parts["data_wait_s"] / parts["train_s"] for parts in each)
        lines.append({"name": row.name, **medians, "waiting_pct": f"{100 * waiting:.0f}"})
    sums = {key: sum(time_parts(result)[key] for result in found.results) for key in TIMES}
    shares = {key: f"{100 * sums[key] / sums['total_time_s']:.0f}" for key in TIMES}
    return {"rows": lines, "runs": len(found.results), "total_s": f"{sums['total_time_s']:.1f}", "shares_pct": shares}


def staleness(found: Found) -> list[dict[str, Any]]:
    """For each server row: how many gradients were applied how many updates late."""
    lines = []
    for row in found.ran:
        late: Counter[int] = Counter()
        for result in row.good:
            late.update({int(updates): n for updates, n in result.strategy.get("staleness", {}).items()})
        if late:
            lines.append({"name": row.name, "counts": [{"updates": updates, "n": n} for updates, n in sorted(late.items())]})
    return lines


def notebooks(found: Found) -> list[dict[str, Any]]:
    """How the notebooks ended whose results these are, if a batch ran them; with links to what there is of them. A published
    report brings no executed notebook with it, and leads to the notebook itself."""
    lines = []
    for status in found.source.notebooks:
        itself, files = found.folder / "notebooks" / f"{status.notebook}.ipynb", dict[str, str]()
        if not found.source.published:
            paths = {
                ending: found.source.folder / "notebooks" / f"{status.notebook}.{ending}" for ending in ("html", "ipynb", "log")
            }
            files = {ending: relative(path, found.folder) for ending, path in paths.items() if path.exists()}
        told: dict[str, Any] = {
            "name": status.notebook,
            "status": status.status,
            "reason": status.reason,
            "seconds": f"{status.seconds:.0f}",
        }
        href = relative(itself, found.folder) if found.source.published and itself.exists() else None
        lines.append(told | {"href": href, "files": files})
    return lines
