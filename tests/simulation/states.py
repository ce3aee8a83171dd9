"""The whole state of a replica, compared with the log: everything that its clients, its peers and its next process may
ever see of it."""

from kvstore.api.key_range import EVERY_KEY
from kvstore.replica.node import Node
from kvstore.state_machine.history import KeyChange
from kvstore.state_machine.state_machine import StateMachine
from paxos.types import Slot
from tests.simulation.model import ModelChange, is_internal
from tests.simulation.reference import Reference


def check_state(node: Node, reference: Reference) -> None:
    """Compare all of the state of `node` with what the log up to its applied slot says."""
    machine, state = node.machine, reference.state(node.applied)
    if node._checkpointer.applier.membership_only:
        check_witness(node, reference)
        return
    records = reference.model.records(state.position)
    clients = {key: record for key, record in records.items() if not is_internal(key)}
    found = {key: record for key in {*machine.records, *clients} if (record := machine.shown(key)) is not None}
    assert found == clients, f"{node.id} has other records than slot {node.applied}"
    assert machine.shown_position == state.position, f"{node.id} is at another position than slot {node.applied}"
    assert tuple(machine.memberships[-2:]) == state.memberships or not machine.memberships, (
        f"{node.id} has the memberships {machine.memberships}, and slot {node.applied} {state.memberships}"
    )
    check_history(node, reference, machine.history.compacted)
    if node.applies_entry:
        return
    sums = (machine.position, machine.digest, machine.size_bytes, node._checkpointer.applier.chain)
    assert sums == state[:4], f"{node.id} has the sums {sums}, and slot {node.applied} has {state[:4]}"
    internal = {key: record for key, record in records.items() if is_internal(key)}
    assert machine._internal == internal, f"{node.id} has other leases, locks or answers than slot {node.applied}"
    assert list(machine.keys(EVERY_KEY)) == sorted(clients), f"{node.id} has its keys in another order"
    known = sorted({*clients, *machine.history.keys()})
    assert list(machine._in_order()) == known, f"{node.id} has other keys in its order than in its records and history"
    if node.applied == reference.applied:
        _check_leases(machine, reference, node.applied)
        _check_requests(machine, reference, node.applied)


def check_witness(node: Node, reference: Reference) -> None:
    """A witness follows the members, and has no record (rule 29)."""
    machine, state = node.machine, reference.state(node.applied)
    assert not machine.records, f"the witness {node.id} has records: {list(machine.records)}"
    assert node.applies_entry or tuple(machine.memberships[-2:]) == state.memberships, (
        f"the witness {node.id} has the memberships {machine.memberships}, and slot {node.applied} {state.memberships}"
    )


def _check_leases(machine: StateMachine, reference: Reference, slot: Slot) -> None:
    index, model = machine.lease_index, reference.model
    found = {
        number: (lease.terms.ttl_ms, lease.terms.bound, lease.keys, lease.queue_entries, lease.answers, lease.top)
        for number, lease in index.leases.items()
    }
    expected = {
        number: (lease.ttl_ms, lease.bound, lease.keys, lease.locks, set(lease.answers), lease.top)
        for number, lease in model.leases.items()
    }
    assert found == expected, f"the leases of slot {slot} are {expected}, and not {found}"
    assert index.lease_of == model.lease_of, f"other keys hang on leases than at slot {slot}"
    queues = {
        name: [(token, (entry.lease, entry.value)) for token, entry in queue.items()]
        for name, queue in index.locks.items()
    }
    wanted = {name: list(queue.items()) for name, queue in model.queues.items() if queue}
    assert queues == wanted, f"the queues for locks of slot {slot} are {wanted}, and not {queues}"


def _check_requests(machine: StateMachine, reference: Reference, slot: Slot) -> None:
    found = {
        name: (origin.boot, origin.settled, origin.applied) for name, origin in machine.request_ids.origins.items()
    }
    expected = {name: (origin.boot, origin.settled, origin.applied) for name, origin in reference.origins.items()}
    assert found == expected, f"the request ids of slot {slot} are {expected}, and not {found}"


def check_history(node: Node, reference: Reference, after: int, upto: int | None = None) -> None:
    """Compare the changes behind position `after`, which is not compacted, with the log: nothing is left out, nothing
    is there twice, and each change has the record and the change before it."""
    history, end = node.machine.history, node.machine.shown_position if upto is None else upto
    expected = reference.model.changes_after(after, end)
    found = [change for change in history.after(after) if change.position <= end]
    positions = [change.position for change in expected]
    assert [change.position for change in found] == positions, f"{node.id} has other changes in its history"
    for change, wanted in zip(found, expected, strict=True):
        assert _is_same(change, wanted, history.compacted), f"{node.id} has {change} in its history, and not {wanted}"


def _is_same(change: KeyChange, wanted: ModelChange, compacted: int) -> bool:
    """The change before may be left out once it is compacted."""
    previous = {wanted.previous, 0} if wanted.previous <= compacted else {wanted.previous}
    return (
        change.previous in previous
        and (change.position, change.key) == (wanted.position, wanted.key)
        and (change.record, change.old) == (wanted.record, wanted.old)
    )
