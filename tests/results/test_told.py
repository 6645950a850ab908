"""A small folder of results, made by hand, and all that is told of it: every table in both languages, a lesson, a picture, the
command line. What is expected was computed on paper, from the figures below and the published table."""

from __future__ import annotations

import html
import re

import pytest

from labkit.notebook.guesses import ACCURATE, SPREAD, Question
from labkit.notebook.lesson import Lesson
from labkit.notebook.ran import kept
from labkit.plots import overviews
from labkit.processes import fork_server
from labkit.results.table import kept_lines
from labkit.runs.folders import runs_folder
from labkit.runs.plan import plan
from labkit.runs.rounds import all_rounds
from tests.helpers.made_up import CPU, cells, put, put_rounds, put_thrice, results_now, rows_now, section, use
from tests.helpers.report_pages import written

SINGLE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"  # published: 74 %, 4950 images/s, 1294 MB
DP = "dp_resnet18_bs256_ngpu2_cacheFalse_ampFalse"  # 74.87 %, 3805.5 images/s, 715 MB
DDP = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"  # 74.63 %, 1833.8 images/s, 758 MB; on NCCL 74.8 %, 2293.5, 753
CACHED = "ddp_gloo_resnet18_bs128x2_cacheTrue_ampFalse"  # only on NCCL: 66.7 %, 4749.1 images/s, 797 MB


@pytest.fixture(autouse=True)
def measured(tmp_path, monkeypatch):
    """Three trainings of each row that ended well, and one of the first that failed. In the second all rows were slow."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(fork_server, "warm", lambda *_, **__: None)
    monkeypatch.setattr(overviews, "save_plots", lambda *_: [])
    use(monkeypatch, CPU)
    for repeat, (times, accuracy) in enumerate([(1.0, 90.0), (0.5, 91.0), (1.02, 92.0)], 1):
        put(SINGLE, 1000.0 * times, accuracy, 110.0, repeat=repeat)
    put(SINGLE, repeat=4, status="oom", reason="rank 0 needed 70 GiB")
    put_thrice(DP, 1500.0, 85.0, 220.0, spread=(1.0, 0.5, 1.02))
    put_thrice(DDP, 800.0, 93.0, 50.0, spread=(1.0, 0.5, 1.02))
    put_thrice(CACHED, 1200.0, 89.0, 60.0, spread=(1.0, 0.5, 1.02))


# -- the report ---------------------------------------------------------------------------------------------------------

RESULTS = f"""
{DP} | resnet18 | 256 | 85.00 | 1500.0 (750.0–1530.0) | 220 | 10.0
{CACHED} † | resnet18 | 256 | 89.00 | 1200.0 (600.0–1224.0) | 60 | 10.0
{SINGLE} | resnet18 | 256 | 91.00 (90.00–92.00) | 1000.0 (500.0–1020.0) | 110 | 10.0
{DDP} † | resnet18 | 256 | 93.00 | 800.0 (400.0–816.0) | 50 | 10.0
"""
GROUP_1 = f"""
{SINGLE} | 1.00 | 1.00 | +0.0 | +0.0 | 1.00 | 1.00
{DP} | 1.50 | 0.77 | −6.0 | +0.9 | 2.00 | 0.55
{DDP} † | 0.80 | 0.37 | +2.0 | +0.6 | 0.45 | 0.59
"""
GROUP_2 = f"{DDP} † | 1.00 | 1.00 | +0.0 | +0.0 | 1.00 | 1.00"
GROUP_4 = f"""
{SINGLE} | 1.00 | 1.00 | +0.0 | +0.0 | 1.00 | 1.00
{DDP} † | 0.80 | 0.46 (NCCL) | +2.0 | +0.8 (NCCL) | 0.45 | 0.58 (NCCL)
{CACHED} † | 1.20 | 0.96 (NCCL) | −2.0 | −7.3 (NCCL) | 0.55 | 0.62 (NCCL)
"""
SENTENCES_1 = [
    "Images/s: the order differs from the published one (3 pairs of rows: 2 as published, 1 in the opposite order): dp_bs256_ngpu2 was "
    "faster than single_gpu_bs256 (1.50 times; published 0.77).",
    "Accuracy: the order agrees in part with the published one (3 pairs of rows: 1 indistinguishable in both, 2 distinguishable here "
    "but not as published): single_gpu_bs256 was more accurate than dp_bs256_ngpu2 (+6.0 points; published indistinguishable, −0.9); "
    "ddp_gloo_bs128x2 was more accurate than dp_bs256_ngpu2 (+8.0 points; published indistinguishable, −0.2).",
    "Memory: the order differs from the published one (3 pairs of rows: 1 as published, 2 in the opposite order): dp_bs256_ngpu2 needed "
    "more memory than single_gpu_bs256 (2.00 times; published 0.55); dp_bs256_ngpu2 needed more memory than "
    "ddp_gloo_bs128x2 (4.40 times; published 0.94).",
]


def plain(text):
    """Without what Markdown sets: links, bold, code."""
    return re.sub(r"[*`]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)).replace("\\_", "_")


def table(part):
    """The cells of a table below its head, one line a row, as they stand above."""
    return [" | ".join(plain(cell) for cell in line) for line in cells(part)[2:]]


def test_every_table_of_the_report_says_what_was_measured(tmp_path):
    text = written(tmp_path)["report.md"]
    assert table(section(text, "Summary of results")) == RESULTS.strip().splitlines()
    for number, told in ((1, GROUP_1), (2, GROUP_2), (4, GROUP_4)):
        assert table(section(text, f"{number}. ")) == told.strip().splitlines(), f"group {number}"
    assert table(section(text, "Rows that did not run"))[0] == f"{SINGLE} | out of memory, repeat 4 | rank 0 needed 70 GiB"
    assert f"{SINGLE} | 1.00 | 6.00 | 1.50 (25 %) | 2.00 | 1.00 | 10.00" in table(section(text, "Where the time")), text


def test_the_sentences_of_a_group_say_it_too(tmp_path):
    part = section(written(tmp_path)["report.md"], "1. ")
    assert [plain(line)[2:] for line in part.splitlines() if line.startswith("- ")] == SENTENCES_1


def lines_of_figures(text):
    """The figures and marks of each line, in their order within a table, sorted within a sentence: languages put them in another."""
    found = []
    for line in text.splitlines():
        line = re.sub(r"（NCCL）", " (NCCL)", plain(line))
        figures = re.findall(r"†|\(NCCL\)|[+−]?\d[\d.]*(?:–[\d.]+)?", line)
        if line.startswith("| ") or line.startswith("- "):
            found.append(figures if line.startswith("| ") else sorted(figures))
    return found


def test_both_languages_tell_the_same_figures_line_by_line(tmp_path):
    """In all tables and in the sentences of the groups: the same numbers, the same † and the same mark of NCCL."""
    texts = written(tmp_path)
    english, chinese = (lines_of_figures(texts[name]) for name in ("report.md", "report.zh.md"))
    assert len(english) > 60 and sum("†" in line for line in english) >= 8
    for here, there in zip(english, chinese, strict=True):
        assert here == there


def test_the_pages_have_the_cells_of_the_markdown(tmp_path):
    texts = written(tmp_path)
    for name in ("report", "report.zh"):
        shown = [plain(cell) for line in cells(texts[f"{name}.md"]) for cell in line if not re.fullmatch("-+:?", cell)]
        page = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", texts[f"{name}.html"], re.S)
        on_page = [re.sub(r"\s+", "", html.unescape(re.sub(r"<[^>]*>", "", cell))) for cell in page]
        assert on_page == [re.sub(r"\s+", "", cell) for cell in shown], name


# -- a lesson -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lesson():
    made = Lesson(1, "quick")
    made.ran = kept(list(made.group.rows), "quick", repeats=3)
    return made


def test_a_lesson_sets_each_row_beside_the_first(lesson):
    """Ratios as in the report, with their units."""
    told = [[line[key] for key in lesson.ratios().headings] for line in lesson.ratios().lines]
    units = ["times", "times", "points", "points", "times", "times"]
    for cells_here, line in zip(told, GROUP_1.replace(" †", "").strip().splitlines(), strict=True):
        name, *figures = line.split(" | ")
        assert cells_here == [name, *(f"{figure} {unit}" for figure, unit in zip(figures, units, strict=True))]
    words = [("images_per_s", "images/s"), ("published images_per_s", "published"), ("best_acc_pct", "accuracy"),
             ("published best_acc_pct", "published"), ("max_mem_mib", "memory"), ("published max_mem_mib", "published")]  # fmt: skip
    assert list(lesson.ratios().headings.items())[1:] == words


def test_a_lessons_ratios_say_where_the_speeds_come_from(lesson):
    """From trainings that were not in turn, from rounds, or from rounds whose control was not equal."""
    assert lesson.ratios().note.endswith("Images/s come from the trainings, which were not measured in turn.")
    rates = {SINGLE: 1000.0, DP: 1500.0, DDP: 800.0}
    for number, (control, told) in enumerate(
        [(1.0, ""), (0.5, "too noisy to tell (噪声过大，无法判断); the control came out 2.00")], 1
    ):
        put_rounds(rates, control=control, number=number)
        lesson.ran.rounds = all_rounds(runs_folder() / "quick")[-1]
        assert (told in lesson.ratios().note) and ("too noisy" in lesson.ratios().note) == bool(told)
        assert "trainings" not in lesson.ratios().note


def verdicts(lesson):
    return [line["verdict"] for line in lesson.outcome().lines]


def test_a_lesson_judges_the_guess(lesson):
    """Measured: DataParallel is fastest, 1.875 times as fast as DDP, which needs least memory; DDP is 0.8 times as fast as single."""
    assert [str(line["measured"]) for line in lesson.outcome().lines] == [DP, "0.80", DDP]
    assert verdicts(lesson) == ["no guess"] * 3
    assert {line["guess"] for line in lesson.outcome().lines} == {"no guess"}, "nothing is chosen for the reader"
    lesson.predict(fastest=DP, factor=0.82, least_memory=DDP, why="two replicas")
    assert verdicts(lesson) == ["right", "right within 10 %", "right"]
    assert "Your reason: two replicas" in str(lesson.outcome())
    lesson.predict(fastest=SINGLE, factor=1.6, least_memory=SINGLE)
    assert verdicts(lesson) == ["wrong", "wrong by a factor of 2.00", "wrong"]
    assert "two replicas" in str(lesson.outcome()), "a second guess keeps the reason"
    put(SINGLE, 1000.0, 91.0, 110.0, repeat=5, others_cores=1.5)  # one of its trainings ran beside another program
    lesson.ran = kept(list(lesson.group.rows), "quick", repeats=5)
    assert verdicts(lesson)[:2] == ["too noisy to tell"] * 2 and verdicts(lesson)[2] == "wrong", (
        "memory does not depend on others"
    )


def test_what_cannot_be_told_apart_is_neither_right_nor_wrong(lesson):
    """DDP is 2 points ahead of single, and chance may make 3.99 of 360 images (two standard errors): no best row, no difference."""
    points = Question("points", "best_acc_pct", "By how many points?", (DDP, SINGLE))
    lesson.guesses.questions = {"most_accurate": ACCURATE, "points": points, "factor": SPREAD}
    for name, guess in ((DDP, 2.0), (SINGLE, 0.0), (SINGLE, -50.0)):
        lesson.predict(most_accurate=name, points=guess)
        assert verdicts(lesson) == ["indistinguishable", "indistinguishable", "no guess"]
    lesson.predict(most_accurate=DP, factor=1.875)
    assert verdicts(lesson) == ["wrong", "indistinguishable", "right within 10 %"]
    lesson.guesses.questions["points"] = Question("points", "best_acc_pct", "By how many points?", (DDP, DP))
    lesson.predict(points=5.0)
    assert verdicts(lesson)[1] == "right within 4.6 points"
    lesson.predict(points=-5.0)
    assert verdicts(lesson)[1] == "wrong by 13.0 points"


def test_a_lessons_table_has_the_medians_and_says_what_failed(lesson):
    lesson.ran = kept(list(lesson.group.rows), "quick")
    lines = {line["name"]: line for line in lesson.table().lines}
    told = [str(lines[SINGLE][key]) for key in ("images_per_s", "best_acc_pct", "max_mem_mib")]
    assert told == ["1,000 (500–1,020)", "91.0 (90.0–92.0)", "110"]
    assert lines[SINGLE]["note"] == "oom: rank 0 needed 70 GiB"
    assert lines[DDP]["note"] == "also for ddp_nccl_resnet18_bs128x2_cacheFalse_ampFalse" and lines[DP]["note"] == ""
    assert list(lines)[:3] == [DP, SINGLE, DDP], "fastest first"


def test_what_notebooks_say_is_computed_from_the_right_row(lesson):
    """20 steps of 256 images in 6 s, 1.5 s of it waiting: 5120 images on one rank, 2560 on each of two."""
    ran = lesson.ran
    assert ran.points(DDP, SINGLE).points == 2.0 == -ran.points(SINGLE, DDP).points
    assert ran.ratio("images_per_s", DDP, SINGLE).median == 0.8 and ran.ratio("images_per_s", SINGLE, DDP).median == 1.25
    assert [part.median for part in ran.us_per_image(SINGLE)] == pytest.approx([1.5e6 / 5120, 4.5e6 / 5120])
    assert [part.median for part in ran.us_per_image(DDP)] == pytest.approx([1.5e6 / 2560, 4.5e6 / 2560])
    assert ran.ratio("images_per_s", DDP, DDP.replace("gloo", "nccl")) is None, "the same run"


# -- the command line and pictures -----------------------------------------------------------------------------------------


def test_a_row_of_which_a_repeat_failed_is_not_ok(labkit):
    lines = {line["name"]: line for line in kept_lines(plan("all"))}
    told = [lines[SINGLE][key] for key in ("status", "reason", "repeats", "images_per_s", "images_per_s_min", "images_per_s_max")]
    assert told == ["oom", "rank 0 needed 70 GiB", 4, 1000.0, 500.0, 1020.0]
    assert [lines[name]["status"] for name in (DP, DDP, CACHED)] == ["ok"] * 3
    assert f"{SINGLE}: out of memory: rank 0 needed 70 GiB\n" in labkit("table").out


def test_the_command_lines_table_has_each_figure_under_its_heading(labkit):
    said = labkit("table").out.splitlines()
    (head,) = [line for line in said if "experiment" in line]
    lines = [line for line in said if "resnet18  " in line]
    assert [line.split()[0] for line in lines] == [DP, CACHED, SINGLE, DDP]
    headings = ("batch size", "best accuracy (%)", "throughput (images/s)", "resident set", "total time (s)")
    ends = [head.index(heading) + len(heading) for heading in headings]
    told = [[re.search(r"\S+$", line[:end])[0] for end in ends] for line in lines]
    assert told == [
        ["256", "85.0", "1,500.0", "220.0", "10.0"],
        ["256", "89.0", "1,200.0", "60.0", "10.0"],
        ["256", "91.0", "1,000.0", "110.0", "10.0"],
        ["256", "93.0", "800.0", "50.0", "10.0"],
    ]


def test_each_bar_of_the_throughput_picture_belongs_to_its_row():
    axes = overviews.throughput_overview(results_now()).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    bars = [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in axes.patches]
    assert bars == [(pytest.approx(y), rate) for y, rate in enumerate([800.0, 1000.0, 1200.0, 1500.0])]
    assert names == [DDP, SINGLE, CACHED, DP] and list(axes.get_yticks()) == [0, 1, 2, 3]
    texts = {text.get_text(): text.xy for text in axes.texts}
    assert texts == {"800": (816, 0), "1,000": (1020, 1), "1,200": (1224, 2), "1,500": (1530, 3)}, (
        "behind the range of the repeats"
    )
    ranges = [line.get_segments()[0].tolist() for line in axes.collections if len(line.get_segments()) == 1]
    assert ranges == [[[0.5 * rate, y], [1.02 * rate, y]] for y, rate in enumerate([800.0, 1000.0, 1200.0, 1500.0])]


def test_each_point_and_curve_belongs_to_its_row():
    memory = overviews.memory_overview(results_now()).axes[0]
    points = sorted(
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in memory.lines if line.get_marker() != "None"
    )
    assert points == [(800.0, 50.0), (1000.0, 110.0), (1200.0, 60.0), (1500.0, 220.0)]
    curves = {}
    for axes in overviews.accuracy_overview(results_now()).axes:
        curves |= {line.get_label(): list(line.get_ydata()) for line in axes.lines if " %  " in str(line.get_label())}
    ends = {"91.0 %  single_gpu_bs256": 91.0, "85.0 %  dp_bs256_ngpu2": 85.0, "93.0 %  ddp_gloo_bs128x2": 93.0,
            "89.0 %  ddp_gloo_bs128x2_cacheTrue": 89.0}  # fmt: skip
    assert {label: y[-1] for label, y in curves.items()} == pytest.approx(ends)


def test_a_figure_of_repeats_is_their_median_and_no_mean():
    (row,) = [row for row in rows_now() if row.name == SINGLE]
    assert [row.median(key) for key in ("images_per_s", "best_acc_pct", "max_mem_mib")] == [1000.0, 91.0, 110.0]
    assert (len(row.good), [one.status for one in row.bad]) == (3, ["oom"])
