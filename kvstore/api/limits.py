"""Bounds that every front end enforces and that clients may rely on."""

MAX_KEY_BYTES = 1024
"""Longest key, and longest name of a lock; the shortest has one byte."""
MAX_REVISION = 2**43
"""Bound of revisions, lease numbers and fencing tokens."""

MIN_TTL_S = 0.1
MAX_TTL_S = 365 * 24 * 3600
"""Shortest and longest time to live of a lease."""
PROVISIONAL_TTL_S = 10
"""Longest time to live of a lease whose client does not know yet that the lease was granted, or that it holds its lock.
If the client never receives the answer, the lease and the lock end after this time."""
MAX_LOCK_WAIT_S = 60
"""Longest wait for a lock in one request."""
MAX_LOCK_VALUE_BYTES = 1024
"""Longest value that describes the holder of a lock. It is short because one answer contains the values of many
leases."""

MAX_LISTED = 1000
"""Most records or leases in one page, and in one list of a transaction."""
MAX_OPERATIONS = 1000
"""Most compares and operations of a transaction, nested ones included."""
MAX_DEPTH = 8
"""Deepest nesting of transactions."""

RESERVED_KEY = "Keys that begin with byte 0 are reserved for the store. Begin the key with another byte."
