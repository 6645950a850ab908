"""Exercises on messages between ranks: the mean of gradients, the ring, the time of a message, what backward hides."""

from collections import Counter

from labkit.checks.judge import NotYet, Student, Verdict, exercise, shown, whole


@exercise(
    signature="average_gradients(grads_of_ranks: list[list[float]]) -> list[float]",
    returns="one number for each parameter: its mean gradient over the ranks",
)
def check_average_gradients(student: Student) -> Verdict:
    """Make one gradient out of the gradients of all ranks, as DDP's all-reduce does: the mean over the ranks, for each parameter.

    `grads_of_ranks[r][i]` is rank r's gradient of parameter i."""
    for grads in (
        [[1.0, 2.0], [3.0, 6.0]],
        [[1.0, -2.0, 0.5], [3.0, 0.0, 0.5], [5.0, 5.0, 0.5], [7.0, 1.0, 0.5]],
        [[1.0], [0.0], [0.0]],
        [[0.25, -4.0]],
    ):
        n, sums = len(grads), [sum(column) for column in zip(*grads, strict=True)]
        student.gives(
            (grads,),
            expected=[value / n for value in sums],
            why=f"There are {n} ranks and {len(sums)} parameters. Each result is a mean over the ranks.",
            mistakes=[
                (sums, f"This is the sum, not the mean. With {n} ranks, every step would be {n} times too long."),
                (grads[0], "This is rank 0's gradient alone. The gradients of the other ranks are lost."),
                (
                    [sum(row) / len(row) for row in grads],
                    "This is the mean over the parameters of each rank, not over the ranks.",
                ),
            ],
            hint="zip(*grads_of_ranks) goes through the parameters.",
        )
    return student.passed(
        "The mean over the ranks is the gradient over all images. Where no layer mixes images, the step equals that of one process."
    )


@exercise(
    signature="exposed_s(ready_s: list[float], message_s: float, backward_s: float) -> float",
    returns="the seconds from the end of backward to the end of the last message, at least 0",
)
def check_exposed_s(student: Student) -> Verdict:
    """How many seconds does a step wait for its messages after backward? This time is called exposed.

    Bucket i is ready `ready_s[i]` seconds after backward began; the times rise. Each bucket is one message of `message_s` seconds.
    The link carries one message at a time, in this order. Backward ends at `backward_s` seconds.
    See Li et al., "PyTorch Distributed" (2020)."""
    for ready, message, backward, why in (
        ([6.0], 4.0, 6.0, "The only bucket is ready when backward ends, so nothing is hidden."),
        (
            [2.0, 4.0, 6.0],
            1.0,
            6.0,
            "The first two messages end before backward ends. The last message begins at 6 and ends at 7.",
        ),
        ([2.0, 4.0, 6.0], 4.0, 6.0, "The link carries one message at a time: from 2 to 6, from 6 to 10, and from 10 to 14."),
        ([1.0, 2.0, 8.0], 3.0, 8.0, "The link is free at 7, but the last bucket is ready at 8. Its message ends at 11."),
        ([2.0, 4.0], 3.0, 6.0, "The second message begins at 5 and ends at 8. Only its part after 6 is exposed."),
        ([1.0, 4.0], 2.5, 6.0, "The second message begins at 4 and ends at 6.5. Only its part after 6 is exposed."),
        (
            [1.0, 2.0, 3.0],
            2.0,
            4.0,
            "The messages end at 3, 5 and 7. The second one is exposed in part, the third one completely.",
        ),
        ([1.0, 2.0], 0.5, 8.0, "Both messages end before backward ends. Everything is hidden, and the result is never below 0."),
    ):
        end = 0.0
        for at in ready:
            end = max(end, at) + message
        student.gives(
            (ready, message, backward),
            expected=max(0.0, end - backward),
            why=why,
            mistakes=[
                (len(ready) * message, "This is the time of all messages. Some of it lies before the end of backward."),
                (message, f"This is the time of one message. {why}"),
                (end, "This is the time at which the last message ends. Count from the end of backward."),
                (end - backward, "The last message ends before backward ends. Then nothing is exposed: return 0, not less."),
            ],
            hint="Keep the time at which the link is free. A message begins when its bucket is ready and the link is free.",
        )
    return student.passed(
        "Only messages after the end of backward cost time. A bucket that is ready when backward ends is exposed, so keep it small."
    )


@exercise(
    signature="ring_step(rank: int, world_size: int, step: int) -> tuple[int, int]",
    returns="(the chunk that this rank sends to its right neighbour, the chunk that it receives from its left neighbour)",
)
def check_ring_step(student: Student) -> Verdict:
    """Which chunks does a rank send and receive in one step of a ring all-reduce?

    The tensor has N = `world_size` chunks, 0 to N-1. In step 0, rank r sends chunk r to rank r + 1. In steps 0 to N-2 the rank adds
    the chunk that it receives to its own; in steps N-1 to 2N-3 it replaces its own. At the end every rank must hold every sum.
    See Patarasuk and Yuan, "Bandwidth Optimal All-reduce Algorithms" (2009)."""
    pictures = {}
    for n in (3, 2, 4, 5):
        held = [[Counter({rank: 1}) for _ in range(n)] for rank in range(n)]  # held[rank][chunk]: whose numbers are in the sum
        lines = [f"ranks: {n}", "step     " + "  ".join(f"rank {rank}      " for rank in range(n))]
        for step in range(2 * (n - 1)):
            asked = [ring_chunks(student, rank, n, step) for rank in range(n)]
            lines.append(f"{step} {'add ' if step < n - 1 else 'keep'}   " + "  ".join(f"send {s} get {r}" for s, r in asked))
            for rank in range(n):
                require_neighbours(student, asked, rank, n, step, "\n".join(lines))
            sent = [Counter(held[rank][asked[rank][0]]) for rank in range(n)]
            for rank in range(n):
                chunk, arrived = asked[rank][1], sent[rank - 1]
                held[rank][chunk] = held[rank][chunk] + arrived if step < n - 1 else arrived
        for rank in range(n):
            for chunk in range(n):
                require_sum(held[rank][chunk], rank, chunk, n, "\n".join(lines))
        pictures[n] = "\n".join(lines)
    return student.passed(
        "With 2 to 5 ranks, every rank holds every sum after 2 (N-1) steps, and sends to one neighbour only.", pictures[4]
    )


def ring_chunks(student: Student, rank: int, n: int, step: int) -> tuple[int, int]:
    """(the chunk to send, the chunk to receive) of one rank in one step. Raises NotYet if they are no chunks."""
    send, get = student.pair(rank, n, step, of="(chunk to send, chunk to receive)")
    returned = f"{student.text(rank, n, step)} returned ({shown(send)}, {shown(get)})"
    for chunk in (send, get):
        if not whole(chunk) or not 0 <= chunk < n:
            raise NotYet(
                f"{returned}, but the chunks of {n} ranks are the whole numbers 0 to {n - 1}.",
                "Use % world_size: the chunk before chunk 0 is the last chunk.",
            )
    if step == 0 and send != rank:
        raise NotYet(f"{returned}, expected ({rank}, {(rank - 1) % n}): in step 0 rank {rank} sends chunk {rank}.")
    return send, get


def require_neighbours(student: Student, asked: list[tuple[int, int]], rank: int, n: int, step: int, picture: str) -> None:
    """A rank must receive the chunk that its left neighbour sends."""
    left = (rank - 1) % n
    if asked[left][0] != asked[rank][1]:
        raise NotYet(
            f"{student.text(rank, n, step)} says that rank {rank} receives chunk {asked[rank][1]}, but in this step its left "
            f"neighbour, rank {left}, sends chunk {asked[left][0]}.",
            "A rank receives what rank - 1 sends in the same step.",
            picture,
        )


def require_sum(got: Counter, rank: int, chunk: int, n: int, picture: str) -> None:
    """After the last step a chunk must hold the numbers of every rank once. `got` counts them by rank."""
    if got == Counter(range(n)):
        return
    missing, twice = [r for r in range(n) if not got[r]], [r for r in range(n) if got[r] > 1]
    wrong = [f"the numbers of rank {r} are missing" for r in missing]
    wrong += [f"the numbers of rank {r} are in it {got[r]} times" for r in twice]
    raise NotYet(
        f"After the last step with {n} ranks, chunk {chunk} on rank {rank} is not the sum: {', '.join(wrong)}.",
        "In each step, send the chunk that arrived in the step before.",
        picture,
    )


@exercise(
    signature="bytes_sent(n_bytes: float, world_size: int) -> float",
    returns="the bytes that each rank sends in one ring all-reduce of a tensor of n_bytes",
)
def check_bytes_sent(student: Student) -> Verdict:
    """How many bytes does each rank send in a ring all-reduce? There are 2 (N-1) steps. In each a rank sends one of N equal chunks.

    A chunk may have a fraction of a byte: do not round. See Patarasuk and Yuan, "Bandwidth Optimal All-reduce Algorithms" (2009).
    """
    for size, n in ((1000, 4), (44_700_000, 2), (600, 3), (1001, 5), (1000, 1)):
        student.gives(
            (size, n),
            expected=2 * (n - 1) / n * size,
            why=f"A rank makes {2 * (n - 1)} steps and sends {shown(size / n)} bytes in each.",
            mistakes=[
                ((n - 1) * size, "This is the naive way: each rank sends its whole tensor to every other rank."),
                ((n - 1) / n * size, "This is half of it. N-1 steps make the sums, and N-1 more steps distribute them."),
                (2 * size, "This is the limit for many ranks. A rank sends 1/N of the tensor in each of 2 (N-1) steps."),
                (2 * (n - 1) * size, "In each of the 2 (N-1) steps a rank sends one chunk, not the whole tensor."),
            ],
        )
    return student.passed("2 (N-1)/N of the tensor: less than twice its size, for any number of ranks.")


@exercise(
    signature="ring_s(n_bytes: float, world_size: int, latency_s: float, bytes_per_s: float) -> float",
    returns="the seconds that a ring all-reduce takes",
)
def check_ring_s(student: Student) -> Verdict:
    """How long does a ring all-reduce take? In each of 2 (N-1) steps all ranks send one chunk at the same time.

    A message takes `latency_s` seconds, and then its bytes divided by `bytes_per_s`. See Patarasuk and Yuan (2009), and Hockney,
    "The communication challenge for MPP" (1994)."""
    for size, n, latency, bandwidth in ((4_000_000, 4, 1e-4, 1e9), (4000, 8, 1e-4, 1e9), (1_000_000, 2, 0.0, 1e8)):
        steps = 2 * (n - 1)
        student.gives(
            (size, n, latency, bandwidth),
            expected=steps * (latency + size / n / bandwidth),
            why=f"There are {steps} steps. Each is one message of {shown(size / n)} bytes, with its own latency.",
            mistakes=[
                (latency + steps * size / n / bandwidth, "Every step is a message of its own, so every step has the latency."),
                (steps * (latency + size / bandwidth), "In each step a rank sends one chunk only: n_bytes / world_size."),
                (
                    (n - 1) * (latency + size / n / bandwidth),
                    "This is half of it. N-1 steps make the sums, and N-1 more steps distribute them.",
                ),
                (latency + size / bandwidth, "This is one message with the whole tensor."),
            ],
        )
    return student.passed(
        "The bytes stay below twice the tensor, but the latency grows with the ranks. A ring is good for large tensors."
    )
