"""Drawings along time: one step on one and on two devices, pipeline schedules, pushes to an asynchronous server."""

from matplotlib.figure import Figure

from labkit.checks.schedules import UNITS, Order, drive, gpipe
from labkit.drawings.sheet import GREY, LINE, MESSAGE, Sheet, drawn
from labkit.plots.style import WORK


@drawn
def step_on_one_and_two() -> Figure:
    """One training step over time: on one device; with DataParallel, which copies weights, scatters images and gathers gradients
    through one device while nothing is computed; and with DDP, whose all-reduces run while backward is still computing."""
    s = Sheet(13, 7.9, "One training step, 256 images", "Schematic: lengths are not measured. Time runs to the right.")
    left, high = 2.2, 0.44

    def lane(y: float, name: str, parts: list[tuple[str, float, str]]) -> float:
        x = left
        s.text(left - 0.15, y + high / 2, name, ha="right")
        for kind, wide, words in parts:
            s.work(kind, x, y, wide, high, words, size=10.5)
            x += wide
        return x

    def title(y: float, name: str, about: str) -> None:
        s.text(0.2, y, name, 12, ha="left", weight="bold")
        s.text(2.2, y, about, 11, ha="left", color=GREY)

    title(6.8, "single", "one process, one device, the whole batch")
    whole = [("data", 0.8, "256"), ("forward", 2.0, "forward 256"), ("backward", 4.0, "backward 256"), ("update", 0.7, "update")]
    lane(6.15, "device 0", whole)

    title(5.55, "DataParallel", "one process drives both devices: everything passes through device 0, in every step")
    first = [("data", 0.8, "256"), ("exchange", 1.1, "weights"), ("exchange", 0.8, "images"), ("forward", 1.0, "128")]
    lane(4.9, "device 0", [*first, ("backward", 2.0, "backward 128"), ("exchange", 1.3, "gradients"), ("update", 0.7, "update")])
    second = [("waiting", 2.7, "waits"), ("forward", 1.0, "128"), ("backward", 2.0, "backward 128"), ("waiting", 2.0, "waits")]
    lane(4.3, "device 1", second)
    s.arrow((left + 1.2, 4.9), (left + 1.2, 4.74), MESSAGE)
    s.arrow((left + 2.3, 4.9), (left + 2.3, 4.74), MESSAGE)
    s.arrow((left + 6.3, 4.74), (left + 6.3, 4.9), MESSAGE)

    title(
        3.75,
        "DDP",
        "one process per device; gradients leave in buckets as soon as backward has them, and their mean comes back to all",
    )
    rank = [
        ("data", 0.4, "128"),
        ("forward", 1.0, "128"),
        ("backward", 2.0, "backward 128"),
        ("waiting", 0.5, ""),
        ("update", 0.7, "update"),
    ]
    lane(3.1, "rank 0", rank)
    lane(1.5, "rank 1", rank)
    s.text(left - 0.15, 2.52, "all-reduce", ha="right", color=MESSAGE)
    for i, start in enumerate((2.1, 2.75, 3.4)):
        x, wide = left + start, 0.5
        s.work("exchange", x, 2.3, wide, high, str(i + 1), size=10.5, weight="bold")
        for y, end in ((3.1, 2.74), (1.94, 2.3)):
            s.arrow((x + 0.02, y), (x + 0.12, end), MESSAGE)
    s.text(left + 4.15, 2.52, "bucket 1 holds the last layers' gradients, which backward computes first;\n"
           "only what outlasts backward is exposed", 10.5, ha="left", color=GREY)  # fmt: skip
    s.line([left + 3.4, left + 3.4], [1.35, 3.6], "#999999", linestyle=":")
    s.text(left + 3.45, 1.32, "exposed", 10.5, ha="left", color=MESSAGE)
    s.key(0.3, 0.65, {"data": "data", "forward": "forward", "backward": "backward", "exchange": "exchange", "update": "update",
                      "waiting": "waiting"}, 1.75)  # fmt: skip
    s.text(0.3, 0.25, "backward takes about twice as long as forward: it computes gradients of the inputs and of the weights", 10.5, ha="left",
           color=GREY)  # fmt: skip
    return s.figure


def one_f_one_b(stage: int, stages: int, micro_batches: int) -> Order:
    """The order of one stage (0, 1, ...): a forward for each stage behind it, then forward and backward in turn, then the backwards
    that are left (Narayanan et al., 2019)."""
    ahead = min(stages - stage - 1, micro_batches)
    order: Order = [("F", i) for i in range(ahead)]
    for i in range(micro_batches):
        if i + ahead < micro_batches:
            order.append(("F", i + ahead))
        order.append(("B", i))
    return order


@drawn
def pipelines() -> Figure:
    """A batch in a pipeline of two stages: whole; in four micro-batches with GPipe; and with 1F1B, which holds fewer activations. The
    bubble is the time in which a stage has nothing to do."""
    s = Sheet(13, 7.6, "Two stages, one batch: who computes which micro-batch when",
              "Computed: backward takes twice as long as forward, messages take no time. Numbers are micro-batches.")  # fmt: skip
    unit, left, high = 0.385, 1.15, 0.42
    schedules = [("whole batch, as published", [gpipe(1)] * 2), ("GPipe: all forwards, then all backwards", [gpipe(4)] * 2),
                 ("1F1B: a backward as soon as there is one", [one_f_one_b(stage, 2, 4) for stage in range(2)])]  # fmt: skip
    for (name, orders), top in zip(schedules, (6.25, 4.35, 2.45), strict=True):
        m, ran = len(orders[0]) // 2, drive(orders)
        scale = 4 / m  # the whole batch is the same work, however it is cut
        end = ran.time * scale
        idle = 1 - m * sum(UNITS.values()) / ran.time
        s.text(left, top + 0.3, name, 12, ha="left", weight="bold")
        for stage, events in enumerate(ran.work):
            y = top - 0.45 - stage * (high + 0.1)
            s.text(left - 0.12, y + high / 2, f"stage {stage}", ha="right")
            s.box(left, y, end * unit, high, fill="white", edge="#888888", style=(0, (3, 2)))
            for start, what, i in events:
                kind = "forward" if what == "F" else "backward"
                words = str(i + 1) if m > 1 else kind
                s.work(kind, left + start * scale * unit, y, UNITS[what] * scale * unit, high, words, size=10.5)
            note = f"holds activations of {ran.held[stage]} of {m}" if m > 1 else "holds all activations"
            s.text(left + end * unit + 0.15, y + high / 2, note, 10.5, ha="left", color=GREY)
        s.text(left, top - 1.2, f"bubble: {100 * idle:.0f} % of each stage's time  =  (p − 1) / (m + p − 1) with p = 2 stages, m = {m}",
               10.5, ha="left", color=MESSAGE)  # fmt: skip
    s.key(left, 0.55, {"forward": "forward", "backward": "backward", "waiting": "bubble"}, 1.6)
    s.text(
        left + 5.2, 0.55, "m: micro-batches, p: stages. Huang et al., 2019; Narayanan et al., 2019", 10.5, ha="left", color=GREY
    )
    return s.figure


def pushes(compute: list[float], until: float) -> list[tuple[int, float, float, int, int]]:
    """The pushes to an asynchronous server until the time `until`: (worker, read at, applied at, version read, staleness).

    `compute`: how long each worker computes a gradient, in any unit of time. Messages and updates take no time, and a worker
    reads the new weights as soon as its push is applied."""
    read = [(0.0, 0)] * len(compute)
    applied, version = [], 0
    while True:
        ready = [began + long for (began, _), long in zip(read, compute, strict=True)]
        worker = min(range(len(compute)), key=lambda w: (ready[w], w))
        now = ready[worker]
        if now > until:
            return applied
        began, seen = read[worker]
        applied.append((worker, began, now, seen, version - seen))
        version += 1
        read[worker] = (now, version)


@drawn
def staleness() -> Figure:
    """Three workers push to an asynchronous server, each when its gradient is ready: the staleness of a gradient is the number of
    updates by others while it was computed."""
    s = Sheet(13, 5.9, "An asynchronous server: how stale is a gradient?",
              "Computed for workers of different speed; messages take no time. A push is applied at once, then the worker reads again.")  # fmt: skip
    unit, left, server, until = 0.92, 1.5, 4.15, 11.8
    events = pushes([2.0, 2.6, 4.3], until)
    s.text(left - 0.15, server + 0.2, "server", ha="right", weight="bold")
    s.box(left, server, until * unit, 0.4, fill="#f6e3a8")
    last = left  # where the latest low label stands
    for version, (worker, began, now, seen, stale) in enumerate(events, start=1):
        y, x0, x1 = 3.1 - worker * 0.85, left + began * unit, left + now * unit
        s.box(
            x0 + 0.04,
            y,
            x1 - x0 - 0.08,
            0.45,
            f"on v{seen}: {stale} stale",
            "#a6cde8" if stale < 2 else WORK["backward"][0],
            size=10.5,
        )
        s.arrow((x1 - 0.06, y + 0.45), (x1 - 0.06, server), MESSAGE, linewidth=1.2)
        s.line([x1, x1], [server, server + 0.4], LINE)
        up = 0.58 if x1 - last > 0.36 else 0.78
        last = x1 if up == 0.58 else last
        s.text(x1 + 0.04, server + up, f"v{version}", 10.5, color=LINE)
    for worker in range(3):
        s.text(left - 0.15, 3.1 - worker * 0.85 + 0.22, f"worker {worker}", ha="right")
    s.text(left - 0.03, server + 0.58, "v0", 10.5)
    s.text(0.3, 0.75, "staleness = version when applied − version when read.  async applies every push at once; ssp waits where someone would "
           "pass its bound;\nsync waits for all, so that nothing is ever stale.", 10.5, ha="left", color=GREY)  # fmt: skip
    return s.figure
