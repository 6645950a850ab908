"""Exercises on the size of networks: parameters, the bytes of their gradients, and the work that stands against those bytes."""

from __future__ import annotations

import math

from labkit.checks.judge import Student, Verdict, exercise, shown

RESNET18 = [(64, 64, 1)] * 2 + [(64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]


@exercise(
    7,
    signature="gradient_bytes(shapes: list[tuple[int, ...]], bytes_per_number: int) -> int",
    returns="the bytes of all gradients together",
)
def check_gradient_bytes(student: Student) -> Verdict:
    """How many bytes of gradients does a network send in every step? `shapes` are those of its parameters; a gradient has the shape of its
    parameter."""
    for shapes, size in (
        ([(64, 3, 3, 3), (64,), (64,)], 4),
        ([(10, 512), (10,)], 4),
        ([(10, 512), (10,)], 2),
        ([(2, 3), (4,)], 4),
    ):
        numbers = [math.prod(shape) for shape in shapes]
        student.gives(
            shapes,
            size,
            expected=sum(numbers) * size,
            why=f"{' + '.join(map(str, numbers))} numbers of {size} bytes.",
            mistakes=[
                (sum(numbers), f"Those are numbers; each has {size} bytes."),
                (sum(map(sum, shapes)) * size, "The sides of a tensor multiply, they do not add."),
                (math.prod(numbers) * size, "Within a shape sides multiply; over the tensors, add."),
                (numbers[0] * size, "That is the first tensor alone."),
            ],
            hint="math.prod(shape)",
        )
    return student.passed("As many bytes as the parameters, whatever the batch: a larger batch sends them less often per image.")


@exercise(
    7,
    signature="block_parameters(cin: int, cout: int, stride: int) -> int",
    returns="the number of parameters of a basic block",
)
def check_block_parameters(student: Student) -> Verdict:
    """Count the parameters of ResNet's basic block: a 3×3 convolution cin → cout, a 3×3 convolution cout → cout, each without bias and followed
    by a BatchNorm (two parameters per channel). Where the shape changes (stride not 1, or cin not cout), the shortcut is a 1×1
    convolution with a BatchNorm; otherwise it has none.

    He et al., "Deep Residual Learning for Image Recognition" (2015).
    """
    blocks = 0
    for number, (cin, cout, stride) in enumerate((*RESNET18, (64, 64, 2), (16, 32, 1))):
        body, norms = 9 * cin * cout + 9 * cout * cout, 4 * cout
        changes = stride != 1 or cin != cout
        shortcut = cin * cout + 2 * cout if changes else 0
        always = cin * cout + 2 * cout
        student.gives(
            cin,
            cout,
            stride,
            expected=body + norms + shortcut,
            why=f"Convolutions {body}, their BatchNorms {norms}, shortcut {shortcut}.",
            mistakes=[
                (body + (cin * cout if changes else 0), "The BatchNorms are left out: a weight and a bias per channel, each."),
                (
                    body + norms,
                    f"The shape changes ({cin} → {cout} channels, stride {stride}): the shortcut needs parameters, too.",
                ),
                (body + norms + always, "The shape does not change: the shortcut passes the input on, and has no parameters."),
                (body + norms + shortcut + 2 * cout, "The convolutions have no bias: BatchNorm takes a mean off at once."),
                (body + norms + (cin * cout if changes else 0), "The shortcut's convolution has a BatchNorm, too."),
                (body + norms + shortcut - 9 * cout * (cout - cin), "The second convolution goes from cout to cout channels."),
                (body + 2 * cout + shortcut, "There are two BatchNorms in the body."),
            ],
        )
        blocks += body + norms + shortcut if number < len(RESNET18) else 0
    total = blocks + (3 * 64 * 9 + 2 * 64) + (512 * 100 + 100)
    return student.passed(
        f"Your eight blocks, stem and head make a ResNet-18 for 100 classes: {total:,} parameters, {4 * total / 2**20:.1f} MiB of gradients."
    )


@exercise(
    7,
    signature="macs_per_gradient_byte(cin: int, cout: int, kernel: int, side: int, batch: int) -> float",
    returns="multiply-adds of the forward pass for each byte of fp32 gradient",
)
def check_macs_per_gradient_byte(student: Student) -> Verdict:
    """How much does a convolution compute for each byte of gradient that it sends? Each of side × side output positions of each image takes
    kernel × kernel × cin multiply-adds per output channel; the gradient has 4 bytes per weight (no bias).
    """
    cases = ((64, 64, 3, 32, 128), (512, 512, 3, 4, 128), (64, 256, 1, 32, 256), (3, 64, 3, 32, 1))
    for cin, cout, kernel, side, batch in cases:
        weights = cin * cout * kernel**2
        work = weights * side**2 * batch
        student.gives(
            cin,
            cout,
            kernel,
            side,
            batch,
            expected=work / (4 * weights),
            why=f"{shown(work)} multiply-adds, {4 * weights} bytes of gradient.",
            mistakes=[
                (work, "That is the work alone; divide by the bytes of the gradient."),
                (work / weights, "A number has 4 bytes."),
                (
                    work / batch / (4 * weights),
                    "Every image of the batch is computed; the gradient is sent once for all of them.",
                ),
                (
                    side**2 * batch * kernel**2 / 4,
                    "The weights are kernel × kernel × cin × cout: the kernel is in the gradient, too.",
                ),
                (4 * weights / work, "The other way round: work over bytes."),
            ],
        )
    return student.passed(
        "batch × side² / 4: channels and kernel cancel. Early layers compute much per byte, late ones (side 4) little: "
        "their gradients are the ones that cost, and backward has them ready first."
    )
