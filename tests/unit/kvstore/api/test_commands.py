import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvstore.api.commands import Bundle, Command, Delete, Put, pack_bundle, unpack_bundle

numbers = st.integers(1, 2**62)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Put, st.binary(max_size=20), st.binary(max_size=20)), st.builds(Delete, st.binary(max_size=20))
)
bundles = st.builds(Bundle, st.text(max_size=8), numbers, numbers, numbers, st.lists(commands, max_size=5))


@given(bundles)
def test_a_bundle_is_unpacked_as_it_was_packed(bundle: Bundle) -> None:
    assert unpack_bundle(pack_bundle(bundle)) == bundle


@given(st.binary(max_size=60))
@example(b"\x95\xa2\xff\xfe\x01\x01\x01\x90")
def test_other_bytes_are_a_bundle_or_a_decode_error(data: bytes) -> None:
    try:
        bundle = unpack_bundle(data)
    except msgspec.DecodeError:
        return
    assert isinstance(bundle, Bundle)


@pytest.mark.parametrize(
    "bundle",
    [Bundle("n1", 0, 1, 1, []), Bundle("n1", 1, 0, 1, []), Bundle("n1", 1, 1, 0, [])],
)
def test_a_request_id_counts_from_one(bundle: Bundle) -> None:
    with pytest.raises(msgspec.DecodeError):
        unpack_bundle(pack_bundle(bundle))
