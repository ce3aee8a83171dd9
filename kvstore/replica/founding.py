"""The founding of a cluster: the first start of replicas with empty or restored data directories (rule 30).

An empty directory belongs either to a new cluster or to a member that has lost its data. Only the other members can
tell the two cases apart, so all of them are asked, not a majority:

    1. Each replica without a membership sends the incarnation of its data to the other founding members.
    2. The member with the lowest name knows the incarnations of all members, and agrees to this list. The other members
       agree to the same list if it has their own incarnation. An agreement is durable, and is never withdrawn.
    3. A replica that knows the agreement of every member on the list has founded the cluster: its membership begins
       with these members and incarnations, and it takes part in the protocol.

Once any replica has founded the cluster, every member on the list has agreed to it and agrees to no other list with the
same data. A member that loses its data gets a new incarnation, which is on no list to which the other members agree, so
it never founds a second cluster while one other founding member has its data. Members that were added later are not
asked: the settings of the founding members do not name them.

A founding member that is absent on purpose (setting `bootstrap_without`) is not asked. It is not a voter at first: it
joins like any later member, by a snapshot.

Directories that were restored from a backup are founded in the same way (rule 31). Until then the restored state is
only staged, and its replica is one without data that also tells the mark of the state. All members on a list have the
same mark: the empty one, or that of one restored state. The founding completes the staged state, and the log of the
cluster begins after the slot of that state. A restored replica that is on no list joins a cluster like a replica
without data: the state of the cluster takes the place of the restored one.
"""

from collections.abc import Collection
from typing import NamedTuple

from msgspec.structs import replace

from kvstore.api.membership import MembershipVersion, configurations_of, founded
from kvstore.replica.checkpointer import Checkpointer
from paxos.messages import FoundingState
from paxos.ready import Envelope, Write
from paxos.replica import Replica
from paxos.types import MS, NodeId, Time
from storage.base import Founding, StateWrite, Storage

REPEAT_MS = 100
"""Interval at which a replica without a membership sends its state to the other founding members."""


class FoundingPlan(NamedTuple):
    """The founding members in the settings; none for a replica that joins a cluster."""

    members: Collection[NodeId] = ()
    absent: Collection[NodeId] = ()
    """Members that do not take part in the founding (setting `bootstrap_without`). They join the cluster later."""


def founding_memberships(founding: Founding | None) -> list[MembershipVersion]:
    """Return the first membership of a cluster, or none while the founding is not complete."""
    return founded(founding.members, founding.absent) if founding is not None and founding.complete else []


class FoundingManager:
    """The part of one replica in the founding of a cluster."""

    def __init__(self, plan: FoundingPlan, storage: Storage, checkpointer: Checkpointer, replica: Replica) -> None:
        """Continue from the stored agreement. If no other member takes part, found the cluster at once."""
        recovered = storage.recovered()
        self._node = recovered.identity.node
        self._incarnation = recovered.identity.incarnation
        self._absent = tuple(sorted(plan.absent))
        self._present = sorted(set(plan.members) - set(plan.absent))
        self._others = sorted(set(plan.members) - {self._node})
        self._checkpointer = checkpointer
        self._replica = replica
        self._agreed = recovered.founding
        self._submitted = recovered.founding
        """The agreement that is stored, or on its way to the disk."""
        self._heard: dict[NodeId, FoundingState] = {}
        """The last state of each member, of its newest data."""
        self._due: Time = 0
        if self._present == [self._node] and (write := self.write()) is not None:
            storage.write([write])
            self.stored(write, 0)

    @property
    def pending(self) -> bool:
        """True on a founding member that has no membership yet."""
        return self._node in self._present and not self._checkpointer.applier.machine.memberships

    @property
    def restored(self) -> str:
        """Mark of the restored state with which the data of this replica begins, empty for new data."""
        return (self._checkpointer.restored or self._checkpointer.applier).restored

    @property
    def unlike(self) -> dict[NodeId, str]:
        """Marks of the members whose data begins with another state than that of this replica, by name. They found no
        cluster with this replica. Empty unless the founding is pending."""
        if not self.pending:
            return {}
        own = self.restored
        heard = {name: self._heard[name] for name in self._present if name in self._heard}
        return {name: state.restored for name, state in heard.items() if not state.founded and state.restored != own}

    @property
    def provides_state(self) -> bool:
        """True if the founding to which this replica has agreed will complete its restored state. No snapshot may take
        the place of that state, unless a replica belongs to a cluster that was founded otherwise."""
        submitted = self._submitted
        if submitted is None or self._checkpointer.restored is None:
            return False
        return submitted.complete or not any(
            state.founded and not _is_of(state, submitted) for state in self._heard.values()
        )

    @property
    def awaited(self) -> list[NodeId]:
        """Members without whose answer the founding does not continue; empty unless it is pending."""
        if not self.pending:
            return []
        if self._agreed is None:
            silent = [name for name in self._present if name != self._node and not self._is_new(name)]
            # Without a silent member, this replica waits for the list of the member with the lowest name, which may
            # wait for a member that is absent in the settings of this replica.
            return silent or [name for name in self._present[:1] if name != self._node]
        return [name for name, incarnation in self._agreed.members if not self._agrees(name, incarnation, self._agreed)]

    def receive(self, sender: NodeId, message: FoundingState, now: Time) -> list[Envelope]:
        """Handle the state of `sender`. Return the answer to it, if this replica knows the membership."""
        if not self.pending:
            known = bool(self._checkpointer.applier.machine.memberships)
            return [Envelope(sender, self._state())] if known and not message.founded else []
        before = self._heard.get(sender)
        if before is not None and before.incarnation == message.incarnation and _stage(message) <= _stage(before):
            return []  # repeated, or delayed
        self._heard[sender] = message
        self._due = now
        return []

    def announcements(self, now: Time) -> list[Envelope]:
        """Return the messages that are due to the other founding members."""
        if not self.pending or now < self._due:
            return []
        self._due = now + REPEAT_MS * MS
        return [Envelope(name, self._state()) for name in self._others]

    def next_deadline(self) -> Time | None:
        """Return the time of the next announcement, or None."""
        return self._due if self.pending else None

    def write(self) -> StateWrite | None:
        """Return the agreement to store now, or None."""
        if not self.pending:
            return None
        founding = self._agreed or self._proposed() or self._own()
        if founding is None or founding.restored != self.restored:
            return None
        founding = replace(founding, complete=self._is_complete(founding))
        if founding == self._submitted:
            return None
        self._submitted = founding
        restored = self._checkpointer.restored
        if restored is None or not founding.complete:
            return StateWrite(founding=founding)
        restored.machine.memberships = founded(founding.members, founding.absent, after=restored.applied)
        return StateWrite(founding=founding, staged=self._checkpointer.completion(restored))

    def stored(self, write: Write, now: Time) -> bool:
        """Note that `write` is durable. Return True if the membership of this replica begins with it."""
        if not isinstance(write, StateWrite) or write.founding is None:
            return False
        self._agreed = write.founding
        self._due = now
        if not (self.pending and write.founding.complete):
            return False
        restored = self._checkpointer.restored
        if restored is not None:
            self._checkpointer.replace(restored)
        else:
            self._checkpointer.applier.machine.memberships = founding_memberships(write.founding)
        applier = self._checkpointer.applier
        self._replica.begin(applier.applied, configurations_of(applier.machine.memberships))
        return True

    def _state(self) -> FoundingState:
        known = bool(self._checkpointer.applier.machine.memberships)
        agreed = self._agreed if self._agreed is not None and self._agreed.complete >= known else None
        if agreed is None:
            return FoundingState(self._incarnation, (), (), known, self.restored)
        return FoundingState(self._incarnation, agreed.members, agreed.absent, known, agreed.restored)

    def _is_new(self, name: NodeId) -> bool:
        """Return True if the newest data of `name` has no membership and no agreement, and begins with the same state
        as that of this replica."""
        state = self._heard.get(name)
        return state is not None and _stage(state) == (False, False) and state.restored == self.restored

    def _own(self) -> Founding | None:
        """Return the list of this replica, if it has the lowest name and knows that all members are without a cluster
        and begin with the same state."""
        others = [name for name in self._present if name != self._node]
        if self._node != self._present[0] or not all(map(self._is_new, others)):
            return None
        members = {name: self._heard[name].incarnation for name in others} | {self._node: self._incarnation}
        return Founding(tuple(sorted(members.items())), self._absent, restored=self.restored)

    def _proposed(self) -> Founding | None:
        """Return a list to which another member has agreed, if it has this replica's data."""
        for state in self._heard.values():
            names = {name for name, _ in state.members}.union(state.absent)
            if (self._node, self._incarnation) in state.members and names == {*self._others, self._node}:
                return Founding(state.members, state.absent, restored=state.restored)
        return None

    def _is_complete(self, founding: Founding) -> bool:
        return all(
            name == self._node or self._agrees(name, incarnation, founding) for name, incarnation in founding.members
        ) or any(state.founded and _is_of(state, founding) for state in self._heard.values())

    def _agrees(self, name: NodeId, incarnation: int, founding: Founding) -> bool:
        state = self._heard.get(name)
        if name == self._node:
            return True
        return state is not None and state.incarnation == incarnation and _is_of(state, founding)


def _is_of(state: FoundingState, founding: Founding) -> bool:
    return (state.members, state.absent, state.restored) == (founding.members, founding.absent, founding.restored)


def _stage(state: FoundingState) -> tuple[bool, bool]:
    return state.founded, bool(state.members)
