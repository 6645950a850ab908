"""An epoch's draws: every order, crop and flip is as likely as any other, and the seed and the epoch decide them. And colours: each
is normalised by its own mean and deviation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit.data.batches import Data, Draws
from labkit.data.datasets import open_arrays, prepare
from labkit.rows.catalog import DATASETS
from labkit.rows.spec import Spec
from tests.helpers.workers import CPU

IMAGES = 20_000  # a share of them is within 0.02 of its chance


def draws(epoch=0, **fields):
    return Draws(Spec(**{"dataset": "fashion_mnist"} | fields), IMAGES, epoch)


def test_every_crop_is_as_likely_and_rows_are_drawn_apart_from_columns():
    """Padded by 2 pixels, an image can be cut out at 5 by 5 places."""
    offsets = draws().offsets
    places, counts = np.unique(offsets, axis=0, return_counts=True)
    assert places.tolist() == [[dy, dx] for dy in range(5) for dx in range(5)]
    assert abs(counts / IMAGES - 1 / 25).max() < 0.02


def test_half_of_the_images_are_flipped_where_a_mirror_image_keeps_its_class():
    flips, offsets = draws().flips, draws().offsets
    assert abs(flips.mean() - 0.5) < 0.02
    assert abs(flips[offsets[:, 1] == 0].mean() - 0.5) < 0.05, "whatever the crop"
    assert not draws(dataset="digits").flips.any(), "a mirrored digit is another, or none"


def test_without_augmentation_an_image_is_its_middle():
    assert (draws(augment=False).offsets == 2).all() and not draws(augment=False).flips.any()
    assert (draws(augment=False, dataset="synthetic").offsets == 4).all()


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 1}, {"epoch": 1, "seed": 2}])
def test_seed_and_epoch_decide_order_crops_and_flips(other):
    """Each by itself: another order of the same crops would be no new augmentation."""
    one, again, new = draws(), draws(), draws(**other)
    for what in ("order", "offsets", "flips"):
        assert np.array_equal(getattr(one, what), getattr(again, what)), f"{what}: not the same again"
        changed = (getattr(one, what) != getattr(new, what)).mean()
        assert changed > 0.4, f"{what}: {changed:.0%} changed with {other}"
    assert sorted(new.order) == list(range(IMAGES))


def test_frozen_keeps_crops_and_flips_of_the_first_epoch_and_draws_new_orders():
    first, later = draws(cache="frozen"), draws(epoch=3, cache="frozen")
    assert np.array_equal(first.offsets, later.offsets) and np.array_equal(first.flips, later.flips)
    assert (first.order != later.order).mean() > 0.9
    assert np.array_equal(first.offsets, draws().offsets) and np.array_equal(later.order, draws(epoch=3).order)
    assert not np.array_equal(first.offsets, draws(seed=1, cache="frozen").offsets)


def test_the_padding_is_the_data_sets(monkeypatch):
    monkeypatch.setitem(DATASETS, "fashion_mnist", replace(DATASETS["fashion_mnist"], crop_padding=1))
    assert set(draws().offsets.ravel().tolist()) == {0, 1, 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare("synthetic", tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("cache", ["false", "true", "frozen"])
def test_each_colour_has_a_mean_and_a_deviation_of_its_own(folder, monkeypatch, cache):
    mean, deviation = (0.1, 0.5, 0.9), (0.2, 0.4, 0.8)
    monkeypatch.setitem(DATASETS, "synthetic", replace(DATASETS["synthetic"], mean=mean, std=deviation))
    fields = {"dataset": "synthetic", "image_size": 32, "augment": False, "train_samples": 40, "test_samples": 20}
    data, arrays = Data(Spec(**fields, cache=cache, batch_per_rank=20), folder, CPU), open_arrays(folder)
    trained, labels, index = next(data.train_batches(0, (0, 1)))
    raw_tested, answers = data.test_part(0, 1)
    tested = data.normalised(raw_tested)
    assert labels.tolist() == arrays["train_labels"][index].tolist() and answers.tolist() == arrays["test_labels"][:20].tolist()
    for images, raw in ((trained, arrays["train_images"][index]), (tested, arrays["test_images"][:20])):
        for colour in range(3):
            expected = (np.array(raw[..., colour]) / 255 - mean[colour]) / deviation[colour]
            torch.testing.assert_close(images[:, colour].double(), torch.from_numpy(expected), atol=1e-5, rtol=0)
