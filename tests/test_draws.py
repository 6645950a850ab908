"""An epoch's draws: every order, crop and flip is as likely as any other, and the seed and the epoch decide them."""

from dataclasses import replace

import numpy as np
import pytest

from labkit.data import Draws
from labkit.datasets import DATASETS
from labkit.spec import Spec

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
