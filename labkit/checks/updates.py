"""Exercises on 16-bit numbers: what rounding loses, and the loss scale that fp16 needs."""

from __future__ import annotations

import math

from labkit.checks.judge import Student, Verdict, exercise, shown

FP16_LARGEST = 65504.0


def nearest(x: float, fraction_bits: int) -> float:
    fraction, exponent = math.frexp(x)  # x = fraction * 2**exponent, 0.5 <= |fraction| < 1
    return math.ldexp(round(math.ldexp(fraction, fraction_bits + 1)), exponent - fraction_bits - 1)


@exercise(
    5,
    signature="rounded(x: float, fraction_bits: int) -> float",
    returns="the nearest number that a format with so many fraction bits can hold",
)
def check_rounded(student: Student) -> Verdict:
    """Round a number as a 16-bit format does (in the middle of its range): x = ±1.f × 2**e, with `fraction_bits` bits for f. bf16 has
    7, fp16 10, fp32 23. math.frexp(x) gives (m, e) with x = m × 2**e and 0.5 <= |m| < 1.
    """
    for x, bits, why in (
        (1.001, 7, "Near 1, bf16 has steps of 2**-7 = 0.0078: an update of 0.001 is lost. Hence weights stay in fp32."),
        (1.001, 10, "Near 1, fp16 has steps of 2**-10 = 0.00098: the update survives, about."),
        (3.14159, 7, "Between 2 and 4, steps are twice as wide as between 1 and 2: 2**-6."),
        (1000.3, 10, "Between 512 and 1024 the steps are 2**9 × 2**-10 = 0.5."),
        (0.0013, 7, "Small numbers have small steps: it is the share that counts, not the distance."),
        (-2.7, 10, "The sign is a bit of its own."),
        (0.0, 7, "Zero stays zero."),
    ):
        fixed = 2.0**bits
        exponent = math.frexp(x)[1]
        scale = 2.0 ** (exponent - bits - 1)
        student.gives(
            x,
            bits,
            expected=nearest(x, bits),
            why=why,
            mistakes=[
                (
                    round(x * fixed) / fixed,
                    f"Steps of 2**-{bits} everywhere: that is a fixed point. A float's steps grow with its exponent.",
                ),
                (math.trunc(x / scale) * scale, "That cuts the bits off. The format takes the *nearest* number."),
                (math.floor(x / scale) * scale, "That rounds down. The format takes the *nearest* number."),
                (
                    nearest(x, bits - 1),
                    "One bit too few: 1.f has a 1 before the point that is not stored, while frexp's m is below 1.",
                ),
            ],
            hint="With m, e = math.frexp(x), m × 2**(fraction_bits + 1) is to be a whole number.",
        )
    return student.passed("Rounding keeps a share, not a distance: bf16 about 3 digits that count, fp16 about 4.")


@exercise(
    5,
    signature="loss_scale(gradients: list[float], largest: float) -> float",
    returns="the greatest power of two by which all gradients can be multiplied without one exceeding `largest`",
)
def check_loss_scale(student: Student) -> Verdict:
    """Choose the scale of the loss: as large as can be, so that small gradients do not vanish in fp16 (whose smallest number is about
    6e-8), but none overflows (its largest is 65504). A power of two, because taking it out again then loses no bit.

    Micikevicius et al., "Mixed Precision Training" (2017).
    """
    for gradients in ([1e-6, 3e-4, 0.02], [0.5, -30.0, 2.0], [1e-7], [300.0, -40.0], [-65504.0, 1.0], [200_000.0, 1.0]):
        size, signed = max(map(abs, gradients)), max(gradients)
        exact = FP16_LARGEST / size
        power = 2.0 ** math.floor(math.log2(exact))
        up = 2.0 ** math.ceil(math.log2(exact))
        student.gives(
            gradients,
            FP16_LARGEST,
            expected=power,
            why=f"The largest gradient is {shown(size)}: times {shown(power)} it is {shown(size * power)}, times {shown(2 * power)} too much.",
            mistakes=[
                (exact, "That uses the whole range, but is no power of two: taking it out again would round every gradient."),
                (
                    up,
                    f"Times {shown(up)}, the gradient {shown(size)} becomes {shown(size * up)}: more than {FP16_LARGEST:g}, an overflow.",
                ),
                (1.0, "A scale of 1 changes nothing: small gradients vanish, large ones overflow."),
                (
                    2.0 ** math.floor(math.log2(FP16_LARGEST / abs(signed))),
                    "A negative gradient overflows, too: its size counts.",
                ),
            ],
            hint="math.log2 tells which power of two a number is; math.floor rounds it down. The scale may be less than 1.",
        )
    return student.passed(
        "Gradients fill fp16's range from above. GradScaler finds this by trying: double now and then, halve on overflow."
    )


@exercise(
    5,
    signature="amp_step(weights: list[float], scaled_grads: list[float], scale: float, lr: float) -> tuple[list[float], float]",
    returns="(the weights after the step, the scale for the next step)",
)
def check_amp_step(student: Student) -> Verdict:
    """One update from the gradients of a scaled loss. Take the scale out first. If a gradient is infinite or not a number, skip the
    update and halve the scale; if not, w - lr × gradient, and the scale stays.

    Micikevicius et al. (2017); torch.amp.GradScaler, which also doubles the scale after 2000 good steps in a row.
    """
    weights, lr = [1.0, -2.0], 0.5
    for scaled, scale in (
        ([8.0, -4.0], 8.0),
        ([math.inf, 4.0], 8.0),
        ([4.0, -math.inf], 1024.0),
        ([math.nan, 4.0], 8.0),
        ([0.0, 64.0], 64.0),
    ):
        sound = all(map(math.isfinite, scaled))
        raw = [w - lr * g for w, g in zip(weights, scaled, strict=True)]
        updated = [w - lr * g / scale for w, g in zip(weights, scaled, strict=True)]
        partly = [new if math.isfinite(new) else w for w, new in zip(weights, updated, strict=True)]
        spoiled = "A gradient that is inf or nan went into the weights: they never recover."
        forgotten = "The loss was scaled, so the gradients are: divide them by the scale before the update."
        if sound:
            mistakes = [((raw, scale), forgotten), ((updated, scale / 2), "Nothing overflowed: the scale stays.")]
        else:
            mistakes = [((new, kept), spoiled) for new in (raw, updated) for kept in (scale, scale / 2)]
            mistakes += [
                ((partly, scale / 2), "The other gradients of that step come from the same overflow: skip the whole step."),
                ((weights, scale), "Skipped, but with the same scale the next step overflows again: halve it."),
                ((weights, scale * 2), "On an overflow the scale was too large: halve it, do not double it."),
            ]
        student.gives(
            weights,
            scaled,
            scale,
            lr,
            expected=(updated, scale) if sound else (weights, scale / 2),
            why="Sound gradients: out with the scale, then the update."
            if sound
            else "A gradient overflowed: skip, and halve the scale.",
            hint="math.isfinite is False for inf and for nan.",
            mistakes=mistakes,
        )
    return student.passed(
        "Unscaled, updated, and skipped with half the scale on inf and nan: one bad step costs one step, not the run."
    )
