"""The batch over made-up notebooks: what it refuses, what it keeps, and what the command line tells of it.

How real kernels end stands in test_kernels.py; what happens when the batch itself is stopped, in test_faults.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from labkit.batch import batch
from labkit.batch import notebooks as notebook_files
from labkit.batch.batch import run_notebooks
from labkit.batch.notebooks import discover, settable
from labkit.rows import params
from labkit.rows.fields import SpecError
from labkit.runs import folders
from labkit.runs.statuses import read_statuses
from tests.helpers.batch_notebooks import GIVEN, GROUP, made_in, write_notebook
from tests.helpers.command_line import call


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab without notebooks and results."""
    return made_in(tmp_path, monkeypatch)


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notebooks for which a process would have been started; each "ends well" at once, with an output."""
    started: list[str] = []

    def pretend(job: dict, log: Path, *words: object) -> tuple[str, str]:
        started.append(Path(job["notebook"]).stem)
        log.touch()
        Path(job["output"]).write_text(Path(job["notebook"]).read_text())
        return "ok", ""

    monkeypatch.setattr(batch, "run_child", pretend)
    return started


# -- what is found, and what is refused -----------------------------------------------------------------------------------


def test_notebooks_are_found_by_name_and_in_order(lab: Path) -> None:
    for name in ("99_report", "04_data_cache", "00_start_here", "Untitled", "04_data_cache-Copy1", "12_more"):
        write_notebook(lab / "notebooks", name)
    found = discover()
    assert [notebook.name for notebook in found] == ["00_start_here", "04_data_cache", "12_more", "99_report"]
    assert [notebook.group and notebook.group.number for notebook in found] == [None, 4, None, None]
    assert [notebook.number for notebook in discover([99, 4, 4])] == [4, 99]


def test_settable_names_are_those_that_the_cell_assigns(lab: Path) -> None:
    path = write_notebook(lab / "notebooks", "20_x", "other = 1", parameters="a = b = 1\nc = {}; d = 2\ne.f = 2\nif True: g = 3")
    assert settable(path) == {"a", "c"}


@pytest.mark.parametrize(
    ("name", "written", "asked", "told"),
    [
        ("20_x", {}, {"profile": "quik"}, "did you mean 'quick'?"),
        ("20_x", {}, {"overrides": {"lr": -1.0}}, "lr=-1.0"),
        ("20_x", {}, {"overrides": {"epoch": 1}}, "did you mean 'epochs'?"),
        ("20_x", {}, {"repeats": -1}, "repeats=-1"),
        ("20_x", {}, {"repeats": True}, "repeats=True"),
        ("20_x", {}, {"deadline_s": 0}, "deadline=0"),
        ("20_x", {}, {"only": [4]}, "notebook 4: there is none of that number; known: 20"),
        ("20_x", {"parameters": "profile = 1"}, {}, "does not set 'repeats'; add a line for it"),
        (
            "20_x",
            {"parameters": GIVEN.replace("fresh", "frehs")},
            {},
            "does not set 'fresh'; add a line for it; did you mean 'frehs'?",
        ),
        ("20_x", {"parameters": "profile ="}, {}, "its parameters cell, line 1: invalid syntax"),
        ("20_x", {"tags": ()}, {}, "0 cells are tagged 'parameters'"),
        ("04_data_cache", {"parameters": GIVEN}, {}, "04_data_cache.ipynb: its parameters cell does not set 'claim'"),
        ("04_cache", {}, {}, "number 4 belongs to 04_data_cache.yaml; name it 04_data_cache.ipynb"),
        ("Untitled", {}, {}, "holds no notebook (NN_words.ipynb)"),
    ],
)
def test_bad_input_is_refused_before_a_process(lab, no_process, name, written, asked, told) -> None:
    write_notebook(lab / "notebooks", name, **written)
    with pytest.raises(SpecError) as refused:
        run_notebooks(**({"profile": "tiny"} | asked))
    assert told in str(refused.value)
    assert no_process == [] and not (lab / "runs").exists()


def test_two_of_a_number_and_broken_files_are_refused(lab: Path, no_process: list[str]) -> None:
    write_notebook(lab / "notebooks", "20_x")
    write_notebook(lab / "notebooks", "20_y")
    with pytest.raises(SpecError, match="number 20 is taken by 20_x"):
        run_notebooks("tiny")
    (lab / "notebooks/20_y.ipynb").unlink()
    (lab / "notebooks/20_x.ipynb").write_text("{")
    with pytest.raises(SpecError, match="cannot be read as a notebook"):
        run_notebooks("tiny")
    assert no_process == []


# -- what is executed again -----------------------------------------------------------------------------------------------


def test_only_what_changed_is_executed_again(lab: Path, no_process: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("20_x", "21_y", "99_report"):
        write_notebook(lab / "notebooks", name)

    def executed(**asked: object) -> list[str]:
        no_process.clear()
        statuses = run_notebooks("tiny", **asked)
        assert [status.status for status in statuses] == ["ok"] * len(statuses)
        assert [status.notebook for status in statuses if not status.kept] == no_process
        assert statuses == read_statuses("tiny")
        return list(no_process)

    everything = ["20_x", "21_y", "99_report"]
    assert executed() == everything
    assert executed() == []
    assert executed(fresh=True) == everything
    assert executed() == [], "whether to train anew is no input"
    assert executed(repeats=2) == everything
    assert executed(repeats=2) == []
    for damaged in ("[1]", '{"notebook": "20_x", "status": "ok"', '{"notebook": "20_x", "status": "ok", "colour": 1}'):
        (lab / "runs/tiny/notebooks/20_x.status.json").write_text(damaged)
        assert executed(repeats=2) == ["20_x"], damaged
    write_notebook(lab / "notebooks", "20_x", "1 + 1")
    assert executed(repeats=2) == ["20_x"]
    (lab / "runs/tiny/notebooks/21_y.html").unlink()
    assert executed(repeats=2) == ["21_y"]
    result = lab / "runs/tiny/a_row/1/result.json"
    result.parent.mkdir(parents=True)
    result.write_text("1")
    assert executed(repeats=2) == ["99_report"], "which shows all results"
    probe = lab / "runs/tiny/a_row/trace/6/trace.json"
    probe.parent.mkdir(parents=True)
    probe.write_text("1")
    assert executed(repeats=2) == [], "any notebook may probe a row, also after one that was executed already"
    result.write_text("2")
    assert executed(repeats=2) == ["99_report"]
    monkeypatch.setattr(notebook_files, "jupyter_versions", lambda: {"papermill": "0"})
    assert executed(repeats=2) == everything


def test_a_group_waits_for_its_results(lab: Path, no_process: list[str]) -> None:
    """An executed notebook whose rows lack a result (one failed, or was deleted) is executed again."""
    write_notebook(lab / "notebooks", "04_data_cache", parameters=GIVEN + GROUP)
    run_notebooks("tiny")
    run_notebooks("tiny")
    assert no_process == ["04_data_cache"] * 2


def test_another_batch_is_refused(lab: Path, no_process: list[str]) -> None:
    from labkit.runs.folders import claimed

    write_notebook(lab / "notebooks", "20_x")
    with claimed(lab / "runs/tiny/notebooks"), pytest.raises(OSError, match="another labkit"):
        run_notebooks("tiny")
    assert no_process == []


def test_statuses_that_nobody_wrote_are_interruptions(lab: Path) -> None:
    folder = lab / "runs/tiny/notebooks"
    folder.mkdir(parents=True)
    (folder / "20_x.ipynb").write_text("{}")
    (folder / "21_y.status.json").write_text(json.dumps({"notebook": "21_y", "status": "running"}))
    assert [(status.notebook, status.status) for status in read_statuses("tiny")] == [
        ("20_x", "interrupted"),
        ("21_y", "interrupted"),
    ]
    assert all(status.reason for status in read_statuses("tiny"))


# -- the command line -------------------------------------------------------------------------------------------------------

LIKE_A_ROW = """
import labkit
frame = labkit.run("single_gpu_resnet18_bs256_cacheTrue_ampFalse", profile=profile, overrides=overrides, fresh=fresh)
print(list(frame.status))
"""


def test_report_executes_writes_and_tells(lab, capsys, monkeypatch) -> None:
    from labkit.report import write as report

    asked = []

    def write_report(*words: object, **keys: object) -> list[Path]:
        asked.append((*words, keys))
        return [Path("/some/report.md"), Path("/some/report.zh.md")]

    monkeypatch.setattr(report, "write_report", write_report)
    write_notebook(lab / "notebooks", "20_x", LIKE_A_ROW)
    write_notebook(lab / "notebooks", "21_y", LIKE_A_ROW)
    write_notebook(lab / "notebooks", "22_z", "raise ValueError('no')")
    words = ["report", "--profile", "tiny", "--set", "epochs=1", "--set", "device=cpu"]
    said = call(capsys, monkeypatch, *words, "--only", "20, 21")
    assert said.code == 0, said
    first, second, times = said.out.splitlines()
    assert (first, second) == ("/some/report.md", "/some/report.zh.md")
    assert times.startswith("wall time ") and " s for 1 new runs: " in times and "training" in times, "the row is trained once"
    begun_and_ended = [f"notebook {n} of 2: {name}" for n, name in ((1, "20_x"), (2, "21_y")) for _ in "ab"]
    told = [line.removeprefix("labkit: ").removesuffix(": ok") for line in said.err.splitlines()]
    assert [line for line in told[1:] if not line.startswith("training ")] == begun_and_ended
    assert told[0] == params.profile("tiny").about, "nobody knows yet how long it takes"
    where = folders.runs_folder() / "tiny+device=cpu+epochs=1" / "report" / "report.md"
    assert asked == [("tiny", {"epochs": 1, "device": "cpu"}, where, ("en", "zh"), False, {})]

    said = call(capsys, monkeypatch, *words, "--only", "20,22", "--lang", "zh")
    assert said.code == 1 and "for 0 new runs" in said.out
    assert "notebook 22_z: failed: In [3]: ValueError: no" in said.out.splitlines()
    assert "20_x: ok, and still valid" in said.err
    assert asked[1][3] == ("zh",)

    said = call(capsys, monkeypatch, *words, "--only", "20,21", "--fresh")
    assert said.code == 0 and "for 1 new runs" in said.out, "anew, but once for both"
    assert re.match(r"labkit: about \d+ s if every row is trained again", said.err)


def test_rows_that_failed_count(lab, capsys, monkeypatch) -> None:
    """Group 4 through a notebook that trains nothing: its rows are told as not run, and the exit code is 1."""
    from labkit.report import write as report

    monkeypatch.setattr(report, "write_report", lambda *words, **keys: [])
    write_notebook(lab / "notebooks", "04_data_cache", parameters=GIVEN + GROUP)
    said = call(capsys, monkeypatch, "report", "--profile", "tiny", "--only", "4")
    assert said.code == 1 and "single_gpu_resnet18_bs256_cacheFrozen_ampFalse: not run yet" in said.out


@pytest.mark.parametrize("only", ["x", "4-10", "-1", "77"])
def test_only_wants_numbers_of_notebooks(lab, capsys, monkeypatch, only: str) -> None:
    write_notebook(lab / "notebooks", "20_x")
    said = call(capsys, monkeypatch, "report", f"--only={only}")
    assert said.code == 2 and said.err.startswith("labkit: ") and said.err.count("\n") == 1
