"""Typical wrong solutions of the exercises, each with the words that the verdict must contain."""

import math
import random
from collections.abc import Callable
from typing import Any

from labkit.checks.schedules import gpipe
from tests.helpers.answers import solutions as right
from tests.helpers.answers.mistakes_published import MISTAKES as PUBLISHED
from tests.helpers.answers.slips import ahead_by, frozen, partly, pieces, twice, wire

# exercise -> [(wrong function, words that the verdict must contain)]
MISTAKES: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "shard_of": [
        (lambda order, rank, n: order, "trained 3 times"),
        (lambda order, rank, n: order[rank::n], "[3, 2, 2] images"),
        (lambda order, rank, n: range(rank, len(order) // n * n, n), "not in order"),
        (lambda order, rank, n: order[rank : rank + 1], "expected 2"),
        (lambda order, rank, n: sum(order), "a list of images"),
    ],
    "average_gradients": [
        (lambda grads: [sum(column) for column in zip(*grads, strict=True)], "sum, not the mean"),
        (lambda grads: grads[0], "rank 0's gradient alone"),
        (lambda grads: [sum(row) / len(row) for row in grads], "not over the ranks"),
        (lambda grads: sum(grads) / len(grads), "raised TypeError"),
    ],
    "exposed_s": [
        (lambda ready, message, backward: len(ready) * message, "time of all messages"),
        (lambda ready, message, backward: message, "one message at a time"),
        (lambda ready, message, backward: wire(ready, message), "Count from the end of backward"),
        (lambda ready, message, backward: wire(ready, message) - backward, "not less"),
    ],
    "ring_step": [
        (lambda rank, n, step: (rank, (rank - 1) % n), "the numbers of rank 1 are missing"),
        (lambda rank, n, step: ((rank - step) % n, (rank + 1 - step) % n), "its left neighbour, rank 2, sends chunk 2"),
        (lambda rank, n, step: (rank - step, rank - step - 1), "% world_size"),
        (lambda rank, n, step: ((rank + 1 - step) % n, (rank - step) % n), "in step 0 rank 0 sends chunk 0"),
        (lambda rank, n, step: rank, "expected a pair"),
    ],
    "bytes_sent": [
        (lambda size, n: (n - 1) * size, "naive"),
        (lambda size, n: (n - 1) / n * size, "half of it"),
        (lambda size, n: 2 * size, "the limit for many ranks"),
        (lambda size, n: 2 * (n - 1) * size, "not the whole tensor"),
    ],
    "ring_s": [
        (lambda size, n, latency, bandwidth: latency + 2 * (n - 1) / n * size / bandwidth, "every step has the latency"),
        (lambda size, n, latency, bandwidth: 2 * (n - 1) * (latency + size / bandwidth), "one chunk only"),
        (lambda size, n, latency, bandwidth: (n - 1) * (latency + size / n / bandwidth), "half of it"),
    ],
    "one_f_one_b": [
        (lambda stage, stages, m: gpipe(m), "GPipe does so"),
        (lambda stage, stages, m: [(kind, i) for i in range(m) for kind in "FB"], "too early"),
        (lambda stage, stages, m: ahead_by(stages - stage, m), "4 micro-batches at the same time, expected at most 3"),
        (lambda stage, stages, m: [*gpipe(m)] if stage else [(k, i) for i in range(m) for k in "FB"], "Deadlock"),
    ],
    "bubble_share": [
        (lambda stages, m: (stages - 1) / m, "divided by working time"),
        (lambda stages, m: m / (m + stages - 1), "in which a stage works"),
        (lambda stages, m: stages / (m + stages - 1), "stages - 1, not stages"),
    ],
    "bytes_per_rank": [
        (lambda strategy, p, n: 12 * p, "what ddp keeps"),
        (lambda strategy, p, n: 12 * p / n, "what fsdp keeps"),
        (lambda strategy, p, n: right.bytes_per_rank(strategy, p, n) / 4, "how many numbers there are"),
        (lambda strategy, p, n: right.bytes_per_rank(strategy, p, n) - 4 * p, "is missing"),
    ],
    "cached_epoch": [
        (lambda images, epoch, cache, decode, augment: frozen(images, epoch, cache, decode, augment), "frozen"),
        (
            lambda images, epoch, cache, decode, augment: [augment(decode(x), epoch, i) for i, x in enumerate(images)],
            "The cache was not used",
        ),
        (lambda images, epoch, cache, decode, augment: twice(images, epoch, cache, decode, augment), "augmented a picture twice"),
        (lambda images, epoch, cache, decode, augment: [decode(x) for x in images], "expected ["),
    ],
    "crop_offset": [
        (lambda seed, epoch, index: random.randint(0, 8), "later. Two ranks"),
        (lambda seed, epoch, index: random.Random(f"{seed} {index}").randint(0, 8), "The epoch must change"),
        (lambda seed, epoch, index: random.Random(f"{seed} {epoch}").randint(0, 8), "The image must change"),
        (lambda seed, epoch, index: random.Random(f"{epoch} {index}").randint(0, 8), "The seed must change"),
        (lambda seed, epoch, index: random.Random(seed + epoch + index).randint(0, 8), "Adding or joining numbers mixes"),
        (lambda seed, epoch, index: (31 * seed + 7 * epoch + index) % 9, "This is a pattern"),
        (lambda seed, epoch, index: random.Random(f"{seed} {epoch} {index}").randint(0, 7), "draws returned 8, expected about"),
        (lambda seed, epoch, index: random.Random(f"{seed} {epoch} {index}").randint(-4, 4), "from 0 to 8"),
        (lambda seed, epoch, index: min(8, random.Random(f"{seed} {epoch} {index}").randint(0, 20)), "equally likely"),
    ],
    "rounded": [
        (lambda x, bits: round(x * 2**bits) / 2**bits, "for every number"),
        (
            lambda x, bits: math.trunc(math.frexp(x)[0] * 2 ** (bits + 1)) / 2 ** (bits + 1) * 2.0 ** math.frexp(x)[1],
            "cuts the last bits off",
        ),
        (lambda x, bits: right.rounded(x, bits - 1), "one bit too few"),
        (lambda x, bits: x, "an update of 0.001 is lost"),
    ],
    "loss_scale": [
        (lambda grads, largest: largest / max(map(abs, grads)), "not a power of two"),
        (lambda grads, largest: 2.0 ** math.ceil(math.log2(largest / max(map(abs, grads)))), "an overflow"),
        (lambda grads, largest: right.loss_scale([max(grads)], largest), "A negative gradient overflows, too"),
        (lambda grads, largest: 1.0, "changes nothing"),
    ],
    "amp_step": [
        (lambda w, g, scale, lr: ([a - lr * b for a, b in zip(w, g, strict=True)], scale), "divide the gradients by it"),
        (lambda w, g, scale, lr: ([a - lr * b / scale for a, b in zip(w, g, strict=True)], scale), "for ever"),
        (lambda w, g, scale, lr: (right.amp_step(w, g, scale, lr)[0], scale), "with the same scale the next step"),
        (
            lambda w, g, scale, lr: (
                (w, scale / 2)
                if math.inf in g
                else right.amp_step(w, [1 if x != x or x == -math.inf else x for x in g], scale, lr)
            ),
            "keep the weights",
        ),
        (lambda w, g, scale, lr: partly(w, g, scale, lr), "skip the whole step"),
    ],
    "steps_per_epoch": [
        (lambda images, batch, n, drop: images // (batch * n), "They need one more step"),
        (lambda images, batch, n, drop: math.ceil(images / (batch * n)), "Leave them out"),
        (lambda images, batch, n, drop: images / (batch * n), "A step is whole"),
        (lambda images, batch, n, drop: images // batch, "one rank alone"),
    ],
    "mean_loss": [
        (lambda means, counts: sum(means) / len(means), "mean of the means"),
        (lambda means, counts: right.mean_loss(means, counts) * sum(counts), "sum over all images"),
    ],
    "sync_statistics": [
        (lambda means, variances, counts: (right.mean_loss(means, counts), right.mean_loss(variances, counts)), "means differ"),
        (lambda means, variances, counts: (sum(means) / len(means), sum(variances) / len(means)), "Every rank counts equally"),
        (lambda means, variances, counts: (right.mean_loss(means, counts), sum(variances) / len(means)), "The mean is right"),
        (
            lambda means, variances, counts: right.sync_statistics(means, variances, [1] * len(means)),
            "weigh each rank by its count",
        ),
        (lambda means, variances, counts: right.sync_statistics(means, [0.0] * len(means), counts), "between the ranks alone"),
        (
            lambda means, variances, counts: (
                right.mean_loss(means, counts),
                right.mean_loss([v + m * m for m, v in zip(means, variances, strict=True)], counts),
            ),
            "mean of the squares",
        ),
        (
            lambda means, variances, counts: (
                right.mean_loss(means, counts),
                right.sync_statistics(means, variances, counts)[1] * sum(counts) / (sum(counts) - 1),
            ),
            "not by one less",
        ),
        (
            lambda means, variances, counts: (
                right.mean_loss(means, counts),
                math.sqrt(right.sync_statistics(means, variances, counts)[1]),
            ),
            "standard deviation",
        ),
        (lambda means, variances, counts: right.sync_statistics(means, variances, counts)[::-1], "the mean first"),
    ],
    "learning_rate": [
        (
            lambda step, lr, base, batch, warmup: right.learning_rate(step, lr, batch, batch, warmup),
            "does not depend on the batch",
        ),
        (
            lambda step, lr, base, batch, warmup: right.learning_rate(step, lr * math.sqrt(base / batch), base, batch, warmup),
            "square-root",
        ),
        (lambda step, lr, base, batch, warmup: right.learning_rate(step, lr, batch, base, warmup), "not a smaller one"),
        (lambda step, lr, base, batch, warmup: lr * batch / base * min(1.0, step / warmup), "(step + 1)"),
        (lambda step, lr, base, batch, warmup: lr * batch / base * (step + 1) / warmup, "must not rise any more"),
        (lambda step, lr, base, batch, warmup: lr * batch / base, "after the warm-up"),
        (lambda step, lr, base, batch, warmup: lr * batch / base * min(1.0, (step + 1) / warmup), "ZeroDivisionError"),
    ],
    "gradient_bytes": [
        (lambda shapes, size: sum(map(math.prod, shapes)), "each has 4 bytes"),
        (lambda shapes, size: sum(map(sum, shapes)) * size, "do not add them"),
        (lambda shapes, size: math.prod(shapes[0]) * size, "first tensor alone"),
        (lambda shapes, size: sum(map(math.prod, shapes)) * 4, "each number has 2 bytes"),
    ],
    "block_parameters": [
        (lambda cin, cout, stride: 9 * cin * cout + 9 * cout * cout, "BatchNorms are missing"),
        (lambda cin, cout, stride: right.block_parameters(cin, cout, stride) + 2 * cout, "no bias"),
        (lambda cin, cout, stride: 9 * cout * (cin + cout) + 4 * cout, "the shortcut has parameters"),
        (lambda cin, cout, stride: 9 * cout * (cin + cout) + 6 * cout + cin * cout, "does not change"),
        (lambda cin, cout, stride: right.block_parameters(cin, cout, 1), "(64 → 64 channels, stride 2)"),
    ],
    "macs_per_gradient_byte": [
        (lambda cin, cout, k, side, batch: cin * cout * k * k * side * side * batch, "the number of multiply-adds"),
        (lambda cin, cout, k, side, batch: side * side * batch, "Each number of the gradient has 4 bytes"),
        (lambda cin, cout, k, side, batch: side * side / 4, "sent once for the whole batch"),
        (lambda cin, cout, k, side, batch: 4 / (side * side * batch), "Divide work by bytes"),
    ],
    "amdahl": [
        (lambda share, factor: factor, "not the whole"),
        (lambda share, factor: 1 + share * (factor - 1), "Add times, not speeds"),
        (lambda share, factor: 1 - share + share / factor, "This is the new time"),
    ],
    "step_s": [
        (lambda decode, compute, message, ahead: decode + compute + message, "do not add it"),
        (lambda decode, compute, message, ahead: max(decode, compute + message), "Add it"),
        (lambda decode, compute, message, ahead: max(decode, compute, message), "The messages come after compute"),
        (lambda decode, compute, message, ahead: compute + message, "cannot begin before its images"),
    ],
    "accumulated": [
        (lambda gradient, images, parts: gradient(images), "at most 2 fit"),
        (lambda gradient, images, parts: sum(map(gradient, pieces(images, parts))), "too long"),
        (lambda gradient, images, parts: [gradient(piece) for piece in pieces(images, parts)][-1], "zero_grad()"),
        (lambda gradient, images, parts: sum(map(gradient, pieces(images, parts))) / parts, "Weigh each mean by the length"),
        (lambda gradient, images, parts: sum(images) / len(images), "Use what gradient(part) returns"),
    ],
    "largest_batch": [
        (lambda memory, p, activation: memory // activation, "need memory, too"),
        (lambda memory, p, activation: (memory - 12 * p) / activation, "round down"),
        (lambda memory, p, activation: (memory - 12 * p) // activation, "never negative"),
        (lambda memory, p, activation: max(0, math.ceil((memory - 12 * p) / activation)), "rounded up"),
    ],
    "push": [
        (lambda w, v, g, read, lr: (w - lr * g, v + 1, v + 1 - read), "do not count this one"),
        (lambda w, v, g, read, lr: (w - lr * g, v, v - read), "Every update makes a new version"),
        (lambda w, v, g, read, lr: (w + lr * g, v + 1, v - read), "Subtract the gradient"),
        (lambda w, v, g, read, lr: (w - lr * g, v + 1, read - v), "minus the version that was read"),
        (lambda w, v, g, read, lr: (w - lr * g, read + 1, v - read), "the server's version plus 1"),
    ],
    "may_update": [
        (lambda v, computing, bound: all(v - read <= bound for read in computing), "and the bound is 3"),
        (lambda v, computing, bound: all(v + 1 - read < bound for read in computing), "need not wait"),
        (lambda v, computing, bound: any(v + 1 - read <= bound for read in computing), "waits for ever"),
        (lambda v, computing, bound: True, "then 4 behind"),
        (lambda v, computing, bound: not computing, "need not wait"),
    ],
}
MISTAKES |= PUBLISHED
