"""The batch over made-up notebooks in real kernels: how each end is told, and the pages it makes."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from labkit.batch import child as batch_one
from labkit.batch.batch import run_notebooks
from labkit.batch.pages import readable
from labkit.notebook import STOPPED
from labkit.rows import params
from labkit.runs.statuses import Status, read_statuses
from tests.helpers.batch_notebooks import GIVEN, GROUP, fetched, made_in, outputs_of, write_notebook
from tests.helpers.folded import is_folded

ROOT = Path(__file__).parents[2]
SHOWS = """
import sys
from matplotlib.figure import Figure
print(sys.executable, profile, repeats, fresh, overrides)
figure = Figure(figsize=(1, 1)); figure.add_subplot().plot([1, 2]); display(figure)
display({"text/html": "<b>bold</b>", "text/plain": "bold", "text/markdown": "$x$"}, raw=True)
"""
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
PATIENCE_S = 30  # for a notebook, on a busy machine; the slow cell takes longer


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab without notebooks and results."""
    return made_in(tmp_path, monkeypatch)


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
            "tiny", overrides={"epochs": 1}, deadline_s=PATIENCE_S,
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
        "30_dies": ("kernel died", "in cell 5: killed by SIGKILL (perhaps by the kernel, because memory ran out)"),
        "40_slow": ("timeout", f"in cell 5: the notebook took more than {PATIENCE_S} s"),
        "50_last": ("ok", ""),
    }
    for name, status in statuses.items():
        kept = json.loads((folder / f"{name}.status.json").read_text())
        assert kept["status"] == status.status and len(kept["inputs"]) == 16
        assert time.time() - 600 < kept["started_at"] < time.time() and 0 < kept["seconds"] < PATIENCE_S + 30
    logs = sorted(path.stem for path in folder.glob("*.log"))
    assert logs == ["30_dies", "50_last"], "what papermill or a kernel printed; where nobody printed, no log is left"
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


def test_a_notebook_is_written_when_a_cell_of_code_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And at its end. papermill alone writes all of it, with its pictures, whenever a cell of any kind starts or ends."""
    written = []
    monkeypatch.setattr(batch_one.AtomicFile, "write", lambda self, text, path: written.append(nbformat.reads(text, 4)))
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "x"}})
    text, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    notebook.cells = [text("# a"), code("print(1)"), text("b"), text("c"), code("print(2)")]
    nbformat.write(notebook, tmp_path / "x.ipynb")
    job = {"notebook": str(tmp_path / "x.ipynb"), "output": str(tmp_path / "out.ipynb"), "cwd": str(tmp_path)}
    assert batch_one.execute(job | {"parameters": {}}, io.StringIO()) == ("ok", "")
    told = ["".join(output.text for cell in one.cells for output in cell.get("outputs", ())) for one in written]
    assert told[-1] == "1\n2\n" and told.count("1\n") == 1 and len(told) <= 5, told


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


def test_what_a_cell_prints_looks_like_a_terminal(ran) -> None:
    page = (ran[0] / "04_data_cache.html").read_text()
    rules = re.findall(r"\.jp-OutputArea-output pre[^{]*\{([^}]*)\}", page)
    families = [rule for rule in rules if "font-family" in rule]
    assert families and "var(--jp-code-font-family)" in families[-1], "the last rule counts"
    assert re.search(r"--jp-code-font-family:[^;]*--jp-code-font-family-default", page)
    breaks = [rule for rule in rules if "word-break" in rule]
    assert "word-break: normal" in breaks[-1] and "white-space: pre;" in breaks[-1]


def test_the_injected_cell_is_readable_and_folded(ran) -> None:
    notebook = nbformat.read(ran[0] / "04_data_cache.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert is_folded(cell) and params.group(4).claim_zh in cell.source and "\\u" not in cell.source
    assert ast.parse(cell.source)


@pytest.mark.parametrize(
    "text", ["缓存", "a\nb\t\\ é", "\\u7f13", "\\\\u7f13", '"quoted" \\"', "\u200b\u2028\x00", "\ud800", "\U0001f600"]
)
def test_readable_source_means_the_same(text: str) -> None:
    source = f"claim = {json.dumps(text)}" if "\U0001f600" not in text else f"claim = {text!a}"
    assert ast.literal_eval(readable(source).removeprefix("claim = ")) == ast.literal_eval(source.removeprefix("claim = "))
    assert readable(r'x = "\u7f13\u5b58"') == 'x = "缓存"'


STOP = "import os, signal, time\ndef deep():\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(20)\ndeep()"


def test_a_stop_and_a_wrong_value_are_one_line(lab: Path) -> None:
    """In place of a traceback through labkit and Jupyter; and the notebook has not ended well."""
    write_notebook(lab / "notebooks", "20_wrong", "import labkit", "labkit.run(1, profile='quik')", "print('never')")
    write_notebook(lab / "notebooks", "30_other", "import labkit", "1 / 0")
    write_notebook(lab / "notebooks", "40_stop", "import labkit", STOP, "print('never')")
    with pytest.raises(KeyboardInterrupt, match="40_stop"):
        run_notebooks("tiny")
    statuses = {status.notebook: (status.status, status.reason) for status in read_statuses("tiny")}
    assert statuses["20_wrong"][0] == "failed" and "SpecError: profile 'quik'" in statuses["20_wrong"][1]
    assert statuses["40_stop"][0] == "interrupted" and statuses["30_other"][0] == "failed"
    shown = {name: error_of(lab / f"runs/tiny/notebooks/{name}.ipynb") for name in statuses}
    assert shown["20_wrong"] == ["SpecError: profile 'quik': there is none of that name; did you mean 'quick'?"]
    assert shown["40_stop"] == [f"KeyboardInterrupt: {STOPPED}"] and "run the cell again" in STOPPED
    assert len(shown["30_other"]) > 2, "other errors are shown whole"


def error_of(path: Path) -> list[str]:
    """The traceback that the notebook shows."""
    cells = nbformat.read(path, as_version=4).cells
    (error,) = [out for cell in cells for out in cell.get("outputs", ()) if out.output_type == "error"]
    return error.traceback


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
    """However long a busy machine takes to start the kernel, the notebook sleeps longer than the batch waits for it."""
    write_notebook(lab / "notebooks", "20_x", "import time\nfor _ in range(1000): time.sleep(1)")
    for deadline_s in (8, 16, 60, 300):
        (status,) = run_notebooks("tiny", deadline_s=deadline_s)
        if "cell 4" in status.reason:  # the one that sleeps
            break
    assert status.status == "timeout" and status.reason == f"in cell 4: the notebook took more than {deadline_s} s"
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
