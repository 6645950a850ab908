"""Exercises on the batch: how many steps an epoch has, what its mean is, how the learning rate follows, what fits in memory."""

from __future__ import annotations

import math

from labkit.checks.judge import NotYet, Student, Verdict, exercise, same, shown


@exercise(
    6,
    9,
    signature="steps_per_epoch(images: int, batch_per_rank: int, world_size: int, drop_last: bool) -> int",
    returns="how many steps each rank makes in an epoch",
)
def check_steps_per_epoch(student: Student) -> Verdict:
    """How many steps has an epoch? All ranks step together; `drop_last` leaves out the images that would not fill a last step,
    else that step is made with the images that are left.
    """
    for images, batch, n in ((50_000, 128, 2), (50_000, 64, 2), (1000, 250, 4), (1001, 250, 2), (100, 128, 2)):
        exact = images / (batch * n)
        for drop, expected, other in ((True, math.floor(exact), math.ceil(exact)), (False, math.ceil(exact), math.floor(exact))):
            left = images - math.floor(exact) * batch * n
            student.gives(
                images,
                batch,
                n,
                drop,
                expected=expected,
                why=f"A step takes {batch} × {n} images; {left} are left after {math.floor(exact)} full steps.",
                mistakes=[
                    (
                        other,
                        f"{left} images are left after the full steps. "
                        + ("Leave them out." if drop else "They need a step, too."),
                    ),
                    (exact, "Steps are whole."),
                    (
                        images // batch,
                        "That is one rank alone: together, the ranks take world_size times as many images per step.",
                    ),
                    (
                        -(-images // batch),
                        "That is one rank alone: together, the ranks take world_size times as many images per step.",
                    ),
                ],
            )
    return student.passed("Twice the ranks or twice the batch: half the steps, and half the updates of the weights.")


@exercise(
    6,
    signature="mean_loss(means: list[float], counts: list[int]) -> float",
    returns="the mean loss over all images",
)
def check_mean_loss(student: Student) -> Verdict:
    """The mean loss over all images, from each rank's mean and its number of images, which need not be equal (a last batch)."""
    for means, counts in (([1.0, 3.0], [128, 128]), ([2.0, 1.0], [128, 32]), ([0.5, 4.0, 1.0], [10, 1, 5]), ([2.0, 0.0], [7, 0])):
        total = sum(m * c for m, c in zip(means, counts, strict=True))
        student.gives(
            means,
            counts,
            expected=total / sum(counts),
            why=f"{sum(counts)} images in all.",
            mistakes=[
                (
                    sum(means) / len(means),
                    "That is the mean of means: an image of the smaller batch would count for more than another.",
                ),
                (total, "That is the sum over all images."),
                (total / len(means), "Divide by the number of images, not of ranks."),
            ],
            hint="mean × count is the sum that a rank has.",
        )
    return student.passed("A mean of means is the mean only if all batches are equal: so this lab leaves out what fills no step.")


@exercise(
    6,
    9,
    signature="learning_rate(step: int, base_lr: float, base_batch: int, batch: int, warmup_steps: int) -> float",
    returns="the learning rate of this step, steps being counted from 0",
)
def check_learning_rate(student: Student) -> Verdict:
    """The linear scaling rule with warm-up: a batch k times `base_batch` gets k times `base_lr`. Over the first `warmup_steps` steps
    the rate rises in equal parts, from 1/warmup_steps of it in step 0 to all of it in the last of them; then it stays.

    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour" (2017).
    """
    for base, base_batch, batch, warmup in ((0.1, 256, 1024, 5), (0.1, 128, 128, 4), (0.2, 256, 128, 2), (0.1, 256, 512, 0)):
        peak = base * batch / base_batch
        for step in (0, 1, 3, 4, 5, 50):
            part = min(1.0, (step + 1) / warmup) if warmup else 1.0
            why = f"The batch is {shown(batch / base_batch)} times base_batch, so the whole rate is {shown(peak)}."
            if step < warmup:
                why += f" Step {step} is number {step + 1} of {warmup} in the warm-up."
            student.gives(
                step,
                base,
                base_batch,
                batch,
                warmup,
                expected=peak * part,
                why=why,
                mistakes=[
                    (base * part, f"The rate does not follow the batch. {why}"),
                    (
                        base * math.sqrt(batch / base_batch) * part,
                        f"That is the square-root rule; the linear rule was asked. {why}",
                    ),
                    (base * base_batch / batch * part, f"The wrong way round: a larger batch gets a larger rate. {why}"),
                    (
                        peak * step / max(warmup, 1),
                        f"Step 0 must move, too, and the warm-up must end: (step + 1) / warmup_steps. {why}",
                    ),
                    (
                        peak * min(1.0, step / max(warmup, 1)),
                        f"In step 0 nothing would be learned: (step + 1) / warmup_steps. {why}",
                    ),
                    (peak * (step + 1) / max(warmup, 1), f"After the warm-up the rate stays, it does not rise on. {why}"),
                    (peak, f"That is the rate after the warm-up. {why}"),
                ],
                hint="With warmup_steps = 0 there is no warm-up: do not divide by it.",
            )
    return student.passed("k times the batch, k times the rate, reached by a warm-up: the first steps are the dangerous ones.")


@exercise(
    9,
    signature="accumulated(gradient, images: list[float], parts: int) -> float",
    returns="the mean gradient of all images",
)
def check_accumulated(student: Student) -> Verdict:
    """The gradient of a large batch from smaller ones, one after the other (gradient accumulation). `gradient(part)` gives the mean gradient
    of a list of images; no part may be longer than ceil(len(images) / parts). Parts need not be equally long.
    """
    for images, parts in (([1.0, 2.0, 3.0, 6.0], 2), ([4.0, 1.0, 1.0, 2.0, 7.0, 3.0], 3), ([1.0, 2.0, 3.0, 10.0, 20.0], 2)):
        sizes: list[int] = []

        def gradient(part: list[float], sizes: list[int] = sizes) -> float:
            sizes.append(len(part))
            return sum(part) / len(part)

        call, got = student.text(gradient, images, parts), student(gradient, list(images), parts)
        longest, calls = -(-len(images) // parts), f"It was asked for parts of {shown(sizes)} images"
        pieces = [images[at : at + longest] for at in range(0, len(images), longest)]
        means = [sum(piece) / len(piece) for piece in pieces]
        if max(sizes, default=0) > longest:
            raise NotYet(
                f"{call} took {max(sizes)} images at once, and at most {longest} fit. {calls}.",
                "Cut the images into parts, and call gradient(part) for each.",
            )
        if same(got, sum(images) / len(images)):
            if sum(sizes) != len(images):
                raise NotYet(f"{call} gave the right number, but not from gradient(part). {calls}, for {len(images)} images.")
            continue
        known = [
            (
                sum(means),
                "That is the sum of the parts' means: the step would be `parts` times too long. Divide the loss, or the sum.",
            ),
            (means[-1], "That is the last part alone: did zero_grad() come between the parts?"),
            (means[0], "That is the first part alone."),
            (sum(images), "That is the sum over the images, not the mean."),
            (
                sum(means) / len(means),
                "Parts of different length count alike there; a mean over all images weighs each by its length.",
            ),
        ]
        found = next((text for wrong, text in known if same(got, wrong)), "")
        raise NotYet(f"{call} returned {shown(got)}, expected {shown(sum(images) / len(images))}. {found or calls + '.'}")
    return student.passed("The gradient of the large batch, in the memory of a small one. Only the time is that of all parts.")


@exercise(
    9,
    signature="memory_bytes(parameters: int, batch: int, activation_bytes: int) -> int",
    returns="the bytes that a training step needs on one device",
)
def check_memory_bytes(student: Student) -> Verdict:
    """What lies in memory in a step: fp32 weights, their gradients and SGD's momentum, 4 bytes each, and `activation_bytes`
    for each image of the batch."""
    for parameters, batch, activation in ((1000, 8, 500), (11_173_962, 256, 4_790_000), (1000, 0, 500)):
        rest = batch * activation
        student.gives(
            parameters,
            batch,
            activation,
            expected=12 * parameters + rest,
            why="Three fp32 numbers per parameter, and the activations of every image.",
            mistakes=[
                (
                    4 * parameters + rest,
                    "Those are the weights and activations: gradients and momentum are as large as the weights, each.",
                ),
                (8 * parameters + rest, "One of weights, gradients and momentum is missing."),
                (3 * parameters + rest, "Parameters are numbers; in fp32 each takes 4 bytes."),
                (batch * (12 * parameters + activation), "The weights are there once, not once per image."),
                (12 * parameters + activation, "Every image of the batch has activations of its own."),
            ],
        )
    return student.passed("A part that is fixed and a part that grows with the batch: a straight line, as in the published rows.")


@exercise(
    9,
    signature="largest_batch(memory_bytes: int, parameters: int, activation_bytes: int) -> int",
    returns="the most images that fit, 0 if not even one does",
)
def check_largest_batch(student: Student) -> Verdict:
    """The largest batch that fits in a device's memory, with fp32 weights, gradients and momentum, and `activation_bytes` per image."""
    for memory, parameters, activation in (
        (20_499, 1000, 500),
        (20_000, 1000, 500),
        (24 * 2**30, 11_173_962, 4_790_000),
        (9000, 1000, 500),
    ):
        free = memory - 12 * parameters
        student.gives(
            memory,
            parameters,
            activation,
            expected=max(0, free // activation),
            why=f"{12 * parameters} bytes are taken before the first image; {shown(free)} are left.",
            mistakes=[
                (free // activation, "Not even the weights fit: no image does, and no batch is less than 0."),
                (memory // activation, "Weights, gradients and momentum need room before the first image does."),
                (free / activation, "A batch is a whole number of images, rounded down."),
                (-(-free // activation), "Rounded up: the last image would not fit."),
                (max(0, (memory - 4 * parameters) // activation), "Gradients and momentum are as large as the weights, each."),
            ],
        )
    return student.passed("Half the activations (AMP) is about twice the batch, as long as the weights are the smaller part.")
