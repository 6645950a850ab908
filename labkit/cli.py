"""The command line: reads words, prints words. What it prints comes from `runs`, `results`, `report`, `doctor`, `bench`.

Heavy imports (torch, pandas) stand inside the commands, so that `labkit --help` answers at once.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer

from labkit.spec import Spec, SpecError, read_text_value

FAILED, BAD_INPUT, NEEDS, INTERRUPTED = 1, 2, 3, 130
HEADINGS = {"name": "experiment", "batch_size": "batch size", "best_acc_pct": "best\naccuracy %", "images_per_s": "images/s"}
HEADINGS |= {"max_mem_mb": "peak memory\nMiB ({peak})", "startup_s": "start-up\ns", "total_time_s": "total\ntime s"}
PEAK = {"cpu": "growth of\nresident set", "cuda": "allocator's\npeak"}
WORDS = {"oom": "out of memory", "timeout": "timed out", "not run": "not run yet"}

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of rows, numbers of groups, or all.")]
Profile = Annotated[str, typer.Option("--profile", "-p", metavar="P", help="How big: quick, classroom or reference.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field of Spec; can be repeated.")]
Repeats = Annotated[int, typer.Option(metavar="N", help="Train each row N times, and show medians.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Train again what already has a result.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line on stdout, and nothing else.")]
Pairs = Annotated[int, typer.Option(min=1, metavar="N", help="How often each side is run, in turns.")]


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False) -> None:
    """Train every row of a report on distributed training, and see what was measured.

    Exit codes: 0 every row has a result; 1 a run failed; 2 bad input; 3 a row asked for by name needs what this machine
    lacks; 130 interrupted. Results are kept in runs/, or in the folder that LABKIT_RUNS names.
    """
    if version:
        from importlib.metadata import version as version_of

        print("labkit", version_of("labkit"))


@app.command()
def rows(profile: Profile = "quick", as_json: Json = False) -> None:
    """List every row, its groups, and what becomes of it on this machine.

    \b
    labkit rows --profile classroom --json
    """
    from labkit import params, results

    lines = {line["name"]: line for line in records(results.table(profile))}
    for name, line in lines.items():
        line["groups"] = [group.number for group in params.groups() if name in group.rows]
        line["runs_as"] = next((twin for twin, other in lines.items() if name in other["stands_for"]), None)
    found = [lines[name] for name in params.all_names()]
    if as_json:
        return print_json(found)
    for line in found:
        here = {"ok": "has a result", "not run": "runs here", "needs": line["reason"]}
        last_time = f"runs here; last time: {WORDS.get(line['status'], line['status'])}"
        line["here"] = f"runs as {line['runs_as']}" if line["runs_as"] else here.get(line["status"], last_time)
        line["groups"] = ", ".join(map(str, line["groups"]))
    show(found, {"name": "row", "groups": "groups", "batch_size": "batch size", "here": "on this machine"})


@app.command()
def run(
    names: Names, profile: Profile = "quick", sets: Sets = None, repeats: Repeats = 1, fresh: Fresh = False, as_json: Json = False
) -> None:
    """Train rows. What already has a result is shown, and not trained again.

    \b
    labkit run 4                                              the rows of group 4
    labkit run collective_gloo_resnet18_bs128x2+form=ring     a row of your own
    labkit run 3 9 --profile classroom --repeats 3
    labkit run all --set epochs=2 --set lr=0.05 --json
    """
    from labkit.runs import plan

    lines = train(names, profile, read_sets(sets), repeats, fresh)
    if as_json:
        print_json(lines)
    else:
        show_figures(lines, ["name", "images_per_s", "best_acc_pct", "max_mem_mb", "startup_s", "total_time_s"])
    plans = [plan(name, profile, read_sets(sets)) for name in names]
    lacking = [planned[0] for planned in plans if not any(row.spec for row in planned)]
    for row in lacking:
        say(f"{row.name} {row.reason}")
    finish(lines, NEEDS if lacking else 0)


@app.command()
def table(profile: Profile = "quick", sets: Sets = None, as_json: Json = False) -> None:
    """Show what has been measured, in the form of the published table. Trains nothing.

    \b
    labkit table --profile classroom
    labkit table --set epochs=2          what was run with the same --set
    """
    from labkit import results

    lines = records(results.table(profile, overrides=read_sets(sets)))
    lines.sort(key=lambda line: -(line["images_per_s"] or 0))
    if as_json:
        return print_json(lines)
    show_figures(lines, ["name", "model", "batch_size", "best_acc_pct", "images_per_s", "max_mem_mb", "total_time_s"])


@app.command()
def report(profile: Profile = "quick", sets: Sets = None, repeats: Repeats = 1, fresh: Fresh = False) -> None:
    """Train every row that this machine can run, and write the report.

    \b
    labkit report
    labkit report --profile classroom --repeats 3
    """
    began = time.time()
    from labkit import folders, results
    from labkit.report import write_report

    lines = train(["all"], profile, read_sets(sets), repeats, fresh)
    print(write_report(profile, read_sets(sets)))
    kept = results.read_results(folders.label_of(profile, read_sets(sets)), [line["name"] for line in lines])
    new = [result for row in kept.values() for result in row if result["status"] == "ok" and result["started_at"] >= began]
    wall_s = time.time() - began
    trained, tested = (f"{100 * sum(result[key] for result in new) / wall_s:.0f} %" for key in ("train_s", "eval_s"))
    print(f"wall time {wall_s:.0f} s for {len(new)} new runs: {trained} training, {tested} evaluation")
    show_figures([line for line in lines if line["status"] not in ("ok", "needs")], [])
    finish(lines)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look at this machine: what could spoil a run, and what to do about it. Exit code 1 if something would."""
    from labkit import doctor

    findings = doctor.examine()
    print_json(map(vars, findings)) if as_json else print(*findings, sep="\n")
    raise typer.Exit(FAILED if any(finding.level == "problem" for finding in findings) else 0)


@app.command()
def bench(names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]")] = None, pairs: Pairs = 5) -> None:
    """Measure what the lab itself costs and saves, beside plain PyTorch. Takes minutes, and wants a quiet machine."""
    from labkit import bench

    bench.main(names or [], pairs)


def train(names: list[str], profile: str, overrides: dict[str, Any], repeats: int, fresh: bool) -> list[dict[str, Any]]:
    """Run rows, and tell on stderr how far they are: by a bar on a terminal, elsewhere by a line when a run starts."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TimeElapsedColumn

    from labkit import datasets, runs

    console, said = Console(stderr=True), set()
    columns = (BarColumn(20), TimeElapsedColumn(), "{task.description}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def on_progress(row: Any, repeat: int, events: list[dict[str, Any]]) -> None:
            queue = [planned.name for planned in runs.plan(names, profile, overrides) if planned.spec]
            done, total, spec = (repeat - 1) * len(queue) + queue.index(row.name), repeats * len(queue), row.spec
            if not console.is_terminal and done not in said:
                said.add(done)
                say(f"run {done + 1} of {total}: {row.name}")
            steps = (spec.train_samples or datasets.DATASETS[spec.dataset].train_images) // spec.images_per_step
            epoch, step = events[0]["epoch"], events[0]["step"]
            loss = next((f", loss {e['loss']:.3f}" for e in events if e["loss"] is not None), "")
            where = f"{done + 1} of {total}: epoch {epoch + 1} of {spec.epochs}, step {step + 1} of {steps}{loss}"
            part = (epoch + step / steps) / spec.epochs
            bar.update(task, total=total, completed=done + part, description=f"{where}\n{row.name}")

        return records(runs.run(names, profile, repeats=repeats, fresh=fresh, overrides=overrides, on_progress=on_progress))


def records(frame: Any) -> list[dict[str, Any]]:
    """A summary's lines as plain data: None where there is nothing, never NaN."""
    lines = frame.astype(object).where(frame.notna(), None).to_dict("records")
    for line in lines:
        spec = Spec.parse(line["name"])
        line |= {"model": spec.model, "batch_size": spec.batch_size, "reason": line["reason"] or None}
        line["world_size"] = line["world_size"] and int(line["world_size"])  # pandas makes it a float beside a None
        line["backend"] = None if line["backend"] == "auto" else line["backend"]  # one process: nothing is sent
        line["images_per_s"] = line["images_per_s"] or None  # 0: all steps were warm-up, none was timed
        line["run_dir"] = None if line["status"] == "not run" else line["run_dir"]
    return lines


def read_sets(texts: list[str] | None) -> dict[str, Any]:
    return {key: read_text_value(key, value) for key, _, value in (text.partition("=") for text in texts or [])}


def print_json(lines: Any) -> None:
    for line in lines:
        print(json.dumps(line, ensure_ascii=False, allow_nan=False))


def show(lines: list[dict[str, Any]], headings: dict[str, str]) -> None:
    """A table of these keys. Where there is no terminal, no cell is broken."""
    from rich import box, console, table

    out, grid = console.Console(markup=False, highlight=False), table.Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    out.width = out.width if out.is_terminal else 250
    for key, heading in headings.items():
        side: Any = "left" if any(isinstance(line[key], str) for line in lines) else "right"
        heading = heading if out.is_terminal else heading.replace("\n", " ")
        grid.add_column(heading, justify=side, overflow="fold", no_wrap=not out.is_terminal)
    for line in lines:
        cells = [line[key] for key in headings]
        grid.add_row(*("–" if cell is None else f"{cell:,.1f}" if isinstance(cell, float) else str(cell) for cell in cells))
    out.print(grid)


def show_figures(lines: list[dict[str, Any]], keys: list[str]) -> None:
    """What was measured as a table, and below it in words what was not, and why."""
    peak = "; ".join(sorted({PEAK[line["device"]] for line in lines if line["device"]}))
    if keys and (measured := [line for line in lines if line["best_acc_pct"] is not None]):
        show(measured, {key: HEADINGS.get(key, key).format(peak=peak) for key in keys})
    for line in lines:
        if line["status"] != "ok":
            status = [] if line["status"] == "needs" else [WORDS.get(line["status"], line["status"])]
            print(": ".join([line["name"], *status, *([line["reason"]] if line["reason"] else [])]))


def say(text: object) -> None:
    print("labkit:", *str(text).split(), file=sys.stderr)


def finish(lines: list[dict[str, Any]], code: int = 0) -> None:
    raise typer.Exit(FAILED if any(line["status"] not in ("ok", "needs") for line in lines) else code)


def main() -> None:
    """Run the command line. What goes wrong becomes one line on stderr and an exit code, not a traceback."""
    try:
        app(prog_name="labkit")
    except (SpecError, OSError) as error:
        say(error)
        sys.exit(BAD_INPUT if isinstance(error, SpecError) else FAILED)
    except SystemExit as left:
        if left.code == INTERRUPTED:
            say("interrupted; finished runs are kept, and the same command goes on after them")
        raise
