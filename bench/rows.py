"""The rows of the report, as data: what is measured, on which sides, and what is required.

To add a row, add it here; a new side also needs an entry in `starting.SIDES`, a new kind of load a `Work`.
"""

from typing import Final

import msgspec

from bench.workload import AWAITED_LOCKS, CHANGES, PUTS, WAITERS, WATCHERS, WRITERS, Work

LEASEHOLD: Final = "leasehold"
LEASEHOLD_LARGE: Final = "leasehold-large"
WEBDIS: Final = "webdis+redis"
ETCD: Final = "etcd"
NGINX: Final = "nginx"
LEASEHOLD_AWAITED: Final = "leasehold-awaited"
LEASEHOLD_WATCHED: Final = "leasehold-watched"
LEASEHOLD_PROBED: Final = "leasehold-probed"
LEASEHOLD_PG: Final = "leasehold-pg"
LEASEHOLD_PG_2: Final = "leasehold-pg-2"
"""The service with two workers."""
LEASEHOLD_PG_PAIR: Final = "leasehold-pg-pair"
"""Two servers on one database, each loaded with as many connections."""
LEASEHOLD_PG_SLOW: Final = "leasehold-pg-slow"
"""The service on a PostgreSQL with slow COMMITs."""
LEASEHOLD_PG_SLOW_PAIR: Final = "leasehold-pg-slow-pair"
LEASEHOLD_PG_RELAYED: Final = "leasehold-pg-relayed"
PYTHON_CLIENT: Final = "leasehold-client"
"""The Python client, which calls the service."""
HTTPX2: Final = "httpx2"
"""The HTTP library that the client uses, without the client."""
OWN: Final = frozenset({
    LEASEHOLD, LEASEHOLD_LARGE, LEASEHOLD_AWAITED, LEASEHOLD_WATCHED, LEASEHOLD_PROBED, LEASEHOLD_PG, LEASEHOLD_PG_2,
    LEASEHOLD_PG_RELAYED, LEASEHOLD_PG_PAIR, LEASEHOLD_PG_SLOW, LEASEHOLD_PG_SLOW_PAIR, PYTHON_CLIENT, HTTPX2,
})  # fmt: skip
"""The sides that run once for each interpreter that is measured: the service, and what calls it from Python. The others
are peers."""
SLOW_COMMIT_MS: Final = 5
"""How much longer the COMMITs of the slow PostgreSQL take, as those that wait for a standby."""
PGBENCH_1: Final = "pgbench-1"
"""pgbench with this number of clients."""
PGBENCH_16: Final = "pgbench-16"
PGBENCH_64: Final = "pgbench-64"
PGBENCH_64_J2: Final = "pgbench-64-j2"
"""pgbench with two threads. All other clients have one."""


class Bar(msgspec.Struct, frozen=True):
    """The judged side's rate as a multiple of another's: at least `required`, better `goal`. None: no such bar.

    Where there are several, the best of each round is taken: of the sides in `against`, and of the judged side's own
    loads in this row and in `also_rows`.
    """

    against: tuple[str, ...]
    required: float | None = None
    goal: float | None = None
    also_rows: tuple[str, ...] = ()
    against_row: str | None = None
    """The row in which the sides in `against` are taken; None: this one."""


class Row(msgspec.Struct, frozen=True):
    """One load on several sides in turn; the first of `sides` is the one that is judged.

    `{large}` in a title stands for the number of keys of the large store.
    """

    name: str
    title: str
    work: Work
    connections: int
    """Connections of the client, except pgbench, whose number is in the name of its side."""
    sides: tuple[str, ...]
    bars: tuple[Bar, ...] = ()


class Limit(msgspec.Struct, frozen=True):
    """A single figure of the service: at most `required`, better `goal`. Its name can be given to `--only`."""

    name: str
    title: str
    side: str
    unit: str
    required: float
    goal: float | None = None


_PGBENCH: Final = (PGBENCH_16, PGBENCH_64)
_CLIENT_BARS: Final = (Bar((HTTPX2,), required=0.9),)
_LARGE_BARS: Final = (Bar((LEASEHOLD,), required=0.85, goal=0.95),)

ROWS: Final = (
    Row(
        "get", "GET", Work.GET, 64, (LEASEHOLD, WEBDIS, ETCD, NGINX),
        (
            Bar((WEBDIS,), required=1.7, goal=2.0), Bar((NGINX,), required=0.85, goal=1.0), Bar((ETCD,), required=6.0),
        ),
    ),
    Row(
        "post", "durable POST", Work.POST, 64, (LEASEHOLD, WEBDIS, ETCD),
        (Bar((WEBDIS,), required=1.1, goal=1.4), Bar((ETCD,), required=3.0)),
    ),
    Row(
        "post-256", "durable POST", Work.POST, 256, (LEASEHOLD, WEBDIS, ETCD),
        (Bar((WEBDIS,), required=1.0, goal=1.4), Bar((ETCD,), required=3.0)),
    ),
    Row("get-large", "GET, {large} keys", Work.GET_ALL, 64, (LEASEHOLD_LARGE, LEASEHOLD), _LARGE_BARS),
    Row("post-large", "durable POST, {large} keys", Work.POST_ALL, 64, (LEASEHOLD_LARGE, LEASEHOLD), _LARGE_BARS),
    Row("get-1", "GET", Work.GET, 1, (LEASEHOLD, WEBDIS, ETCD, NGINX)),
    Row(
        "post-1", "durable POST", Work.POST, 1, (LEASEHOLD, WEBDIS, ETCD),
        (Bar((ETCD,), required=1.0), Bar((WEBDIS,), goal=0.7)),
    ),
    Row(
        "lock", "lock acquire + release, 64 locks", Work.LOCK, 64, (LEASEHOLD, ETCD, LEASEHOLD_PG),
        (Bar((ETCD,), required=3.0),),
    ),
    Row(
        "watch", f"events to watchers of one prefix, {WRITERS[Work.WATCH]} writers", Work.WATCH, 1_000,
        (LEASEHOLD, WEBDIS, ETCD), (Bar((WEBDIS, ETCD), required=2.0, goal=4.0),),
    ),
    Row(
        "watch-1", f"events to watchers of one prefix, {WRITERS[Work.WATCH_ONE]} writer", Work.WATCH_ONE, 1_000,
        (LEASEHOLD, WEBDIS, ETCD),
    ),
    Row(
        "txn", f"transaction of {PUTS} puts", Work.TRANSACTION, 64, (LEASEHOLD,),
        (Bar((LEASEHOLD,), required=2.0, goal=4.0, against_row="pipelined"),),
    ),
    Row("pipelined", f"{PUTS} puts, pipelined", Work.PIPELINED, 64, (LEASEHOLD,)),
    Row("lock-1", "lock acquire + release", Work.LOCK, 1, (LEASEHOLD, ETCD, LEASEHOLD_PG)),
    Row(
        "pg-get", "GET, PostgreSQL", Work.GET, 64, (LEASEHOLD_PG, *_PGBENCH, PGBENCH_64_J2, LEASEHOLD_PG_2),
        (Bar(_PGBENCH, required=1.1, goal=1.3),),
    ),
    Row("pg-get-1", "GET, PostgreSQL", Work.GET, 1, (LEASEHOLD_PG, PGBENCH_1)),
    Row(
        "pg-post", "durable POST, PostgreSQL", Work.POST, 64, (LEASEHOLD_PG, *_PGBENCH, PGBENCH_64_J2, LEASEHOLD_PG_2),
        (Bar(_PGBENCH, required=1.2, goal=1.5, also_rows=("pg-post-256",)),),
    ),
    Row("pg-post-256", "durable POST, PostgreSQL", Work.POST, 256, (LEASEHOLD_PG,)),
    Row(
        "pg-post-pair", "durable POST, PostgreSQL, two servers with as many connections each", Work.POST, 64,
        (LEASEHOLD_PG_PAIR, LEASEHOLD_PG),
    ),
    Row(
        "pg-post-slow-pair",
        f"durable POST, PostgreSQL whose COMMIT takes {SLOW_COMMIT_MS} ms longer, two servers with as many connections "
        "each", Work.POST, 64, (LEASEHOLD_PG_SLOW_PAIR, LEASEHOLD_PG_SLOW),
        (Bar((LEASEHOLD_PG_SLOW,), required=1.3, goal=1.6),),
    ),
    Row("pg-post-1", "durable POST, PostgreSQL", Work.POST, 1, (LEASEHOLD_PG, PGBENCH_1)),
    Row("client", "GET from Python", Work.CALL, 1, (PYTHON_CLIENT, HTTPX2), _CLIENT_BARS),
    Row("client-async", "GET from Python, asyncio", Work.CALL_ASYNC, 1, (PYTHON_CLIENT, HTTPX2), _CLIENT_BARS),
)  # fmt: skip

MEMORY: Final = Limit("memory", "memory (RSS), {large} keys", LEASEHOLD_LARGE, "MB", required=400)
START: Final = Limit("start", "start to the ready line, {large} keys", LEASEHOLD_LARGE, "s", required=6, goal=2)
PARTIAL: Final = Limit(
    "pg-partial", "partial update of a 1 MiB document, PostgreSQL: data sent to the database",
    LEASEHOLD_PG_RELAYED, "KiB", required=16,
)  # fmt: skip
IDLE: Final = Limit(
    "waiters", f"{WAITERS:,} clients wait for {AWAITED_LOCKS} locks, no other load: processor time", LEASEHOLD_AWAITED,
    "% of a core", required=2,
)  # fmt: skip
STALL: Final = Limit(
    "stall", "longest stall of the event loop by one client's worst requests", LEASEHOLD_PROBED, "ms", required=50,
)  # fmt: skip
STALL_BY_MANY: Final = Limit(
    "stall-by-many", "longest stall of the event loop by up to 100 clients that send the worst requests at once",
    LEASEHOLD_PROBED, "ms", required=100, goal=50,
)  # fmt: skip
WATCHERS_IDLE: Final = Limit(
    "watchers", f"{WATCHERS:,} idle watchers: processor time", LEASEHOLD_WATCHED, "% of a core", required=1,
)  # fmt: skip
WATCHERS_MEMORY: Final = Limit(
    "watchers-memory", f"{WATCHERS:,} idle watchers: memory (RSS) of each", LEASEHOLD_WATCHED, "KiB", required=25,
)  # fmt: skip
CATCH_UP: Final = Limit(
    "catch-up", f"a watcher catches up {CHANGES:,} changes, in the slowest representation: processor time",
    LEASEHOLD_WATCHED, "ms", required=150,
)  # fmt: skip
CATCH_UP_STALL: Final = Limit(
    "catch-up-stall", f"a watcher catches up {CHANGES:,} changes: longest stall of the event loop (processor time)",
    LEASEHOLD_PROBED, "ms", required=5,
)  # fmt: skip
LIMITS: Final = (
    MEMORY, START, PARTIAL, IDLE, STALL, STALL_BY_MANY, WATCHERS_IDLE, WATCHERS_MEMORY, CATCH_UP, CATCH_UP_STALL,
)  # fmt: skip
NAMES: Final = tuple(item.name for item in (*ROWS, *LIMITS))

_FEW_ROUNDS: Final = 3
_COMPARED: Final = frozenset(
    pair
    for row in ROWS
    for bar in row.bars
    for pair in (
        *((name, row.sides[0]) for name in (row.name, *bar.also_rows)),
        *((bar.against_row or row.name, side) for side in bar.against),
    )
)
"""Names of rows and sides."""


def rounds_of(row: Row, side: str, rounds: int) -> int:
    """In how many of `rounds` this side is loaded: in all if a bar compares it, otherwise in the first few."""
    return rounds if (row.name, side) in _COMPARED else min(rounds, _FEW_ROUNDS)
