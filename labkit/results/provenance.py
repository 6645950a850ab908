"""Where the report's figures come from, as plain data: what ran, where, on what and with which versions, and what to know
before comparing rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from labkit.rows.catalog import DATASETS
from labkit.rows.params import Profile
from labkit.rows.spec import PUBLISHED_WIDTH, Spec
from labkit.runs.result import Result
from labkit.system import machine
from labkit.system.machine import Machine

LOADED = 1.5  # load average per core above which something else was at work
ONE_PER_REPORT: dict[str, Callable[[Result], Any]] = {  # a note is made where a report mixes several
    "code": lambda result: result.code,
    "machine": lambda result: result.machine,
    "commit": lambda result: result.commit,
    "versions": lambda result: result.versions,
    "seed": lambda result: result.spec.seed,
}


def facts(results: list[Result]) -> dict[str, Any]:
    """How it was run. `results`: those that ended well, at least one."""
    values = {what: [value for value, _ in seen(results, of)] for what, of in ONE_PER_REPORT.items()}
    minutes = [f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" for seconds in sorted(r.started_at for r in results)]
    data: list[dict[str, Any]] = []
    for result in results:
        used = data_of(result.spec)
        if used not in data:
            data.append(used)
    return {
        "machines": [about_machine(machine) for machine in values["machine"]],
        "data": data,
        "versions": [", ".join(f"{key} {value}" for key, value in found.items()) for found in values["versions"]],
        "commits": values["commit"],
        "uncommitted": any("+" in commit for commit in values["commit"]),
        "seeds": [str(seed) for seed in values["seed"]],
        "repeats": sorted(set(Counter(result.name for result in results).values())),
        "minutes": list(dict.fromkeys([minutes[0], minutes[-1]])),
    }


def about_machine(machine: Machine) -> dict[str, Any]:
    """What a report tells of a machine; equal CUDA devices are counted."""
    keys = ("cpu", "cores", "memory_gib", "system")
    cuda = [f"{n} x {name}" for name, n in Counter(machine.cuda).items()]
    return {key: getattr(machine, key) for key in keys} | {"cuda": cuda}


def data_of(spec: Spec) -> dict[str, Any]:
    """Which images a run trained and tested on, how often, and at which width."""
    info = DATASETS[spec.dataset]
    return {
        "dataset": spec.dataset,
        "train": spec.train_samples or info.train_images,
        "test": spec.test_samples or info.test_images,
        "side": spec.image_size,
        "epochs": spec.epochs,
        "width": spec.width,
        "published_width": PUBLISHED_WIDTH,
    }


def seen(results: list[Result], of: Callable[[Result], Any]) -> list[tuple[Any, list[str]]]:
    """The different values that `of` finds in results, the most frequent first, each with the names of the rows that have it."""
    values: list[tuple[Any, list[str]]] = []
    for result in results:
        value = of(result)
        names = next((names for known, names in values if known == value), None)
        if names is None:
            values.append((value, names := []))
        names.append(result.name)
    return sorted(values, key=lambda item: -len(item[1]))


def notes(profile: Profile, overrides: dict[str, Any], results: list[Result]) -> list[dict[str, Any]]:
    """What to know before comparing rows. Each note has a `kind`, the text note.<kind>, and the values that it takes."""
    found: list[dict[str, Any]] = []
    for what, of in ONE_PER_REPORT.items():
        values = seen(results, of)
        if len(values) > 1:
            odd = [name for _, names in values[1:] for name in names]
            found.append({"kind": f"mixed.{what}", "n": len(values), "names": unique(odd)})
    if results and all(result.machine != machine.this_machine() for result in results):
        found.append({"kind": "other_machine"})
    for settings, names in seen(results, lambda result: result.environment):
        if settings:
            told = ", ".join(f"{key}={value}" for key, value in settings.items())
            found.append({"kind": "environment", "settings": told, "names": unique(names)})
    asked = {key: value for key, value in {**profile.fields, **overrides}.items() if value != "auto"}
    if old := [r.name for r in results if any(getattr(r.spec, key) != value for key, value in asked.items())]:
        found.append({"kind": "old_settings", "names": unique(old)})
    for result in results:
        if result.later_attempt:
            found.append({"kind": "later_attempt", "names": [result.name], "outcome": result.later_attempt})
    if busy := [r.load_1min for r in results if r.load_1min > LOADED * r.machine.cores]:
        loads = {"busy": len(busy), "all": len(results), "per_core": f"{LOADED:.1f}", "most": f"{max(busy):.1f}"}
        found.append({"kind": "busy", **loads})
    if imitated := [r.name for r in results if imitates_bf16(r)]:
        found.append({"kind": "no_bf16", "names": unique(imitated)})
    if short := [result.name for result in results if not result.images_per_s]:
        found.append({"kind": "untimed", "names": unique(short)})
    return found


def imitates_bf16(result: Result) -> bool:
    """Did this run compute in bf16 on a processor that has no arithmetic for it?"""
    spec = result.spec
    return spec.amp and spec.device == "cpu" and spec.amp_dtype != "fp16" and result.machine.bf16 is False


def unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))
