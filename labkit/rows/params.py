"""Groups, profiles and the published table: reads and checks the files in params/. Imports no torch.

A group file says which rows one notebook compares. A profile says how big they are: data set, width, epochs and so on.
"""

import csv
import difflib
import functools
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.rows.fields import SpecError, check_value, nearest
from labkit.rows.names import UnknownName
from labkit.rows.spec import FIELDS, SCALE_FIELDS, Spec
from labkit.rows.yaml_files import read_yaml

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params"
PUBLISHED_FIGURES = ("batch_size", "best_acc_pct", "avg_throughput_img_s", "max_gpu_mem_mb", "total_time_s")
LARGEST_FIGURE = 1e12


@dataclass(frozen=True)
class Group:
    """One comparison: its number and file, the claim that it tests and its title (each in two languages), and the names of its
    rows."""

    number: int
    file: Path
    claim: str
    claim_zh: str
    title_en: str
    title_zh: str
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """How big the rows are: a name, a sentence about it in English and in Chinese (in English twice, if the file has no Chinese
    one), and values for scale fields of Spec.

    `repeats`: how often a batch trains each row. `rounds`: how often the speeds of rows that are compared are measured in turn, at
    least and at most (runs/rounds.py)."""

    name: str
    about: str
    about_zh: str
    fields: dict[str, Any]
    repeats: int = 1
    rounds: tuple[int, int] = (5, 9)


def folder() -> Path:
    """params/ of the repository. Raises SpecError where labkit was installed without it."""
    if not PARAMS.is_dir():
        raise SpecError(
            f"{PARAMS}: there is no such folder; labkit reads groups, profiles and notebooks from its repository: install it there, "
            "with `pip install -e .`"
        )
    return PARAMS


def _check_keys(path: Path, content: dict[str, Any], types: dict[str, type]) -> None:
    for key, value in content.items():
        if key not in types:
            raise SpecError(f"{path}: unknown key '{key}'{nearest(key, types)}")
        if not isinstance(value, types[key]) or (types[key] is int and isinstance(value, bool)):
            words = {int: "a whole number, without quotes", str: "a text", list: "a list, one `- name` a line"}
            raise SpecError(f"{path}: {key}: {value!r} must be {words[types[key]]}, not {type(value).__name__}")
    for key in types:
        if key not in content:
            raise SpecError(f"{path}: key '{key}' is missing; add a line `{key}: ...`")


GROUP_KEYS = {"group": int, "claim": str, "claim_zh": str, "title_en": str, "title_zh": str, "rows": list}


def not_a_row(name: str, known: Iterable[str]) -> SpecError:
    """The error for a text that is no row's name; with the closest of the known names, if one is close."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return SpecError(f"{name!r}: not the name of a row{hint} (`labkit rows` lists them)")


def read_group(path: Path) -> Group:
    """The group of one file. Raises SpecError for a missing, unknown or wrong key, and for a row that has no such name."""
    content = read_yaml(path)
    _check_keys(path, content, GROUP_KEYS)
    if not content["rows"]:
        raise SpecError(f"{path}: rows: is empty; name at least one row")
    for row in content["rows"]:
        if not isinstance(row, str):
            raise SpecError(f"{path}: rows: {row!r} must be the name of a row, not {type(row).__name__}")
        try:
            Spec.parse(row)
        except UnknownName:
            raise SpecError(f"{path}: rows: {not_a_row(row, [line['experiment'] for line in published()])}") from None
        except SpecError as error:
            raise SpecError(f"{path}: rows: {error}") from None
    names = content["rows"]
    if twice := {row for row in names if names.count(row) > 1}:
        raise SpecError(f"{path}: rows: {twice.pop()} is listed twice; a row runs once")
    claim, claim_zh = content["claim"].strip(), content["claim_zh"].strip()
    return Group(content["group"], path, claim, claim_zh, content["title_en"], content["title_zh"], tuple(names))


@functools.cache
def groups() -> tuple[Group, ...]:
    """All groups, in the order of their numbers. Raises SpecError for a wrong file, and if two files have the same number."""
    found = sorted((read_group(path) for path in folder().glob("[0-9]*.yaml")), key=lambda group: group.number)
    for one, other in itertools.pairwise(found):
        if one.number == other.number:
            raise SpecError(f"{other.file}: group: {other.number} is taken by {one.file.name}")
    return tuple(found)


def group(number: int) -> Group:
    """The group of a number. Raises SpecError if there is none."""
    for one in groups():
        if one.number == number:
            return one
    raise SpecError(f"group {number}: there is none; known: {', '.join(str(one.number) for one in groups())}")


def chinese_letters() -> str:
    """Each Chinese character of the groups' titles once, sorted: a font that draws the titles must have all of them."""
    return "".join(sorted({letter for group in groups() for letter in group.title_zh if ord(letter) > 127}))


def profile_names() -> list[str]:
    """The names of all profiles, sorted."""
    return sorted(path.stem for path in (folder() / "profiles").glob("*.yaml"))


def profile(name: str) -> Profile:
    """The profile of a name. Raises SpecError for an unknown name, and for a value that Spec would refuse."""
    if name not in profile_names():
        raise SpecError(f"profile '{name}': there is none of that name{nearest(name, profile_names())}")
    path = PARAMS / "profiles" / f"{name}.yaml"
    content = read_yaml(path)
    about = content.pop("about", None)
    about_zh = content.pop("about_zh", about)
    for key, text in (("about", about), ("about_zh", about_zh)):
        if not isinstance(text, str):
            fault = "is missing" if text is None else f"is {text!r}, not a text"
            raise SpecError(f"{path}: key '{key}' {fault}; add one sentence on what this profile is for")
    repeats, rounds = content.pop("repeats", 1), content.pop("rounds", [5, 9])
    if isinstance(repeats, bool) or not isinstance(repeats, int) or not 1 <= repeats <= 1000:
        raise SpecError(f"{path}: repeats: {repeats!r} must be a whole number from 1 to 1000")
    if not isinstance(rounds, list) or [type(one) for one in rounds] != [int, int] or not 1 <= rounds[0] <= rounds[1] <= 1000:
        raise SpecError(f"{path}: rounds: {rounds!r} must be two whole numbers, at least and at most, such as [5, 9]")
    for key, value in content.items():
        if key not in SCALE_FIELDS:
            hint = "; it belongs to a row, not to a profile" if key in FIELDS else nearest(key, SCALE_FIELDS)
            raise SpecError(f"{path}: unknown key '{key}'{hint}")
        try:
            check_value(FIELDS[key], value)
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from None
    return Profile(name, about.strip(), about_zh.strip(), content, repeats, (rounds[0], rounds[1]))


def repeats(asked: int, name: str) -> int:
    """How often a row is trained: as asked, or as the profile says if that is 0."""
    return profile(name).repeats if asked == 0 and not isinstance(asked, bool) else asked


@functools.cache
def compares() -> dict[int, dict[str, str]]:
    """What each published group compares, by the group's number: `compares` as published, `compares_zh` in Chinese."""
    rows = _read_csv(folder() / "groups.csv", ("group", "compares", "compares_zh"), numbers=("group",))
    return {int(row.pop("group")): row for row in rows}


@functools.cache
def published() -> tuple[dict[str, Any], ...]:
    """The published table: a dict for each row, with `experiment` (the row's name), `model`, and five figures as numbers."""
    columns = ("experiment", "model", *PUBLISHED_FIGURES)
    return tuple(_read_csv(folder() / "published_results.csv", columns, numbers=PUBLISHED_FIGURES))


def published_by_name() -> dict[str, dict[str, Any]]:
    """The published table by row name."""
    return {row["experiment"]: row for row in published()}


def _read_csv(path: Path, columns: tuple[str, ...], numbers: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a CSV file with exactly these columns, in any order; in some of them, positive numbers. Raises SpecError with file,
    line and column."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            read = csv.DictReader(file, restkey="more", restval="")
            rows: list[tuple[int, dict[str, Any]]]
            rows, named = [(read.line_num, row) for row in read], read.fieldnames or ()
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeError, csv.Error) as error:
        raise SpecError(f"{path}: not readable as CSV in UTF-8: {error}") from None
    if odd := sorted(set(columns) ^ set(named)):
        raise SpecError(f"{path}: column {odd[0]!r} {'is missing' if odd[0] in columns else 'is not known'}; "
                        f"its first line must name {', '.join(columns)}")  # fmt: skip
    for line, row in rows:
        for key, cell in row.items():
            if key == "more" or not cell.strip():
                raise SpecError(f"{path}, line {line}: {'has too many cells' if key == 'more' else f'{key} is empty'}")
            if key in numbers:
                row[key] = _number(cell)
                if not 0 < row[key] < LARGEST_FIGURE:
                    raise SpecError(f"{path}, line {line}: {key}: {cell[:40]!r} must be a number above 0")
    return [row for _, row in rows]


def _number(text: str) -> float:
    """The number that a text is, or NaN."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def all_names() -> list[str]:
    """The names of all rows of all groups, each once, in the order of the groups."""
    return list(dict.fromkeys(name for group in groups() for name in group.rows))
