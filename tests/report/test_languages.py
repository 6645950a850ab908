"""The report in two languages: every text in both, the same figures in all files, and nothing left of the other language."""

import re
import string
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

from labkit.plots import overviews as plots
from labkit.report import words as report_words
from labkit.report.page import page
from labkit.report.sentences import Say
from labkit.report.words import LANGUAGES, Words
from labkit.report.write import write_report
from labkit.results import ranks, verdict
from labkit.results.metrics import COMPARED
from labkit.results.provenance import ONE_PER_REPORT
from labkit.rows.fields import SpecError
from labkit.rows.params import groups
from tests.helpers.made_up import CPU, cells, put, put_all, use
from tests.helpers.report_pages import CHINESE, DDP, FILES, Page, everything, written


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(plots, "save_plots", lambda *_: [])
    use(monkeypatch, CPU)


# -- words --------------------------------------------------------------------------------------------------------------


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_both_languages_have_all_texts_with_the_same_places():
    english, chinese = (report_words.texts(language) for language in LANGUAGES)
    assert english.keys() == chinese.keys()
    for key in english.keys() - {"beside.group"}:  # in English a title is followed by the Chinese one
        forms = [list(text.values()) if isinstance(text, dict) else [text] for text in (english[key], chinese[key])]
        assert {frozenset(places(form)) for form in forms[0]} == {frozenset(places(form)) for form in forms[1]}, key
        assert all(isinstance(form, str) and form == form.strip("\n") for form in forms[0] + forms[1]), key
        assert not any(re.search(CHINESE, form) for form in forms[0]), key
        code = re.findall("`([^`]*)`", str(forms))
        assert not any("{" in text for text in code), f"{key}: a value inside `code` would be escaped as text is"


def test_every_chinese_text_is_chinese_where_words_are():
    same = {
        "code",
        "nothing",
        "separator.list",
        "colon",
        "verdict.line",
        "agreement.spearman",
        "agreement.kendall",
        "groups.name",
    }
    for key, text in report_words.texts("zh").items():
        said = re.sub("{[^}]*}", "", text)
        if re.search("[A-Za-z]{2}", said):
            assert re.search(CHINESE, said) or key in same or key in ("beside.nccl_mark", "results.memory"), f"{key}: {text}"


def test_no_text_is_unused_and_none_is_missing(monkeypatch, tmp_path, pictures):
    """All that the report can say, said: the texts that come up, and those of families that data choose from."""
    used, call = set(), Words.__call__
    monkeypatch.setattr(Words, "__call__", lambda self, key, **values: used.add(key) or call(self, key, **values))
    monkeypatch.setattr(Words, "listed", lambda self, items, separator="separator.list", listed=Words.listed: (
        used.add(separator) or listed(self, items, separator)))  # fmt: skip
    written(tmp_path)
    everything()
    written(tmp_path)
    written(tmp_path, overrides={"epochs": 8, "seed": 0})
    written(tmp_path, publish=True)
    families = {
        "kind": verdict.KINDS,
        "verdict": verdict.HEADS,
        "note": [f"mixed.{what}" for what in ONE_PER_REPORT]
        + ["other_machine", "old_settings", "later_attempt", "environment", "busy", "no_bf16", "untimed"],
        "agreement": ["mostly", "partly", "hardly", "reversed", "unknown"],
        "status": [
            "ok",
            "needs",
            "not run",
            "failed",
            "oom",
            "timeout",
            "interrupted",
            "incomplete",
            "running",
            "unreadable",
            "kernel died",
        ],
        "pair": [metric.key for metric in COMPARED] + ["indistinguishable", "published_equal", "ratio", "points"],
        "run": ["repeats_one", "repeats_more", "uncommitted"],
        "notebooks": ["html", "ipynb", "log"],
    }
    chosen = {f"{family}.{key}" for family, keys in families.items() for key in keys}
    seldom = {"beside.too_few", "verdict.all_pairs", "verdict.none", "verdict.among_others", "absent.none", "results.others"}
    assert report_words.texts("en").keys() - used - chosen - seldom == set()
    assert chosen | used | seldom <= report_words.texts("en").keys()


@pytest.mark.parametrize(
    ("here", "english", "chinese"),
    [
        ([1, 2, 3, 4, 5], "is mostly the published one", "大体一致"),  # rho 1.0
        ([2, 1, 4, 3, 5], "is mostly the published one", "大体一致"),  # 0.8
        ([3, 1, 2, 5, 4], "is partly the published one", "部分一致"),  # 0.6
        ([3, 1, 4, 2, 5], "is partly the published one", "部分一致"),  # 0.5
        ([4, 2, 3, 1, 5], "has little to do with", "几乎没有关系"),  # 0.1
        ([4, 1, 5, 2, 3], "has little to do with", "几乎没有关系"),  # -0.1
        ([5, 2, 3, 4, 1], "the reverse of the published one", "大致相反"),  # -0.6
        ([5, 4, 3, 2, 1], "the reverse of the published one", "大致相反"),  # -1.0
    ],
)
def test_the_words_for_an_order_follow_its_correlation(monkeypatch, here, english, chinese):
    monkeypatch.setattr(ranks, "compare_pair", lambda *_: {"kind": "same"})
    monkeypatch.setattr(ranks, "figures_of", lambda *_: {})
    rows = [
        SimpleNamespace(row=SimpleNamespace(median=lambda key, n=n: n), published={"p": there}) for there, n in enumerate(here)
    ]
    line = ranks.metric_agreement(SimpleNamespace(key="images_per_s", published="p"), rows)
    for language, words in (("en", english), ("zh", chinese)):
        assert words in Say({}, Words(language)).agreed(line)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_can_be_set(language):
    t = Words(language)
    for key, text in t.texts.items():
        for n in (1, 2):
            form = text if isinstance(text, str) else text["one" if n == 1 else "other"]
            said = t(key, **{name: n for name in places(form)})
            assert "{" not in said, key
            shown = page(f"- {said}\n", t, {}).partition("<main>")[2]
            assert "*" not in shown and "`" not in shown, f"{key}: a mark is not set in the page"


def test_values_are_escaped_and_set_text_is_not():
    t = Words("en")
    said = t("verdict.line", figure="a*b|<c>", verdict=t.code("x<y"))
    assert said == r"**a\*b|&lt;c&gt;**: `x<y`"
    assert "<p><strong>a*b|&lt;c&gt;</strong>: <code>x&lt;y</code></p>" in page(said, t, {})
    assert t.link("<i>", 'a"b') == "[&lt;i&gt;](a&#34;b)"
    assert '<p><a href="a%22b">&lt;i&gt;</a></p>' in page(t.link("<i>", 'a"b'), t, {})
    assert t("run.epochs", n=1) == "1 epoch" and t("run.epochs", n=2) == "2 epochs"


# -- both languages -----------------------------------------------------------------------------------------------------


def test_four_files_that_lead_to_each_other(tmp_path):
    put(DDP)
    texts = written(tmp_path)
    assert list(texts) == FILES
    for name, text in texts.items():
        links = Page(text).links if name.endswith("html") else re.findall(r"\]\(([^)]+)\)", text)
        own = {link for link in links if link in FILES}
        other = name.replace(".zh", "") if ".zh" in name else name.replace("report", "report.zh")
        assert own == {other, name.replace(".html", ".md") if name.endswith("html") else name.replace(".md", ".html")}


def test_one_language_alone_links_to_no_other(tmp_path):
    put(DDP)
    texts = written(tmp_path, languages=["zh"])
    assert list(texts) == FILES[2:] and "report.md" not in texts["report.zh.md"] + texts["report.zh.html"]
    assert not (tmp_path / "report.md").exists()
    with pytest.raises(SpecError, match=r"'fr'.*known: en, zh"):
        write_report(path=tmp_path / "report.md", languages=["fr"])


def test_all_four_tell_the_same_figures(tmp_path):
    everything()
    texts = written(tmp_path)
    english, chinese = (cells(texts[name]) for name in ("report.md", "report.zh.md"))
    digits = r"[-+−]?\d[\d.]*"
    assert [re.findall(digits, str(line)) for line in english[2:23]] == [re.findall(digits, str(line)) for line in chinese[2:23]]
    for language in ("", ".zh"):
        markdown, page = texts[f"report{language}.md"], texts[f"report{language}.html"]
        found = [re.sub("<[^>]*>", "", cell) for cell in re.findall("<td[^>]*>(.*?)</td>", page)]
        shown = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell) for line in cells(markdown) for cell in line]
        figures = [[cell for cell in one if re.fullmatch(r"[-+−]?\d[\d.]*( \(.*\))?", cell)] for one in (found, shown)]
        assert figures[0] == figures[1] and len(figures[0]) > 300


AS_PUBLISHED = ("Experiment", "Model", "Batch Size", "Best Acc", "Avg Throughput", "Max GPU Mem", "Max Mem", "Total Time")


def test_no_english_heading_is_left_in_the_chinese_report(tmp_path, pictures):
    everything()
    texts = written(tmp_path)
    headings = re.findall(r"^#+ (.*)", texts["report.zh.md"], re.M)
    assert len(headings) == len(re.findall(r"^#+ ", texts["report.md"], re.M)) >= 20
    assert all(re.search(CHINESE, heading) for heading in headings)
    english = set(re.findall(r"^#+ (.*)", texts["report.md"], re.M))
    assert not english & set(headings)
    for group in groups():
        assert group.claim_zh in texts["report.zh.html"] and f"### {group.number}. {group.title_zh}\n" in texts["report.zh.md"]
        assert group.claim_zh not in texts["report.md"]
    columns = {cell for line in re.findall(r"^\|.*\n(?=\| ---)", texts["report.zh.md"], re.M) for cell in cells(line)[0]}
    assert all(re.search(CHINESE, column) or column.startswith(("Spearman", "Kendall", *AS_PUBLISHED)) for column in columns)


def test_a_row_s_name_leads_to_its_folder(tmp_path):
    everything()
    pages = Page(written(tmp_path)["report.html"])
    folder = re.compile(rf"runs/quick/{DDP}(/\d+)?$")
    assert sum(bool(folder.search(link)) for link in pages.links) > 20
    for link in pages.links:
        if not link.startswith("#") and link not in FILES:
            assert (tmp_path / unquote(link)).exists(), link
    assert {link[1:] for link in pages.links if link.startswith("#")} <= set(pages.ids)


def test_a_group_s_figure_stands_with_it(tmp_path, pictures):
    put_all()
    texts = written(tmp_path)
    group = texts["report.md"].partition("### 4. ")[2].partition("\n### ")[0]
    assert "](plots/group_04.png)" in group and texts["report.md"].count("plots/group_") == 1, "no group has number 11"
    assert "](plots/throughput.png)" in texts["report.zh.md"]
    assert '<a href="plots/group_04.svg"><img src="data:image/png;base64,' in texts["report.html"]
    for name in texts:  # a report without results does not replace one with results
        (tmp_path / name).unlink()
    assert "plots/group_04.png" not in written(tmp_path, profile="classroom")["report.md"], "left by another profile"
