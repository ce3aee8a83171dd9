"""The vocabulary that servers and clients share: commands, queries, results, errors and JSON documents.

The package imports nothing of this project but `paxos.types` and `paxos.configuration`. Every package of `kvstore` may
import it.

    commands      commands of log entries, their results, and the stored form of both
    queries       reads; `results` has the answers, `errors` the reasons why a request is not answered
    key_range     spans of keys
    limits        bounds on keys, values, leases and transactions
    membership    members, their roles, and the allowed changes
    status        the documents of `GET /status` and `GET /members`; `json` has the other JSON documents
    framing       payloads in a stream of bytes
"""
