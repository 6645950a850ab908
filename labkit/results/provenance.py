"""Where the report's figures come from, as plain data: what ran, where, on what and with which versions, and what to know
before comparing rows."""

from __future__ import annotations

import functools
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from labkit.rows.params import Profile
from labkit.rows.spec import PUBLISHED_WIDTH

LOADED = 1.5  # load average per core above which something else was at work
ONE_PER_REPORT = {  # a note is made where a report mixes several
    "code": ("code",),
    "machine": ("machine",),
    "commit": ("commit",),
    "versions": ("versions",),
    "seed": ("spec", "seed"),
}
Results = list[dict[str, Any]]


def facts(results: Results) -> dict[str, Any]:
    """How it was run. `results`: those that ended well, at least one."""
    commits = [commit for commit, _ in seen(results, "commit")]
    minutes = [f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" for seconds in sorted(r["started_at"] for r in results)]
    data: Results = []
    for result in results:
        data += [used] if (used := data_of(result["spec"])) not in data else []
    return {
        "machines": [machine_of(machine) for machine, _ in seen(results, "machine")],
        "data": data,
        "versions": [", ".join(f"{key} {value}" for key, value in found.items()) for found, _ in seen(results, "versions")],
        "commits": commits,
        "uncommitted": any("+" in commit for commit in commits),
        "seeds": [str(seed) for seed, _ in seen(results, "spec", "seed")],
        "repeats": sorted(set(Counter(result["name"] for result in results).values())),
        "minutes": list(dict.fromkeys([minutes[0], minutes[-1]])),
    }


def machine_of(machine: dict[str, Any]) -> dict[str, Any]:
    keys = ("cpu", "cores", "memory_gib", "system")
    return {key: machine[key] for key in keys} | {"cuda": [f"{n} x {name}" for name, n in Counter(machine["cuda"]).items()]}


def data_of(spec: dict[str, Any]) -> dict[str, Any]:
    from labkit.rows.catalog import DATASETS

    info = DATASETS[spec["dataset"]]
    return {
        "dataset": spec["dataset"],
        "train": spec["train_samples"] or info.train_images,
        "test": spec["test_samples"] or info.test_images,
        "side": spec["image_size"],
        "epochs": spec["epochs"],
        "width": spec["width"],
        "published_width": PUBLISHED_WIDTH,
    }


def seen(results: Results, *keys: str) -> list[tuple[Any, list[str]]]:
    """The different values under a key (or a key inside a key), the most frequent first, each with the rows that hold it."""
    values: list[tuple[Any, list[str]]] = []
    for result in results:
        value = functools.reduce(lambda inside, key: inside[key], keys, result)
        names = next((names for known, names in values if known == value), None)
        if names is None:
            values.append((value, names := []))
        names.append(result["name"])
    return sorted(values, key=lambda item: -len(item[1]))


def notes(profile: Profile, overrides: dict[str, Any], results: Results) -> list[dict[str, Any]]:
    """What to know before comparing rows. Each note has a `kind`, the text note.<kind>, and the values that it takes."""
    from labkit.system.machine import this_machine

    found: list[dict[str, Any]] = []
    for what, keys in ONE_PER_REPORT.items():
        values = seen(results, *keys)
        if len(values) > 1:
            odd = [name for _, names in values[1:] for name in names]
            found.append({"kind": f"mixed.{what}", "n": len(values), "names": unique(odd)})
    if results and all(machine != this_machine().to_dict() for machine, _ in seen(results, "machine")):
        found.append({"kind": "other_machine"})
    for settings, names in seen([{"environment": {}} | result for result in results], "environment"):
        if settings:
            told = ", ".join(f"{key}={value}" for key, value in settings.items())
            found.append({"kind": "environment", "settings": told, "names": unique(names)})
    asked = {key: value for key, value in {**profile.fields, **overrides}.items() if value != "auto"}
    if old := [r["name"] for r in results if any(r["spec"].get(key) != value for key, value in asked.items())]:
        found.append({"kind": "old_settings", "names": unique(old)})
    for result in results:
        if "later_attempt" in result:
            found.append({"kind": "later_attempt", "names": [result["name"]], "outcome": result["later_attempt"]})
    if busy := [r["load_1min"] for r in results if r["load_1min"] > LOADED * r["machine"]["cores"]]:
        loads = {"busy": len(busy), "all": len(results), "per_core": f"{LOADED:.1f}", "most": f"{max(busy):.1f}"}
        found.append({"kind": "busy", **loads})
    if imitated := [r["name"] for r in results if imitates_bf16(r["spec"], r["machine"])]:
        found.append({"kind": "no_bf16", "names": unique(imitated)})
    if short := [result["name"] for result in results if not result["images_per_s"]]:
        found.append({"kind": "untimed", "names": unique(short)})
    return found


def imitates_bf16(spec: dict[str, Any], machine: dict[str, Any]) -> bool:
    return spec["amp"] and spec["device"] == "cpu" and spec["amp_dtype"] != "fp16" and machine.get("bf16") is False


def unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))
