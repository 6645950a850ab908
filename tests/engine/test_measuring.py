"""Times, images per second and memory of one rank, on a clock that the test moves: every figure is worked out by hand."""

import statistics
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import nn

from labkit import strategy
from labkit.data.datasets import prepare
from labkit.engine import loop, measure, worker
from labkit.engine.measure import MIB, Memory
from labkit.probes import wire
from labkit.rows.spec import Spec
from tests.engine.test_evaluation import Silent
from tests.helpers.workers import CPU, in_workers

BEGAN = 1_700_000_000.0


class FalseTime:
    """In the place of the module `time`: it stands still until a test moves it. All its clocks go alike."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now

    monotonic = perf_counter

    def time(self):
        return BEGAN + self.now


# -- one rank's clock -----------------------------------------------------------------------------------------------

STEP_S = (1.0, 2.0, 4.0, 8.0, 16.0, 1.5, 2.5, 4.5, 8.5, 16.5)  # two epochs of five steps
WAIT_S = (0.5, 0.25, 0.5, 0.75, 0.5, 0.5, 0.5, 2.0, 0.5, 0.5)
DEVICE_S, EVAL_S, IMAGES = 0.125, 32.0, 16  # what the device still has to do when it is waited for


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare("digits", tmp_path_factory.mktemp("data"))


@pytest.fixture
def timed(data, monkeypatch):
    """What one rank's training reports if everything takes as long as above; building the model takes a quarter of an hour."""

    def train(warmup_steps):
        clock, steps, waits = FalseTime(), iter(STEP_S), iter(WAIT_S)
        build = loop.build

        peak = SimpleNamespace(bytes=500 * MIB)

        def slow(*arguments):
            clock.now += 900.0
            peak.bytes += 30 * MIB
            trainer, images, place, skeleton = build(*arguments)
            step, batches = trainer.step, images.train_batches

            def slow_step(x, y):
                clock.now += next(steps)
                peak.bytes += MIB
                return step(x, y)

            def slow_batches(*which):
                for batch in batches(*which):
                    clock.now += next(waits)
                    yield batch

            trainer.step, images.train_batches = slow_step, slow_batches
            return trainer, images, place, skeleton

        def slow_evaluation(*_):
            clock.now += EVAL_S
            peak.bytes += 0.5 * MIB
            return 50.0

        monkeypatch.setattr(measure, "peak_resident_bytes", lambda: peak.bytes)
        monkeypatch.setattr(loop, "build", slow)
        monkeypatch.setattr(loop, "build_model", lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
        for module in (loop, measure):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(measure, "synchronise", lambda _device: setattr(clock, "now", clock.now + DEVICE_S))
        monkeypatch.setattr(loop.Evaluation, "accuracy_pct", slow_evaluation)
        scale = {"dataset": "digits", "image_size": 8, "train_samples": 5 * IMAGES, "epochs": 2, "cache": "true"}
        return loop.train(Spec(**scale, batch_per_rank=IMAGES, warmup_steps=warmup_steps), 0, CPU, data, Silent())

    return train


@pytest.mark.parametrize(
    ("warmup_steps", "left_out"),
    [(0, 0), (1, 1), (2, 2), (5, 5), (100, 5)],  # a short run leaves out half of its steps at most
)
def test_throughput_is_of_the_steps_after_the_warm_up(timed, warmup_steps, left_out):
    """Their images, by their time: with the waits for images, with the device's rest at an epoch's end, without evaluation."""
    told = timed(warmup_steps)
    epochs = 2 if left_out < 5 else 1
    timed_s = sum(STEP_S[left_out:]) + sum(WAIT_S[left_out:]) + epochs * DEVICE_S
    assert told["images_timed"] == (10 - left_out) * IMAGES and told["timed_s"] == timed_s
    assert told["images_per_s"] == pytest.approx((10 - left_out) * IMAGES / timed_s)


def test_times_of_training_evaluation_and_waiting(timed):
    """Each is of all steps, the warm-up's too; the device is waited for once at the end of the warm-up, and once an epoch."""
    told = timed(2)
    assert told["train_s"] == sum(STEP_S) + sum(WAIT_S) + 3 * DEVICE_S
    assert told["eval_s"] == 2 * EVAL_S and told["data_wait_s"] == sum(WAIT_S) and told["steps"] == 10
    assert told["first_step_at"] == 1000.0, "when the first epoch began"
    assert told["max_mem_mib"] == 30 + 10 + 0.5, "of the model and the steps; and of evaluation, but for the last epoch's"
    first = 1000.0 + sum(STEP_S[:5]) + sum(WAIT_S[:5]) + 2 * DEVICE_S + EVAL_S
    ended = [epoch["ended_at"] for epoch in told["epochs"]]
    assert ended == [first, first + sum(STEP_S[5:]) + sum(WAIT_S[5:]) + DEVICE_S + EVAL_S], "after its evaluation"


# -- memory ---------------------------------------------------------------------------------------------------------


def test_memory_of_a_cpu_rank_is_the_growth_of_its_peak(monkeypatch):
    peak = SimpleNamespace(bytes=500 * MIB)
    monkeypatch.setattr(measure, "peak_resident_bytes", lambda: peak.bytes)
    memory = Memory(CPU)
    assert memory.peak_mib() == 0.0
    peak.bytes = 512 * MIB
    memory.forget_evaluation()
    assert memory.peak_mib() == 12.0 and MIB == 1024 * 1024


def test_memory_of_a_cuda_rank_is_the_allocators_peak_without_evaluation(monkeypatch):
    """Set back before training and after each evaluation; over epochs the most counts."""
    peak = SimpleNamespace(bytes=900 * MIB, of=[])
    device = torch.device("cuda", 1)

    def most(of):
        peak.of.append(of)
        return peak.bytes

    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", most)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda of: peak.__dict__.update(bytes=0, of=[*peak.of, of]))
    memory, told = Memory(device), []
    for training, evaluation in ((40, 90), (60, 70), (50, 95)):
        peak.bytes = max(peak.bytes, training * MIB)
        told.append(memory.peak_mib())
        peak.bytes = max(peak.bytes, evaluation * MIB)
        memory.forget_evaluation()
    assert told == [40.0, 60.0, 60.0] and set(peak.of) == {device}


@pytest.mark.parametrize(("system", "in_bytes"), [("linux", 3 * 1024), ("darwin", 3)])
def test_linux_tells_the_peak_in_kib_and_macos_in_bytes(monkeypatch, system, in_bytes):
    monkeypatch.setattr(measure, "sys", SimpleNamespace(platform=system))
    monkeypatch.setattr(measure.resource, "getrusage", lambda _who: SimpleNamespace(ru_maxrss=3))
    assert measure.peak_resident_bytes() == in_bytes


# -- messages -------------------------------------------------------------------------------------------------------

TURN_S = {0: (900.0, 1.0, 5.0, 3.0, 1.0, 1.0), 1: (800.0, 2.0, 1.0, 9.0, 4.0, 0.5)}  # by rank; the first is to warm up
LONGEST_S = (2.0, 5.0, 9.0, 4.0, 1.0)


def slow_messages(*, rank, progress, **arguments):
    """wire's own loop, in which each all-reduce and each ring takes as long as above."""
    clock, all_reduce = FalseTime(), dist.all_reduce
    turns = {"all_reduce": 0, "ring": 0}

    def turn(way):
        clock.now += TURN_S[rank][turns[way] % 6]
        turns[way] += 1

    def slow_all_reduce(tensor, *more, **how):
        if tensor.dtype == torch.float32:
            return turn("all_reduce")
        return all_reduce(tensor, *more, **how)  # of the times themselves

    with (
        patch.object(wire, "time", clock),
        patch.object(dist, "all_reduce", slow_all_reduce),
        patch.object(strategy, "ring_all_reduce", lambda _message: turn("ring")),
    ):
        return {"lines": wire.wire_rank(rank=rank, progress=Silent(), **arguments), "turns": turns}


def test_a_message_takes_as_long_as_on_the_slowest_rank_and_the_warm_up_does_not_count(tmp_path):
    arguments = {"sizes": [4096], "turns": 5, "backend": "gloo"}
    told = in_workers("slow_messages", 2, tmp_path, "tests.engine.test_measuring", **arguments)
    assert [rank["turns"] for rank in told] == [{"all_reduce": 6, "ring": 6}] * 2
    lines = told[0]["lines"]
    assert [line.pop("way") for line in lines] == ["all_reduce", "ring", "copy"]
    about = {"backend": "gloo", "ranks": 2, "bytes": 4096}
    times = {"median_s": statistics.median(LONGEST_S), "min_s": 1.0, "max_s": 9.0}
    assert lines[:2] == [about | times] * 2 and times["median_s"] == 4.0
    assert lines[2] == about | dict.fromkeys(times, 0.0), "the clock stood still while memory was copied"
    assert [line.pop("way") for line in told[1]["lines"]] == ["all_reduce", "ring"], "rank 0 alone copies"
    assert told[1]["lines"] == lines[:2]


def test_the_memory_of_an_evaluation_is_forgotten_before_the_next_epoch(data, monkeypatch):
    """Only a CUDA device can forget; here only the order is seen."""
    said = []

    class Told:
        def __init__(self, device): ...

        def peak_mib(self):
            said.append("peak")
            return 1.0

        def forget_evaluation(self):
            said.append("forget")

    monkeypatch.setattr(loop, "Memory", Told)
    monkeypatch.setattr(loop.Evaluation, "accuracy_pct", lambda *_: said.append("evaluate") or 50.0)
    monkeypatch.setattr(loop, "build_model", lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    scale = {"dataset": "digits", "image_size": 8, "train_samples": 32, "epochs": 2, "cache": "true", "batch_per_rank": 16}
    loop.train(Spec(**scale), 0, CPU, data, Silent())
    assert said == ["peak", "evaluate", "forget"] * 2


# -- the device of a rank -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tf32", [True, False])
def test_a_rank_says_what_its_convolutions_may_round_to(monkeypatch, tf32):
    """TF32 in convolutions as the Spec says, in matrix products never; torch's own default must not decide."""
    conv, matmul, taken = torch.backends.cudnn.conv, torch.backends.cuda.matmul, []
    before = conv.fp32_precision, matmul.fp32_precision
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    try:
        conv.fp32_precision, matmul.fp32_precision = "ieee" if tf32 else "tf32", "tf32"
        spec = Spec(strategy="ddp", world_size=2, device="cuda", tf32=tf32)
        assert worker.take_device(spec, 1, 1) == torch.device("cuda", 1) == taken[0]
        assert (conv.fp32_precision, matmul.fp32_precision) == ("tf32" if tf32 else "ieee", "ieee")
    finally:
        conv.fp32_precision, matmul.fp32_precision = before
