"""Multi-Paxos with leader leases: the protocol alone, without a socket, a disk, a clock or randomness of its own."""
