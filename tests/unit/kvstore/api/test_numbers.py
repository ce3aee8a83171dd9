import ast
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.numbers import (
    InvalidNumberError,
    check_integer,
    check_seconds,
    parse_integer,
    parse_seconds,
    shown,
)

NO_NUMBERS = [
    *("", " ", "a", "1_000", " 5", "5 ", "5\n", "\t5", "+5", "-5", "-0", "007", "00", "0x10", "0b1", "1e3", "1E3"),
    *("٣", "\uff15", "²", "1,000", "1.000,5", "5s", "nan", "NaN", "inf", "-inf", "Infinity", "true", "None"),
    *("\x005", "5\x00", "\u200b5"),
]


@pytest.mark.parametrize("text", [*NO_NUMBERS, "5.0", ".5", "5.", "1.5"])
def test_a_whole_number_has_one_spelling(text: str) -> None:
    with pytest.raises(InvalidNumberError, match="is not a whole number from 0 to 5000: write decimal digits only"):
        parse_integer(text, 0, 5000)


@pytest.mark.parametrize("text", [*NO_NUMBERS, ".5", "5.", "1.2.3", "1." + "0" * 21, "1" * 13])
def test_seconds_are_plain_decimal_digits(text: str) -> None:
    with pytest.raises(InvalidNumberError, match="is not a number of seconds from 0 to 5000: write decimal digits"):
        parse_seconds(text, 0, 5000)


@given(st.integers(0, 2**43))
def test_plain_digits_are_taken(number: int) -> None:
    assert parse_integer(str(number), 0, 2**43) == number


@given(st.floats(0.001, 10**9, allow_nan=False))
def test_the_python_spelling_of_a_number_of_seconds_is_taken(number: float) -> None:
    assert parse_seconds(repr(number), 0, 10**9) == number


@given(st.text(), st.integers(0, 10), st.integers(10, 10**6))
def test_no_text_gives_a_number_out_of_bounds_or_another_error(text: str, least: int, most: int) -> None:
    parsers: list[Callable[[str, int, int], float]] = [parse_integer, parse_seconds]
    for parse in parsers:
        try:
            assert least <= parse(text, least, most) <= most
        except InvalidNumberError:
            continue


@pytest.mark.parametrize("text", ["0", "6", "10", "9" * 5000])
def test_a_number_out_of_bounds_is_refused_with_the_bounds(text: str) -> None:
    with pytest.raises(InvalidNumberError, match=r"is not a whole number from 1 to 5$"):
        parse_integer(text, 1, 5)


@pytest.mark.parametrize("value", [True, False, 5.0, "5", None, b"5", math.nan, 0, 6, 10**4000, -1])
def test_an_argument_is_an_int_within_bounds(value: object) -> None:
    with pytest.raises(InvalidNumberError, match="is not a whole number from 1 to 5"):
        check_integer(value, 1, 5)


@pytest.mark.parametrize("value", [True, "5", None, math.nan, math.inf, -math.inf, 0.99, 5.01, 10**4000])
def test_an_argument_of_seconds_is_a_finite_number_within_bounds(value: object) -> None:
    with pytest.raises(InvalidNumberError, match="is not a number of seconds from 1 to 5"):
        check_seconds(value, 1, 5)


def test_numbers_within_bounds_are_taken() -> None:
    assert (check_integer(5, 1, 5), check_seconds(5, 1, 5), check_seconds(1.5, 1, 5)) == (5, 5, 1.5)
    assert (parse_integer("5", 1, 5), parse_seconds("5", 1, 5), parse_seconds("1.50", 1, 5)) == (5, 5.0, 1.5)


def test_a_long_value_is_shortened_in_messages() -> None:
    assert shown("9" * 5000) == "'" + "9" * 40 + "'... (5000 characters)"
    assert len(shown(10**5000)) < 50


ROOT = Path(__file__).parents[4]
CONVERSIONS = {
    "kvstore/backup/file.py": {"int(self.digest, 16)"},  # of a file whose checksum covers it
    "kvstore/cli/command_supervisor.py": {  # of the command that starts it, and of /proc
        *("float(end)", "float(notice)", "int(number)", "int(process_session)", "int(parent)"),
        *("int(path.parent.name)", "int(sys.argv[1])", "float(sys.argv[2])"),
    },
    "kvstore/cli/supervised_command.py": {"int(number)"},  # of a signal
    "kvstore/cli/replica_load.py": {"float(bucket.labels['le'])", "int(sample.value)"},  # numbers of Prometheus
    "kvstore/server/http/body_rules.py": {"int(digits)"},  # RFC 9110 allows leading zeros
    "kvstore/testing/fork_server.py": {"int(path.name)"},
    "kvstore/testing/replica_status.py": {"int(status.ballot.partition('.')[0])"},
    "storage/lock_record.py": {"int(line)"},
    "storage/manifest.py": {"int(digest)"},
}
"""The conversions of text outside of the parser, each of text that a program of this project wrote or checked."""


def test_no_other_module_makes_numbers_of_text() -> None:
    """`int` and `float` take spellings that are typing errors. When it fails: use `kvstore.api.numbers`."""
    found = {
        str(path.relative_to(ROOT)): {
            ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if _converts_text(node)
        }
        for package in ("kvstore", "storage")
        for path in (ROOT / package).rglob("*.py")
    }
    del found["kvstore/api/numbers.py"]
    assert {name: left for name, calls in found.items() if (left := calls - CONVERSIONS.get(name, set()))} == {}


def _converts_text(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name("int" | "float"), args=[ast.Constant() | ast.BinOp() | ast.Compare(), *_]):
            return False
        case ast.Call(func=ast.Name("int"), args=[ast.Call(func=ast.Name("any")) | ast.Name("match")]):
            return False
        case ast.Call(func=ast.Name("int"), args=[ast.Call(func=ast.Attribute(attr="time"))]):
            return False
        case ast.Call(func=ast.Name("int"), args=[ast.Attribute(attr="exists")]):
            return False
        case ast.Call(func=ast.Name("int" | "float")):
            return True
        case _:
            return False
