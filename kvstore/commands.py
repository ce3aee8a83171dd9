"""What a log entry can ask of the state machine, what it answers, and the binary form of both.

A replica gathers the commands of its clients in bundles. A bundle is packed once, where it was made; it travels and is
stored as opaque bytes and is unpacked once on each replica, when it is applied.
"""

from typing import Annotated

import msgspec

from kvstore.members import Roster


class Put(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Set `key` to `value`."""

    key: bytes
    value: bytes


class Delete(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Remove `key`."""

    key: bytes


class Reconfigure(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Make `roster` the members of the cluster."""

    roster: Roster


KeyCommand = Put | Delete
Command = KeyCommand | Reconfigure


class PutResult(msgspec.Struct, frozen=True, gc=False):
    """`version` counts the puts of this key since it was created, from 1; 1 therefore means: new."""

    revision: int
    version: int


class DeleteResult(msgspec.Struct, frozen=True, gc=False):
    """`revision` of the deletion; what was deleted had `version` and had last been written at `deleted_revision`."""

    revision: int
    version: int
    deleted_revision: int


class NotFound(msgspec.Struct, frozen=True, gc=False):
    """The key to delete is absent; `revision` is the store's present one."""

    revision: int


class Reconfigured(msgspec.Struct, frozen=True, gc=False):
    """The members are those of `roster` from slot `first` on."""

    roster: Roster
    first: int


class NotReconfigured(msgspec.Struct, frozen=True, gc=False):
    """The members stay as they are; `why` is for people."""

    why: str


KeyResult = PutResult | DeleteResult | NotFound
Result = KeyResult | Reconfigured | NotReconfigured


class Bundle(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Commands that one replica took from its clients, applied once however often they are ordered.

    (`origin`, `boot`, `sequence`) is the request id: the node and its incarnation, its start count, and a number that
    grows by one for each bundle. `settled_below`: the origin will never repeat a bundle below this number, its fate may
    be forgotten.
    """

    origin: str
    boot: Annotated[int, msgspec.Meta(ge=1)]
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    settled_below: Annotated[int, msgspec.Meta(ge=1)]
    commands: list[Command]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Bundle)


def pack_bundle(bundle: Bundle) -> bytes:
    """Bytes of a bundle."""
    return _encoder.encode(bundle)


def unpack_bundle(data: bytes) -> Bundle:
    """The bundle in `data`. Raises msgspec.DecodeError on anything else: such bytes were never proposed by us."""
    try:
        return _decoder.decode(data)
    except UnicodeDecodeError as error:  # msgspec's own errors do not cover it
        raise msgspec.DecodeError(f"malformed name: {error}") from error
