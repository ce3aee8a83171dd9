"""The request ids of the batches that were applied. They are a part of the state that is not in records (rule 22)."""

import msgspec

from kvstore.api.commands import CommandBatch


class Origin:
    """The batches of one node that were applied: all below `settled`, and those in `applied`."""

    def __init__(self, boot: int, settled: int = 1, applied: tuple[int, ...] = ()) -> None:
        self.boot = boot
        self.settled = settled
        self.applied = set(applied)

    def admit(self, sequence: int, settled_below: int) -> bool:
        """Record a batch as applied. Return False if it was applied before."""
        if sequence < self.settled or sequence in self.applied:
            return False
        self.applied.add(sequence)
        while self.settled < settled_below:
            self.applied.discard(self.settled)
            self.settled += 1
        return True


class _PackedOrigin(msgspec.Struct, frozen=True, array_like=True):
    node: str
    boot: int
    settled: int
    applied: tuple[int, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_PackedOrigin])


class RequestIds:
    """The request ids of all nodes."""

    def __init__(self) -> None:
        self.origins: dict[str, Origin] = {}

    def admit(self, batch: CommandBatch) -> bool:
        """Record a batch as applied. Return False if it was applied before or comes from an earlier process of its
        origin."""
        origin = self.origins.get(batch.origin)
        if origin is None or origin.boot < batch.boot:
            origin = self.origins[batch.origin] = Origin(batch.boot)
        return batch.boot == origin.boot and origin.admit(batch.sequence, batch.settled_below)

    def pack(self) -> bytes:
        """Return the stored form."""
        return _encoder.encode(
            [
                _PackedOrigin(node, origin.boot, origin.settled, tuple(sorted(origin.applied)))
                for node, origin in sorted(self.origins.items())
            ]
        )

    def unpack(self, packed: bytes) -> None:
        """Load the result of `pack`. Raises msgspec.DecodeError for other bytes."""
        self.origins = {
            origin.node: Origin(origin.boot, origin.settled, origin.applied) for origin in _decoder.decode(packed)
        }
