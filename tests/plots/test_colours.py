"""Rows can be told apart on a projector and in grey: lightness and contrast of what the figures draw, measured."""

import itertools
import re

import pytest
from matplotlib.colors import to_hex, to_rgb

from labkit.drawings.numbers import factors
from labkit.plots import style
from labkit.plots.colours import at_lightness, contrast_with_white, lightness, row_colours
from labkit.plots.groups import group_figure
from labkit.plots.lessons import accuracy_figure
from labkit.plots.overviews import accuracy_overview
from labkit.rows import params
from labkit.rows.kinds import KINDS, SPARE_LOOKS
from tests.drawings.test_gallery import words_of
from tests.helpers.made_up import CPU, put_all, results_now, rows_now, use

IN_A_GROUP, ANYWHERE = 10, 5.9  # steps of lightness between two rows: of a group, and of eight rows
ALL = [kind.colour for kind in KINDS.values()]


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(style, "chinese_font", lambda: "")
    use(monkeypatch, CPU)
    put_all()


def apart(colours):
    """The least difference of lightness between two of these colours."""
    return min((abs(lightness(one) - lightness(two)) for one, two in itertools.combinations(colours, 2)), default=100)


def lines_of(axes):
    """The colours of the curves that are not in the background."""
    return [line.get_color() for line in axes.lines if line.get_linewidth() > 1.1 and len(line.get_xdata()) == 3]


def test_lightness_and_contrast_are_those_of_the_standards():
    """CIE's L* of sRGB's primaries and greys, and WCAG's contrast, by tables of others."""
    known = {"#ffffff": (100, 1), "#000000": (0, 21), "#777777": (50.03, 4.48), "#ff0000": (53.24, 4.0), "#0000ff": (32.30, 8.59)}
    for colour, (level, contrast) in known.items():
        assert lightness(colour) == pytest.approx(level, abs=0.1) and contrast_with_white(colour) == pytest.approx(
            contrast, abs=0.02
        )


@pytest.mark.parametrize("colour", ALL)
def test_a_colour_gets_the_lightness_that_is_asked_for(colour):
    for level, turn in itertools.product((18, 35, 60), (-45, 0, 45)):
        assert lightness(at_lightness(colour, level, turn)) == pytest.approx(level, abs=0.4)
    assert to_rgb(at_lightness(colour, lightness(colour))) == pytest.approx(to_rgb(colour), abs=0.02), "and keeps its hue"


def test_strategies_differ_in_grey_and_are_seen_on_white():
    assert apart(ALL) > 5.5 and all(contrast_with_white(one) >= 3 for one in [*ALL, *(colour for colour, _ in SPARE_LOOKS)])


@pytest.mark.parametrize("rows", range(1, 9))
def test_rows_of_any_mixture_differ_in_grey_and_are_seen_on_white(rows):
    for colours in ([ALL[1]] * rows, [ALL[0]] * rows, [ALL[at % 3] for at in range(rows)], ALL[:rows]):
        found = row_colours(colours)
        assert len({to_hex(one) for one in found}) == len(found) == len(colours)
        assert apart(found) > ANYWHERE and min(map(contrast_with_white, found)) >= 3


@pytest.mark.parametrize("number", [group.number for group in params.groups()])
def test_rows_of_a_group_differ_in_grey(number):
    figure = group_figure(params.group(number), rows_now())
    axes = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("Accuracy"))
    colours = lines_of(axes)
    assert len(colours) == len(set(map(to_hex, colours))) >= 2
    assert apart(colours) > IN_A_GROUP and min(map(contrast_with_white, colours)) >= 3
    bars = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("Throughput")).patches
    assert {to_hex(bar.get_facecolor()) for bar in bars} == set(map(to_hex, colours)), "a row has one colour in all panels"


def test_curves_of_the_overviews_differ_in_grey_and_where_they_coincide():
    figures = [accuracy_figure({n: r for n, r in results_now().items() if "ddp" in n}), accuracy_overview(results_now())]
    for axes in (axes for figure in figures for axes in figure.axes):
        curves = [line for line in axes.lines if line.get_linewidth() > 1.1 and len(line.get_xdata()) == 3]
        assert curves and apart([line.get_color() for line in curves]) > ANYWHERE
        assert all(contrast_with_white(line.get_color()) >= 3 for line in curves)
        widths = [line.get_linewidth() for line in curves]
        assert all(one - two > 0.3 for one, two in itertools.pairwise(widths)), "a curve below another is hidden"


def test_no_arrow_goes_through_a_factor():
    figure = factors()
    boxes = [box for text, box in words_of(figure) if re.fullmatch(r"×\d\.\d\d", text.get_text())]
    assert len(boxes) == 5
    for arrow in (patch for patch in figure.axes[0].patches if type(patch).__name__ == "FancyArrowPatch"):
        path = arrow.get_path().interpolated(50).transformed(arrow.get_transform())
        for x, y in path.vertices:
            assert not any(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1 for box in boxes), "an arrow through a number"
