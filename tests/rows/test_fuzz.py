"""Files that people write, spoiled at random from a seed: the CSV and YAML files of params/, and notebooks. They are read as before,
or refused in a line that names the file. A case is its number: the same number makes it again."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from labkit.batch.notebooks import cells_of, discover, parameters_of
from labkit.rows import params
from labkit.rows.fields import SpecError
from labkit.runs.plan import plan
from tests.helpers.spoiled import SEED, draws, spoil, torn


def ends_well(said: Any, *codes: int) -> None:
    assert said.code in codes and said.out == "" and said.err.count("\n") == 1 and "Traceback" not in said.err, said


@pytest.fixture
def own_params(tmp_path, monkeypatch):
    shutil.copytree(params.PARAMS, tmp_path / "params")
    monkeypatch.setattr(params, "PARAMS", tmp_path / "params")
    yield tmp_path / "params"
    forget()


def forget() -> None:
    for read in (params.groups, params.published, params.compares):
        read.cache_clear()


def read_all() -> None:
    forget()
    params.published()
    params.compares()
    for name in params.profile_names():
        params.profile(name)
    plan("all")
    params.published()


@pytest.mark.parametrize("n", range(40))
def test_a_spoiled_csv_is_refused_by_its_name(own_params, labkit, n):
    draw = draws(SEED + 1, n)
    file = own_params / draw.choice(["published_results.csv", "groups.csv"])
    before = file.read_bytes()
    lines = [line.split(b",") for line in before.splitlines()]
    row = draw.randrange(len(lines))
    what = draw.choice(("cell", "byte", "short", "long", "column", "empty"))
    if what == "cell":
        lines[row][draw.randrange(len(lines[row]))] = draw.choice([b"", b" ", b"many", b"nan", b"-1", b"1e400", b"\xff", b"\x00"])
    elif what == "byte":
        lines[row][0] += b"\xe4\xff"
    elif what == "short":
        lines[row].pop()
    elif what == "long":
        lines[row].append(b"1")
    elif what == "column":
        lines = [line[1:] for line in lines]
    file.write_bytes(b"" if what == "empty" else b"\n".join(b",".join(line) for line in lines) + b"\n")
    try:
        read_all()
    except SpecError as error:
        assert str(file) in str(error) and "\n" not in str(error)
        forget()
        ends_well(labkit("check"), 1, 2)
        return
    told = file.name == "groups.csv" or row == 0 or what == "cell"  # another text is a text, too
    assert told, f"{what} in line {row + 1} of {file.name} was read as if nothing were wrong"


@pytest.mark.parametrize("n", range(40))
def test_a_spoiled_yaml_is_refused_by_its_name(own_params, labkit, n):
    draw = draws(SEED + 2, n)
    file = draw.choice(sorted(own_params.rglob("[0-9]*.yaml")) + sorted(own_params.glob("profiles/*.yaml")))
    text = file.read_text(encoding="utf-8")
    deep = "a: " + "[" * 1000 + "]" * 1000
    lines = text.splitlines()
    lines.insert(
        draw.randrange(len(lines) + 1),
        draw.choice([deep, "? [a]", "- x", "claim: 7", "\t", "x: &a [*a]", "rows: {}", "a: !!python/name:os"]),
    )
    file.write_bytes(torn(text, draw) if n % 2 else "\n".join(lines).encode())
    try:
        read_all()
    except SpecError as error:
        assert str(file) in str(error) and "\n" not in str(error), error
        forget()
        ends_well(labkit("rows"), 2) if "profiles" not in str(file) else None


@pytest.mark.parametrize("n", range(40))
def test_a_spoiled_notebook_is_refused_by_its_name(tmp_path, monkeypatch, n):
    draw = draws(SEED + 3, n)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setenv("LABKIT_NOTEBOOKS", str(folder))
    file = folder / "01_one_gpu_vs_several.ipynb"
    shutil.copy(params.ROOT / "notebooks" / file.name, file)
    content = json.loads(file.read_text(encoding="utf-8"))
    content["cells"] = content["cells"][:3]
    file.write_text(json.dumps(content))
    spoil(file, draw)
    try:
        (notebook,) = discover()
        parameters_of(notebook, profile="tiny", repeats=1, fresh=False, overrides={})
        assert all("".join(cell["source"]) is not None for cell in cells_of(file))
    except SpecError as error:
        assert str(file) in str(error) and "\n" not in str(error), error
