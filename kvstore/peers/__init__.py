"""Links between replicas: handshake, framing, connections and the choice of the connection that counts.

Imports `kvstore.api` and `paxos`. Only the server and tests import it.
"""
