"""From what a person asks for (names, numbers of groups, a profile) to the rows that this machine runs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.rows import params
from labkit.rows.catalog import DATASETS
from labkit.rows.fields import SpecError
from labkit.rows.fit import Needs, fit
from labkit.rows.names import UnknownName
from labkit.rows.spec import Spec
from labkit.runs.asked import check_overrides, check_rows
from labkit.runs.folders import label_of, runs_folder
from labkit.system.machine import this_machine


@dataclass
class Planned:
    """A row as this machine will run it. `spec` is None if this machine cannot run it; `reason` says why.

    `stands_for`: names of rows that cannot run here; this row runs in their place."""

    name: str
    spec: Spec | None
    reason: str = ""
    stands_for: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """The rows to run, each once, as this machine runs them: at a profile, with `overrides` on top."""

    profile: params.Profile
    overrides: dict[str, Any]
    rows: tuple[Planned, ...]

    def __iter__(self) -> Iterator[Planned]:
        return iter(self.rows)

    @property
    def label(self) -> str:
        """The name of the folder that holds the results: the profile, and the overrides that change it."""
        return label_of(self.profile, self.overrides)

    @property
    def folder(self) -> Path:
        """The folder that holds the results; it has one folder for each row."""
        return runs_folder() / self.label

    @property
    def runnable(self) -> list[Planned]:
        """The rows that this machine can run."""
        return [row for row in self.rows if row.spec]

    @property
    def stand_ins(self) -> dict[str, str]:
        """Name of a row that cannot run here -> name of the row that runs in its place (Gloo for NCCL)."""
        return {name: row.name for row in self.rows for name in row.stands_for}

    def name_here(self, name: str) -> str:
        """The row that runs for a published name: itself, or its stand-in."""
        return self.stand_ins.get(name, name)


def plan(rows: Any, profile: str = "quick", overrides: dict[str, Any] | None = None) -> Plan:
    """The rows that `rows` names: a group's number, a row's name, a Spec, "all", or a list of these.

    Raises SpecError for anything that is not a row, and for a value that is not allowed, before any process starts."""
    check_rows(rows)
    check_overrides(overrides)
    chosen, overrides = params.profile(profile), dict(overrides or {})
    scale = {**chosen.fields, **overrides}  # together, since a value of the profile may be allowed only with the overrides
    specs = [asked.but(**overrides) for asked in _specs(rows, scale)]
    for spec in specs:
        check_samples(spec)
    return Plan(chosen, overrides, tuple(fit_all(specs, overrides)))


def fit_all(specs: list[Spec], overrides: dict[str, Any]) -> list[Planned]:
    """The specs as this machine runs them, each name once, in the order of `specs`.

    A row that cannot run here keeps its place with the reason, and its stand-in (Gloo for NCCL) is added. Raises SpecError if
    `overrides` ask for NCCL where there is no CUDA."""
    machine = this_machine()
    if overrides.get("backend") == "nccl" and (not machine.cuda or overrides.get("device") == "cpu"):
        raise SpecError("backend=nccl: NCCL moves CUDA tensors, and there is no CUDA here; use backend=gloo")
    planned: dict[str, Planned] = {}
    for spec in specs:
        try:
            fitted = fit(spec, machine)
            row, stand_in = Planned(fitted.name, fitted), None
        except Needs as needs:
            row, stand_in = Planned(spec.name, None, needs.reason), needs.instead
        if row.name not in planned:
            planned[row.name] = row
        if stand_in is None:
            continue
        if stand_in.name not in planned:
            planned[stand_in.name] = Planned(stand_in.name, stand_in)
        stands_for = planned[stand_in.name].stands_for
        if spec.name not in stands_for:  # two groups may have the same row
            stands_for.append(spec.name)
    return list(planned.values())


def _specs(rows: Any, scale: dict[str, Any]) -> Iterator[Spec]:
    if isinstance(rows, Spec):
        yield rows
    elif rows == "all":
        yield from _specs(params.all_names(), scale)
    elif isinstance(rows, int) or (isinstance(rows, str) and rows.isdecimal()):
        yield from _specs(params.group(int(rows)).rows, scale)
    elif isinstance(rows, str):
        yield parsed(rows, scale)
    else:
        for row in rows:
            yield from _specs(row, scale)


def parsed(name: str, scale: dict[str, Any]) -> Spec:
    """The Spec of a row's name with these scale fields. Raises SpecError; for a name that is unknown, with the closest one."""
    try:
        return Spec.parse(name, **scale)
    except UnknownName:
        raise params.not_a_row(name, params.all_names()) from None


def check_samples(spec: Spec) -> None:
    """Raise SpecError unless the data set has the images that the Spec uses."""
    info = DATASETS[spec.dataset]
    for key, most in (("train_samples", info.train_images), ("test_samples", info.test_images)):
        if getattr(spec, key) > most:
            raise SpecError(f"{key}={getattr(spec, key)}: {spec.dataset} has {most}; use at most that, or 0 for all")
    if not spec.steps_per_epoch:
        raise SpecError(f"batch_per_rank={spec.batch_per_rank}: one step of {spec.name} takes {spec.images_per_step} images, "
                        f"and there are {spec.train_images}; use a smaller batch or more train_samples")  # fmt: skip
