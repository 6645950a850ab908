"""The report's opening: what ran, where, on what and with which versions, and what to know before comparing rows."""

from __future__ import annotations

import functools
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from labkit.markdown import plain
from labkit.params import Profile
from labkit.spec import PUBLISHED_WIDTH

LOADED = 1.5  # load average per core above which something else was at work
ONE_PER_REPORT = {
    "engine versions": ("code",),
    "machines": ("machine",),
    "commits": ("commit",),
    "sets of library versions": ("versions",),
    "seeds": ("spec", "seed"),
}
Results = list[dict[str, Any]]


def opening(profile: Profile, overrides: dict[str, Any], results: Results) -> str:
    """The heading, a paragraph, a list of facts, and notes where there is something to note. `results`: those that ended well."""
    title = f"# Distributed training, row by row: the {profile.name} profile"
    changed = ", ".join(f"{key}={value}" for key, value in sorted(overrides.items()))
    scale = f"Profile {profile.name}: {plain(profile.about)}" + (f" Changed: {plain(changed)}." if changed else "")
    if not results:
        return f"{title}\n\nNothing has run yet, so there is nothing to report. {scale}"
    rows = len({result["name"] for result in results})
    ran = f"labkit trained {rows} row{'s' * (rows > 1)} for this report"
    what = f"{ran}, and every figure comes from those runs: a row's name links to its folder. {scale}"
    lines = [f"- {key}: {plain(value)}" for key, value in facts(results).items()]
    return "\n\n".join([title, what, "\n".join(lines), *(f"> **Note.** {note}" for note in notes(profile, overrides, results))])


def facts(results: Results) -> dict[str, str]:
    repeats = sorted(set(Counter(result["name"] for result in results).values()))
    spread = "so nothing is known of the spread" if repeats == [1] else "figures are medians, with least–most where they differ"
    commits = [commit for commit, _ in seen(results, "commit")]
    minutes = [f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" for seconds in sorted(r["started_at"] for r in results)]
    return {
        "Machine": "; ".join(machine_line(machine) for machine, _ in seen(results, "machine")),
        "Data": "; ".join(dict.fromkeys(data_line(result["spec"]) for result in results)),
        "Versions": "; ".join(", ".join(f"{k} {v}" for k, v in versions.items()) for versions, _ in seen(results, "versions")),
        "Commit": ", ".join(commits) + (" (+: and changes that were not committed)" if "+" in "".join(commits) else ""),
        "Seed": ", ".join(str(seed) for seed, _ in seen(results, "spec", "seed")),
        "Repeats": f"{', '.join(map(str, repeats))}; {spread}",
        "Run (UTC)": " to ".join(dict.fromkeys([minutes[0], minutes[-1]])),
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


def notes(profile: Profile, overrides: dict[str, Any], results: Results) -> list[str]:
    from labkit.machine import this_machine

    found = []
    for what, keys in ONE_PER_REPORT.items():
        values = seen(results, *keys)
        if len(values) > 1:
            odd = [name for _, names in values[1:] for name in names]
            found.append(f"The rows come from {len(values)} different {what}; not from the most frequent one: {listed(odd)}.")
    if all(machine != this_machine().to_dict() for machine, _ in seen(results, "machine")):
        found.append("The rows ran on another machine than the one that wrote this report.")
    asked = {key: value for key, value in {**profile.fields, **overrides}.items() if value != "auto"}
    if old := [r["name"] for r in results if any(r["spec"].get(key) != value for key, value in asked.items())]:
        found.append(f"Not trained at the settings that the profile has now: {listed(old)}.")
    for result in results:
        if "later_attempt" in result:
            found.append(
                f"A later try of `{result['name']}` gave no result ({result['later_attempt']}); what is shown is the one before."
            )
    if busy := [r["load_1min"] for r in results if r["load_1min"] > LOADED * r["machine"]["cores"]]:
        found.append(
            f"{len(busy)} of {len(results)} runs began while the machine's load average was above {LOADED} per core (up to "
            f"{max(busy):.1f} in all): other programs took their part, and speeds and times are worse for it."
        )
    if short := [result["name"] for result in results if not result["images_per_s"]]:
        found.append(f"No images/s, since the run was over before its warm-up steps were: {listed(short)}.")
    return found


def listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names))


def machine_line(machine: dict[str, Any]) -> str:
    devices = ", ".join(f"{n} x {name}" for name, n in Counter(machine["cuda"]).items()) or "no CUDA device"
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, {devices}"


def data_line(spec: dict[str, Any]) -> str:
    from labkit.datasets import DATASETS

    info, side = DATASETS[spec["dataset"]], spec["image_size"]
    train, test = spec["train_samples"] or info.train_images, spec["test_samples"] or info.test_images
    images = f"{spec['dataset']}, {train} training and {test} test images of {side}x{side}"
    return f"{images}, {spec['epochs']} epoch{'s' * (spec['epochs'] > 1)}, width {spec['width']} (published: {PUBLISHED_WIDTH})"
