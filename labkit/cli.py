"""The command line: it reads arguments, calls the other packages, and prints with `terminal`."""

import sys
import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

import labkit
from labkit import terminal
from labkit.batch.progress import Watch
from labkit.processes.diagnose import RunFailed
from labkit.rows import params
from labkit.rows.fields import SpecError
from labkit.runs.plan import plan

FAILED, BAD_INPUT, NEEDS, INTERRUPTED = 1, 2, 3, 130
Language = Enum("Language", {"en": "en", "zh": "zh", "both": "both"})  # typer offers these values
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of rows, numbers of groups, or all.")]
Profile = Annotated[str, typer.Option("--profile", "-p", metavar="P", help="The scale: quick, classroom, reference or tiny.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field of Spec; can be repeated.")]
Repeats = Annotated[
    int, typer.Option(metavar="N", help="Train each row N times, and show medians; 0: as often as the profile says.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Train again rows that already have a valid result.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line on stdout, and nothing else.")]
Only = Annotated[str, typer.Option(metavar="N,N", help="Only the notebooks of these numbers.")]
Lang = Annotated[Language, typer.Option(help="Languages of the report.")]
Deadline = Annotated[float | None, typer.Option(metavar="S", help="End a notebook after S seconds.")]
Folder = Annotated[Path | None, typer.Option(metavar="DIR", help="Where the report lies, if not beside the results.")]
Publish = Annotated[bool, typer.Option("--publish", help="Replace the repository's report, and keep its results beside it.")]
Classic = Annotated[bool, typer.Option("--classic", help="Train nothing; write the published report's three sections alone.")]
Rewrite = Annotated[bool, typer.Option("--rewrite", help="Write again what differs, from the same results and pictures.")]
Ranks = Annotated[int, typer.Option(metavar="N", help="Number of ranks, 1 to 8.")]
Pairs = Annotated[int, typer.Option(min=1, metavar="N", help="Number of runs of each side; the sides take turns.")]


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Train the rows of a report on distributed training, and print what was measured.

    Exit codes: 0 every row has a result; 1 a run failed; 2 bad input; 3 this machine cannot run a row that was asked for by name;
    130 interrupted. Results are kept in runs/, or in the folder that LABKIT_RUNS names."""
    if version:
        print("labkit", labkit.__version__)


@app.command()
def rows(profile: Profile = "quick", as_json: Json = False) -> None:
    """List every row, its groups, and whether it runs on this machine.

    \b
    labkit rows --profile classroom --json"""
    from labkit.results.table import here_text, kept_lines  # late: as in `table`

    lines = {line["name"]: line for line in map(terminal.for_print, kept_lines(plan("all", profile)))}
    for name, line in lines.items():
        line["groups"] = [group.number for group in params.groups() if name in group.rows]
        line["runs_as"] = next((twin for twin, other in lines.items() if name in other["stands_for"]), None)
    ordered = [lines[name] for name in params.all_names()]
    if as_json:
        return terminal.print_json(ordered)
    for line in ordered:
        here = here_text(line, terminal.WORDS.get(line["status"], line["status"]))
        line["here"] = f"runs as {line['runs_as']}" if line["runs_as"] else here
        line["groups"] = ", ".join(map(str, line["groups"]))
    terminal.print_table(ordered, {"name": "row", "groups": "groups", "batch_size": "batch size", "here": "on this machine"})


@app.command()
def run(
    names: Names, profile: Profile = "quick", sets: Sets = None, repeats: Repeats = 1, fresh: Fresh = False, as_json: Json = False
) -> None:
    """Train rows. A row that already has a valid result is shown, and not trained again.

    \b
    labkit run 4                                              the rows of group 4
    labkit run collective_gloo_resnet18_bs128x2+form=ring     a row of your own
    labkit run 3 9 --profile classroom --repeats 3
    labkit run all --set epochs=2 --set lr=0.05 --json"""
    lines = train_names(names, profile, terminal.read_sets(sets), repeats, fresh)
    if as_json:
        terminal.print_json(lines)
    else:
        terminal.print_results(lines, ["name", "images_per_s", "best_acc_pct", "max_mem_mib", "startup_s", "total_time_s"])
    plans = [plan(name, profile, terminal.read_sets(sets)) for name in names]
    lacking = [planned.rows[0] for planned in plans if not planned.runnable]
    for row in lacking:
        terminal.print_message(f"{row.name} {row.reason}")
    exit_with(lines, NEEDS if lacking else 0)


@app.command()
def table(profile: Profile = "quick", sets: Sets = None, as_json: Json = False) -> None:
    """Print the results so far, in the form of the published table. Trains nothing.

    \b
    labkit table --profile classroom
    labkit table --set epochs=2          results of runs with the same --set"""
    from labkit.results.table import kept_lines  # late: loads multiprocessing and ssl, which `labkit --help` does not need

    lines = [terminal.for_print(line) for line in kept_lines(plan("all", profile, terminal.read_sets(sets)))]
    lines.sort(key=lambda line: -(line["images_per_s"] or 0))
    if as_json:
        return terminal.print_json(lines)
    terminal.print_results(lines, ["name", "model", "batch_size", "best_acc_pct", "images_per_s", "max_mem_mib", "total_time_s"])


@app.command()
def report(
    profile: Profile = "quick", only: Only = "", sets: Sets = None, repeats: Repeats = 0, fresh: Fresh = False,
    lang: Lang = Language.both, deadline: Deadline = None, folder: Folder = None, publish: Publish = False, classic: Classic = False,
) -> None:  # fmt: skip
    """Execute all notebooks, which train every row that this machine can run, and write the report. What is still valid is kept.

    It goes into runs/<profile>/report/. With --publish it replaces the one that is committed, in both languages.

    \b
    labkit report
    labkit report --profile classroom --repeats 3
    labkit report --only 4,10 --fresh --lang zh
    labkit report --classic"""
    from labkit.batch import batch, notebooks  # late: loads multiprocessing and ssl, which `labkit --help` does not need
    from labkit.report import write  # late: as above
    from labkit.results.table import kept_lines  # late: as above

    began, before = time.monotonic(), batch.results_at()
    overrides, numbers = terminal.read_sets(sets), terminal.read_numbers(only)
    if publish and (classic or lang is not Language.both):
        raise SpecError("--publish: replaces the whole report; leave out --classic and --lang")
    if classic and (only or repeats or fresh or deadline):
        raise SpecError("--classic: trains nothing; leave out --only, --repeats, --fresh and --deadline")
    languages = ("en", "zh") if lang is Language.both else (lang.value,)
    everything, about = plan("all", profile, overrides), params.profile(profile).about
    path = folder / "report.md" if folder else write.report_path(everything.folder, publish)
    write.check_place(path, publish)
    if classic:
        print(*write.write_report(profile, overrides, path, languages, classic=True), sep="\n")
        if not write.from_folders(profile, overrides).has_results:
            terminal.print_message(f"{everything.folder}: holds no results; the figures are those of the committed report")
        return
    names = [notebook.name for notebook in notebooks.discover(numbers)]
    with terminal.notebook_bar(names, Watch(everything.label), about) as on_progress:
        statuses = batch.run_notebooks(profile, numbers, repeats, fresh, overrides, deadline, on_progress=on_progress)
    unwritten = False
    try:
        print(*write.write_report(profile, overrides, path, languages, publish), sep="\n")
    except OSError as error:  # the rows and notebooks that failed, which may be why, are still to be told
        terminal.print_message(error)
        unwritten = True
    new, wall_s = batch.results_since(before), time.monotonic() - began
    trained, tested = (f"{100 * sum(getattr(result, key) for result in new) / wall_s:.0f} %" for key in ("train_s", "eval_s"))
    print(f"wall time {wall_s:.0f} s for {len(new)} new runs: {trained} training, {tested} evaluation")
    rows = "all" if numbers is None else [group.number for group in params.groups() if group.number in numbers]
    lines = [terminal.for_print(line) for line in kept_lines(plan(rows, profile, overrides))] if rows else []
    terminal.print_results([line for line in lines if line["status"] not in ("ok", "needs")], [])
    failed = [status for status in statuses if status.status != "ok"]
    for status in failed:
        print(f"notebook {status.notebook}: {status.status}: {status.reason}")
    exit_with(lines, FAILED if failed or unwritten else 0)


@app.command()
def check(profile: Profile = "quick", sets: Sets = None, folder: Folder = None, rewrite: Rewrite = False) -> None:
    """Make the report's tables and texts again from the results, and compare. Exit code 1 if the files say anything else.

    Where there are no results, as in a fresh clone, the committed report is compared with those that lie beside it.

    \b
    labkit check --profile classroom
    labkit check --folder .              the committed report, also where there are results"""
    from labkit.report.check import check_report, report_files, report_to_check  # late: as in `report`

    overrides = terminal.read_sets(sets)
    path = folder / "report.md" if folder else report_to_check(profile, overrides)
    differences = check_report(profile, overrides, path, rewrite)
    names = ", ".join(file.name for file in report_files(path))
    print(*(differences or [f"{path.parent}: {names}: as the results say"]), sep="\n")
    if differences and rewrite:
        print("written again: the files above are now as the results say")
    raise typer.Exit(FAILED if differences and not rewrite else 0)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine for problems that could disturb a run, and print what to do. Exit code 1 if there is a problem."""
    from labkit.probes.doctor import examine  # late: loads multiprocessing and ssl, which `labkit --help` does not need

    findings = examine()
    terminal.print_json(map(vars, findings)) if as_json else print(*findings, sep="\n")
    raise typer.Exit(FAILED if any(finding.level == "problem" for finding in findings) else 0)


@app.command()
def prove(strategy: Annotated[str, typer.Argument(metavar="STRATEGY")], ranks: Ranks = 2, sets: Sets = None) -> None:
    """Hold a strategy against single in seconds: which gradients differ, by what factor, and why. Exit code 1 if it is not equal.

    \b
    labkit prove collective --set form=ring"""
    proof = labkit.prove(strategy, ranks, **terminal.read_sets(sets))
    print(proof)
    raise typer.Exit(0 if proof else FAILED)


@app.command()
def bench(names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]")] = None, pairs: Pairs = 5) -> None:
    """Measure how much time the lab costs and saves, compared with plain PyTorch. Takes minutes; let nothing else run meanwhile."""
    from labkit.probes import bench  # late: loads multiprocessing and ssl, which `labkit --help` does not need

    bench.main(names or [], pairs)


def train_names(names: list[str], profile: str, overrides: dict[str, Any], repeats: int, fresh: bool) -> list[dict[str, Any]]:
    """Train rows, and show progress on stderr. Returns table lines (see `for_print`)."""
    from labkit.results.table import lines_of  # late: loads multiprocessing and ssl, which `labkit --help` does not need
    from labkit.runs.train import get_ready, train_rows  # late: as above

    repeats = params.repeats(repeats, profile)
    planned = get_ready(names, profile, repeats, fresh, overrides)
    with terminal.run_bar([row.name for row in planned.runnable], repeats) as on_progress:
        outcomes = train_rows(planned, repeats, fresh, on_progress)
    return [terminal.for_print(line) for line in lines_of(planned, outcomes)]


def exit_with(lines: list[dict[str, Any]], code: int = 0) -> None:
    """End the command with exit code FAILED if a run failed, else with `code`."""
    raise typer.Exit(FAILED if any(line["status"] not in ("ok", "needs") for line in lines) else code)


def main() -> None:
    """Run the command line. An error becomes one line on stderr and an exit code, not a traceback."""
    terminal.print_all_letters()
    try:
        app(prog_name="labkit")
    except (SpecError, OSError) as error:
        terminal.print_message(error)
        sys.exit(BAD_INPUT if isinstance(error, SpecError) else FAILED)
    except RunFailed as failed:  # not of a row, which would be told with its status: the fork server could not start
        terminal.print_message(failed.reason)
        sys.exit(FAILED)
    except SystemExit as left:
        if left.code == INTERRUPTED:
            terminal.print_message("interrupted; finished runs are kept, and the same command continues after them")
        raise
