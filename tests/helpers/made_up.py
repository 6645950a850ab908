"""Machines and result folders with figures of our choice, in the form that runs.py gives them (a test compares them with a
real one), and the report on them, read back."""

import json
import os
import re

from labkit.report.source import from_folders
from labkit.report.view import Found
from labkit.report.write import write_report
from labkit.results.table import good, read_results
from labkit.runs import folders, plan, rounds
from labkit.system import machine
from labkit.system.machine import Machine

QUIET = dict.fromkeys(("others_before_cores", "others_cores", "others_after_cores", "stolen_cores"), 0.0)
CPU = Machine(cpu="Some CPU", cores=2, memory_gib=8, cuda=(), system="Linux x86_64")
GPUS = Machine(cpu="Some CPU", cores=16, memory_gib=64, cuda=("Some GPU", "Some GPU"), system="Linux x86_64")


def use(monkeypatch, this):
    for module in (machine, plan):
        monkeypatch.setattr(module, "this_machine", lambda: this)


def put(name, rate=1000.0, accuracy=90.0, memory=100.0, *, repeat=1, label="quick", status="ok", **more):
    """A result folder such as runs.py leaves, with figures of our choice."""
    spec = next(row for row in plan.plan(name) if row.spec).spec
    folder = folders.runs_folder() / label / spec.name / str(repeat)
    folder.mkdir(parents=True)
    spec = spec.but(seed=spec.seed + repeat - 1)
    began = 1_700_000_000.0 + repeat
    times = {"train_s": 6.0, "eval_s": 2.0, "data_wait_s": 1.5, "steps": 20}
    rank = {
        "rank": 0,
        "shard": [0, spec.shards],
        "max_mem_mib": memory,
        "images_timed": 900,
        "timed_s": 1.0,
        "images_per_s": rate,
    }
    rank |= {**times, "first_step_at": began + 1.0, "strategy": {}}
    rank |= {"messages_per_step": {"all_reduce": [1.0, 4000.0]}, "sent_bytes_per_step": 4096.0}
    epochs = [{"epoch": n, "train_loss": 2.0 / n, "test_acc_pct": accuracy * n / 3, "after_s": 3.0 * n} for n in (1, 2, 3)]
    about = {"name": spec.name, "label": label, "repeat": repeat, "run_dir": str(folder), "status": status, "reason": ""}
    about |= {
        "spec": spec.to_dict(),
        "machine": machine.this_machine().to_dict(),
        "versions": {"torch": "2.14.1"},
        "code": "c0de",
        "environment": {},
    }
    about |= {"commit": "abc123", "started_at": began, "pid": os.getpid(), **QUIET}
    figures = {
        "images_per_s": rate,
        "best_acc_pct": accuracy,
        "max_mem_mib": memory,
        **times,
        "startup_s": 1.0,
        "total_time_s": 10.0,
    }
    figures |= {"epochs": epochs, "strategy": {}, "ranks": [rank]}
    if later := more.pop("later_attempt", ""):  # a try after this one that gave no result
        later_status, _, later_reason = later.partition(": ")
        attempt = about | {"status": later_status, "reason": later_reason, "started_at": began + 60}
        (folder / "attempt.json").write_text(json.dumps(attempt))
    content = about | (figures if status == "ok" else {}) | more
    (folder / ("result.json" if status == "ok" else "attempt.json")).write_text(json.dumps(content))


def put_thrice(name, rate=1000.0, accuracy=90.0, memory=100.0, *, spread=(1.0, 1.0, 1.0), **more):
    """Three trainings of a row; `spread`: what their rates are multiplied by."""
    for repeat, times in enumerate(spread, 1):
        put(name, rate * times, accuracy, memory, repeat=repeat, **more)


def put_rounds(rates, label="quick", busy=False, control=1.0, number=1):
    """Rounds of rows such as rounds.py leaves: three equal ones. `rates`: images/s by row; `control`: what the first row's second
    turn gave, over its first."""
    first = next(iter(rates.values()))
    turn = rates | {rounds.CONTROL: first * control}
    others = [dict.fromkeys(turn, 1.5 if busy else 0.0)] * 3
    made = rounds.Rounds(tuple(rates), [turn] * 3, others, {}, busy, 1_700_000_000.0 + number)
    folder = folders.runs_folder() / label / "rounds"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"r{number}.json").write_text(json.dumps(made.to_json()))


def rows_now():
    """The rows of the quick profile with what lies in their folders, as the report takes them."""
    return Found(from_folders("quick", {}), folders.runs_folder()).rows


def results_now():
    """The results of the rows that ended well, as pictures take them."""
    return good(read_results("quick"))


def put_all(**more):
    """A result for every row that runs here; each faster than the one before."""
    for n, row in enumerate(row for row in plan.plan("all") if row.spec):
        put(row.name, 1000.0 + 100 * n, 90.0, 100.0 + n, **more)


def written(tmp_path, **more):
    """The English report.md. Links inside sentences, which a test would have to look past, are taken off."""
    text = write_report(path=tmp_path / "report.md", languages=("en",), **more)[0].read_text(encoding="utf-8")
    return re.sub(r"\[(`[^`]+`)\]\([^)]*\)", r"\1", text)


def section(text, heading):
    return re.search(rf"^#+ {re.escape(heading)}.*?(?=^#|\Z)", text, re.M | re.S)[0]


def cells(part):
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines]


def verdict(tmp_path, group, figure="Images/s"):
    return re.search(rf"^- \*\*{figure}\*\*: (.*)", section(written(tmp_path), f"{group}. "), re.M)[1]
