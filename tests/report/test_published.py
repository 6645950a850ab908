"""The published report brings its results with it: a clone without runs/ makes it again from them, byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from labkit.plots import overviews
from labkit.report.check import check_report
from labkit.report.source import FILE, from_file, from_folders, text_of
from labkit.report.write import write_report
from labkit.rows import params
from labkit.rows.fields import SpecError
from labkit.system.files import Unreadable
from tests.helpers.command_line import Said, one_line
from tests.helpers.made_up import CPU, GPUS, put, use
from tests.helpers.report_pages import DDP, FILES, Page, everything

REPOSITORY = Path(__file__).parents[2]
SINGLE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"


@pytest.fixture(autouse=True)
def checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A checkout with what the report needs, no runs/ in it, and a report that was published from made-up results elsewhere."""
    root = tmp_path / "checkout"
    for name in ("labkit", "params", "notebooks"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(overviews, "save_plots", lambda *_: [])
    monkeypatch.setattr(params, "ROOT", root)
    use(monkeypatch, CPU)
    everything()
    put(SINGLE, repeat=4, status="failed", reason=f"{tmp_path}/elsewhere/quick/x and {root}/labkit: broken")
    put("collective_gloo_resnet18_bs128x2+form=ring", 700.0)
    files = write_report(publish=True)
    assert [path.relative_to(root).as_posix() for path in files] == FILES
    monkeypatch.setenv("LABKIT_RUNS", str(root / "runs"))
    return root


def labkit_in(root: Path, *words: str) -> Said:
    """`labkit words...` by the copy in a checkout, from a shell in it."""
    env = {key: value for key, value in os.environ.items() if key != "LABKIT_RUNS"} | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-m", "labkit", *words], cwd=root, env=env, capture_output=True, text=True)
    return Said(done.returncode, done.stdout, done.stderr)


def test_a_clone_makes_its_report_again_and_finds_a_changed_digit(checkout: Path) -> None:
    said = labkit_in(checkout, "check")
    assert said == (0, f"{checkout}: {', '.join(FILES)}: as the results say\n", "")
    assert not (checkout / "runs").exists()
    page, text = checkout / "report.zh.html", (checkout / "report.zh.html").read_text(encoding="utf-8")
    page.write_text(text.replace(">3000.0<", ">3001.0<", 1), encoding="utf-8")
    said = labkit_in(checkout, "check")
    assert said.code == 1 and re.fullmatch(
        r"report\.zh\.html, line \d+, ps_mode.*: has 3001\.0, the results say 3000\.0\n", said.out
    )
    assert labkit_in(checkout, "check", "--rewrite").code == 0 and page.read_text(encoding="utf-8") == text


def test_another_machine_says_the_same(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, GPUS)
    assert check_report("quick", {}, checkout / "report.md") == []


def test_the_file_holds_all_results_one_a_line_and_no_path(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (checkout / FILE).read_text(encoding="utf-8")
    assert str(tmp_path) not in text and "runs/quick/x and labkit: broken" in text
    source = from_file(checkout / FILE)
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "elsewhere"))
    kept = from_folders("quick", {}).outcomes
    runs = [one for repeats in kept.values() for one in repeats]
    assert len(source.lines) == len(runs) > 20 and list(source.outcomes) == sorted(kept)
    for one in runs:
        told = json.loads(text.split("\n")[source.lines[one.name, one.repeat] - 1].removesuffix(","))
        assert (told["name"], told["repeat"]) == (one.name, one.repeat)
    assert source.outcomes[DDP][1].later_attempt == kept[DDP][1].later_attempt != ""  # type: ignore[union-attr]


def test_lines_are_those_of_an_editor(checkout: Path) -> None:
    """A reason may hold what ends a line to Python only."""
    before, content = from_file(checkout / FILE).lines, json.loads((checkout / FILE).read_text(encoding="utf-8"))
    content["notebooks"][0]["reason"] = "one\u2028two\u0085three"
    text = text_of("quick", {}, *(content[part] for part in ("rows", "notebooks", "rounds", "results")))
    (checkout / FILE).write_text(text, encoding="utf-8")
    assert len(text.splitlines()) > len(text.split("\n")) and from_file(checkout / FILE).lines == before


@pytest.mark.parametrize("name", FILES)
def test_links_lead_to_what_a_clone_has(checkout: Path, name: str) -> None:
    text = (checkout / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text) if name.endswith(".md") else Page(text).links
    assert "runs/" not in text.replace("runs/quick/x", "")
    lines = (checkout / FILE).read_text(encoding="utf-8").split("\n")
    numbered = 0
    for link in links:
        path, _, anchor = link.partition("#")
        assert not path or (checkout / unquote(path)).exists(), link
        for number in re.findall(r"L(\d+)", anchor):
            numbered += lines[int(number) - 1].startswith('{"name": "')
    assert numbered > 50 and "notebooks/04_data_cache.ipynb" in links
    row = re.search(rf"\[{SINGLE}\]\({FILE}#L(\d+)\)", (checkout / "report.md").read_text())
    assert row and json.loads(lines[int(row[1]) - 1].removesuffix(","))["name"] == SINGLE


def spoiled(text: str, how: str) -> str:
    """The file's text after an accident."""
    if how == "torn":
        return text[: len(text) // 2]
    if how == "edited":
        return text.replace('"images_per_s": 1000.0', '"images_per_s": 1010.0', 1)
    if how == "reordered":
        return json.dumps(json.loads(text))
    if how == "no report":
        return "[]"
    # what another version would have written: a key has another name, and all the rest fits
    old, new = {
        "old": ("others_cores", "others"),
        "no results": ("results", "results"),
        "old row": ("stands_for", "stands"),
        "old notebook": ("notebook", "name"),
    }[how]
    body = text.partition(',\n"sha256"')[0].replace(f'"{old}"', f'"{new}"')
    if how == "no results":
        body = re.sub(r'"results": \[\n.*', '"results": [\n1\n]', body, flags=re.DOTALL)
    return f'{body},\n"sha256": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("torn", "damaged"),
        ("edited", "was edited"),
        ("reordered", "was edited"),
        ("no report", "no such file"),
        ("old row", "is of another version of labkit, or no such file (KeyError('stands_for'))"),
        ("no results", "line 47: holds int, where key: value pairs were expected; take the committed one back"),
        ("old notebook", "notebooks: was written by another version of labkit (it has 'name'); take the committed one back"),
        ("old", "line 47: was written by another version of labkit (it has 'others'); take the committed one back"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(checkout: Path, labkit: Callable[..., Said], how: str, told: str) -> None:
    text = (checkout / FILE).read_text(encoding="utf-8")
    (checkout / FILE).write_text(spoiled(text, how), encoding="utf-8")
    with pytest.raises(Unreadable):
        from_file(checkout / FILE)
    one_line(labkit("check"), 1, str(checkout / FILE), told)


def test_which_report_is_checked(checkout: Path, labkit: Callable[..., Said]) -> None:
    """With results of one's own: one's own report. Without: the published one, of the profile that it was made from."""
    assert labkit("check").out.startswith(f"{checkout}: ")
    one_line(labkit("check", "--profile", "classroom"), 1, "holds the report of --profile quick, not of --profile classroom")
    put(SINGLE, 1234.0)
    one_line(labkit("check"), 1, f"{checkout}/runs/quick/report/report.md: there is no report to check")
    write_report()
    assert labkit("check").out.startswith(f"{checkout}/runs/quick/report: ")
    assert labkit("check", "--folder", str(checkout)).out.startswith(f"{checkout}: ")


def everything_but_runs(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and "runs" not in path.relative_to(root).parts}


def test_a_report_of_one_s_own_leaves_tracked_files_alone(
    checkout: Path, labkit: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit.batch import batch

    monkeypatch.setattr(batch, "run_notebooks", lambda *words, **keys: put(SINGLE, 1234.0) or [])
    before = everything_but_runs(checkout)
    said = labkit("report")
    files = [checkout / "runs/quick/report" / name for name in FILES]
    assert said.out.splitlines()[:4] == list(map(str, files)) and all(file.exists() for file in files)
    assert labkit("report", "--classic").code == 0
    assert everything_but_runs(checkout) == before
    assert f"[{SINGLE}](../{SINGLE}/1)" in files[0].read_text()
    one_line(labkit("report", "--folder", str(checkout)), 1, "add --publish to replace it")
    assert everything_but_runs(checkout) == before
    monkeypatch.setattr(batch, "run_notebooks", lambda *words, **keys: [])
    said = labkit("report", "--publish")
    assert said.out.splitlines()[0] == str(checkout / "report.md") and check_report("quick", {}, checkout / "report.md") == []
    assert [name for name in from_file(checkout / FILE).outcomes] == [SINGLE]


def test_nothing_is_published_without_results(checkout: Path, tmp_path: Path, labkit: Callable[..., Said]) -> None:
    before = everything_but_runs(checkout)
    with pytest.raises(OSError, match=r"holds no results; `labkit report --profile quick` trains the rows"):
        write_report(publish=True)
    with pytest.raises(SpecError, match="there is none of that name"):
        write_report("quik", publish=True)
    for words in (
        ["--publish", "--lang", "zh"],
        ["--publish", "--classic"],
        ["--classic", "--fresh"],
        ["--classic", "--only", "4"],
    ):
        one_line(labkit("report", *words), 2, words[0], "leave out")
    assert everything_but_runs(checkout) == before


def test_the_committed_report_is_as_its_results_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of this repository."""
    monkeypatch.setattr(params, "ROOT", REPOSITORY)
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "none"))
    source = from_file(REPOSITORY / FILE)
    assert check_report(source.profile.name, source.overrides, REPOSITORY / "report.md") == []
