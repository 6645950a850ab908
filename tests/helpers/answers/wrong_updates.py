"""Wrong answers to the exercises on 16-bit numbers and on updates of weights, which no check names as a known mistake."""

import math
import struct

from tests.helpers.answers import solutions as right


def scaled(x, bits, whole):
    m, e = math.frexp(x)
    return math.ldexp(whole(math.ldexp(m, bits + 1)), e - bits - 1)


def by_log(x, bits):
    step = 2.0 ** (math.floor(math.log2(x)) - bits)
    return round(x / step) * step


def fp16(x):
    return struct.unpack("e", struct.pack("e", x))[0]


def doubling(gradients, largest):
    size, scale = max(map(abs, gradients)), 1.0
    while size * scale <= largest:
        scale *= 2
    return scale


def only_up(gradients, largest):
    size, scale = max(map(abs, gradients)), 1.0
    while size * scale * 2 <= largest:
        scale *= 2
    return scale


def strictly_below(gradients, largest):
    size = max(map(abs, gradients))
    scale = 2.0**60
    while size * scale >= largest:
        scale /= 2
    return scale


def power(gradients, largest, whole=math.floor, size=lambda all_: max(map(abs, all_))):
    return 2.0 ** whole(math.log2(largest / size(gradients)))


def stepped(weights, grads, scale, lr):
    return [w - lr * g / scale for w, g in zip(weights, grads, strict=True)]


def skipping(sound, kept=lambda scale: scale / 2, left=lambda weights: weights, good=lambda scale: scale):
    """An update that is skipped unless `sound(gradients)`."""

    def amp_step(weights, grads, scale, lr):
        if not sound(grads):
            return left(weights), kept(scale)
        return stepped(weights, grads, scale, lr), good(scale)

    return amp_step


def finite(grads):
    return all(map(math.isfinite, grads))


def clipped(weights, grads, scale, lr):
    if finite(grads):
        return stepped(weights, grads, scale, lr), scale
    return stepped(weights, [65504.0 if g != g else max(-65504.0, min(65504.0, g)) for g in grads], scale, lr), scale / 2


def pushed(weight=lambda w, g, lr, stale: w - lr * g, version=lambda v, stale: v + 1, told=lambda stale: stale):
    return lambda w, v, g, read, lr: (weight(w, g, lr, v - read), version(v, v - read), told(v - read))


WRONG = {
    "rounded": [
        ("rounded up", lambda x, bits: scaled(x, bits, math.ceil)),
        ("three decimal places", lambda x, bits: round(x, 3)),
        ("decimal places", lambda x, bits: round(x, bits)),
        ("three digits", lambda x, bits: float(f"{x:.3g}")),
        ("one bit too many", lambda x, bits: right.rounded(x, bits + 1)),
        ("two bits too few", lambda x, bits: right.rounded(x, bits - 2)),
        ("fp16 always", lambda x, bits: fp16(x)),
        ("bf16 always", lambda x, bits: right.rounded(x, 7)),
        ("at most fp16", lambda x, bits: right.rounded(x, min(bits, 10))),
        ("without the sign", lambda x, bits: right.rounded(abs(x), bits)),
        ("the fraction alone", lambda x, bits: right.rounded(math.frexp(x)[0], bits)),
        ("the exponent forgotten", lambda x, bits: round(math.ldexp(math.frexp(x)[0], bits + 1)) / 2**bits),
        ("fails at 0 and below", by_log),
        ("cut towards 0 after adding a half", lambda x, bits: scaled(x, bits, lambda v: int(v + 0.5))),
        ("fixed point, cut", lambda x, bits: int(x * 2**bits) / 2**bits),
        ("away from 0", lambda x, bits: scaled(x, bits, lambda v: math.copysign(math.ceil(abs(v)), v))),
        ("the nearest power of two", lambda x, bits: math.copysign(2.0 ** round(math.log2(abs(x))), x) if x else 0.0),
    ],
    "loss_scale": [
        ("the smallest gradient", lambda grads, largest: power(grads, largest, size=lambda a: min(map(abs, a)))),
        ("the sum", lambda grads, largest: power(grads, largest, size=lambda a: sum(map(abs, a)))),
        ("the mean", lambda grads, largest: power(grads, largest, size=lambda a: sum(map(abs, a)) / len(a))),
        ("the first", lambda grads, largest: power(grads, largest, size=lambda a: abs(a[0]))),
        ("the last", lambda grads, largest: power(grads, largest, size=lambda a: abs(a[-1]))),
        ("the size of the sum", lambda grads, largest: power(grads, largest, size=lambda a: abs(sum(a)))),
        ("the norm", lambda grads, largest: power(grads, largest, size=lambda a: math.hypot(*a))),
        ("rounded to the nearest", lambda grads, largest: power(grads, largest, whole=round)),
        ("cut towards 0", lambda grads, largest: power(grads, largest, whole=int)),
        ("at least 1", lambda grads, largest: max(1.0, right.loss_scale(grads, largest))),
        ("at most 65536", lambda grads, largest: min(65536.0, right.loss_scale(grads, largest))),
        ("65536", lambda grads, largest: 65536.0),
        ("65504 always", lambda grads, largest: right.loss_scale(grads, 65504.0)),
        ("doubled once too often", doubling),
        ("only doubled", only_up),
        ("strictly below", strictly_below),
        ("a whole number", lambda grads, largest: int(right.loss_scale(grads, largest))),
        ("a power of ten", lambda grads, largest: 10.0 ** math.floor(math.log10(largest / max(map(abs, grads))))),
        (
            "two roundings",
            lambda grads, largest: 2.0 ** (math.floor(math.log2(largest)) - math.floor(math.log2(max(map(abs, grads))))),
        ),
        (
            "two roundings, down",
            lambda grads, largest: 2.0 ** (math.floor(math.log2(largest)) - math.ceil(math.log2(max(map(abs, grads))))),
        ),
        ("half of it", lambda grads, largest: right.loss_scale(grads, largest) / 2),
    ],
    "amp_step": [
        ("looks at the first only", skipping(lambda grads: math.isfinite(grads[0]))),
        ("looks at the last only", skipping(lambda grads: math.isfinite(grads[-1]))),
        ("looks for nan only", skipping(lambda grads: all(g == g for g in grads))),
        ("looks for inf only", skipping(lambda grads: math.inf not in grads and -math.inf not in grads)),
        ("looks for +inf and nan", skipping(lambda grads: all(g < math.inf for g in grads))),
        ("skips only if all are bad", skipping(lambda grads: any(map(math.isfinite, grads)))),
        ("skips gradients above 65504", skipping(lambda grads: all(abs(g) <= 65504 for g in grads))),
        ("skips a gradient of 0", skipping(lambda grads: finite(grads) and all(grads))),
        ("a quarter", skipping(finite, kept=lambda scale: scale / 4)),
        ("scale 1", skipping(finite, kept=lambda scale: 1.0)),
        ("never below 1", skipping(finite, kept=lambda scale: max(1.0, scale / 2))),
        ("halved in whole numbers", skipping(finite, kept=lambda scale: scale // 2)),
        ("weights of 0", skipping(finite, left=lambda weights: [0.0 for _ in weights])),
        ("no weights", skipping(finite, left=lambda weights: [])),
        ("doubled after each good step", skipping(finite, good=lambda scale: scale * 2)),
        ("times the scale", lambda w, g, s, lr: (stepped(w, g, 1 / s, lr), s) if finite(g) else (w, s / 2)),
        ("along the gradient", lambda w, g, s, lr: (stepped(w, g, s, -lr), s) if finite(g) else (w, s / 2)),
        ("no learning rate", lambda w, g, s, lr: (stepped(w, g, s, 1.0), s) if finite(g) else (w, s / 2)),
        ("half the scale taken out", lambda w, g, s, lr: (stepped(w, g, s / 2, lr), s) if finite(g) else (w, s / 2)),
        ("clipped", clipped),
        ("swapped", lambda w, g, s, lr: right.amp_step(w, g, s, lr)[::-1]),
        ("weights alone", lambda w, g, s, lr: right.amp_step(w, g, s, lr)[0]),
        ("lr of 0.5", lambda w, g, s, lr: right.amp_step(w, g, s, 0.5)),
    ],
    "push": [
        ("divided by the staleness", pushed(weight=lambda w, g, lr, stale: w - lr * g / (1 + stale))),
        ("divided by 2 if stale", pushed(weight=lambda w, g, lr, stale: w - lr * g / (2 if stale else 1))),
        ("stale gradients dropped", pushed(weight=lambda w, g, lr, stale: w if stale else w - lr * g)),
        ("very stale gradients dropped", pushed(weight=lambda w, g, lr, stale: w if stale > 2 else w - lr * g)),
        ("times the staleness", pushed(weight=lambda w, g, lr, stale: w - lr * g * max(1, stale))),
        ("of absolute value", pushed(weight=lambda w, g, lr, stale: w - lr * abs(g))),
        ("clipped to 1", pushed(weight=lambda w, g, lr, stale: w - lr * min(g, 1.0))),
        ("lr of 0.1", pushed(weight=lambda w, g, lr, stale: w - 0.1 * g)),
        ("rounded to two places", pushed(weight=lambda w, g, lr, stale: round(w - lr * g, 2))),
        ("a share of the weight", pushed(weight=lambda w, g, lr, stale: w * (1 - lr * g))),
        ("a version only if fresh", pushed(version=lambda v, stale: v if stale else v + 1)),
        ("versions in twos", pushed(version=lambda v, stale: v + 2)),
        ("a version for each missed", pushed(version=lambda v, stale: v + 1 + stale)),
        ("one less", pushed(told=lambda stale: max(0, stale - 1))),
        ("yes or no", pushed(told=lambda stale: stale > 0)),
        ("at most 2", pushed(told=lambda stale: min(stale, 2))),
        ("0", pushed(told=lambda stale: 0)),
        ("the version that was read", lambda w, v, g, read, lr: (w - lr * g, v + 1, read)),
        ("swapped", lambda w, v, g, read, lr: (w - lr * g, v - read, v + 1)),
        ("two values", lambda w, v, g, read, lr: (w - lr * g, v + 1)),
    ],
}
