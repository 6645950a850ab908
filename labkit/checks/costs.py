"""Exercises on costs: the size of networks, the memory of a rank, the time of a step, and what a faster part brings."""

import math

from labkit.checks.judge import Student, Verdict, exercise, shown
from labkit.results.published import P_MIB, lines

RESNET18 = [(64, 64, 1)] * 2 + [(64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]


@exercise(
    signature="gradient_bytes(shapes: list[tuple[int, ...]], bytes_per_number: int) -> int",
    returns="the bytes of all gradients together",
)
def check_gradient_bytes(student: Student) -> Verdict:
    """How many bytes of gradients does a network send in every step?

    `shapes` are the shapes of its parameters; a gradient has the shape of its parameter. Each number has `bytes_per_number` bytes.
    """
    for shapes, size in (
        ([(64, 3, 3, 3), (64,), (64,)], 4),
        ([(10, 512), (10,)], 4),
        ([(10, 512), (10,)], 2),
        ([(2, 3), (4,)], 4),
    ):
        sizes = [math.prod(shape) for shape in shapes]
        student.gives(
            (shapes, size),
            expected=sum(sizes) * size,
            why=f"The tensors have {' + '.join(map(str, sizes))} numbers, and each number has {size} bytes.",
            mistakes=[
                (sum(sizes), f"This is how many numbers there are; each has {size} bytes."),
                (sum(map(sum, shapes)) * size, "Within a shape multiply the sides; do not add them."),
                (math.prod(sizes) * size, "Within a shape multiply the sides; over the tensors add."),
                (sizes[0] * size, "This is the first tensor alone."),
            ],
            hint="math.prod(shape) multiplies the sides of a shape.",
        )
    return student.passed("The bytes depend on the parameters, not on the batch. A large batch sends fewer bytes for each image.")


@exercise(
    signature="block_parameters(cin: int, cout: int, stride: int) -> int", returns="the number of parameters of a basic block"
)
def check_block_parameters(student: Student) -> Verdict:
    """Count the parameters of ResNet's basic block, which has `cin` input channels and `cout` output channels.

    The block has a 3×3 convolution from cin to cout and a 3×3 convolution from cout to cout. Each has no bias and is followed by a
    BatchNorm (two parameters for each channel). If `stride` is not 1 or cin is not cout, the shortcut is a 1×1 convolution without
    bias, followed by a BatchNorm. Otherwise the shortcut has no parameters.
    See He et al., "Deep Residual Learning for Image Recognition" (2015)."""
    blocks = 0
    for number, (cin, cout, stride) in enumerate((*RESNET18, (64, 64, 2), (16, 32, 1), (64, 32, 1))):
        body, norms = 9 * cin * cout + 9 * cout * cout, 4 * cout
        changes = stride != 1 or cin != cout
        needed = cin * cout + 2 * cout
        shortcut, convolution = (needed, cin * cout) if changes else (0, 0)
        student.gives(
            (cin, cout, stride),
            expected=body + norms + shortcut,
            why=f"Convolutions have {body} parameters, their BatchNorms {norms}, and the shortcut {shortcut}.",
            mistakes=[
                (body + convolution, "The BatchNorms are missing: each has a weight and a bias for every channel."),
                (body + norms, f"The shape changes ({cin} → {cout} channels, stride {stride}), so the shortcut has parameters."),
                (body + norms + needed, "The shape does not change, so the shortcut has no parameters."),
                (body + norms + shortcut + 2 * cout, "The convolutions have no bias."),
                (body + norms + convolution, "The convolution of the shortcut is followed by a BatchNorm, too."),
                (body + norms + shortcut - 9 * cout * (cout - cin), "The second convolution has cout input channels."),
                (body + 2 * cout + shortcut, "The two 3×3 convolutions have one BatchNorm each, so count two."),
            ],
        )
        blocks += body + norms + shortcut if number < len(RESNET18) else 0
    total = blocks + (3 * 64 * 9 + 2 * 64) + (512 * 100 + 100)
    return student.passed(
        f"Eight such blocks, the first convolution and the last layer make a ResNet-18 for 100 classes: {total:,} parameters, "
        f"{4 * total / 2**20:.1f} MiB of gradients."
    )


@exercise(
    signature="macs_per_gradient_byte(cin: int, cout: int, kernel: int, side: int, batch: int) -> float",
    returns="the multiply-adds of the forward pass, divided by the bytes of the fp32 gradient",
)
def check_macs_per_gradient_byte(student: Student) -> Verdict:
    """How much does a convolution compute for each byte of gradient that it sends?

    The output has side × side positions and cout channels for each image of the batch. Each output number takes
    kernel × kernel × cin multiply-adds. The gradient has 4 bytes for each weight; there is no bias. Do not round."""
    cases = ((64, 64, 3, 32, 128), (512, 512, 3, 4, 128), (64, 256, 1, 32, 256), (3, 64, 3, 32, 1), (8, 16, 3, 7, 3))
    for cin, cout, kernel, side, batch in cases:
        weights = cin * cout * kernel**2
        work = weights * side**2 * batch
        student.gives(
            (cin, cout, kernel, side, batch),
            expected=work / (4 * weights),
            why=f"There are {shown(work)} multiply-adds and {4 * weights} bytes of gradient.",
            mistakes=[
                (work, "This is the number of multiply-adds. Divide it by the bytes of the gradient."),
                (work / weights, "Each number of the gradient has 4 bytes."),
                (work / batch / (4 * weights), "Every image is computed, but the gradient is sent once for the whole batch."),
                (
                    side**2 * batch * kernel**2 / 4,
                    "There are kernel × kernel × cin × cout weights: the gradient has the kernel, too.",
                ),
                (4 * weights / work, "This is bytes divided by work. Divide work by bytes."),
            ],
        )
    return student.passed(
        "The result is batch × side² / 4: channels and kernel cancel. Late layers have a small side, so they compute little for each "
        "byte. They have most of the bytes, and backward computes their gradients first."
    )


@exercise(
    signature="bytes_per_rank(strategy: str, parameters: int, world_size: int) -> float",
    returns="the bytes of parameters, gradients and momentum that one rank keeps",
)
def check_bytes_per_rank(student: Student) -> Verdict:
    """How many bytes does a rank keep? Training is SGD with momentum in fp32: three numbers of 4 bytes for each parameter.

    `strategy` is "ddp" (every rank keeps everything), "zero1" (the momentum is divided by the ranks), "zero2" (the gradients, too)
    or "fsdp" (the parameters, too; also called ZeRO-3). Do not round.
    See Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (2020)."""
    cut = {"ddp": 0, "zero1": 1, "zero2": 2, "fsdp": 3}
    names = ("momentum", "gradients", "parameters")
    for parameters, n in ((1000, 8), (11_173_962, 2)):
        for strategy, parts in cut.items():
            divided = (
                f"Divided by {n} ranks: {', '.join(names[:parts]) or 'nothing'}. Whole: {', '.join(names[parts:]) or 'nothing'}."
            )
            others = [
                (4 * parameters * (3 - other + other / n), f"This is what {name} keeps. {divided}")
                for name, other in cut.items()
                if other != parts
            ]
            student.gives(
                (strategy, parameters, n),
                expected=4 * parameters * (3 - parts + parts / n),
                why=divided,
                mistakes=[
                    *others,
                    (parameters * (3 - parts + parts / n), "This is how many numbers there are. In fp32 each has 4 bytes."),
                    (
                        4 * parameters * (2 - parts + parts / n),
                        f"One of parameters, gradients and momentum is missing. {divided}",
                    ),
                ],
            )
    return student.passed(
        "DDP keeps 12 bytes for each parameter on every rank, FSDP 12 / N. A rank must gather what is divided before it can use it."
    )


@exercise(
    signature="memory_line(batch: int, mib: float, larger_batch: int, larger_mib: float) -> tuple[float, float]",
    returns="a pair: the MiB that do not depend on the batch, and the MiB for each image",
)
def check_memory_line(student: Student) -> Verdict:
    """Which line goes through the memory of two batches? memory = fixed + per_image · batch, in MiB. Do not round."""
    small, middle, large = (lines()[f"single_gpu_resnet18_bs{b}_cacheFalse_ampFalse"].max_mem_mib for b in (128, 256, 512))
    fixed = 0.0
    for batch, mib, larger, larger_mib in (
        (10, 150.0, 20, 250.0), (1, 7.0, 5, 15.0), (256, middle, 512, large), (128, small, 512, large)
    ):  # fmt: skip
        per_image = (larger_mib - mib) / (larger - batch)
        fixed = mib - per_image * batch
        student.gives(
            (batch, mib, larger, larger_mib),
            expected=[fixed, per_image],
            why=f"{larger - batch} images more take {shown(larger_mib - mib)} MiB more.",
            mistakes=[
                ([per_image, fixed], "The two are in the other order: first the fixed part, then the part of an image."),
                ([0.0, mib / batch], "This divides all memory by the images, but a part of it does not depend on the batch."),
                ([mib, per_image], "The fixed part is the memory at a batch of 0, not that of the smaller batch."),
            ],
        )
    return student.passed(f"At a batch of 0 the line has {fixed:.1f} MiB: {fixed / P_MIB:.2f} copies of P = {P_MIB:.1f} MiB.")


@exercise(
    signature="amdahl(share: float, factor: float) -> float",
    returns="the speed-up of the whole: the old time divided by the new time",
)
def check_amdahl(student: Student) -> Verdict:
    """A part takes `share` of the time (0 to 1) and becomes `factor` times as fast. How many times as fast is the whole?

    A factor below 1 makes the part slower. Do not round. See Amdahl, "Validity of the single processor approach to achieving large
    scale computing capabilities" (1967)."""
    for share, factor in ((0.5, 2.0), (0.9, 10.0), (0.25, 1e9), (0.0, 8.0), (1.0, 4.0), (0.5, 0.5)):
        left = 1 - share + share / factor
        student.gives(
            (share, factor),
            expected=1 / left,
            why=f"Of 1 second, {shown(1 - share)} s stay as they are, and {shown(share)} s become {shown(share / factor)} s.",
            mistakes=[
                (factor, "Only a part gets this factor, not the whole."),
                (1 + share * (factor - 1), "Add times, not speeds: compute the new time, then divide the old time by it."),
                (left, "This is the new time. The speed-up is the old time divided by the new time."),
                (share * factor, "Compute the new time first: the part that stays, plus the part that gets faster."),
            ],
        )
    return student.passed("Even if the part takes no time at all, the whole becomes at most 1 / (1 - share) times as fast.")


@exercise(
    signature="step_s(input_s: float, compute_s: float, message_s: float, ahead: bool) -> float",
    returns="the seconds of one training step",
)
def check_step_s(student: Student) -> Verdict:
    """How long is a step? Compute takes `compute_s` seconds, and after it the messages take `message_s` seconds.

    Preparing the images of a step takes `input_s` seconds. With `ahead` True, other processes prepare the next images during the
    step. With `ahead` False, the same process prepares them before it computes."""
    for ahead in (True, False):
        for decode, compute, message in ((0.4, 0.1, 0.1), (0.1, 0.2, 0.05), (0.3, 0.2, 0.1), (0.0, 0.2, 0.0), (0.25, 0.2, 0.1)):
            train, longer = compute + message, max(decode, compute + message)
            student.gives(
                (decode, compute, message, ahead),
                expected=longer if ahead else decode + train,
                why=(
                    f"Input ({shown(decode)} s) and training ({shown(train)} s) run at the same time, so the longer one counts."
                    if ahead
                    else "Nothing runs at the same time, so add all three."
                ),
                mistakes=[
                    (decode + train, "With ahead, the input is prepared during the step before: do not add it."),
                    (longer, "Without ahead, the same process prepares the input: nothing runs at the same time. Add it."),
                    (
                        max(decode, compute, message),
                        "The messages come after compute: add these two. Only the input runs beside them.",
                    ),
                    (train, "The input is missing: a step cannot begin before its images are ready."),
                    (max(decode, compute) + message, "The input is prepared during the messages, too."),
                ],
            )
    return student.passed(
        "With ahead, a step is never shorter than its input. If the input is the longer one, faster compute brings nothing."
    )
