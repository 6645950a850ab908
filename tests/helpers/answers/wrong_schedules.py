"""Wrong answers to the exercises on pipelines and on bounded staleness, which no check names as a known mistake."""

import statistics

from tests.helpers.answers import solutions as right
from tests.helpers.answers.slips import ahead_by


def newest_first(stage, stages, m):
    ahead = min(stages - stage - 1, m)
    order, under_way, following = [("F", i) for i in range(ahead)], list(range(ahead)), ahead
    while following < m or under_way:
        if following < m:
            order.append(("F", following))
            under_way.append(following)
            following += 1
        order.append(("B", under_way.pop()))
    return order


def without_minimum(stage, stages, m):
    ahead = stages - stage - 1
    order = [("F", i) for i in range(ahead)]
    for i in range(m):
        order += [("F", ahead + i)] * (ahead + i < m) + [("B", i)]
    return order


def last_reversed(stage, stages, m):
    order = right.one_f_one_b(stage, stages, m)
    ahead = min(stages - stage, m)
    return order[:-ahead] + order[-ahead:][::-1]


def in_twos(stage, stages, m):
    order = []
    for start in range(0, m, 2):
        two = range(start, min(start + 2, m))
        order += [("F", i) for i in two] + [("B", i) for i in two]
    return order


def backward_first(stage, stages, m):
    ahead = min(stages - stage - 1, m)
    order = [("F", i) for i in range(ahead)]
    for i in range(m):
        order += [("B", i)] + [("F", ahead + i)] * (ahead + i < m)
    return order


def lags(version, computing):
    return [version + 1 - read for read in computing]


WRONG = {
    "one_f_one_b": [
        ("as many ahead on every stage", lambda stage, stages, m: ahead_by(stages, m)),
        ("mirrored", lambda stage, stages, m: ahead_by(stage + 1, m)),
        ("one ahead too few", lambda stage, stages, m: ahead_by(max(1, stages - stage - 1), m)),
        ("two ahead always", lambda stage, stages, m: ahead_by(2, m)),
        ("newest goes back first", newest_first),
        ("more ahead than there are", without_minimum),
        ("the last backwards left out", lambda stage, stages, m: right.one_f_one_b(stage, stages, m)[: 2 * m - 1]),
        ("the last ones reversed", last_reversed),
        ("GPipe in twos", in_twos),
        ("backward before forward", backward_first),
        ("counted from 1", lambda stage, stages, m: [(k, i + 1) for k, i in right.one_f_one_b(stage, stages, m)]),
        ("names", lambda stage, stages, m: [f"{k}{i}" for k, i in right.one_f_one_b(stage, stages, m)]),
        ("small letters", lambda stage, stages, m: [(k.lower(), i) for k, i in right.one_f_one_b(stage, stages, m)]),
        ("pairs turned round", lambda stage, stages, m: [(i, k) for k, i in right.one_f_one_b(stage, stages, m)]),
        ("forwards alone", lambda stage, stages, m: [p for p in right.one_f_one_b(stage, stages, m) if p[0] == "F"]),
        ("half the micro-batches ahead", lambda stage, stages, m: ahead_by(max(1, m // 2), m)),
    ],
    "bubble_share": [
        ("one more in the sum", lambda p, m: (p - 1) / (m + p)),
        ("for each stage", lambda p, m: (p - 1) / (m + p - 1) / p),
        ("one of all", lambda p, m: 1 / (m + p - 1)),
        ("over all cells", lambda p, m: (p - 1) / (p * m)),
        ("as if m were 1", lambda p, m: 1 - 1 / p),
        ("over the larger", lambda p, m: (p - 1) / max(m, p)),
        ("both ends counted twice", lambda p, m: 2 * (p - 1) / (m + 2 * (p - 1))),
        ("three units over m", lambda p, m: 3 * (p - 1) / (m + 3 * (p - 1))),
        ("1 - m / (p + m)", lambda p, m: 1 - m / (p + m)),
        ("per cent", lambda p, m: 100 * (p - 1) / (m + p - 1)),
        ("rounded to two places", lambda p, m: round((p - 1) / (m + p - 1), 2)),
        ("both directions", lambda p, m: 2 * (p - 1) / (m + p - 1)),
        ("in units", lambda p, m: p - 1),
        ("none with many micro-batches", lambda p, m: max(0.0, 1 - m / p)),
        ("rounded down", lambda p, m: (p - 1) // (m + p - 1)),
    ],
    "may_update": [
        ("the newest reader only", lambda v, computing, bound: not computing or v + 1 - max(computing) <= bound),
        ("the first in the list only", lambda v, computing, bound: not computing or v + 1 - computing[0] <= bound),
        ("the last in the list only", lambda v, computing, bound: not computing or v + 1 - computing[-1] <= bound),
        ("the mean", lambda v, computing, bound: not computing or statistics.mean(lags(v, computing)) <= bound),
        ("the median", lambda v, computing, bound: not computing or statistics.median(lags(v, computing)) <= bound),
        ("the number at work", lambda v, computing, bound: len(computing) <= bound),
        ("the sum", lambda v, computing, bound: sum(lags(v, computing)) <= bound),
        ("the spread", lambda v, computing, bound: not computing or max(computing) - min(computing) <= bound),
        ("bound 0 or nothing", lambda v, computing, bound: bound > 0 or not computing),
        ("two versions on", lambda v, computing, bound: all(v + 2 - read <= bound for read in computing)),
        ("False if nobody computes", lambda v, computing, bound: bool(computing) and max(lags(v, computing)) <= bound),
        ("fails if nobody computes", lambda v, computing, bound: max(lags(v, computing)) <= bound),
        ("most of them", lambda v, computing, bound: sum(lag > bound for lag in lags(v, computing)) <= len(computing) / 2),
        ("all but the slowest", lambda v, computing, bound: all(lag <= bound for lag in sorted(lags(v, computing))[:-1])),
        ("every so many versions", lambda v, computing, bound: v % (bound + 1) != bound or not computing),
        ("the other way round", lambda v, computing, bound: any(lag > bound for lag in lags(v, computing))),
        ("the first two only", lambda v, computing, bound: all(lag <= bound for lag in lags(v, computing)[:2])),
        ("a lag of 1 always allowed", lambda v, computing, bound: all(lag <= max(1, bound) for lag in lags(v, computing))),
    ],
}
