"""The durable state of a replica: the contract, its implementation on SQLite, and a reference implementation in memory.

`storage.base` is the contract that the replica depends on. `storage.sqlite` implements it in one database file,
`storage.memory` in memory, for the simulator and as the model of the tests. `storage.inspection` reads the data of a
stopped replica without changing it.

Import rules: `storage` imports `paxos.types` and `paxos.ready`, and nothing of `kvstore`. The replica and the state
machine import only `storage.base`; the server, the backup tools and the command line may import the other modules.
"""
