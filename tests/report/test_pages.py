"""The report as a page: it needs no network, nothing that a machine said breaks it, and every section is there."""

import html
import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis.strategies import sampled_from, text
from markupsafe import Markup

from labkit.plots import overviews as plots
from labkit.report import words as report_words
from labkit.report.page import SECTIONS, page
from labkit.report.source import from_folders
from labkit.report.view import TIMES, Found, view
from labkit.report.words import LANGUAGES, TEMPLATES, Words, plain, table
from labkit.results.metrics import PUBLISHED
from labkit.runs import folders
from tests.helpers.made_up import CPU, cells, use
from tests.helpers.report_pages import FILES, Page, everything, written


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(plots, "save_plots", lambda *_: [])
    use(monkeypatch, CPU)


@pytest.mark.parametrize("name", ["report.html", "report.zh.html"])
def test_a_page_needs_no_network(tmp_path, pictures, name):
    everything()
    text = written(tmp_path)[name]
    page = Page(text)
    assert page.loads and all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert style and not re.search(r"url\(|@import|https?:", style)
    assert len(page.ids) == len(set(page.ids)) and text.startswith("<!DOCTYPE html>\n<html lang=")
    assert not [link for link in page.links if "://" in link]


@pytest.mark.parametrize("name", FILES)
def test_what_a_machine_said_breaks_nothing(tmp_path, name):
    everything()
    text = written(tmp_path)[name]
    if name.endswith("html"):
        page = Page(text)
        assert {"rank 1: a | b <script>alert(1)</script> **x**", "a | <b>x</b>", "a | <i>"} <= {
            found for found in re.findall(r"rank 1: a .*\*\*|a \| <b>x</b>|a \| <i>", page.text)
        }
    else:
        assert r"rank 1: a \| b &lt;script&gt;alert(1)&lt;/script&gt; \*\*x\*\* |" in text and "<" not in text
        widths = {len(line) for part in re.findall(r"(?:^\|.*\n)+", text, re.M) for line in cells(part)[:1]}
        for part in re.findall(r"(?:^\|.*\n)+", text, re.M):
            assert len({len(line) for line in cells(part)}) == 1, part
        assert widths == {3, 5, 7, 11}


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@example("<script>alert(1)</script> | `a` *b* _c_ **d** [x](y) ![x](y) <http://z> &lt; \\* # 1. - > ~~e~~ a_b")
@given(text(sampled_from("ab1 .#-+>_*`|[]()!<>&;~\\\"'\n\t:/=$^{}中（“"), max_size=20))
def test_a_page_shows_any_text_as_it_is(said):
    """In a cell, a list, a quotation, and as the text of a link."""
    shown = plain(said)
    markdown = f"{table(['x'], [[shown]])}\n\n- a {shown} z\n\n> a {shown} z\n\n[a {shown} z](link)\n"
    found = page(markdown, Words("en"), {}).partition("<main>")[2]
    known = "div|table|thead|tbody|tr|th|td|ul|li|blockquote|p|a|wbr"
    assert [tag for tag in re.findall(r"<(\w+)", found) if not re.fullmatch(known, tag)] == []
    parts = [html.unescape(re.sub("<[^>]*>", "", part)) for part in re.findall("<(?:td|li|p)>(.*)</(?:td|li|p)>", found)]
    line = " ".join(said.split())
    assert [" ".join(part.split()) for part in parts] == [line, *[" ".join(f"a {line} z".split())] * 3]


def test_a_page_has_all_that_its_markdown_says(tmp_path, pictures):
    """Without the marks, in the same order. Only the line that leads to the other files differs, and the contents."""
    everything()
    texts = written(tmp_path)
    for language in LANGUAGES:
        name = "report" if language == "en" else "report.zh"
        main = re.sub("<nav.*</nav>\n|<wbr>", "", texts[f"{name}.html"].partition("<main>")[2])
        assert not re.search(r"\*\*|`", re.sub("<td>.*</td>", "", main)), "a mark that is not set"
        ids = re.findall('id="([^"]*)"', main)
        assert [one for one in ids if one in SECTIONS] == [one for one in SECTIONS if one in ids] and "group-10" in ids
        headings = [html.unescape(one) for one in re.findall("<h[123][^>]*>(.*)</h", main)]
        assert headings == re.findall("^#+ (.*)", texts[f"{name}.md"], re.M)
        for tag, mark in (("li", "- "), ("tr", "\\| (?!---)"), ("blockquote", "> "), ("figure", "!\\[")):
            assert len(re.findall(f"<{tag}[ >]", main)) == len(re.findall(f"^{mark}", texts[f"{name}.md"], re.M)) > 0
        assert main.count('<blockquote class="note">') == len(re.findall(r"^> \*\*", texts[f"{name}.md"], re.M)) > 0


def test_a_report_without_results_is_a_page_too(tmp_path):
    texts = written(tmp_path)
    for name in ("report.html", "report.zh.html"):
        page = Page(texts[name])
        assert set(page.ids) == {"results", "groups", "plots", "about", "absent", "again"} and not page.loads
        assert {link[1:] for link in page.links if link.startswith("#")} == set(page.ids)
    assert "暂无" in texts["report.zh.md"]


def odd_types(value):
    """The types in nested data that are not JSON's own. (Set text and enumerations are texts to `json`, and would pass as such.)"""
    inner = [*value, *value.values()] if type(value) is dict else value if type(value) is list else []
    plain = {dict, list, str, int, float, bool, type(None)}
    return ({type(value)} - plain).union(*(odd_types(item) for item in inner))


def test_the_view_is_plain_data(tmp_path):
    assert odd_types({"a": [1, Markup("b"), (2,)]}) == {Markup, tuple}
    everything()
    told = view(Found(from_folders("quick", {}), tmp_path))
    assert json.loads(json.dumps(told)) == told and odd_types(told) == set(), "JSON gives back what it was given"
    assert {metric.key for metric in PUBLISHED} <= told["results"][0].keys() and set(TIMES) <= told["time"]["rows"][0].keys()


def test_notebooks_are_told_with_their_status_and_files(tmp_path):
    everything()
    texts = written(tmp_path)
    part = texts["report.md"].partition("## The notebooks")[2]
    lines = cells(part)[2:4]
    assert lines[0] == ["01_one_gpu_vs_several", "ok", "12", "[page](runs/quick/notebooks/01_one_gpu_vs_several.html)", ""]
    assert lines[1][:2] == ["04_data_cache", "timed out"] and "in cell 5" in lines[1][4]
    assert "| 超时 |" in texts["report.zh.md"]
    put_away = Path(folders.runs_folder() / "quick" / "notebooks")
    for path in put_away.iterdir():
        path.unlink()
    assert "## The notebooks" not in written(tmp_path)["report.md"]


def test_every_section_has_a_heading():
    assert all(f"{section}.heading" in report_words.texts("en") for section in SECTIONS)
    assert {path.suffix for path in TEMPLATES.iterdir()} == {".yaml", ".j2", ".css"}


def test_no_cell_can_break_a_table():
    assert table(["a", "b"], [["x|y", "1\n2"]]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 2 |"
