"""Typical wrong solutions of the exercises, each with the words that the verdict must contain."""

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

from tests.helpers import check_solutions as right
from tests.helpers.check_slips import ahead_by, frozen, padded_to, partly, pieces, shuffled_forwards, twice, wire

# exercise -> [(wrong function, words that the verdict must contain)]
MISTAKES: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "shard_of": [
        (lambda order, rank, n: order, "trained 2 times"),
        (lambda order, rank, n: order[rank::n], "[3, 2, 2] images"),
        (lambda order, rank, n: range(rank, len(order) // n * n, n), "not in the order"),
        (lambda order, rank, n: order[rank : rank + 1], "enough for 4 each"),
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
        (lambda ready, message, backward: wire(ready, message), "The exposed part begins where backward ends"),
        (lambda ready, message, backward: wire(ready, message) - backward, "not less"),
    ],
    "ring_step": [
        (lambda rank, n, step: (rank, (rank - 1) % n), "without what rank"),
        (lambda rank, n, step: ((rank - step) % n, (rank + 1 - step) % n), "takes it for"),
        (lambda rank, n, step: (rank - step, rank - step - 1), "% world_size"),
        (lambda rank, n, step: ((rank + 1 - step) % n, (rank - step) % n), "in step 0 rank 0 sends chunk 0"),
        (lambda rank, n, step: rank, "expected a pair"),
    ],
    "bytes_sent": [
        (lambda size, n: (n - 1) * size, "naive"),
        (lambda size, n: (n - 1) / n * size, "half of it"),
        (lambda size, n: 2 * size, "grows toward"),
        (lambda size, n: 2 * (n - 1) * size, "only a chunk travels"),
    ],
    "message_s": [
        (lambda size, latency, bandwidth: size / bandwidth, "latency is left out"),
        (lambda size, latency, bandwidth: latency, "the bytes take time, too"),
        (lambda size, latency, bandwidth: latency + size * bandwidth, "you multiplied"),
    ],
    "ring_s": [
        (lambda size, n, latency, bandwidth: latency + 2 * (n - 1) / n * size / bandwidth, "latency is paid in each"),
        (lambda size, n, latency, bandwidth: 2 * (n - 1) * (latency + size / bandwidth), "only a chunk"),
        (lambda size, n, latency, bandwidth: (n - 1) * (latency + size / n / bandwidth), "half of it"),
    ],
    "gpipe": [
        (right.one_f_one_b, "(1F1B does so)"),
        (lambda stage, stages, m: [("F", i) for i in range(m)], "never"),
        (lambda stage, stages, m: [("B", i) for i in range(m)] + [("F", i) for i in range(m)], "B0 before F0"),
        (lambda stage, stages, m: ["F0", "B0"], "no piece of work"),
        (lambda stage, stages, m: right.gpipe(stage, stages, m + 1), "are 0 to 4"),
        (lambda stage, stages, m: shuffled_forwards(stage, m), "in another order than its neighbour"),
    ],
    "one_f_one_b": [
        (right.gpipe, "That is GPipe"),
        (lambda stage, stages, m: [(kind, i) for i in range(m) for kind in "FB"], "too early"),
        (lambda stage, stages, m: ahead_by(stages - stage, m), "4 micro-batches at once, and 3 would do"),
        (lambda stage, stages, m: [*right.gpipe(0, 0, m)] if stage else [(k, i) for i in range(m) for k in "FB"], "Deadlock"),
    ],
    "bubble_share": [
        (lambda stages, m: (stages - 1) / m, "over working time"),
        (lambda stages, m: m / (m + stages - 1), "in which a stage works"),
        (lambda stages, m: stages / (m + stages - 1), "not for itself"),
    ],
    "shard_bounds": [
        (lambda length, rank, n: (rank * (length // n), (rank + 1) * (length // n), 0), "nobody holds elements 8 to 9"),
        (lambda length, rank, n: (length * rank // n, length * (rank + 1) // n, 0), "the same number from every rank"),
        (lambda length, rank, n: (rank * -(-length // n), (rank + 1) * -(-length // n), 0), "no part of [0, 10)"),
        (lambda length, rank, n: (0, length, 0), "belongs to another rank already"),
        (lambda length, rank, n: padded_to(length, rank, n, length), "where 2 would do"),
        (lambda length, rank, n: (0, length), "expected (start, stop, padding)"),
    ],
    "bytes_per_rank": [
        (lambda strategy, p, n: 12 * p, "what ddp keeps"),
        (lambda strategy, p, n: 12 * p / n, "what fsdp keeps"),
        (lambda strategy, p, n: right.bytes_per_rank(strategy, p, n) / 4, "counts numbers"),
        (lambda strategy, p, n: right.bytes_per_rank(strategy, p, n) - 4 * p, "left out"),
    ],
    "cached_epoch": [
        (lambda images, epoch, cache, decode, augment: frozen(images, epoch, cache, decode, augment), "frozen"),
        (
            lambda images, epoch, cache, decode, augment: [augment(decode(x), epoch, i) for i, x in enumerate(images)],
            "nothing came out",
        ),
        (lambda images, epoch, cache, decode, augment: twice(images, epoch, cache, decode, augment), "augmented already"),
        (lambda images, epoch, cache, decode, augment: [decode(x) for x in images], "expected ["),
    ],
    "crop_offset": [
        (lambda seed, epoch, index: random.randint(0, 8), "something else later"),
        (lambda seed, epoch, index: random.Random(f"{seed} {index}").randint(0, 8), "frozen"),
        (lambda seed, epoch, index: random.Random(f"{seed} {epoch}").randint(0, 8), "Let the image's index"),
        (lambda seed, epoch, index: random.Random(f"{epoch} {index}").randint(0, 8), "Let the seed"),
        (lambda seed, epoch, index: random.Random(seed + epoch + index).randint(0, 8), "adding numbers mixes"),
        (lambda seed, epoch, index: (31 * seed + 7 * epoch + index) % 9, "that is a pattern"),
        (lambda seed, epoch, index: random.Random(f"{seed} {epoch} {index}").randint(0, 7), "there was no 8"),
        (lambda seed, epoch, index: random.Random(f"{seed} {epoch} {index}").randint(-4, 4), "from 0 to 8"),
        (lambda seed, epoch, index: min(8, random.Random(f"{seed} {epoch} {index}").randint(0, 20)), "about equally often"),
    ],
    "rounded": [
        (lambda x, bits: round(x * 2**bits) / 2**bits, "a fixed point"),
        (
            lambda x, bits: math.trunc(math.frexp(x)[0] * 2 ** (bits + 1)) / 2 ** (bits + 1) * 2.0 ** math.frexp(x)[1],
            "cuts the bits off",
        ),
        (lambda x, bits: right.rounded(x, bits - 1), "One bit too few"),
        (lambda x, bits: x, "an update of 0.001 is lost"),
    ],
    "loss_scale": [
        (lambda grads, largest: largest / max(map(abs, grads)), "no power of two"),
        (lambda grads, largest: 2.0 ** math.ceil(math.log2(largest / max(map(abs, grads)))), "an overflow"),
        (lambda grads, largest: right.loss_scale([max(grads)], largest), "A negative gradient overflows, too"),
        (lambda grads, largest: 1.0, "changes nothing"),
    ],
    "amp_step": [
        (lambda w, g, scale, lr: ([a - lr * b for a, b in zip(w, g, strict=True)], scale), "divide them by the scale"),
        (lambda w, g, scale, lr: ([a - lr * b / scale for a, b in zip(w, g, strict=True)], scale), "they never recover"),
        (lambda w, g, scale, lr: (right.amp_step(w, g, scale, lr)[0], scale), "with the same scale the next step"),
        (
            lambda w, g, scale, lr: (
                (w, scale / 2)
                if math.inf in g
                else right.amp_step(w, [1 if x != x or x == -math.inf else x for x in g], scale, lr)
            ),
            "skip",
        ),
        (lambda w, g, scale, lr: partly(w, g, scale, lr), "skip the whole step"),
    ],
    "steps_per_epoch": [
        (lambda images, batch, n, drop: images // (batch * n), "They need a step, too"),
        (lambda images, batch, n, drop: math.ceil(images / (batch * n)), "Leave them out"),
        (lambda images, batch, n, drop: images / (batch * n), "Steps are whole"),
        (lambda images, batch, n, drop: images // batch, "one rank alone"),
    ],
    "mean_loss": [
        (lambda means, counts: sum(means) / len(means), "mean of means"),
        (lambda means, counts: right.mean_loss(means, counts) * sum(counts), "sum over all images"),
    ],
    "learning_rate": [
        (lambda step, lr, base, batch, warmup: right.learning_rate(step, lr, batch, batch, warmup), "does not follow the batch"),
        (
            lambda step, lr, base, batch, warmup: right.learning_rate(step, lr * math.sqrt(base / batch), base, batch, warmup),
            "square-root",
        ),
        (lambda step, lr, base, batch, warmup: right.learning_rate(step, lr, batch, base, warmup), "wrong way round"),
        (lambda step, lr, base, batch, warmup: lr * batch / base * min(1.0, step / warmup), "(step + 1)"),
        (lambda step, lr, base, batch, warmup: lr * batch / base * (step + 1) / warmup, "does not rise on"),
        (lambda step, lr, base, batch, warmup: lr * batch / base, "after the warm-up"),
        (lambda step, lr, base, batch, warmup: lr * batch / base * min(1.0, (step + 1) / warmup), "ZeroDivisionError"),
    ],
    "gradient_bytes": [
        (lambda shapes, size: sum(map(math.prod, shapes)), "each has 4 bytes"),
        (lambda shapes, size: sum(map(sum, shapes)) * size, "they do not add"),
        (lambda shapes, size: math.prod(shapes[0]) * size, "first tensor alone"),
        (lambda shapes, size: sum(map(math.prod, shapes)) * 4, "numbers of 2 bytes"),
    ],
    "block_parameters": [
        (lambda cin, cout, stride: 9 * cin * cout + 9 * cout * cout, "BatchNorms are left out"),
        (lambda cin, cout, stride: right.block_parameters(cin, cout, stride) + 2 * cout, "no bias"),
        (lambda cin, cout, stride: 9 * cout * (cin + cout) + 4 * cout, "the shortcut needs parameters"),
        (lambda cin, cout, stride: 9 * cout * (cin + cout) + 6 * cout + cin * cout, "does not change"),
        (lambda cin, cout, stride: right.block_parameters(cin, cout, 1), "(64 → 64 channels, stride 2)"),
    ],
    "macs_per_gradient_byte": [
        (lambda cin, cout, k, side, batch: cin * cout * k * k * side * side * batch, "the work alone"),
        (lambda cin, cout, k, side, batch: side * side * batch, "A number has 4 bytes"),
        (lambda cin, cout, k, side, batch: side * side / 4, "sent once for all"),
        (lambda cin, cout, k, side, batch: 4 / (side * side * batch), "work over bytes"),
    ],
    "amdahl": [
        (lambda share, factor: factor, "not the whole"),
        (lambda share, factor: 1 + share * (factor - 1), "Times add, speeds do not"),
        (lambda share, factor: 1 - share + share / factor, "That is the new time"),
    ],
    "step_s": [
        (lambda decode, compute, message, ahead: decode + compute + message, "The loader works ahead"),
        (lambda decode, compute, message, ahead: max(decode, compute + message), "nothing hides it"),
        (lambda decode, compute, message, ahead: max(decode, compute, message), "Messages come after compute"),
        (lambda decode, compute, message, ahead: compute + message, "cannot begin before its images"),
    ],
    "ladder": [
        (lambda rates: [rate / rates[0] for rate in rates[1:]], "over the baseline"),
        (lambda rates: [b - a for a, b in itertools.pairwise(rates)], "differences"),
        (lambda rates: [a / b for a, b in itertools.pairwise(rates)], "other way round"),
    ],
    "accumulated": [
        (lambda gradient, images, parts: gradient(images), "at most 2 fit"),
        (lambda gradient, images, parts: sum(map(gradient, pieces(images, parts))), "too long"),
        (lambda gradient, images, parts: [gradient(piece) for piece in pieces(images, parts)][-1], "zero_grad()"),
        (lambda gradient, images, parts: sum(map(gradient, pieces(images, parts))) / parts, "weighs each by its length"),
        (lambda gradient, images, parts: sum(images) / len(images), "not from gradient(part)"),
    ],
    "memory_bytes": [
        (lambda p, batch, activation: 4 * p + batch * activation, "gradients and momentum"),
        (lambda p, batch, activation: batch * (12 * p + activation), "once per image"),
        (lambda p, batch, activation: 12 * p + activation, "activations of its own"),
        (lambda p, batch, activation: 3 * p + batch * activation, "takes 4 bytes"),
    ],
    "largest_batch": [
        (lambda memory, p, activation: memory // activation, "need room"),
        (lambda memory, p, activation: (memory - 12 * p) / activation, "rounded down"),
        (lambda memory, p, activation: (memory - 12 * p) // activation, "less than 0"),
        (lambda memory, p, activation: max(0, math.ceil((memory - 12 * p) / activation)), "Rounded up"),
    ],
    "push": [
        (lambda w, v, g, read, lr: (w - lr * g, v + 1, v + 1 - read), "count those before it"),
        (lambda w, v, g, read, lr: (w - lr * g, v, v - read), "Every update makes a new version"),
        (lambda w, v, g, read, lr: (w + lr * g, v + 1, v - read), "Go against the gradient"),
        (lambda w, v, g, read, lr: (w - lr * g, v + 1, read - v), "less the one that was read"),
        (lambda w, v, g, read, lr: (w - lr * g, read + 1, v - read), "counts on"),
    ],
    "may_update": [
        (lambda v, computing, bound: all(v - read <= bound for read in computing), "and the bound is 0"),
        (lambda v, computing, bound: all(v + 1 - read < bound for read in computing), "waits for nothing"),
        (lambda v, computing, bound: any(v + 1 - read <= bound for read in computing), "waits for ever"),
        (lambda v, computing, bound: True, "then be 1 behind"),
        (lambda v, computing, bound: not computing, "waits for nothing"),
    ],
    "after_pushes": [
        (lambda w, grads, lr, together: w - lr * sum(grads), "the sum"),
        (lambda w, grads, lr, together: w - lr * sum(grads) / len(grads), "applied as it comes"),
        (
            lambda w, grads, lr, together: w - lr * grads[-1] if not together else w - lr * sum(grads) / len(grads),
            "last push alone",
        ),
    ],
    "server_bytes": [
        (lambda size, workers: workers * size, "one direction"),
        (lambda size, workers: 2 * size, "one worker"),
        (lambda size, workers: right.bytes_sent(size, workers), "a rank of a ring"),
    ],
}
