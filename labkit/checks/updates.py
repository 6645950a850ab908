"""Exercises on updates of weights: rounding to 16 bits, the loss scale of fp16, a step of a scaler, a push to a server."""

import math
from collections import Counter

from labkit.checks.judge import Student, Verdict, exercise, shown

FP16_LARGEST = 65504.0


def nearest(x: float, fraction_bits: int) -> float:
    """The number nearest to x that has so many bits of fraction."""
    fraction, exponent = math.frexp(x)  # x = fraction * 2**exponent, 0.5 <= |fraction| < 1
    return math.ldexp(round(math.ldexp(fraction, fraction_bits + 1)), exponent - fraction_bits - 1)


@exercise(
    signature="rounded(x: float, fraction_bits: int) -> float",
    returns="the number nearest to x that a format with so many fraction bits can hold",
)
def check_rounded(student: Student) -> Verdict:
    """Round a number as a floating-point format does: to ±1.f × 2**e, where f has `fraction_bits` bits and e is any whole number.

    bf16 has 7 bits, fp16 has 10, fp32 has 23. math.frexp(x) gives (m, e) with x = m × 2**e and 0.5 <= |m| < 1. x may be 0 or
    negative."""
    for x, bits, why in (
        (
            1.001,
            7,
            "Near 1, bf16 has steps of 2**-7 = 0.0078, so an update of 0.001 is lost. For this reason weights stay in fp32.",
        ),
        (1.001, 10, "Near 1, fp16 has steps of 2**-10 = 0.00098, so the update stays, nearly."),
        (3.14159, 7, "Between 2 and 4 the steps are 2**-6: twice as wide as between 1 and 2."),
        (1000.3, 10, "Between 512 and 1024 the steps are 2**9 × 2**-10 = 0.5."),
        (0.0013, 7, "Small numbers have small steps: a step is a share of the number."),
        (0.1, 15, "The format has 15 bits of fraction here."),
        (-2.7, 10, "The sign has a bit of its own."),
        (-1.3, 7, "The sign has a bit of its own: round a negative number to the nearest, too."),
        (0.0, 7, "Zero stays zero."),
    ):
        fixed = 2.0**bits
        exponent = math.frexp(x)[1]
        scale = 2.0 ** (exponent - bits - 1)
        student.gives(
            (x, bits),
            expected=nearest(x, bits),
            why=why,
            mistakes=[
                (round(x * fixed) / fixed, f"These are steps of 2**-{bits} for every number. In a float, a step grows with e."),
                (math.trunc(x / scale) * scale, "This cuts the last bits off. Take the *nearest* number."),
                (math.floor(x / scale) * scale, "This rounds down. Take the *nearest* number."),
                (
                    nearest(x, bits - 1),
                    "This is one bit too few. The 1 of 1.f is not one of the fraction bits, but frexp's m has it in its first bit.",
                ),
            ],
            hint="With m, e = math.frexp(x), round m × 2**(fraction_bits + 1) to a whole number.",
        )
    return student.passed("A format keeps a number of digits: bf16 about 3, fp16 about 4, wherever the point is.")


@exercise(
    signature="loss_scale(gradients: list[float], largest: float) -> float",
    returns="the greatest power of two by which all gradients can be multiplied so that no size exceeds `largest`",
)
def check_loss_scale(student: Student) -> Verdict:
    """Choose the scale of the loss: as large as possible, so that small gradients do not become 0 in fp16, but without overflow.

    `largest` is the largest number of the format (65504 for fp16). A gradient may be negative, then its absolute value counts; at
    least one is not 0. The scale is a power of two, because dividing by it later changes no bit. It may be less than 1.
    See Micikevicius et al., "Mixed Precision Training" (2017)."""
    for gradients, largest in (
        ([1e-6, 3e-4, 0.02], FP16_LARGEST),
        ([0.5, -30.0, 2.0], FP16_LARGEST),
        ([1e-7], FP16_LARGEST),
        ([300.0, -40.0], FP16_LARGEST),
        ([-65504.0, 1.0], FP16_LARGEST),
        ([200_000.0, 1.0], FP16_LARGEST),
        ([3.0, -3.0, 0.0, 2.0], 57344.0),
        ([1.9, -0.5], 448.0),
    ):
        size, signed = max(map(abs, gradients)), max(gradients)
        exact = largest / size
        power = 2.0 ** math.floor(math.log2(exact))
        up = 2.0 ** math.ceil(math.log2(exact))
        student.gives(
            (gradients, largest),
            expected=power,
            why=(
                f"The largest gradient has the size {shown(size)}. Times {shown(power)} it is {shown(size * power)}; "
                f"times {shown(2 * power)} it is more than {largest:g}."
            ),
            mistakes=[
                (exact, "This is not a power of two: dividing by it later would round every gradient."),
                (
                    up,
                    f"Times {shown(up)}, the size {shown(size)} becomes {shown(size * up)}. This exceeds {largest:g}: an overflow.",
                ),
                (1.0, "A scale of 1 changes nothing: small gradients become 0, and large ones overflow."),
                (
                    2.0 ** math.floor(math.log2(largest / abs(signed))),
                    "A negative gradient overflows, too: use its absolute value.",
                ),
            ],
            hint="math.log2 gives the power of two, and math.floor rounds it down.",
        )
    return student.passed(
        "The largest gradient now just fits. GradScaler finds such a scale by trials: it doubles it at times, and halves it on overflow."
    )


@exercise(
    signature="amp_step(weights: list[float], scaled_grads: list[float], scale: float, lr: float) -> tuple[list[float], float]",
    returns="(the weights after the step, the scale for the next step)",
)
def check_amp_step(student: Student) -> Verdict:
    """One update of SGD from the gradients of a loss that was multiplied by `scale`. `scaled_grads[i]` belongs to `weights[i]`.

    If all gradients are finite, divide them by the scale, make the step w - lr × gradient, and keep the scale. If a gradient is
    infinite or not a number, keep the weights and halve the scale; it may become less than 1.
    See Micikevicius et al. (2017); torch.amp.GradScaler also doubles the scale after 2000 good steps."""
    weights = [1.0, -2.0]
    for scaled, scale, lr in (
        ([8.0, -4.0], 8.0, 0.5),
        ([math.inf, 4.0], 8.0, 0.5),
        ([4.0, -math.inf], 1024.0, 0.5),
        ([math.nan, 4.0], 8.0, 0.5),
        ([4.0, math.nan], 1.0, 0.5),
        ([0.0, 64.0], 64.0, 0.5),
        ([100_000.0, -8.0], 1024.0, 0.125),
    ):
        sound = all(map(math.isfinite, scaled))
        raw = [w - lr * g for w, g in zip(weights, scaled, strict=True)]
        updated = [w - lr * g / scale for w, g in zip(weights, scaled, strict=True)]
        partly = [new if math.isfinite(new) else w for w, new in zip(weights, updated, strict=True)]
        if sound:
            mistakes = [
                ((raw, scale), "The loss was multiplied by the scale, so divide the gradients by it before the update."),
                ((updated, scale / 2), "All gradients are finite: keep the scale."),
            ]
        else:
            spoiled = "A gradient that is inf or nan went into the weights. They stay inf or nan for ever."
            mistakes = [((new, kept), spoiled) for new in (raw, updated) for kept in (scale, scale / 2)]
            mistakes += [
                ((partly, scale / 2), "The other gradients come from the same overflow: skip the whole step."),
                ((weights, scale), "The step is skipped, but with the same scale the next step overflows again: halve it."),
                ((weights, scale * 2), "The scale was too large: halve it, do not double it."),
            ]
        student.gives(
            (weights, scaled, scale, lr),
            expected=(updated, scale) if sound else (weights, scale / 2),
            why="All gradients are finite: divide them by the scale, then make the step."
            if sound
            else "A gradient is inf or nan: keep the weights and halve the scale.",
            hint="math.isfinite is False for inf and for nan.",
            mistakes=mistakes,
        )
    return student.passed("An overflow costs one step, not the whole training: the step is skipped, and the scale is halved.")


@exercise(
    signature="push(weight: float, version: int, gradient: float, read_version: int, lr: float) -> tuple[float, int, int]",
    returns="(the new weight, the new version, the staleness of this gradient)",
)
def check_push(student: Student) -> Verdict:
    """What does an asynchronous server do with one pushed gradient? It makes an SGD step at once and counts a new version.

    `weight` and `version` are the server's now. The worker computed `gradient` on the weight of `read_version`. The staleness is the
    number of updates between reading that weight and applying the gradient. The check plays three workers; one of them is slow.
    See Li et al., "Scaling Distributed Machine Learning with the Parameter Server" (2014)."""
    weight, version, seen = 4.0, 0, Counter()
    read = {worker: (weight, version) for worker in "abc"}
    for lr, workers in ((0.1, "aabacbbacb"), (0.75, "abcabc")):  # who pushes next; c is slow at first
        for worker in workers:
            at, read_version = read[worker]
            gradient = at - 1.0  # of (w - 1)² / 2, at the weight that was read
            stale = version - read_version
            expected = (weight - lr * gradient, version + 1, stale)
            student.gives(
                (weight, version, gradient, read_version, lr),
                expected=expected,
                why=f"The worker read version {read_version}, and the server is at version {version}: {stale} updates lie between.",
                mistakes=[
                    ((expected[0], version + 1, stale + 1), "Count the updates before this one; do not count this one."),
                    ((expected[0], version, stale), "Every update makes a new version."),
                    (
                        (expected[0], version + 1, -stale),
                        "The staleness is the server's version minus the version that was read.",
                    ),
                    ((weight + lr * gradient, version + 1, stale), "Subtract the gradient, do not add it."),
                    ((weight - gradient, version + 1, stale), "The learning rate is missing."),
                    ((expected[0], read_version + 1, stale), "The new version is the server's version plus 1."),
                    (
                        (at - lr * gradient, version + 1, stale),
                        "Start from the server's weight now: other workers have changed it.",
                    ),
                ],
            )
            weight, version = expected[0], version + 1
            seen[stale] += 1
            read[worker] = (weight, version)
    table = "\n".join(f"staleness {stale}: {'#' * times} {times}" for stale, times in sorted(seen.items()))
    return student.passed(
        f"{version} pushes from 3 workers, and nobody waited. The weight went from 4 to {weight:.2f} (the best is 1).", table
    )
