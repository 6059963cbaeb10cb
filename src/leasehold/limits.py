"""Every bound of the service, with its unit in its name.

`Limits` are settings: each may be changed for one server (`LEASEHOLD_MAX_BODY_BYTES=…`). The constants below it are
part of what callers are promised and are the same everywhere.
"""

from typing import Final

import msgspec

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_KEY_BYTES: Final = 512
MAX_NESTING: Final = 128
"""Levels of arrays and objects in a value; `[[1]]` has two."""
MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**64 - 1
"""Integers outside are refused, because MessagePack could not carry them exactly."""

MIN_TTL_SECONDS: Final = 0.1
MAX_TTL_SECONDS: Final = 31_536_000.0
MAX_PAGE_ENTRIES: Final = 10_000
MAX_GATHERED_BYTES: Final = 8 * MIB
"""A list that cannot be streamed ends soon after it."""
MAX_PATHS: Final = 100
"""`path` parameters of one read."""
MAX_PARTS_BYTES: Final = 2 * MIB
"""Of all parts that one read asks for, together; parts may lie within one another. One part alone may be larger."""
MAX_PATCH_OPERATIONS: Final = 10_000
MAX_CONTAINERS: Final = 50_000
"""Lists and objects in one value, so 21 bytes for each in the largest. To decode, check and encode them takes up to
0.6 µs each, and nothing else is done meanwhile."""
MAX_CHANGE_WORK_BYTES: Final = 3 * MIB // 2
"""What changing one value may cost, as the bytes of JSON that could be decoded, checked and encoded in that time: 30 to
40 ms for all of it. See `budgets`."""
MAX_REQUEST_ID_CHARACTERS: Final = 128

MIN_LEASE_SECONDS: Final = 1.0
MAX_LEASE_SECONDS: Final = 2_592_000.0
DEFAULT_LEASE_SECONDS: Final = 30.0
MAX_WAIT_SECONDS: Final = 60.0
DEFAULT_WAIT_SECONDS: Final = 5.0
MAX_WAITERS: Final = 1_000
"""Of one lock, at one server."""
MAX_ABANDONED_LEASES: Final = 10_000
"""Acquisitions that may have been stored although nobody was told, remembered to be released when the storage takes
changes again. What is beyond (thousands of callers in the seconds before the storage is known to be away) ends with its
own ttl, as the lease of any holder that is gone."""
MAX_OWNER_BYTES: Final = 1 * KIB
MAX_LEASE_ID_CHARACTERS: Final = 128

MAX_TOKEN_BYTES: Final = 4 * KIB
MAX_CACHED_TOKENS: Final = 10_000
MIN_SECRET_BYTES: Final = 32
MIN_RSA_BITS: Final = 2_048

MAX_BATCH_OPERATIONS: Final = 4_096
MAX_BATCH_BYTES: Final = 16 * MIB
"""One commit takes no more than this from the lane, so that one record of the journal stays small."""
MAX_BATCH_WORK_BYTES: Final = 1 * MIB
"""A batch ends before the partial update by which it would cost more, unless that is its first one: nothing else is
done while a batch is decided."""
MAX_WAITING_VALUE_BYTES: Final = 128 * MIB
"""Of values that wait for a commit. They wait only while the storage is slow or does not answer."""

MAX_BODIES_BYTES: Final = 128 * MIB
"""Of the bodies of all requests that are on their way or wait for their turn. A hundred clients may send the largest
body at once."""
MAX_QUEUED_BODY_BYTES: Final = 256 * KIB
"""Of the pipelined requests of one connection, before it is read no further."""
DRAINED_BODY_BYTES: Final = 64 * KIB
"""A request that is refused by its head keeps its connection if its body is no longer: it is read and thrown away."""
MAX_UNSENT_BYTES: Final = 128 * MIB
"""Of the answers to all readers that do not read. A thousand streams hold half of it."""


STALLED_LANE_SECONDS: Final = 30
"""When no batch has ended for so long although changes wait, the service calls itself degraded. Engines take less: the
file engine's longest legitimate step is a sync, which takes seconds on a disk that is badly overloaded; a commit on
PostgreSQL is given up within 20 s (attempts for 5 s, the last of which connects within 2 s for each host, asks four
statements of at most 4 s)."""
LANE_END_SECONDS: Final = 5.0
"""At the end of the service, for the batches under way. Requests were waited for before."""
SHUTDOWN_REST_SECONDS: Final = 15.0
"""After `shutdown_timeout_seconds`: for the lane's end, the connections to a database, the last checkpoint. Then the
process is ended by force. With the default, 25 s in all: Kubernetes kills after 30."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one server. Times are seconds, sizes bytes."""

    max_request_line_bytes: int = 8 * KIB
    max_header_bytes: int = 32 * KIB
    max_header_fields: int = 100
    max_body_bytes: int = 1 * MIB
    """Also the most that a value may grow to by partial updates."""
    max_connections: int = 10_000
    max_connections_per_address: int = 5_000

    header_timeout_seconds: float = 10.0
    """From the first byte of a request to the end of its headers."""
    body_timeout_seconds: float = 30.0
    """From the end of the headers to the end of the body."""
    idle_timeout_seconds: float = 75.0
    """Between two requests of a connection."""
    write_timeout_seconds: float = 30.0
    """Without progress while a response waits for its reader."""
    shutdown_timeout_seconds: float = 10.0
    """For requests in flight when the service is told to stop."""
