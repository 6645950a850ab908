"""Exercises on the parameter server: what an update on stale weights is, when a worker must be waited for, what the link carries."""

from __future__ import annotations

from collections import Counter

from labkit.checks.judge import NotYet, Student, Verdict, exercise, shown


@exercise(
    10,
    signature="push(weight: float, version: int, gradient: float, read_version: int, lr: float) -> tuple[float, int, int]",
    returns="(the new weight, the new version, the staleness of this gradient)",
)
def check_push(student: Student) -> Verdict:
    """What an asynchronous server does with one pushed gradient: an SGD step at once, a new version, and the staleness: the updates made
    between reading the weights and applying their gradient. Driven by three workers, one of them slow.

    Li et al., "Scaling Distributed Machine Learning with the Parameter Server" (2014).
    """
    weight, version, lr, seen = 4.0, 0, 0.1, Counter()
    read = {worker: (weight, version) for worker in "abc"}
    for worker in "aabacbbacb":  # who pushes next; c is slow
        at, read_version = read[worker]
        gradient = at - 1.0  # of (w - 1)² / 2, at the weight that was read
        stale = version - read_version
        expected = (weight - lr * gradient, version + 1, stale)
        student.gives(
            weight,
            version,
            gradient,
            read_version,
            lr,
            expected=expected,
            why=f"Worker {worker} read version {read_version}; the server is at {version}: {stale} updates came in between.",
            mistakes=[
                ((expected[0], version + 1, stale + 1), "Its own update does not make it stale: count those before it."),
                ((expected[0], version, stale), "Every update makes a new version, or nobody could tell what is stale."),
                ((expected[0], version + 1, -stale), "Staleness is the server's version less the one that was read."),
                ((weight + lr * gradient, version + 1, stale), "Go against the gradient, not along it."),
                ((weight - gradient, version + 1, stale), "The learning rate is left out."),
                ((expected[0], read_version + 1, stale), "The server's version counts on; what the worker read is behind it."),
                (
                    (at - lr * gradient, version + 1, stale),
                    "The step is taken from the server's weight now: others have moved it.",
                ),
            ],
        )
        weight, version = expected[0], version + 1
        seen[stale] += 1
        read[worker] = (weight, version)
    table = "\n".join(f"staleness {stale}: {'#' * times} {times}" for stale, times in sorted(seen.items()))
    return student.passed(
        f"10 pushes from 3 workers; nobody waited, and the weight came from 4 to {weight:.2f} (the best is 1).", table
    )


@exercise(
    10,
    signature="may_update(version: int, computing: list[int], bound: int) -> bool",
    returns="True if the server may apply one update now, False if it must wait for a worker",
)
def check_may_update(student: Student) -> Verdict:
    """Bounded staleness: `computing` lists the versions that the workers still at work have read. The server may make one more update only if
    afterwards none of them is more than `bound` versions behind. Driven with a slow worker; bound 0 is synchronous.

    Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server" (2013) bound clocks in this way.
    """
    lines = []
    for bound in (0, 1, 3):
        pushed = serve(student, bound)
        lines.append(f"bound {bound}: " + ", ".join(f"staleness {stale}: {times}" for stale, times in sorted(pushed.items())))
    return student.passed("No gradient was staler than the bound, and the server never waited for nothing.", "\n".join(lines))


def serve(student: Student, bound: int) -> Counter:
    """12 updates with three workers, who need 1, 2 and 7 ticks for a gradient. Returns how many gradients had which staleness."""
    needs, version = (1, 2, 7), 0
    read, ends = [0, 0, 0], list(needs)  # what each worker has read, when it will push
    seen: Counter = Counter()
    now = 0
    while version < 12:
        now += 1
        pushed = [worker for worker in range(3) if ends[worker] <= now]
        computing = [read[worker] for worker in range(3) if ends[worker] > now]
        if not pushed:
            continue
        behind = [version + 1 - one for one in computing]
        expected = all(lag <= bound for lag in behind)
        most = max(behind, default=0)
        call, may = student.text(version, computing, bound), student(version, list(computing), bound)
        if may != expected:
            if not computing:
                because = "Nobody is computing, so nobody can fall behind. If the server waits here, it waits for ever."
            elif expected:
                because = f"After an update the slowest would be {most} behind, within the bound of {bound}: the server waits for nothing."
            else:
                because = (
                    f"An update makes version {version + 1}; the worker on version {min(computing)} would then be {most} behind, "
                    f"and the bound is {bound}."
                )
            raise NotYet(
                f"{call} returned {shown(may)}, expected {expected}. {because}", "Ask it of version + 1, and of every worker."
            )
        if not expected:
            continue
        seen.update(version - read[worker] for worker in pushed)
        version += 1
        for worker in pushed:
            read[worker], ends[worker] = version, now + needs[worker]
    return seen


@exercise(
    10,
    signature="after_pushes(weight: float, gradients: list[float], lr: float, together: bool) -> float",
    returns="the weight after all pushes",
)
def check_after_pushes(student: Student) -> Verdict:
    """The workers' gradients of one step, all computed on the same weight. `together` True: the server waits for all and makes one update with their
    mean (sync). False: it makes one update with each, as they come (async).
    """
    for weight, gradients, lr in ((1.0, [0.5, 0.3], 0.1), (2.0, [1.0, -2.0, 4.0], 0.5), (0.0, [3.0], 1.0)):
        n, total = len(gradients), sum(gradients)
        mean, each = weight - lr * total / n, weight - lr * total
        for together in (True, False):
            student.gives(
                weight,
                gradients,
                lr,
                together,
                expected=mean if together else each,
                why=f"{n} gradients, {'one update with their mean' if together else 'an update with each'}.",
                mistakes=[
                    (each, f"That is the sum: a step {n} times as long. Synchronous servers apply the mean, as DDP does."),
                    (mean, "That is one update with the mean. Here each push is applied as it comes, whole."),
                    (
                        weight - lr * gradients[-1],
                        "That is the last push alone: each goes on from the weight that the one before left.",
                    ),
                    (weight - lr * gradients[0], "That is the first push alone."),
                    (weight + lr * total / n, "Go against the gradient, not along it."),
                    (weight + lr * total, "Go against the gradient, not along it."),
                ],
            )
    return student.passed(
        "One by one, N workers step N times as far as with their mean: asynchronous training wants a smaller learning rate."
    )


@exercise(
    10,
    signature="server_bytes(n_bytes: int, workers: int) -> int",
    returns="the bytes that pass through the server's link in one step of all workers, in and out",
)
def check_server_bytes(student: Student) -> Verdict:
    """How many bytes pass through a parameter server's link while every worker makes one step? Each pushes gradients of `n_bytes`, and gets
    weights of `n_bytes` back.

    Li et al. (2014); for the ring, Patarasuk and Yuan (2009).
    """
    for size, workers in ((1000, 8), (44_700_000, 2), (1000, 1)):
        ring = 2 * (workers - 1) / workers * size
        student.gives(
            size,
            workers,
            expected=2 * workers * size,
            why=f"{workers} × {size} in, and as many out.",
            mistakes=[
                (workers * size, "That is one direction: gradients come in, and weights go out."),
                (2 * size, "That is one worker; they all talk to the same server."),
                (2 * (workers - 1) * size, "The server is a process of its own: every worker talks to it."),
                (ring, "That is what a rank of a ring sends."),
            ],
        )
    picture = "workers   server's link   each rank of a ring (in and out), in sizes of the model\n" + "\n".join(
        f"{n:>7}   {2 * n:>13}   {4 * (n - 1) / n:>19.2f}" for n in (2, 4, 8, 16)
    )
    return student.passed(
        "The server's link carries twice the model for every worker, a rank of a ring never more than four models.", picture
    )
