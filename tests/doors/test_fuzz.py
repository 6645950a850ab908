"""Files of runs that are not as they should be, drawn at random from a seed: result.json, attempt.json, status.json; and names and
command lines.

Whatever stands in them, what reads them says in a line which file it is and what is wrong with it, shows the rest, and ends with a code
that it promises. Nothing here may end in an exception that no reader expects. A case is its number: the same number makes it again.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from labkit.notebook.lesson import Lesson
from labkit.notebook.ran import kept
from labkit.processes import fork_server
from labkit.report.source import from_folders
from labkit.report.view import Found, view
from labkit.report.write import write_report
from labkit.results.table import kept_lines
from labkit.rows import params
from labkit.rows.fields import SpecError
from labkit.rows.spec import Spec
from labkit.runs import train
from labkit.runs.plan import plan
from tests.helpers.made_up import CPU, put, use
from tests.helpers.spoiled import ODD, SEED, draws, spoil

GOOD = "dp_resnet18_bs256_ngpu2_cacheFalse_ampFalse"
BAD = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"


@pytest.fixture(autouse=True)
def lab(tmp_path, monkeypatch):
    """Two rows of group 1; nothing trains, and no pictures are drawn."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(fork_server, "warm", lambda *_, **__: None)
    monkeypatch.setattr(train, "train", lambda *_: {"status": "failed", "reason": "nothing trains here", "detail": "", "rank": 0})
    monkeypatch.setattr("labkit.plots.overviews.save_plots", lambda *_: [])
    use(monkeypatch, CPU)
    put(GOOD, 1234.5, 77.0, 222.0)
    put(BAD, 800.0, 93.0, 50.0, repeat=1, strategy={"staleness": {"0": 2}}, later_attempt="failed: a reason")
    put(BAD, 900.0, 92.0, 51.0, repeat=2)
    put(BAD, repeat=3, status="oom", reason="too little")
    notebooks = tmp_path / "runs" / "quick" / "notebooks"
    notebooks.mkdir()
    told = {
        "notebook": "01_one_gpu_vs_several",
        "status": "ok",
        "reason": "",
        "seconds": 12.3,
        "started_at": 1.7e9,
        "inputs": "x",
    }
    (notebooks / "01_one_gpu_vs_several.status.json").write_text(json.dumps(told))
    return tmp_path


def ends_well(said: Any, *codes: int) -> None:
    assert said.code in codes and "Traceback" not in said.err, said
    assert all(line.startswith("labkit: ") for line in said.err.splitlines()), said.err


# -- what runs leave ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(96))
def test_a_spoiled_file_of_a_run_costs_its_row_and_no_other(lab, labkit, n):
    draw = draws(SEED, n)
    files = sorted(lab.glob(f"runs/quick/{BAD}/*/*.json")) + sorted(lab.glob("runs/quick/notebooks/*.json"))
    file = draw.choice(files)
    spoil(file, draw)
    lines = {line["name"]: line for line in kept_lines(plan("all"))}
    assert (lines[GOOD]["status"], lines[GOOD]["images_per_s"]) == ("ok", 1234.5)
    said = labkit("table", *["--json"][: draw.randrange(2)])
    ends_well(said, 0)
    assert GOOD in said.out and re.search(r"1,?234\.5", said.out), "the other row is shown"
    for line in lines.values():
        if line["status"] == "unreadable":
            assert str(file) in line["reason"] and "\n" not in line["reason"], line["reason"]
    found = Found(from_folders("quick", {}), lab)
    told = view(found)
    assert GOOD in [row["name"] for row in told["results"]]
    ran = kept(list(params.group(1).rows), "quick")
    assert GOOD in str(ran.table()) and GOOD in str(ran.ratios(params.group(1)))
    if n % 8 == 0:
        texts = [path.read_text(encoding="utf-8") for path in write_report(path=lab / "report.md")]
        assert all(GOOD in text for text in texts)
        ends_well(labkit("check", "--folder", str(lab)), 0)
        ends_well(labkit("rows"), 0)
    if n % 8 == 1:
        ends_well(labkit("run", BAD, "--repeats", "2"), 0, 1)
        lesson = Lesson(1, rows=[BAD, GOOD])
        lesson.ran = kept([BAD, GOOD], "quick")
        assert GOOD in str(lesson.table()) + str(lesson.outcome()) + str(lesson.question())


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("name", ["result.json", "attempt.json", "status.json"])
def test_a_file_that_holds_something_else_is_named(lab, labkit, name, value):
    folder = lab / "runs" / "quick" / BAD / ("3" if name == "attempt.json" else "1")
    file = lab / "runs/quick/notebooks/01_one_gpu_vs_several.status.json" if name == "status.json" else folder / name
    file.write_text(json.dumps(value))
    (lab / "runs" / "quick" / BAD / "1" / "attempt.json").unlink()
    if value is None:
        return  # null: as if there were no file
    told = view(Found(from_folders("quick", {}), lab))
    (reason,) = [one["reason"] for one in told["absent"] + told["notebooks"] if one["status"] == "unreadable"] or [""]
    assert str(file) in reason and "\n" not in reason and len(reason) < 500
    ends_well(labkit("table", "--json"), 0)


WORDS = ["single_gpu_resnet18_bs256_cacheTrue_ampFalse", "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse", "dp_resnet18_bs256_ngpu2_cacheFalse_ampFalse",
         "fsdp_grad_resnet18_bs128x2_ampFalse", "+form=ring", "+", "=", "bs0", "x-1", "9" * 30, "all", "11", "0", "-1", "²", "\u4e2d", "\n", " ", "../..",
         "--profile", "tiny", "--set", "epochs=nan", "epochs=1", "lr=1e999", "lr=", "=1", "--repeats", "--only", "1,", "x", "--lang", "%s", "{0}"]  # fmt: skip


@pytest.mark.parametrize("n", range(80))
def test_any_name_and_command_line_ends_with_a_promised_code(labkit, n):
    draw = draws(SEED + 4, n)
    name = "".join(draw.choice(WORDS) for _ in range(draw.randrange(1, 4)))
    try:
        assert Spec.parse(name).processes > 0
    except SpecError as error:
        assert str(error).strip()
    words = [draw.choice(WORDS) for _ in range(draw.randrange(1, 4))]
    said = labkit(draw.choice(["rows", "table", "check", "nonsense"]), *words)
    assert said.code in (0, 1, 2) and "Traceback" not in said.err, (words, said)
