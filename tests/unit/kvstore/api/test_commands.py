from typing import get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvstore.api.commands import Command, CommandBatch, Delete, IdempotentResult, Put, Record, pack_batch, unpack_batch

numbers = st.integers(1, 2**62)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Put, st.binary(max_size=20), st.binary(max_size=20)), st.builds(Delete, st.binary(max_size=20))
)
batches = st.builds(CommandBatch, st.text(max_size=8), numbers, numbers, numbers, st.lists(commands, max_size=5))


@given(batches)
def test_a_batch_is_unpacked_as_it_was_packed(batch: CommandBatch) -> None:
    assert unpack_batch(pack_batch(batch)) == batch


@given(st.binary(max_size=60))
@example(b"\x95\xa2\xff\xfe\x01\x01\x01\x90")
def test_other_bytes_are_a_batch_or_a_decode_error(data: bytes) -> None:
    try:
        batch = unpack_batch(data)
    except msgspec.DecodeError:
        return
    assert isinstance(batch, CommandBatch)


@pytest.mark.parametrize(
    "batch",
    [CommandBatch("n1", 0, 1, 1, []), CommandBatch("n1", 1, 0, 1, []), CommandBatch("n1", 1, 1, 0, [])],
)
def test_a_request_id_counts_from_one(batch: CommandBatch) -> None:
    with pytest.raises(msgspec.DecodeError):
        unpack_batch(pack_batch(batch))


STORED_COMMANDS = """
    Acquire Delete DeleteSpan Expire Grant KeepAlive Lead LeasedPut Once Put Reconfigure Release Revoke Transact
"""
STORED_RESULTS = """
    AnswerNotKept revision
    Busy lease fence
    DeleteResult revision version deleted_revision
    Found key record lease
    Granted lease ttl_ms
    KeyExpired
    KeyReused
    LeaseEnded revision deleted
    LeaseFull lease
    Listed found more
    NoSuchLease lease
    NotFound revision
    NotHeld
    Placed lease fence held
    PutResult revision version
    Released revision
    Said done
    SpanDeleted revision deleted more
    TooManyKeys
    Transacted succeeded revision results
"""
STORED_RECORD = "value revision create_revision version number"


def test_the_stored_form_of_commands_and_results_is_the_same_in_every_release() -> None:
    assert sorted(kind.__struct_config__.tag for kind in get_args(Command)) == STORED_COMMANDS.split()
    results = {kind.__struct_config__.tag: list(kind.__struct_encode_fields__) for kind in get_args(IdempotentResult)}
    assert results == {line.split()[0]: line.split()[1:] for line in STORED_RESULTS.strip().splitlines()}
    assert list(Record.__struct_encode_fields__) == STORED_RECORD.split()
