"""Chinese titles: no box in place of a character, whatever fonts a machine has."""

from functools import partial

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import findfont, fontManager

from labkit.plots import style as looks
from labkit.plots.groups import group_figure
from labkit.rows import params
from labkit.rows.params import chinese_letters
from labkit.system import fonts
from tests.drawings.test_gallery import legible, words_of
from tests.helpers.made_up import CPU, put, rows_now, use
from tests.plots.test_groups import words

SINGLE = "single_gpu_resnet18_bs{}_cacheFalse_ampFalse"


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    use(monkeypatch, CPU)


@pytest.fixture(autouse=True)
def no_chinese_font(monkeypatch):
    monkeypatch.setattr(looks, "chinese_font", lambda: "")


@pytest.fixture
def chinese_font(monkeypatch, tmp_path):
    """A font made here, which has the characters of the titles, each drawn as a bar."""
    letters = sorted(map(ord, chinese_letters()))
    pen = TTGlyphPen(None)
    for step, point in enumerate(((50, 0), (50, 700), (150, 700), (150, 0))):
        (pen.lineTo if step else pen.moveTo)(point)
    pen.closePath()
    names = [".notdef", *(f"letter{code:x}" for code in letters)]
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder(names)
    made.setupCharacterMap(dict(zip(letters, names[1:], strict=True)))
    made.setupGlyf(dict.fromkeys(names, pen.glyph()))
    made.setupHorizontalMetrics(dict.fromkeys(names, (900, 50)))
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "Made Up Titles", "styleName": "Regular"})
    made.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    made.setupPost()
    made.save(tmp_path / "made_up.ttf")
    before = list(fontManager.ttflist)
    monkeypatch.setattr(fontManager, "ttflist", list(before))
    fontManager.addfont(tmp_path / "made_up.ttf")
    monkeypatch.setattr(looks, "chinese_font", lambda: "Made Up Titles")
    return tmp_path / "made_up.ttf"


def test_without_a_chinese_font_the_heading_is_english():
    put(SINGLE.format(256))
    told = words(group_figure(params.group(4), rows_now()))
    assert "4 · Effect of the data cache" in told and not any(ord(c) > 0x2E80 for text in told for c in text)


def test_with_a_chinese_font_the_heading_has_both(chinese_font):
    put(SINGLE.format(256))
    for group in params.groups():
        figure = group_figure(group, rows_now())
        if figure is not None:
            assert f"{group.number} · {group.title_en} · {group.title_zh}" in legible(figure)


def test_a_missing_glyph_would_be_noticed(monkeypatch):
    monkeypatch.setattr(looks, "chinese_font", lambda: "DejaVu Sans")  # which has no Chinese
    put(SINGLE.format(256))
    with pytest.raises(UserWarning, match="missing from font"):
        words_of(group_figure(params.group(4), rows_now()))


def test_a_font_is_found_by_its_glyphs(monkeypatch, chinese_font):
    assert fonts.has_glyphs(str(chinese_font), set(map(ord, chinese_letters())))
    latin = findfont("DejaVu Sans")
    assert fonts.has_glyphs(latin, {ord("A"), ord("é")}) and not fonts.has_glyphs(latin, {ord("A"), ord("卡")})
    assert not fonts.has_glyphs("/no/such/font.ttf", {ord("A")})
    search = partial(fonts.font_with.__wrapped__, chinese_letters())
    monkeypatch.setattr(fonts, "PLACES", ())
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if font.name == "Made Up Titles"])
    assert search() == "Made Up Titles"  # among those that matplotlib knows
    monkeypatch.setattr(fontManager, "ttflist", [])
    assert search() == ""
    monkeypatch.setattr(fonts, "PLACES", (str(chinese_font.parent),))
    assert search() == "Made Up Titles"  # one that came after matplotlib had listed them
    assert [font.name for font in fontManager.ttflist] == ["Made Up Titles"]


@pytest.mark.needs("fonts-wqy-microhei")
def test_a_font_of_debian_draws_the_titles(monkeypatch):
    name = fonts.font_with.__wrapped__(chinese_letters())
    assert name, "it is installed, and not found"
    monkeypatch.setattr(looks, "chinese_font", lambda: name)
    put(SINGLE.format(256))
    group = params.group(4)
    assert f"4 · {group.title_en} · {group.title_zh}" in legible(group_figure(group, rows_now()))
