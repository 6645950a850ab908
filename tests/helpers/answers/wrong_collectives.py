"""Wrong answers to the exercises on messages between ranks, which no check names as a known mistake."""

import math
import statistics

from tests.helpers.answers.slips import wire


def columns(grads):
    return list(zip(*grads, strict=True))


def halved_in_turn(grads):
    mean = grads[0]
    for row in grads[1:]:
        mean = [(a + b) / 2 for a, b in zip(mean, row, strict=True)]
    return mean


def ends(ready, message):
    return [wire(ready[: i + 1], message) for i in range(len(ready))]


WRONG = {
    "average_gradients": [
        ("the median", lambda grads: [statistics.median(c) for c in columns(grads)]),
        ("the middle between the least and the largest", lambda grads: [(max(c) + min(c)) / 2 for c in columns(grads)]),
        ("the first two ranks alone", lambda grads: [sum(c[:2]) / len(c[:2]) for c in columns(grads)]),
        ("over the number of parameters", lambda grads: [sum(c) / len(grads[0]) for c in columns(grads)]),
        ("without rank 0", lambda grads: [sum(c[1:]) / max(1, len(c) - 1) for c in columns(grads)]),
        ("of absolute values", lambda grads: [sum(map(abs, c)) / len(c) for c in columns(grads)]),
        ("rounded down", lambda grads: [sum(c) // len(c) for c in columns(grads)]),
        ("rounded to two places", lambda grads: [round(sum(c) / len(c), 2) for c in columns(grads)]),
        ("one mean for all parameters", lambda grads: [sum(map(sum, grads)) / len(grads) / len(grads[0])] * len(grads[0])),
        ("over one rank less", lambda grads: [sum(c) / max(1, len(c) - 1) for c in columns(grads)]),
        ("always over 2", lambda grads: [sum(c) / 2 for c in columns(grads)]),
        ("mean of the mean so far and the next rank", halved_in_turn),
        ("the last rank's", lambda grads: grads[-1]),
        ("the largest", lambda grads: [max(c) for c in columns(grads)]),
    ],
    "exposed_s": [
        ("no queue on the wire", lambda ready, message, backward: max(0.0, max(ready) + message - backward)),
        ("the wire is never idle", lambda ready, message, backward: max(0.0, ready[0] + len(ready) * message - backward)),
        (
            "a message that straddles the end counts whole",
            lambda ready, message, backward: sum(message for end in ends(ready, message) if end > backward),
        ),
        (
            "only messages that begin after backward",
            lambda ready, message, backward: sum(message for end in ends(ready, message) if end - message >= backward),
        ),
        ("all of backward hides", lambda ready, message, backward: max(0.0, len(ready) * message - backward)),
        ("buckets ready at the end only", lambda ready, message, backward: sum(message for at in ready if at >= backward)),
        ("all messages at once", lambda ready, message, backward: sum(max(0.0, at + message - backward) for at in ready)),
        ("the last bucket first", lambda ready, message, backward: max(0.0, wire(ready[::-1], message) - backward)),
        ("backward less the end", lambda ready, message, backward: max(0.0, backward - wire(ready, message))),
        ("whole seconds", lambda ready, message, backward: int(max(0.0, wire(ready, message) - backward))),
        ("the distance", lambda ready, message, backward: abs(wire(ready, message) - backward)),
        ("at most one message", lambda ready, message, backward: min(message, max(0.0, wire(ready, message) - backward))),
        ("since the last bucket", lambda ready, message, backward: wire(ready, message) - ready[-1]),
        ("at least one message", lambda ready, message, backward: max(message, wire(ready, message) - backward)),
    ],
    "ring_step": [
        ("forward in place of back", lambda rank, n, step: ((rank + step) % n, (rank + step - 1) % n)),
        ("receives from the right", lambda rank, n, step: ((rank - step) % n, (rank + 1 - step) % n)),
        ("the ring turned round", lambda rank, n, step: ((rank + step) % n, (rank + 1 + step) % n)),
        ("the second half begins anew", lambda rank, n, step: ((rank - step % (n - 1)) % n, (rank - 1 - step % (n - 1)) % n)),
        (
            "the second half turns back",
            lambda rank, n, step: (((rank - step) if step < n - 1 else (rank + step)) % n, (rank - 1 - step) % n),
        ),
        ("the same chunk both ways", lambda rank, n, step: ((rank - step) % n, (rank - step) % n)),
        ("begins with the neighbour's", lambda rank, n, step: ((rank - 1 - step) % n, (rank - 2 - step) % n)),
        ("the same for all ranks", lambda rank, n, step: (step % n, (step - 1) % n)),
        ("swapped", lambda rank, n, step: ((rank - 1 - step) % n, (rank - step) % n)),
        ("two at a time", lambda rank, n, step: ((rank - 2 * step) % n, (rank - 1 - 2 * step) % n)),
        ("stops at 0", lambda rank, n, step: (max(0, rank - step), max(0, rank - 1 - step))),
        ("counted over n - 1", lambda rank, n, step: ((rank - step) % max(1, n - 1), (rank - 1 - step) % max(1, n - 1))),
        ("four ranks always", lambda rank, n, step: ((rank - step) % 4 % n, (rank - 1 - step) % 4 % n)),
    ],
    "bytes_sent": [
        ("one chunk", lambda size, n: size / n),
        ("two chunks", lambda size, n: 2 * size / n),
        ("N + 1 steps", lambda size, n: (n + 1) * size / n),
        ("2 N - 1 steps", lambda size, n: (2 * n - 1) * size / n),
        ("2 N - 3 steps", lambda size, n: (2 * n - 3) * size / n),
        ("upside down", lambda size, n: 2 * n / (n - 1) * size if n > 1 else 0),
        ("chunks of size / (N - 1)", lambda size, n: 2 * size if n > 1 else 0),
        ("whole chunks", lambda size, n: 2 * (n - 1) * (size // n)),
        ("whole bytes", lambda size, n: int(2 * (n - 1) * size / n)),
        ("a tree", lambda size, n: 2 * math.log2(n) * size),
        ("to and fro between two", lambda size, n: size),
        ("one chunk for each rank", lambda size, n: n * size / n + (n - 1) * size),
        ("N of 2 (N - 1) steps", lambda size, n: 2 * (n - 2) / n * size),
        ("in MiB", lambda size, n: 2 * (n - 1) / n * size / 2**20),
    ],
    "ring_s": [
        ("N steps", lambda size, n, lat, speed: n * (lat + size / n / speed)),
        ("2 N steps", lambda size, n, lat, speed: 2 * n * (lat + size / n / speed)),
        ("2 N - 1 steps", lambda size, n, lat, speed: (2 * n - 1) * (lat + size / n / speed)),
        ("all bytes once", lambda size, n, lat, speed: 2 * (n - 1) * lat + size / speed),
        ("twice all bytes", lambda size, n, lat, speed: 2 * (n - 1) * lat + 2 * size / speed),
        ("the longer of latency and bytes", lambda size, n, lat, speed: 2 * (n - 1) * max(lat, size / n / speed)),
        ("ranks one after the other", lambda size, n, lat, speed: 2 * n * (n - 1) * (lat + size / n / speed)),
        ("times bytes per second", lambda size, n, lat, speed: 2 * (n - 1) * (lat + size / n * speed)),
        ("a latency for each half", lambda size, n, lat, speed: 2 * lat + 2 * (n - 1) * size / n / speed),
        ("no latency", lambda size, n, lat, speed: 2 * (n - 1) * size / n / speed),
        ("latency alone", lambda size, n, lat, speed: 2 * (n - 1) * lat),
        ("latency of a tree", lambda size, n, lat, speed: 2 * math.log2(n) * lat + 2 * (n - 1) * size / n / speed),
        ("a shared link", lambda size, n, lat, speed: 2 * (n - 1) * (lat + size / speed)),
        ("to milliseconds", lambda size, n, lat, speed: round(2 * (n - 1) * (lat + size / n / speed), 3)),
        ("chunks of size / (N - 1)", lambda size, n, lat, speed: 2 * (n - 1) * lat + 2 * size / speed),
        ("latency divided, too", lambda size, n, lat, speed: 2 * (n - 1) * (lat + size / speed) / n),
    ],
}
