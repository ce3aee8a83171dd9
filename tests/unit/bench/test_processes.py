import os
import sys

import pytest

from bench.errors import BenchError
from bench.processes import check_platform, parse_stat, usage

FIELDS = " ".join(str(number) for number in range(3, 53))


@pytest.mark.parametrize("name", ["python", "a b", "x) 1 2 3 (y"])
def test_a_name_with_spaces_or_parentheses_moves_no_field(name: str) -> None:
    assert parse_stat(f"7 ({name}) {FIELDS}\n") == (14 + 15, 24)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_usage_is_the_sum_over_the_processes() -> None:
    one, two = usage([os.getpid()]), usage([os.getpid(), os.getpid()])
    assert one.resident_bytes > 2**20
    assert two.resident_bytes > 1.5 * one.resident_bytes
    assert two.cpu_s >= 2 * one.cpu_s > 0


def test_without_proc_the_error_says_where_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(BenchError, match="Linux"):
        check_platform()
