"""When two figures are told apart."""

import pytest

from labkit.results import verdict
from labkit.results.metrics import METRIC


def test_accuracies_differ_beyond_two_standard_errors():
    """Of 90 % and 94 % on 360 images: 2 sqrt((90 * 10 + 94 * 6) / 360) = 4.03 points. So 4.0 are chance and 4.1 are not."""
    accuracy = METRIC["best_acc_pct"]
    assert verdict.chance_points(90.0, 94.0, 360) == pytest.approx(4.0332, abs=1e-4)
    assert verdict.order(accuracy, [94.0], [90.0], 360) == 0 == verdict.order(accuracy, [90.0], [94.0], 360)
    assert verdict.order(accuracy, [94.1], [90.0], 360) == 1 == -verdict.order(accuracy, [90.0], [94.1], 360)
