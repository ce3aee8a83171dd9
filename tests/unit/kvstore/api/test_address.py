import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.address import (
    Address,
    InvalidAddressError,
    loopback_warnings,
    parse_address,
    parse_base_url,
    parse_base_urls,
    parse_peer_address,
)

TAKEN = {
    "127.0.0.1:9001": "127.0.0.1:9001",
    "[::1]:9001": "[::1]:9001",
    "[0:0:0:0:0:0:0:1]:9001": "[::1]:9001",
    "[FE80::1%eth0]:9001": "[fe80::1%eth0]:9001",
    "LocalHost:9001": "localhost:9001",
    "localhost.:9001": "localhost:9001",  # a resolver would ask DNS for it
    " kv-1.example.com:9001\r\n": "kv-1.example.com:9001",
    "\u00a0n1:9001": "n1:9001",  # copied from a mail
    "kv_store_1:65535": "kv_store_1:65535",
    "host.:1": "host.:1",
}

REFUSED = {
    "": "the host is missing",
    ":9001": "the host is missing",
    "localhost": "the port is missing",
    "localhost:": "the port is missing",
    "[::1]": "the port is missing",
    "[::1]9001": "a colon must follow the bracket",
    "[::1:9001": "the bracket ] is missing",
    "[n1]:9001": "'n1' is no IPv6 address",
    "[]:9001": "'' is no IPv6 address",
    "::1:9001": "written in brackets",
    "fe80::1": "written in brackets",
    "n1:0": "the port '0' is not a whole number from 1 to 65535",
    "n1:70000": "the port '70000' is not",
    "n1:09001": "the port '09001' is not",
    "n1:+9001": "the port '+9001' is not",
    "n1:9_001": "the port '9_001' is not",
    "n1:٣": "the port '٣' is not",
    "n1:9001/": "the port '9001/' is not",
    "n1:9001?x": "the port '9001?x' is not",
    "n1:9001\u200b": "the port '9001\\u200b' is not",
    "http://n1:9001": "leave http:// away",
    "tcp://n1:9001": "leave tcp:// away",
    "n1:9001,n2:9001": "more than one colon",
    "u@n1:9001": "'u@n1' is no name of a host",
    "n 1:9001": "'n 1' is no name of a host",
    "-n1:9001": "'-n1' is no name of a host",
    "n1..example:9001": "is no name of a host",
    "*:9001": "'*' is no name of a host",
    "10.0.0.256:9001": "'10.0.0.256' is no IPv4 address",
    "10.0.1:9001": "'10.0.1' is no IPv4 address",
    "010.0.0.1:9001": "'010.0.0.1' is no IPv4 address",
    "167772161:9001": "'167772161' is no IPv4 address",
    "0x7f000001:9001": "'0x7f000001' is no IPv4 address",
    "bücher.example:9001": "write the host in ASCII, xn--bcher-kva.example",
    "“n1:9001”": "is no name of a host",
    "n" * 300 + ":9001": "is too long",
}


@pytest.mark.parametrize(("text", "form"), TAKEN.items())
def test_an_address_is_taken_in_its_one_form(text: str, form: str) -> None:
    assert str(parse_address(text)) == str(parse_peer_address(text)) == form


@pytest.mark.parametrize(("text", "why"), REFUSED.items())
def test_another_text_is_refused_with_the_reason_and_the_form(text: str, why: str) -> None:
    with pytest.raises(InvalidAddressError) as raised:
        parse_address(text)
    assert why in str(raised.value)
    assert "write host:port with a port of 1 to 65535, like 127.0.0.1:9001" in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("text", ["0.0.0.0:9001", "[::]:9001", "[::ffff:0.0.0.0]:9001", "239.0.0.1:9001"])
def test_an_address_to_listen_on_is_none_to_connect_to(text: str) -> None:
    parse_address(text)
    with pytest.raises(InvalidAddressError, match="no address to connect to, only one to listen on"):
        parse_peer_address(text)


URLS = {
    "http://127.0.0.1:8001": "http://127.0.0.1:8001",
    "HTTP://LocalHost:8001/": "http://localhost:8001",
    " http://n1:8001\n": "http://n1:8001",
    "http://[::1]:8001": "http://[::1]:8001",
    "http://localhost.:8001": "http://localhost:8001",
    "http://[::1]": "http://[::1]",
    "http://kv.example.com": "http://kv.example.com",
    "https://kv.example.com/": "https://kv.example.com",
}

NO_URLS = {
    "": "http:// or https:// must precede",
    "127.0.0.1:8001": "http:// or https:// must precede",
    "localhost": "http:// or https:// must precede",
    "//n1:8001": "http:// or https:// must precede",
    "http:/n1:8001": "http:// or https:// must precede",
    "ftp://n1:8001": "http:// or https:// must precede",
    "“http://n1:8001”": "http:// or https:// must precede",
    "http://": "the host is missing",
    "http://:8001": "the host is missing",
    "http://n1:": "the port is missing",
    "http://n1:0": "the port '0' is not",
    "http://n1:08001": "the port '08001' is not",
    "http://n1:8001/kv": "leave '/kv' away",
    "http://n1:8001?x=1": "leave '?x=1' away",
    "http://n1:8001#x": "leave '#x' away",
    "http://n1:8001;http://n2:8001": "leave '//n2:8001' away",
    "http://n1:8001 http://n2:8001": "leave '//n2:8001' away",
    "http://::1:8001": "written in brackets",
    "http://0.0.0.0:8001": "nothing connects",
    "http://[::]:8001": "nothing connects",
    "http://10.0.0.256:8001": "is no IPv4 address",
    "http://bücher.example:8001": "xn--bcher-kva.example",
}


@pytest.mark.parametrize(("text", "form"), URLS.items())
def test_a_base_url_is_taken_in_its_one_form(text: str, form: str) -> None:
    assert parse_base_url(text) == form


@pytest.mark.parametrize(("text", "why"), NO_URLS.items())
def test_no_base_url_is_refused_with_the_reason_and_the_form(text: str, why: str) -> None:
    with pytest.raises(InvalidAddressError) as raised:
        parse_base_url(text)
    assert why in str(raised.value)
    assert "write http://host:port, like http://127.0.0.1:8001" in str(raised.value)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidAddressError, match="no user name") as raised:
        parse_base_url("http://admin:hunter2@n1:8001")
    assert "hunter2" not in str(raised.value)


def test_a_base_url_given_twice_counts_once() -> None:
    assert parse_base_urls(["http://n1:1", "http://N1:1/", "http://n2:1"]) == ("http://n1:1", "http://n2:1")


@pytest.mark.parametrize(("urls", "why"), [([], "at least one endpoint"), ("http://n1:1", "give a list"), ("", "list")])
def test_a_list_of_base_urls_has_one_at_least(urls: list[str], why: str) -> None:
    with pytest.raises(InvalidAddressError, match=why):
        parse_base_urls(urls)


@given(st.text())
def test_any_text_is_taken_or_refused(text: str) -> None:
    for parse in (parse_address, parse_peer_address, parse_base_url):
        try:
            parse(text)
        except InvalidAddressError:
            continue


def test_addresses_of_one_listener_are_the_same() -> None:
    same = [("localhost", "127.0.0.1"), ("127.0.0.1", "::ffff:127.0.0.1"), ("n1", "n1")]
    assert all(Address(one, 1).is_same(Address(other, 1)) for one, other in same)
    assert not Address("n1", 1).is_same(Address("n2", 1))
    assert not Address("n1", 1).is_same(Address("n1", 2))
    assert Address("0.0.0.0", 1).overlaps(Address("n1", 1))
    assert not Address("0.0.0.0", 1).overlaps(Address("n1", 2))


def test_a_loopback_address_beside_others_is_warned_about() -> None:
    here, there = Address("localhost", 9001), Address("10.0.0.2", 9001)
    assert loopback_warnings({"n1": here, "n2": Address("127.0.0.1", 9002)}) == []
    assert loopback_warnings({"n1": there}) == []
    (warning,) = loopback_warnings({"n1": here, "n2": there})
    assert "n1=localhost:9001" in warning
