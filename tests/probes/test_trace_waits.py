"""What a trace calls computation is computation: planted waits, late ranks and silence show up where they belong."""

from __future__ import annotations

import hashlib
import time
from unittest.mock import patch

import pytest
import torch.distributed as dist
from torch.distributed.pipelining import schedules

from labkit.data.datasets import prepare
from labkit.probes.parts import link_of
from labkit.probes.trace import Trace, split_of
from labkit.rows.spec import Spec
from labkit.runs.plan import plan
from tests.helpers.workers import in_workers

DDP = "ddp_gloo_resnet18_bs128x2_cacheTrue_ampFalse"
PIPE = "model_parallel_resnet18_bs256_cacheFalse+micro_batches=4"


# -- inside the workers ---------------------------------------------------------------------------------------------

MESSAGES = [(dist, name) for name in ("all_reduce", "send", "recv", "all_gather_single", "reduce_scatter_single")]
MESSAGES.append((schedules, "_wait_batch_p2p"))


def with_slow_messages(*, rank, progress, **arguments):
    """A trace in which every message of torch takes 10 ms longer, and when each was on its way."""
    from labkit.probes import trace

    spans = []

    def slow(real):
        def message(*these, **those):
            began = time.monotonic()
            time.sleep(0.01)
            try:
                return real(*these, **those)
            finally:
                spans.append([began, time.monotonic()])

        return message

    for module, name in MESSAGES:
        patch.object(module, name, slow(getattr(module, name))).start()
    return trace.trace_rank(rank=rank, progress=progress, **arguments) | {"messages": spans}


def with_a_late_rank(*, rank, progress, **arguments):
    """A trace in which rank 1 dawdles before backward."""
    from labkit.probes import trace
    from labkit.strategy import Precision

    backward = Precision.backward
    dawdle = 0.3 * (rank == 1)
    patch.object(Precision, "backward", lambda self, loss: (time.sleep(dawdle), backward(self, loss))).start()
    return trace.trace_rank(rank=rank, progress=progress, **arguments)


def with_weights(*, rank, progress, **arguments):
    """A trace, and a digest of the parameters that the rank ended with."""
    from labkit.probes import recorder, trace

    holds = recorder.holds

    def digest(strategy):
        weights = [p.detach().contiguous().numpy().tobytes() for p in strategy.model.parameters()]
        return holds(strategy) | {"weights": hashlib.sha256(b"".join(weights)).hexdigest()}

    patch.object(recorder, "holds", digest).start()
    return trace.trace_rank(rank=rank, progress=progress, **arguments)


def traced(function, name, folder, steps=2, exchange=True):
    """The ranks of a trace that another worker function makes of a row."""
    spec: Spec = next(row.spec for row in plan([name], "tiny") if row.spec)
    arguments = {"spec": spec.to_dict(), "data_folder": str(prepare(spec.dataset)), "steps": steps, "exchange": exchange}
    return in_workers(function, 2, folder, "tests.probes.test_trace_waits", **arguments)


# -- the tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "fsdp_full_resnet18_bs128x2_ampFalse",
        "fsdp_grad_resnet18_bs128x2_ampFalse",
        "collective_gloo_resnet18_bs128x2",
        "model_parallel_resnet18_bs256_cacheFalse",
        PIPE,
        PIPE + "+schedule=1f1b",
    ],
)
def test_messages_are_not_taken_for_computation(name, tmp_path):
    for rank in traced("with_slow_messages", name, tmp_path):
        begin, end = rank["steps"][0][0], rank["steps"][-1][1]
        messages = [(a, b) for a, b in rank["messages"] if begin < a and b < end]
        assert len(messages) >= 4, "no message was slowed"
        inside = [event[:4] for event in rank["events"] for a, b in messages if event[4] < b and a < event[5]]
        assert not inside, f"rank {rank['rank']}: messages inside {inside}"
        for step in rank["steps"]:
            slow = sum(b - a for a, b in messages if step[0] < a and b < step[1])
            assert split_of(rank["events"], *step)["exchange_s"] > 0.99 * slow


def test_waiting_for_a_late_rank_is_not_taken_for_backward(tmp_path):
    """DDP waits at the end of backward. (In one of three steps at least: a busy machine may hold rank 0 up, too.)"""
    punctual, late = traced("with_a_late_rank", DDP, tmp_path, steps=3)
    waited = []
    for step, others in zip(punctual["steps"], late["steps"], strict=True):
        done = max(e[5] for e in punctual["events"] if e[0] == "backward" and step[0] <= e[4] < step[1])
        update = min(e[4] for e in punctual["events"] if e[0] == "update" and step[0] <= e[4] < step[1])
        came = min(e[4] for e in late["events"] if e[0] == "backward" and others[0] <= e[4] < others[1])
        assert update > came, "rank 0 updated before rank 1 had any gradient"
        waited.append(done < came)
    assert any(waited), "rank 0's backward seems to last until rank 1 comes: its waiting was taken for computation"


def test_waiting_for_a_late_rank_is_told_as_such(tmp_path):
    """Rank 1 comes 0.3 s late to backward: rank 0 waits for a slower rank, and neither the bytes nor the latency take that time."""
    ranks = traced("with_a_late_rank", DDP, tmp_path, steps=3)
    punctual, late = Trace(Spec(), True, ranks, link_of(ranks)).split()
    assert punctual["peer_s"] > 0.2 > 10 * punctual["moving_s"]
    assert late["peer_s"] < 0.1


def test_silence_sends_nothing(tmp_path):
    ends = {on: {rank["holds"]["weights"] for rank in traced("with_weights", DDP, tmp_path, exchange=on)} for on in (True, False)}
    assert len(ends[True]) == 1 and len(ends[False]) == 2, "with an exchange ranks stay equal, without one they drift apart"
