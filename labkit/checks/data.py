"""Exercises on images: which rank trains which, what a cache may keep, and where random draws come from."""

from __future__ import annotations

from collections import Counter

from labkit.checks.judge import NotYet, Student, Verdict, exercise, shown, whole


@exercise(
    1,
    6,
    signature="shard_of(order: list[int], rank: int, world_size: int) -> list[int]",
    returns="the images that this rank trains, out of `order`",
)
def check_shard_of(student: Student) -> Verdict:
    """Which images of an epoch's order does a rank train? All ranks get the same number, no image twice; what does not divide is left out.

    As torch's DistributedSampler does with drop_last=True.
    """
    for order, n in (([7, 2, 5, 0, 3, 6, 1, 4], 2), ([5, 3, 1], 1), ([40, 10, 30, 20, 60, 50, 70], 3)):
        shards = [shard(student, order, rank, n) for rank in range(n)]
        table = "\n".join(f"rank {rank}: {shown(images)}" for rank, images in enumerate(shards))
        what = f"{len(order)} images over {n} ranks:"
        for image, times in Counter(image for images in shards for image in images).items():
            if image not in order:
                raise NotYet(f"{what} image {image} is not in the order {shown(order)}.", "Positions are not images.", table)
            if times > 1:
                raise NotYet(
                    f"{what} image {image} is trained {times} times in the epoch.", "Does your answer depend on `rank`?", table
                )
        sizes = [len(images) for images in shards]
        if len(set(sizes)) > 1:
            raise NotYet(
                f"{what} the ranks have {shown(sizes)} images. In its last step the rank with more would wait for ever for a rank that "
                "is through.",
                "Give every rank len(order) // world_size images, and leave out what is left.",
                table,
            )
        if sizes[0] < len(order) // n:
            raise NotYet(f"{what} {sizes[0]} for each, though there are enough for {len(order) // n} each.", "", table)
    return student.passed("Same number for all, no image twice: no rank waits for another's last step.", table)


def shard(student: Student, order: list[int], rank: int, n: int) -> list[int]:
    images = student(list(order), rank, n)
    if not isinstance(images, list) or not all(map(whole, images)):
        raise NotYet(f"{student.text(order, rank, n)} returned {shown(images)}, expected a list of images out of `order`.")
    return images


@exercise(
    4,
    signature="cached_epoch(images: list[str], epoch: int, cache: dict, decode, augment) -> list",
    returns="the epoch's augmented pictures, in the order of the images",
)
def check_cached_epoch(student: Student) -> Verdict:
    """One epoch through a cache. `decode(image)` is slow and always gives the same picture; `augment(picture, epoch, index)` draws a new
    crop in every epoch. `cache` is a dict that lasts over the epochs, empty at first. Decode once, augment always.
    """
    images, cache, decoded = ["cat.png", "dog.png", "ship.png"], {}, Counter()
    seen: list[list[str]] = []

    def decode(image: str) -> str:
        decoded[image] += 1
        return f"pixels of {image}"

    def augment(picture: str, epoch: int, index: int) -> str:
        return f"crop {3 * epoch + index} of {picture}"

    for epoch in range(3):
        call = student.text(images, epoch, {}, decode, augment).replace("{}", "cache")
        got = student(list(images), epoch, cache, decode, augment)
        wanted = [f"crop {3 * epoch + i} of pixels of {image}" for i, image in enumerate(images)]
        table = "\n".join(f"epoch {number}: {shown(pictures)}" for number, pictures in enumerate([*seen, got]))
        if epoch and got == seen[-1]:
            raise NotYet(
                f"{call} gave the very pictures of epoch {epoch - 1}: the augmentation is frozen. Your cache keeps augmented pictures, "
                "so the network sees the same crops for ever. This is the fault that most likely cost the published rows 18 points.",
                "Put what decode returns into the cache, and augment what comes out of it.",
                table,
            )
        if any(str(picture).count("crop") > 1 for picture in (got if isinstance(got, list) else [])):
            raise NotYet(
                f"{call} augmented a picture that was augmented already.", "The cache should hold decoded pictures.", table
            )
        if got != wanted:
            raise NotYet(f"{call} returned {shown(got)}, expected {shown(wanted)}.", "", table)
        again = [image for image, times in decoded.items() if times > 1]
        if again:
            raise NotYet(
                f"After epoch {epoch}, {again[0]} has been decoded {decoded[again[0]]} times: nothing came out of the cache.",
                "Look into the cache first: `if image not in cache: cache[image] = …`",
                table,
            )
        seen.append(got)
    return student.passed("Three epochs, each image decoded once, new crops in every epoch: fast, and nothing lost.", table)


@exercise(
    4,
    signature="crop_offset(seed: int, epoch: int, index: int) -> int",
    returns="a whole number from 0 to 8, drawn for this image in this epoch",
)
def check_crop_offset(student: Student) -> Verdict:
    """Draw where image `index` is cropped in an epoch, from (seed, epoch, index) alone. So it does not matter which rank asks, in which
    order, or from which cache the picture came; and every epoch, every image and every seed draws anew.
    """

    def draw(seed: int, epoch: int, index: int) -> int:
        value = student(seed, epoch, index)
        if not whole(value) or not 0 <= value <= 8:
            raise NotYet(f"{student.text(seed, epoch, index)} returned {shown(value)}, expected a whole number from 0 to 8.")
        return value

    keys = [(seed, epoch, index) for seed in range(2) for epoch in range(4) for index in range(16)]
    first = {key: draw(*key) for key in keys}
    changed = [key for key in reversed(keys) if draw(*key) != first[key]]
    if changed:
        raise NotYet(
            f"{student.text(*changed[0])} gave {first[changed[0]]} at first and something else later. Two ranks, or a run that is repeated, "
            "would crop the same image differently.",
            "Make a generator of your own from the three numbers, such as random.Random(f'{seed} {epoch} {index}').",
        )

    def distance(seed: int, epoch: int, index: int) -> int | None:
        """How far, modulo 9, draws lie apart whose keys lie so far apart; None if it varies, as it must."""
        moved = [(first[s, e, i], first.get((s + seed, e + epoch, i + index))) for s, e, i in keys]
        apart = Counter((other - one) % 9 for one, other in moved if other is not None)
        often, times = apart.most_common(1)[0]
        return often if times > apart.total() / 2 else None

    for step, why in (
        ((0, 1, 0), "An image is cropped alike in every epoch: the augmentation is frozen. Let the epoch enter the draw."),
        ((0, 0, 1), "All images of an epoch are cropped alike. Let the image's index enter the draw."),
        ((1, 0, 0), "Another seed draws the same: repeated runs would not be independent. Let the seed enter the draw."),
        ((0, 1, -1), "Epoch 1 gives image 0 what epoch 0 gave image 1: adding numbers mixes them up. Keep the three apart."),
        ((1, -1, 0), "Seed 1 gives in epoch 0 what seed 0 gave in epoch 1: adding numbers mixes them up. Keep the three apart."),
        ((1, 0, -1), "Seed 1 gives image 0 what seed 0 gave image 1: adding numbers mixes them up. Keep the three apart."),
    ):
        if distance(*step) == 0:
            raise NotYet(f"{why} ({student.text(0, 0, 1)} is {first[0, 0, 1]}.)")
    for step, what in (((0, 0, 1), "one image"), ((0, 1, 0), "one epoch"), ((1, 0, 0), "one seed")):
        if far := distance(*step):
            raise NotYet(
                f"From {what} to the next, the offset nearly always moves by {far} (modulo 9): that is a pattern, not a draw.",
                "random.Random(f'{seed} {epoch} {index}') mixes the three well.",
            )
    counts = Counter(first.values())
    missing = [offset for offset in range(9) if not counts[offset]]
    if missing:
        raise NotYet(f"In {len(keys)} draws there was no {missing[0]}: all offsets from 0 to 8 should come up.")
    often, times = counts.most_common(1)[0]
    if times > len(keys) / 4:
        raise NotYet(f"{times} of {len(keys)} draws gave {often}: every offset should come up about equally often.")
    return student.passed(f"{len(keys)} draws: repeatable in any order, and different for each image, epoch and seed.")
