"""Exercises on images: which rank trains which, the steps of an epoch, what a cache may keep, and how to draw random numbers that every rank agrees on."""

import math
from collections import Counter

from labkit.checks.judge import NotYet, Student, Verdict, exercise, shown, whole


@exercise(
    signature="shard_of(order: list[int], rank: int, world_size: int) -> list[int]",
    returns="the images that this rank trains in this epoch, out of `order`",
)
def check_shard_of(student: Student) -> Verdict:
    """Which images of an epoch does a rank train? `order` is the shuffled list of image numbers, the same list on every rank.

    All ranks get the same number of images, as many as possible, and no image is trained twice. The images that are left over are
    left out. The positions that a rank takes must not depend on the image numbers. (So does torch's DistributedSampler with
    drop_last=True.)"""
    table = ""
    for order, n in (([40, 10, 30, 20, 60, 50, 70], 3), ([4, 9], 3), ([5, 3, 1], 1), ([7, 2, 5, 0, 3, 6, 1, 4], 2)):
        shards = [shard(student, order, rank, n) for rank in range(n)]
        table = "\n".join(f"rank {rank}: {shown(images)}" for rank, images in enumerate(shards))
        what = f"{len(order)} images, {n} ranks:"
        for image, times in Counter(image for images in shards for image in images).items():
            if image not in order:
                raise NotYet(
                    f"{what} image {image} is not in order = {shown(order)}.",
                    "Return images, which are elements of order, not positions.",
                    table,
                )
            if times > 1:
                raise NotYet(
                    f"{what} image {image} is trained {times} times in the epoch.", "Does your answer depend on `rank`?", table
                )
        sizes = [len(images) for images in shards]
        if len(set(sizes)) > 1:
            raise NotYet(
                f"{what} the ranks have {shown(sizes)} images. A rank with more images would wait for ever in its last step.",
                "Give every rank len(order) // world_size images, and leave out the rest.",
                table,
            )
        if sizes[0] < len(order) // n:
            raise NotYet(f"{what} the number of images on each rank is {sizes[0]}, expected {len(order) // n}.", "", table)
        positions = [[order.index(image) for image in images] for images in shards]
        turned = order[::-1]
        for rank in range(n):
            wanted, got = [turned[at] for at in positions[rank]], shard(student, turned, rank, n)
            if got != wanted:
                raise NotYet(
                    f"{student.text(turned, rank, n)} returned {shown(got)}, expected {shown(wanted)}: this rank took the positions "
                    f"{shown(positions[rank])} of order = {shown(order)}. The shuffled order must decide, not the image numbers.",
                    "Take a slice of order as it is. Do not sort it, and do not draw again.",
                )
    return student.passed(
        "All ranks have the same number of images, and no image comes twice. So no rank waits in its last step.", table
    )


def shard(student: Student, order: list[int], rank: int, n: int) -> list[int]:
    """The images that the student's function gives to one rank. Raises NotYet if they are not a list of whole numbers."""
    images = student(list(order), rank, n)
    if not isinstance(images, list) or not all(map(whole, images)):
        raise NotYet(f"{student.text(order, rank, n)} returned {shown(images)}, expected a list of images out of `order`.")
    return images


@exercise(
    signature="steps_per_epoch(images: int, batch_per_rank: int, world_size: int, drop_last: bool) -> int",
    returns="the number of steps that each rank makes in an epoch",
)
def check_steps_per_epoch(student: Student) -> Verdict:
    """How many steps has an epoch? All ranks make each step together, with `batch_per_rank` images on each rank.

    With `drop_last` True, the images that do not fill a last step are left out. With False, one more step trains them."""
    for images, batch, n in ((50_000, 128, 2), (50_000, 64, 2), (1000, 250, 4), (1001, 250, 2), (10_001, 2500, 2), (100, 128, 2)):
        exact = images / (batch * n)
        left = images - math.floor(exact) * batch * n
        for drop, expected, other in ((True, math.floor(exact), math.ceil(exact)), (False, math.ceil(exact), math.floor(exact))):
            one_rank = "This counts for one rank alone. Together the ranks train world_size times as many images in a step."
            student.gives(
                (images, batch, n, drop),
                expected=expected,
                why=f"A step takes {batch} × {n} images. After {math.floor(exact)} full steps, {left} images are left.",
                mistakes=[
                    (
                        other,
                        f"{left} images are left after the full steps. {'Leave them out.' if drop else 'They need one more step.'}",
                    ),
                    (exact, "A step is whole: round down or up."),
                    (images // batch, one_rank),
                    (-(-images // batch), one_rank),
                ],
            )
    return student.passed("With twice the ranks or twice the batch, an epoch has half the steps, and so half the updates.")


@exercise(
    signature="cached_epoch(images: list[str], epoch: int, cache: dict, decode, augment) -> list",
    returns="the epoch's augmented pictures, in the order of `images`",
)
def check_cached_epoch(student: Student) -> Verdict:
    """One epoch of a rank with a cache: decode each image once in the whole training, augment it in every epoch.

    `decode(image)` is slow and always returns the same picture. `augment(picture, epoch, index)` makes a random crop; `index` is the
    image's place in `images`, from 0. `cache` is a dict that lasts for the training and is empty at first. In the next epoch
    `images` may have another order and other images, because the images are shuffled again."""
    for training, names in (("", ["cat.png", "dog.png", "ship.png", "car.png"]), ("-2", ["dog.png", "cat.png", "ship.png"])):
        cache, decoded = {}, Counter()  # a second training has a cache of its own
        seen: list[list[str]] = []

        def decode(image: str, decoded: Counter = decoded, training: str = training) -> str:
            decoded[image] += 1
            return f"pixels{training} of {image}"

        def augment(picture: str, epoch: int, index: int) -> str:
            return f"crop {epoch}.{index} of {picture}"

        for epoch, images in enumerate((names[:3], names[2::-1], [names[-1], names[0], names[1]])):
            call = f"cached_epoch({shown(images)}, {epoch}, cache, decode, augment)"
            got = student(list(images), epoch, cache, decode, augment)
            wanted = [f"crop {epoch}.{i} of pixels{training} of {image}" for i, image in enumerate(images)]
            table = "\n".join(f"epoch {number}: {shown(pictures)}" for number, pictures in enumerate([*seen, got]))
            if isinstance(got, list) and got != wanted:
                if any(picture in earlier for earlier in seen for picture in got):
                    raise NotYet(
                        f"{call} returned pictures of an earlier epoch: the augmentation is frozen. The cache keeps augmented pictures, so "
                        "the network always sees the same crops. A guess: this error cost two published rows 18 points of accuracy.",
                        "Put what decode returns into the cache. Augment what you take out of the cache.",
                        table,
                    )
                if any(str(picture).count("crop") > 1 for picture in got):
                    raise NotYet(
                        f"{call} augmented a picture twice.", "Keep decoded pictures in the cache, not augmented ones.", table
                    )
                if training and any("pixels of" in str(picture) for picture in got):
                    raise NotYet(
                        f"{call} used pictures of an earlier training: this training began with an empty cache.",
                        "Use the `cache` that is given, and no other one.",
                        table,
                    )
            if got != wanted:
                raise NotYet(
                    f"{call} returned {shown(got)}, expected {shown(wanted)}.",
                    "Find a picture in the cache by the name of its image. Augment with the epoch and the place in `images`.",
                    table,
                )
            again = [image for image, times in decoded.items() if times > 1]
            if again:
                raise NotYet(
                    f"After epoch {epoch}, {again[0]} was decoded {decoded[again[0]]} times. The cache was not used.",
                    "Look into the cache first: `if image not in cache: cache[image] = …`",
                    table,
                )
            seen.append(got)
    return student.passed("Each image was decoded once, and every epoch had new crops: fast, and as random as before.", table)


@exercise(
    signature="crop_offset(seed: int, epoch: int, index: int) -> int",
    returns="a whole number from 0 to 8, drawn for this image in this epoch",
)
def check_crop_offset(student: Student) -> Verdict:
    """Draw where image `index` is cropped in an epoch. The result depends on (seed, epoch, index) alone.

    Every rank gets the same number for the same three, in whatever order it asks, also in another process. Every epoch, every image
    (there may be 50,000) and every seed draws anew. The numbers 0 to 8 are equally likely."""
    if "hash" in getattr(getattr(student.function, "__code__", None), "co_names", ()):
        raise NotYet(
            "crop_offset uses hash(). Python gives a text another hash in every process, so two ranks would crop the same image differently.",
            "Do not use hash(). random.Random(f'{seed} {epoch} {index}') draws the same in every process.",
        )

    def draw(seed: int, epoch: int, index: int) -> int:
        value = student(seed, epoch, index)
        if not whole(value) or not 0 <= value <= 8:
            raise NotYet(f"{student.text(seed, epoch, index)} returned {shown(value)}, expected a whole number from 0 to 8.")
        return value

    rows = {(0, epoch): 16 for epoch in range(120)} | {(1, epoch): 16 for epoch in range(4)}  # how many images, from image 0 on
    rows |= {(seed, 0): 16 for seed in range(2, 12)} | {(0, 0): 3000, (0, 1): 64}
    first = {(seed, epoch, index): draw(seed, epoch, index) for (seed, epoch), images in rows.items() for index in range(images)}
    first |= {(0, 0, start + index): draw(0, 0, start + index) for start in (10_000, 2**14) for index in range(LONG)}
    for key in reversed(first):
        if (later := draw(*key)) != first[key]:
            raise NotYet(
                f"{student.text(*key)} returned {first[key]} at first and {later} later. Two ranks would crop the same image "
                "differently, and so would a second run.",
                "Make a new generator from the three numbers: random.Random(f'{seed} {epoch} {index}').",
            )
    require_varied(student, first)
    counts, each = Counter(first.values()), len(first) / 9
    for offset in range(9):
        if not each * 0.75 < counts[offset] < each * 1.25:
            raise NotYet(
                f"{counts[offset]} of {len(first)} draws returned {offset}, expected about {each:.0f}: all numbers from 0 to 8 must be "
                "equally likely.",
                "randint(0, 8) of a generator draws the numbers 0 to 8 equally often.",
            )
    require_distinct(first)
    return student.passed(f"{len(first)} draws: the same in any order, and different for each image, epoch and seed.")


LONG = 10  # two draws agree by chance in 1 of 9 cases; ten in a row in 1 of 3.5 thousand million


def require_varied(student: Student, first: dict[tuple[int, int, int], int]) -> None:
    """The next epoch, image or seed must not usually move a draw by the same distance. Raises NotYet if it does."""
    near = [key for key in first if key[0] < 2 and key[1] < 4 and key[2] < 16]
    for what, step in (("epoch", (0, 1, 0)), ("image", (0, 0, 1)), ("seed", (1, 0, 0))):
        pairs = [(key, (key[0] + step[0], key[1] + step[1], key[2] + step[2])) for key in near]
        apart = Counter((first[other] - first[key]) % 9 for key, other in pairs if other in first)
        far, times = apart.most_common(1)[0]
        if times <= apart.total() / 2:
            continue
        key, other = next((key, other) for key, other in pairs if other in first and (first[other] - first[key]) % 9 == far)
        both = f"{student.text(*key)} returned {first[key]} and {student.text(*other)} returned {first[other]}"
        raise NotYet(
            f"{both}: usually the next {what} gets the same offset. The {what} must change the draw."
            if far == 0
            else f"{both}: usually the next {what} moves the offset by {far} (modulo 9). This is a pattern, not a draw.",
            "random.Random(f'{seed} {epoch} {index}') mixes the three numbers well.",
        )


def require_distinct(first: dict[tuple[int, int, int], int]) -> None:
    """No images may get, one after the other, the draws of other images, epochs or seeds. Raises NotYet if they do."""
    runs: dict[tuple[int, ...], tuple[int, int, int]] = {}  # where each run of draws begins
    for s, e, i in first:
        if (s, e, i + LONG - 1) not in first:
            continue
        s2, e2, i2 = runs.setdefault(tuple(first[s, e, i + more] for more in range(LONG)), (s, e, i))
        if (s, e, i) != (s2, e2, i2) and 0 in (i, i2):
            raise NotYet(
                f"Seed {s}, epoch {e} draws for the images {i} to {i + LONG - 1} exactly what seed {s2}, epoch {e2} draws for the images "
                f"{i2} to {i2 + LONG - 1}. Different numbers (seed, epoch, index) must not give the same draw.",
                "random.Random(f'{seed} {epoch} {index}') keeps the three apart. Adding or joining numbers mixes them up.",
            )
