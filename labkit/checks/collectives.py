"""Exercises on messages between ranks: the mean of gradients, the ring, what a message costs, what backward hides."""

from __future__ import annotations

from collections import Counter

from labkit.checks.judge import NotYet, Student, Verdict, exercise, whole


@exercise(
    1,
    signature="average_gradients(grads_of_ranks: list[list[float]]) -> list[float]",
    returns="one number per parameter, the mean over the ranks",
)
def check_average_gradients(student: Student) -> Verdict:
    """Make one gradient out of the ranks' gradients, as DDP's all-reduce does: the mean, parameter by parameter.

    `grads_of_ranks[r][i]` is rank r's gradient of parameter i.
    """
    for grads in ([[1.0, 2.0], [3.0, 6.0]], [[1.0, -2.0, 0.5], [3.0, 0.0, 0.5], [5.0, 5.0, 0.5], [7.0, 1.0, 0.5]]):
        n, sums = len(grads), [sum(column) for column in zip(*grads, strict=True)]
        total = f"That is the sum, not the mean: with {n} ranks every step would be {n} times as long as meant."
        student.gives(
            grads,
            expected=[value / n for value in sums],
            why=f"{n} ranks, {len(sums)} parameters: each mean is over the ranks.",
            mistakes=[
                (sums, total),
                (grads[0], "That is rank 0's gradient alone: what the other ranks learned is lost."),
                ([sum(row) / len(row) for row in grads], "That is a mean over the parameters of each rank, not over the ranks."),
            ],
            hint="zip(*grads_of_ranks) goes through the parameters.",
        )
    return student.passed("The mean over the ranks: the same step as one process would take with the whole batch.")


@exercise(
    1,
    10,
    signature="exposed_s(ready_s: list[float], message_s: float, backward_s: float) -> float",
    returns="seconds between the end of backward and the end of the last message, at least 0",
)
def check_exposed_s(student: Student) -> Verdict:
    """How much of the exchange is exposed? Bucket i is ready `ready_s[i]` after backward began, in this order; each takes
    `message_s` on the wire, one after the other; backward ends at `backward_s`.

    After Li et al., "PyTorch Distributed" (2020): buckets leave while backward still computes.
    """
    for ready, message, backward, why in (
        ([6.0], 4.0, 6.0, "One bucket is ready only when backward ends: nothing is hidden."),
        ([2.0, 4.0, 6.0], 1.0, 6.0, "The first two messages end before backward does; the last one can only begin then."),
        ([2.0, 4.0, 6.0], 4.0, 6.0, "The wire carries one message at a time: they go from 2 to 6, 6 to 10 and 10 to 14."),
        ([1.0, 2.0, 8.0], 3.0, 8.0, "The wire is free again at 7, but the last bucket is ready at 8."),
        ([1.0, 2.0], 0.5, 8.0, "Both messages end long before backward: all is hidden, and nothing less than 0 is."),
    ):
        end = 0.0
        for at in ready:
            end = max(end, at) + message
        student.gives(
            ready,
            message,
            backward,
            expected=max(0.0, end - backward),
            why=why,
            mistakes=[
                (len(ready) * message, "That is the time of all messages, as if none had left during backward."),
                (message, f"That is one message. {why}"),
                (end, "That is when the last message ends. The exposed part begins where backward ends."),
                (end - backward, "Messages that end before backward are hidden: exposed is 0 then, not less."),
            ],
            hint="Keep the time at which the wire is free. A message begins when its bucket is ready and the wire is free.",
        )
    return student.passed(
        "Only what comes after backward costs time. A bucket that is ready only when backward ends is exposed: keep it small."
    )


@exercise(
    2,
    10,
    signature="ring_step(rank: int, world_size: int, step: int) -> tuple[int, int]",
    returns="(the chunk this rank sends to its right neighbour, the chunk it receives from its left neighbour)",
)
def check_ring_step(student: Student) -> Verdict:
    """One step of a ring all-reduce. The tensor is cut into `world_size` chunks. In steps 0 to N-2 what arrives is added to the
    rank's own chunk, in steps N-1 to 2N-3 it takes its place. In step 0 rank r sends chunk r.

    Patarasuk and Yuan, "Bandwidth Optimal All-reduce Algorithms" (2009).
    """
    pictures = {}
    for n in (3, 2, 4, 5):
        held = [[Counter({rank: 1}) for _ in range(n)] for rank in range(n)]  # held[rank][chunk]: whose numbers are in the sum
        lines = [f"ranks: {n}", "step     " + "  ".join(f"rank {rank}      " for rank in range(n))]
        for step in range(2 * (n - 1)):
            asked = [ring_chunks(student, rank, n, step) for rank in range(n)]
            lines.append(f"{step} {'add ' if step < n - 1 else 'keep'}   " + "  ".join(f"send {s} get {r}" for s, r in asked))
            for rank in range(n):
                check_neighbours(student, asked, rank, n, step, "\n".join(lines))
            sent = [Counter(held[rank][asked[rank][0]]) for rank in range(n)]
            for rank in range(n):
                chunk, arrived = asked[rank][1], sent[rank - 1]
                held[rank][chunk] = held[rank][chunk] + arrived if step < n - 1 else arrived
        for rank in range(n):
            for chunk in range(n):
                check_sum(held[rank][chunk], rank, chunk, n, "\n".join(lines))
        pictures[n] = "\n".join(lines)
    return student.passed(
        "With 2 to 5 ranks every rank ends with every sum, after 2 (N-1) steps to one neighbour only.", pictures[4]
    )


def ring_chunks(student: Student, rank: int, n: int, step: int) -> tuple[int, int]:
    send, get = student.pair(rank, n, step, of="(chunk to send, chunk to receive)")
    for chunk in (send, get):
        if not whole(chunk) or not 0 <= chunk < n:
            raise NotYet(
                f"{student.text(rank, n, step)} returned ({send}, {get}), but the chunks of {n} ranks are the whole numbers 0 to {n - 1}.",
                "On a ring, what would be chunk -1 is the last one: % world_size brings it back.",
            )
    if step == 0 and send != rank:
        raise NotYet(f"{student.text(rank, n, 0)} returned ({send}, {get}): in step 0 rank {rank} sends chunk {rank}.")
    return send, get


def check_neighbours(student: Student, asked: list[tuple[int, int]], rank: int, n: int, step: int, picture: str) -> None:
    left = (rank - 1) % n
    if asked[left][0] != asked[rank][1]:
        raise NotYet(
            f"Step {step} of {n} ranks: rank {left} sends chunk {asked[left][0]} to its right, but rank {rank} there takes it for "
            f"chunk {asked[rank][1]} ({student.text(rank, n, step)}).",
            "What a rank receives is what its left neighbour, rank - 1, sends in the same step.",
            picture,
        )


def check_sum(got: Counter, rank: int, chunk: int, n: int, picture: str) -> None:
    if got == Counter(range(n)):
        return
    missing, twice = [r for r in range(n) if not got[r]], [r for r in range(n) if got[r] > 1]
    said = [f"without what rank {r} had" for r in missing] + [f"with what rank {r} had counted {got[r]} times" for r in twice]
    raise NotYet(
        f"After the last step of {n} ranks, rank {rank} holds chunk {chunk} {', '.join(said)}.",
        "Each step, send on the chunk that arrived in the step before.",
        picture,
    )


@exercise(
    2,
    signature="bytes_sent(n_bytes: float, world_size: int) -> float",
    returns="the bytes that each rank sends in one ring all-reduce of n_bytes",
)
def check_bytes_sent(student: Student) -> Verdict:
    """How many bytes does each rank send in a ring all-reduce? 2 (N-1) steps, each with one of N equal chunks.

    Patarasuk and Yuan, "Bandwidth Optimal All-reduce Algorithms" (2009).
    """
    for size, n in ((1000, 4), (44_700_000, 2), (600, 3), (1000, 1)):
        student.gives(
            size,
            n,
            expected=2 * (n - 1) / n * size,
            why=f"{2 * (n - 1)} steps, each with a chunk of {size} / {n} bytes." if n > 1 else "One rank has nobody to send to.",
            mistakes=[
                ((n - 1) * size, "That is the naive way, where each rank sends its whole tensor to every other."),
                ((n - 1) / n * size, "That is half of it: after the sums are made (N-1 steps) they are passed on (N-1 more)."),
                (2 * size, "That is what it grows toward with many ranks. The chunk is one N-th, and there are 2 (N-1) steps."),
                (2 * (n - 1) * size, "In each of the 2 (N-1) steps only a chunk travels, not the whole tensor."),
            ],
        )
    return student.passed("2 (N-1)/N of the tensor: never more than twice its size, however many ranks there are.")


@exercise(
    2,
    signature="message_s(n_bytes: float, latency_s: float, bytes_per_s: float) -> float",
    returns="the seconds that one message takes",
)
def check_message_s(student: Student) -> Verdict:
    """How long does one message take? It costs its latency however small it is, and then its bytes at the bandwidth.

    The model of Hockney, "The communication challenge for MPP" (1994).
    """
    for size, latency, bandwidth in ((0, 5e-5, 1e9), (1_000_000, 5e-5, 1e9), (1000, 1e-3, 1e6)):
        student.gives(
            size,
            latency,
            bandwidth,
            expected=latency + size / bandwidth,
            why=f"Latency {latency:g} s, and {size} bytes at {bandwidth:g} bytes per second.",
            mistakes=[
                (size / bandwidth, "The latency is left out: even an empty message has it."),
                (latency, "That is the latency alone: the bytes take time, too."),
                (latency + size * bandwidth, "Bytes over bytes per second gives seconds; you multiplied."),
            ],
        )
    return student.passed("Small messages cost latency, large ones bandwidth. So many small gradients are better sent as one.")


@exercise(
    2,
    10,
    signature="ring_s(n_bytes: float, world_size: int, latency_s: float, bytes_per_s: float) -> float",
    returns="the seconds that a ring all-reduce takes",
)
def check_ring_s(student: Student) -> Verdict:
    """How long does a ring all-reduce take? All ranks send at the same time, one chunk in each of 2 (N-1) steps.

    Patarasuk and Yuan (2009), with the message model of Hockney (1994).
    """
    for size, n, latency, bandwidth in ((4_000_000, 4, 1e-4, 1e9), (4000, 8, 1e-4, 1e9), (1_000_000, 2, 0.0, 1e8)):
        steps = 2 * (n - 1)
        student.gives(
            size,
            n,
            latency,
            bandwidth,
            expected=steps * (latency + size / n / bandwidth),
            why=f"{steps} steps; each is one message of {size} / {n} bytes, with its latency.",
            mistakes=[
                (latency + steps * size / n / bandwidth, "Every step is a message of its own: the latency is paid in each."),
                (steps * (latency + size / bandwidth), "In each step only a chunk travels, n_bytes / world_size."),
                ((n - 1) * (latency + size / n / bandwidth), "That is half of it: N-1 steps make the sums, N-1 pass them on."),
                (latency + size / bandwidth, "That is one message of the whole tensor."),
            ],
        )
    return student.passed(
        "The bytes stay below twice the tensor, but the latency grows with the ranks: rings like large tensors."
    )
