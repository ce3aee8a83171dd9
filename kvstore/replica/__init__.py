"""The synchronous host of one replica: it connects the protocol, the state machine and the requests of clients.

The host has no socket, thread or clock, so the simulator runs the same code as the server. This package imports
`kvstore.state_machine`, `kvstore.api`, `storage.base` and `paxos`. Only the server, `kvstore.backup` and tests import
this package.

    node                   the entry point: one method for each event, and `step`, which returns the driver's work
    proposal_queue         the writes, from the request until the command is applied
    read_handler           the reads; read_queue holds the reads that wait for a read index
    applier                the applied state; checkpointer stores it, retention limits the log and the history
    snapshot_send          the state for a peer; snapshot_receive receives the state of a peer
    membership_view        the membership, and this replica's role; membership_manager changes it on the leader
    lease_expiry           the expiry of client leases, on the leader
    divergence             the comparison of the states of all replicas
    leader_watch, stats    the age of the leader's last message; counters
"""
