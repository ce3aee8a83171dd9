"""The vocabulary that servers and clients share: commands, queries, results, errors and JSON documents.

Imports nothing of this project but `paxos.types` and `paxos.configuration`. Every other package may import it.

    commands      commands of log entries, their results, and the stored form of both
    queries       reads; results has the answers to them, errors the reasons for no answer
    key_range     spans of keys
    membership    members, their roles, and which changes are allowed
    status        the documents of `GET /status` and `GET /members`; json has those of keys and values
    framing       payloads in a stream of bytes
"""
