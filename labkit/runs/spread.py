"""A figure that was measured several times, and what its spread allows to say.

One rule for all sentences and verdicts. Two rows differ if the ratio of their figures is farther from 1 than its *margin*. They are
equal if it is not, and the margin is small. Else the measurements are too noisy to tell. The margin comes from the spread of the
measurements:

    margin = t x standard error of the median     t: 99 % of Student's distribution, so that few of many sentences are wrong by chance

Figures are compared on the scale of logarithms, where a factor of 2 is as far from 1 as a factor of 1/2.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NOISY = "noisy"  # what a question to a figure answers where its spread allows neither yes nor no
LEAST = 3  # measurements of a figure that is compared
SMALLEST = 0.03  # a difference of 3 % is not told, however small the spread is: another build of the same code may cause it
EQUAL_WITHIN = 0.10  # figures are called equal only if a difference of 10 % would have been seen
OF_MEDIAN = 1.2533  # standard error of a median over that of a mean, of normal errors: sqrt(pi / 2)
OF_MAD = 1.4826  # standard deviation over the median absolute deviation, of normal errors
T_99 = {
    1: 63.66,
    2: 9.92,
    3: 5.84,
    4: 4.60,
    5: 4.03,
    6: 3.71,
    8: 3.36,
    10: 3.17,
    15: 2.95,
    20: 2.85,
    30: 2.75,
    60: 2.66,
    1000: 2.58,
}


def t_99(freedom: int) -> float:
    """The 99 % quantile (two-sided) of Student's t distribution; between the table's lines, that of the line before."""
    return T_99[max(known for known in T_99 if known <= max(1, freedom))]


@dataclass(frozen=True)
class Measured:
    """A positive figure, or a ratio of such figures.

    samples    each measurement; those of two figures that were measured in the same rounds belong together, one by one
    error      the standard error of the median of ln(sample)
    freedom    degrees of freedom of `error`
    busy       did other programs use the cores meanwhile? Then no sentence is drawn from it"""

    samples: tuple[float, ...]
    error: float
    freedom: int
    busy: bool = False

    @property
    def median(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)

    def margin(self) -> float:
        """By so much ln(median) may be off by chance, in 99 of 100 cases."""
        return t_99(self.freedom) * self.error

    def order(self, than: float = 1.0, within: float = SMALLEST) -> int | None:
        """1 if the figure is larger than `than`, -1 if it is smaller, 0 if it is equal; None: too noisy to tell, or measured fewer
        than three times. `within`: a smaller relative difference counts as none."""
        if self.busy or len(self.samples) < LEAST:
            return None
        off, margin = math.log(self.median / than), max(self.margin(), math.log1p(within))
        if abs(off) > margin:
            return 1 if off > 0 else -1
        return 0 if margin <= math.log1p(max(EQUAL_WITHIN, within)) else None

    def above(self, than: float) -> bool | str:
        """Is the figure larger than `than`? True, False or NOISY."""
        order = self.order(than)
        return NOISY if order is None else order > 0

    def below(self, than: float) -> bool | str:
        """Is the figure smaller than `than`? True, False or NOISY."""
        order = self.order(than)
        return NOISY if order is None else order < 0

    def why_untold(self) -> str:
        """Why nothing can be told of this figure."""
        if self.busy:
            return "other programs used the cores meanwhile, or the control differed from its row"
        if len(self.samples) < LEAST:
            return f"measured {len(self.samples)} times; {LEAST} are needed"
        return f"the measurements spread so much that {100 * math.expm1(self.margin()):.0f} % may be chance"

    def words(self) -> dict[str, str]:
        """The figure for a sentence: `times` with least and most, and `percent`, its distance from 1."""
        return {"times": str(self), "percent": f"{100 * abs(self.median - 1):.0f} %"}

    def __float__(self) -> float:
        return self.median

    def __format__(self, form: str) -> str:
        """The median, in a number's format; without a format, the median with least and most."""
        return format(self.median, form) if form else str(self)

    def __str__(self) -> str:
        """The median with least and most: `1.25 (1.19–1.31)`."""
        median, least, most = map(short, (self.median, min(self.samples), max(self.samples)))
        return median if least == most else f"{median} ({least}–{most})"

    def __mul__(self, other: Measured | float) -> Measured:
        """The product, sample by sample. Relative errors add as the sides of a right-angled triangle."""
        if not isinstance(other, Measured):
            return Measured(tuple(one * other for one in self.samples), self.error, self.freedom, self.busy)
        samples = tuple(one * two for one, two in zip(self.samples, other.samples, strict=False))
        error, freedom = math.hypot(self.error, other.error), min(self.freedom, other.freedom)
        return Measured(samples, error, freedom, self.busy or other.busy)

    __rmul__ = __mul__

    def __add__(self, other: Measured | float) -> Measured:
        """The sum, sample by sample. Its relative error is at most the larger one of the two."""
        if not isinstance(other, Measured):
            return Measured(tuple(one + other for one in self.samples), self.error, self.freedom, self.busy)
        samples = tuple(one + two for one, two in zip(self.samples, other.samples, strict=False))
        error, freedom = max(self.error, other.error), min(self.freedom, other.freedom)
        return Measured(samples, error, freedom, self.busy or other.busy)

    __radd__ = __add__

    def __sub__(self, other: Measured) -> Measured:
        """The difference, sample by sample. The smaller it is against the two, the larger is its relative error; if it is not
        positive, nothing can be told of it."""
        samples = tuple(one - two for one, two in zip(self.samples, other.samples, strict=False))
        freedom, busy = min(self.freedom, other.freedom), self.busy or other.busy
        if min(samples) <= 0:
            return Measured((math.nan,) * len(samples), math.inf, freedom, busy)
        error = math.hypot(self.median * self.error, other.median * other.error) / statistics.median(samples)
        return Measured(samples, error, freedom, busy)

    def __truediv__(self, other: Measured | float) -> Measured:
        return self * (1 / other)

    def __rtruediv__(self, one: float) -> Measured:
        return Measured(tuple(one / sample for sample in self.samples), self.error, self.freedom, self.busy)


@dataclass(frozen=True)
class Difference:
    """The difference of two accuracies, in percentage points.

    points    the difference of the medians
    margin    by so much they may differ by chance
    runs      trainings of each, at least"""

    points: float
    margin: float
    runs: int

    def order(self, within: float = 0.0) -> int | None:
        """1 if the first is larger, -1 if smaller, 0 if the difference may be chance; None: trained fewer than three times."""
        if self.runs < LEAST:
            return None
        return 0 if abs(self.points) <= max(self.margin, within) else (1 if self.points > 0 else -1)

    def why_untold(self) -> str:
        """Why nothing can be told of this difference."""
        return f"trained {self.runs} times; {LEAST} are needed"

    def words(self) -> dict[str, str]:
        """For a sentence: `points`, with the sign, and `chance`, the margin."""
        return {"points": f"{self.points:+.1f}".replace("-", "−"), "chance": f"{self.margin:.1f}"}

    def __str__(self) -> str:
        return "{points} (chance: {chance})".format(**self.words())


def short(value: float) -> str:
    """A number with three or four digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def measured(samples: Sequence[float], busy: bool = False) -> Measured:
    """A figure from measurements of its own, that belong to no rounds. The error comes from their median absolute deviation."""
    found = [sample for sample in samples if sample > 0]
    logs = [math.log(sample) for sample in found] or [0.0]
    middle = statistics.median(logs)
    freedom = len(logs) - 1
    error = scale([log - middle for log in logs], freedom) * OF_MEDIAN / math.sqrt(len(logs)) if freedom else math.inf
    return Measured(tuple(found) or (math.nan,), error, freedom, busy)


def in_rounds(turns: Sequence[Mapping[str, float]], busy: bool = False) -> dict[str, Measured]:
    """The figures of things that were measured in turns, {name: figure} for each round, with one error for all.

    A slow minute of the machine makes all figures of a round smaller. So what counts is how far a figure is from the median of
    its own name and the median of its round together (median polish; Tukey, "Exploratory Data Analysis", 1977). A burst of other
    work hits single figures; medians forgive a few of them."""
    names = list(turns[0])
    rest = [[math.log(turn[name]) for name in names] for turn in turns]
    for _ in range(5):
        for row in rest:
            middle = statistics.median(row)
            row[:] = [value - middle for value in row]
        for column in range(len(names)):
            middle = statistics.median(row[column] for row in rest)
            for row in rest:
                row[column] -= middle
    freedom = (len(names) - 1) * (len(turns) - 1)
    sd = scale([value for row in rest for value in row], freedom) if freedom else math.inf
    error = sd * OF_MEDIAN / math.sqrt(len(turns))
    # A median absolute deviation tells less than a standard deviation of as many values: it counts as half of them.
    return {name: Measured(tuple(turn[name] for turn in turns), error, max(1, freedom // 2), busy) for name in names}


def scale(residuals: Sequence[float], freedom: int) -> float:
    """The standard deviation of errors, from the median of the `freedom` largest residuals. (The others are 0 because medians were
    subtracted.)"""
    return OF_MAD * statistics.median(sorted(map(abs, residuals))[-freedom:])


def difference(one: Sequence[float], two: Sequence[float], chance_points: float) -> Difference:
    """The difference of two rows' accuracies (percent, one for each training). `chance_points`: two standard errors, which come from
    the number of test images. The margin is that, or what the trainings' own spread gives, whichever is more."""
    runs = min(len(one), len(two))
    margin = chance_points
    if runs >= LEAST:
        variance = statistics.variance(one) / len(one) + statistics.variance(two) / len(two)
        margin = max(margin, t_99(len(one) + len(two) - 2) * math.sqrt(variance))
    return Difference(statistics.median(one) - statistics.median(two), margin, runs)
