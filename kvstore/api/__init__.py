"""The vocabulary that servers and clients share: commands, queries, results, errors and JSON documents.

Imports nothing of this project but `paxos.types` and `paxos.configuration`. Every other room may import it.
"""
