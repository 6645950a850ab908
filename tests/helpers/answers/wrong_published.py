"""Wrong answers to the exercises on the published table, which no check names as a known mistake."""

import math

from tests.helpers.answers import solutions as right


def counts(one="one device", every="all devices", both="both", neither="neither"):
    words = {"one device": one, "all devices": every, "both": both, "neither": neither}
    return lambda *given: words[right.batch_counts(*given)]


def changed(name, change):
    """The right answer, changed."""
    return lambda *given: change(getattr(right, name)(*given))


def left(images, rate, outside, own):
    return images / rate + outside - own


def values(rows, axis):
    return {row[axis] for row in rows}


def axes(holds, order=sorted):
    """The axes for which `holds(values of low rows, values of others)`."""
    return lambda low, others: order(axis for axis in low[0] if holds(values(low, axis), values(others, axis)))


def upside_down(*given):
    return sorted(right.axes_that_explain(*given), reverse=True)


WRONG = {
    "batch_counts": [
        ("turned round", counts("all devices", "one device")),
        ("never both", counts(both="neither")),
        ("both, not neither", counts(neither="both")),
        ("capitals", counts("One device", "All devices", "Both", "Neither")),
        ("always one", lambda *_: "one device"),
        ("always all", lambda *_: "all devices"),
        ("always neither", lambda *_: "neither"),
        ("devices", counts("one devices")),
        ("a list", changed("batch_counts", lambda word: [word])),
        ("a flag", lambda one, n, column: column == one),
        ("how many times", lambda one, n, column: column / one),
        ("divided", lambda one, n, column: right.batch_counts(one, n, column * n)),
        ("only two devices", lambda one, n, column: right.batch_counts(one, min(n, 2), column)),
        ("at least", lambda one, n, column: "all devices" if column >= one * n else "one device"),
    ],
    "images_trained": [
        ("a sum of times", lambda a, a_s, b, b_s: (a_s + b_s) / (1 / a + 1 / b)),
        ("no difference", lambda a, a_s, b, b_s: a_s / (1 / a - 1 / b)),
        ("50 epochs", lambda a, a_s, b, b_s: 50 * 50_000),
        ("the least product", lambda a, a_s, b, b_s: min(a * a_s, b * b_s) - 1),
        ("whole epochs", changed("images_trained", lambda n: round(n / 50_000) * 50_000)),
        ("rounded", changed("images_trained", lambda n: round(n, -4))),
        ("twice", changed("images_trained", lambda n: 2 * n)),
        ("millions", changed("images_trained", lambda n: n / 1e6)),
        ("a difference of products", lambda a, a_s, b, b_s: a * a_s - b * b_s),
        ("a mean rate", lambda a, a_s, b, b_s: (a + b) / 2 * (a_s + b_s) / 2),
        ("geometric", lambda a, a_s, b, b_s: math.sqrt(a * a_s * b * b_s)),
        ("always positive", lambda a, a_s, b, b_s: abs(a_s - b_s) * abs(a - b) / (a + b)),
        ("a pair", changed("images_trained", lambda n: (n, 0.0))),
    ],
    "outside_s": [
        ("a share of the epoch", lambda rate, total, epochs, images: 1 - epochs * images / rate / total),
        ("epochs of all", lambda rate, total, epochs, images: total * rate / images),
        ("rate upside down", lambda rate, total, epochs, images: total / epochs - rate / images),
        ("milliseconds", changed("outside_s", lambda s: 1000 * s)),
        ("50 epochs", lambda rate, total, epochs, images: total / 50 - images / rate),
        ("50,000 images", lambda rate, total, epochs, images: total / epochs - 50_000 / rate),
        ("rounded", changed("outside_s", lambda s: round(s, 1))),
        ("a ratio", lambda rate, total, epochs, images: total / epochs / (images / rate)),
        ("a sum", lambda rate, total, epochs, images: total / epochs + images / rate),
        ("one epoch less", lambda rate, total, epochs, images: total / (epochs - 1) - images / rate),
        ("an epoch of training less", lambda rate, total, epochs, images: (total - images / rate) / epochs),
        ("whole seconds", changed("outside_s", int)),
    ],
    "rate_needed": [
        ("never inf", lambda *given: given[0] / max(left(*given), 1e-9)),
        ("None for no speed", lambda *given: right.rate_needed(*given) if left(*given) > 0 else 0.0),
        ("inf at less than a second", lambda *given: given[0] / left(*given) if left(*given) > 1 else math.inf),
        ("always inf", lambda *given: math.inf),
        ("the pair's loss added", lambda images, rate, other, own: images / (images / rate + own - other)),
        ("without outside", lambda images, rate, other, own: images / (images / rate)),
        ("scaled by outside", lambda images, rate, other, own: rate * own / other if other else rate),
        ("seconds added to the rate", lambda images, rate, other, own: rate + own - other),
        ("50,000 images", lambda images, *given: right.rate_needed(50_000, *given)),
        ("rounded", changed("rate_needed", lambda rate: rate if math.isinf(rate) else round(rate))),
        ("never slower", lambda images, rate, other, own: max(rate, right.rate_needed(images, rate, other, own))),
        ("twice", changed("rate_needed", lambda rate: 2 * rate)),
        ("not a number", lambda *given: right.rate_needed(*given) if left(*given) > 0 else math.nan),
        ("minus inf", lambda *given: right.rate_needed(*given) if left(*given) > 0 else -math.inf),
    ],
    "losses": [
        ("four times", lambda one, small, cached, pair: right.losses(2 * one, 2 * small, cached, pair)),
        ("only the first is 2 ×", lambda one, small, cached, pair: [1 - small / one / 2, 1 - cached / small, 1 - pair / cached]),
        ("turned round", changed("losses", lambda shares: shares[::-1])),
        ("two of them", changed("losses", lambda shares: shares[:2])),
        ("the sum", changed("losses", sum)),
        ("negative", changed("losses", lambda shares: [-share for share in shares])),
        ("how many times", lambda one, small, cached, pair: [one / small, 2 * small / cached, cached / pair]),
        ("relative to after", lambda one, small, cached, pair: [one / small - 1, 2 * small / cached - 1, cached / pair - 1]),
        ("rounded", changed("losses", lambda shares: [round(share, 2) for share in shares])),
        (
            "relative to one GPU",
            lambda one, small, cached, pair: [1 - small / one, 2 * small / one - cached / one, (cached - pair) / one],
        ),
        ("cached and plain turned round", lambda one, small, cached, pair: right.losses(one, small, pair, cached)),
        ("images/s", lambda one, small, cached, pair: [2 * one - 2 * small, 2 * small - cached, cached - pair]),
        ("the whole first", changed("losses", lambda shares: [0.0, *shares])),
        ("logarithms", changed("losses", lambda shares: [-math.log(1 - share) for share in shares])),
    ],
    "memory_line": [
        ("through the larger", lambda b, m, c, n: (n, (n - m) / (c - b))),
        ("all by the larger", lambda b, m, c, n: (0.0, n / c)),
        ("the sign", lambda b, m, c, n: (m + (n - m) / (c - b) * b, (n - m) / (c - b))),
        ("the difference", lambda b, m, c, n: (n - m, (n - m) / (c - b))),
        ("upside down", lambda b, m, c, n: (m - (c - b) / (n - m) * b, (c - b) / (n - m))),
        ("proportional", lambda b, m, c, n: (m - b, (n - m) / (c - b))),
        ("the fixed part alone", changed("memory_line", lambda pair: pair[0])),
        ("3 copies", lambda b, m, c, n: (128.4, (m - 128.4) / b)),
        ("rounded", changed("memory_line", lambda pair: (round(pair[0]), round(pair[1], 1)))),
        ("three numbers", changed("memory_line", lambda pair: (*pair, 0.0))),
        ("means", lambda b, m, c, n: ((m + n) / 2, (n + m) / (c + b))),
        ("bytes", changed("memory_line", lambda pair: (pair[0] * 2**20, pair[1] * 2**20))),
        ("a set", changed("memory_line", set)),
    ],
    "residual_mib": [
        ("3 copies always", lambda column, n, p, images, image: column - 3 * p - image * images),
        ("4 copies always", lambda column, n, p, images, image: column - 4 * p - image * images),
        ("half the images", lambda column, n, p, images, image: column - n * p - image * images / 2),
        ("a size without a sign", changed("residual_mib", abs)),
        ("a share of the line", lambda column, n, p, images, image: column / (n * p + image * images) - 1),
        ("a share of the column", lambda column, n, p, images, image: 1 - (n * p + image * images) / column),
        ("percent", lambda column, n, p, images, image: 100 * column / (n * p + image * images) - 100),
        ("a ratio", lambda column, n, p, images, image: column / (n * p + image * images)),
        ("brackets forgotten", lambda column, n, p, images, image: column - n * p + image * images),
        ("everything times the images", lambda column, n, p, images, image: column - (n * p + image) * images),
        ("copies for each image", lambda column, n, p, images, image: column - n * (p + image * images)),
        ("rounded", changed("residual_mib", round)),
        ("two devices", lambda column, n, p, images, image: 2 * column - n * p - image * images),
        ("4.57 always", lambda column, n, p, images, image: column - n * p - 4.57 * images),
    ],
    "axes_that_explain": [
        ("the first row alone", lambda low, others: right.axes_that_explain(low[:1], others)),
        ("the last row alone", lambda low, others: right.axes_that_explain(low[-1:], others)),
        ("the first of the others", lambda low, others: right.axes_that_explain(low, others[:1])),
        ("the last of the others", lambda low, others: right.axes_that_explain(low, others[-1:])),
        ("one value, which no other has", axes(lambda ours, theirs: len(ours) == 1 and not ours & theirs)),
        ("some value is new", axes(lambda ours, theirs: bool(ours - theirs))),
        ("some other value is missing", axes(lambda ours, theirs: bool(theirs - ours))),
        ("the others have one value", axes(lambda ours, theirs: len(theirs) == 1)),
        ("sorted down", upside_down),
        ("nothing", lambda low, others: []),
        ("a text", lambda low, others: ", ".join(right.axes_that_explain(low, others))),
        ("a set", lambda low, others: set(right.axes_that_explain(low, others))),
        ("how many", lambda low, others: len(right.axes_that_explain(low, others))),
        ("the values", lambda low, others: sorted(v for a in right.axes_that_explain(low, others) for v in values(low, a))),
    ],
    "chance_points": [
        ("three errors", changed("chance_points", lambda points: 1.5 * points)),
        ("1.96 errors", changed("chance_points", lambda points: 0.98 * points)),
        ("n − 1", lambda accuracy, n: right.chance_points(accuracy, n - 1)),
        ("p twice", lambda accuracy, n: 200 * math.sqrt(2 * (accuracy / 100) ** 2 / n)),
        ("1 − p twice", lambda accuracy, n: 200 * math.sqrt(2 * (1 - accuracy / 100) ** 2 / n)),
        ("p alone", lambda accuracy, n: 200 * math.sqrt(2 * accuracy / 100 / n)),
        ("half and half always", lambda accuracy, n: right.chance_points(50.0, n)),
        ("10,000 images always", lambda accuracy, n: right.chance_points(accuracy, 10_000)),
        ("images", lambda accuracy, n: right.chance_points(accuracy, n) * n / 100),
        ("the root of n forgotten", lambda accuracy, n: 200 * math.sqrt(2 * accuracy / 100 * (1 - accuracy / 100)) / n),
        ("rounded", changed("chance_points", lambda points: round(points, 2))),
        ("2 under the root", changed("chance_points", lambda points: points / math.sqrt(2) * 1.5)),
        ("half", changed("chance_points", lambda points: points / 4)),
    ],
}
