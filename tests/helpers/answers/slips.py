"""Wrong solutions of the exercises that take more than one line."""

import math


def wire(ready, message):
    free = 0.0
    for at in ready:
        free = max(free, at) + message
    return free


def ahead_by(ahead, m):
    ahead = min(ahead, m)
    order = [("F", i) for i in range(ahead)]
    for i in range(m):
        order += [("F", ahead + i)] * (ahead + i < m) + [("B", i)]
    return order


def frozen(images, epoch, cache, decode, augment):
    for i, image in enumerate(images):
        if image not in cache:
            cache[image] = augment(decode(image), epoch, i)
    return [cache[image] for image in images]


def twice(images, epoch, cache, decode, augment):
    for i, image in enumerate(images):
        cache[image] = augment(cache[image] if image in cache else decode(image), epoch, i)
    return [cache[image] for image in images]


def partly(weights, grads, scale, lr):
    sound = all(map(math.isfinite, grads))
    after = [w - lr * g / scale if math.isfinite(g) else w for w, g in zip(weights, grads, strict=True)]
    return after, scale if sound else scale / 2


def pieces(images, parts):
    each = math.ceil(len(images) / parts)
    return [images[at : at + each] for at in range(0, len(images), each)]
