"""The counter against the acknowledged increments."""

import msgspec
import pytest

from tests.torture.counter import CounterResult

EXACT = CounterResult(with_key=True, kills=2, done=10, unknown=0, repeated=0, conflicts=3, final=10, seconds=1.0)


def test_a_counter_is_exact_when_it_says_what_its_clients_say() -> None:
    assert EXACT.exact


@pytest.mark.parametrize("change", [{"final": 11}, {"final": 9}, {"done": 9, "unknown": 1}])
def test_one_too_many_one_too_few_and_one_that_nobody_knows_of_are_found(change: dict[str, int]) -> None:
    assert not msgspec.structs.replace(EXACT, **change).exact
