"""Exercises on schedules: the order in which a pipeline's stage works, its idle time, and when a server must wait for a worker.

The pipelines are simulated: a forward takes 1 unit of time, a backward 2. A stage need not wait until its neighbour receives.
"""

from collections import Counter
from dataclasses import dataclass, field

from labkit.checks.judge import NotYet, Student, Verdict, exercise, shown, whole

UNITS = {"F": 1, "B": 2}
SIZES = ((3, 5), (2, 2), (2, 4), (4, 8), (4, 2))  # (stages, micro-batches)
Order = list[tuple[str, int]]


@dataclass
class Ran:
    """A simulated schedule: for each stage, (start, kind, micro-batch) of every piece of work, and how many activations it kept."""

    work: list[list[tuple[int, str, int]]] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)  # which stage waits for what, after a deadlock

    @property
    def time(self) -> int:
        """Time units until the last stage has finished."""
        return max((start + UNITS[kind] for stage in self.work for start, kind, _ in stage), default=0)

    def picture(self) -> str:
        """The schedule as text: a line for each stage, a column for each time unit."""
        lines = []
        for number, stage in enumerate(self.work):
            line = list(" . " * self.time)
            for start, kind, micro in stage:
                end = start + UNITS[kind]
                line[3 * start : 3 * end] = f"{kind}{micro}".ljust(3 * UNITS[kind] - 1, "-") + " "
            lines.append(f"stage {number}  {''.join(line).rstrip()}")
        return "\n".join(lines)


def drive(orders: list[Order]) -> Ran:
    """Run all stages, each in its own order, until all work is done or every stage waits."""
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
    """GPipe's order, the same for every stage: all forwards, then all backwards."""
    return [("F", i) for i in range(micro_batches)] + [("B", i) for i in range(micro_batches)]


def ask(student: Student, stages: int, micro_batches: int) -> Ran:
    """Ask the student for the order of every stage and run them together. Raises NotYet if an order is incomplete or deadlocks."""
    orders: list[Order] = []
    wanted = gpipe(micro_batches)
    for stage in range(stages):
        call, order = student.text(stage, stages, micro_batches), student(stage, stages, micro_batches)
        for item in order if isinstance(order, list) else [order]:
            if not (isinstance(item, list) and len(item) == 2 and item[0] in ("F", "B") and whole(item[1])):
                raise NotYet(f"{call} has {shown(item)} in it, expected a list of pairs such as ('F', 0) or ('B', 0).")
        done = [(kind, micro) for kind, micro in order]
        for kind, micro in [*wanted, *done]:
            times = done.count((kind, micro))
            if (kind, micro) not in wanted:
                what = f"does {kind}{micro}, expected numbers from 0 to {micro_batches - 1}."
            elif times != 1:
                what = f"does {kind}{micro} {times} times, expected once: every micro-batch goes forward once and backward once."
            elif done.count(("B", micro)) and done.index(("B", micro)) < done.index(("F", micro)):
                what = f"does B{micro} before F{micro}, expected after it: backward needs the activations that forward keeps."
            else:
                continue
            raise NotYet(f"{call} {what}", "", " ".join(f"{kind}{micro}" for kind, micro in done))
        orders.append(done)
    ran = drive(orders)
    if ran.waits:
        raise NotYet(
            f"Deadlock with {stages} stages and {micro_batches} micro-batches: {', and '.join(ran.waits)}.",
            "All stages must do the micro-batches in orders that fit together.",
            ran.picture(),
        )
    return ran


@exercise(
    signature="one_f_one_b(stage: int, stages: int, micro_batches: int) -> list[tuple[str, int]]",
    returns="the work of this stage in order: ('F', i) for the forward and ('B', i) for the backward of micro-batch i",
)
def check_one_f_one_b(student: Student) -> Verdict:
    """The 1F1B order of one pipeline stage; stages and micro-batches are counted from 0.

    First the stage does as many forwards as there are stages after it (or all forwards, if there are fewer). Then it does one forward
    and one backward in turn, and at last the backwards that are left.
    All micro-batches end before the update: this is 1F1B with a flush. See Fan et al., "DAPPLE" (2021), and Narayanan et al.,
    "Memory-Efficient Pipeline-Parallel DNN Training" (2021)."""
    pictures = {}
    for stages, micro_batches in SIZES:
        ran = ask(student, stages, micro_batches)
        what = f"{stages} stages, {micro_batches} micro-batches:"
        for stage, held in enumerate(ran.held):
            most = min(stages - stage, micro_batches)
            if held > most:
                as_gpipe = " GPipe does so: it keeps all of them." if held == micro_batches else ""
                raise NotYet(
                    f"{what} stage {stage} keeps the activations of {held} micro-batches at the same time, expected at most {most}.{as_gpipe}",
                    "Stage s begins with stages - s - 1 forwards. After each further forward it does a backward.",
                    ran.picture(),
                )
        if ran.time > (best := drive([gpipe(micro_batches)] * stages).time):
            raise NotYet(
                f"{what} a step takes {ran.time} units of time, expected {best}. A stage begins its backwards too early, and then waits.",
                "Stage s begins with stages - s - 1 forwards, and does one more forward before its first backward.",
                ran.picture(),
            )
        pictures[stages, micro_batches] = ran.picture()
    return student.passed(
        "As fast as GPipe, but stage s keeps the activations of at most stages - s micro-batches.", pictures[3, 5]
    )


@exercise(
    signature="bubble_share(stages: int, micro_batches: int) -> float",
    returns="the share of a step in which a stage has nothing to do, from 0 to 1",
)
def check_bubble_share(student: Student) -> Verdict:
    """In which share of a step does a stage of a pipeline have nothing to do? The check compares it with a simulated GPipe schedule.

    All stages are equally slow. Do not round. See Huang et al., "GPipe: Efficient Training of Giant Neural Networks using Pipeline
    Parallelism" (2019)."""
    for stages, micro_batches in ((4, 8), (2, 1), (4, 4), (4, 16), (1, 8)):
        ran = drive([gpipe(micro_batches)] * stages)
        student.gives(
            (stages, micro_batches),
            expected=1 - 3 * micro_batches / ran.time,
            why=f"In the simulation a step takes {ran.time} units of time, and each stage works in {3 * micro_batches} of them.",
            mistakes=[
                (
                    (stages - 1) / micro_batches,
                    "This is idle time divided by working time. Divide by the time of the whole step.",
                ),
                (micro_batches / (micro_batches + stages - 1), "This is the share in which a stage works."),
                (stages / (micro_batches + stages - 1), "A stage waits for the other stages: stages - 1, not stages."),
            ],
            hint="A step is as long as micro_batches + stages - 1 micro-batches, and a stage works on micro_batches of them.",
        )
    return student.passed(
        "(p - 1) / (m + p - 1): more micro-batches, less idle time. With one micro-batch, p - 1 of p stages are idle."
    )


@exercise(
    signature="may_update(version: int, computing: list[int], bound: int) -> bool",
    returns="True if the server may make one update now, False if it must wait for a worker",
)
def check_may_update(student: Student) -> Verdict:
    """May a server with bounded staleness make one more update? It now has `version`; the update makes version + 1.

    `computing` lists the versions that the workers have read who are still computing, in any order; it may be empty. The server may
    update only if afterwards each of these workers is at most `bound` versions behind. Bound 0 is synchronous training.
    See Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server" (2013)."""
    lines = []
    for version, computing, bound in (
        (5, [], 0),
        (5, [5, 2], 3),
        (5, [2, 5], 3),
        (5, [5, 2, 5], 3),
        (5, [3, 5, 5], 3),
        (9, [9, 9, 6, 9, 9], 3),
        (9, [7, 7, 7], 3),
    ):
        require_decision(student, version, computing, bound)
    for bound in (0, 1, 3):
        pushed = serve(student, bound)
        lines.append(f"bound {bound}: " + ", ".join(f"staleness {stale}: {times}" for stale, times in sorted(pushed.items())))
    return student.passed(
        "No gradient was staler than the bound, and the server never waited without a reason.", "\n".join(lines)
    )


def require_decision(student: Student, version: int, computing: list[int], bound: int) -> bool:
    """What the student's function must answer here. Raises NotYet if it answers something else."""
    most = max((version + 1 - read for read in computing), default=0)
    expected = most <= bound
    may = student(version, list(computing), bound)
    if may != expected or not isinstance(may, (bool, int)):
        if not computing:
            because = "No worker is computing, so no worker can fall behind. If the server waits here, it waits for ever."
        elif expected:
            because = f"After the update the slowest worker is {most} behind, and the bound is {bound}: the server need not wait."
        else:
            because = f"The update makes version {version + 1}. The worker with version {min(computing)} is then {most} behind, and the bound is {bound}."
        raise NotYet(
            f"{student.text(version, computing, bound)} returned {shown(may)}, expected {expected}. {because}",
            "Compare version + 1 with the version of every worker.",
        )
    return expected


def serve(student: Student, bound: int) -> Counter:
    """12 updates with three workers, who need 1, 2 and 7 ticks for a gradient. Returns how many gradients had which staleness."""
    needs, version, now = (1, 2, 7), 0, 0
    read, ends = [0, 0, 0], list(needs)  # the version that each worker has read, and when it will push
    seen: Counter = Counter()
    while version < 12:
        now += 1
        pushed = [worker for worker in range(3) if ends[worker] <= now]
        computing = [read[worker] for worker in range(3) if ends[worker] > now]
        if pushed and require_decision(student, version, computing, bound):
            seen.update(version - read[worker] for worker in pushed)
            version += 1
            for worker in pushed:
                read[worker], ends[worker] = version, now + needs[worker]
    return seen
