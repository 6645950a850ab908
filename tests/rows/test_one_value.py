"""Batch norm needs two values per channel: a row whose last stage has one is refused where it is asked for, and no other row is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from labkit import Spec
from labkit.engine.models import MODELS, build_model
from labkit.rows.kinds import KINDS
from labkit.runs.plan import plan
from tests.helpers.refusals import refused


def torch_refuses(network: torch.nn.Module, size: int, images: int) -> bool:
    try:
        with torch.no_grad():
            network(torch.zeros(images, 1, size, size))
    except ValueError as error:
        assert "more than 1 value per channel" in str(error)
        return True
    return False


def spec_refuses(**fields: Any) -> bool:
    try:
        Spec(**fields)
    except ValueError as error:
        assert "one value per channel" in str(error), error
        return True
    return False


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("model", MODELS)
def test_refused_is_what_torch_refuses(model: str, norm: str) -> None:
    network = build_model(model, 8, 1, 10, norm).train()
    for size in (8, 9, 16):
        for images in (1, 2):
            asked = {"model": model, "image_size": size, "batch_per_rank": images, "norm": norm}
            assert spec_refuses(**asked) == torch_refuses(network, size, images), (size, images)


@pytest.mark.parametrize("strategy", KINDS)
def test_it_is_the_images_that_a_network_gets_at_once(strategy: str) -> None:
    """Whatever the number of ranks, replicas or workers: each of them has its own images and statistics."""
    ranks = 1 if strategy == "single" else 2
    asked = {"strategy": strategy, "world_size": ranks, "image_size": 8}
    assert spec_refuses(**asked, batch_per_rank=1)
    assert not spec_refuses(**asked, batch_per_rank=2)
    assert not spec_refuses(**asked, batch_per_rank=1, norm="group")
    assert not spec_refuses(**asked | {"image_size": 9}, batch_per_rank=1)


def test_it_is_the_slices_of_a_pipeline() -> None:
    asked = {"strategy": "model_parallel", "world_size": 2, "image_size": 8, "batch_per_rank": 4}
    assert [spec_refuses(**asked, micro_batches=slices) for slices in (1, 2, 4)] == [False, False, True]
    refused(lambda: Spec(**asked, micro_batches=4), "micro_batches=4", "two images", "image_size=9", "norm=group")


def test_it_is_told_when_a_row_is_asked_for() -> None:
    name = "dp_resnet18_bs2_ngpu2_cacheFalse_ampFalse"
    assert plan(name, "tiny", {"image_size": 16})
    assert plan(name, "tiny", {"image_size": 8, "norm": "group"})
    refused(lambda: plan(name, "tiny", {"image_size": 8}), "batch_per_rank=1", "8 pixels", "two images")
