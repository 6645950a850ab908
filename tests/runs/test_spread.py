"""What the spread of measurements allows to say, and what it does not."""

import math
import random

import pytest

from labkit.runs.spread import NOISY, Difference, Measured, difference, in_rounds, measured, t_99


def rounds_of(seed, names="abcd", rounds=5, truth=None, noise=0.02, drift=0.2, bursts=0.0):
    """Made-up rounds: every round has a speed of its own, every figure an error, and some lose up to half to a burst of other work."""
    draw, turns = random.Random(seed), []
    for _ in range(rounds):
        slow = draw.gauss(0, drift)
        turns.append({})
        for name in names:
            lost = draw.uniform(0.1, 0.5) if draw.random() < bursts else 0.0
            turns[-1][name] = 1000 * (truth or {}).get(name, 1.0) * math.exp(slow + draw.gauss(0, noise) - lost)
    return turns


def test_a_slow_minute_is_no_difference():
    """All rows are ten times as slow in the second round: their ratios are what they were."""
    turns = [{"a": 1000.0, "b": 500.0}, {"a": 100.0, "b": 50.5}, {"a": 1010.0, "b": 501.0}]
    ratio = in_rounds(turns)["a"] / in_rounds(turns)["b"]
    assert ratio.median == pytest.approx(2.0, rel=0.01) and ratio.order() == 1


@pytest.mark.parametrize("bursts", [0.0, 0.05, 0.15])
def test_equal_rows_are_seldom_told_apart(bursts):
    told = [in_rounds(rounds_of(seed, bursts=bursts)) for seed in range(400)]
    wrong = sum((figures["a"] / figures["b"]).order() in (1, -1) for figures in told)
    assert wrong / len(told) < 0.035, f"{wrong} of {len(told)} pairs of equal rows were told apart"


def test_a_difference_of_15_percent_is_seen_on_a_quiet_machine():
    seen = [(f["a"] / f["b"]).order() for f in (in_rounds(rounds_of(seed, truth={"a": 1.15})) for seed in range(200))]
    assert seen.count(1) > 190 and -1 not in seen


def test_the_same_sentences_come_out_again():
    """Two reports on one machine: rows that are equal, 30 % apart, and twice as fast. At least 95 % of the pairs are told alike."""
    truth, alike, pairs = {"b": 1.3, "c": 2.0, "d": 2.6}, 0, 0
    for seed in range(100):
        one, two = (in_rounds(rounds_of(1000 * k + seed, truth=truth)) for k in (1, 2))
        for first, second in ("ab", "ac", "bc", "cd", "ad"):
            pairs += 1
            alike += (one[first] / one[second]).order() == (two[first] / two[second]).order()
    assert alike >= 0.95 * pairs, f"{alike} of {pairs}"


def test_without_enough_to_go_by_nothing_is_told():
    clear = [{"a": 100.0, "b": 10.0}] * 2
    assert (in_rounds(clear)["a"] / in_rounds(clear)["b"]).order() is None, "two rounds are too few"
    busy = in_rounds([*clear, *clear], busy=True)
    ratio = busy["a"] / busy["b"]
    assert ratio.order() is None and ratio.above(1) == ratio.below(1) == NOISY and "other programs" in ratio.why_untold()
    wild = in_rounds(rounds_of(3, names="ab", rounds=3, noise=0.5))
    assert (wild["a"] / wild["b"]).order() is None and "may be chance" in (wild["a"] / wild["b"]).why_untold()


def test_equal_is_said_only_where_a_difference_would_have_been_seen():
    quiet, loud = (in_rounds(rounds_of(5, noise=noise)) for noise in (0.005, 0.2))
    assert (quiet["a"] / quiet["b"]).order() == 0 and (loud["a"] / loud["b"]).order() is None


def test_a_small_difference_is_not_told_however_sure():
    sure = [{"a": 102.0, "b": 100.0}] * 5
    ratio = in_rounds(sure)["a"] / in_rounds(sure)["b"]
    assert ratio.order() == 0 and ratio.order(within=0.01) == 1


def test_arithmetic_goes_sample_by_sample_and_errors_add_squared():
    one, two = Measured((10.0, 20.0, 40.0), 0.03, 5), Measured((5.0, 10.0, 10.0), 0.04, 3)
    ratio = one / two
    assert ratio.samples == (2.0, 2.0, 4.0) and ratio.error == pytest.approx(0.05) and ratio.freedom == 3
    assert (1 / two).samples == (0.2, 0.1, 0.1) and (2 * one).samples == (20.0, 40.0, 80.0) and (one / 10).median == 2.0
    assert str(ratio) == "2.00 (2.00–4.00)" and f"{ratio:.1f}" == "2.0" and float(ratio) == 2.0
    assert ratio.words() == {"times": "2.00 (2.00–4.00)", "percent": "100 %"}
    assert (one * Measured((1.0, 1.0, 1.0), 0.0, 9, busy=True)).busy
    saved = one + two - Measured((9.0, 18.0, 32.0), 0.02, 4)  # 15, 30, 50 less 9, 18, 32
    assert saved.samples == (6.0, 12.0, 18.0) and saved.freedom == 3
    assert saved.error == pytest.approx(math.hypot(30 * 0.04, 18 * 0.02) / 12), "relative to what is left"
    gone = one - Measured((9.0, 18.0, 41.0), 0.02, 4)
    assert gone.order() is None and (gone / one).order() is None and "nan" in str(gone)
    with pytest.raises(TypeError):
        assert one > two  # a comparison must say how: .above, .below, .order


def test_figures_of_their_own_have_wider_margins_than_rows_of_a_round():
    alone = measured([100.0, 102.0, 98.0])
    assert alone.median == 100.0 and alone.freedom == 2 and alone.margin() > 0.05
    assert measured([5.0]).order(1.0) is None and measured([]).median != measured([]).median


def test_students_t_is_that_of_the_tables():
    assert (t_99(2), t_99(9), t_99(25), t_99(0)) == (9.92, 3.36, 2.85, 63.66)


def test_accuracies_differ_by_more_than_the_test_images_and_the_trainings_allow():
    near, far = difference([97.0, 97.2, 97.4], [96.5, 96.4, 96.8], 2.5), difference([97.0, 97.2, 97.4], [80.0, 81.0, 80.5], 2.5)
    assert near.order() == 0 and far.order() == 1 and difference([80.0] * 3, [97.0] * 3, 2.5).order() == -1
    wide = difference([97.0, 80.0, 60.0], [70.0, 55.0, 62.0], 2.5)
    assert wide.margin > 20 and wide.order() == 0
    assert difference([97.0], [50.0], 2.5).order() is None, "one training each"
    assert far.words() == {"points": "+16.7", "chance": "2.5"} and str(Difference(-1.0, 2.0, 3)) == "−1.0 (chance: 2.0)"
