"""From what a person asks for (names, numbers of groups, a profile) to the rows that this machine runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from labkit.rows import params
from labkit.rows.catalog import DATASETS
from labkit.rows.fields import SpecError
from labkit.rows.fit import Needs, fit
from labkit.rows.names import UnknownName
from labkit.rows.spec import Spec
from labkit.runs.asked import check_overrides, check_rows
from labkit.system.machine import this_machine


@dataclass
class Planned:
    """A row as this machine will run it; `spec` None: it cannot, for `reason`. `stands_for`: rows that it runs in place of."""

    name: str
    spec: Spec | None
    reason: str = ""
    stands_for: list[str] = field(default_factory=list)


def plan(rows: Any, profile: str = "quick", overrides: dict[str, Any] | None = None) -> list[Planned]:
    """The rows that `rows` names, as this machine runs them, each once: a group's number, a row's name, a Spec, "all",
    or a list of these. Raises SpecError before anything is started."""
    return fit_all(wanted(rows, profile, overrides), overrides or {})


def fit_all(specs: list[Spec], overrides: dict[str, Any]) -> list[Planned]:
    machine = this_machine()
    if overrides.get("backend") == "nccl" and (not machine.cuda or overrides.get("device") == "cpu"):
        raise SpecError("backend=nccl: NCCL moves CUDA tensors, and there is no CUDA here; use backend=gloo")
    planned: dict[str, Planned] = {}
    for spec in specs:
        name, reason, twin = spec.name, "", None
        try:
            fitted: Spec | None = fit(spec, machine)
        except Needs as needs:
            fitted, reason, twin = None, needs.reason, needs.instead
        if fitted is not None:
            planned.setdefault(fitted.name, Planned(fitted.name, fitted))
        else:
            planned.setdefault(name, Planned(name, None, reason))
        if twin is not None:
            stands_for = planned.setdefault(twin.name, Planned(twin.name, twin)).stands_for
            stands_for.extend([name] if name not in stands_for else [])  # a row may be asked for through two groups
    return list(planned.values())


def wanted(rows: Any, profile: str, overrides: dict[str, Any] | None = None) -> list[Spec]:
    """The Specs that are asked for, checked as far as can be without looking at the machine, which takes seconds."""
    check_rows(rows)
    check_overrides(overrides)
    scale = {**params.profile(profile).fields, **(overrides or {})}  # together: what one does not allow, the other may mend
    specs = [asked.but(**(overrides or {})) for asked in _specs(rows, scale)]
    for spec in specs:
        _check_samples(spec)
    return specs


def _specs(rows: Any, scale: dict[str, Any]) -> Iterator[Spec]:
    if isinstance(rows, Spec):
        yield rows
    elif rows == "all":
        yield from _specs(params.all_names(), scale)
    elif isinstance(rows, int) or (isinstance(rows, str) and rows.isdecimal()):
        yield from _specs(params.group(int(rows)).rows, scale)
    elif isinstance(rows, str):
        yield _parsed(rows, scale)
    else:
        for row in rows:
            yield from _specs(row, scale)


def _parsed(name: str, scale: dict[str, Any]) -> Spec:
    try:
        return Spec.parse(name, **scale)
    except UnknownName:
        close = difflib.get_close_matches(name, params.all_names(), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise SpecError(f"{name!r}: not the name of a row{hint} (`labkit rows` lists them)") from None


def _check_samples(spec: Spec) -> None:

    info = DATASETS[spec.dataset]
    for key, most in (("train_samples", info.train_images), ("test_samples", info.test_images)):
        if getattr(spec, key) > most:
            raise SpecError(f"{key}={getattr(spec, key)}: {spec.dataset} has {most}; use at most that, or 0 for all")
    images = spec.train_samples or info.train_images
    if images < spec.images_per_step:
        raise SpecError(f"batch_per_rank={spec.batch_per_rank}: one step of {spec.name} takes {spec.images_per_step} images, "
                        f"and there are {images}; use a smaller batch or more train_samples")  # fmt: skip
