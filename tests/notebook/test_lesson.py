"""A lesson asks, takes a guess, runs real rows and holds the guess against them; what it says is chosen by the outcome."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import re
import textwrap

import pytest

import labkit
from labkit import Lesson, SpecError
from labkit.notebook.cells import Grid, Html, Picture, over, say, tell
from labkit.notebook.guesses import DEFAULT, GROUPS
from labkit.notebook.ran import kept
from labkit.results.verdict import chance_points
from labkit.rows.kinds import STRATEGIES
from labkit.runs.spread import Difference, Measured
from tests.helpers.made_up import CPU, use

ONE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"
GLOO = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
NCCL = "ddp_nccl_resnet18_bs128x2_cacheFalse_ampFalse"


@pytest.fixture(autouse=True)
def runs_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    monkeypatch.setenv("LABKIT_WIDGETS", "0")


@pytest.fixture
def no_processes(monkeypatch):
    monkeypatch.setattr("labkit.processes.fork_server.warm", lambda wait=False: pytest.fail("a process was started"))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"group": 11}, "group 11"),
        ({"profile": "qick"}, "quick"),
        ({"overrides": {"epoch": 1}}, "epochs"),
        ({"rows": ["ddp_gluu_resnet18"]}, "ddp_gluu_resnet18"),
        ({"overrides": {"lr": -1.0}}, "lr=-1"),
    ],
)
def test_bad_parameters_are_named_before_any_process(arguments, names, no_processes):
    with pytest.raises(SpecError, match=names):
        Lesson(**{"group": 1, "profile": "tiny", **arguments})


def test_the_whole_arc(capsys):
    lesson = Lesson(1, profile="tiny")
    assert NCCL in str(lesson.question()) and "0.77" in str(lesson.question())
    assert lesson.group.claim in str(lesson.question()) and lesson.group.claim_zh in str(lesson.question())
    assert lesson.guesses.values == {} and str(lesson.predict()).count("no guess") == len(lesson.guesses.questions) == 3
    with pytest.raises(SpecError, match="has not run yet"):
        lesson.outcome()
    guess = lesson.predict(fastest=NCCL, factor=1.5, why="two do more work")
    assert isinstance(guess, Grid) and "Your reason: two do more work" in str(guess) and str(guess).count("no guess") == 1
    assert lesson.guesses.values["fastest"] == GLOO, "a row that runs on gloo here is guessed under that name"

    ran = lesson.run()

    assert ran.value("images_per_s", NCCL) == ran.value("images_per_s", GLOO) and ran.value("images_per_s", GLOO).median > 0
    assert ran.ratio("images_per_s", NCCL, GLOO) is None, "a row is not compared with itself"
    assert ran.rounds is not None and len(ran.rounds.turns) == 1, "tiny measures one round, of all rows of the group"
    turn = ran.rounds.turns[0]
    assert ran.ratio("images_per_s", GLOO, ONE).median == pytest.approx(turn[GLOO] / turn[ONE])
    assert {str(line["name"]) for line in ran.speeds().lines} == {*ran.results, "control"}
    verdicts = [line["verdict"] for line in lesson.outcome().lines]
    assert verdicts == ["too noisy to tell", "too noisy to tell", "no guess"], "measured once each"
    assert "two do more work" in str(lesson.outcome())
    told = str(tell(ran.ratio("images_per_s", GLOO, ONE), more="more", less="less", same="same"))
    assert told.startswith("**Too noisy to tell** (噪声过大，无法判断)") and "Reason: " in told
    assert isinstance(lesson.figure(), Picture)
    assert "1.00 times" in str(lesson.ratios())
    assert list(ran.results) == lesson.guesses.choices, "in the order of the group: figures colour the rows by it"
    assert ran.first(NCCL) == ran.results[GLOO][0], "the row that stands for it answers"
    assert ran.test_images == 128 and ran.points(GLOO, ONE).margin == pytest.approx(
        chance_points(*(ran.results[name][0].best_acc_pct for name in (GLOO, ONE)), 128)
    )
    assert lesson.table().lines[0]["images_per_s"].median == max(result[0].images_per_s for result in ran.results.values())
    assert ran.points(GLOO, ONE, of=kept([ONE], "tiny")) == ran.points(GLOO, ONE)
    assert ran.ratio("train_loss", GLOO, ONE, of=kept([ONE], "tiny")) == ran.ratio("train_loss", GLOO, ONE)
    assert ran.points(ONE, ONE) is None and ran.points(ONE, ONE, of=kept([ONE], "tiny")).points == 0, (
        "of another training, perhaps"
    )
    again = lesson.run([ONE, NCCL], train=False)
    assert again.rounds == ran.rounds, "what was measured with others is not measured again"


def test_what_cannot_run_here_is_none_and_says_so(monkeypatch):
    use(monkeypatch, CPU)
    lesson = Lesson(10, profile="tiny", rows=["ps_gpu_mode_resnet18_bs128_workers2"])
    assert lesson.guesses.choices == []
    assert lesson.trace("ps_gpu_mode_resnet18_bs128_workers2") is None
    ran = lesson.run()
    assert ran.value("images_per_s", "ps_gpu_mode_resnet18_bs128_workers2") is None
    assert ran.first("ps_gpu_mode_resnet18_bs128_workers2") is None
    assert "needs CUDA" in str(ran.table())
    assert "Not measured here" in str(tell(None, more="", less="", same=""))


BAD = [
    ({"fastest": "ddp"}, "fastest='ddp': no row of this lesson"),
    ({"factor": 0}, "factor=0: must be a number, more than 0"),
    ({"factor": True}, "factor=True"),
    ({"factor": float("nan")}, "factor=nan"),
    ({"factor": "fast"}, "factor='fast'"),
    ({"least_memory": 3}, "least_memory=3"),
    ({"most_acurate": ONE}, "does not ask 'most_acurate'.*; known: fastest, factor, least_memory"),
]


@pytest.mark.parametrize(("bad", "words"), BAD)
def test_a_guess_that_is_none_is_refused(bad, words):
    with pytest.raises(SpecError, match=words):
        Lesson(1, profile="tiny").predict(**bad)


def test_each_group_asks_what_its_notebook_is_about(monkeypatch):
    """Its own questions, about rows that it runs; and with other rows, the questions that fit any rows."""
    use(monkeypatch, CPU)
    asked = {}
    for group in labkit.groups():
        questions = Lesson(group.number, profile="tiny").guesses.questions
        assert questions.keys() == {one.key for one in GROUPS[group.number]}, "a question about a row that cannot run here"
        assert "factor" in questions and all(len(one.of) in (0, 2) for one in questions.values())
        asked[group.number] = tuple(one.text for one in questions.values())
    assert len(set(asked.values())) == len(asked), "two notebooks ask the same"
    assert {"factor", "points"} < Lesson(4, profile="tiny").guesses.questions.keys() and "cache" in asked[4][0]
    assert "AMP" in asked[5][0] and "256" in asked[6][0]
    alone = Lesson(4, profile="tiny", rows=[ONE]).guesses
    assert list(alone.questions.values()) == list(DEFAULT)
    with pytest.raises(SpecError, match="at least 1"):
        alone.commit("factor", 0.5)


def test_a_claim_of_ones_own_has_no_chinese_unless_it_is_given(no_processes, monkeypatch):
    monkeypatch.setattr("labkit.processes.fork_server.warm", lambda wait=False: None)
    own = Lesson(1, profile="tiny", claim="Mine.")
    assert "Mine." in str(own.question()) and labkit.group(1).claim_zh not in str(own.question())
    both = Lesson(1, profile="tiny", claim="<Mine>.", claim_zh="我的论断。").question()
    assert "我的论断。" in str(both) and "&lt;Mine&gt;.<br>我的论断。" in both.html


def test_texts_are_chosen_by_the_outcome():
    texts = {"more": "faster {times}", "less": "slower {percent}", "same": "equal"}
    sure = {"error": 0.001, "freedom": 9}
    assert str(tell(Measured((1.4, 1.5, 1.6), **sure), **texts)) == "faster 1.50 (1.40–1.60)"
    assert str(tell(Measured((0.5,) * 3, **sure), **texts)) == "slower 50 %"
    assert str(tell(Measured((1.01,) * 3, **sure), **texts)) == "equal"
    assert str(tell(Measured((1.5,) * 3, **sure), within=0.6, **texts)) == "equal"
    for untold, why in (
        (Measured((1.5,) * 3, error=0.5, freedom=2), "may be chance"),
        (Measured((1.5,) * 3, **sure, busy=True), "other programs used the cores"),
        (Measured((1.5,) * 2, **sure), "measured 2 times; 3 are needed"),
    ):
        assert "**Too noisy to tell** (噪声过大，无法判断)" in str(tell(untold, **texts)) and why in str(tell(untold, **texts))
    points = {"more": "by {points}", "less": "lower", "same": "within {chance}"}
    assert (
        str(tell(Difference(5.0, 2.0, 3), **points)) == "by +5.0" and str(tell(Difference(1.0, 2.0, 3), **points)) == "within 2.0"
    )
    assert "trained 1 times; 3 are needed" in str(tell(Difference(50.0, 2.0, 1), **points))
    assert str(say((Measured((2.0,) * 3, **sure).above(1), "more"), "else")) == "more"
    assert "Too noisy to tell" in str(say((Measured((2.0,) * 2, **sure).above(1), "more"), "else"))
    with pytest.raises(ValueError, match="not a condition"):
        say((Measured((2.0,) * 3, **sure), "more"), "else")
    assert str(say((False, "a"), (False, "b"), "c")) == "c"
    assert str(say((None, "a"), (True, "b"), "c")) == "b"
    assert "Not measured" in str(say((None, "a"), (False, "b"), "c")), "a missing row must not become a claim"
    assert "Not measured" in str(say((None, "a")))
    with pytest.raises(ValueError, match="no condition is true"):
        say((False, "a"))
    assert over(1.0, None) is None and over(None, 1.0) is None and over(3.0, 2.0) == 1.5


def test_diff_shows_the_real_files():
    shown = labkit.diff("single", "ddp")
    assert isinstance(shown, Html)
    lines = str(shown).splitlines()[1:]
    real = (labkit.rows.params.ROOT / "labkit/strategies/ddp.py").read_text().splitlines()
    assert [line[2:] for line in lines if line[0] in "+ "] == real
    assert "DistributedDataParallel" in shown.html
    with pytest.raises(SpecError, match="did you mean 'ddp'"):
        labkit.diff("single", "dpd")
    assert "white-space:pre;" in shown.html, "JupyterLab would break lines in the middle of a word"
    ring = labkit.code("strategy.ring_all_reduce")
    assert "def ring_all_reduce" in str(ring) and "white-space:pre;" in ring.html
    assert "labkit/strategy.py" in ring.html and "ring_all_reduce</span>" in ring.html, "in colours"
    for unknown in ("strategy.ring_all_reduces", "data.Draws.nothing", "no_module", "../labkit/rows/spec", "", "."):
        with pytest.raises(SpecError, match="nothing with this name"):
            labkit.code(unknown)


def test_shown_code_is_what_python_runs():
    """Every piece of code that a notebook shows, cut out of its file as Python's own inspect does it; decorators included."""
    asked = {"rows.spec.Spec", "runs.folders.claimed"}
    for path in (labkit.rows.params.ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            asked |= set(re.findall(r'lab\.code\("([^"]+)"', "".join(cell["source"])))
    assert len(asked) > 10
    for name in asked - set(STRATEGIES):
        parts = [*(["strategies"] if name.partition(".")[0] in STRATEGIES else []), *name.split(".")]
        found = labkit
        for depth, part in enumerate(parts, 1):
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(f"labkit.{'.'.join(parts[:depth])}")
            found = getattr(found, part)
        assert textwrap.dedent(inspect.getsource(found)).strip() in str(labkit.code(name)), name


def test_every_lazy_name_is_there():
    for name in labkit.__all__:
        first, again = getattr(labkit, name), getattr(labkit, name)
        assert first is again, f"{name} is hidden by a module once it has been imported"


def test_glossary_has_both_languages():
    grid = labkit.glossary()
    for line in grid.lines:
        assert any("\u4e00" <= letter <= "\u9fff" for letter in line["zh"]), line
    with pytest.raises(SpecError, match="all-reduce"):
        labkit.glossary("all-reduse")


def test_a_table_breaks_names_after_underscores_and_figures_never():
    page = Grid([{"a": "ddp_gloo_bs128x2", "n": 1234.5}], {"a": "peak memory (MB)", "n": "N"}).html()
    assert "ddp_<wbr>gloo_<wbr>bs128x2" in page
    assert 'white-space:nowrap">1,234<' in page and 'white-space:normal">peak memory (MB)<' in page


def test_a_table_escapes_what_it_shows():
    grid = Grid([{"a": "<b>", "n": 1234.5}], {"a": "A", "n": "N"})
    assert "&lt;b&gt;" in grid.html() and "1,234" in grid.html()


def test_rows_are_traced_with_what_is_asked_for_each(monkeypatch):
    monkeypatch.setattr("labkit.notebook.lesson.traces", lambda wanted, rounds, fresh: wanted)
    asked = {"as it is": GLOO, "silent": (GLOO, False), "wide": (GLOO, True, {"width": 16})}
    wanted = Lesson(1, profile="tiny", overrides={"epochs": 1}).traces(asked)
    assert [one["exchange"] for one in wanted.values()] == [True, False, True]
    assert [one["overrides"] for one in wanted.values()] == [{"epochs": 1}, {"epochs": 1}, {"epochs": 1, "width": 16}]
