"""Drawings of messages: a ring all-reduce step by step, the path of bytes with gloo and NCCL, a server compared with a ring."""

import math

from matplotlib.figure import Figure
from matplotlib.patches import Circle

from labkit.drawings.sheet import GREY, LINE, MESSAGE, Sheet, drawn

SHADES = ("#ffffff", "#deebf7", "#9ecae1", "#2f6ea5", "#12406e")  # of a chunk that holds the gradients of 0, 1, 2 ... ranks
Chunks = list[list[frozenset[int]]]  # [rank][chunk] -> the ranks whose gradients are summed in it


def ring_steps(n: int) -> tuple[list[Chunks], list[list[tuple[int, int]]]]:
    """A ring all-reduce over n ranks, with the same rule as `strategy.ring_all_reduce`: the chunks before the first step and after
    each step; and for each step the (rank, chunk) pairs that are sent."""
    now: Chunks = [[frozenset([rank])] * n for rank in range(n)]
    states, sent = [now], []
    for step in range(2 * (n - 1)):
        after = [list(row) for row in now]
        moves = [(rank, (rank - step) % n) for rank in range(n)]
        for rank, chunk in moves:
            right = (rank + 1) % n
            after[right][chunk] = now[right][chunk] | now[rank][chunk] if step < n - 1 else now[rank][chunk]
        now = after
        states.append(now)
        sent.append(moves)
    return states, sent


@drawn
def ring() -> Figure:
    """A ring all-reduce of three ranks: after two steps every rank has the whole sum of one third of the gradient, and two more steps
    pass these sums on to all ranks."""
    n = 3
    s = Sheet(13, 5.3, "Ring all-reduce of three ranks, step by step",
              "Computed. Each cell is a third of the gradient (chunk 0, 1, 2); in it the ranks whose gradients it sums. Outlined: sent to the right.")  # fmt: skip
    states, sent = ring_steps(n)
    cell, high, gap, left = 0.63, 0.52, 0.57, 0.95
    wide = n * cell + gap

    def at(column: int, rank: int, chunk: int) -> tuple[float, float]:
        return left + column * wide + chunk * cell, 3.1 - rank * 0.85

    for column, state in enumerate(states):
        heading = "start" if column == 0 else f"after step {column}"
        s.text(left + column * wide + n * cell / 2, 3.9, heading, 11.5, weight="bold")
        for rank, row in enumerate(state):
            for chunk, ranks in enumerate(row):
                x, y = at(column, rank, chunk)
                s.box(x, y, cell, high, "+".join(map(str, sorted(ranks))), SHADES[len(ranks)], size=10.5)
    for column, moves in enumerate(sent):
        for rank, chunk in moves:
            x, y = at(column, rank, chunk)
            s.box(x, y, cell, high, fill="none", edge=MESSAGE, line=2.6)
            right_edge, target = at(column, 0, n)[0], at(column + 1, (rank + 1) % n, 0)
            s.arrow((right_edge + 0.06, y + high / 2), (target[0] - 0.06, target[1] + high / 2), MESSAGE)
    for rank in range(n):
        s.text(left - 0.12, at(0, rank, 0)[1] + high / 2, f"rank {rank}", ha="right")
    half = left + 2 * wide + n * cell
    for x0, x1, words in (
        (left, half, "reduce-scatter: add what arrives"),
        (half + gap / 2, left + 4 * wide + n * cell, "all-gather: keep what arrives"),
    ):
        s.line([x0, x1], [1.1, 1.1], LINE, linewidth=1.2)
        s.text((x0 + x1) / 2, 0.88, words, 11.5)
    s.text(0.3, 0.35, f"Each rank sends 2 (N − 1) messages of 1/N of the gradient: 2 (N − 1)/N = {2 * (n - 1) / n:.2f} times its bytes, under 2 however many ranks.  "
           "Patarasuk and Yuan, 2009", 10.5, ha="left", color=GREY)  # fmt: skip
    return s.figure


@drawn
def backend_paths() -> Figure:
    """The path of a gradient from one GPU to another: gloo copies it into host memory, sends it through sockets and copies it back, and
    CPUs add; NCCL sends it from device to device, and GPUs add. Between CPU ranks gloo needs only the sockets."""
    s = Sheet(13, 6.5, "What carries the gradients", "Schematic: two ranks on one host.")
    blue, pale, green = "#a6cde8", "#eeeeee", "#cfe5d3"
    for left, name, about in ((0.4, "gloo", "through host memory; CPUs add"), (6.9, "NCCL", "from device to device; GPUs add")):
        s.text(left, 5.35, name, 14, ha="left", weight="bold")
        s.text(left + 0.85, 5.33, about, 11.5, ha="left", color=GREY)
        for rank, x in enumerate((left, left + 3.5)):
            used = name == "gloo"
            s.box(x, 4.15, 2.2, 0.8, f"GPU {rank} memory\ngradients", green)
            s.box(
                x,
                2.35,
                2.2,
                0.8,
                f"host memory\nof rank {rank}" + ("" if used else ": passed by"),
                blue if used else "white",
                edge=LINE if used else "#aaaaaa",
            )
            s.box(
                x, 1.15, 2.2, 0.6, f"CPU of rank {rank}" + (": adds" if used else ": only\nstarts the kernels"), pale, size=10.5
            )
    for x in (0.4, 3.9):
        s.arrow((x + 0.85, 4.15), (x + 0.85, 3.15), MESSAGE, linewidth=2)
        s.arrow((x + 1.35, 3.15), (x + 1.35, 4.15), MESSAGE, linewidth=2)
        s.text(x + 0.75, 3.65, "copy", 10.5, ha="right", color=MESSAGE)
        s.text(x + 1.45, 3.65, "copy", 10.5, ha="left", color=MESSAGE)
        s.arrow((x + 1.1, 1.75), (x + 1.1, 2.35), GREY, arrowstyle="<|-|>")
    s.arrow((2.6, 2.75), (3.9, 2.75), MESSAGE, linewidth=2, arrowstyle="<|-|>")
    s.text(3.25, 3.0, "sockets", 10.5, color=MESSAGE)
    s.text(3.25, 2.52, "(loopback)", 10.5, color=MESSAGE)
    s.arrow((9.1, 4.55), (10.4, 4.55), MESSAGE, linewidth=3, arrowstyle="<|-|>")
    s.text(9.75, 4.8, "NVLink", 10.5, color=MESSAGE)
    s.text(9.75, 4.28, "or PCIe", 10.5, color=MESSAGE)
    for x in (7.06, 10.56):
        s.arrow((x, 1.75), (x, 4.15), "#aaaaaa", linestyle="--")
    s.text(0.4, 0.55, "On a machine without CUDA the ranks' gradients are in host memory already: gloo's copies fall away.\n"
           "NCCL moves CUDA tensors only, so its rows need a CUDA device for each rank. Where two devices cannot reach each other, it goes through host memory, too.", 11, ha="left", color=GREY)  # fmt: skip
    return s.figure


@drawn
def server_and_ring() -> Figure:
    """Who sends what in one step: every worker sends its gradient to the server and gets weights back, so all bytes pass one place;
    in a ring every rank sends only to its neighbour, and every link carries the same number of bytes."""
    n = 4
    s = Sheet(
        13,
        7.2,
        "A parameter server against a ring",
        "Drawn for 4 workers. G: the bytes of one gradient, as many as of the weights.",
    )
    for cx, name, about in (
        (3.3, "parameter server", "all bytes pass the server's link"),
        (9.7, "ring all-reduce", "every link carries the same"),
    ):
        s.text(cx, 6.1, name, 13, weight="bold")
        s.text(cx, 5.82, about, 11, color=GREY)
        spots = [(cx + 1.65 * math.cos(a), 3.9 + 1.45 * math.sin(a)) for a in (math.pi * (0.25 + i / 2) for i in range(n))]
        for i, (x, y) in enumerate(spots):
            s.axes.add_patch(Circle((x, y), 0.36, facecolor="#a6cde8", edgecolor=LINE, zorder=3))
            s.text(x, y, f"{'worker' if cx < 5 else 'rank'}\n{i}", 10, zorder=4, linespacing=1.0)
        if cx < 5:
            s.box(cx - 0.5, 3.6, 1.0, 0.6, "server", "#f6e3a8", weight="bold")
            for i, (x, y) in enumerate(spots):
                side, up = (1 if x > cx else -1), (1 if y > 3.9 else -1)
                s.arrow((x - side * 0.38, y - up * 0.12), (cx + side * 0.42, 3.9 + up * 0.32), MESSAGE, linewidth=1.8)
                s.arrow((cx + side * 0.52, 3.9 + up * 0.2), (x - side * 0.22, y - up * 0.34), GREY, linewidth=1.8)
                if i in (0, 3):
                    s.text(cx + 0.5, 3.9 + up * 0.98, "push G", 10.5, ha="center", color=MESSAGE)
                    s.text(cx + 0.86, 3.9 + up * 0.36, "pull G", 10.5, ha="left", color=GREY)
        else:
            for i, (x, y) in enumerate(spots):
                tx, ty = spots[(i + 1) % n]
                far = math.hypot(tx - x, ty - y)
                ux, uy = (tx - x) / far, (ty - y) / far
                s.arrow((x + 0.4 * ux, y + 0.4 * uy), (tx - 0.4 * ux, ty - 0.4 * uy), MESSAGE, linewidth=2)
            s.text(cx, 3.9, "each arrow:\n2 (N − 1)/N · G", 11, color=MESSAGE)
    s.text(0.5, 1.75, "Bytes through the busiest place in one step, in and out together:", 11.5, ha="left", weight="bold")
    for column, (x, words) in enumerate(
        ((0.5, "N"), (3.6, "server:  2 · N · G"), (7.6, "a rank of the ring:  2 · 2 (N − 1)/N · G"))
    ):
        s.text(x, 1.42, words, 11, ha="left", color=LINE if column else GREY)
    for line, ranks in enumerate((2, 4, 8)):
        y = 1.12 - 0.28 * line
        s.text(0.5, y, f"{ranks}", 11, ha="left")
        s.text(3.6, y, f"{2 * ranks} G", 11, ha="left")
        s.text(7.6, y, f"{4 * (ranks - 1) / ranks:.2f} G", 11, ha="left")
    return s.figure
