import pytest

from bench.figures import Spread, percentile, spread


def test_a_percentile_lies_between_its_neighbours() -> None:
    values = [40.0, 10.0, 20.0, 30.0, 50.0]
    assert percentile(values, 50) == 30.0
    assert percentile(values, 75) == 40.0
    assert percentile(values, 99) == pytest.approx(49.6)


def test_two_values_have_percentiles() -> None:
    assert percentile([1.0, 2.0], 50) == 1.5


def test_a_spread_is_median_least_and_most() -> None:
    assert spread([3.0, 1.0, 2.0, 9.0]) == Spread(median=2.5, least=1.0, most=9.0)
