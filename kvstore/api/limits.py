"""Bounds that hold at every front end, and that clients may rely on."""

MAX_KEY_BYTES = 1024
"""Longest key, and longest name of a lock; the shortest has one byte."""
MAX_REVISION = 2**43
"""Bound of revisions, lease numbers and fencing tokens."""

MIN_TTL_S = 0.1
MAX_TTL_S = 365 * 24 * 3600
"""Shortest and longest time to live of a lease."""
MAX_LOCK_WAIT_S = 60
"""Longest wait for a lock in one request."""
MAX_LOCK_VALUE_BYTES = 1024
"""Longest value of a holder of a lock: a GET shows those of many, and is answered in one go."""

MAX_LISTED = 1000
"""Most records or leases of one page, and of one list in a transaction."""
MAX_OPERATIONS = 1000
"""Most compares and operations of a transaction, nested ones included."""
MAX_DEPTH = 8
"""Deepest nesting of transactions."""

RESERVED_KEY = "Keys that begin with byte 0 are reserved for the store. Begin the key with another byte."
