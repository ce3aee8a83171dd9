"""Links between replicas: handshake, connections, send queues, and the transport that owns all links of a replica.

Imports `kvstore.api` and `paxos`. Only the server and tests import it.
"""
