"""Right answers to the exercises, written in other ways than tests/helpers/answers/solutions.py and the notebooks."""

import hashlib
import itertools
import math
import random
from fractions import Fraction

import numpy as np


def lru_offset(seed, epoch, index):
    return int(hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).hexdigest(), 16) % 9


def seeded_anew(seed, epoch, index):
    random.seed(f"{seed}, {epoch}, {index}")
    return random.randrange(9)


def later_parts(ready_s, message_s, backward_s):
    """Seconds after backward, message by message."""
    free, after = 0.0, 0.0
    for at in ready_s:
        begin = max(free, at)
        free = begin + message_s
        after += max(0.0, free - max(begin, backward_s))
    gaps = max(0.0, free - backward_s) - after  # the link may be idle after backward
    return after + gaps


def ring_recursive(rank, world_size, step):
    if step == 0:
        return rank, (rank + world_size - 1) % world_size
    send = ring_recursive(rank, world_size, step - 1)[1]
    return send, (send + world_size - 1) % world_size


def one_f_one_b(stage, stages, micro_batches):
    forwards, backwards = (iter([(kind, i) for i in range(micro_batches)]) for kind in "FB")
    order = list(itertools.islice(forwards, stages - stage - 1))
    for piece in backwards:
        order += [*itertools.islice(forwards, 1), piece]
    return tuple(order)


def cached_epoch(images, epoch, cache, decode, augment):
    for index in range(len(images)):
        picture = cache.get(images[index])
        if picture is None:
            picture = cache.setdefault(images[index], decode(images[index]))
        yield augment(picture, epoch, index)


def amp_step(weights, scaled_grads, scale, lr):
    if not np.isfinite(scaled_grads).all():
        return np.array(weights), scale * 0.5
    return np.array(weights) - lr * (np.array(scaled_grads) / scale), scale


def in_place(weights, scaled_grads, scale, lr):
    if not math.isfinite(sum(scaled_grads)):
        return [weights, scale / 2]
    for i in range(len(weights)):
        weights[i] -= lr * scaled_grads[i] / scale
    return [weights, scale]


def steps(images, batch_per_rank, world_size, drop_last):
    full, left = divmod(images, batch_per_rank * world_size)
    return full + (1 if left and not drop_last else 0)


def counted_down(memory_bytes, parameters, activation_bytes):
    batch = memory_bytes // activation_bytes
    while batch and 12 * parameters + batch * activation_bytes > memory_bytes:
        batch -= 1
    return batch


def scaled_by_trials(gradients, largest):
    scale = 1.0
    while any(abs(g) * scale > largest for g in gradients):
        scale /= 2
    while all(abs(g) * scale * 2 <= largest for g in gradients):
        scale *= 2
    return scale


def by_steps(x, fraction_bits):
    if x == 0:
        return 0.0
    step = 2.0 ** (math.floor(math.log2(abs(x))) - fraction_bits)
    return math.copysign(math.floor(abs(x) / step + 0.5) * step, x)


def may_update(version, computing, bound):
    if not computing:
        return np.bool_(True)
    return min(computing) >= version + 1 - bound


def three_kinds(strategy, parameters, world_size):
    divided = {"ddp": "", "zero1": "m", "zero2": "mg", "fsdp": "mgp"}[strategy]
    return sum(4 * parameters / (world_size if kind in divided else 1) for kind in "pgm")


def strided(gradient, images, parts):
    cut = [part for part in (images[i::parts] for i in range(parts)) if part]
    return sum(Fraction(len(part), len(images)) * Fraction(gradient(part)) for part in cut)


def block(cin, cout, stride):
    convolutions = [(cin, cout, 3), (cout, cout, 3)] + [(cin, cout, 1)] * (stride > 1 or cin != cout)
    return sum(a * b * k * k + 2 * b for a, b, k in convolutions)


def merged_in_turn(means, variances, counts):
    """Rank by rank, as Chan et al. (1979) merge two groups."""
    mean, squares, n = 0.0, 0.0, 0
    for m, v, k in zip(means, variances, counts, strict=True):
        off, n = m - mean, n + k
        squares += v * k + off * off * (n - k) * k / n
        mean += off * k / n
    return [mean, squares / n]


def all_numbers(means, variances, counts):
    """Numbers that have these means and variances, all together."""
    numbers = []
    for m, v, k in zip(means, variances, counts, strict=True):
        spread = np.arange(k) - (k - 1) / 2
        numbers.extend(m + spread * np.sqrt(v / np.mean(spread**2)) if k > 1 else [m + 1j * np.sqrt(v)])
    numbers = np.array(numbers)
    return numbers.mean().real, np.mean(np.abs(numbers - numbers.mean().real) ** 2)


def warmed_up(step, base_lr, base_batch, batch, warmup_steps):
    share = 1 if step >= warmup_steps else Fraction(step + 1, warmup_steps)
    return float(base_lr * (batch / base_batch) * share)


def batch_counts(per_device, devices, column):
    fits = (column == per_device, column == per_device * devices)
    return {(True, True): "both", (True, False): "one device", (False, True): "all devices"}.get(fits, "neither")


def separating(low, others):
    return tuple(axis for axis in sorted(others[0]) if all(a[axis] != b[axis] for a in low for b in others))


# exercise -> right answers
RIGHT = {
    "shard_of": [
        lambda order, rank, n: order[: len(order) // n * n][rank::n],
        lambda order, rank, n: [order[i] for i in range(rank, len(order) - len(order) % n, n)],
        lambda order, rank, n: np.array(order)[rank * (len(order) // n) :][: len(order) // n],
    ],
    "average_gradients": [lambda grads: np.mean(grads, axis=0), lambda grads: (sum(c) / len(c) for c in np.transpose(grads))],
    "exposed_s": [later_parts],
    "ring_step": [ring_recursive, lambda rank, n, step: np.array([rank - step, rank - step - 1]) % n],
    "bytes_sent": [lambda size, n: size / n * (n - 1) * 2, lambda size, n: Fraction(2 * (n - 1) * size, n)],
    "ring_s": [lambda size, n, latency, speed: sum(latency + size / (n * speed) for _ in range(2 * n - 2))],
    "one_f_one_b": [one_f_one_b],
    "bubble_share": [lambda stages, m: 1 - m / (m + stages - 1), lambda stages, m: (m + stages - 1 - m) / (m + stages - 1)],
    "may_update": [may_update, lambda v, computing, bound: not any(read < v + 1 - bound for read in computing)],
    "cached_epoch": [cached_epoch],
    "crop_offset": [lru_offset, seeded_anew, lambda *key: int(np.random.default_rng(key).integers(9))],
    "rounded": [by_steps],
    "loss_scale": [scaled_by_trials],
    "amp_step": [amp_step, in_place],
    "push": [lambda weight, version, gradient, read, lr: [weight + -lr * gradient, 1 + version, -(read - version)]],
    "steps_per_epoch": [steps, lambda images, batch, n, drop: np.int64([np.ceil, np.floor][drop](images / batch / n))],
    "mean_loss": [lambda means, counts: np.average(means, weights=counts), lambda m, c: np.dot(m, c) / np.sum(c)],
    "sync_statistics": [merged_in_turn, all_numbers],
    "learning_rate": [warmed_up],
    "accumulated": [strided, lambda gradient, images, parts: sum(gradient([image]) for image in images) / len(images)],
    "largest_batch": [counted_down],
    "gradient_bytes": [lambda shapes, size: sum(np.zeros(shape).size for shape in shapes) * size],
    "block_parameters": [block],
    "macs_per_gradient_byte": [lambda cin, cout, kernel, side, batch: batch * side**2 / 4],
    "bytes_per_rank": [three_kinds],
    "amdahl": [lambda share, factor: factor / (factor - share * factor + share)],
    "step_s": [lambda a, c, m, ahead: a + c + m - ahead * min(a, c + m)],
    "batch_counts": [batch_counts],
    "images_trained": [lambda a, a_s, b, b_s: np.linalg.solve([[1 / a, 1], [1 / b, 1]], [a_s, b_s])[0]],
    "outside_s": [lambda rate, total, epochs, images: (total - epochs * images / rate) / epochs],
    "rate_needed": [
        lambda images, rate, other, own: (
            max(0, 1 / rate + (other - own) / images) ** -1.0 if own < images / rate + other else float("inf")
        )
    ],
    "losses": [lambda one, small, cached, pair: [(one - small) / one, 1 - cached / small / 2, (cached - pair) / cached]],
    "memory_line": [lambda *given: np.polyfit(given[::2], given[1::2], 1)[::-1]],
    "residual_mib": [lambda column, copies, p, images, image: column - copies * p - image * images],
    "axes_that_explain": [separating],
    "chance_points": [lambda accuracy, n: 2 * math.sqrt(2 * accuracy * (100 - accuracy) / n)],
}
