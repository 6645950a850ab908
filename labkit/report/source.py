"""What a report is made from: the result folders of a profile, or the one file that lies beside a published report.

A published report can be checked where runs/ is empty: report.results.json beside it holds every result, one a line, and how the
notebooks ended. The links of such a report lead to the lines of that file.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from labkit.results.table import read_results
from labkit.rows import params
from labkit.rows.fields import SpecError
from labkit.rows.kinds import STRATEGIES
from labkit.rows.names import UnknownName
from labkit.rows.spec import Spec
from labkit.runs.folders import runs_folder
from labkit.runs.plan import Planned, plan
from labkit.runs.result import AGAIN, NoResult, Outcomes, Result
from labkit.runs.rounds import Rounds, all_rounds
from labkit.runs.rounds import from_json as rounds_from
from labkit.runs.statuses import Status, read_statuses, status_from
from labkit.system.files import Unreadable, read_json

FILE = "report.results.json"
PARTS = ("rows", "notebooks", "rounds", "results")  # lists of the file, one item a line


@dataclass(frozen=True)
class Source:
    """A profile's rows, what became of them, and how the notebooks ended. `folder`: the profile's result folders.

    `lines`: of a published report, where each run stands in its file, by row name and repeat, counted from 1; else empty."""

    profile: params.Profile
    overrides: dict[str, Any]
    folder: Path
    planned: tuple[Planned, ...]
    outcomes: Outcomes
    notebooks: list[Status]
    rounds: list[Rounds] = field(default_factory=list)
    lines: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def published(self) -> bool:
        """Is this a published report's file?"""
        return bool(self.lines)

    @property
    def settings(self) -> str:
        """The profile and what was set otherwise, as words of a command."""
        return settings_of(self.profile.name, self.overrides)

    @property
    def has_results(self) -> bool:
        """Did any run end well?"""
        return any(isinstance(one, Result) for repeats in self.outcomes.values() for one in repeats)

    def link(self, beside: Path, name: str, repeats: list[int]) -> str:
        """The way from the folder `beside` to the results of a row: its folder, the folder of one run, or lines of the file."""
        if self.published:
            lines = [self.lines[name, repeat] for repeat in repeats]
            return f"{FILE}#L{min(lines)}" + (f"-L{max(lines)}" if len(lines) > 1 else "")
        return relative(self.folder.joinpath(name, *map(str, repeats if len(repeats) == 1 else [])), beside)


def settings_of(profile: str, overrides: dict[str, Any]) -> str:
    """A profile and what is set otherwise, as words of a command."""
    return f"--profile {profile}" + "".join(f" --set {key}={value}" for key, value in sorted(overrides.items()))


def relative(path: Path, beside: Path) -> str:
    """The way from a folder to a file, as a link."""
    return quote(Path(os.path.relpath(path.absolute(), beside)).as_posix(), safe="/+=.")


def from_folders(profile: str, overrides: dict[str, Any]) -> Source:
    """What lies in a profile's result folders. Raises SpecError for an unknown profile or a bad override."""
    planned = plan("all", profile, overrides)
    found, notebooks = read_results(planned.label), read_statuses(planned.label)
    asked = {row.name for row in planned} | set(params.all_names())
    found = {name: outcomes for name, outcomes in found.items() if name in asked or not of_ones_own(name)}
    rounds = all_rounds(planned.folder)
    return Source(planned.profile, planned.overrides, planned.folder, planned.rows, found, notebooks, rounds)


def of_ones_own(name: str) -> bool:
    """Is it a row of a strategy of one's own, or was it, before somebody removed the file? A report has only those that a group
    names: a reader of it does not have the others' strategies."""
    try:
        return Spec.parse(name).strategy not in STRATEGIES
    except SpecError as error:
        return isinstance(error, UnknownName)


def from_file(path: Path) -> Source:
    """What a published report was made from. Raises Unreadable for a file that is torn or edited, or of another version."""
    remedy = "take the committed one back, or publish again: `labkit report --publish`"
    try:
        content, text = read_json(path), path.read_text(encoding="utf-8")
    except ValueError as error:
        raise Unreadable(f"{path}: damaged ({error.__cause__ or error}); {remedy}") from error
    try:
        as_written = text_of(content["profile"], content["overrides"], *(content[part] for part in PARTS))
        rows = tuple(Planned(row["name"], None, row["reason"], row["stands_for"]) for row in content["rows"])
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{path}: is of another version of labkit, or no such file ({error!r}); {remedy}") from error
    if as_written != text:
        raise Unreadable(f"{path}: was edited since labkit wrote it; {remedy}")
    outcomes: Outcomes = {}
    lines: dict[tuple[str, int], int] = {}
    first = text.split("\n").index('"results": [') + 2  # a list begins in the line after its name, and lines count from 1
    for number, told in enumerate(content["results"], first):
        try:
            outcome = outcome_of(told, f"{path}, line {number}")
        except Unreadable as error:
            raise Unreadable(str(error).replace(AGAIN, remedy)) from None
        outcomes.setdefault(outcome.name, []).append(outcome)
        lines[outcome.name, outcome.repeat] = number
    notebooks = [status_from(status, f"{path}, notebooks", remedy) for status in content["notebooks"]]
    profile = params.profile(content["profile"])
    rounds = [rounds_from(told, f"{path}, rounds") for told in content["rounds"]]
    return Source(profile, content["overrides"], runs_folder(), rows, outcomes, notebooks, rounds, lines)


def outcome_of(told: dict[str, Any], where: str) -> Result | NoResult:
    """A line of the file as what a run left. Raises Unreadable."""
    if not isinstance(told, dict) or told.get("status") != "ok":
        return NoResult.from_json(told, where)
    later = told.pop("later_attempt", "")
    return replace(Result.from_json(told, where), later_attempt=later)


def to_publish(source: Source) -> str:
    """The text of the file that holds all that a report shows. No path of this machine is in it."""
    rows = [{"name": row.name, "reason": row.reason, "stands_for": row.stands_for} for row in source.planned]
    notebooks = [{key: getattr(one, key) for key in ("notebook", "status", "reason", "seconds")} for one in source.notebooks]
    rounds = [one.to_json() for one in source.rounds]
    results = []
    for outcome in (one for name in sorted(source.outcomes) for one in source.outcomes[name]):
        told = outcome.to_json() if isinstance(outcome, Result) else asdict(outcome) | {"detail": ""}
        told |= {"later_attempt": outcome.later_attempt} if isinstance(outcome, Result) else {}
        results.append(told | {"run_dir": f"{source.folder.name}/{outcome.name}/{outcome.repeat}"})
    return text_of(source.profile.name, source.overrides, *map(without_paths, (rows, notebooks, rounds, results)))


def text_of(profile: str, overrides: dict[str, Any], *parts: list[Any]) -> str:
    """The file's text: a line for each row, notebook and run, and last a SHA-256 of all before it, so that an edit is found."""

    def as_json(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    lists = (f"{as_json(name)}: [\n" + ",\n".join(map(as_json, part)) + "\n]" for name, part in zip(PARTS, parts, strict=True))
    text = ",\n".join([f'{{\n"profile": {as_json(profile)}', f'"overrides": {as_json(overrides)}', *lists])
    return f'{text},\n"sha256": "{hashlib.sha256(text.encode()).hexdigest()}"\n}}\n'


def without_paths(value: Any) -> Any:
    """The same plain data; where a text names the folder of the results or of the checkout, the rest of the path stays."""
    if isinstance(value, str):
        return value.replace(f"{runs_folder()}/", "runs/").replace(f"{params.ROOT}/", "")
    if isinstance(value, dict):
        return {key: without_paths(inner) for key, inner in value.items()}
    return [without_paths(inner) for inner in value] if isinstance(value, (list, tuple)) else value
