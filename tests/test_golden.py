"""What the lab writes and prints, compared with files in golden/: a guard against changes that nobody meant.

The files hold no judgement of what is right. They hold what was there. A change that moves code must leave them as they are.
Who means a change writes them again, and reads the diff before the commit:

    LABKIT_GOLDEN=write python -m pytest tests/test_golden.py
    git diff tests/golden

Nothing in them depends on this machine: its description is made up, folders and pictures stand as <...>, and of what is measured
only the types are kept. A strategy and a group of one's own are left out: the files are about those that were published.
"""

from __future__ import annotations

import difflib
import functools
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labkit.plots import overviews as plots
from labkit.rows import params
from labkit.rows.kinds import KINDS, users_of
from labkit.rows.spec import FIELDS, ROW_DEFAULTS, Spec
from tests.helpers.command_line import Said, json_lines
from tests.helpers.made_up import CPU, GPUS, use
from tests.helpers.report_pages import FILES, everything, written

GOLDEN = Path(__file__).parent / "golden"
WRITE = os.environ.get("LABKIT_GOLDEN") == "write"
SHOWN_LINES = 40  # of a difference
PUBLISHED_GROUPS = 10
MACHINES = {"cpu": CPU, "gpus": GPUS}
PROFILES = ("quick", "tiny", "classroom", "reference")
STEMS = {
    "single": ["single_gpu_resnet18_bs256_cacheTrue_ampTrue", "single_gpu_resnet50_bs1_cacheFrozen_ampFalse"],
    "data_parallel": ["dp_resnet18_bs256_ngpu2_cacheFalse_ampFalse", "dp_resnet34_bs12_ngpu3_cacheTrue_ampTrue"],
    "ddp": ["ddp_nccl_resnet18_bs128x2_cacheTrue_ampTrue", "ddp_auto_resnet34_bs8x4_cacheFrozen_ampFalse"],
    "fsdp": ["fsdp_grad_resnet18_bs128x2_ampFalse", "fsdp_full_resnet50_bs64x4_ampTrue"],
    "model_parallel": ["model_parallel_resnet18_bs256_cacheFalse"],
    "collective": ["collective_gloo_resnet18_bs128x2", "collective_nccl_resnet34_bs32x3"],
    "parameter_server": ["ps_mode_resnet18_bs128_workers2", "ps_gpu_mode_resnet18_bs64_workers3"],
}
SETTINGS = {
    "single": ["", "+norm=group", "+amp_dtype=fp16"],
    "data_parallel": ["", "+norm=group"],
    "ddp": ["", "+bucket_mb=1.5+static_graph=True", "+gradient_as_bucket_view=True+norm=group", "+amp_dtype=bf16"],
    "fsdp": ["", "+amp_dtype=bf16+norm=group", "+cache=true"],
    "model_parallel": ["", "+amp=True", "+world_size=3", "+micro_batches=4", "+micro_batches=4+schedule=1f1b", "+norm=group"],
    "collective": ["", "+form=ring", "+form=flat", "+form=buckets+bucket_mb=0.1", "+cache=true+amp=True"],
    "parameter_server": ["", "+consistency=sync", "+consistency=ssp", "+consistency=ssp+staleness_bound=0", "+amp=True"],
}
TINY_ROWS = {
    "single": "single_gpu_resnet18_bs256_cacheTrue_ampFalse",
    "ddp": "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse",
    "parameter_server": "ps_mode_resnet18_bs128_workers2",
    "model_parallel": "model_parallel_resnet18_bs256_cacheFalse",
}


def same_as(name: str, text: str) -> None:
    """Compare a text with golden/<name>, byte for byte; or write it there. A missing file is a difference from all of its text."""
    path = GOLDEN / name
    if WRITE:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
        return
    kept = path.read_bytes().decode() if path.exists() else ""
    if text != kept:
        before, now = kept.splitlines(), text.splitlines()
        lines = list(difflib.unified_diff(before, now, f"golden/{name}", "now", "", "", n=1, lineterm=""))
        more = [f"... and {len(lines) - SHOWN_LINES} lines more"] if len(lines) > SHOWN_LINES else []
        shown = "\n".join([*(line[:300] for line in lines[:SHOWN_LINES]), *more])
        pytest.fail(
            f"{name} changed. If that is meant: LABKIT_GOLDEN=write python -m pytest tests/test_golden.py\n{shown}", pytrace=False
        )


def frozen(text: str, folder: Path) -> str:
    """The text without what differs from run to run: the test's folder, and the bytes of pictures. Nor are these files about looks:
    the style sheet is left out."""
    text = re.sub(r"<style>.*?</style>", "<style>…</style>", text, flags=re.S)
    return re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "<picture>", text.replace(str(folder), "<folder>"))


def as_json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


@pytest.fixture
def nothing_ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(plots, "save_plots", lambda *_: [])
    return tmp_path


@functools.cache
def published_groups(groups: tuple[params.Group, ...]) -> tuple[params.Group, ...]:
    theirs = (replace(group, rows=tuple(row for row in group.rows if Spec.parse(row).strategy in KINDS)) for group in groups)
    return tuple(group for group in theirs if group.number <= PUBLISHED_GROUPS)


@pytest.fixture(autouse=True)
def only_what_was_published(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = published_groups(params.groups())
    monkeypatch.setattr(params, "groups", lambda: groups)


# -- names and plans ----------------------------------------------------------------------------------------------------


def all_the_names() -> list[str]:
    published = [row["experiment"] for row in params.published()]
    varied = [stem + setting for strategy, stems in STEMS.items() for stem in stems for setting in SETTINGS[strategy]]
    return list(dict.fromkeys([*params.all_names(), *published, *varied]))


def test_names() -> None:
    """What each name tells; `->` names it again, and the numbers that follow from the fields stand beside it."""
    assert set(STEMS) == set(SETTINGS) == set(KINDS), "every published strategy has names here"
    told = {}
    for name in all_the_names():
        spec = Spec.parse(name)
        fields = {key: getattr(spec, key) for key in FIELDS if getattr(spec, key) != FIELDS[key].default}
        derived = {key: getattr(spec, key) for key in ("processes", "shards", "images_per_step", "batch_size")}
        told[name] = {"fields": fields, "derived": derived, "->": spec.name}
        assert Spec(**fields).name == name
    same_as("names.json", as_json(told))


def test_fields() -> None:
    """What can be set, with its type, default and limits, in their order."""
    fields = {}
    for name, field in FIELDS.items():
        limits = {key: value for key, value in field.metadata.items() if value not in (None, False)}
        limits |= {"of": users_of(name)} if users_of(name) else {}
        limits |= {"choices": [choice for choice in limits["choices"] if choice in KINDS]} if name == "strategy" else {}
        limits.pop("also", None)  # strategies of one's own, which are other ones everywhere
        fields[name] = {"of": "row" if name in ROW_DEFAULTS else "scale", "type": str(field.type), "default": field.default}
        fields[name]["limits"] = limits
    same_as("fields.json", as_json(fields))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("profile", PROFILES)
def test_rows_json(
    profile: str, machine: str, nothing_ran: Path, monkeypatch: pytest.MonkeyPatch, labkit: Callable[..., Said]
) -> None:
    use(monkeypatch, MACHINES[machine])
    said = labkit("rows", "--profile", profile, "--json")
    assert (said.code, said.err) == (0, "")
    same_as(f"rows.{profile}.{machine}.jsonl", frozen(said.out, nothing_ran))


# -- results ------------------------------------------------------------------------------------------------------------


def types(value: Any, key: str = "") -> dict[str, str]:
    """Every key with the JSON type of its value, those of nested values as outer.inner or list[].inner. Where list items differ,
    with all their types. A key that is a number is a count of something, and stands as <n>."""
    names = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null", list: "list", dict: "object"}
    found: dict[str, set[str]] = {key: {names[type(value)]}} if key else {}
    inner = value.items() if isinstance(value, dict) else [("[]", item) for item in value] if isinstance(value, list) else []
    for name, item in inner:
        name = "<n>" if name.isdecimal() else name
        path = f"{key}{'' if name == '[]' or not key else '.'}{name}"
        for under, kinds in types(item, path).items():
            found.setdefault(under, set()).update(kinds.split("|"))
    return {name: "|".join(sorted(kinds)) for name, kinds in sorted(found.items())}


def test_types_names_every_key_with_its_type() -> None:
    value = {"a": [{"b": 1}, {"b": None, "c": {"7": 1.0}}], "d": True, "e": []}
    told = {"a": "list", "a[]": "object", "a[].b": "int|null", "a[].c": "object", "a[].c.<n>": "float", "d": "bool", "e": "list"}
    assert types(value) == told


@pytest.mark.parametrize("strategy", TINY_ROWS)
def test_result_keys(strategy: str, runs: Path, labkit: Callable[..., Said]) -> None:
    said = labkit("run", TINY_ROWS[strategy], "--profile", "tiny", "--set", "device=cpu", "--json")
    (line,) = json_lines(said.out)
    assert (said.code, line["status"]) == (0, "ok"), said
    result = json.loads(Path(line["run_dir"], "result.json").read_text())
    result["environment"] = {}  # of the person who runs the tests
    result["machine"] |= {"cuda": [], "bf16": None}  # the one has items, and the other a value, on some machines only
    line.pop("run_dir")
    same_as(f"result.{strategy}.json", as_json({"result.json": types(result), "run --json": types(line)}))


# -- texts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_report(machine: str, nothing_ran: Path, monkeypatch: pytest.MonkeyPatch, pictures: None) -> None:
    """Repeats, failed rows, rows that need more, servers, notebooks and pictures, in both languages and formats."""
    use(monkeypatch, MACHINES[machine])
    everything()
    files = written(nothing_ran)
    assert list(files) == FILES
    for name, text in files.items():
        same_as(f"{machine}.{name}", frozen(text, nothing_ran))


def test_report_on_nothing(nothing_ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, CPU)
    for name, text in written(nothing_ran, overrides={"epochs": 1}).items():
        if name.endswith(".md"):
            same_as(f"nothing.{name}", frozen(text, nothing_ran))


@pytest.mark.parametrize("words", [("rows",), ("table",), ("table", "--json")], ids=lambda words: "".join(words))
def test_tables_as_text(
    words: tuple[str, ...], nothing_ran: Path, monkeypatch: pytest.MonkeyPatch, labkit: Callable[..., Said]
) -> None:
    use(monkeypatch, CPU)
    everything()
    said = labkit(*words)
    assert (said.code, said.err) == (0, "")
    same_as(f"{''.join(words)}.txt", frozen(said.out, nothing_ran))


@pytest.mark.parametrize("command", ["", "rows", "run", "table", "report", "check", "doctor", "prove", "bench"])
def test_help(command: str, monkeypatch: pytest.MonkeyPatch, labkit: Callable[..., Said]) -> None:
    """The words of the help, without the frames that are drawn around them: those are the terminal's."""
    monkeypatch.setenv("COLUMNS", "250")
    said = labkit(*command.split(), "--help")
    assert (said.code, said.err) == (0, "")
    text = re.sub("\x1b\\[[0-9;]*m|[\u2500-\u257f]", "", said.out)
    same_as(
        f"help.{command or 'labkit'}.txt", "".join(f"{' '.join(line.split())}\n" for line in text.splitlines() if line.strip())
    )
