"""Row names, both ways: the published names, and the same grammar for rows of our own. Plain dicts in, plain dicts out.

A name is the stem of its strategy (`kinds.py`), then `+key=value` for every other row field that is not at its default:
`collective_gloo_resnet18_bs128x2+form=ring`.
"""

from __future__ import annotations

import re
from typing import Any

from labkit.rows.fields import SpecError
from labkit.rows.kinds import STRATEGIES, kind_of

PATTERNS = {
    "model": r"(?P<model>[a-z0-9]+)",
    "batch": r"(?P<batch>\d{1,9})",  # images of a whole step
    "b": r"(?P<b>\d{1,9})",  # images of one rank
    "n": r"(?P<n>\d{1,9})",
    "cache": r"(?P<cache>False|True|Frozen)",
    "amp": r"(?P<amp>False|True)",
    "backend": r"(?P<backend>auto|nccl|gloo)",
    "sharding": r"(?P<sharding>grad|full)",
    "server": r"(?P<server>ps_mode|ps_gpu_mode)",
}
FIELD_OF = {"batch": "batch_per_rank", "b": "batch_per_rank", "n": "world_size", "server": "server_device"}


class UnknownName(SpecError):
    """A text that is not the name of a row."""


def told_by_stem(strategy: str) -> set[str]:
    """The fields of Spec that the stem of this strategy's names tells. `backend` is among them always: where a stem has none,
    the machine chooses it."""
    parts = re.findall(r"{(\w+)}", kind_of(strategy).stem)
    return {"strategy", "batch_per_rank", "model", "backend"} | {FIELD_OF.get(part, part) for part in parts}


def name_of(row: dict[str, Any], defaults: dict[str, Any]) -> str:
    """The name of a row. `row`: the fields of Spec, and images_per_step; `defaults`: of the row fields, in their order."""
    parts = row | {
        "b": row["batch_per_rank"],
        "n": row["world_size"],
        "batch": row["images_per_step"],
        "cache": row["cache"].capitalize(),
        "server": "ps_gpu_mode" if row["server_device"] == "cuda" else "ps_mode",
    }
    kind, told = kind_of(row["strategy"]), told_by_stem(row["strategy"])
    usual = defaults | {"world_size": max(kind.least, defaults["world_size"])}
    settings = [f"+{key}={row[key]}" for key in defaults if key not in told and row[key] != usual[key]]
    return kind.stem.format(**parts) + "".join(settings)


def read_name(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The row fields that a name's stem tells, and the texts of its settings by key. Raises UnknownName, or SpecError for a
    batch that cannot be divided over the replicas."""
    stem, *settings = name.split("+")
    for strategy in STRATEGIES:
        template = kind_of(strategy).stem.replace("{strategy}", strategy)
        pattern = re.sub(r"{(\w+)}", lambda part: PATTERNS[part[1]], template)
        if match := re.fullmatch(pattern, stem):
            pairs = (setting.partition("=") for setting in settings)
            return _fields_of(strategy, match.groupdict()), {key: text for key, _, text in pairs}
    raise UnknownName(f"{name!r}: not the name of a row (`labkit rows` lists them)")


def _fields_of(strategy: str, told: dict[str, str]) -> dict[str, Any]:
    kind = kind_of(strategy)
    n, batch = int(told.get("n", kind.least)), int(told.get("b") or told["batch"])
    if "batch" in told and not kind.whole_batch:  # the name tells the images of all replicas together
        if n == 0 or batch % n:
            raise SpecError(f"ngpu{n}: a batch of {batch} cannot be divided over {n} replicas; use a divisor of {batch}")
        batch //= n
    fields: dict[str, Any] = {"strategy": strategy, "model": told["model"], "world_size": n, "batch_per_rank": batch}
    if "cache" in told:
        fields["cache"] = told["cache"].lower()
    if "amp" in told:
        fields["amp"] = told["amp"] == "True"
    if "server" in told:
        fields["server_device"] = "cuda" if told["server"] == "ps_gpu_mode" else "cpu"
    return fields | {key: told[key] for key in ("backend", "sharding") if key in told}
