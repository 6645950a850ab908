"""Exercises on pipelines: the order in which a stage works through its micro-batches, driven on simulated stages.

A forward takes 1 unit of time, a backward 2. Activations wait at the next stage until it takes them, so a send blocks nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from labkit.checks.judge import NotYet, Student, Verdict, exercise, shown, whole

UNITS = {"F": 1, "B": 2}
SIZES = ((3, 5), (2, 2), (2, 4), (4, 8), (4, 2))  # (stages, micro-batches)
Order = list[tuple[str, int]]


@dataclass
class Ran:
    """What came of a schedule: (start, kind, micro-batch) of every piece of work, by stage, and what each held at most."""

    work: list[list[tuple[int, str, int]]] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)  # who waits for what, if nobody can go on

    @property
    def time(self) -> int:
        return max((start + UNITS[kind] for stage in self.work for start, kind, _ in stage), default=0)

    def picture(self) -> str:
        lines = []
        for number, stage in enumerate(self.work):
            line = list(" . " * self.time)
            for start, kind, micro in stage:
                end = start + UNITS[kind]
                line[3 * start : 3 * end] = f"{kind}{micro}".ljust(3 * UNITS[kind] - 1, "-") + " "
            lines.append(f"stage {number}  {''.join(line).rstrip()}")
        return "\n".join(lines)


def drive(orders: list[Order]) -> Ran:
    """Run all stages, each in its own order, until they are through or nobody can go on."""
    stages, ended, now = len(orders), {}, [0] * len(orders)
    ran, at = Ran([[] for _ in orders]), [0] * len(orders)

    def needs(stage: int, kind: str, micro: int) -> tuple[int, str, int] | None:
        if kind == "F":
            return (stage - 1, "F", micro) if stage else None
        return (stage + 1, "B", micro) if stage + 1 < stages else (stage, "F", micro)

    moved = True
    while moved:
        moved = False
        for stage, order in enumerate(orders):
            while at[stage] < len(order):
                kind, micro = order[at[stage]]
                need = needs(stage, kind, micro)
                if need and need not in ended:
                    break
                start = max(now[stage], ended[need] if need else 0)
                now[stage] = ended[stage, kind, micro] = start + UNITS[kind]
                ran.work[stage].append((start, kind, micro))
                at[stage], moved = at[stage] + 1, True
    for stage, order in enumerate(orders):
        if at[stage] < len(order):
            kind, micro = order[at[stage]]
            other, needed, _ = needs(stage, kind, micro) or (stage, kind, micro)
            ran.waits.append(f"stage {stage} waits with {kind}{micro} for {needed}{micro} of stage {other}")
        holds = peak = 0
        for kind, _ in order:
            holds += 1 if kind == "F" else -1
            peak = max(peak, holds)
        ran.held.append(peak)
    return ran


def gpipe(micro_batches: int) -> Order:
    return [("F", i) for i in range(micro_batches)] + [("B", i) for i in range(micro_batches)]


def ask(student: Student, stages: int, micro_batches: int) -> tuple[list[Order], Ran]:
    """The student's orders for all stages, each complete, and what came of driving them together."""
    orders: list[Order] = []
    for stage in range(stages):
        call, order = student.text(stage, stages, micro_batches), student(stage, stages, micro_batches)
        for item in order if isinstance(order, list) else [order]:
            if not (isinstance(item, list) and len(item) == 2 and item[0] in ("F", "B") and whole(item[1])):
                raise NotYet(f"{call}: {shown(item)} is no piece of work. Expected pairs such as ('F', 0) or ('B', 0).")
        done = [(kind, micro) for kind, micro in order]
        wanted = gpipe(micro_batches)
        for kind, micro in wanted:
            if done.count((kind, micro)) != 1:
                times = f"{done.count((kind, micro))} times" if (kind, micro) in done else "never"
                raise NotYet(
                    f"{call} does {kind}{micro} {times}. Every micro-batch goes forward once and backward once.", "", row(done)
                )
        extra = [item for item in done if item not in wanted]
        if extra:
            kind, micro = extra[0]
            raise NotYet(
                f"{call} does {kind}{micro}, but {micro_batches} micro-batches are 0 to {micro_batches - 1}.", "", row(done)
            )
        for micro in range(micro_batches):
            if done.index(("B", micro)) < done.index(("F", micro)):
                raise NotYet(
                    f"{call} does B{micro} before F{micro}: there are no activations to go backward through.", "", row(done)
                )
        orders.append(done)
    ran = drive(orders)
    if ran.waits:
        raise NotYet(
            f"Deadlock with {stages} stages and {micro_batches} micro-batches: {', and '.join(ran.waits)}.",
            "All stages must take the micro-batches in an order that fits.",
            ran.picture(),
        )
    return orders, ran


def row(order: Order) -> str:
    return " ".join(f"{kind}{micro}" for kind, micro in order)


@exercise(
    3,
    signature="gpipe(stage: int, stages: int, micro_batches: int) -> list[tuple[str, int]]",
    returns="the stage's work in order: ('F', i) and ('B', i) for each micro-batch i",
)
def check_gpipe(student: Student) -> Verdict:
    """GPipe's order for one stage: all forwards, then all backwards.

    Huang et al., "GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism" (2019).
    """
    pictures = {}
    for stages, micro_batches in SIZES:
        orders, ran = ask(student, stages, micro_batches)
        for stage, order in enumerate(orders):
            kinds = [kind for kind, _ in order]
            if kinds != sorted(kinds, reverse=True):
                raise NotYet(
                    f"{student.text(stage, stages, micro_batches)} goes backward before its last forward. That may be a good schedule "
                    "(1F1B does so), but GPipe does all forwards first.",
                    "",
                    ran.picture(),
                )
        if ran.time > (best := drive([gpipe(micro_batches)] * stages).time):
            raise NotYet(
                f"{stages} stages, {micro_batches} micro-batches: a step takes {ran.time} units, and {best} would do. One stage takes the "
                "micro-batches in another order than its neighbour, and waits.",
                "",
                ran.picture(),
            )
        pictures[stages, micro_batches] = ran.picture()
    return student.passed(
        "All forwards, then all backwards: every stage holds the activations of all micro-batches.", pictures[3, 5]
    )


@exercise(
    3,
    signature="one_f_one_b(stage: int, stages: int, micro_batches: int) -> list[tuple[str, int]]",
    returns="the stage's work in order: ('F', i) and ('B', i) for each micro-batch i",
)
def check_one_f_one_b(student: Student) -> Verdict:
    """The 1F1B order for one stage: as many forwards as there are stages after it, then one forward and one backward in
    turn, then the backwards that are left.

    Narayanan et al., "PipeDream: Generalized Pipeline Parallelism for DNN Training" (2019).
    """
    pictures = {}
    for stages, micro_batches in SIZES:
        _, ran = ask(student, stages, micro_batches)
        what = f"{stages} stages, {micro_batches} micro-batches:"
        for stage, held in enumerate(ran.held):
            most = min(stages - stage, micro_batches)
            if held > most:
                as_gpipe = " That is GPipe, which holds all of them." if held == micro_batches else ""
                raise NotYet(
                    f"{what} stage {stage} holds the activations of {held} micro-batches at once, and {most} would do.{as_gpipe}",
                    "Stage s may begin with stages - s - 1 forwards. From then on, a backward follows each forward.",
                    ran.picture(),
                )
        if ran.time > (best := drive([gpipe(micro_batches)] * stages).time):
            raise NotYet(
                f"{what} a step takes {ran.time} units, and {best} would do. A stage goes backward too early and waits.",
                "Before its first backward, stage s needs stages - s - 1 forwards under way, and one more.",
                ran.picture(),
            )
        pictures[stages, micro_batches] = ran.picture()
    return student.passed("As fast as GPipe, but stage s holds at most stages - s activations.", pictures[3, 5])


@exercise(
    3,
    signature="bubble_share(stages: int, micro_batches: int) -> float",
    returns="the share of a step in which a stage has nothing to do, from 0 to 1",
)
def check_bubble_share(student: Student) -> Verdict:
    """Which share of a step does a pipeline's stage stand idle? Compared with a GPipe schedule that is played through.

    Huang et al., "GPipe" (2019): O((p - 1) / (m + p - 1)) for p stages and m micro-batches.
    """
    for stages, micro_batches in ((4, 8), (2, 1), (4, 4), (4, 16), (1, 8)):
        ran = drive([gpipe(micro_batches)] * stages)
        student.gives(
            stages,
            micro_batches,
            expected=1 - 3 * micro_batches / ran.time,
            why=f"Played through, a step takes {ran.time} units, and each stage works {3 * micro_batches} of them.",
            mistakes=[
                ((stages - 1) / micro_batches, "That is idle time over working time. The share is of the whole step."),
                (micro_batches / (micro_batches + stages - 1), "That is the share in which a stage works."),
                (stages / (micro_batches + stages - 1), "A stage waits for the others, not for itself."),
            ],
            hint="A stage waits for stages - 1 others once; in all, a step has room for micro_batches + stages - 1 micro-batches.",
        )
    return student.passed(
        "(p - 1) / (m + p - 1): more micro-batches, less waiting. With one micro-batch, p - 1 of p stages stand idle."
    )
