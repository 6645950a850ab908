"""Exercises on speed-ups: what they are worth when only a part gets faster, and how they add up."""

from __future__ import annotations

import itertools

from labkit.checks.judge import Student, Verdict, exercise, shown


@exercise(
    8,
    signature="amdahl(share: float, factor: float) -> float",
    returns="how many times as fast the whole becomes",
)
def check_amdahl(student: Student) -> Verdict:
    """A part that takes `share` of the time becomes `factor` times as fast. How much faster is the whole?

    Amdahl, "Validity of the single processor approach to achieving large scale computing capabilities" (1967).
    """
    for share, factor in ((0.5, 2.0), (0.9, 10.0), (0.25, 1e9), (0.0, 8.0), (1.0, 4.0)):
        left = 1 - share + share / factor
        student.gives(
            share,
            factor,
            expected=1 / left,
            why=f"Of 1 second, {shown(1 - share)} stay as they are and {shown(share)} become {shown(share / factor)}.",
            mistakes=[
                (factor, "Only a part becomes so much faster, not the whole."),
                (1 + share * (factor - 1), "Times add, speeds do not: work out the new time, then divide the old one by it."),
                (left, "That is the new time. The speed-up is the old time over it."),
                (share * factor, "Work out the new time: the part that stays, and the part that shrinks."),
            ],
        )
    return student.passed("However fast the part becomes, the whole gains at most 1 / (1 - share).")


@exercise(
    8,
    4,
    signature="step_s(input_s: float, compute_s: float, message_s: float, ahead: bool) -> float",
    returns="the seconds of a training step",
)
def check_step_s(student: Student) -> Verdict:
    """How long is a step? Compute and (exposed) messages come one after the other. The next batch is decoded meanwhile by loader processes
    (`ahead` True), or only then, in the same process (False)."""
    for ahead in (True, False):
        for decode, compute, message in ((0.4, 0.1, 0.1), (0.1, 0.2, 0.05), (0.3, 0.2, 0.1), (0.0, 0.2, 0.0)):
            train, floor = compute + message, max(decode, compute + message)
            student.gives(
                decode,
                compute,
                message,
                ahead,
                expected=floor if ahead else decode + train,
                why=(
                    f"Decoding ({shown(decode)} s) and training ({shown(train)} s) run at the same time: the longer one counts."
                    if ahead
                    else "Nothing runs at the same time: all three add up."
                ),
                mistakes=[
                    (decode + train, "The loader works ahead: its time passes while the step before is trained."),
                    (floor, "Without loader processes, decoding is done in between: nothing hides it."),
                    (
                        max(decode, compute, message),
                        "Messages come after compute: those two add up, only decoding runs beside them.",
                    ),
                    (train, "That leaves the input out: the step cannot begin before its images are there."),
                    (max(decode, compute) + message, "Decoding goes on during the messages, too."),
                ],
            )
    return student.passed(
        "With a loader that works ahead, the input is a floor: below it, no AMP and no second rank makes a step shorter."
    )


@exercise(
    8,
    signature="ladder(images_per_s: list[float]) -> list[float]",
    returns="one factor less than there are rates: each rate over the one before",
)
def check_ladder(student: Student) -> Verdict:
    """Factors added one by one: from the images/s of each configuration, what did each step bring? The factors multiply to the whole."""
    for rates in ([1000.0, 1500.0, 3000.0], [2000.0, 2000.0, 1000.0, 4000.0], [500.0, 600.0]):
        pairs = list(itertools.pairwise(rates))
        student.gives(
            rates,
            expected=[after / before for before, after in pairs],
            why=f"Each rate over the one before; together they make {shown(rates[-1] / rates[0])}.",
            mistakes=[
                (
                    [rate / rates[0] for rate in rates[1:]],
                    "Those are factors over the baseline: they hold all steps before, too.",
                ),
                ([rate / rates[0] for rate in rates], "Those are factors over the baseline, itself among them."),
                (
                    [after - before for before, after in pairs],
                    "Those are differences. Their size depends on the order; factors say how many times.",
                ),
                ([before / after for before, after in pairs], "The other way round: more images/s is a factor above 1."),
                (
                    [1.0] + [after / before for before, after in pairs],
                    "The first configuration has none before it: leave it out.",
                ),
            ],
        )
    return student.passed(
        "Factors multiply along the ladder. What a step brings depends on what was there before: try another order."
    )
