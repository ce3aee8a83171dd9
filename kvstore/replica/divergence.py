"""Divergence check: replicas compare digests of their states as of the same slots (rule 24).

      leader                         others
        | DigestRequest(slot, digest)  |
        |----------------------------->|
        |   DigestReply(slot, digest)  |
        |<-----------------------------|     a majority has the same digest:
        | DigestMismatch(slot, digest) |     a replica with another digest has diverged
        |----------------------------->|

The state is a function of the log, so a difference is a bug, broken memory, or damage that no checksum found. A
replica in the minority treats its data as damaged. If no digest has a majority, the leader ends its process, because
its answers may be wrong.
"""

from collections import Counter
from hashlib import blake2b
from typing import assert_never

import msgspec

from kvstore.api.membership import MemberRole, Membership
from paxos.messages import DigestMismatch, DigestReply, DigestRequest
from paxos.ready import Envelope
from paxos.types import MS, NodeId, Slot, Time
from storage.base import CHAIN_BYTES, AppliedProgress, DamagedError, StorageError

DIGESTS = (DigestRequest, DigestReply, DigestMismatch)
"""Types of the messages of this check."""
EVERY_SLOTS = 16
"""Interval, in slots, at which digests are taken."""
MAX_DIGESTS = 64
"""Number of digests that are kept, because peers may lag or be ahead."""
EVERY_MS = 1000
"""Interval at which the leader sends a DigestRequest."""
MAX_UNDECIDED = 5
"""Consecutive rounds in which the digests may differ without a majority: a few late answers are normal."""

_encode = msgspec.msgpack.Encoder().encode


class DivergenceCheck:
    """The digests of one replica, and on the leader the answers of the other replicas."""

    def __init__(self, node: NodeId) -> None:
        self._node = node
        self._digests: dict[Slot, bytes] = {}
        self._asked_at: Time = 0
        self._slot: Slot = 0
        self._answers: dict[NodeId, bytes] = {}
        self._undecided = 0

    def note(self, progress: AppliedProgress) -> None:
        """Record the digest of the state that `progress` describes."""
        self._digests[progress.applied] = blake2b(_encode(progress), digest_size=CHAIN_BYTES).digest()
        if len(self._digests) > MAX_DIGESTS:
            del self._digests[next(iter(self._digests))]

    def due(self, membership: Membership, now: Time) -> DigestRequest | None:
        """Return the request that the leader sends now, or None. Raise StorageError when the digests have differed
        without a majority in more than MAX_UNDECIDED rounds."""
        newest = next(reversed(self._digests), 0)
        if now < self._asked_at + EVERY_MS * MS or newest in {0, self._slot}:
            return None
        self._finish_round(membership)
        self._asked_at, self._slot = now, newest
        self._answers = {self._node: self._digests[newest]}
        return DigestRequest(newest, self._digests[newest])

    def receive(
        self, sender: NodeId, message: DigestRequest | DigestReply | DigestMismatch, membership: Membership
    ) -> list[Envelope]:
        """Handle a message, and return the answers. Raise DamagedError when a majority has another digest than this
        replica."""
        match message:
            case DigestRequest(slot=slot):
                digest = self._digests.get(slot)
                return [Envelope(sender, DigestReply(slot, digest))] if digest is not None else []
            case DigestReply():
                return self._count(sender, message, membership)
            case DigestMismatch():
                self._check(message)
                return []
            case _:
                assert_never(message)

    def _count(self, sender: NodeId, message: DigestReply, membership: Membership) -> list[Envelope]:
        if message.slot != self._slot:
            return []
        self._answers[sender] = message.digest
        right = self._majority(membership)
        if right is None:
            return []
        mismatch = DigestMismatch(self._slot, right)
        self._check(mismatch)
        return [Envelope(node, mismatch) for node, digest in self._answers.items() if digest != right]

    def _check(self, message: DigestMismatch) -> None:
        own = self._digests.get(message.slot, message.digest)
        if own != message.digest:
            raise DamagedError(
                f"the state as of slot {message.slot} differs from that of a majority of the replicas "
                f"(digest {own.hex()}, not {message.digest.hex()})"
            )

    def _majority(self, membership: Membership) -> bytes | None:
        voters = [member.name for member in membership.members if member.role is MemberRole.VOTER]
        counts = Counter(digest for node, digest in self._answers.items() if node in voters)
        right, count = max(counts.items(), key=lambda item: item[1], default=(b"", 0))
        return right if 2 * count > len(voters) else None

    def _finish_round(self, membership: Membership) -> None:
        differ = len(set(self._answers.values())) > 1 and self._majority(membership) is None
        self._undecided = self._undecided + 1 if differ else 0
        if self._undecided > MAX_UNDECIDED:
            raise StorageError(
                f"the replicas have different states as of slot {self._slot}, and no state has a majority: start the "
                "missing replicas, then start this one again"
            )
