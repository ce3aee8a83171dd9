"""A replicated, linearizable key-value store on Multi-Paxos."""

__version__ = "0.2.0"
