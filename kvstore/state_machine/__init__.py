"""The deterministic state machine: the same chosen commands, applied in order, give the same state on every replica.

Imports `kvstore.api`, `storage.base` and `paxos.types`. The replica and the server's front ends may import it.
"""
