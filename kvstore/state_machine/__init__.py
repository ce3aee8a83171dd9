"""The deterministic state machine: the same chosen commands, applied in order, give the same state on every replica.

Imports `kvstore.api`, `storage.base` and `paxos.types`. The replica and the server's front ends import it.

    state_machine    applies batches; holds the records and the request ids
    view             the records as a command sees them
    transactions     commands on many keys; leases has those on client leases and locks
    idempotency      commands that are done once; lease_index finds leases, attached keys and locks
    history          changes of the latest revisions; reads answers reads at a revision, of spans, leases and locks
    quota            the size of commands, and the growth of the state
"""
