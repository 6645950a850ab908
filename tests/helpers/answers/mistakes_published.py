"""Typical wrong solutions of the exercises on the published table, each with the words that the verdict must contain."""

import math
from collections.abc import Callable
from typing import Any

from tests.helpers.answers import solutions as right

# exercise -> [(wrong function, words that the verdict must contain)]
MISTAKES: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "batch_counts": [
        (lambda one, n, column: "one device" if column == one else "all devices", "the two are the same number"),
        (lambda one, n, column: "all devices" if column == one * n else "one device", "the two are the same number"),
        (lambda one, n, column: "both", "two are different numbers"),
        (lambda one, n, column: column // one, "128 × 2 = 256"),
    ],
    "images_trained": [
        (lambda a, a_s, b, b_s: a * a_s, "counts the 3 s outside training"),
        (lambda a, a_s, b, b_s: b * b_s, "of the second row"),
        (lambda a, a_s, b, b_s: (a * a_s + b * b_s) / 2, "the mean of images/s"),
        (lambda a, a_s, b, b_s: (a_s - b_s) / (1 / b - 1 / a), "The sign is wrong"),
        (lambda a, a_s, b, b_s: (b_s - a_s) * (a - b), "seconds per image"),
        (lambda a, a_s, b, b_s: right.images_trained(a, a_s, b, b_s) / 50_000, "a number of epochs"),
        (lambda a, a_s, b, b_s: a_s - right.images_trained(a, a_s, b, b_s) / a, "The images are asked"),
    ],
    "outside_s": [
        (lambda rate, total, epochs, images: total - epochs * images / rate, "the seconds of all 50 epochs"),
        (lambda rate, total, epochs, images: images / rate, "seconds of training in an epoch"),
        (lambda rate, total, epochs, images: total / epochs, "training too"),
        (lambda rate, total, epochs, images: images / rate - total / epochs, "The sign is wrong"),
        (lambda rate, total, epochs, images: total - images / rate, "of one epoch from the time of all"),
    ],
    "rate_needed": [
        (lambda images, rate, other, own: rate, "With an equal speed"),
        (lambda images, rate, other, own: images / (images / rate + other - own), "so no speed is enough"),
        (lambda images, rate, other, own: images / (images / rate + other + own), "do not add them"),
        (lambda images, rate, other, own: images / (images / rate - own), "belong to its epoch, too"),
        (lambda images, rate, other, own: images / rate + other - own, "Divide the images by them"),
        (lambda images, rate, other, own: rate * (images / rate + own) / (images / rate + other), "compares whole epochs"),
    ],
    "losses": [
        (lambda one, small, cached, pair: [1 - small / one, 1 - cached / small, 1 - pair / cached], "Your ideal is 1 × 4950"),
        (lambda one, small, cached, pair: [small / one, cached / small / 2, pair / cached], "These shares are kept"),
        (lambda *rates: [100 * share for share in right.losses(*rates)], "These are percent"),
        (lambda one, *rates: [1 - rate / one / 2 for rate in (2 * rates[0], *rates[1:])], "lost in all"),
        (
            lambda one, small, cached, pair: [1 - small / one, (2 * small - cached) / one / 2, (cached - pair) / one / 2],
            "These are shares of the ideal",
        ),
    ],
    "memory_line": [
        (lambda *given: right.memory_line(*given)[::-1], "in the other order"),
        (lambda batch, mib, *larger: (0.0, mib / batch), "a part of it does not depend on the batch"),
        (lambda batch, mib, *larger: (mib, right.memory_line(batch, mib, *larger)[1]), "not that of the smaller batch"),
        (lambda *given: right.memory_line(*given)[1], "10 images more take 100 MiB more"),
    ],
    "residual_mib": [
        (lambda column, n, p, images, image: n * p + image * images - column, "The sign is wrong"),
        (lambda column, n, p, images, image: column - n * p - 2 * image * images, "the images of two devices"),
        (lambda column, n, p, images, image: n * p + image * images, "This is the line"),
        (lambda column, n, p, images, image: column - p - image * images, "There are 3 copies of P, not one"),
        (lambda column, n, p, images, image: column - image * images, "The copies of P are missing"),
        (lambda column, n, p, images, image: column - n * p, "The images are missing"),
    ],
    "axes_that_explain": [
        (lambda low, others: [a for a in low[0] if right.axes_that_explain(low, others).count(a)], "but not sorted"),
        (lambda low, others: sorted(a for a in low[0] if len({row[a] for row in low}) == 1), "Do other rows have it, too?"),
        (lambda low, others: sorted(a for a in low[0] if {r[a] for r in low} != {r[a] for r in others}), "but some are in both"),
        (lambda low, others: sorted(set(low[0]) - set(right.axes_that_explain(low, others))), "do not separate the rows"),
    ],
    "chance_points": [
        (lambda accuracy, n: right.chance_points(accuracy, n) / 100, "Points are percent"),
        (lambda accuracy, n: right.chance_points(accuracy, n) / math.sqrt(2), "two standard errors of one row"),
        (lambda accuracy, n: right.chance_points(accuracy, n) / math.sqrt(8), "one standard error of one row"),
        (lambda accuracy, n: right.chance_points(accuracy, n) / 2, "one standard error of the difference"),
        (lambda accuracy, n: right.chance_points(accuracy, n) * math.sqrt(2), "do not add"),
        (lambda accuracy, n: 200 * math.sqrt(2 * accuracy * (1 - accuracy) / n), "raised ValueError"),
    ],
}
