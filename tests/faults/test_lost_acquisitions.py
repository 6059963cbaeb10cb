"""An acquisition whose answer is lost leaves no lease behind, and a release with an unknown outcome wakes the waiters.

Leases here last a minute, so a lock that is free sooner has been released.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from acquiring import acquired
from databases import Database, database_for, run
from harness.locks import PLANTED
from harness.postgres_faults import BIND_COMMIT
from proxy import Proxy
from running import Server, Wire, message, running, until

from leasehold.engines.postgres import committer, fault, listener
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.engines.postgres.links import Address
from leasehold.errors import ServiceError
from leasehold.limits import Limits
from leasehold.model import LEASE, Acquire, Lease, Operation, Outcome, Release
from leasehold.store.store import Store
from leasehold.store.stores import Stores

LONG = 60
"""Seconds that a lease lasts, or that a caller waits."""
SOON_SECONDS = 30.0
"""Less than LONG, and enough for a busy machine."""
SECOND = 1_000_000

ACQUIRE = message("POST", "/locks/l", body=json.dumps({"ttl": LONG, "wait": 0}).encode())
ACQUIRE_WAITING = message("POST", "/locks/l", body=json.dumps({"ttl": LONG, "wait": LONG}).encode())


# The client disconnects ---------------------------------------------------------------------------------------


def seconds_until_free(server: Server) -> float:
    """How long a new caller must wait for the lock."""
    began = time.monotonic()
    with Wire(server) as wire:
        assert wire.send(ACQUIRE_WAITING).answer().status == 201
    return time.monotonic() - began


def test_a_client_that_disconnects_while_its_acquisition_is_synced_leaves_no_lease(tmp_path: Path) -> None:
    """The sync takes until the service has noticed that."""

    def is_in_metrics(sample: str) -> bool:
        return f"\n{sample}\n" in server.request("GET", "/metrics").text

    hold = tmp_path / "hold"
    holding = {"LEASEHOLD_TEST_HOLD": str(hold)}
    with running(tmp_path / "data.json", program=(PLANTED,), environment=holding) as server:
        hold.touch()
        with Wire(server) as wire:
            wire.send(ACQUIRE)
            until(lambda: is_in_metrics("leasehold_waiters 1.0"))
            assert is_in_metrics("leasehold_connections 2.0")
        until(lambda: is_in_metrics("leasehold_connections 1.0"))
        assert server.revision() == 0, "it was committed before the client hung up"
        hold.unlink()
        assert seconds_until_free(server) < SOON_SECONDS
        assert server.revision() == 3, "the lease was granted, released, and granted to the next"


def test_a_client_that_disconnects_while_the_database_commits_its_acquisition_leaves_no_lease(tmp_path: Path) -> None:
    database = database_for(tmp_path).create()
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FROM head%' AND pid IN"
    with running(database.url) as server:
        with asyncio.Runner() as runner:
            holder = runner.run(asyncpg.connect(database.url))
            runner.run(holder.execute("BEGIN"))
            runner.run(holder.execute("SELECT FROM head FOR UPDATE"))
            (row,) = runner.run(holder.fetch("SELECT pg_backend_pid()"))
            blocked = f"(SELECT pid FROM pg_stat_activity WHERE {row[0]} = ANY(pg_blocking_pids(pid)))"
            with Wire(server) as wire:
                wire.send(ACQUIRE)
                until(lambda: database.fetch(f"{waiting} {blocked}"))
            runner.run(holder.execute("COMMIT"))
            runner.run(holder.close())
        assert seconds_until_free(server) < SOON_SECONDS
        assert server.revision() == 3, "the lease was granted, released, and granted to the next"


# The database's answer is lost --------------------------------------------------------------------------------


class Cut:
    """Cuts the connection to the database before the answer to the next COMMIT. Further connections are blocked."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._is_committing = False
        self.is_away = False
        self.commits = 0

    def arm(self) -> None:
        self._proxy.to_server, self._proxy.to_client = self._to_server, self._to_client

    def disarm(self) -> None:
        self._proxy.to_server = self._proxy.to_client = None
        self.is_away = False

    def _to_server(self, data: bytes) -> int | None:
        self._is_committing = self._is_committing or BIND_COMMIT in data
        return 0 if self.is_away else None

    def _to_client(self, _: bytes) -> int | None:
        if not self._is_committing:
            return None
        self.commits += 1
        self._is_committing, self.is_away = False, True
        return 0


@asynccontextmanager
async def store_behind_a_proxy(database: Database) -> AsyncIterator[tuple[Store, Cut]]:
    """A store whose writing connection goes through the proxy."""
    async with Proxy(database.port) as proxy:
        backend = PostgresEngine(database.url)
        stores = Stores(backend, Limits())
        await stores.start()
        space = backend.space()
        space._database.writer._link._address = Address(database.at(f"127.0.0.1:{proxy.port}"))
        space._database.writer._link.drop()
        try:
            yield stores.default, Cut(proxy)
        finally:
            await stores.close()


def acquisition(lease_id: str) -> Acquire:
    return Acquire("l", lease_id, LONG * SECOND)


async def submit(store: Store, operation: Operation) -> Outcome | ServiceError:
    result: asyncio.Future[Outcome | ServiceError] = asyncio.get_running_loop().create_future()
    store.submit(operation, result.set_result)
    return await result


async def in_time(soon: Awaitable[Lease]) -> Lease:
    async with asyncio.timeout(SOON_SECONDS):
        return await soon


def scenario(
    test: Callable[[Store, Cut], Awaitable[None]], *, patience_seconds: float = 0.5
) -> Callable[[Path, pytest.MonkeyPatch], None]:
    """Run a test on its own database. The engine gives up after `patience_seconds`."""

    def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fault, "RETRY_SECONDS", patience_seconds)
        monkeypatch.setattr(committer, "RESOLVE_SECONDS", patience_seconds)
        monkeypatch.setattr(listener, "RELISTEN_SECONDS", 0.01)

        async def on_a_database() -> None:
            async with store_behind_a_proxy(database) as (store, cut):
                await submit(store, Release("another"))  # connects and prepares its statements
                cut.arm()
                await test(store, cut)
                assert cut.commits == 1

        database = database_for(tmp_path).create()
        run(on_a_database())

    scene.__name__ = test.__name__
    scene.__doc__ = test.__doc__
    return scene


patient_scenario = partial(scenario, patience_seconds=SOON_SECONDS)
"""For a test that brings the database back itself. On a busy machine it may need more than half a second for that."""


@patient_scenario
async def test_an_acquisition_whose_lost_commit_is_found_is_granted(store: Store, cut: Cut) -> None:
    asking = asyncio.create_task(acquired(store, acquisition("1"), 0))
    while not cut.is_away:  # noqa: ASYNC110 - waits for the proxy
        await asyncio.sleep(0.01)
    cut.disarm()
    lease = await in_time(asking)
    assert (lease.lease_id, lease.token) == ("1", 1)
    assert await store.lease("l") == lease


@patient_scenario
async def test_news_of_other_servers_that_come_while_an_outcome_is_looked_for_are_told_afterwards(
    store: Store, cut: Cut
) -> None:
    asking = asyncio.create_task(acquired(store, acquisition("1"), 0))
    while not store.space._committer.is_in_doubt:  # type: ignore[attr-defined] # noqa: ASYNC110 - of PostgreSQL
        await asyncio.sleep(0.01)
    told: list[object] = []
    store.space.subscribe(LEASE, lambda _revision, changes: told.append(changes))
    store.space._looked(1, store.space.incarnation, may_have_missed=True)  # type: ignore[attr-defined] # of PostgreSQL
    assert told == []
    cut.disarm()
    await in_time(asking)
    assert None in told


@scenario
async def test_an_acquisition_with_an_unknown_outcome_is_released(store: Store, cut: Cut) -> None:
    with pytest.raises(ServiceError) as caught:
        await acquired(store, acquisition("1"), 0)
    assert (caught.value.code, caught.value.message) == (
        "unavailable",
        "the change may or may not have been stored",
    )
    lost = await store.lease("l")
    assert lost is not None, "the release must have been stored"
    assert lost.lease_id == "1"
    cut.disarm()
    while store.space.fault is not None:  # noqa: ASYNC110 - waits for housekeeping
        await asyncio.sleep(0.01)
    assert (await in_time(acquired(store, acquisition("2"), LONG))).lease_id == "2"


@scenario
async def test_a_release_with_an_unknown_outcome_wakes_the_waiters(store: Store, cut: Cut) -> None:
    """They are woken when the database is back and not before, because a failing attempt would remove them from the
    queue. The head is read in the meantime, because the connection that listens is lost, too."""
    cut.disarm()
    await acquired(store, acquisition("1"), 0)
    waiting = asyncio.create_task(acquired(store, acquisition("2"), LONG))
    while store.waiting_for("l") < 1:  # noqa: ASYNC110 - a waiter signals nothing when it arrives
        await asyncio.sleep(0)
    await submit(store, Release("another"))  # after the waiter's attempt
    cut.arm()
    releasing = asyncio.create_task(submit(store, Release("l", "1")))
    while not cut.is_away:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    store.space._database.listener._link.drop()  # type: ignore[attr-defined] # of PostgreSQL
    outcome = await releasing
    assert isinstance(outcome, ServiceError)
    assert outcome.code == "unavailable"
    assert await store.lease("l") is None, "the release must have been stored"
    assert not waiting.done()
    cut.disarm()
    assert (await in_time(waiting)).lease_id == "2"
