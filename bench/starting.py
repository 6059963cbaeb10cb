"""How the sides start. To add one: a class (`sides`, `peers`, `service`, `postgresql`), and an entry in `PEERS`.

If it is the service, its entry is in `SERVICES`, and its name in `rows.OWN`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from bench import rows
from bench.calling import Caller
from bench.catching_up import WatchedLeasehold
from bench.interpreters import Interpreter
from bench.peers import Etcd, Nginx, Webdis
from bench.postgresql import PgBench, PostgreSQL
from bench.results import Instance
from bench.service import (
    AwaitedLeasehold,
    CalledLeasehold,
    LargeLeasehold,
    LeaseholdOnPostgreSQL,
    PairOnPostgreSQL,
    RelayedLeasehold,
    SmallLeasehold,
)
from bench.sides import Side
from bench.stalls import ProbedLeasehold
from bench.workload import Work


class Site:
    """What the sides of one run share."""

    def __init__(self, stack: ExitStack, folder: Path, *, key_count_large: int, starts: int) -> None:
        self.stack = stack
        self.folder = folder
        self.key_count_large = key_count_large
        self.starts = starts
        """Start times of the large store."""

    def own(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    @cached_property
    def postgresql(self) -> PostgreSQL:
        """The server, started at the first call. If it cannot be started, each call raises BenchError."""
        return PostgreSQL(self.stack, self.own("postgresql"))

    @cached_property
    def slow_postgresql(self) -> PostgreSQL:
        """As `postgresql`, with slow COMMITs."""
        return PostgreSQL(self.stack, self.own("postgresql-slow"), commit_delay_ms=rows.SLOW_COMMIT_MS)


StartPeer = Callable[[Site, Path], Side]
"""Each gets its own folder. Its name is also that of its database, if it has one."""
StartService = Callable[[Site, Path, Interpreter], Side]


def _pgbench(clients: int, *, threads: int = 1) -> StartPeer:
    return lambda site, own: PgBench(own, site.postgresql, clients=clients, threads=threads)


PEERS: Final[Mapping[str, StartPeer]] = {
    rows.WEBDIS: lambda site, own: Webdis(site.stack, own),
    rows.ETCD: lambda site, own: Etcd(site.stack, own),
    rows.NGINX: lambda site, own: Nginx(site.stack, own),
    rows.PGBENCH_1: _pgbench(1),
    rows.PGBENCH_16: _pgbench(16),
    rows.PGBENCH_64: _pgbench(64),
    rows.PGBENCH_64_J2: _pgbench(64, threads=2),
}
SERVICES: Final[Mapping[str, StartService]] = {
    rows.LEASEHOLD: lambda site, own, python: SmallLeasehold(site.stack, own, python.service),
    rows.LEASEHOLD_PG: lambda site, own, python: LeaseholdOnPostgreSQL(
        site.stack, own, python.service, site.postgresql
    ),
    rows.LEASEHOLD_PG_2: lambda site, own, python: LeaseholdOnPostgreSQL(
        site.stack, own, python.service, site.postgresql, workers=2
    ),
    rows.LEASEHOLD_PG_PAIR: lambda site, own, python: PairOnPostgreSQL(
        site.stack, own, python.service, site.postgresql
    ),
    rows.LEASEHOLD_PG_SLOW: lambda site, own, python: LeaseholdOnPostgreSQL(
        site.stack, own, python.service, site.slow_postgresql
    ),
    rows.LEASEHOLD_PG_SLOW_PAIR: lambda site, own, python: PairOnPostgreSQL(
        site.stack, own, python.service, site.slow_postgresql
    ),
    rows.LEASEHOLD_PG_RELAYED: lambda site, own, python: RelayedLeasehold(
        site.stack, own, python.service, site.postgresql
    ),
    rows.LEASEHOLD_PROBED: lambda site, own, python: ProbedLeasehold(site.stack, own, python.probe),
    rows.LEASEHOLD_AWAITED: lambda site, own, python: AwaitedLeasehold(site.stack, own, python.service),
    rows.LEASEHOLD_WATCHED: lambda site, own, python: WatchedLeasehold(site.stack, own, python.service),
    rows.PYTHON_CLIENT: lambda site, own, python: CalledLeasehold(
        site.stack, own, python, {Work.CALL: Caller.CLIENT, Work.CALL_ASYNC: Caller.CLIENT_ASYNC}
    ),
    rows.HTTPX2: lambda site, own, python: CalledLeasehold(
        site.stack, own, python, {Work.CALL: Caller.HTTPX2, Work.CALL_ASYNC: Caller.HTTPX2_ASYNC}
    ),
    rows.LEASEHOLD_LARGE: lambda site, own, python: LargeLeasehold(
        site.stack, own, python.service, key_count=site.key_count_large, starts=site.starts
    ),
}


def starts(site: Site, pythons: Sequence[Interpreter], side: str) -> Mapping[Instance, Callable[[], Side]]:
    """How the instances of a side start: one for each interpreter if it is the service."""
    if side in PEERS:
        return {Instance(side): partial(PEERS[side], site, site.own(side))}
    return {
        Instance(side, python.name): partial(SERVICES[side], site, site.own(f"{side}-python{number}"), python)
        for number, python in enumerate(pythons, 1)
    }
