"""The synchronous host of one replica. It has no socket, thread or clock, so the simulator runs the same code.

Imports `kvstore.state_machine`, `kvstore.api`, `storage` and `paxos`. Only the server, `kvstore.backup` and tests do.
"""
