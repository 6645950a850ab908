"""The batch over made-up notebooks: what it refuses, how each end is told, what it keeps, and the pages it makes.

What happens when the batch itself is stopped stands in test_batch_faults.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from labkit import batch, notebook_files, params
from labkit.batch import Status, read_statuses, run_notebooks
from labkit.notebook_files import discover, settable
from labkit.spec import SpecError
from tests.batch_notebooks import GIVEN, GROUP, fetched, outputs_of, write_notebook
from tests.test_cli import call

ROOT = Path(__file__).parent.parent
SHOWS = """
import sys
from matplotlib.figure import Figure
print(sys.executable, profile, repeats, fresh, overrides)
figure = Figure(figsize=(1, 1)); figure.add_subplot().plot([1, 2]); display(figure)
display({"text/html": "<b>bold</b>", "text/plain": "bold", "text/markdown": "$x$"}, raw=True)
"""
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
PATIENCE_S = 20  # for a cell, on a busy machine; the slow cell takes longer


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab without notebooks and results."""
    return made_in(tmp_path, monkeypatch)


def made_in(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    (folder / "notebooks").mkdir()
    patch.setenv("LABKIT_NOTEBOOKS", str(folder / "notebooks"))
    patch.setenv("LABKIT_RUNS", str(folder / "runs"))
    return folder


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notebooks for which a process would have been started; each "ends well" at once, with an output."""
    started: list[str] = []

    def pretend(job: dict, log: Path, deadline_s: float, notify: object) -> tuple[str, str]:
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
        ("20_x", {}, {"repeats": 0}, "repeats=0"),
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
    from labkit.folders import claimed

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


# -- real kernels -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Status], list[tuple[str, dict]]]:
    """One batch over notebooks that end in every way, with a false kernel lying about under the name python3."""
    folder = tmp_path_factory.mktemp("batch")
    false_kernel = folder / "jupyter/kernels/python3/kernel.json"
    false_kernel.parent.mkdir(parents=True)
    false_kernel.write_text(json.dumps({"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        lab = made_in(folder, patch)
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        group = "print(group, len(rows), title_zh, claim.split()[0])"
        write_notebook(lab / "notebooks", "04_data_cache", group, SHOWS, parameters=GIVEN + GROUP)
        write_notebook(lab / "notebooks", "20_fails", "print('so far')", "raise ValueError('picture 17 <b>')", "print('never')")
        write_notebook(lab / "notebooks", "30_dies", "print('so far')", DIES, "print('never')")
        write_notebook(
            lab / "notebooks", "40_slow", "print('so far')", f"import time; time.sleep({PATIENCE_S + 60})", "print('never')"
        )
        write_notebook(lab / "notebooks", "50_last", "import os; os.write(2, b'below Python')")
        heard: list[tuple[str, dict]] = []
        statuses = run_notebooks(
            "tiny", overrides={"epochs": 1}, cell_timeout_s=PATIENCE_S,
            on_progress=lambda task, event: heard.append((task.notebook.name, event)),
        )  # fmt: skip
        assert statuses == read_statuses("tiny+epochs=1")
    return folder / "runs/tiny+epochs=1/notebooks", {status.notebook: status for status in statuses}, heard


def test_every_end_has_its_status(ran) -> None:
    folder, statuses, _ = ran
    told = {name: (status.status, status.reason) for name, status in statuses.items()}
    assert told == {
        "04_data_cache": ("ok", ""),
        "20_fails": ("failed", "In [4]: ValueError: picture 17 <b>"),
        "30_dies": ("kernel died", "in cell 5: killed by SIGKILL (out of memory?)"),
        "40_slow": ("timeout", f"in cell 5: more than {PATIENCE_S} s"),
        "50_last": ("ok", ""),
    }
    for name, status in statuses.items():
        kept = json.loads((folder / f"{name}.status.json").read_text())
        assert kept["status"] == status.status and len(kept["inputs"]) == 16
        assert time.time() - 600 < kept["started_at"] < time.time() and 0 < kept["seconds"] < PATIENCE_S + 30
    logs = sorted(path.stem for path in folder.glob("*.log"))
    assert logs == ["30_dies", "40_slow", "50_last"], "what papermill or a kernel printed; where nobody printed, no log is left"
    assert "below Python" in (folder / "50_last.log").read_text()


def test_parameters_arrive_and_the_kernel_is_this_python(ran) -> None:
    folder, *_ = ran
    _, _, group, shows = outputs_of(folder / "04_data_cache.ipynb")
    expected = params.group(4)
    assert group.split() == ["4", str(len(expected.rows)), expected.title_zh, expected.claim.split()[0]]
    assert shows.startswith(f"{sys.executable} tiny 1 False {{'epochs': 1}}")


@pytest.mark.parametrize("name", ["20_fails", "30_dies", "40_slow"])
def test_what_did_not_end_well_says_so(ran, name: str) -> None:
    """papermill's output calls the cells that never ran completed, except after an error in a cell."""
    folder, statuses, _ = ran
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    first, last = notebook.cells[0], notebook.cells[-1]
    assert statuses[name].status in first.source and first.cell_type == "markdown"
    assert (last.source, last.outputs, last.metadata.papermill.status) == ("print('never')", [], "pending")
    assert notebook.metadata.papermill.exception is True
    page = (folder / f"{name}.html").read_text()
    assert f"did not end well: {statuses[name].status}" in page and "so far" in page


def test_an_error_message_is_no_markup(ran) -> None:
    page = (ran[0] / "20_fails.html").read_text()
    assert "picture 17 &lt;b&gt;" in page and "picture 17 <b>" not in page


@pytest.mark.parametrize("name", ["04_data_cache", "20_fails", "30_dies", "40_slow", "50_last"])
def test_pages_need_no_network(ran, name: str) -> None:
    page = (ran[0] / f"{name}.html").read_text()
    assert fetched(page) == []
    assert "widgets" not in json.loads((ran[0] / f"{name}.ipynb").read_text())["metadata"]


def test_pages_show_what_the_notebook_shows(ran) -> None:
    page = (ran[0] / "04_data_cache.html").read_text()
    assert "data:image/png;base64" in page and "<b>bold</b>" in page and "缓存效果" in page


def test_fetches_are_found() -> None:
    """The check for outside links can fail."""
    head = '<script src="https://x/y.js"></script><img src="a.png"><link rel="stylesheet" href="//x/y.css"><img src="data:,x">'
    assert len(fetched(head)) == 3
    assert fetched("<style>@import 'https://x/y.css'; a { background: url(http://x/y.png) }</style>") != []
    assert fetched("<script>import mermaid from 'https://x/y.mjs'</script><p>https://in.a.text/</p>") != []
    assert fetched("<p><a href='https://in.a.text/'>see</a></p>") == []


def test_plain_papermill_page_would_need_the_network(ran) -> None:
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter().from_filename(str(ran[0] / "04_data_cache.ipynb"))
    assert fetched(page), "nbconvert links nothing any more: publish() can be simpler"


def test_progress_is_told(ran) -> None:
    _, _, heard = ran
    ends = [(name, event["status"]) for name, event in heard if "status" in event]
    assert ends == [
        ("04_data_cache", "ok"), ("20_fails", "failed"), ("30_dies", "kernel died"), ("40_slow", "timeout"), ("50_last", "ok"),
    ]  # fmt: skip
    slow = [event for name, event in heard if name == "40_slow" and "cell" in event]
    assert max(event["cell"] for event in slow) == 5 and {event["cells"] for event in slow} == {6}
    assert {event["row"] for event in slow} == {None}


def test_deadline_ends_a_notebook(lab: Path) -> None:
    write_notebook(lab / "notebooks", "20_x", "import time\nfor _ in range(100): time.sleep(1)")
    began = time.monotonic()
    (status,) = run_notebooks("tiny", deadline_s=8)
    assert status.status == "timeout" and status.reason.endswith("the notebook took more than 8 s")
    assert time.monotonic() - began < 8 + 15
    nbformat.read(lab / "runs/tiny/notebooks/20_x.ipynb", as_version=4)


def test_a_process_that_cannot_work_has_failed(lab: Path) -> None:
    """What papermill itself refuses: the notebook is no notebook to it."""
    path = write_notebook(lab / "notebooks", "20_x")
    path.write_text(path.read_text().replace('"nbformat": 4', '"nbformat": 77'))
    (status,) = run_notebooks("tiny")
    assert status.status == "failed" and "the notebook's process failed" in status.reason and "more in 20_x.log" in status.reason
    assert "Traceback" in (lab / "runs/tiny/notebooks/20_x.log").read_text()


def test_by_hand(lab: Path) -> None:
    """`papermill notebooks/04_....ipynb out.ipynb -f params/04_....yaml -p profile tiny`, as the README shows."""
    path = write_notebook(lab / "notebooks", "04_data_cache", "print(group, profile, rows[0])", parameters=GIVEN + GROUP)
    words = [path, lab / "out.ipynb", "-f", ROOT / "params/04_data_cache.yaml", "-p", "profile", "tiny"]
    done = subprocess.run([sys.executable, "-m", "papermill", *map(str, words)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "unknown parameter" not in done.stderr
    assert outputs_of(lab / "out.ipynb")[-1].split() == ["4", "tiny", params.group(4).rows[0]]


# -- the command line -------------------------------------------------------------------------------------------------------

LIKE_A_ROW = """
import labkit
frame = labkit.run("single_gpu_resnet18_bs256_cacheTrue_ampFalse", profile=profile, overrides=overrides, fresh=fresh)
print(list(frame.status))
"""


def test_report_executes_writes_and_tells(lab, capsys, monkeypatch) -> None:
    from labkit import report

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
    assert [line.removeprefix("labkit: ").removesuffix(": ok") for line in said.err.splitlines()] == begun_and_ended
    assert asked == [("tiny", {"epochs": 1, "device": "cpu"}, {"languages": ("en", "zh")})]

    said = call(capsys, monkeypatch, *words, "--only", "20,22", "--lang", "zh")
    assert said.code == 1 and "for 0 new runs" in said.out
    assert "notebook 22_z: failed: In [3]: ValueError: no" in said.out.splitlines()
    assert "20_x: ok, and still valid" in said.err
    assert asked[1][-1] == {"languages": ("zh",)}

    said = call(capsys, monkeypatch, *words, "--only", "20,21", "--fresh")
    assert said.code == 0 and "for 1 new runs" in said.out, "anew, but once for both"


def test_rows_that_failed_count(lab, capsys, monkeypatch) -> None:
    """Group 4 through a notebook that trains nothing: its rows are told as not run, and the exit code is 1."""
    from labkit import report

    monkeypatch.setattr(report, "write_report", lambda *words, **keys: [])
    write_notebook(lab / "notebooks", "04_data_cache", parameters=GIVEN + GROUP)
    said = call(capsys, monkeypatch, "report", "--profile", "tiny", "--only", "4")
    assert said.code == 1 and "single_gpu_resnet18_bs256_cacheFrozen_ampFalse: not run yet" in said.out


@pytest.mark.parametrize("only", ["x", "4-10", "-1", "77"])
def test_only_wants_numbers_of_notebooks(lab, capsys, monkeypatch, only: str) -> None:
    write_notebook(lab / "notebooks", "20_x")
    said = call(capsys, monkeypatch, "report", f"--only={only}")
    assert said.code == 2 and said.err.startswith("labkit: ") and said.err.count("\n") == 1
