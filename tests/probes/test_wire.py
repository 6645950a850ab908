"""The message probe: every way and size has a time, what was measured is kept, and a question it cannot answer is refused."""

from __future__ import annotations

import pytest

from labkit.plots.wire import wire_figure
from labkit.probes.wire import BEFORE, fit, latency, wire
from labkit.rows.fields import SpecError


@pytest.fixture(scope="module", autouse=True)
def runs_apart(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


def test_messages_cost_latency_and_bytes(monkeypatch):
    lines = wire(sizes=(2**10, 2**14, 2**20, 2**23), turns=3)
    assert [line["way"] for line in lines] == ["all_reduce", "ring", "copy"] * 4
    assert all(0 < line["min_s"] <= line["median_s"] <= line["max_s"] for line in lines)
    for way in ("all_reduce", "ring"):
        mine = [line for line in lines if line["way"] == way]
        assert mine[-1]["median_s"] > mine[0]["median_s"], "8 MiB take longer than 1 KiB"
    assert wire_figure(lines).axes
    monkeypatch.setattr("labkit.processes.launch.launch", lambda *_: pytest.fail("measured again"))
    assert wire(sizes=(2**10, 2**14, 2**20, 2**23), turns=3) == lines, "what was measured is kept"


def test_latency_and_bandwidth_are_read_off_at_the_ends():
    made_up = [{"bytes": n, "median_s": 1e-4 + n / 1e9, "min_s": 1e-4 + n / 1e9} for n in (10**3, 10**6, 10**7)]
    latency, bandwidth = fit(made_up)
    assert latency == pytest.approx(1e-4, rel=0.02) and bandwidth == pytest.approx(1e9)


def test_latency_is_the_least_time_and_bandwidth_the_slope_of_the_largest():
    """In any order; and small messages, which a protocol of their own carries, have another slope."""
    made_up = [(10**7, 0.020, 0.011), (10**3, 9e-4, 2e-4), (10**6, 0.011, 0.010), (10**4, 0.005, 1e-3)]
    latency, bandwidth = fit([{"bytes": n, "median_s": median, "min_s": least} for n, median, least in made_up])
    assert latency == 2e-4 and bandwidth == pytest.approx(9e6 / 0.009)


def test_latency_after_other_work(monkeypatch):
    lines = latency(turns=3)
    assert [line["before"] for line in lines] == list(BEFORE)
    for line in lines:
        assert 0 < line["min_s"] <= line["low_s"] <= line["median_s"] <= line["high_s"] <= line["max_s"] < 1
    monkeypatch.setattr("labkit.processes.launch.launch", lambda *_: pytest.fail("measured again"))
    assert latency(turns=3) == lines, "what was measured is kept"


def test_latency_counts_from_the_last_ranks_call(monkeypatch):
    """Rank 1 calls 5 s late, and goes on a second before rank 0."""
    stamps = [[(10.0, 17.0), (30.0, 32.5)], [(15.0, 16.0), (30.5, 31.5)]]
    monkeypatch.setattr("labkit.processes.launch.launch", lambda *_: [dict.fromkeys(BEFORE, rank) for rank in stamps])
    assert [line["median_s"] for line in latency(turns=2, fresh=True)] == [2.0] * len(BEFORE)


def test_bad_questions_are_refused(monkeypatch):
    monkeypatch.setattr("labkit.processes.fork_server.warm", lambda *_: pytest.fail("a process was started"))
    with pytest.raises(SpecError, match="ranks=1"):
        wire(ranks=1)
    with pytest.raises(SpecError, match="ranks=1, turns=15"):
        latency(ranks=1)
    with pytest.raises(SpecError, match="turns=0"):
        latency(turns=0)
    with pytest.raises(SpecError, match="must be gloo or nccl"):
        wire(backend="mpi")
    with pytest.raises(SpecError, match="needs 64 CUDA devices"):
        wire(ranks=64, backend="nccl")
