"""How the sides start. To add one: a class (`sides`, `peers`, `service`, `postgresql`), and an entry in `SIDES`."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Final

from bench import rows
from bench.peers import Etcd, Nginx, Webdis
from bench.postgresql import PgBench, PostgreSQL
from bench.service import AwaitedLeasehold, LargeLeasehold, LeaseholdOnPostgreSQL, RelayedLeasehold, SmallLeasehold
from bench.sides import Side
from bench.stalls import ProbedLeasehold


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


Start = Callable[[Site, Path], Side]
"""Each gets its own folder, with the name of the side."""


def _pgbench(clients: int, *, threads: int = 1) -> Start:
    return lambda site, own: PgBench(own, site.postgresql, clients=clients, threads=threads)


SIDES: Final[Mapping[str, Start]] = {
    rows.LEASEHOLD: lambda site, own: SmallLeasehold(site.stack, own),
    rows.WEBDIS: lambda site, own: Webdis(site.stack, own),
    rows.ETCD: lambda site, own: Etcd(site.stack, own),
    rows.NGINX: lambda site, own: Nginx(site.stack, own),
    rows.LEASEHOLD_PG: lambda site, own: LeaseholdOnPostgreSQL(site.stack, own, site.postgresql),
    rows.LEASEHOLD_PG_2: lambda site, own: LeaseholdOnPostgreSQL(site.stack, own, site.postgresql, workers=2),
    rows.PGBENCH_1: _pgbench(1),
    rows.PGBENCH_16: _pgbench(16),
    rows.PGBENCH_64: _pgbench(64),
    rows.PGBENCH_64_J2: _pgbench(64, threads=2),
    rows.LEASEHOLD_PG_RELAYED: lambda site, own: RelayedLeasehold(site.stack, own, site.postgresql),
    rows.LEASEHOLD_PROBED: lambda site, own: ProbedLeasehold(site.stack, own),
    rows.LEASEHOLD_AWAITED: lambda site, own: AwaitedLeasehold(site.stack, own),
    rows.LEASEHOLD_LARGE: lambda site, own: LargeLeasehold(
        site.stack, own, key_count=site.key_count_large, starts=site.starts
    ),
}
