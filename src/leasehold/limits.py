"""Every limit of the service, with its unit in its name.

`Limits` are settings: each can be changed for one server (`LEASEHOLD_MAX_BODY_BYTES=…`). The constants are part of the
documented API or of the design, and are the same on every server.
"""

from typing import Final

import msgspec

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_KEY_BYTES: Final = 512
MAX_NAMESPACE_CHARACTERS: Final = 63
MAX_QUOTA: Final = 2**53 - 1
"""Entries or bytes. Every client can represent it exactly."""
MAX_NESTING: Final = 128
"""Levels of arrays and objects in a value; `[[1]]` has two."""
MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**64 - 1
"""Larger and smaller integers are refused, because MessagePack cannot represent them exactly."""

MIN_TTL_SECONDS: Final = 0.1
MAX_TTL_SECONDS: Final = 31_536_000.0
MAX_PAGE_ENTRIES: Final = 10_000
MAX_GATHERED_BYTES: Final = 8 * MIB
"""A list that is not streamed ends with the entry that exceeds this. Several entries that are read at one moment may
have no more."""
MAX_READ_KEYS: Final = 128
"""The most `key` parameters of one list."""
MAX_COUNTED_ENTRIES: Final = 1_000_000
"""The most entries that one request counts."""
MAX_LIST_WORK_BYTES: Final = 128 * MIB
"""A list ends, with the place at which it can be continued, when it has read this many bytes of values that it does not
show: those of entries that it leaves out, and those of which it shows a part."""
MAX_GATHERED_LISTS: Final = 4
"""The most lists that are made in one piece at the same time. Each has up to MAX_GATHERED_BYTES."""
MAX_TRANSACTION_CHECKS: Final = 128
MAX_TRANSACTION_OPERATIONS: Final = 128
MAX_PATHS: Final = 100
"""The most `path` parameters of one read."""
MAX_PARTS_BYTES: Final = 2 * MIB
"""The most that all parts requested by one read may have together; parts may overlap. A single part may be larger. It
is also the most that all values read by one transaction may have, and those in the error for its failed checks."""
MAX_PATCH_OPERATIONS: Final = 10_000
MAX_CONTAINERS: Final = 50_000
"""The most lists and objects in one value: one for each 21 bytes of the largest value. Decoding, checking and encoding
them takes up to 0.6 µs each, and blocks the event loop."""
MAX_CHANGE_WORK_BYTES: Final = 3 * MIB // 2
"""The most work that one change of a value may take, in bytes of JSON that could be decoded, checked and encoded in the
same time. All of it takes 30 to 40 ms. See `values/budgets.py`."""
MAX_REQUEST_ID_CHARACTERS: Final = 128
MAX_MEDIA_TYPE_CHARACTERS: Final = 255
"""Of a value that is bytes, with its parameters."""
MAX_RANGES: Final = 16
"""A request for more ranges of a value is answered with the whole value."""

MIN_LEASE_SECONDS: Final = 1.0
MAX_LEASE_SECONDS: Final = 2_592_000.0
DEFAULT_LEASE_SECONDS: Final = 30.0
MAX_WAIT_SECONDS: Final = 60.0
DEFAULT_WAIT_SECONDS: Final = 5.0
MAX_WAITERS: Final = 1_000
"""The most waiters for one lock on one server."""
MAX_WAITING_READS: Final = 5_000
"""The most reads with `wait` that wait at one server. Each takes a connection, so half of the connections remain."""
MAX_ABANDONED_LEASES: Final = 10_000
"""Acquisitions that may have been stored without an answer to the caller are remembered and released when the storage
accepts changes again. More than this many (thousands of callers in the seconds before the storage is known to be
unavailable) expire by their ttl instead, like the lease of a crashed holder."""
MAX_WATCH_PREFIXES: Final = 16
DEFAULT_HEARTBEAT_SECONDS: Final = 15.0
MIN_HEARTBEAT_SECONDS: Final = 1.0
MAX_HEARTBEAT_SECONDS: Final = 60.0
MAX_OWNER_BYTES: Final = 1 * KIB
MAX_LEASE_ID_CHARACTERS: Final = 128

MAX_STATE_NAME_BYTES: Final = 400
"""Of a Terraform state. The keys of its versions are up to 40 bytes longer."""
MAX_STATE_BRACKETS: Final = 524_288
"""The most `[` and `{` in a Terraform state, those in strings included: one for each 32 bytes of the largest state. To
check that it is JSON takes up to 150 ns for each of them."""
MAX_STATE_COMMAS: Final = 2_097_152
"""The most `,` in a Terraform state, those in strings included: one for each 8 bytes of the largest state. Each stands
for a value. To check that it is JSON takes up to 6 ns for each of them."""
MAX_STATE_VERSIONS: Final = 10
"""The states that are kept for each name, the current one included."""
MAX_LOCK_INFO_BYTES: Final = 16 * KIB
"""Of the lock of a Terraform state. Its paths and messages may be longer than an `owner`."""
DEFAULT_STATE_LOCK_SECONDS: Final = 86_400.0

MAX_TOKEN_BYTES: Final = 4 * KIB
MAX_CACHED_TOKENS: Final = 10_000
MIN_SECRET_BYTES: Final = 32
MIN_RSA_BITS: Final = 2_048

MAX_BATCH_OPERATIONS: Final = 4_096
MAX_BATCH_BYTES: Final = 16 * MIB
"""The most bytes in one batch of the lane, so that one record of the journal stays small."""
MAX_BATCH_WORK_BYTES: Final = 1 * MIB
"""A batch ends before the partial update or the transaction that would exceed this work, unless it is the first one of
the batch. Deciding a batch blocks the event loop. A transaction that exceeds it alone is refused, unless a single value
is the cause."""
MAX_WAITING_VALUE_BYTES: Final = 128 * MIB
"""The most bytes of values that wait for a commit. They wait only while the storage is slow or does not answer."""

MAX_BODIES_BYTES: Final = 128 * MIB
"""The most bytes in the bodies of all requests that are being received or wait to be handled. A hundred clients can
send the largest body at the same time."""
MAX_LANE_BODIES_BYTES: Final = 2 * MIB
"""The most bytes in the bodies of changes that wait for their commit, where a list or object counts as 41 bytes or
more. The next bodies are not decoded before there is room. A garbage collection visits each list and object that was
decoded and is still used. It takes up to 0.6 µs for each, and stops the event loop."""
MAX_QUEUED_BODY_BYTES: Final = 256 * KIB
"""A connection is not read further while its pipelined requests have more body bytes than this."""
DRAINED_BODY_BYTES: Final = 64 * KIB
"""A request that is refused by its head keeps its connection open if its body is at most this long: the body is read
and discarded."""
MAX_UNSENT_BYTES: Final = 128 * MIB
"""The most bytes of responses buffered for clients that do not read them. A thousand streams take half of it."""

STALLED_LANE_SECONDS: Final = 30
"""The service reports itself as degraded when changes wait and no batch has ended for this long. Engines need less: the
longest normal step of the file engine is a sync, which takes seconds on a badly overloaded disk; PostgreSQL commits are
given up within 20 s (attempts for 5 s; the last one connects within 2 s per host and runs four statements of at most 4
s each)."""
MAX_LAST_CHECKPOINT_BYTES: Final = 256 * MIB
"""The largest `data.json` that a shutdown writes: one million entries with 100-byte values. It takes 2 to 4 s on the
bench machine, and containers are usually killed 10 s after they are told to stop. With a larger store, the shutdown
leaves the last changes in the journal."""
LANE_END_SECONDS: Final = 5.0
"""How long a shutdown waits for the batches in progress. The requests have ended before that."""
SHUTDOWN_REST_SECONDS: Final = 15.0
"""How long a shutdown may take after `shutdown_timeout_seconds`, for the lane, the connections to a database and the
last checkpoint. Then the process is ended by force. With the default this is 25 s in total; Kubernetes kills after 30.
"""


MAX_LIMIT_SECONDS: Final = 31_536_000.0
"""The longest time in `Limits`: 365 days. Longer ones lead to times that cannot be written."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one server. Times are in seconds, sizes in bytes."""

    max_request_line_bytes: int = 8 * KIB
    max_header_bytes: int = 32 * KIB
    max_header_fields: int = 100
    max_body_bytes: int = 1 * MIB
    """Also the largest size to which partial updates may grow a value."""
    max_state_bytes: int = 16 * MIB
    """The largest Terraform state."""
    idempotency_seconds: float = 600.0
    """How long the outcome of a request with an idempotency key is kept."""
    max_receipts: int = 100_000
    """How many outcomes are kept in each namespace, the newest ones. Together they may have 1 KiB for each."""
    max_connections: int = 10_000
    max_connections_per_address: int = 5_000

    header_timeout_seconds: float = 10.0
    """From the first byte of a request to the end of its headers."""
    body_timeout_seconds: float = 30.0
    """From the end of the headers to the end of the body."""
    idle_timeout_seconds: float = 75.0
    """Between two requests of a connection."""
    write_timeout_seconds: float = 30.0
    """Without progress while the client does not read its response."""
    shutdown_timeout_seconds: float = 10.0
    """For requests in progress when the service is told to stop."""
