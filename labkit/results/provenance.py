"""Where the figures of a report come from, as plain data: data, machine, versions and seeds, and notes to read before comparing
rows.
"""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from labkit.rows.params import Profile
from labkit.rows.spec import PUBLISHED_WIDTH, Spec
from labkit.runs.result import Result
from labkit.system import machine
from labkit.system.machine import Machine

ONE_PER_REPORT: dict[str, Callable[[Result], Any]] = {  # a report gets a note if its results differ in one of these
    "code": lambda result: result.code,
    "machine": lambda result: result.machine,
    "commit": lambda result: result.commit,
    "versions": lambda result: result.versions,
    "seed": lambda result: result.spec.seed - result.repeat + 1,  # each repeat has the next one
}


def facts(results: list[Result]) -> dict[str, Any]:
    """How the results of a report were measured. `results`: runs that ended well, at least one. "minutes" are in UTC."""
    values = {what: [value for value, _ in distinct_values(results, of_result)] for what, of_result in ONE_PER_REPORT.items()}
    minutes = [f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" for seconds in sorted(r.started_at for r in results)]
    data: list[dict[str, Any]] = []
    for result in results:
        used = data_of(result.spec)
        if used not in data:
            data.append(used)
    return {
        "machines": [about_machine(machine) for machine in values["machine"]],
        "data": data,
        "versions": [
            ", ".join(f"{package} {version}" for package, version in versions.items()) for versions in values["versions"]
        ],
        "commits": values["commit"],
        "uncommitted": any("+" in commit for commit in values["commit"]),
        "seeds": [str(seed) for seed in values["seed"]],
        "repeats": sorted(set(Counter(result.name for result in results).values())),
        "minutes": list(dict.fromkeys([minutes[0], minutes[-1]])),
    }


def about_machine(machine: Machine) -> dict[str, Any]:
    """The facts of a machine in a report: cores, memory in GiB, ...; equal CUDA devices are counted, as in "2 x NVIDIA H200"."""
    keys = ("cpu", "cores", "memory_gib", "system")
    cuda = [f"{n} x {name}" for name, n in Counter(machine.cuda).items()]
    return {key: getattr(machine, key) for key in keys} | {"cuda": cuda}


def data_of(spec: Spec) -> dict[str, Any]:
    """The images of a run (numbers of training and test images, `side` in pixels), its epochs, and the width of its network."""
    return {
        "dataset": spec.dataset,
        "train": spec.train_images,
        "test": spec.test_images,
        "side": spec.image_size,
        "epochs": spec.epochs,
        "width": spec.width,
        "published_width": PUBLISHED_WIDTH,
    }


def distinct_values(results: list[Result], of_result: Callable[[Result], Any]) -> list[tuple[Any, list[str]]]:
    """The different values of `of_result(result)`, the most frequent first, each with the names of the rows that have it."""
    values: list[tuple[Any, list[str]]] = []
    for result in results:
        value = of_result(result)
        names = next((names for known, names in values if known == value), None)
        if names is None:
            values.append((value, names := []))
        names.append(result.name)
    return sorted(values, key=lambda item: -len(item[1]))


def notes(profile: Profile, overrides: dict[str, Any], results: list[Result]) -> list[dict[str, Any]]:
    """What a reader must know before comparing rows.

    Each note has a `kind`, which names its text (note.<kind> in templates/words.*.yaml), and the values that the text needs."""
    collected: list[dict[str, Any]] = []
    for what, of_result in ONE_PER_REPORT.items():
        values = distinct_values(results, of_result)
        if len(values) > 1:
            odd = [name for _, names in values[1:] for name in names]
            collected.append({"kind": f"mixed.{what}", "n": len(values), "names": unique(odd)})
    if results and all(result.machine != machine.this_machine() for result in results):
        collected.append({"kind": "other_machine"})
    for settings, names in distinct_values(results, lambda result: result.environment):
        if settings:
            text = ", ".join(f"{key}={value}" for key, value in settings.items())
            collected.append({"kind": "environment", "settings": text, "names": unique(names)})
    asked = {key: value for key, value in {**profile.fields, **overrides}.items() if value != "auto"}
    if old := [r.name for r in results if any(getattr(r.spec, key) != value for key, value in asked.items())]:
        collected.append({"kind": "old_settings", "names": unique(old)})
    for result in results:
        if result.later_attempt:
            collected.append({"kind": "later_attempt", "names": [result.name], "outcome": result.later_attempt})
    if busy := [result.others_cores for result in results if result.busy]:
        collected.append({"kind": "busy", "busy": len(busy), "all": len(results), "most": f"{max(busy):.1f}"})
    if imitated := [r.name for r in results if imitates_bf16(r)]:
        collected.append({"kind": "no_bf16", "names": unique(imitated)})
    if short := [result.name for result in results if not result.images_per_s]:
        collected.append({"kind": "untimed", "names": unique(short)})
    return collected


def imitates_bf16(result: Result) -> bool:
    """True if this run computed in bf16 on a processor without bf16 instructions, which makes it slow."""
    spec = result.spec
    return spec.amp and spec.device == "cpu" and spec.amp_dtype != "fp16" and result.machine.bf16 is False


def unique(names: list[str]) -> list[str]:
    """The names in their order, each once."""
    return list(dict.fromkeys(names))
