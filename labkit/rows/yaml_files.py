"""YAML read with one meaning only: what YAML 1.1 would take in a way that few people expect is refused, with file and line."""

import re
from pathlib import Path
from typing import Any

from labkit.rows.fields import SpecError

DEEPEST = 20  # levels of nesting; our own files have four, and libyaml itself overflows the stack somewhere above 5000
TAG = "tag:yaml.org,2002:"


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises SpecError naming the file, and the line where it can.

    Refused besides what is no YAML: a key that stands twice (YAML takes the last), 010 (YAML takes it for 8), 10:24 (for 624),
    aliases, and nesting of more than twenty levels."""
    import yaml  # late: keeps yaml out of a process that does not need it

    fastest = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = path.read_text(encoding="utf-8")
        _check_depth(path, yaml.parse(text, fastest))
        loader = fastest(text)
        node = loader.get_single_node()
        _check(path, node)
        content = loader.construct_document(node) if node else None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except SpecError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: text that is not UTF-8, or a date that is none
        at = getattr(error, "problem_mark", None)
        where = f"{_at(path, at)}, column {at.column + 1}" if at else str(path)
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise SpecError(f"{where}: not readable as YAML: {what}") from None
    if not isinstance(content, dict):
        raise SpecError(f"{path}: must hold `key: value` lines, not {type(content).__name__}")
    return content


def _at(path: Path, mark: Any) -> str:
    return f"{path}, line {mark.line + 1}"


def _check_depth(path: Path, events: Any) -> None:
    """Refuse nesting that is too deep, before recursive code reads the file."""
    depth = 0
    for event in events:
        kind = type(event).__name__
        if kind.endswith("StartEvent"):
            depth += 1
        elif kind.endswith("EndEvent"):
            depth -= 1
        if depth - 2 > DEEPEST:  # the stream and the document count, too
            raise SpecError(
                f"{_at(path, event.start_mark)}: nested more than {DEEPEST} levels deep; no file here needs more than four"
            )
        if kind == "AliasEvent":
            raise SpecError(f"{_at(path, event.start_mark)}: *{event.anchor}: aliases are not allowed; write the value out")


def _check(path: Path, node: Any) -> None:
    if node is None:
        return
    if isinstance(node.value, str):
        _check_number(path, node)
        return
    lines: dict[tuple[str, str], int] = {}
    for item in node.value:
        if isinstance(item, tuple):  # of a mapping
            key, item = item
            _check(path, key)
            if isinstance(key.value, str):
                if (name := (key.tag, key.value)) in lines:
                    raise SpecError(
                        f"{_at(path, key.start_mark)}: '{key.value}' stands there twice, first in line {lines[name]}; leave one"
                    )
                lines[name] = key.start_mark.line + 1
        _check(path, item)


def _check_number(path: Path, node: Any) -> None:
    """Refuse numbers that YAML reads in another way than people do."""
    text, quoted = node.value, node.style in ("'", '"', "|", ">")
    if node.tag in (f"{TAG}int", f"{TAG}float") and ":" in text:
        raise SpecError(
            f"{_at(path, node.start_mark)}: {text}: YAML reads this as a number in base 60; write one number, or a text in quotes"
        )
    if (
        node.tag in (f"{TAG}int", f"{TAG}str")
        and not (quoted and node.tag == f"{TAG}str")
        and re.fullmatch(r"[-+]?0[0-9_]+", text)
    ):
        number = text.lstrip("+-0_") or "0"
        raise SpecError(
            f"{_at(path, node.start_mark)}: {text}: YAML reads a 0 in front as base 8; write {number}, or a text in quotes"
        )
