"""Row names, both ways: the published names, and the same grammar for rows of our own. Imports no torch.

A name is a stem from the table below, then `+key=value` for every other row field that is not at its default:
`collective_gloo_resnet18_bs128x2+form=ring`. The stems of the seven published kinds are the published ones; a
strategy file that is not in the table gets the general stem, so that adding one needs no change here.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from labkit.rows.spec import FIELDS, ROW_FIELDS, STRATEGIES, Spec, SpecError, nearest, read_text_value

GENERAL = "{strategy}_{backend}_{model}_bs{b}x{n}_cache{cache}_amp{amp}"
STEMS = {
    "single": "single_gpu_{model}_bs{batch}_cache{cache}_amp{amp}",
    "data_parallel": "dp_{model}_bs{batch}_ngpu{n}_cache{cache}_amp{amp}",
    "ddp": "ddp_{backend}_{model}_bs{b}x{n}_cache{cache}_amp{amp}",
    "model_parallel": "model_parallel_{model}_bs{batch}_cache{cache}",
    "collective": "collective_{backend}_{model}_bs{b}x{n}",
    "fsdp": "fsdp_{sharding}_{model}_bs{b}x{n}_amp{amp}",
    "parameter_server": "{server}_{model}_bs{b}_workers{n}",
}
PATTERNS = {
    "model": r"(?P<model>[a-z0-9]+)",
    "batch": r"(?P<batch>\d{1,9})",
    "b": r"(?P<b>\d{1,9})",
    "n": r"(?P<n>\d{1,9})",
    "cache": r"(?P<cache>False|True|Frozen)",
    "amp": r"(?P<amp>False|True)",
    "backend": r"(?P<backend>auto|nccl|gloo)",
    "sharding": r"(?P<sharding>grad|full)",
    "server": r"(?P<server>ps_mode|ps_gpu_mode)",
}
IN_STEM = {
    "model": ["model"],
    "batch": ["batch_per_rank"],
    "b": ["batch_per_rank"],
    "n": ["world_size"],
    "server": ["server_device"],
}
FIXED_WORLD = {"single": 1, "model_parallel": 2}


def stem_fields(strategy: str) -> set[str]:
    """The Spec fields that the stem of this strategy's names already tells."""
    told = {"strategy", "batch_per_rank", "model"}
    for part in re.findall(r"{(\w+)}", STEMS.get(strategy, GENERAL)):
        told.update(IN_STEM.get(part, [part]))
    return told


def default_of(strategy: str, field: str) -> Any:
    if field == "world_size":
        return FIXED_WORLD.get(strategy, FIELDS[field].default)
    return FIELDS[field].default


def name_of(spec: Spec) -> str:
    parts = spec.to_dict() | {
        "b": spec.batch_per_rank,
        "n": spec.world_size,
        "batch": spec.images_per_step,
        "cache": spec.cache.capitalize(),
        "server": "ps_gpu_mode" if spec.server_device == "cuda" else "ps_mode",
    }
    name = STEMS.get(spec.strategy, GENERAL).format(**parts)
    told = stem_fields(spec.strategy) | {"backend"}  # where a stem has no backend, the machine chooses it
    for field in ROW_FIELDS:
        value = getattr(spec, field)
        if field not in told and value != default_of(spec.strategy, field):
            name += f"+{field}={value}"
    return name


def fields_of(name: str) -> dict[str, Any]:
    """The row fields that a name tells. Raises SpecError for anything that is not a row's name (so `../x` is none), and
    for another spelling of one (`bs0128`, a setting at its default): a row has one name, and so one folder."""
    stem, *settings = name.split("+")
    for strategy in STRATEGIES:
        template = STEMS.get(strategy, GENERAL.replace("{strategy}", strategy))
        pattern = re.sub(r"{(\w+)}", lambda m: PATTERNS[m[1]], template)
        if match := re.fullmatch(pattern, stem):
            fields = _from_match(strategy, match.groupdict())
            break
    else:
        from labkit.rows.params import all_names

        close = difflib.get_close_matches(name, all_names(), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise SpecError(f"{name!r}: not the name of a row{hint} (`labkit rows` lists them)")
    for setting in settings:
        key, _, text = setting.partition("=")
        if key in stem_fields(strategy) | {"backend"}:
            raise SpecError(f"'{name}': '{key}' cannot be set after a +; the name says it before, or the machine chooses it")
        if key not in ROW_FIELDS:
            raise SpecError(f"'{name}': '{key}' cannot be set in a row's name{nearest(key, ROW_FIELDS)}")
        fields[key] = read_text_value(key, text)
    if (spelled := Spec(**fields).name) != name:
        raise SpecError(f"{name!r}: a row has one name; write it '{spelled}'")
    return fields


def _from_match(strategy: str, told: dict[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {"strategy": strategy, "model": told["model"]}
    n = int(told.get("n", FIXED_WORLD.get(strategy, 1)))
    fields["world_size"] = n
    batch = int(told.get("b") or told["batch"])
    if strategy == "data_parallel":
        if n == 0 or batch % n:
            raise SpecError(f"ngpu{n}: a batch of {batch} cannot be divided over {n} replicas; use a divisor of {batch}")
        batch //= n
    fields["batch_per_rank"] = batch
    if "cache" in told:
        fields["cache"] = told["cache"].lower()
    if "amp" in told:
        fields["amp"] = told["amp"] == "True"
    for key in ("backend", "sharding"):
        if key in told:
            fields[key] = told[key]
    if "server" in told:
        fields["server_device"] = "cuda" if told["server"] == "ps_gpu_mode" else "cpu"
    return fields
