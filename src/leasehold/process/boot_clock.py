"""A clock for deadlines that other machines count, too, such as the end of a lease."""

import time


def boot_seconds() -> float:
    """Seconds since some moment, equal in all processes of this machine. Steps of the system's clock do not move it.

    It also runs while the machine is suspended, where the system has such a clock (CLOCK_BOOTTIME on Linux).
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
