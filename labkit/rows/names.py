"""Row names: from fields to a name, and from a name to fields. Rows of our own follow the grammar of the published names.

    collective_gloo_resnet18_bs128x2      +form=ring
    stem: the strategy's form (kinds.py)  +key=value, for every other row field that is not at its default

Plain dicts in, plain dicts out: this file does not import Spec.
"""

import re
from typing import Any

from labkit.rows.fields import SpecError
from labkit.rows.kinds import kind_of, strategies

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


def fields_in_stem(strategy: str) -> set[str]:
    """The fields of Spec that the stem of this strategy's names states. `backend` is always among them: if a stem has none, the
    machine chooses it."""
    parts = re.findall(r"{(\w+)}", kind_of(strategy).stem)
    return {"strategy", "batch_per_rank", "model", "backend"} | {FIELD_OF.get(part, part) for part in parts}


def name_of(row: dict[str, Any], defaults: dict[str, Any]) -> str:
    """The name of a row. `row`: the fields of Spec, and images_per_step. `defaults`: of the row fields; the name has its settings
    in the same order."""
    parts = row | {
        "b": row["batch_per_rank"],
        "n": row["world_size"],
        "batch": row["images_per_step"],
        "cache": row["cache"].capitalize(),
        "server": "ps_gpu_mode" if row["server_device"] == "cuda" else "ps_mode",
    }
    kind, in_stem = kind_of(row["strategy"]), fields_in_stem(row["strategy"])
    unsaid = defaults | {"world_size": max(kind.least, defaults["world_size"])}  # values that a name leaves out
    settings = [f"+{key}={row[key]}" for key in defaults if key not in in_stem and row[key] != unsaid[key]]
    return kind.stem.format(**parts) + "".join(settings)


def read_name(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The row fields that the stem of a name states, and the texts of its settings by key. Raises UnknownName for a text that is
    no name, and SpecError for a batch that cannot be divided over the replicas."""
    stem, *settings = name.split("+")
    for strategy in strategies():
        template = kind_of(strategy).stem.replace("{strategy}", strategy)
        pattern = re.sub(r"{(\w+)}", lambda part: PATTERNS[part[1]], template)
        if match := re.fullmatch(pattern, stem):
            pairs = (setting.partition("=") for setting in settings)
            return _fields_of(strategy, match.groupdict()), {key: text for key, _, text in pairs}
    raise UnknownName(f"{name!r}: not the name of a row (`labkit rows` lists them)")


def _fields_of(strategy: str, parts: dict[str, str]) -> dict[str, Any]:
    """The row fields from the parts of a stem, by their names in PATTERNS."""
    kind = kind_of(strategy)
    n, batch = int(parts.get("n", kind.least)), int(parts.get("b") or parts["batch"])
    if "batch" in parts and not kind.whole_batch:  # the name states the images of all replicas together
        if n == 0 or batch % n:
            raise SpecError(f"ngpu{n}: a batch of {batch} cannot be divided over {n} replicas; use a divisor of {batch}")
        batch //= n
    fields: dict[str, Any] = {"strategy": strategy, "model": parts["model"], "world_size": n, "batch_per_rank": batch}
    if "cache" in parts:
        fields["cache"] = parts["cache"].lower()
    if "amp" in parts:
        fields["amp"] = parts["amp"] == "True"
    if "server" in parts:
        fields["server_device"] = "cuda" if parts["server"] == "ps_gpu_mode" else "cpu"
    return fields | {key: parts[key] for key in ("backend", "sharding") if key in parts}
