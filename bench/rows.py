"""The rows of the report, as data: what is measured, on which sides, and what must come out.

To add a row, add it here; a new side also needs a class in `servers.SERVERS`, a new kind of load a `Work`.
"""

from typing import Final

import msgspec

from bench.workload import Work

LEASEHOLD: Final = "leasehold"
LEASEHOLD_LARGE: Final = "leasehold-large"
WEBDIS: Final = "webdis+redis"
ETCD: Final = "etcd"
NGINX: Final = "nginx"


class Bar(msgspec.Struct, frozen=True):
    """The judged side's rate as a multiple of another's: at least `must`, better `aim`."""

    against: str
    must: float
    aim: float | None = None


class Row(msgspec.Struct, frozen=True):
    """One load on several sides in turn; the first of `sides` is the one that is judged.

    `{large}` in a title stands for the number of keys of the large store.
    """

    name: str
    title: str
    work: Work
    connections: int
    sides: tuple[str, ...]
    bars: tuple[Bar, ...] = ()


class Limit(msgspec.Struct, frozen=True):
    """A single figure of the service with its large store: at most `must`, better `aim`. Also a name for `--only`."""

    name: str
    title: str
    unit: str
    must: float
    aim: float


_WRITE_BARS: Final = (Bar(WEBDIS, must=1.0, aim=1.4), Bar(ETCD, must=3.0))
_LARGE_BARS: Final = (Bar(LEASEHOLD, must=0.85, aim=1.0),)

ROWS: Final = (
    Row(
        "get", "GET", Work.GET, 64, (LEASEHOLD, WEBDIS, ETCD, NGINX),
        (Bar(WEBDIS, must=1.2), Bar(NGINX, must=0.55, aim=0.7), Bar(ETCD, must=6.0)),
    ),
    Row("post", "durable POST", Work.POST, 64, (LEASEHOLD, WEBDIS, ETCD), _WRITE_BARS),
    Row("post-256", "durable POST", Work.POST, 256, (LEASEHOLD, WEBDIS, ETCD), _WRITE_BARS),
    Row("get-large", "GET, {large} keys", Work.GET, 64, (LEASEHOLD_LARGE, LEASEHOLD), _LARGE_BARS),
    Row("post-large", "durable POST, {large} keys", Work.POST, 64, (LEASEHOLD_LARGE, LEASEHOLD), _LARGE_BARS),
    Row("get-1", "GET", Work.GET, 1, (LEASEHOLD, WEBDIS, ETCD, NGINX)),
    Row("post-1", "durable POST", Work.POST, 1, (LEASEHOLD, WEBDIS, ETCD)),
)  # fmt: skip

MEMORY: Final = Limit("memory", "memory (RSS), {large} keys", "MB", must=700, aim=400)
START: Final = Limit("start", "start to the ready line, {large} keys", "s", must=6, aim=2)
LIMITS: Final = (MEMORY, START)
NAMES: Final = tuple(item.name for item in (*ROWS, *LIMITS))
