"""The lab as a student meets it: JupyterLab in a real Chromium. Run All shows a moving live view and the figures; the stop
button leaves no process. Screenshots go to build/screenshots/.

Where Chromium is not installed the tests are skipped, and say so; in CI its absence is a failure (`tests/helpers/promised.py`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from labkit.notebook import STOPPED
from tests.helpers import promised
from tests.helpers.folded import is_folded

ROOT = Path(__file__).parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
SHOTS = ROOT / "build/screenshots"
SIDEWAYS = """[...document.querySelectorAll('.jp-OutputArea-output table')].map(table => table.parentElement)
    .filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.innerText.slice(0, 80))"""

# Code and printed text of which a line is broken: higher than its lines, or one word on two lines.
BROKEN = """[...document.querySelectorAll('.jp-Notebook pre, .jp-Notebook code, .jp-Notebook .cm-line')].filter(box => {
    if (!box.offsetParent || !box.innerText.trim()) return false;
    const text = document.createTreeWalker(box, NodeFilter.SHOW_TEXT), range = document.createRange();
    for (let node = text.nextNode(); node; node = text.nextNode())
        for (const word of node.data.matchAll(/[\\p{L}\\p{N}_]+/gu)) {
            range.setStart(node, word.index); range.setEnd(node, word.index + word[0].length);
            const tops = [...range.getClientRects()].map(one => Math.round(one.top));
            if (Math.max(...tops) - Math.min(...tops) > 4) return true;
        }
    return false; }).map(box => box.innerText.slice(0, 160))"""

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]


def wait_for(what, seconds: float, why: str):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{why}: not within {seconds:.0f} s")


def ranks_of(server: psutil.Process) -> list[int]:
    """The training processes below a Jupyter server: the children of its kernels' fork servers, which have the same command line."""
    found = {}
    for process in server.children(recursive=True):
        try:
            if "labkit.processes.preload" in " ".join(process.cmdline()):
                found[process.pid] = process.ppid()
        except psutil.Error:
            continue
    return [pid for pid, parent in found.items() if parent in found]


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory):
    """(address, token, the server's process, the folder with copies of the notebooks at profile tiny)."""
    folder = tmp_path_factory.mktemp("lab")
    notebooks, settings = folder / "notebooks", folder / "settings/@jupyterlab/notebook-extension"
    shutil.copytree(ROOT / "notebooks", notebooks)
    for path in notebooks.glob("*.ipynb"):
        path.write_text(path.read_text().replace('profile = \\"quick\\"', 'profile = \\"tiny\\"'))
    settings.mkdir(parents=True)
    # all cells in the page, also those that are out of sight
    (settings / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": "none"}))
    as_made = subprocess.run(["make", "-n", "lab", "PYTHON=python3"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    env = os.environ | {
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_CONFIG_PATH": re.search('JUPYTER_CONFIG_PATH="([^"$]+)', as_made)[1],
        "IPYTHONDIR": str(folder / "ipython"),
        "LABKIT_RUNS": str(folder / "runs"),
        "PYTHONPATH": str(ROOT),
    }
    env.pop("LABKIT_WIDGETS", None)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",
    ]
    with open(folder / "jupyter.log", "w") as log:
        process = subprocess.Popen([*command, f"--ServerApp.root_dir={notebooks}"], env=env, stdout=log, stderr=log)
    try:

        def started():
            for file in (folder / "runtime").glob("jpserver-*.json"):
                return json.loads(file.read_text())

        server = wait_for(started, 60, f"JupyterLab does not start: {(folder / 'jupyter.log').read_text()[-2000:]}")
        yield f"http://127.0.0.1:{server['port']}", server["token"], psutil.Process(process.pid), notebooks
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def page(jupyter):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=promised.chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def open_notebook(page, jupyter, name: str) -> None:
    address, token, _, _ = jupyter
    page.goto(f"{address}/lab/tree/{name}?token={token}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.get_by_text("| Idle").wait_for()  # Run All before the kernel is there asks which one it should be


def choose(page, menu: str, item: str) -> None:
    page.locator(".lm-MenuBar-item", has_text=re.compile(f"^{menu}$")).click()
    page.locator(".lm-Menu-item", has_text=re.compile(f"^{item}")).first.click()


def errors(page) -> list[str]:
    kinds = ", ".join(f'.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("error", "stderr"))
    return page.locator(kinds).all_inner_texts()


def finished(page) -> bool:
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
    return bool(prompts) and all(re.fullmatch(r"\[\d+\]:?", prompt.strip()) for prompt in prompts if prompt.strip())


def shot(page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def test_run_all_shows_a_moving_view_and_the_figures(page, jupyter):
    open_notebook(page, jupyter, "01_one_gpu_vs_several.ipynb")
    choose(page, "Run", "Run All Cells")
    seen = set()

    def live_or_done():
        for text in page.locator(".jp-OutputArea-output").filter(has_text="s so far").all_inner_texts():
            if not seen:
                shot(page, "01_live")
            seen.add(text)
        return finished(page)

    wait_for(live_or_done, 600, "Run All does not end")
    assert not errors(page), errors(page)
    assert len(seen) >= 2, f"the live view did not move: {seen}"
    assert page.get_by_text("s so far").count() == 0, "a live view was left where its last picture should be"
    assert page.locator(".jp-OutputArea-output img").count() >= 4
    assert page.get_by_text("Commit my guess").count() == 1, "the prediction card is there"
    chosen = page.locator(".widget-dropdown select").evaluate_all(
        "all => all.map(one => one.selectedOptions[0].label.replaceAll('\xa0', ' '))"
    )
    assert chosen and set(chosen) == {"choose ..."}, "the card starts empty"
    assert set(page.locator(".widget-text input").evaluate_all("all => all.map(one => one.value)")) == {""}
    assert not (broken := page.evaluate(BROKEN)), f"broken in the middle of a word: {broken}"
    assert page.locator(".jp-OutputArea-output table").count() >= 4
    assert not (wide := page.evaluate(SIDEWAYS)), f"tables whose last columns are out of sight: {wide}"
    page.locator(".jp-OutputArea-output img").nth(1).scroll_into_view_if_needed()
    shot(page, "01_figure")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_as_it_is_opened(page, jupyter, path):
    """Folded cells show no sentence and no solution, no line is broken in a word, and nobody is asked about news."""
    open_notebook(page, jupyter, path.name)
    assert not page.get_by_text("official Jupyter news").count() and not page.locator(".Toastify__toast").count()
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    folded = [cell for cell in cells if is_folded(cell)]
    assert page.locator(".jp-CodeCell .jp-Placeholder").count() == len(folded) > 0
    shown = page.locator(".jp-Notebook").inner_text()
    open_lines = {line for cell in cells if not is_folded(cell) for line in cell["source"]}
    for cell in folded:
        for line in set(cell["source"][1:]) - open_lines:  # JupyterLab shows the first line of a folded cell
            assert len(line.strip()) < 30 or line.strip() not in shown, f"readable before it was run: {line}"
    assert not (broken := page.evaluate(BROKEN)), f"broken in the middle of a word: {broken}"
    shot(page, f"{path.stem}_opened")


def test_broken_words_are_found(page):
    """The check of words on two lines can fail."""
    box = "<pre style='width:9em;white-space:pre-wrap;word-break:{}'>two words_that_are_longer than a line 每次只有一行</pre>"
    page.set_content(f"<div class='jp-Notebook'>{box.format('break-all')}{box.format('normal').replace('9em', '40em')}</div>")
    assert len(page.evaluate(BROKEN)) == 1


def test_the_stop_button_ends_every_process(page, jupyter):
    _, _, server, notebooks = jupyter
    cells = [
        "import labkit as lab\nlesson = lab.Lesson(1, profile='tiny', overrides={'epochs': 90000})",
        "lesson.run()",
        "print('usable', 6 * 7)",
    ]
    code = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": s, "outputs": [], "execution_count": None}
        for i, s in enumerate(cells)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (notebooks / "stop.ipynb").write_text(json.dumps(notebook))
    open_notebook(page, jupyter, "stop.ipynb")
    choose(page, "Run", "Run All Cells")
    page.locator(".jp-OutputArea-output").filter(has_text="training").first.wait_for()
    ranks = wait_for(lambda: ranks_of(server), 30, "no rank is training")
    shot(page, "stop_before")

    choose(page, "Kernel", "Interrupt Kernel")

    wait_for(lambda: "KeyboardInterrupt" in " ".join(errors(page)), 20, "no KeyboardInterrupt in the notebook")
    assert errors(page) == [f"KeyboardInterrupt: {STOPPED}"], "one line, and no traceback"
    assert page.get_by_text("interrupted; finished runs are kept").count() == 1
    wait_for(lambda: not ranks_of(server) and not any(map(psutil.pid_exists, ranks)), 10, "ranks outlive the interrupt")
    shot(page, "stop_after")
    page.get_by_text("| Idle").wait_for()  # a cell that comes while the interrupt empties the queue is thrown away with it
    page.locator(".jp-CodeCell").nth(2).click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("usable 42").first.wait_for()
