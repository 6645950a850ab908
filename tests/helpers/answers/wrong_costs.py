"""Wrong answers to the exercises on what networks and steps cost, which no check names as a known mistake."""

import math

from tests.helpers.answers import solutions as right


def numbers(shapes):
    return sum(map(math.prod, shapes))


def block(shortcut=lambda cin, cout: cin * cout + 2 * cout, norms=4, second=lambda cin, cout: 9 * cout * cout, when=None):
    when = when or (lambda cin, cout, stride: stride != 1 or cin != cout)
    return lambda cin, cout, stride: (
        9 * cin * cout + second(cin, cout) + norms * cout + (shortcut(cin, cout) if when(cin, cout, stride) else 0)
    )


def keeps(parts, each=4):
    """Of the three, how many are cut, by strategy."""
    return lambda strategy, p, n: each * p * (3 - parts[strategy] + parts[strategy] / n)


CUT = {"ddp": 0, "zero1": 1, "zero2": 2, "fsdp": 3}

WRONG = {
    "gradient_bytes": [
        ("weights alone", lambda shapes, size: numbers(s for s in shapes if len(s) > 1) * size),
        ("convolutions alone", lambda shapes, size: numbers(s for s in shapes if len(s) == 4) * size),
        ("momentum, too", lambda shapes, size: 2 * numbers(shapes) * size),
        ("weights, gradients, momentum", lambda shapes, size: 3 * numbers(shapes) * size),
        ("the largest", lambda shapes, size: max(map(math.prod, shapes)) * size),
        ("MiB", lambda shapes, size: numbers(shapes) * size / 2**20),
        ("bits", lambda shapes, size: numbers(shapes) * size * 8),
        ("two sides", lambda shapes, size: numbers(s[:2] for s in shapes) * size),
        ("each shape once", lambda shapes, size: numbers(set(shapes)) * size),
        ("without the last", lambda shapes, size: numbers(shapes[:-1]) * size),
        ("one number for a tensor", lambda shapes, size: len(shapes) * size),
        ("numbers over bytes", lambda shapes, size: numbers(shapes) // size),
        ("squares of the first side", lambda shapes, size: sum(s[0] ** len(s) for s in shapes) * size),
        ("at least 4 bytes", lambda shapes, size: numbers(shapes) * max(4, size)),
    ],
    "block_parameters": [
        ("shortcut by stride only", block(when=lambda cin, cout, stride: stride != 1)),
        ("shortcut if both change", block(when=lambda cin, cout, stride: stride != 1 and cin != cout)),
        ("shortcut if it widens", block(when=lambda cin, cout, stride: cout > cin)),
        ("a norm with one number", block(norms=2)),
        ("a norm with its running means", block(norms=8)),
        ("a 3×3 shortcut", block(shortcut=lambda cin, cout: 9 * cin * cout + 2 * cout)),
        ("a shortcut with a bias", block(shortcut=lambda cin, cout: cin * cout + 3 * cout)),
        ("a shortcut of cin", block(shortcut=lambda cin, cout: cin * cin + 2 * cin)),
        ("a norm of cin on the shortcut", block(shortcut=lambda cin, cout: cin * cout + 2 * cin)),
        ("a second convolution of 1×1", block(second=lambda cin, cout: cout * cout)),
        ("one convolution", block(second=lambda cin, cout: 0)),
        ("three convolutions", block(second=lambda cin, cout: 18 * cout * cout)),
        ("times the stride", lambda cin, cout, stride: right.block_parameters(cin, cout, stride) * stride),
        ("bytes", lambda cin, cout, stride: 4 * right.block_parameters(cin, cout, stride)),
        ("the first norm of cin", lambda cin, cout, stride: right.block_parameters(cin, cout, stride) + 2 * (cin - cout)),
    ],
    "macs_per_gradient_byte": [
        ("multiplications and additions", lambda cin, cout, k, side, batch: 2 * side * side * batch / 4),
        ("backward, too", lambda cin, cout, k, side, batch: 3 * side * side * batch / 4),
        ("one side", lambda cin, cout, k, side, batch: side * batch / 4),
        ("a border is lost", lambda cin, cout, k, side, batch: (side - k + 1) ** 2 * batch / 4),
        ("cin stays", lambda cin, cout, k, side, batch: cin * side * side * batch / 4),
        ("cout stays", lambda cin, cout, k, side, batch: cout * side * side * batch / 4),
        ("a kernel of one side", lambda cin, cout, k, side, batch: k * side * side * batch / 4),
        ("half precision", lambda cin, cout, k, side, batch: side * side * batch / 2),
        ("double precision", lambda cin, cout, k, side, batch: side * side * batch / 8),
        ("rounded down", lambda cin, cout, k, side, batch: side * side * batch // 4),
        ("a bias", lambda cin, cout, k, side, batch: right_work(cin, cout, k, side, batch) / (4 * (cin * k * k + 1) * cout)),
        ("over the batch's gradients", lambda cin, cout, k, side, batch: side * side / (4 * batch)),
        ("divided by cout", lambda cin, cout, k, side, batch: side * side * batch / 4 / cout),
        ("32 × 32 always", lambda cin, cout, k, side, batch: 256 * batch),
    ],
    "bytes_per_rank": [
        ("Adam", lambda strategy, p, n: 4 * p * (4 - CUT[strategy] + CUT[strategy] / n)),
        ("zero2 as fsdp", keeps(CUT | {"zero2": 3})),
        ("zero1 as zero2", keeps(CUT | {"zero1": 2})),
        ("fsdp gathers all", lambda strategy, p, n: keeps(CUT)(strategy, p, n) + (4 * p if strategy == "fsdp" else 0)),
        ("everything is cut", lambda strategy, p, n: 12 * p / n),
        ("ddp is cut, too", keeps(CUT | {"ddp": 1})),
        ("half precision", keeps(CUT, each=2)),
        ("bits", keeps(CUT, each=32)),
        ("over one rank less", lambda strategy, p, n: keeps(CUT)(strategy, p, n - 1 or 1)),
        ("two ranks always", lambda strategy, p, n: keeps(CUT)(strategy, p, 2)),
        ("times the ranks", lambda strategy, p, n: keeps(CUT)(strategy, p, n) * n),
        ("only what is whole", lambda strategy, p, n: 4 * p * (3 - CUT[strategy])),
        ("only what is cut", lambda strategy, p, n: 4 * p * CUT[strategy] / n),
        ("zero in place of a shard", lambda strategy, p, n: 4 * p * (3 - CUT[strategy]) or 4 * p / n),
        ("MiB", lambda strategy, p, n: keeps(CUT)(strategy, p, n) / 2**20),
    ],
    "amdahl": [
        ("the limit", lambda share, factor: 1 / (1 - share) if share < 1 else factor),
        ("share turned round", lambda share, factor: 1 / (share + (1 - share) / factor)),
        ("a power", lambda share, factor: factor**share),
        ("the smaller limit", lambda share, factor: min(factor, 1 / (1 - share)) if share < 1 else factor),
        ("times saved", lambda share, factor: 1 + share - share / factor),
        ("the share saved", lambda share, factor: share - share / factor),
        ("rounded to two places", lambda share, factor: round(1 / (1 - share + share / factor), 2)),
        ("per cent", lambda share, factor: 100 / (1 - share + share / factor)),
        ("the part alone", lambda share, factor: factor / share if share else 1),
        ("never slower", lambda share, factor: max(1.0, 1 / (1 - share + share / factor))),
        ("the whole shrinks", lambda share, factor: 1 / (1 - share) * factor if share < 1 else factor),
        ("minus", lambda share, factor: 1 / (1 - share / factor)),
        ("Gustafson", lambda share, factor: 1 - share + share * factor),
        ("the share forgotten", lambda share, factor: 1 / (1 - share + 1 / factor)),
    ],
    "step_s": [
        ("ahead without messages", lambda a, c, m, ahead: max(a, c) if ahead else a + c + m),
        ("the longest of three", lambda a, c, m, ahead: max(a, c, m)),
        ("the other way round", lambda a, c, m, ahead: right.step_s(a, c, m, not ahead)),
        ("half of it hidden", lambda a, c, m, ahead: a + c + m - (min(a, c + m) / 2 if ahead else 0)),
        ("only what shows of the input", lambda a, c, m, ahead: max(0.0, a - c - m) if ahead else a + c + m),
        ("compute and what shows", lambda a, c, m, ahead: c + max(0.0, a - c - m) if ahead else a + c + m),
        ("messages forgotten", lambda a, c, m, ahead: max(a, c + m) if ahead else a + c),
        ("messages hidden by the input", lambda a, c, m, ahead: max(a, m) + c if ahead else a + c + m),
        ("the mean", lambda a, c, m, ahead: (a + c + m) / 2 if ahead else a + c + m),
        ("the shorter one", lambda a, c, m, ahead: min(a, c + m) if ahead else a + c + m),
        ("no input when ahead", lambda a, c, m, ahead: c + m if ahead else a + c + m),
        ("messages hidden by compute", lambda a, c, m, ahead: max(a, c, m) if ahead else a + max(c, m)),
        ("the input alone when ahead", lambda a, c, m, ahead: a if ahead else a + c + m),
        ("one decimal place", lambda a, c, m, ahead: round(right.step_s(a, c, m, ahead), 1)),
    ],
}


def right_work(cin, cout, k, side, batch):
    return cin * cout * k * k * side * side * batch
