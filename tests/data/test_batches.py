"""Which images a rank sees, and how they are augmented: the same for every cache and every number of ranks."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.data import batches
from labkit.data.batches import Data
from labkit.data.datasets import open_arrays, prepare
from labkit.rows.catalog import DATASETS
from labkit.rows.spec import Spec

CPU = torch.device("cpu")
KINDS = {  # grey and enlarged, grey as stored, in colour with flips
    "digits at 16": {"dataset": "digits", "image_size": 16},
    "digits at 8": {"dataset": "digits", "image_size": 8},
    "colour at 32": {"dataset": "synthetic", "image_size": 32},
    "colour at 20": {"dataset": "synthetic", "image_size": 20},
}


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def make(data_cache, monkeypatch):
    """Data of a Spec; `synthetic` gets flips here, which only data sets that must be fetched have otherwise."""
    folders = {name: prepare(name, data_cache) for name in ("digits", "synthetic")}
    monkeypatch.setitem(DATASETS, "synthetic", replace(DATASETS["synthetic"], flip=True))

    def made(**fields):
        spec = Spec(**{"train_samples": 50, "test_samples": 21, "strategy": "ddp", "world_size": 2, "batch_per_rank": 8} | fields)
        return Data(spec, folders[spec.dataset], CPU)

    made.folders = folders
    return made


def epoch_of(data, epoch, shard=(0, 1)):
    """A pass as (images, labels, index), steps joined."""
    x, y, index = zip(*data.train_batches(epoch, shard), strict=True)
    return torch.cat(x), torch.cat(y), np.concatenate(index)


def by_index(images, index):
    return {int(i): image for i, image in zip(index, images, strict=True)}


@pytest.mark.parametrize("channels_last", [True, False], ids=["NHWC", "NCHW"])
@pytest.mark.parametrize("kind", KINDS)
def test_cache_false_and_true_give_the_same_batches(make, kind, channels_last):
    """Bit for bit and with the same strides: one goes through PIL image by image, one cuts whole batches out of memory.

    Strides count for grey images, too: with one channel a tensor is NCHW and NHWC at once, and convolutions choose by them.
    """
    each, cached = (make(cache=cache, channels_last=channels_last, **KINDS[kind]) for cache in ("false", "true"))
    for epoch in (0, 1):
        for step, (one, other) in enumerate(
            zip(each.train_batches(epoch, (1, 2)), cached.train_batches(epoch, (1, 2)), strict=True)
        ):
            where = f"{kind}, epoch {epoch}, step {step}"
            assert one[2].tolist() == other[2].tolist(), f"{where}: the caches must train the same images in the same order"
            assert torch.equal(one[1], other[1]), f"{where}: the labels differ"
            assert torch.equal(one[0], other[0]), f"{where}: the images differ by up to {(one[0] - other[0]).abs().max()}"
            assert one[0].stride() == other[0].stride(), f"{where}: the images lie differently in memory"


def test_loader_workers_change_nothing(make):
    here, in_workers = (epoch_of(make(cache="false", loader_workers=n, **KINDS["colour at 32"]), 1) for n in (0, 2))
    assert torch.equal(here[0], in_workers[0]) and torch.equal(here[1], in_workers[1]), (
        "a DataLoader's processes crop as this one"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_repeats_the_first_epochs_augmentation_in_a_new_order(make, kind):
    fresh, frozen = (make(cache=cache, **KINDS[kind]) for cache in ("true", "frozen"))
    first, later = epoch_of(fresh, 0), epoch_of(fresh, 3)
    again, frozen_later = epoch_of(frozen, 0), epoch_of(frozen, 3)
    assert torch.equal(first[0], again[0]), "in the first epoch cache=frozen is as fresh as any other"
    assert frozen_later[2].tolist() == later[2].tolist() != first[2].tolist(), (
        "the order is drawn anew in every epoch, frozen or not"
    )
    crops, crops_later = by_index(again[0], again[2]), by_index(frozen_later[0], frozen_later[2])
    both = crops.keys() & crops_later.keys()
    assert len(both) > 40, "most images are in both epochs, or there is nothing to compare"
    assert all(torch.equal(crops[i], crops_later[i]) for i in both), "frozen: an image looks the same in every epoch"
    moved = by_index(later[0], later[2])
    changed = sum(not torch.equal(crops[i], moved[i]) for i in crops.keys() & moved.keys())
    assert changed > len(both) / 2, f"not frozen: most images are cropped anew in another epoch, not {changed} of {len(both)}"


@pytest.mark.parametrize("cache", ["false", "true", "frozen"])
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_parts_of_every_number_of_ranks_make_up_the_same_steps(make, cache, parts):
    """Joined part by part, a step of N ranks is the step of one process: same images, same crops, same place."""
    whole = make(strategy="single", world_size=1, batch_per_rank=16, cache=cache)
    split = make(world_size=parts, batch_per_rank=16 // parts, cache=cache)
    shares = [split.train_batches(2, (part, parts)) for part in range(parts)]
    for step, (one, *others) in enumerate(zip(whole.train_batches(2, (0, 1)), *shares, strict=True)):
        joined = torch.cat([images for images, _, _ in others])
        assert np.concatenate([index for _, _, index in others]).tolist() == one[2].tolist(), f"step {step}: other images"
        assert torch.equal(joined, one[0]), f"step {step}: the same images, but augmented otherwise on {parts} ranks"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.data(), parts=st.integers(1, 6), batch=st.integers(1, 12), steps=st.integers(1, 5), epoch=st.integers(0, 5))
def test_parts_are_disjoint_and_complete(make, numbers, parts, batch, steps, epoch):
    """Over an epoch every image is trained once, but for fewer than a step's at its end, which no rank trains."""
    images = steps * parts * batch + numbers.draw(st.integers(0, parts * batch - 1), label="left over")
    data = make(train_samples=images, world_size=parts, batch_per_rank=batch, cache="true")
    assert data.steps_per_epoch == steps, f"{images} images are {steps} whole steps of {parts} x {batch}"
    shares = [[row.tolist() for _, _, row in data.train_batches(epoch, (part, parts))] for part in range(parts)]
    assert all([len(row) for row in share] == [batch] * steps for share in shares), "every step of every rank is a full batch"
    trained = Counter(i for share in shares for row in share for i in row)
    assert set(trained.values()) == {1} and set(trained) <= set(range(images)), "no image twice, none that is not there"
    assert len(trained) == steps * parts * batch, f"{len(trained)} images of {images} were trained"


def test_uneven_end_is_left_out_alike_and_differs_by_epoch(make):
    """50 images, 16 per step: 3 steps, and 2 images wait for another epoch, whoever trains and from whatever cache."""
    left = []
    for epoch in (0, 1):
        seen = {
            tuple(sorted(epoch_of(make(cache=cache, strategy=strategy, **shape), epoch)[2]))
            for cache in ("false", "true")
            for strategy, shape in (("ddp", {}), ("single", {"world_size": 1, "batch_per_rank": 16}))
        }
        assert len(seen) == 1, "caches and strategies must leave out the same images"
        left.append(set(range(50)) - set(next(iter(seen))))
    assert [len(some) for some in left] == [2, 2] and left[0] != left[1], f"2 images, other ones in another epoch, not {left}"


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_parts_of_the_test_images_see_each_once(make, parts):
    """Evaluation leaves nothing out, though 21 images cannot be divided."""
    data = make()

    def seen(parts):
        found = [data.test_part(part, parts) for part in range(parts)]
        return Counter(
            (x.numpy().tobytes(), int(label)) for images, labels in found for x, label in zip(images, labels, strict=True)
        )

    assert seen(parts) == seen(1), f"{parts} parts must see the test images that one sees, each as often"
    assert seen(parts).total() == 21, f"{parts} parts must see 21 images, not {seen(parts).total()}"


@pytest.mark.parametrize("cache", ["false", "true", "frozen"])
def test_images_are_the_stored_ones_normalised(make, cache):
    """Without augmentation: image i and label i of the data set, minus the mean, by the deviation."""
    data = make(dataset="digits", image_size=8, augment=False, cache=cache)
    arrays, info = open_arrays(make.folders["digits"]), DATASETS["digits"]
    images, labels, index = epoch_of(data, 1)
    stored = torch.from_numpy(np.array(arrays["train_images"][index])).permute(0, 3, 1, 2)
    torch.testing.assert_close(images, (stored / 255 - info.mean[0]) / info.std[0], msg=f"cache={cache} changed the images")
    assert labels.tolist() == arrays["train_labels"][index].tolist(), f"cache={cache}: labels of other images"


def test_seed_and_epoch_draw_the_order(make):
    orders = [epoch_of(make(seed=seed, cache="true"), epoch)[2].tolist() for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert orders[0] == orders[3], "the same seed and epoch must give the same order"
    assert orders[0] != orders[1] and orders[0] != orders[2], "another epoch or seed must give another order"


@pytest.mark.parametrize("cache", ["false", "true", "frozen"])
def test_a_rank_that_needs_no_images_decodes_none(make, monkeypatch, cache):
    """A pipeline's later stages: the same labels and indices as a rank with images, and not one picture decoded."""
    spec = Spec(dataset="digits", cache=cache, batch_per_rank=16, train_samples=64)
    with_images = list(Data(spec, make.folders["digits"], CPU).train_batches(0, (0, 1)))
    monkeypatch.setattr(batches, "to_pil", None)
    without = list(Data(spec, make.folders["digits"], CPU, images=False).train_batches(0, (0, 1)))
    for (_, labels, index), (x, same_labels, same_index) in zip(with_images, without, strict=True):
        assert x is None and same_labels.equal(labels) and (same_index == index).all()
