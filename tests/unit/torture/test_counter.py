"""The counter against the acknowledged increments."""

import msgspec
import pytest

from tests.torture.counter import CounterResult

EXACT = CounterResult(with_key=True, kills=2, done=10, unknown=0, repeated=0, conflicts=3, final=10, seconds=1.0)


def test_a_counter_is_exact_when_it_equals_the_acknowledged_increments() -> None:
    assert EXACT.exact


@pytest.mark.parametrize("change", [{"final": 11}, {"final": 9}, {"done": 9, "unknown": 1}])
def test_a_surplus_a_loss_and_an_unknown_increment_are_found(change: dict[str, int]) -> None:
    assert not msgspec.structs.replace(EXACT, **change).exact
