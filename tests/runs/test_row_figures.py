"""The figures of a row from those of its ranks, which are written out here: every figure is worked out by hand."""

from dataclasses import replace

import pytest

from labkit.processes import fork_server
from labkit.results.table import time_parts
from labkit.runs import folders
from labkit.runs import train as runs
from labkit.runs.plan import plan
from labkit.runs.result import RankFigures
from labkit.runs.train import run_once
from labkit.system.files import read_json, write_json
from tests.engine.test_measuring import BEGAN, FalseTime
from tests.helpers.made_up import put, results_now


def rank(number, shard, rate, **more):
    """A rank's measurements of our choice; those of `more` differ."""
    epochs = [
        {"epoch": n, "train_loss": 2.0, "test_acc_pct": accuracy, "ended_at": 1010.0 * n}
        for n, accuracy in ((1, 60.0), (2, 50.0))
    ]
    told = {"rank": number, "shard": shard, "images_per_s": rate, "max_mem_mib": 10.0, "first_step_at": 1004.0}
    told |= {"images_timed": 700, "timed_s": 700 / rate if rate else 0.0}
    return told | {"train_s": 5.0, "eval_s": 2.0, "data_wait_s": 1.0, "steps": 7, "epochs": epochs, "strategy": {}} | more


def test_ranks_with_shards_of_their_own_add_up():
    ranks = [
        rank(0, [0, 2], 100.0, max_mem_mib=30.0, first_step_at=1003.0, train_s=9.0, data_wait_s=0.5),
        rank(1, [1, 2], 40.0, max_mem_mib=20.0, first_step_at=1006.0, eval_s=3.0, data_wait_s=4.0),
    ]
    row = runs.figures(ranks, 1000.0)
    assert row["images_per_s"] == 140.0 and row["max_mem_mib"] == 30.0
    assert row["startup_s"] == 6.0, "from the call to the first step of the rank that began last"
    assert (row["train_s"], row["eval_s"], row["data_wait_s"], row["steps"]) == (9.0, 3.0, 4.0, 7)
    assert row["status"] == "ok" and row["best_acc_pct"] == 60.0, "the best epoch, not the last"
    assert [(epoch["epoch"], epoch["after_s"]) for epoch in row["epochs"]] == [(1, 10.0), (2, 1020.0)]
    assert all("ended_at" not in epoch and epoch["train_loss"] == 2.0 for epoch in row["epochs"])
    assert [told["rank"] for told in row["ranks"]] == [0, 1] and all("epochs" not in told for told in row["ranks"])
    assert [told["images_per_s"] for told in row["ranks"]] == [100.0, 40.0] and row["strategy"] == {}


def test_ranks_that_share_a_shard_count_once():
    """Three stages of a pipeline train the same images; beside them a shard of two ranks, and one of one."""
    stages = [rank(0, [0, 1], 90.0), rank(1, [0, 1], 100.0), rank(2, [0, 1], 110.0)]
    assert runs.figures(stages, 1000.0)["images_per_s"] == 100.0
    mixed = [rank(0, [0, 2], 90.0), rank(1, [0, 2], 110.0), rank(2, [1, 2], 50.0)]
    assert runs.figures(mixed, 1000.0)["images_per_s"] == 150.0


def test_a_server_has_memory_and_no_images():
    """It makes its steps at other times than its workers, and its own clock says nothing of the training."""
    idle = {"images_per_s": 0.0, "first_step_at": 1050.0, "train_s": 70.0, "eval_s": 60.0, "data_wait_s": 50.0, "steps": 40}
    counted = {"pushed": 14, "applied": 14, "staleness": {"0": 14}}
    server = rank(2, None, **{"rate": 0.0} | idle | {"max_mem_mib": 77.0, "strategy": counted})
    row = runs.figures([rank(0, [0, 2], 100.0), rank(1, [1, 2], 40.0), server], 1000.0)
    assert row["images_per_s"] == 140.0 and row["max_mem_mib"] == 77.0 and row["startup_s"] == 4.0
    assert (row["train_s"], row["eval_s"], row["data_wait_s"], row["steps"]) == (5.0, 2.0, 1.0, 7)
    assert row["strategy"] == counted and len(row["ranks"]) == 3


@pytest.mark.parametrize("status", ["ok", "failed"])
def test_the_whole_time_is_from_the_call_to_the_end(tmp_path, monkeypatch, status):
    """A result is kept as such, and nothing is left of the attempt; a failure is told beside the last result, which stays."""
    clock = FalseTime()
    clock.now = 25.0
    monkeypatch.setattr(folders, "time", clock)
    write_json(tmp_path / "attempt.json", {"status": "running"})
    write_json(tmp_path / "result.json", {"status": "ok", "of": "before"})
    folders.keep(tmp_path, {"status": status, "started_at": BEGAN + 4.0, "train_s": 3.0}, began=clock.monotonic() - 21.0)
    result, attempt = (read_json(tmp_path / name) for name in ("result.json", "attempt.json"))
    told = {"status": status, "started_at": BEGAN + 4.0, "train_s": 3.0, "total_time_s": 21.0}
    assert (result, attempt) == ((told, None) if status == "ok" else ({"status": "ok", "of": "before"}, told))


def test_a_row_begins_when_all_is_ready_and_ends_when_it_is_kept(tmp_path, monkeypatch):
    """The fork server takes 50 s to import torch, once in a session, which no row must pay for; then training takes 7 s."""
    clock, called_at = FalseTime(), []

    def wait(seconds):
        clock.now += seconds

    def train(spec, folder, data_folder, at, on_progress):
        called_at.append(at)
        wait(7.0)
        return runs.figures([rank(0, [0, 1], 100.0)], at)

    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    monkeypatch.setattr(folders, "time", clock)
    monkeypatch.setattr(runs, "time", clock)
    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(fork_server, "warm", lambda *_, **__: wait(50.0))
    outcome = run_once(plan("single_gpu_resnet18_bs128_cacheTrue_ampFalse", "tiny").rows[0].spec, "tiny")
    assert (outcome.started_at, outcome.total_time_s) == (BEGAN + 150.0, 7.0) and called_at == [150.0]


def test_parts_of_the_whole_time_are_the_slowest_ranks(tmp_path, monkeypatch):
    """A server's times are no part of it; waiting for images is a part of training, and the rest is what is left."""
    ranks = [
        rank(0, [0, 2], 100.0, first_step_at=1003.0, train_s=5.0, eval_s=2.5),
        rank(1, [1, 2], 100.0, first_step_at=1004.0, train_s=6.0, eval_s=1.5),
        rank(2, None, 0.0, first_step_at=1050.0, train_s=70.0, eval_s=60.0),
    ]
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    put("single_gpu_resnet18_bs128_cacheTrue_ampFalse")
    [[any_result]] = results_now().values()
    figures = [RankFigures(**{key: value for key, value in one.items() if key != "epochs"}) for one in ranks]
    result = replace(any_result, ranks=figures, started_at=1000.0, total_time_s=14.0, data_wait_s=0.5)
    parts = {"startup_s": 4.0, "train_s": 6.0, "data_wait_s": 0.5, "eval_s": 1.5, "rest_s": 2.5, "total_time_s": 14.0}
    assert time_parts(result) == parts
