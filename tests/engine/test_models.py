"""The models are torchvision's ResNets with a CIFAR stem; the optimizer is SGD, and follows a schedule."""

import math

import pytest
import torch
import torchvision
from torch import nn

from labkit.engine.models import MODELS, build_model
from labkit.rows.spec import Spec
from labkit.strategy import Place, Precision, learning_rate_factor, make_optimizer


def torchvisions(name, channels=3, classes=100):
    """torchvision's model with the stem for 32x32 images: 3x3, stride 1, no max-pool."""
    model = getattr(torchvision.models, name)(num_classes=classes)
    model.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_torchvisions(name):
    ours, theirs = build_model(name, 64, 3, 100), torchvisions(name)
    shapes = [[tuple(p.shape) for p in model.parameters()] for model in (ours, theirs)]
    assert shapes[0] == shapes[1], f"{name} at width 64: layer by layer the shapes must be torchvision's"


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", MODELS)
def test_output_is_torchvisions(name, training):
    """With the weights and statistics carried over in order. In training mode BatchNorm's new statistics must agree, too."""
    torch.manual_seed(0)
    ours, theirs = (model.double().train(training) for model in (build_model(name, 64, 3, 100), torchvisions(name)))
    for tensor in theirs.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor) * 0.1)  # so that no norm is at its start, where many faults hide
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), msg=lambda told: f"{name} computes something else than torchvision's: {told}")
    for (key, mine), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, msg=lambda told, key=key: f"{name}, {key}: {told}")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("norm", "kind"), {"batch": nn.BatchNorm2d, "group": nn.GroupNorm}.items())
def test_any_width_channels_classes_and_norm(name, norm, kind):
    model = build_model(name, 6, 1, 7, norm)
    norms = {type(module) for module in model.modules() if "Norm" in type(module).__name__}
    assert norms == {kind}, f"norm={norm} made {norms}"
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 7), "two images of one channel and 8x8 pixels give two rows of 7 classes"


def test_group_norm_sees_one_image_at_a_time():
    """That is why no split of a batch changes the result; BatchNorm is the counterexample."""
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for norm, same in (("group", True), ("batch", False)):
        model = build_model("resnet18", 4, 3, 5, norm).double().train()
        whole, halves = model(x), torch.cat([model(half) for half in x.chunk(2)])
        assert torch.allclose(whole, halves) == same, (
            f"norm={norm}: a batch and its two halves must {'' if same else 'not '}agree"
        )


# -- optimizer and schedule -----------------------------------------------------------------------------------------


def test_learning_rate_schedule():
    """A linear warm-up to the peak, which step `warmup` reaches, and then the schedule; a pure function of the step."""

    def factors(schedule, warmup=0.2):
        spec = Spec(lr_schedule=schedule, warmup_fraction=warmup)
        return [learning_rate_factor(spec, 10, step) for step in range(10)]

    assert factors("constant") == [0.5] + [1.0] * 9, factors("constant")
    assert factors("linear") == pytest.approx([0.5, 1, *(1 - k / 8 for k in range(8))]), factors("linear")
    assert factors("cosine") == pytest.approx([0.5, 1, *((1 + math.cos(math.pi * k / 8)) / 2 for k in range(8))]), factors(
        "cosine"
    )
    assert factors("cosine", warmup=0.0)[0] == 1, "without a warm-up the first step has the peak"
    assert min(factors("cosine") + factors("linear")) > 0, "no step is wasted on a learning rate of 0"
    assert learning_rate_factor(Spec(warmup_fraction=0.9), 1, 0) == 1, "a single step is not lost in the warm-up"


@pytest.mark.parametrize("impl", ["for_loop", "fused"])
def test_schedule_goes_on_where_a_step_is_skipped(impl):
    """An overflow of fp16 skips an update, and must not shift the learning rates of those that follow."""
    spec, used = Spec(lr=2.0, lr_schedule="linear", amp=True, amp_dtype="fp16", optimizer_impl=impl), []
    place, model = Place(0, 1, torch.device("cpu"), 10, 1), nn.Linear(1, 1)
    optimizer, precision = make_optimizer(model, spec), Precision(spec, place)
    for step in range(10):
        precision.backward(model.weight.sum() * (1e36 if step < 2 else 1.0))
        precision.step(optimizer)
        used.append(optimizer.param_groups[0]["lr"])
    assert used == pytest.approx([2.0 * learning_rate_factor(spec, 10, step) for step in range(10)])


@pytest.mark.parametrize("impl", ["for_loop", "foreach", "fused"])
def test_optimizer_impl(impl):
    defaults = make_optimizer(nn.Linear(1, 1), Spec(optimizer_impl=impl)).defaults
    found = [name for name in ("foreach", "fused") if defaults[name]] or ["for_loop"]
    assert found == [impl], f"optimizer_impl={impl} made SGD that is {found[0]}"


@pytest.mark.parametrize("impl", ["for_loop", "foreach", "fused"])
def test_first_step_skipped_by_the_loss_scaler_leaves_no_trace(impl):
    """fp16's first scale is often too high, and the step is skipped. torch's fused SGD (2.14) then has a momentum buffer
    that it never filled: whatever lay in that memory goes into the weights at the next step, and shows as NaN some time."""
    model = nn.Linear(1000, 1, bias=False)
    optimizer = make_optimizer(
        model, Spec(optimizer_impl=impl, lr=1.0, weight_decay=0.0, warmup_fraction=0.0, lr_schedule="constant")
    )
    scaler, before = torch.amp.GradScaler("cpu"), model.weight.detach().clone()
    for factor in (1e36, 1.0):  # times the scale of 65536 the first overflows
        optimizer.zero_grad()
        scaler.scale(model.weight.sum() * factor).backward()
        waste = [torch.full((1, 1000), 7.0) for _ in range(20)]
        del waste  # what is allocated next lies where the sevens are
        scaler.step(optimizer)
        scaler.update()
    torch.testing.assert_close(model.weight.detach(), before - 1, msg=lambda told: f"{impl}: one step of 1 was made, but {told}")
