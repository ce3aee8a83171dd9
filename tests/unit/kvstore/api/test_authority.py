"""Hosts with an optional port. `test_address.py` has the texts that are refused wherever a port must be given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.authority import Authority, parse_authority

TAKEN = {
    "a": ("a", None),
    "A.b:80": ("a.b", 80),
    "a.b.:80": ("a.b.", 80),
    "[::1]": ("::1", None),
    "[::1]:": ("::1", None),
    "[::0001]:443": ("::1", 443),
    "[fe80::1%eth0]": ("fe80::1%eth0", None),
    "1.2.3.4:": ("1.2.3.4", None),
}


@pytest.mark.parametrize(("text", "form"), TAKEN.items())
def test_an_authority_is_taken_in_its_one_form(text: str, form: tuple[str, int | None]) -> None:
    assert parse_authority(text) == form
    assert parse_authority(str(parse_authority(text))) == form


@pytest.mark.parametrize("text", ["", ":80", "a b", "a@b", "[::1", "[::1]80", "[n1]", "a:0", "a:99999", "127.1", "*.a"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is missing|is no|is not|must follow"):
        parse_authority(text)


@pytest.mark.parametrize(("host", "is_address"), [("1.2.3.4", True), ("::1", True), ("n1", False)])
def test_an_address_is_told_from_a_name(host: str, is_address: bool) -> None:
    assert Authority(host, 1).is_address is is_address


@given(st.text())
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        parse_authority(text)
    except ValueError:
        return
