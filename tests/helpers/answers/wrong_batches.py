"""Wrong answers to the exercises on the batch, which no check names as a known mistake."""

import math
import statistics

from tests.helpers.answers import solutions as right
from tests.helpers.answers.slips import pieces


def weighted(means, weights):
    return sum(m * w for m, w in zip(means, weights, strict=True)) / (sum(weights) or 1)


def pooled(between):
    def statistics_of(means, variances, counts):
        mean = weighted(means, counts)
        return mean, weighted([v + between(m - mean) for m, v in zip(means, variances, strict=True)], counts)

    return statistics_of


def from_first(means, variances, counts):
    apart = [v + (m - means[0]) ** 2 for m, v in zip(means, variances, strict=True)]
    return weighted(means, counts), weighted(apart, counts)


def less_one(variances, counts):
    return [v * c / max(1, c - 1) for v, c in zip(variances, counts, strict=True)]


def rate(part=lambda step, warmup: min(1.0, (step + 1) / warmup) if warmup else 1.0, times=lambda base, batch: batch / base):
    return lambda step, lr, base, batch, warmup: lr * times(base, batch) * part(step, warmup)


def warmed(inside, after=lambda step, warmup: 1.0):
    return rate(part=lambda step, warmup: inside(step, warmup) if step < warmup else after(step, warmup))


def gradual(step, lr, base, batch, warmup):
    peak = lr * batch / base
    return lr + (peak - lr) * (step + 1) / warmup if step < warmup else peak


def fixed(images, parts):
    each = max(1, len(images) // parts)
    return [images[i * each : (i + 1) * each] for i in range(parts)]


def rest_at_the_end(gradient, images, parts):
    each = len(images) // parts
    cut = [images[i * each : (i + 1) * each] for i in range(parts - 1)] + [images[(parts - 1) * each :]]
    return sum(gradient(part) * len(part) for part in cut) / len(images)


def halved_in_turn(gradient, images, parts):
    first, *others = map(gradient, pieces(images, parts))
    for one in others:
        first = (first + one) / 2
    return first


def strided(gradient, images, parts):
    cut = [images[i::parts] for i in range(parts)]
    return sum(map(gradient, cut)) / parts


def overlapping(gradient, images, parts):
    each = -(-len(images) // parts)
    cut = [images[i : i + each] for i in range(len(images) - each + 1)]
    return sum(map(gradient, cut)) / len(cut)


def summed(over):
    return lambda gradient, images, parts: sum(map(gradient, pieces(images, parts))) / over(images, parts)


WRONG = {
    "steps_per_epoch": [
        ("rounded to the nearest", lambda images, batch, n, drop: round(images / (batch * n))),
        ("always one more", lambda images, batch, n, drop: images // (batch * n) + (not drop)),
        ("times the ranks", lambda images, batch, n, drop: right.steps_per_epoch(images, batch, 1, drop) * n),
        ("steps of all ranks", lambda images, batch, n, drop: right.steps_per_epoch(images, batch, n, drop) * n),
        ("images of a rank rounded down", lambda images, batch, n, drop: right.steps_per_epoch(images // n, batch, 1, drop)),
        ("at least one", lambda images, batch, n, drop: max(1, right.steps_per_epoch(images, batch, n, drop))),
        ("the other way round", lambda images, batch, n, drop: right.steps_per_epoch(images, batch, n, not drop)),
        ("images that are trained", lambda images, batch, n, drop: images - images % (batch * n) if drop else images),
        ("rounded up by 0.999", lambda images, batch, n, drop: int(images / (batch * n) + (0 if drop else 0.999))),
        ("rounded up by one batch", lambda images, batch, n, drop: (images + (0 if drop else batch - 1)) // (batch * n)),
        ("the last step if half full", lambda images, batch, n, drop: int(images / (batch * n) + (0 if drop else 0.5))),
        ("the sum of batch and ranks", lambda images, batch, n, drop: right.steps_per_epoch(images, batch + n, 1, drop)),
        ("two ranks always", lambda images, batch, n, drop: right.steps_per_epoch(images, batch, 2, drop)),
        ("the rest alone", lambda images, batch, n, drop: images % (batch * n)),
    ],
    "mean_loss": [
        ("the largest batch's", lambda means, counts: means[counts.index(max(counts))]),
        ("the median", lambda means, counts: statistics.median(means)),
        ("the first rank's", lambda means, counts: means[0]),
        ("the largest", lambda means, counts: max(means)),
        ("means over images", lambda means, counts: sum(means) / sum(counts)),
        ("weights squared", lambda means, counts: weighted(means, [c * c for c in counts])),
        ("roots as weights", lambda means, counts: weighted(means, [math.sqrt(c) for c in counts])),
        ("small batches count more", lambda means, counts: weighted(means, [1 / c if c else 0 for c in counts])),
        ("weights the wrong way round", lambda means, counts: weighted(means, counts[::-1])),
        (
            "as if all were as the first",
            lambda means, counts: right.mean_loss(means, counts) * sum(counts) / counts[0] / len(counts),
        ),
        ("as the largest", lambda means, counts: right.mean_loss(means, counts) * sum(counts) / max(counts) / len(counts)),
        ("rounded to two places", lambda means, counts: round(right.mean_loss(means, counts), 2)),
        ("whole", lambda means, counts: right.mean_loss(means, counts) // 1),
        ("full batches only", lambda means, counts: weighted(means, [c if c == max(counts) else 0 for c in counts])),
        ("empty ones left out", lambda means, counts: statistics.mean(m for m, c in zip(means, counts, strict=True) if c)),
    ],
    "sync_statistics": [
        ("the first rank's", lambda means, variances, counts: (means[0], variances[0])),
        ("the mean alone", lambda means, variances, counts: weighted(means, counts)),
        ("sums", lambda means, variances, counts: (sum(means), sum(variances))),
        ("the largest rank's", lambda means, variances, counts: max(zip(counts, means, variances, strict=True))[1:]),
        ("medians", lambda means, variances, counts: (statistics.median(means), statistics.median(variances))),
        ("the largest variance", lambda means, variances, counts: (weighted(means, counts), max(variances))),
        ("distances not squared", pooled(lambda off: abs(off))),
        ("distances to the fourth", pooled(lambda off: off**4)),
        ("between subtracted", pooled(lambda off: -off * off)),
        ("between halved", pooled(lambda off: off * off / 2)),
        ("between from the first mean", lambda means, variances, counts: from_first(means, variances, counts)),
        ("unbiased within each rank", lambda means, v, counts: right.sync_statistics(means, less_one(v, counts), counts)),
        ("counts squared", lambda means, v, counts: right.sync_statistics(means, v, [c * c for c in counts])),
        ("counts the wrong way round", lambda means, v, counts: right.sync_statistics(means, v, counts[::-1])),
        ("rounded", lambda means, v, counts: [round(x, 2) for x in right.sync_statistics(means, v, counts)]),
    ],
    "learning_rate": [
        ("from the base rate on", gradual),
        ("one step too long", warmed(lambda step, warmup: (step + 1) / (warmup + 1))),
        ("a square", warmed(lambda step, warmup: ((step + 1) / warmup) ** 2)),
        ("one step early", warmed(lambda step, warmup: min(1.0, (step + 2) / warmup))),
        ("never above the first", warmed(lambda step, warmup: 1 / warmup)),
        ("half while it warms up", warmed(lambda step, warmup: 0.5)),
        ("0 without a warm-up", rate(part=lambda step, warmup: min(1.0, (step + 1) / warmup) if warmup else 0.0)),
        (
            "falls after 30 steps",
            rate(part=lambda step, warmup: right.learning_rate(step, 1, 1, 1, warmup) * 0.1 ** (step // 30)),
        ),
        ("falls after 100 steps", warmed(lambda step, warmup: (step + 1) / warmup, lambda step, warmup: 0.1 ** (step // 100))),
        ("falls as a cosine", warmed(lambda step, warmup: (step + 1) / warmup, lambda step, w: math.cos(step / 1000))),
        ("a whole k", rate(times=lambda base, batch: batch // base)),
        ("k at least 1", rate(times=lambda base, batch: max(1.0, batch / base))),
        ("k at most 2", rate(times=lambda base, batch: min(2.0, batch / base))),
        ("k + 1", rate(times=lambda base, batch: 1 + batch / base)),
        ("256 always", rate(times=lambda base, batch: batch / 256)),
        ("0.1 always", lambda step, lr, base, batch, warmup: right.learning_rate(step, 0.1, base, batch, warmup)),
        (
            "warm-up for large batches only",
            lambda step, lr, base, batch, warmup: right.learning_rate(step, lr, base, batch, warmup if batch > base else 0),
        ),
        ("warm-up at most 3", lambda step, lr, base, batch, warmup: right.learning_rate(step, lr, base, batch, min(warmup, 3))),
    ],
    "accumulated": [
        ("the rest left out", lambda gradient, images, parts: sum(map(gradient, fixed(images, parts))) / parts),
        ("the rest in the last part", rest_at_the_end),
        ("as if all parts were equal", strided),
        ("the mean of the mean so far and the next", halved_in_turn),
        ("overlapping parts", overlapping),
        ("over the images, unweighted", summed(lambda images, parts: len(images))),
        ("over parts that there are not", summed(lambda images, parts: parts)),
        ("the largest", lambda gradient, images, parts: max(map(gradient, pieces(images, parts)))),
        ("the median", lambda gradient, images, parts: statistics.median(map(gradient, pieces(images, parts)))),
        ("all of them", lambda gradient, images, parts: [gradient(part) for part in pieces(images, parts)]),
        ("rounded", lambda gradient, images, parts: round(right.accumulated(gradient, images, parts), 1)),
        ("the means of the images", lambda gradient, images, parts: gradient(images[:1]) * 0 + sum(images) / len(images)),
        ("the gradient of the mean", lambda gradient, images, parts: gradient([sum(images) / len(images)])),
        (
            "weighed by the wrong part",
            lambda gradient, images, parts: (
                sum(gradient(part) * len(pieces(images, parts)[0]) for part in pieces(images, parts)) / len(images)
            ),
        ),
    ],
    "largest_batch": [
        ("momentum left out", lambda memory, p, activation: max(0, (memory - 8 * p) // activation)),
        ("numbers, not bytes", lambda memory, p, activation: max(0, (memory - 3 * p) // activation)),
        ("Adam", lambda memory, p, activation: max(0, (memory - 16 * p) // activation)),
        ("at least 1", lambda memory, p, activation: max(1, (memory - 12 * p) // activation)),
        ("rounded to the nearest", lambda memory, p, activation: max(0, round((memory - 12 * p) / activation))),
        ("one left free", lambda memory, p, activation: max(0, (memory - 12 * p) // activation - 1)),
        ("strictly less", lambda memory, p, activation: max(0, (memory - 12 * p - 1) // activation)),
        ("a power of two", lambda memory, p, activation: 2 ** (right.largest_batch(memory, p, activation).bit_length() - 1)),
        ("two roundings", lambda memory, p, activation: max(0, memory // activation - 12 * p // activation)),
        ("the distance", lambda memory, p, activation: abs(memory - 12 * p) // activation),
        ("the rest", lambda memory, p, activation: max(0, (memory - 12 * p) % activation)),
        ("at most 1024", lambda memory, p, activation: min(1024, right.largest_batch(memory, p, activation))),
        ("9 in 10", lambda memory, p, activation: max(0, (memory * 9 // 10 - 12 * p) // activation)),
        ("weights for each image", lambda memory, p, activation: memory // (12 * p + activation)),
        ("a multiple of 8", lambda memory, p, activation: right.largest_batch(memory, p, activation) // 8 * 8),
        ("rows of None", lambda memory, p, activation: (memory - 12 * p) // activation if memory > 12 * p else None),
    ],
}
