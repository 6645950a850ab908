"""The probes tell what really happened: parts add up, shards are halves, pipelines overlap, silence changes the outcome."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from labkit.plots.traces import holds_figure, split_figure, timeline_figure
from labkit.probes.parts import EXCHANGE, identity
from labkit.probes.recorder import SavedBytes
from labkit.probes.trace import longer, split_of, trace, union
from labkit.processes.diagnose import RunFailed
from labkit.rows.fields import SpecError

SINGLE = "single_gpu_resnet18_bs256_cacheTrue_ampFalse"
DDP = "ddp_gloo_resnet18_bs128x2_cacheTrue_ampFalse"
PIPE = "model_parallel_resnet18_bs256_cacheFalse+micro_batches=4"


@pytest.fixture(scope="module", autouse=True)
def runs_apart(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.fixture(scope="module")
def traces(runs_apart):
    names = [SINGLE, DDP, "dp_resnet18_bs256_ngpu2_cacheTrue_ampFalse", "fsdp_full_resnet18_bs128x2_ampFalse"]
    names += ["fsdp_grad_resnet18_bs128x2_ampFalse", "collective_gloo_resnet18_bs128x2+form=buckets"]
    names += ["ps_mode_resnet18_bs128_workers2", "model_parallel_resnet18_bs256_cacheFalse", PIPE, PIPE + "+schedule=1f1b"]
    return {name: trace(name, "tiny", steps=2) for name in names}


def test_every_strategy_computes_and_its_parts_add_up(traces):
    for name, one in traces.items():
        assert len(one.ranks) == one.spec.processes
        for line in one.split():
            parts = {key: value for key, value in line.items() if key not in ("rank", "step_s")}
            of_exchange = [parts.pop(f"{part}_s") for part in EXCHANGE]
            assert line["step_s"] == pytest.approx(sum(parts.values()))
            assert parts["exchange_s"] == pytest.approx(sum(of_exchange)) and min(of_exchange) >= 0
            if one.spec.strategy == "parameter_server":
                server = line["rank"] == one.spec.world_size
                assert (line["update_s"] > 0) == server and (line["forward_s"] > 0) != server, name
            else:
                assert min(line["forward_s"], line["backward_s"], line["update_s"]) > 0, name
        for rank in one.ranks:
            for start, end in rank["steps"]:
                parts = split_of(rank["events"], start, end)
                assert parts["exchange_s"] == parts["other_s"], "without the stamps of messages, all of it is the rest"
                assert parts.pop("step_s") == pytest.approx(sum(parts.values()) - parts["other_s"])
                assert min(parts.values()) > -1e-9, name


def test_every_layer_goes_forward_and_backward_in_every_step(traces):
    for name, one in traces.items():
        seen: dict[tuple, list] = {}
        for k in range(2):
            for rank, events in one.step(k).items():
                for kind, lane, layer, micro, start, end in events:
                    assert end > start
                    if kind in ("forward", "backward"):
                        seen.setdefault((k, rank, lane, micro), []).append((kind, layer))
        for did in seen.values():
            layers = [layer for kind, layer in did if kind == "forward"]
            assert layers == sorted(set(layers)), name
            assert [layer for kind, layer in did if kind == "backward"] == layers[::-1], f"{name}: backward goes the other way"
        lanes = {key[1:3] for key in seen}
        expected = {"single": 1, "ps": 2}.get(name.split("_")[0], 2)
        assert len(lanes) == expected, name
        assert {key[3] for key in seen} == set(range(4 if "micro_batches" in name else 1)), name


MESSAGES = {  # of one step, on rank 0
    SINGLE: [],
    DDP: ["all_reduce"],
    "fsdp_grad_resnet18_bs128x2_ampFalse": ["all_gather"] * 10 + ["reduce_scatter"] * 10,
    "fsdp_full_resnet18_bs128x2_ampFalse": ["all_gather"] * 20 + ["reduce_scatter"] * 10,
    "ps_mode_resnet18_bs128_workers2": ["send", "recv"],
    "model_parallel_resnet18_bs256_cacheFalse": ["send", "recv"],
    PIPE: ["send"] * 4 + ["recv"] * 4,
}


def test_every_message_of_a_step_is_stamped_on_all_its_ranks(traces):
    for name, verbs in MESSAGES.items():
        one = traces[name]
        if name == DDP:  # its first steps also agree on the buckets
            assert one.messages(1)[0][-1]["verb"] == "all_reduce"
        else:
            sent = [message["verb"] for message in one.messages(1)[0] if message["called"] >= one.ranks[0]["steps"][1][0]]
            assert sorted(sent) == sorted(verbs), name
        for rank in one.ranks:
            assert all(message["called"] <= message["ended"] for message in rank["messages"]), name
        seen = [[identity(message) for message in rank["messages"] if message["verb"] != "recv"] for rank in one.ranks[:2]]
        if "model_parallel" not in name and "ps_mode" not in name:
            assert len(set(seen[0])) == len(seen[0]) and seen[0] == (seen[1] if len(seen) > 1 else []), name
    assert traces[DDP].link.keys() == {"group", "pair"} and all(
        latency > 0 < speed for latency, speed in traces[DDP].link.values()
    )
    assert traces[SINGLE].waited() is None and traces[SINGLE].link == {}
    assert sum(traces[DDP].waited().seconds["moving"]) > 0


def test_who_holds_what(traces):
    whole = traces[SINGLE].ranks[0]["holds"]
    for what in ("parameters", "gradients", "optimizer"):
        assert whole[what] == whole["parameters"]
        for sharding in ("full", "grad"):
            shards = [rank["holds"][what] for rank in traces[f"fsdp_{sharding}_resnet18_bs128x2_ampFalse"].ranks]
            assert sum(shards) == pytest.approx(whole[what], rel=0.02) and max(shards) < 0.6 * whole[what]
        stages = [rank["holds"][what] for rank in traces[PIPE].ranks]
        assert sum(stages) == whole[what], "the stages are cut out of one model, and nothing is held twice"
        assert [rank["holds"][what] for rank in traces[DDP].ranks] == [whole[what]] * 2
    *workers, server = [rank["holds"] for rank in traces["ps_mode_resnet18_bs128_workers2"].ranks]
    assert [worker["optimizer"] for worker in workers] == [0, 0] and server["optimizer"] == whole["optimizer"]
    assert server["activations"] == 0
    half = traces[DDP].ranks[0]["holds"]["activations"]
    assert 0.45 < half / whole["activations"] < 0.55, "half of the images, half of the activations"
    gpipe, alternating = (traces[name].ranks[0]["holds"]["activations"] for name in (PIPE, PIPE + "+schedule=1f1b"))
    assert alternating < 0.7 * gpipe, "1F1B holds at most as many micro-batches as there are stages"


def test_gpipe_does_all_forwards_first_and_1f1b_does_not(traces):
    def order(name):
        events = [e for e in traces[name].step(0)[1] if e[0] in ("forward", "backward") and e[2] == 0]
        return "".join("F" if e[0] == "forward" else "B" for e in sorted(events, key=lambda e: e[4]))

    assert order(PIPE) == "FFFFBBBB"
    assert order(PIPE + "+schedule=1f1b") == "FBFBFBFB"
    one = traces["model_parallel_resnet18_bs256_cacheFalse"]
    assert one.bubble() > 0.4, "with one micro-batch one of two stages always waits"
    assert 0 <= traces[PIPE].bubble() < 1


def test_stages_hand_on_each_micro_batch(traces):
    """Across processes: nothing begins before what it needs was computed by the other stage."""
    for name in ("model_parallel_resnet18_bs256_cacheFalse", PIPE, PIPE + "+schedule=1f1b"):
        for k in range(2):
            times = {}
            for rank, events in traces[name].step(k).items():
                for kind, _, _, micro, start, end in events:
                    a, b = times.get((kind, rank, micro), (start, end))
                    times[kind, rank, micro] = min(a, start), max(b, end)
            for micro in range(traces[name].spec.micro_batches):
                assert times["forward", 0, micro][1] < times["forward", 1, micro][0], name
                assert times["forward", 1, micro][1] < times["backward", 1, micro][0], name
                assert times["backward", 1, micro][1] < times["backward", 0, micro][0], name


def test_activations_are_weighed_once_and_let_go():
    """Two layers on 3 images of 4 numbers: the images and 8 outputs each are kept; weights, their views, and buffers are not."""
    model, saved = (
        nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True)), nn.Linear(8, 2)),
        SavedBytes(),
    )
    x, y = torch.randn(3, 4), []
    for layer in model:
        saved.start(layer)
        x = layer(x)
        y.append(x)
        saved.stop()
    images, out, statistics = 3 * 4 * 4, 3 * 8 * 4, 2 * 8 * 4
    assert saved.now == saved.peak == images + out + out + statistics, "images; into and out of BatchNorm; its mean and deviation"
    y[-1].sum().backward()
    del x, y
    assert saved.now == 0 and saved.peak > 0


def test_silence_only_where_it_can(traces):
    silent = trace(DDP, "tiny", steps=2, exchange=False)
    assert not silent.exchange and len(silent.ranks) == 2
    assert longer(traces[DDP], silent) > 0 and longer(None, silent) is None
    assert len(trace("ps_mode_resnet18_bs128_workers2", "tiny", steps=2, exchange=False).ranks) == 2, "no server is needed"
    with pytest.raises(SpecError, match="model_parallel cannot compute without its exchange"):
        trace(PIPE, "tiny", exchange=False)


def test_it_is_kept_and_recorded_again_when_asked(monkeypatch, traces):
    monkeypatch.setattr("labkit.processes.launch.launch", lambda *_: pytest.fail("recorded again"))
    assert trace(DDP, "tiny", steps=2).ranks == traces[DDP].ranks
    with pytest.raises(pytest.fail.Exception):
        trace(DDP, "tiny", steps=2, fresh=True)


def test_bad_questions_are_refused(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("labkit.processes.fork_server.warm", lambda *_: pytest.fail("a process was started"))
        with pytest.raises(SpecError, match="steps=0"):
            trace(DDP, "tiny", steps=0)
        with pytest.raises(SpecError, match="exchange=False: single"):
            trace(SINGLE, "tiny", exchange=False)
    with pytest.raises(RunFailed, match=r"0\.001|deadline|longer"):
        trace(SINGLE, "tiny", {"lr": 1000.0, "device": "cpu", "deadline_s": 0.001}, steps=2)


def test_union_and_split():
    assert union([(3, 4), (0, 2), (1, 2.5)]) == [(0, 2.5), (3, 4)]
    events = [["forward", 0, 0, 0, 0.0, 2.0], ["backward", 1, 0, 0, 1.0, 3.0], ["data", 0, 0, 0, 5.0, 6.0]]
    assert split_of(events, 0.0, 10.0) == {
        "step_s": 10.0,
        "data_s": 1.0,
        "forward_s": 1.0,
        "backward_s": 2.0,
        "update_s": 0.0,
        "exchange_s": 6.0,
        **dict.fromkeys(("moving_s", "latency_s", "delayed_s", "peer_s", "waking_s"), 0.0),
        "other_s": 6.0,
    }


def test_figures_can_be_drawn(traces):
    for one in traces.values():
        assert timeline_figure(one).axes and timeline_figure(one, 1).axes
    assert split_figure(traces).axes and holds_figure(traces).axes
