"""Do all replicas hold the same state? They compare digests of it, as of the same slots (rule 24).

      leader                others
        | DigestRequest(slot, digest) |
        |---------------------->|
        |DigestReply(slot, digest) |
        |<----------------------|      a majority agrees on one digest:
        | DigestMismatch(slot, digest)|      whoever has another one holds what the log does not say
        |---------------------->|

The state is a function of the log: a difference is a bug, a broken memory, or damage that no checksum saw. The minority
takes its data for damaged. Where no majority says who is right, the leader ends: it must not answer what may be wrong.
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

EVERY_SLOTS = 16
"""Digests are taken at slots that this divides."""
KEPT = 64
"""Digests that are kept to be compared with those of peers that lag or lead."""
EVERY_MS = 1000
"""How often a leader compares."""
PATIENCE = 5
"""Comparisons in a row that may differ without a majority, while answers are on their way."""

_encode = msgspec.msgpack.Encoder().encode


class DivergenceCheck:
    """Of one replica, whether it leads or not."""

    def __init__(self, node: NodeId) -> None:
        self._node = node
        self._digests: dict[Slot, bytes] = {}
        self._asked_at: Time = 0
        self._slot: Slot = 0
        self._answers: dict[NodeId, bytes] = {}
        self._undecided = 0

    def note(self, progress: AppliedProgress) -> None:
        """The state as of a slot."""
        self._digests[progress.applied] = blake2b(_encode(progress), digest_size=CHAIN_BYTES).digest()
        if len(self._digests) > KEPT:
            del self._digests[next(iter(self._digests))]

    def due(self, membership: Membership, now: Time) -> DigestRequest | None:
        """What a leader asks the others now. Raises StorageError when nobody can tell who was right the last time."""
        newest = next(reversed(self._digests), 0)
        if now < self._asked_at + EVERY_MS * MS or newest in {0, self._slot}:
            return None
        self._judge_last(membership)
        self._asked_at, self._slot = now, newest
        self._answers = {self._node: self._digests[newest]}
        return DigestRequest(newest, self._digests[newest])

    def receive(
        self, sender: NodeId, message: DigestRequest | DigestReply | DigestMismatch, membership: Membership
    ) -> list[Envelope]:
        """What to answer, and to whom. Raises DamagedError when a majority holds something else than this replica."""
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
        verdict = DigestMismatch(self._slot, right)
        self._check(verdict)
        return [Envelope(node, verdict) for node, digest in self._answers.items() if digest != right]

    def _check(self, message: DigestMismatch) -> None:
        own = self._digests.get(message.slot, message.digest)
        if own != message.digest:
            raise DamagedError(
                f"the state as of slot {message.slot} is not that of a majority of the replicas "
                f"(digest {own.hex()}, not {message.digest.hex()})"
            )

    def _majority(self, membership: Membership) -> bytes | None:
        voters = [member.name for member in membership.members if member.role is MemberRole.VOTER]
        held = Counter(digest for node, digest in self._answers.items() if node in voters)
        right, count = max(held.items(), key=lambda one: one[1], default=(b"", 0))
        return right if 2 * count > len(voters) else None

    def _judge_last(self, membership: Membership) -> None:
        differ = len(set(self._answers.values())) > 1 and self._majority(membership) is None
        self._undecided = self._undecided + 1 if differ else 0
        if self._undecided > PATIENCE:
            raise StorageError(
                f"the replicas hold different states as of slot {self._slot}, and no majority says which is right: "
                "start those that are missing, and then this one again"
            )
