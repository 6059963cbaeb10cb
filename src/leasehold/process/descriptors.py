"""How many connections fit into the limit of open files, beside the files that the service needs itself."""

import resource
from typing import Final

REFUSED_CONNECTIONS: Final = 1_000
"""Connections over the limit that are still answered with a refusal. Further ones are closed at once."""
RESERVED_DESCRIPTORS: Final = 48
"""For the service itself: files of the store while a checkpoint is written, connections to the database, pipes."""
SPARE_DESCRIPTORS: Final = 1_000
"""Requested in addition to all connections, if the system allows it."""


def connections_within(descriptors: int, wanted: int) -> tuple[int, int]:
    """How many connections can be served (at most `wanted`), and how many more can be answered with a refusal."""
    room = max(descriptors - RESERVED_DESCRIPTORS, 2)
    if room >= wanted + REFUSED_CONNECTIONS:
        return wanted, REFUSED_CONNECTIONS
    refused = min(REFUSED_CONNECTIONS, room // 4)
    return min(wanted, room - refused), refused


def raise_limit(connections: int) -> int:
    """Raise the process's limit of open files for this many connections, as far as the system allows. Returns the
    limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + REFUSED_CONNECTIONS + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
