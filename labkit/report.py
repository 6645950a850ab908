"""The report: result folders in, report.md and its plots out. Trains nothing; every row links to the runs it comes from."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from labkit import beside, params
from labkit.markdown import link, plain, table
from labkit.provenance import opening
from labkit.verdict import Row

FIGURES = (("best_acc_pct", 2), ("images_per_s", 1), ("max_mem_mb", 0), ("total_time_s", 1))  # with digits, as published
MEMORY = {"cpu": "growth of the process's peak resident set", "cuda": "CUDA allocator's peak"}
TIMES = ("startup_s", "train_s", "data_wait_s", "eval_s", "rest_s", "total_time_s")
TIMES_HEADER = ["Row", "Start-up (s)", "Train (s)", "of it waiting for data", "Evaluation (s)", "Rest (s)", "Total (s)"]
STANDS_FOR = """\
† Also stands for the NCCL row of the same settings, which did not run here (see the next table). What is shown is Gloo's."""
MEANING = """\
## What the figures mean

- **Best Acc**: the best test accuracy after any epoch. All test images, shared by the ranks, each counted once.
- **Avg Throughput**: images trained per second by all ranks together, without each run's warm-up steps and without
  evaluation. Images at the end of an epoch that do not fill a step of all ranks are left out of that epoch; each epoch
  has another order.
- **Max memory** of the rank that needed most, in units of 2^20 bytes. CUDA: the allocator's peak while training. CPU: by
  how much the process's peak resident set grew, from before data and model were there.
- **Total Time**: from the call that launches a row until its ranks have ended.
- **Start-up**: from the same call to the first step. **Waiting for data**: the part of training in which a rank had no
  batch yet (the rank that waited most). **Rest**: beginning and ending the processes, and what lies
  between epochs.
- **Batch Size**: images behind one update of the weights; for an asynchronous server, the push of one worker."""


def write_report(profile: str = "quick", overrides: dict[str, Any] | None = None, path: Path | None = None) -> Path:
    """Write report.md, and plots/ beside it, from what lies in the profile's result folders. Returns its path.

    The same folders give the same bytes. `path` defaults to report.md in the repository's root; it is replaced whole or
    not at all. Raises SpecError for an unknown profile or a bad override.
    """
    from labkit.plots import save_plots, write_whole

    path = Path(path or params.ROOT / "report.md").absolute()
    report = Report(profile, overrides or {}, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = save_plots({row.name: row.good for row in report.ran}, path.parent / "plots")
    write_whole(path, report.markdown(pictures).encode())
    return path


class Report:
    """What one profile's folders hold, and the sections that tell it. Links are relative to `folder`, the report's."""

    def __init__(self, profile: str, overrides: dict[str, Any], folder: Path):
        from labkit.folders import label_of, runs_folder
        from labkit.results import read_results
        from labkit.runs import plan

        planned, label = plan("all", profile, overrides), label_of(profile, overrides)
        self.profile, self.overrides = params.profile(profile), overrides
        self.runs = Path(os.path.relpath(runs_folder().absolute() / label, folder))
        found = read_results(label)
        good = {name: [r for r in results if r["status"] == "ok"] for name, results in found.items()}
        bad = {name: [r for r in results if r["status"] != "ok"] for name, results in found.items()}
        self.rows = [
            Row(p.name, p.reason, tuple(n for n in p.stands_for if not good.get(n)), good.get(p.name, []), bad.get(p.name, []))
            for p in planned
        ]
        # Where NCCL ran, its Gloo stand-in is not missing.
        spare = {p.name for p in planned if p.stands_for and all(map(good.get, p.stands_for))} - set(params.all_names())
        self.rows = [row for row in self.rows if row.name in found or row.name not in spare]
        self.others = sorted(found.keys() - {row.name for row in self.rows})
        self.ran = sorted((row for row in self.rows if row.good), key=lambda row: (-(row.middle("images_per_s") or 0), row.name))
        self.results = [result for row in self.ran for result in row.good]

    def markdown(self, pictures: list[Path]) -> str:
        start = opening(self.profile, self.overrides, self.results)
        parts = [start, self.table_of_results(), self.plots(pictures), self.not_here()]
        if self.ran:
            parts += [beside.section(self.rows, self.link), self.time(), MEANING + self.staleness()]
        return "\n\n".join(part for part in [*parts, self.again()] if part) + "\n"

    def link(self, name: str, repeat: int | None = None) -> str:
        return link(name, self.runs / name / (str(repeat) if repeat else ""))

    def settings(self) -> str:
        return "".join(f" --set {key}={value}" for key, value in sorted(self.overrides.items()))

    def table_of_results(self) -> str:
        if not self.ran:
            return "## Results\n\nNone yet."
        devices = sorted({result["spec"]["device"] for result in self.results})
        memory = MEMORY[devices[0]] if len(devices) == 1 else "; ".join(f"{d.upper()}: {MEMORY[d]}" for d in devices)
        header = ["Experiment", "Model", "Batch Size", "Best Acc (%)", "Avg Throughput (img/s)"]
        header += [f"Max memory (MB; {memory})", "Total Time (s)"]
        lines = []
        for row in self.ran:
            name = self.link(row.name, row.good[0]["repeat"] if len(row.good) == 1 else None) + (" †" if row.stands_for else "")
            lines.append([name, row.spec.model, str(row.spec.batch_size), *(with_spread(row, *figure) for figure in FIGURES)])
        parts = ["## Results", table(header, lines, right_from=2)]
        if any(row.stands_for for row in self.ran):
            parts.append(STANDS_FOR)
        if self.others:
            parts.append(f"In the same folder, but in no group: {', '.join(map(self.link, self.others))}.")
        return "\n\n".join(parts)

    def plots(self, pictures: list[Path]) -> str:
        names = [picture.stem for picture in pictures if picture.suffix == ".png"]
        if not names:
            return ""
        first, *more = (f"[{name.replace('_', ' ')}](plots/{name}.png)" for name in names)
        return f"!{first}\n\nFurther plots: {', '.join(more)}. Each is in [plots](plots) as SVG too."

    def not_here(self) -> str:
        lines = []
        for row in self.rows:
            for result in row.bad:
                which = f", repeat {result['repeat']}" if len(row.good) + len(row.bad) > 1 else ""
                lines.append([self.link(row.name, result["repeat"]), result["status"] + which, plain(result["reason"])])
            if row.reason and not row.good + row.bad:
                lines.append([plain(row.name), "cannot run here", plain(row.reason)])
            elif not row.good + row.bad:
                command = f"`labkit run {row.name} --profile {self.profile.name}{self.settings()}`"
                lines.append([plain(row.name), "not run yet", command])
        header = ["Row", "Status", "What it needs, or what went wrong"]
        told = table(header, lines, right_from=3) if lines else "None: every row of every group ran."
        return f"## Rows that did not run here\n\n{told}"

    def time(self) -> str:
        lines = []
        for row in self.ran:
            each = [time_parts(result) for result in row.good]
            cells = {key: f"{statistics.median(parts[key] for parts in each):.2f}" for key in TIMES}
            waiting = statistics.median(parts["data_wait_s"] / parts["train_s"] for parts in each)
            cells["data_wait_s"] += f" ({100 * waiting:.0f} %)"
            lines.append([self.link(row.name), *cells.values()])
        sums = {key: sum(time_parts(result)[key] for result in self.results) for key in TIMES}
        share = {key: f"{100 * sums[key] / sums['total_time_s']:.0f} %" for key in TIMES}
        return (
            f"## Where the time went\n\n{table(TIMES_HEADER, lines)}\n\n"
            f"Of the {sums['total_time_s']:.1f} s that these {len(self.results)} runs took in all, {share['train_s']} was "
            f"training, {share['eval_s']} evaluation, {share['startup_s']} start-up and {share['rest_s']} the rest."
        )

    def staleness(self) -> str:
        """A line for each server row: how many gradients were applied how many updates late."""
        lines = []
        for row in self.ran:
            late: Counter[int] = Counter()
            for result in row.good:
                late.update({int(updates): n for updates, n in result["strategy"].get("staleness", {}).items()})
            if late:
                told = ", ".join(f"{updates} for {gradients} gradients" for updates, gradients in sorted(late.items()))
                lines.append(f"\n- **Staleness** in {self.link(row.name)}: {told}.")
        what = "\n  Staleness is the number of updates between reading the weights and applying the gradient computed on them."
        return "".join(lines) + (what if lines else "")

    def again(self) -> str:
        name, settings = self.profile.name, self.settings()
        make = "make report" + f" PROFILE={name}" * (name != "quick") + f' ARGS="{settings.strip()}"' * bool(settings)
        return (
            f"## How to repeat this\n\n`{make}`, or `labkit report --profile {name}{settings}`. Rows that have a valid "
            "result are not trained again; with `--fresh` all are."
        )


def with_spread(row: Row, key: str, digits: int) -> str:
    """The median, and over several repeats their range if it shows: `4785.2 (4700.1–4801.0)`."""
    values = row.values(key)
    if not values:
        return "–"
    median, least, most = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return median if least == most else f"{median} ({least}–{most})"


def time_parts(result: dict[str, Any]) -> dict[str, float]:
    """Where a run's time went, in seconds, by the rank that trained longest. The rest is what nobody claims."""
    rank = max((rank for rank in result["ranks"] if rank["shard"] is not None), key=lambda rank: rank["train_s"])
    start, train, evaluation = rank["first_step_at"] - result["started_at"], rank["train_s"], rank["eval_s"]
    rest = result["total_time_s"] - start - train - evaluation
    return dict(zip(TIMES, (start, train, result["data_wait_s"], evaluation, rest, result["total_time_s"]), strict=True))
