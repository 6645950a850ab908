"""A group's figure and the notebooks' figures show what the results say, legibly, with Chinese only where a font can draw it."""

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from labkit.plots import groups as group_plots
from labkit.plots import overviews as plots
from labkit.plots import style as looks
from labkit.plots.groups import group_figure
from labkit.plots.lessons import accuracy_figure, comparison_figure, factor_ladder, staleness_figure
from labkit.results.verdict import match_rows
from labkit.rows import params
from labkit.rows.fields import SpecError
from labkit.runs.spread import Measured
from tests.drawings.test_gallery import legible, words_of
from tests.helpers.made_up import CPU, GPUS, put, put_all, results_now, rows_now, use

SINGLE = "single_gpu_resnet18_bs{}_cacheFalse_ampFalse"
DP = "dp_resnet18_bs256_ngpu2_cacheFalse_ampFalse"
DDP = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
NCCL = "ddp_nccl_resnet18_bs128x2_cacheFalse_ampFalse"


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    use(monkeypatch, CPU)


@pytest.fixture(autouse=True)
def no_chinese_font(monkeypatch):
    monkeypatch.setattr(looks, "chinese_font", lambda: "")


def words(figure):
    return [text.get_text() for text, _ in words_of(figure)]


def bars_of(figure, title):
    axes = next(axes for axes in figure.axes if axes.get_title(loc="left") == title)
    return axes, [bar.get_width() for bar in axes.patches]


# -- a group --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("number", [group.number for group in params.groups()])
def test_every_group_is_legible(number, repeats):
    for repeat in range(1, repeats + 1):
        put_all(repeat=repeat)
    legible(group_figure(params.group(number), rows_now()))


def test_what_is_shown_is_what_was_measured():
    put(SINGLE.format(256), 1000.0, 91.5, 100)
    put(DP, 1500.0, 92.5, 250)
    put(DDP, 800.0, 90.5, 175)
    figure = group_figure(params.group(1), rows_now())
    axes, widths = bars_of(figure, "Throughput of all ranks")
    assert widths == [1000, 1500, 800] and not axes.containers[0].errorbar
    assert bars_of(figure, "Peak memory of one rank")[1] == [100, 250, 175]
    told = words(figure)
    assert {"1,000", "1,500", "800", "100", "250", "175"} <= set(told)
    assert {"92.5 %  dp_bs256_ngpu2", "91.5 %  single_gpu_bs256", "90.5 %  ddp_gloo_bs128x2"} <= set(told)
    # to the single row: 1.50 here and 3805.5 / 4950 as published; 0.80 here and 1833.8 / 4950 as published, on Gloo
    assert sorted(t for t in told if t in ("1.50", "0.77", "0.80", "0.37")) == ["0.37", "0.77", "0.80", "1.50"]
    assert "medians" not in " ".join(told) and any("one run of each row" in t for t in told)


def test_the_time_is_told_whole():
    put(SINGLE.format(256), 1000.0)
    axes, widths = bars_of(group_figure(params.group(1), rows_now()), "Where the wall time went")
    # of 10 s: start-up 1, training 6 of which 1.5 waiting, evaluation 2, and 1 that nobody claims
    assert widths == pytest.approx([1.0, 4.5, 1.5, 2.0, 1.0]) and "10.0 s" in [text.get_text() for text in axes.texts]


def test_repeats_are_shown_with_their_spread():
    for repeat, rate in enumerate((900.0, 1000.0, 1300.0), start=1):
        put(SINGLE.format(256), rate, repeat=repeat)
    figure = group_figure(params.group(1), rows_now())
    axes, widths = bars_of(figure, "Throughput of all ranks")
    (ends,) = [line.get_segments()[0] for line in axes.collections]
    assert widths == [1000] and ends[:, 0].tolist() == [900, 1300]
    assert any("medians with least and most of 3 runs" in text for text in words(figure))


def of_group_1():
    """The rows of group 1 that ran, and those that stand for one of it."""
    names = set(params.group(1).rows)
    return [row for row in rows_now() if row.good and names & {row.name, *row.stands_for}]


def test_a_published_nccl_figure_says_so_and_unlike_pairs_are_not_compared():
    put(DDP, 800.0)
    put("ddp_gloo_resnet18_bs128x2_cacheTrue_ampFalse", 1000.0)
    put(SINGLE.format(256), 1000.0)
    assert "0.46 NCCL" in words(group_figure(params.group(4), rows_now()))  # 2293.5 / 4950
    rows = of_group_1()
    assert [(row.name, row.stands_for) for row in rows] == [(SINGLE.format(256), ()), (DDP, (NCCL,))]
    assert "0.37" in words(group_figure(params.group(1), rows_now()))  # published on Gloo, so nothing is marked
    for one in match_rows(params.group(1).rows, rows):
        assert one.nccl == ""


def test_where_nccl_ran_gloo_does_not_answer_for_it(monkeypatch):
    use(monkeypatch, GPUS)
    put(NCCL, 800.0)
    put(DDP, 700.0)
    assert [(row.name, row.stands_for) for row in of_group_1()] == [(NCCL, ())]


def test_no_row_no_figure():
    put(SINGLE.format(256), status="failed")
    assert group_figure(params.group(1), rows_now()) is None and group_figure(params.group(2), []) is None


def test_a_run_too_short_to_time_and_one_without_memory():
    put(SINGLE.format(256), 0.0, memory=0.0)
    put(DP, 10.0)
    told = legible(group_figure(params.group(1), rows_now()))
    assert "too few steps to time" in told and "0" in told


def test_rows_with_long_names_are_legible():
    rows = [f"collective_gloo_resnet18_bs128x2+form={form}" for form in ("flat", "ring", "buckets")]
    for n, name in enumerate(["collective_gloo_resnet18_bs128x2", *rows]):
        put(name, 1000.0 + n, 90 + n)
    group = dataclasses.replace(params.group(10), rows=("collective_gloo_resnet18_bs128x2", *rows))
    legible(group_figure(group, rows_now()))


# -- all of them ----------------------------------------------------------------------------------------------------------
def test_plots_are_saved_overviews_first_and_the_same_each_time(tmp_path):
    put(SINGLE.format(256), 1000.0)
    put(DP, 1500.0)
    written = plots.save_plots(rows_now(), tmp_path / "one")
    stems = [path.stem for path in written if path.suffix == ".png"]
    groups = [f"group_{g.number:02}" for g in params.groups() if {SINGLE.format(256), DP} & set(g.rows)]
    assert stems == [*plots.PLOTS, *groups] and "group_01" in groups and "group_02" not in groups
    again = plots.save_plots(rows_now(), tmp_path / "two")
    assert [one.read_bytes() for one in written] == [two.read_bytes() for two in again]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(path.name for path in written)
    assert plots.save_plots([], tmp_path / "none") == [] and not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", plots.PLOTS)
def test_the_overviews_are_legible(name):
    put_all()
    told = legible(plots.PLOTS[name](results_now()))
    assert any("one run of each row" in text for text in told)


# -- what notebooks ask for -----------------------------------------------------------------------------------------------
def test_accuracy_over_epochs_and_over_time():
    put(SINGLE.format(256), accuracy=90.0)
    put(DP, accuracy=96.0)
    figure = accuracy_figure(results_now())
    told = legible(figure)
    assert {"90.0 %  single_gpu_bs256", "96.0 %  dp_bs256_ngpu2"} <= set(told)
    epochs, seconds = figure.axes
    lines = {
        tuple(line.get_xdata()): list(line.get_ydata())
        for axes in (epochs, seconds)
        for line in axes.lines
        if len(line.get_xdata()) == 3
    }
    assert {(1, 2, 3), (3.0, 6.0, 9.0)} == lines.keys()
    assert [30.0, 60.0, 90.0] in [list(line.get_ydata()) for line in seconds.lines]


def test_a_ladder_of_factors():
    """The second twice as fast, the third the same, the fourth too noisy to tell: with the least and the most of each."""
    names = [SINGLE.format(256).replace("cacheFalse_ampFalse", tail) for tail in ("cacheFalse_ampFalse", "cacheTrue_ampFalse")]
    names += [SINGLE.format(512), SINGLE.format(128)]
    sure = {"error": 0.001, "freedom": 9}
    rates = [Measured((990.0, 1000.0, 1010.0), **sure), Measured((2000.0,) * 3, **sure), Measured((2002.0,) * 3, **sure)]
    rates.append(Measured((500.0, 3000.0, 2500.0), error=0.5, freedom=2))
    told = legible(factor_ladder(dict(zip(names, rates, strict=True))))
    assert {"×2.00", "×1.00\nindistinguishable", "×1.25\ntoo noisy to tell", "1,000", "2,500"} <= set(told)
    assert any("medians of 3 rounds" in text for text in told)


def test_staleness_as_shares():
    told = legible(staleness_figure({"ps_mode_resnet18_bs128_workers2": {0: 1, 1: 2, 3: 1}, "sync": {0: 7}}))
    assert {"25.0 %", "50.0 %", "all"} <= set(told)
    assert "ps_mode_bs128_workers2: 4 gradients, 1.25 updates late on average" in told


def test_any_figure_against_any_other():
    put_all()
    assert "dp_bs256_ngpu2" in legible(comparison_figure(results_now(), "max_mem_mib", "images_per_s"))
    assert "best test accuracy (%)" in words(comparison_figure(results_now(), "total_time_s", "best_acc_pct"))
    with pytest.raises(SpecError, match="'max_mem': no figure of a result; did you mean 'max_mem_mib'"):
        comparison_figure(results_now(), "max_mem", "best_acc_pct")
    comparison_figure({}, "max_mem_mib", "images_per_s")


def test_figures_are_drawn_without_pyplot():
    put(SINGLE.format(256))
    figure = group_figure(params.group(1), rows_now())
    assert isinstance(figure.canvas, FigureCanvasAgg) or type(figure.canvas).__name__ == "FigureCanvasBase"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert group_plots.accuracy_over_time(results_now()[SINGLE.format(256)])[0] == [3.0, 6.0, 9.0]


def test_plots_leave_pyplot_alone():
    code = "import sys, labkit.plots.overviews, labkit.report.write; print([m for m in ('matplotlib.pyplot', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert found.stdout == "[]\n"
