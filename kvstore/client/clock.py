"""The clock of leases. A replica counts the time for which the machine of a client is suspended, so the client must."""

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_time_s() -> float:
    """Return the seconds of a monotonic clock, which includes suspended time if the system has such a clock."""
    return time.clock_gettime(_CLOCK)
