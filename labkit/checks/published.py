"""Exercises on reading the published table: what follows from its figures by arithmetic, and what does not.

The first cases of each check are figures of the table itself (params/published_results.csv); the others are made up."""

import itertools
import math

from labkit.checks.judge import Student, Verdict, exercise, shown
from labkit.results.published import EPOCHS, IMAGE_MIB, IMAGES, LOW, P_MIB, Line, at, axes_of, lines


def single(batch: int = 256, cache: bool = False, amp: bool = False) -> Line:
    """A published row of one GPU."""
    return lines()[f"single_gpu_resnet18_bs{batch}_cache{cache}_amp{amp}"]


def ddp(batch: int = 128, cache: bool = False, amp: bool = False) -> Line:
    """A published row of DDP on NCCL, with two ranks of this batch."""
    return lines()[f"ddp_nccl_resnet18_bs{batch}x2_cache{cache}_amp{amp}"]


@exercise(
    signature="batch_counts(per_device: int, devices: int, column: int) -> str",
    returns='the text "one device", "all devices", "both" or "neither"',
)
def check_batch_counts(student: Student) -> Verdict:
    """What does the batch column count: the images of one device, or those of all devices together?

    Each of `devices` devices trains `per_device` images in a step. Return "one device" or "all devices". Return "both" if the two are
    the same number, and "neither" if the column is another number."""
    cases = [(128, 2, 128), (256, 2, 512), (128, 2, 256), (256, 1, 256), (64, 2, 128), (64, 4, 128), (64, 4, 64), (100, 1, 200)]
    for one, devices, column in cases:
        fits = [name for name, count in (("one device", one), ("all devices", one * devices)) if count == column]
        expected = "both" if len(fits) == 2 else "".join(fits) or "neither"
        student.gives(
            (one, devices, column),
            expected=expected,
            why=f"One device trains {one} images in a step, and all devices train {one} × {devices} = {one * devices}.",
            mistakes=[(name, "With one device the two are the same number.") for name in fits]
            + [("both", "The two are different numbers here.")],
        )
    return student.passed("The column has one heading and two meanings: in the rows of the server it counts one worker.")


@exercise(
    signature="images_trained(one_rate: float, one_s: float, other_rate: float, other_s: float) -> float",
    returns="the images that each of the two rows trained in all epochs together",
)
def check_images_trained(student: Student) -> Verdict:
    """How many images did two rows train, each of them the same number n, if both spent the same time c outside training?

    `one_rate` and `other_rate` are images/s of training, `one_s` and `other_s` the whole times in seconds. Each row has
    time = n / rate + c. Do not round."""
    real = [
        figure for row in (single(cache=True, amp=True), single(cache=True)) for figure in (row.images_per_s, row.total_time_s)
    ]
    per_image, n = "Subtract seconds per image (1 / rate), not images per second.", 0.0
    for a, a_s, b, b_s in ((4000.0, 253.0, 2000.0, 503.0), (500.0, 2100.0, 1000.0, 1100.0), (*real[2:], *real[:2]), real):
        n = (b_s - a_s) / (1 / b - 1 / a)
        c = shown(a_s - n / a)
        student.gives(
            (a, a_s, b, b_s),
            expected=n,
            why=f"Subtract one equation from the other: c goes, and {shown(b_s - a_s)} = n · (1/{shown(b)} − 1/{shown(a)}).",
            mistakes=[
                (a * a_s, f"This is images/s × time of the first row. It counts the {c} s outside training as training."),
                (b * b_s, f"This is images/s × time of the second row. It counts the {c} s outside training as training."),
                ((a * a_s + b * b_s) / 2, "This is the mean of images/s × time. Both contain the time outside training."),
                (-n, "The sign is wrong: subtract the rows in the same order above and below the fraction line."),
                (a_s - n / a, "These are the seconds outside training. The images are asked."),
                (abs((b_s - a_s) * (a - b)), per_image),
                ((b_s - a_s) / (a - b), per_image),
                (n / IMAGES, f"This is a number of epochs of {IMAGES:,} images. The images are asked."),
            ],
            hint="Two equations, two unknowns: write both, and subtract one from the other.",
        )
    return student.passed(f"The two cached rows give {n / 1e6:.2f} million images: {n / IMAGES:.1f} epochs of {IMAGES:,} images.")


@exercise(
    signature="outside_s(images_per_s: float, total_s: float, epochs: int, images: int) -> float",
    returns="the seconds of one epoch that are not training",
)
def check_outside_s(student: Student) -> Verdict:
    """How many seconds of each epoch are not training (evaluation, start of the loaders, and so on)?

    A row trains `epochs` epochs of `images` images at `images_per_s`, and takes `total_s` seconds in all. Do not round."""
    real = [(line.images_per_s, line.total_time_s, EPOCHS, IMAGES) for line in (single(), ddp(), ddp(cache=True))]
    for rate, total, epochs, images in (*real, (1000.0, 700.0, 10, 50_000), (500.0, 450.0, 3, 60_000)):
        train = images / rate
        outside = total / epochs - train
        student.gives(
            (rate, total, epochs, images),
            expected=outside,
            why=f"An epoch takes {shown(total / epochs)} s in all, and {shown(train)} s of it are training.",
            mistakes=[
                (outside * epochs, f"These are the seconds of all {epochs} epochs. Those of one epoch are asked."),
                (train, "These are the seconds of training in an epoch. The others are asked."),
                (total / epochs, "These are all seconds of an epoch, training too."),
                (-outside, "The sign is wrong: subtract the training from the whole."),
                (total - train, "This subtracts the training of one epoch from the time of all epochs."),
            ],
        )
    one, pair = single().outside_s, ddp().outside_s
    return student.passed(
        f"One GPU: {one:.2f} s in each epoch. DDP without a cache: {pair:.2f} s, {pair / one:.0f} times as many."
    )


@exercise(
    signature="rate_needed(images: int, rate: float, outside_s: float, own_outside_s: float) -> float",
    returns="images/s of training, or math.inf if no speed is enough",
)
def check_rate_needed(student: Student) -> Verdict:
    """How fast must a row train, so that its epochs take as long as those of another row?

    An epoch has `images` images. The other row trains `rate` images/s and spends `outside_s` seconds of each epoch outside training.
    Our row spends `own_outside_s` seconds outside. Return math.inf if they leave no time for training."""
    rows = [(single(cache=True), ddp(cache=True, amp=True)), (single(), ddp())]
    cases = [(IMAGES, one.images_per_s, one.outside_s, own.outside_s) for one, own in rows]
    cases += [(10_000, 1000.0, 2.0, own) for own in (7.0, 2.0, 11.5, 12.0, 20.0)] + [(10_000, 1000.0, 5.0, 0.0)]
    for images, rate, outside, own in cases:
        train, epoch = images / rate, images / rate + outside
        left = epoch - own
        mistakes = [
            (rate, "With an equal speed, our row still ends at another time: it spends other seconds outside training."),
            (images / (epoch + own), "Subtract our own seconds from the epoch; do not add them."),
            (rate * (train + own) / epoch, "This compares whole epochs. Only the training can become faster."),
            (left, "These are the seconds that are left for training. Divide the images by them."),
        ]
        if left < 0:
            mistakes = [(images / left, "A negative speed: no time is left for training, so no speed is enough.")]
        elif own < train:
            mistakes.append((images / (train - own), "The other row's seconds outside belong to its epoch, too."))
        student.gives(
            (images, rate, outside, own),
            expected=images / left if left > 0 else math.inf,
            why=f"The other epoch takes {shown(epoch)} s. Our row needs {shown(own)} s of them outside, so {shown(left)} s are left.",
            mistakes=mistakes,
        )
    return student.passed(
        f"DDP without a cache spends {ddp().outside_s:.2f} s of an epoch outside training. One GPU's whole epoch takes "
        f"{single().total_time_s / EPOCHS:.2f} s. So no training speed is enough."
    )


@exercise(
    signature="losses(one: float, one_small: float, pair_cached: float, pair: float) -> list[float]",
    returns="three shares from 0 to 1: what is lost in each step, relative to the step before",
)
def check_losses(student: Student) -> Verdict:
    """Where does the speed of two GPUs go, from the ideal to the row without a cache?

    `one` and `one_small` are images/s of one GPU with the large and with the small batch; `pair_cached` and `pair` are those of two
    GPUs, with the small batch on each. The steps: the ideal (two GPUs with the large batch), the ideal with the small batch, the cached
    pair, the pair. Do not round."""
    real = tuple(line.images_per_s for line in (single(), single(128), ddp(cache=True), ddp()))
    for one, small, cached, pair in (
        real,
        (1000.0, 800.0, 1200.0, 600.0),
        (100.0, 100.0, 200.0, 200.0),
        (500.0, 400.0, 720.0, 540.0),
    ):
        steps = [2 * one, 2 * small, cached, pair]
        lost = [1 - after / before for before, after in itertools.pairwise(steps)]
        student.gives(
            (one, small, cached, pair),
            expected=lost,
            why=f"The steps are {' → '.join(map(shown, steps))} images/s.",
            mistakes=[
                ([1 - share for share in lost], "These shares are kept. What is lost is 1 less each of them."),
                ([1 - small / one, 1 - cached / small, 1 - pair / cached],
                 f"Your ideal is 1 × {shown(one)} images/s, one GPU. The ideal of two GPUs is 2 × {shown(one)} = {shown(2 * one)}."),
                ([(before - after) / steps[0] for before, after in itertools.pairwise(steps)],
                 "These are shares of the ideal. Each loss is asked relative to the step before it."),
                ([1 - after / steps[0] for after in steps[1:]], "This is lost in all, up to each step. What each step loses is asked."),
                ([100 * share for share in lost], "These are percent. Shares from 0 to 1 are asked."),
            ],
        )  # fmt: skip
    return student.passed("Of the ideal, 84 %, then 48 %, then 23 % are left: multiply what each step keeps; losses do not add.")


@exercise(
    signature="residual_mib(column: float, copies: float, p_mib: float, images: int, image_mib: float) -> float",
    returns="the column less the line, in MiB: above 0 if the row uses more than the line says",
)
def check_residual_mib(student: Student) -> Verdict:
    """How far is a row from the memory line? The line: `copies` copies of `p_mib`, and `image_mib` for each of `images` images.

    `column` is the published memory, and all are MiB of one device. Do not round."""
    rows = [(single(), 3.0), (ddp(), 4.0), (ddp(64), 4.0), (lines()["ps_mode_resnet18_bs128_workers2"], 2.0)]
    real = [(line.max_mem_mib, copies, P_MIB, line.spec.batch_per_rank, IMAGE_MIB) for line, copies in rows]
    for column, copies, p, images, image in (*real, (500.0, 3.0, 50.0, 100, 2.0), (100.0, 4.0, 25.0, 10, 1.0)):
        line = copies * p + image * images
        student.gives(
            (column, copies, p, images, image),
            expected=column - line,
            why=f"The line gives {shown(copies)} · {shown(p)} + {shown(image)} · {images} = {shown(line)} MiB.",
            mistakes=[
                (line - column, "The sign is wrong: subtract the line from the column."),
                (column - line - image * images, "This counts the images of two devices. The column is of one device."),
                (line, "This is the line. Subtract it from the column."),
                (column - p - image * images, f"There are {shown(copies)} copies of P, not one."),
                (column - image * images, "The copies of P are missing."),
                (column - copies * p, "The images are missing."),
            ],
        )
    return student.passed(
        "DDP at 64 uses 53 MiB more than the line, and cached DDP 40 MiB more. The other rows are within 7 MiB."
    )


@exercise(
    signature="axes_that_explain(low: list[dict[str, str]], others: list[dict[str, str]]) -> list[str]",
    returns="the names of the axes, sorted",
)
def check_axes_that_explain(student: Student) -> Verdict:
    """Which axes separate the low rows from the others? A row is a dict {axis: value}, and all rows have the same axes.

    An axis separates them if no value of a low row is also a value of another row."""
    table = [(axes_of(line), line in at(LOW)) for line in lines().values()]
    real = ([axes for axes, is_low in table if is_low], [axes for axes, is_low in table if not is_low])
    for low, others in (
        ([{"cache": "yes", "AMP": "no"}, {"cache": "yes", "AMP": "yes"}], [{"cache": "no", "AMP": "no"}, {"cache": "no", "AMP": "yes"}]),
        ([{"a": "1", "b": "x"}, {"a": "2", "b": "x"}], [{"a": "3", "b": "x"}]),
        ([{"z": "1", "a": "2"}], [{"z": "2", "a": "1"}]),
        ([{"a": "1"}, {"a": "2"}], [{"a": "2"}, {"a": "3"}]),
        real,
    ):  # fmt: skip
        ours, theirs = ({axis: {row[axis] for row in rows} for axis in low[0]} for rows in (low, others))
        shared = {axis: ", ".join(sorted(ours[axis] & theirs[axis])) for axis in ours}
        separating = [axis for axis, values in shared.items() if not values]
        student.gives(
            (low, others),
            expected=sorted(separating),
            why=f"Values that are in both: {'; '.join(f'{axis}: {values}' for axis, values in shared.items() if values) or 'none'}.",
            mistakes=[
                (separating, "The names are right, but not sorted."),
                (sorted(a for a in ours if len(ours[a]) == 1), "All low rows have one value there. Do other rows have it, too?"),
                (sorted(a for a in ours if ours[a] != theirs[a]), "The values differ, but some are in both."),
                (sorted(a for a in ours if shared[a]), "These are the axes that do not separate the rows."),
            ],
        )  # fmt: skip
    return student.passed(f"In the table no axis separates the {len(real[0])} low rows from the other {len(real[1])}.")
