"""Exercises on the batch: the mean loss, BatchNorm over ranks, the learning rate, gradient accumulation, what fits in memory."""

import math

from labkit.checks.judge import NotYet, Student, Verdict, exercise, same, shown


@exercise(
    signature="mean_loss(means: list[float], counts: list[int]) -> float", returns="the mean loss over all images of all ranks"
)
def check_mean_loss(student: Student) -> Verdict:
    """The mean loss over all images. `means[r]` is the mean loss of rank r, and `counts[r]` the number of its images.

    The counts may differ, and some may be 0 (in the last batch of an epoch). At least one is greater than 0."""
    for means, counts in (
        ([1.0, 3.0], [128, 128]),
        ([2.0, 1.0], [128, 32]),
        ([0.5, 4.0, 1.0], [10, 1, 5]),
        ([2.0, 0.0], [7, 0]),
        ([0.125, 3.0], [3, 4]),
    ):
        total = sum(m * c for m, c in zip(means, counts, strict=True))
        student.gives(
            (means, counts),
            expected=total / sum(counts),
            why=f"There are {sum(counts)} images, and their losses sum to {shown(total)}.",
            mistakes=[
                (sum(means) / len(means), "This is the mean of the means. It gives an image of a small batch too much weight."),
                (total, "This is the sum over all images. Divide it by the number of images."),
                (total / len(means), "Divide by the number of images, not by the number of ranks."),
            ],
            hint="mean × count is the sum of a rank's losses.",
        )
    return student.passed(
        "The mean of the means is right only if all batches are equal. For this reason the lab leaves out an incomplete batch."
    )


@exercise(
    signature="sync_statistics(means: list[float], variances: list[float], counts: list[int]) -> tuple[float, float]",
    returns="(mean, variance) over the images of all ranks",
)
def check_sync_statistics(student: Student) -> Verdict:
    """Mean and variance over the images of all ranks, as SyncBatchNorm needs them, from each rank's own mean and variance.

    `means[r]`, `variances[r]` and `counts[r]` are those of rank r. A variance is the mean of the squared distances from the mean
    (divided by the count, not by the count - 1). The counts may differ; all are greater than 0."""
    for means, variances, counts in (
        ([1.0, 3.0], [4.0, 8.0], [96, 32]),
        ([2.0, -1.0], [1.0, 2.5], [128, 128]),
        ([0.5, 0.5, 0.5], [1.0, 2.0, 6.0], [4, 1, 5]),
        ([7.0], [3.0], [2]),
        ([1000.0, 1001.0], [0.25, 0.5], [3, 5]),
    ):
        n, ranks = sum(counts), len(counts)
        mean = weighted(means, counts)
        within, between = weighted(variances, counts), weighted([(m - mean) ** 2 for m in means], counts)
        square = weighted([v + m * m for v, m in zip(variances, means, strict=True)], counts)
        even, even_within = sum(means) / ranks, sum(variances) / ranks
        apart = (
            "The ranks' means differ, and this adds to the variance: add the squared distance of each rank's mean from the mean."
        )
        unweighted = "Every rank counts equally here. An image must count equally: weigh each rank by its count."
        student.gives(
            (means, variances, counts),
            expected=(mean, within + between),
            why=f"The mean is {shown(mean)}. Within the ranks the variance is {shown(within)}, and between them {shown(between)}.",
            mistakes=[
                ((mean, within), apart),
                ((even, even_within), f"{unweighted} {apart}"),
                ((mean, even_within), f"The mean is right. {apart}"),
                ((even, even_within + sum((m - even) ** 2 for m in means) / ranks), unweighted),
                ((mean, between), "This is the variance between the ranks alone. Add the variance within the ranks."),
                ((mean, square), "This is the mean of the squares. Subtract the square of the mean."),
                ((mean, (within + between) * n / (n - 1)), "Divide by the number of images, not by one less."),
                ((mean, (within + between) ** 0.5), "This is the standard deviation. The variance is its square."),
                ((within + between, mean), "Return the mean first."),
            ],
            hint="variance + mean² is the mean of a rank's squares. Means of squares add up like means.",
        )
    return student.passed(
        "A small message in each layer makes BatchNorm see all images. Backward needs one more: the statistics depend on all images."
    )


def weighted(values: list[float], counts: list[int]) -> float:
    """The mean of values of which each counts so many times."""
    return sum(value * count for value, count in zip(values, counts, strict=True)) / sum(counts)


@exercise(
    signature="learning_rate(step: int, base_lr: float, base_batch: int, batch: int, warmup_steps: int) -> float",
    returns="the learning rate of this step; steps are counted from 0",
)
def check_learning_rate(student: Student) -> Verdict:
    """The learning rate by the linear scaling rule, with warm-up. A batch of k × `base_batch` images gets the rate k × `base_lr`.

    In the first `warmup_steps` steps the rate rises evenly: step 0 has 1/warmup_steps of the rate, and the last of these steps has
    the whole rate. After that the rate does not change. `warmup_steps` may be 0: then there is no warm-up.
    See Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour" (2017)."""
    for base, base_batch, batch, warmup in ((0.1, 256, 1024, 5), (0.1, 128, 128, 4), (0.2, 256, 128, 2), (0.1, 256, 512, 0)):
        peak = base * batch / base_batch
        for step in (0, 1, 3, 4, 5, 50, 2000):
            part = min(1.0, (step + 1) / warmup) if warmup else 1.0
            why = f"The batch is {shown(batch / base_batch)} times base_batch, so the whole rate is {shown(peak)}."
            if step < warmup:
                why += f" Step {step} is step number {step + 1} of the {warmup} steps of the warm-up."
            student.gives(
                (step, base, base_batch, batch, warmup),
                expected=peak * part,
                why=why,
                mistakes=[
                    (base * part, f"This rate does not depend on the batch. {why}"),
                    (base * math.sqrt(batch / base_batch) * part, f"This is the square-root rule; use the linear rule. {why}"),
                    (base * base_batch / batch * part, f"A larger batch must get a larger rate, not a smaller one. {why}"),
                    (
                        peak * step / max(warmup, 1),
                        f"In the warm-up the rate is (step + 1) / warmup_steps of the whole rate. {why}",
                    ),
                    (peak * min(1.0, step / max(warmup, 1)), f"Step 0 would learn nothing: use (step + 1) / warmup_steps. {why}"),
                    (peak * (step + 1) / max(warmup, 1), f"After the warm-up the rate must not rise any more. {why}"),
                    (peak, f"This is the rate after the warm-up. {why}"),
                ],
                hint="With warmup_steps = 0 there is no warm-up: do not divide by it.",
            )
    return student.passed("A batch k times as large gets k times the rate. The warm-up makes the first steps safe.")


@exercise(signature="accumulated(gradient, images: list[float], parts: int) -> float", returns="the mean gradient of all images")
def check_accumulated(student: Student) -> Verdict:
    """The gradient of a large batch, computed from smaller parts one after the other (gradient accumulation).

    `gradient(part)` takes a list of images (here an image is a number) and returns their mean gradient, a float. Give each image to
    it once. No part may be longer than ceil(len(images) / parts); parts may have different lengths. Do not round."""
    for images, parts in (
        ([1.0, 2.0, 3.0, 6.0], 2),
        ([4.0, 1.0, 1.0, 2.0, 7.0, 3.0], 3),
        ([1.0, 2.0, 3.0, 10.0, 20.0], 2),
        ([2.0, 5.0, 1.0, 9.0, 3.0, 4.0, 7.0, 8.0], 3),
        ([0.5, 1.0, 2.0, 8.0, 4.0], 3),
    ):
        taken: list[list[float]] = []

        def gradient(part: list[float], taken: list[list[float]] = taken) -> float:
            taken.append(list(part))
            return sum(image * image for image in part) / len(part)

        call, got = student.text(gradient, images, parts), student(gradient, list(images), parts)
        longest, sizes = -(-len(images) // parts), [len(part) for part in taken]
        calls = f"the lengths of the parts were {shown(sizes)}"
        if max(sizes, default=0) > longest:
            raise NotYet(
                f"{call} called gradient with {max(sizes)} images at once, but at most {longest} fit: {calls}.",
                "Cut the images into parts, and call gradient(part) for each part.",
            )
        squares = [image * image for image in images]
        expected = sum(squares) / len(images)
        if same(got, expected):
            if sorted(image for part in taken for image in part) != sorted(images):
                raise NotYet(
                    f"{call} returned the right number, but {calls}. Give each of the {len(images)} images to gradient once."
                )
            continue
        means = [sum(piece) / len(piece) for at in range(0, len(images), longest) if (piece := squares[at : at + longest])]
        known = [
            (
                sum(means),
                "This is the sum of the parts' means, so the step is too long. Weigh each mean by the length of its part.",
            ),
            (means[-1], "This is the gradient of the last part alone. Did you call zero_grad() between the parts?"),
            (means[0], "This is the gradient of the first part alone."),
            (sum(squares), "This is the sum over the images, not the mean."),
            (sum(means) / len(means), "Parts of different length count equally here. Weigh each mean by the length of its part."),
            (sum(images) / len(images), "This is the mean of the images. Use what gradient(part) returns."),
        ]
        found = next((text for wrong, text in known if same(got, wrong)), f"Here {calls}.")
        raise NotYet(f"{call} returned {shown(got)}, expected {shown(expected)}. {found}")
    return student.passed(
        "This is the gradient of the large batch, in the memory of a small one. The parts take their time one by one."
    )


@exercise(
    signature="largest_batch(memory_bytes: int, parameters: int, activation_bytes: int) -> int",
    returns="the largest number of images that fit; 0 if not even one image fits",
)
def check_largest_batch(student: Student) -> Verdict:
    """The largest batch that fits in the memory of a device, in images.

    The memory holds `parameters` weights, as many gradients and as many momentum numbers, each of 4 bytes (fp32), and
    `activation_bytes` for each image."""
    for memory, parameters, activation in (
        (20_499, 1000, 500),
        (20_000, 1000, 500),
        (24 * 2**30, 11_173_962, 4_790_000),
        (9000, 1000, 500),
    ):
        free = memory - 12 * parameters
        student.gives(
            (memory, parameters, activation),
            expected=max(0, free // activation),
            why=f"Weights, gradients and momentum take {12 * parameters} of {memory} bytes. An image takes {activation}.",
            mistakes=[
                (
                    free // activation,
                    "Not even the weights, gradients and momentum fit. The answer is 0: a batch is never negative.",
                ),
                (memory // activation, "Weights, gradients and momentum need memory, too. Subtract them first."),
                (free / activation, "A batch is a whole number of images: round down."),
                (-(-free // activation), "This is rounded up: the last image does not fit."),
                (
                    max(0, (memory - 4 * parameters) // activation),
                    "Gradients and momentum need as much memory as the weights, each.",
                ),
            ],
        )
    return student.passed(
        "With half the activation bytes (AMP), nearly twice the images fit, if the weights are the smaller part."
    )


@exercise(
    signature="chance_points(accuracy_pct: float, test_images: int) -> float",
    returns="points of accuracy: two standard errors of the difference of two rows",
)
def check_chance_points(student: Student) -> Verdict:
    """Up to how many points may two equally good rows differ by chance, because the test images are few?

    Each row answers a share p = accuracy_pct / 100 of n = test_images images correctly. The standard error of one share is
    √(p · (1 − p) / n); that of the difference of two rows is √2 times as large. Return two standard errors of the difference, in points
    (percent). Do not round."""
    for accuracy, n in ((74.0, 10_000), (67.0, 10_000), (50.0, 100), (90.0, 2_500)):
        p = accuracy / 100
        error = 100 * math.sqrt(p * (1 - p) / n)
        expected = 2 * math.sqrt(2) * error
        student.gives(
            (accuracy, n),
            expected=expected,
            why=f"The standard error of one row is {shown(error)} points.",
            mistakes=[
                (expected / 100, "This is a share. Points are percent: multiply by 100."),
                (2 * error, "These are two standard errors of one row. The difference of two rows has √2 times as much."),
                (error, "This is one standard error of one row. Two standard errors of the difference of two rows are asked."),
                (expected / 2, "This is one standard error of the difference. Two are asked."),
                (4 * error, "The errors of two rows do not add: their squares add, which gives √2, not 2."),
                (math.sqrt(2) * error**2 / 50, "The square root is missing."),
            ],
        )
    return student.passed(
        "At 74 % and 10,000 test images this is 1.24 points, or 124 images. The table writes 0.01 points, one image."
    )
