"""What the command line prints (tables on stdout, progress and messages on stderr), and how it reads the values of its options.

Imports neither torch nor pandas.
"""

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from labkit.batch.progress import duration
from labkit.results.metrics import METRICS, memory_is
from labkit.rows.fields import SpecError
from labkit.rows.spec import Spec, read_text_value

SAY_S = 30.0  # between two lines in a log about a row that is being trained
WORDS = {"oom": "out of memory", "timeout": "timed out", "not run": "not run yet"}


def read_sets(texts: list[str] | None) -> dict[str, Any]:
    """The values of `--set key=value`, by key. Raises SpecError for an unknown key, a bad value, and a key that is set twice."""
    pairs = [text.partition("=") for text in texts or []]
    keys = [key for key, _, _ in pairs]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise SpecError(f"--set {twice.pop()}: is set twice; leave one")
    return {key: read_text_value(key, value) for key, _, value in pairs}


def read_numbers(text: str) -> list[int] | None:
    """The numbers in a text such as `4,10`; None for an empty text. Raises SpecError for anything that is not a number."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if not word.isdecimal():
            raise SpecError(f"--only {text}: '{word}' must be the number of a notebook, as in --only 4,10")
    return [int(word) for word in words] or None


def for_print(line: dict[str, Any]) -> dict[str, Any]:
    """A line of results.table as the command line prints it: with model and batch size, and with None for values without a
    meaning."""
    spec = Spec.parse(line["name"])
    return line | {
        "model": spec.model,
        "batch_size": spec.batch_size,
        "reason": line["reason"] or None,
        "backend": None if line["backend"] == "auto" else line["backend"],  # one process sends no messages
        "images_per_s": line["images_per_s"] or None,  # 0: all steps were warm-up, none was timed
        "run_dir": None if line["status"] == "not run" else line["run_dir"],
    }


def print_json(lines: Any) -> None:
    """Print one JSON object for each line (a dict) on stdout. Raises ValueError for NaN or infinity."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    for line in lines:
        print(json.dumps(line, ensure_ascii=not utf8, allow_nan=False))


def print_all_letters() -> None:
    """From now on, print a letter that the output cannot show as its number: a folder's name in Chinese on an ASCII terminal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_table(lines: list[dict[str, Any]], headings: dict[str, str]) -> None:
    """Print a table on stdout. `headings`: {key of the lines: heading of its column}. Without a terminal, no cell is broken into lines."""
    from rich import box, console, table  # late: keeps rich out of a process that does not need it

    out, grid = console.Console(markup=False, highlight=False), table.Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    out.width = out.width if out.is_terminal else 250
    for key, heading in headings.items():
        side: Any = "left" if any(isinstance(line[key], str) for line in lines) else "right"
        grid.add_column(heading, justify=side, overflow="fold", no_wrap=not out.is_terminal)
    for line in lines:
        grid.add_row(*(plain_cell(line[key]) for key in headings))
    out.print(grid)


def plain_cell(value: Any) -> str:
    """The text of a cell: "–" for None, one digit after the point for floats."""
    if value is None:
        return "–"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def print_results(lines: list[dict[str, Any]], keys: list[str]) -> None:
    """Print a table of the rows that were measured (columns: `keys`), and below it a line for each other row, with the reason."""
    memory = memory_is(line["device"] for line in lines if line["device"])
    headings = {"name": "experiment", "model": "model", "batch_size": "batch size"}
    headings |= {metric.key: metric.heading["en"] for metric in METRICS}
    headings["max_mem_mib"] += f"; {memory}"
    if keys and (measured := [line for line in lines if line["best_acc_pct"] is not None]):
        print_table(measured, {key: headings[key] for key in keys})
    for line in lines:
        if line["status"] != "ok":
            words = [line["name"]]
            if line["status"] != "needs":
                words.append(WORDS.get(line["status"], line["status"]))
            if line["reason"]:
                words.append(line["reason"])
            print(": ".join(words))


def print_message(text: object) -> None:
    """Print a message as one line on stderr."""
    print("labkit:", *str(text).split(), file=sys.stderr)


@contextmanager
def bar(total: int | None = None) -> Iterator[tuple[Any, Any]]:
    """A progress bar on stderr, shown only on a terminal, and its task."""
    from rich.console import Console  # late: keeps rich out of a process that does not need it
    from rich.progress import BarColumn, Progress, TimeElapsedColumn  # late: keeps rich out of a process that does not need it

    console = Console(stderr=True)
    columns = (BarColumn(20), TimeElapsedColumn(), "{task.description}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress, progress.add_task("starting", total=total)


@contextmanager
def run_bar(names: list[str], repeats: int) -> Iterator[Callable[[Any, int, list[dict[str, Any]]], None]]:
    """Gives the `on_progress` of `labkit.run`, and shows progress on stderr meanwhile: a bar on a terminal, else a line when a
    run starts.

    `names`: the rows that are trained, in order; each is trained `repeats` times."""
    announced = set()
    with bar() as (progress, shown):

        def on_progress(row: Any, repeat: int, events: list[dict[str, Any]]) -> None:
            done, total, spec = (repeat - 1) * len(names) + names.index(row.name), repeats * len(names), row.spec
            if not progress.console.is_terminal and done not in announced:
                announced.add(done)
                print_message(f"run {done + 1} of {total}: {row.name}")
            epoch, step = events[0]["epoch"], events[0]["step"]
            where = f"{done + 1} of {total}: epoch {epoch + 1} of {spec.epochs}, step {step + 1} of {spec.steps_per_epoch}"
            losses = [event["loss"] for event in events if event["loss"] is not None]
            if losses:
                where += f", loss {losses[0]:.3f}"
            part = (epoch + step / spec.steps_per_epoch) / spec.epochs
            progress.update(shown, total=total, completed=done + part, description=f"{where}\n{row.name}")

        yield on_progress


@contextmanager
def notebook_bar(names: list[str], watch: Any, about: str) -> Iterator[Callable[[Any, dict[str, Any]], None]]:
    """What to give `labkit.batch.batch.run_notebooks` as `on_progress`. On a terminal a bar, which says which row trains and how
    far it is; elsewhere lines on stderr: when a notebook begins, when a row does, and every SAY_S seconds in between. A line when a
    notebook ends.

    `watch`: a `labkit.batch.progress.Watch`; `about`: the profile's text; printed if the duration is unknown."""
    begun, printed = set(), {"row": "", "at": 0.0}
    took_s = watch.took_s(names)
    if took_s is not None:
        about = f"about {duration(took_s)} if every row is trained again; valid results are kept"
    to_say = [about]  # with the first event, when all that was asked for has been checked
    with bar(len(names)) as (progress, shown):

        def on_progress(task: Any, event: dict[str, Any]) -> None:
            if to_say:
                print_message(to_say.pop())
            name = task.notebook.name
            done = names.index(name)
            where = f"notebook {done + 1} of {len(names)}: {name}"
            if "status" in event:
                ended = "ok, and still valid" if event["kept"] else event["status"]
                line = " ".join(f"labkit: {where}: {ended}{': ' if event['reason'] else ''}{event['reason']}".split())
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
                return
            if name not in begun and not progress.console.is_terminal:
                print_message(where)
            begun.add(name)
            row, seconds = event["row"] or "", event["seconds"]
            how_far = watch.row(row) if row else ""
            if progress.console.is_terminal:
                left_s = watch.took_s(names[done:])
                more = "" if left_s is None else f", about {duration(max(left_s - seconds, 0))} more for all"
                text = f"{where}, cell {event['cell']} of {event['cells']}{more}" + (f"\n{how_far}" if how_far else "")
                progress.update(shown, completed=done + event["cell"] / event["cells"], description=text)
            elif how_far and (row != printed["row"] or not 0 <= seconds - printed["at"] < SAY_S):
                printed.update(row=row, at=seconds)
                print_message(f"training {how_far}")

        yield on_progress
