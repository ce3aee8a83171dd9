"""The deterministic state machine: the same chosen commands, applied in order, give the same state on every replica.

The package imports `kvstore.api`, `storage.base` and `paxos.types`. `kvstore.replica`, `kvstore.backup` and
`kvstore.server` import it.

    state_machine    applies batches; holds the records and the request ids
    view             the records as a command sees them
    digest           the digest of the records
    transactions     commands on many keys
    leases           commands on client leases and locks
    lease_index      client leases, by their numbers, attached keys and locks
    request_ids      the batches that were applied
    idempotency      commands that are done once
    history          changes of the latest revisions
    reads            reads of spans, past revisions, leases and locks
    quota            the size of commands, and the growth of the state
"""
