"""Wrong answers to the exercises on images, caches and random draws, which no check names as a known mistake."""

import itertools
import random


def share(order, rank, n):
    each = len(order) // n
    return order[rank * each : (rank + 1) * each]


def rounded_up(order, rank, n):
    each = -(-len(order) // n)
    return order[rank * each : (rank + 1) * each]


def padded(order, rank, n):
    each = -(-len(order) // n)
    return (order + order)[rank * each : (rank + 1) * each]


def shuffled(order, rank, n):
    random.shuffle(order)
    return share(order, rank, n)


def rest_to_the_last(order, rank, n):
    return share(order, rank, n) + (order[len(order) // n * n :] if rank == n - 1 else [])


def cached(key, decode_again=False, pick=lambda image, index: image):
    """A cache with a wrong key, or one that decodes too often."""

    def epoch_of(images, epoch, cache, decode, augment):
        pictures = []
        for index, image in enumerate(images):
            if key(image, epoch, index) not in cache or decode_again:
                cache[key(image, epoch, index)] = decode(image)
            pictures.append(augment(cache[key(image, epoch, index)], epoch, index))
        return pictures

    return epoch_of


def own_cache():
    own = {}

    def epoch_of(images, epoch, cache, decode, augment):
        return cached(lambda image, *_: image)(images, epoch, own, decode, augment)

    return epoch_of


def good(images, cache, decode):
    for image in images:
        if image not in cache:
            cache[image] = decode(image)
    return [cache[image] for image in images]


def cleared(images, epoch, cache, decode, augment):
    cache.clear()
    return [augment(picture, epoch, i) for i, picture in enumerate(good(images, cache, decode))]


def whole_cache(images, epoch, cache, decode, augment):
    good(images, cache, decode)
    return [augment(picture, epoch, i) for i, picture in enumerate(cache.values())]


def once_augmented(images, epoch, cache, decode, augment):
    fresh = not cache
    pictures = good(images, cache, decode)
    return [augment(picture, epoch, i) for i, picture in enumerate(pictures)] if fresh else pictures


def first_epoch_only(images, epoch, cache, decode, augment):
    if epoch == 0:
        good(images, cache, decode)
    return [augment(cache[image], epoch, i) for i, image in enumerate(images)]


def by_length(images, epoch, cache, decode, augment):
    if len(cache) < len(images):
        cache.update((image, decode(image)) for image in images)
    return [augment(cache[image], epoch, i) for i, image in enumerate(images)]


def augmented(order=lambda images: images, arguments=lambda epoch, index: (epoch, index)):
    def epoch_of(images, epoch, cache, decode, augment):
        images = order(images)
        return [augment(picture, *arguments(epoch, i)) for i, picture in enumerate(good(images, cache, decode))]

    return epoch_of


def drawn(key):
    return lambda seed, epoch, index: random.Random(key(seed, epoch, index)).randint(0, 8)


def a_stream():
    stream = random.Random(0)
    return lambda seed, epoch, index: stream.randint(0, 8)


def a_counter():
    count = itertools.count()
    return lambda seed, epoch, index: random.Random(f"{seed} {epoch} {index} {next(count) // 100}").randint(0, 8)


WRONG = {
    "shard_of": [
        ("the sorted order", lambda order, rank, n: share(sorted(order), rank, n)),
        ("the sorted order, in strides", lambda order, rank, n: sorted(order)[: len(order) // n * n][rank::n]),
        ("a set", lambda order, rank, n: share(list(set(order)), rank, n)),
        ("rounded up", rounded_up),
        ("filled up from the front", padded),
        ("drawn at random", lambda order, rank, n: random.sample(order, len(order) // n)),
        ("drawn from a generator of the rank's", lambda order, rank, n: random.Random(rank).sample(order, len(order) // n)),
        ("shuffled once more", shuffled),
        ("shifted by one", lambda order, rank, n: order[rank : rank + len(order) // n]),
        ("world_size images", lambda order, rank, n: order[rank * n : (rank + 1) * n]),
        ("nearly equal shares", lambda order, rank, n: order[rank * len(order) // n : (rank + 1) * len(order) // n]),
        ("by the image's number", lambda order, rank, n: [image for image in order if image % n == rank]),
        ("the last rank takes the rest", rest_to_the_last),
        ("positions", lambda order, rank, n: list(range(rank * (len(order) // n), (rank + 1) * (len(order) // n)))),
        ("shares of all ranks", lambda order, rank, n: [share(order, r, n) for r in range(n)]),
        ("one image fewer", lambda order, rank, n: share(order, rank, n)[1:]),
        ("at least one", lambda order, rank, n: share(order, rank, n) or order[:1]),
    ],
    "cached_epoch": [
        ("kept by position", cached(lambda image, epoch, index: index)),
        ("kept by epoch", cached(lambda image, epoch, index: (image, epoch))),
        ("kept by the first letter", cached(lambda image, epoch, index: image[0])),
        ("kept by the ending", cached(lambda image, epoch, index: image[-4:])),
        ("decoded every time", cached(lambda image, epoch, index: image, decode_again=True)),
        ("a cache of its own", own_cache()),
        ("the cache is emptied", cleared),
        ("all that the cache holds", whole_cache),
        ("augmented in the first epoch", once_augmented),
        ("decoded in epoch 0 only", first_epoch_only),
        ("decoded all if the cache is small", by_length),
        ("index 0", augmented(arguments=lambda epoch, index: (epoch, 0))),
        ("epoch 0", augmented(arguments=lambda epoch, index: (0, index))),
        ("counted from 1", augmented(arguments=lambda epoch, index: (epoch, index + 1))),
        ("swapped", augmented(arguments=lambda epoch, index: (index, epoch))),
        ("sorted", augmented(order=sorted)),
        ("reversed", augmented(order=lambda images: images[::-1])),
        ("no doubles", augmented(order=lambda images: list(dict.fromkeys(images))[:2])),
    ],
    "crop_offset": [
        ("1000 s + 100 e + i", drawn(lambda seed, epoch, index: 1000 * seed + 100 * epoch + index)),
        ("10**6 s + 10**4 e + i", drawn(lambda seed, epoch, index: 10**6 * seed + 10**4 * epoch + index)),
        ("1000 e + i, seeds apart", drawn(lambda seed, epoch, index: f"{seed} {1000 * epoch + index}")),
        ("100 s + e, images apart", drawn(lambda seed, epoch, index: f"{100 * seed + epoch} {index}")),
        ("nothing in between", drawn(lambda seed, epoch, index: f"{seed}{epoch}{index}")),
        ("sorted", drawn(lambda seed, epoch, index: str(sorted((seed, epoch, index))))),
        ("exclusive or", drawn(lambda seed, epoch, index: seed ^ epoch ^ index)),
        ("epoch times index", drawn(lambda seed, epoch, index: f"{seed} {epoch * index}")),
        ("100 images", drawn(lambda seed, epoch, index: f"{seed} {epoch} {index % 100}")),
        ("two epochs", drawn(lambda seed, epoch, index: f"{seed} {epoch % 2} {index}")),
        ("two seeds", drawn(lambda seed, epoch, index: f"{seed % 2} {epoch} {index}")),
        ("changes every two epochs", drawn(lambda seed, epoch, index: f"{seed} {epoch // 2} {index}")),
        ("no new ones after epoch 5", drawn(lambda seed, epoch, index: f"{seed} {min(epoch, 5)} {index}")),
        ("a pair of images alike", drawn(lambda seed, epoch, index: f"{seed} {epoch} {index // 2}")),
        ("hash of a text", lambda seed, epoch, index: hash(f"{seed} {epoch} {index}") % 9),
        ("hash of a text as seed", lambda s, e, i: random.Random(hash(f"{s}/{e}/{i}")).randint(0, 8)),
        ("a rounded share", lambda *key: round(random.Random(str(key)).random() * 8)),
        ("never 0", lambda *key: random.Random(str(key)).randint(1, 8)),
        ("bell-shaped", lambda *key: max(0, min(8, round(random.Random(str(key)).gauss(4, 2))))),
        ("two dice", lambda *key: sum(random.Random(str(key)).choices(range(5), k=2))),
        ("three offsets", lambda *key: random.Random(str(key)).choice([0, 4, 8])),
        ("a product", lambda seed, epoch, index: (seed + 1) * (epoch + 1) * (index + 1) % 9),
        ("a square", lambda seed, epoch, index: (index * index + 2 * epoch + 5 * seed) % 9),
        ("one stream for all", a_stream()),
        ("a counter", a_counter()),
    ],
}
