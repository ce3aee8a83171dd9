"""The synchronous host of one replica: it joins the protocol, the state machine and the requests of clients.

It has no socket, thread or clock, so the simulator runs the same code as the server. Imports `kvstore.state_machine`,
`kvstore.api`, `storage.base` and `paxos`. Only the server, `kvstore.backup` and tests import it.

    node                   the entry: one method for each event, and `step`, which returns the work for the driver
    proposal_queue         writes, from the request until the command is applied
    read_handler           reads; read_queue holds those that wait for a read index
    applier                the applied state; checkpointer stores it, retention says what may be dropped
    snapshot_send          sends the state to a peer; snapshot_receive takes a peer's state
    membership_view        the membership, and the own role in it; membership_manager changes it on the leader
    lease_expiry           ends client leases on the leader
    divergence             compares the states of the replicas
    leader_watch, stats    the leader's last message; counters
"""
