"""The accuracy and the loss that a run reports are those that can be worked out by hand, for one rank and for several.

The model's answers are known: a BatchNorm whose statistics are of our choice, and a linear layer that was fitted beforehand. The
learning rate is so small that training changes no weight. So the right answers on the stored test images can be counted in numpy.
"""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from labkit.data.batches import Data
from labkit.data.datasets import open_arrays, prepare
from labkit.engine import loop
from labkit.engine.evaluation import Evaluation, sample_of
from labkit.engine.measure import Clock
from labkit.rows.catalog import DATASETS
from labkit.rows.spec import Spec
from labkit.strategy import learning_rate_factor
from tests.helpers.workers import CPU, in_workers

INFO = DATASETS["digits"]
SHIFT, VARIANCE, EPS = 0.7, 6.0, 1e-5  # of the BatchNorm; a batch of images has a mean of about 0 and a variance of about 1
SMALL = {"dataset": "digits", "image_size": 8, "train_samples": 64, "epochs": 2}
STILL = {"lr": 1e-30, "weight_decay": 0.0, "warmup_fraction": 0.0, "bn_statistics": "running"}  # the statistics of our choice
ALONE = {
    "single": {"batch_per_rank": 32},
    "data_parallel": {"strategy": "data_parallel", "world_size": 2, "batch_per_rank": 16},
    "single, some of the test images": {"batch_per_rank": 32, "test_samples": 300},
    "single, nothing cached, NCHW": {"batch_per_rank": 32, "cache": "false", "channels_last": False},
}
TWO = {
    "ddp": {"strategy": "ddp", "world_size": 2, "batch_per_rank": 16},
    "fsdp": {"strategy": "fsdp", "world_size": 2, "batch_per_rank": 16},
    "collective": {"strategy": "collective", "world_size": 2, "batch_per_rank": 16},
    "model_parallel": {"strategy": "model_parallel", "world_size": 2, "batch_per_rank": 32},
    "model_parallel, gpipe": {"strategy": "model_parallel", "world_size": 2, "batch_per_rank": 32, "micro_batches": 4},
    "model_parallel, 1f1b": {
        "strategy": "model_parallel",
        "world_size": 2,
        "batch_per_rank": 32,
        "micro_batches": 2,
        "schedule": "1f1b",
    },
}
THREE = {
    "server, async": {"strategy": "parameter_server", "world_size": 2, "batch_per_rank": 16},
    "server, sync": {"strategy": "parameter_server", "world_size": 2, "batch_per_rank": 16, "consistency": "sync"},
}


class Silent:
    """The Progress of a run that nobody watches; it keeps what it was told."""

    def __init__(self):
        self.loss, self.records, self.phases = None, [], []

    def at(self, phase, epoch=None, step=0):
        self.phases.append(phase)

    def epoch(self, record):
        self.records.append(record)


def stored(folder, part):
    """The images (n, 64) as float64, normalised by the data set's mean and deviation, and the labels (n,)."""
    arrays = open_arrays(folder)
    images = np.array(arrays[f"{part}_images"], dtype=np.float64).reshape(-1, 64)
    return (images / 255 - INFO.mean[0]) / INFO.std[0], np.array(arrays[f"{part}_labels"])


def layer(folder):
    """The weights (10, 64) and the bias (10,) that fit the first 400 training images best, after the BatchNorm."""
    x, labels = stored(folder, "train")
    x = (x[:400] - SHIFT) / np.sqrt(VARIANCE + EPS)
    solution, *_ = np.linalg.lstsq(np.hstack([x, np.ones((400, 1))]), np.eye(10)[labels[:400]], rcond=None)
    return solution[:-1].T, solution[-1]


def known_model(folder):
    """A stand-in for `build_model` of two blocks, so that it can be cut and sharded."""
    weight, bias = layer(folder)

    def build(*_):
        model = nn.Sequential(nn.BatchNorm2d(1, momentum=0.0, eps=EPS), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
        with torch.no_grad():
            model[0].running_mean.fill_(SHIFT)
            model[0].running_var.fill_(VARIANCE)
            model[1][1].weight.copy_(torch.from_numpy(weight))
            model[1][1].bias.copy_(torch.from_numpy(bias))
        return model

    return build


def trained(*, rank, progress, data, cases):
    """Inside a worker: what every case's run reports on this rank."""
    with patch.object(loop, "build_model", known_model(data)):
        return {name: loop.train(Spec(**fields), rank, CPU, data, progress)["epochs"] for name, fields in cases.items()}


def of(case):
    return SMALL | STILL | {"cache": "true"} | case


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare("digits", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def reported(folder, tmp_path_factory):
    """By case, the epochs that each rank reports."""
    here = trained(rank=0, progress=Silent(), data=folder, cases={name: of(case) for name, case in ALONE.items()})
    told = {name: [epochs] for name, epochs in here.items()}
    for processes, cases in ((2, TWO), (3, THREE)):
        fields = {name: of(case) for name, case in cases.items()}
        ranks = in_workers(
            "trained", processes, tmp_path_factory.mktemp("ranks"), "tests.engine.test_evaluation", data=folder, cases=fields
        )
        told |= {name: [rank[name] for rank in ranks] for name in cases}
    return told


every_case = pytest.mark.parametrize("name", ALONE | TWO | THREE)


@every_case
def test_accuracy_is_the_right_answers_among_the_stored_test_images(reported, folder, name):
    x, labels = stored(folder, "test")
    images = (ALONE | TWO | THREE)[name].get("test_samples", 360)
    weight, bias = layer(folder)
    answers = (x - SHIFT) / np.sqrt(VARIANCE + EPS) @ weight.T + bias
    first, second = np.sort(answers, 1)[:, :-3:-1].T
    assert (first - second).min() > 1e-4, "no answer hangs on the rounding of float32"
    right = int((answers.argmax(1) == labels)[:images].sum())
    assert 0.8 * images < right < images, f"the model knows most of the {images} digits, not all: {right}"
    for rank, epochs in enumerate(reported[name]):
        accuracies = [epoch["test_acc_pct"] for epoch in epochs]
        assert accuracies == pytest.approx([100 * right / images] * 2), f"{name}, rank {rank}: {right} of {images} are right"


@every_case
def test_loss_is_the_mean_over_all_images_of_all_ranks(reported, folder, name):
    """Each part of a step (a shard, a replica's share, a micro-batch) is normalised by itself, as BatchNorm does in training."""
    spec = Spec(**of((ALONE | TWO | THREE)[name]))
    whole, model = Data(Spec(**of({"batch_per_rank": 32})), folder, CPU), known_model(folder)().train()
    parts = spec.micro_batches if spec.strategy == "model_parallel" else spec.world_size
    for epoch in range(2):
        losses = [
            float(cross_entropy(model(xs), ys).detach())
            for x, y, _ in whole.train_batches(epoch, (0, 1))
            for xs, ys in zip(x.chunk(parts), y.chunk(parts), strict=True)
        ]
        assert len(losses) == 2 * parts and max(losses) - min(losses) > 1e-3 * max(losses), "the parts have losses of their own"
        for rank, epochs in enumerate(reported[name]):
            found = epochs[epoch]["train_loss"]
            assert found == pytest.approx(np.mean(losses), rel=1e-5), f"{name}, rank {rank}, epoch {epoch + 1}: {losses}"


def test_a_whole_run_is_the_formula(folder, monkeypatch):
    """A linear model, trained by the loop and in numpy: softmax's gradient, SGD with Nesterov's momentum, a linear schedule.

    Weights, the loss and the accuracy of each epoch agree, so nothing (the momentum, the schedule's place) starts anew in an epoch.
    """
    fields = {"batch_per_rank": 16, "cache": "true", "epochs": 3, "lr": 0.05, "momentum": 0.9, "nesterov": True}
    spec = Spec(**SMALL | fields | {"weight_decay": 0.02, "lr_schedule": "linear", "warmup_fraction": 0.25})
    ended, progress = {}, Silent()
    monkeypatch.setattr(loop, "build_model", lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    monkeypatch.setattr(loop, "check_weights", lambda state, *_: ended.update(state))
    told = loop.train(spec, 0, CPU, folder, progress)

    torch.manual_seed(spec.seed)
    first = nn.Linear(64, 10)
    w = torch.cat([first.weight.T, first.bias[None]]).detach().double().numpy()
    data, (x, labels) = Data(spec, folder, CPU), stored(folder, "test")
    velocity, steps = np.zeros_like(w), 0
    for epoch in range(3):
        losses = []
        for images, y, _ in data.train_batches(epoch, (0, 1)):
            z, one_hot = with_ones(images.double().numpy().reshape(-1, 64)), np.eye(10)[y]
            likely = np.exp(z @ w) / np.exp(z @ w).sum(1, keepdims=True)
            losses.append(-np.log((likely * one_hot).sum(1)).mean())
            gradient = z.T @ (likely - one_hot) / len(y) + 0.02 * w
            velocity = 0.9 * velocity + gradient
            w = w - 0.05 * learning_rate_factor(spec, 12, steps) * (gradient + 0.9 * velocity)
            steps += 1
        right = (with_ones(x) @ w).argmax(1) == labels
        assert told["epochs"][epoch]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
        assert told["epochs"][epoch]["test_acc_pct"] == pytest.approx(100 * right.mean())
    np.testing.assert_allclose(ended["1.weight"].T, w[:-1], atol=1e-5)
    np.testing.assert_allclose(ended["1.bias"], w[-1], atol=1e-5)
    assert [epoch["epoch"] for epoch in told["epochs"]] == [1, 2, 3] and progress.records == told["epochs"]
    assert told["steps"] == steps == 12


def with_ones(x):
    return np.hstack([x, np.ones((len(x), 1))])


@pytest.mark.parametrize(("amp", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_evaluation_computes_in_the_type_of_training(folder, monkeypatch, amp, dtype):
    seen = []

    def build(*_):
        model = known_model(folder)()
        model.register_forward_hook(lambda module, _, out: seen.append((module.training, out.dtype)))
        return model

    monkeypatch.setattr(loop, "build_model", build)
    loop.train(Spec(**of({"batch_per_rank": 32, "amp": amp, "epochs": 1})), 0, CPU, folder, Silent())
    assert seen == [(True, dtype)] * 2 + [(False, dtype)] * 2, "two steps, then the test images in batches of 256 and 104"


def test_images_of_another_size_are_interpolated(folder):
    """Bilinear, to whole grey levels, as torch does it; training and test images alike."""
    data = Data(Spec(dataset="digits", image_size=16, augment=False, cache="true", batch_per_rank=32), folder, CPU)
    arrays = open_arrays(folder)
    trained, _, index = next(data.train_batches(0, (0, 1)))
    tested = data.normalised(data.test_part(0, 1)[0])
    for images, raw in ((trained, arrays["train_images"][index]), (tested, arrays["test_images"])):
        enlarged = interpolate(torch.from_numpy(np.array(raw)).permute(0, 3, 1, 2).float(), size=(16, 16), mode="bilinear")
        levels = (images * INFO.std[0] + INFO.mean[0]) * 255
        assert (levels - enlarged).abs().max() < 1.01


# -- statistics taken anew -------------------------------------------------------------------------------------------------
FAST = {
    "dataset": "digits",
    "image_size": 8,
    "width": 8,
    "batch_per_rank": 128,
    "epochs": 5,
    "lr": 0.1,
    "seed": 3,
    "cache": "true",
}


def evaluated(folder, **fields):
    """A short training with few steps in an epoch, and after each epoch the accuracy by statistics of three kinds."""
    spec, progress, told = Spec(**FAST | fields), Silent(), []
    strategy, data, place, skeleton = loop.build(spec, 0, CPU, folder)
    clock = Clock(spec, CPU, place.total_steps)
    fresh, whole, running = (
        Evaluation(skeleton, data, spec, place),
        *(
            Evaluation(loop.build(spec, 0, CPU, folder)[3], data, spec.but(bn_statistics=kind), place)
            for kind in ("fresh", "running")
        ),
    )
    whole.sample = data.decode(data.raw)
    for epoch in range(spec.epochs):
        loop.train_epoch(strategy, data, epoch, clock, progress)
        told.append([one.accuracy_pct(strategy.state()) for one in (fresh, whole, running)])
    return np.array(told).T


def test_fresh_statistics_show_what_was_learned_and_running_ones_do_not(folder):
    """Against statistics over all training images. (One point is 3.6 of the 360 test images.)"""
    fresh, whole, running = evaluated(folder)
    assert abs(fresh - whole).mean() < 1.5 and abs(fresh - whole).max() < 5, f"{fresh} should be {whole}"
    assert (whole - running).max() > 15, f"running statistics lag: {running} beside {whole}"


def test_the_sample_has_every_class_in_its_share_and_every_process_a_part():
    labels = np.repeat(np.arange(4), [100, 300, 500, 3100])
    sample = sample_of(labels, seed=0)
    assert len(sample) == len(set(sample.tolist())) == 256
    assert np.bincount(labels[sample]).tolist() == pytest.approx([6.4, 19.2, 32, 198.4], abs=1)
    assert len(sample_of(np.zeros(50_000, int), 0)) == 3125 and len(sample_of(np.zeros(64, int), 0)) == 64
    assert sample.tolist() != sample_of(labels, seed=1).tolist() and sample.tolist() == sample_of(labels, seed=0).tolist()


def statistics(*, rank, progress, data, fields):
    """Inside a worker: the fresh statistics of weights that are the same on every rank, and the accuracy by them."""
    spec = Spec(**fields)
    _, images, place, skeleton = loop.build(spec, rank, CPU, data)
    torch.manual_seed(0)
    model = loop.model_of(spec)
    evaluation = Evaluation(skeleton, images, spec, place)
    found = evaluation.statistics(model.state_dict())
    return {name: buffer.double().tolist() for name, buffer in found.items()} | {
        "accuracy": evaluation.accuracy_pct(model.state_dict())
    }


def test_ranks_average_the_statistics_of_their_parts(folder, tmp_path):
    """In the first layer, whose inputs are the same however the sample is split, they are those of one process."""
    fields = {"dataset": "digits", "image_size": 8, "width": 8, "strategy": "ddp", "world_size": 2, "batch_per_rank": 64}
    (one,) = [statistics(rank=0, progress=Silent(), data=folder, fields=fields | {"strategy": "single", "world_size": 1})]
    two = in_workers("statistics", 2, tmp_path, "tests.engine.test_evaluation", data=folder, fields=fields)
    assert two[0] == two[1], "every rank evaluates with the same statistics"
    assert two[0]["0.1.running_mean"] == pytest.approx(one["0.1.running_mean"], abs=1e-5)
    assert two[0]["0.1.running_var"] == pytest.approx(one["0.1.running_var"], rel=0.02)
    assert two[0]["accuracy"] == pytest.approx(one["accuracy"], abs=3)
