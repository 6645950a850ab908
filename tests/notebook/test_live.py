"""The live view: follows the ranks, ends as one picture, and says what was kept, what failed and what was interrupted."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest

from labkit.notebook.live import Live, final_view
from labkit.runs.plan import plan
from labkit.runs.rounds import Rounds
from labkit.system.machine import Taken
from tests.helpers.made_up import CPU, put, results_now, use

ONE = "single_gpu_resnet18_bs256_cacheFalse_ampFalse"
TWO = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"


@pytest.fixture(autouse=True)
def runs_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))


def events(ranks: int, epoch: int, step: int, t: float, loss: float | None = 2.0, phase: str = "step"):
    return [{"rank": r, "phase": phase, "epoch": epoch, "step": step, "loss": loss, "t": t} for r in range(ranks)]


def test_it_tells_phase_step_speed_loss_and_time_to_go():
    shown = []
    planned = plan([ONE, TWO], "tiny")
    live = Live("a title", planned, expected_s={TWO: 10.0}, show=shown.append)
    now = time.time()
    live(planned.rows[0], 1, events(1, 0, 1, now))
    live.shown_at = 0
    live(planned.rows[0], 1, events(1, 1, 1, now + 2.0, 1.5))
    text = str(shown[-1])
    assert "run 1 of 2" in text and ONE in text
    assert "rank 0: training, epoch 2 of 2, step 2 of 4" in text
    assert "512 images/s" in text, "4 steps of 256 images in 2 seconds"
    assert "loss 1.500" in text and "to go" in text
    live.shown_at = 0
    live(planned.rows[1], 1, events(2, 0, 0, now + 3))
    text = str(shown[-1])
    assert "run 2 of 2" in text and "rank 1" in text
    assert "about 10 s to go" in text
    assert shown[-1].html.count("border-radius") >= 4 and "<script" not in shown[-1].html


def test_no_more_than_four_updates_a_second():
    shown = []
    planned = plan([ONE], "tiny")
    live = Live("t", planned, show=shown.append)
    for step in range(100):
        live(planned.rows[0], 1, events(1, 0, step % 4, time.time()))
    assert len(shown) <= 2


def test_what_others_take_is_told_in_yellow_while_it_runs_and_at_its_end(monkeypatch, tmp_path):
    use(monkeypatch, CPU)
    monkeypatch.setattr("labkit.notebook.live.this_machine", lambda: CPU)
    monkeypatch.setattr("labkit.notebook.live.Watch.taken", lambda _: Taken(1.3, 0.0))
    shown = []
    planned = plan([ONE, TWO], "tiny")
    live = Live("t", planned, show=shown.append)
    live.watch.began -= 5
    live(planned.rows[0], 1, events(1, 0, 1, time.time()))
    assert "Other programs take up to 1.3 cores" in str(shown[-1]) and "background:#fff3b0" in shown[-1].html
    live.turn(TWO, 2)
    assert f"measuring speeds in turn, round 2, {TWO}" in str(shown[-1])
    put(ONE, others_cores=1.7)
    live.end([{"name": ONE, "status": "ok", "reason": ""}], results_now())
    assert (
        "up to 1.7 cores" in str(shown[-1]) and "background:#fff3b0" in shown[-1].html and "噪声过大，无法判断" in str(shown[-1])
    )
    quiet = Rounds((ONE, TWO), [], [], {}, False, 0.0)
    live.end([], {}, rounds=quiet)
    assert "Other programs" not in str(shown[-1])
    live.end([], {}, rounds=replace(quiet, busy=True, others_cores=[{ONE: 0.1, TWO: 0.9}]))
    assert "up to 0.9 cores" in str(shown[-1])


def test_a_server_is_named_and_has_no_images():
    shown = []
    planned = plan(["ps_mode_resnet18_bs128_workers2"], "tiny")
    live = Live("t", planned, show=shown.append)
    live(planned.rows[0], 1, events(3, 0, 0, time.time(), None))
    assert "server:" in str(shown[-1]) and "rank 1" in str(shown[-1])


def test_the_end_tells_every_outcome(tmp_path, monkeypatch):
    lines = [{"name": ONE, "status": "ok", "reason": ""}, {"name": TWO, "status": "failed", "reason": "rank 1 <was> killed"}]
    times = {"started_at": 5.0, "total_time_s": 3.0, "startup_s": 0.2, "train_s": 2.2, "eval_s": 0.9, "data_wait_s": 0.1}
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    put(ONE)
    [[good]] = results_now().values()
    # One rank trained longest, another evaluated longest (it waited there): together they took longer than the run.
    trained = ((2.2, 0.4), (1.7, 0.9))
    ranks = [replace(good.ranks[0], train_s=a, eval_s=b, first_step_at=5.2) for a, b in trained]
    good = replace(good, **times, ranks=ranks)
    last = final_view("t", lines, {ONE: [good]}, called_at=10.0, seconds=1.0, word="interrupted")
    assert "kept" in str(last) and "interrupted" in str(last) and "rank 1 <was> killed" in str(last)
    assert "&lt;was&gt;" in last.html and "<was>" not in last.html
    bar_ends = max(float(x) + float(width) for x, width in re.findall(r'<rect x="([\d.]+)" y="8" width="([\d.]+)"', last.html))
    figures_at = float(re.search(r'<text x="([\d.]+)" y="20">1,000 images', last.html)[1])
    assert bar_ends < figures_at, "the figures stand beside the bar, not on it"
