"""What is published on PostgreSQL: own commits, commits of other servers, and commits that may have been missed."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import count

import asyncpg
import pytest
from databases import (
    Database,
    Heard,
    commit,
    commit_touching,
    counting,
    opened,
    opened_space,
    read,
    read_record,
    run,
    shared_server_url,
    subscribed,
    writing,
)
from running import ANSWER_SECONDS

from leasehold.engines.base import Decide
from leasehold.engines.postgres import head_statements, listener, space
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.engines.postgres.feed import Feed
from leasehold.engines.postgres.listener import Listener
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.errors import ServiceError, unavailable
from leasehold.model import (
    ENTRY,
    KINDS,
    LEASE,
    Change,
    Deletion,
    Entry,
    Lease,
    LeaseEnd,
    QuotaChange,
    Touched,
    View,
)

_numbers = count(1)

LOOKED: set[PostgresSpace] = set()
"""The spaces that have published what they may have missed before."""


@pytest.fixture
def database() -> Database:
    return Database(shared_server_url(), f"feed_{next(_numbers)}").create()


@pytest.fixture(autouse=True)
def _noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill LOOKED."""
    looked = PostgresSpace._looked

    def noted(self: PostgresSpace, revision: int, incarnation: str | None, may_have_missed: bool) -> None:  # noqa: FBT001
        looked(self, revision, incarnation, may_have_missed)
        LOOKED.add(self)

    monkeypatch.setattr(PostgresSpace, "_looked", noted)
    yield
    LOOKED.clear()


def leasing(lock: str) -> Decide:
    def decide(_view: View, revision: int, now: int) -> Sequence[Change]:
        return [Lease(lock, "id", revision + 1, revision + 1, now, now + 10**9, 10**9, "", b"null")]

    return decide


def releasing(lock: str) -> Decide:
    return lambda _view, revision, _now: [LeaseEnd(lock, revision + 1)]


async def commit_lease(space: PostgresSpace, decide: Decide) -> None:
    assert await commit_touching(space, Touched({LEASE: ["l"]}), decide) is None


async def listens(*spaces: PostgresSpace) -> None:
    """Wait until the spaces listen and have published what they may have missed before."""
    async with asyncio.timeout(ANSWER_SECONDS):
        while not LOOKED.issuperset(spaces):  # noqa: ASYNC110 - the event is in the listener
            await asyncio.sleep(0.01)


async def next_of(heard: Heard) -> tuple[int, Sequence[Change] | None]:
    async with asyncio.timeout(ANSWER_SECONDS):
        return await heard.get()


def all_of(heard: Heard) -> list[tuple[int, Sequence[Change] | None]]:
    """All publications so far."""
    return [heard.get_nowait() for _ in range(heard.qsize())]


# Own commits --------------------------------------------------------------------------------------------------


def test_a_commit_is_published_with_the_changes_of_each_kind_after_its_completion(database: Database) -> None:
    def decide(_view: View, revision: int, now: int) -> Sequence[Change]:
        return [
            Entry("a", b"1", revision + 1, now, now),
            Lease("l", "id", revision + 2, revision + 2, now, now + 10**9, 10**9, "", b"null"),
            Deletion("b", revision + 3),
        ]

    async def scenario() -> None:
        async with opened(database.url) as space:
            await listens(space)
            order: list[str] = []
            heard = {kind: subscribed(space, kind) for kind in KINDS}
            space.subscribe(ENTRY, lambda *_: order.append("published"))
            finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def done(error: ServiceError | None) -> None:
                assert error is None
                order.append("done")
                finished.set_result(None)

            space.commit(Touched({ENTRY: ["a", "b"], LEASE: ["l"]}), decide, done)
            await finished
            [(revision, entries)], [(_, leases)] = all_of(heard[ENTRY]), all_of(heard[LEASE])
            assert order == ["done", "published"]
            assert revision == space.revision == 3
            assert [type(change) for change in entries or ()] == [Entry, Deletion]
            assert [type(change) for change in leases or ()] == [Lease]
            # Its notification arrives, too, and must not be published again.
            await commit(space, ["a"], counting("a"))
            assert all_of(heard[LEASE]) == []
            assert [revision for revision, _ in all_of(heard[ENTRY])] == [4]

    run(scenario())


def test_a_commit_is_published_even_if_a_completion_raises(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url) as space:
            await listens(space)
            heard = subscribed(space, ENTRY)
            calls: list[ServiceError | None] = []

            def done(error: ServiceError | None) -> None:
                calls.append(error)
                if len(calls) == 1:
                    raise MemoryError

            space.commit(Touched({ENTRY: ["a"]}), writing("a", b"1"), done)
            assert space._committing is not None
            await space._committing
            assert [error and error.code for error in calls] == [None, "unavailable"]
            await space.recover()
            published = all_of(heard)
            assert published[-1] == (1, None)
            assert await read(space, "a") is not None

    run(scenario())


def test_the_end_of_a_lease_is_published_with_a_delay_while_other_servers_are_connected(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later publications of the kind wait, so that the order stays."""
    delays: list[float] = []
    publish = Feed.publish

    def watched(
        self: Feed, kind: object, revision: int, changes: Sequence[Change] | None, *, delay_seconds: float = 0.0
    ) -> None:
        if changes is not None:
            delays.append(delay_seconds)
        publish(self, kind, revision, changes, delay_seconds=delay_seconds)  # type: ignore[arg-type]

    monkeypatch.setattr(Feed, "publish", watched)

    async def scenario() -> None:
        async with opened(database.url) as here, opened(database.url) as there:
            await listens(here, there)
            heard = subscribed(here, LEASE)
            await commit_lease(here, leasing("l"))
            await commit_lease(here, releasing("l"))
            assert delays == [0.0, 0.0]
            heard_there = subscribed(there, ENTRY), subscribed(here, ENTRY)
            assert await commit(there, ["a"], counting("a")) is None
            assert await next_of(heard_there[1]) == (3, None)
            all_of(heard)
            del delays[:]
            await commit_lease(here, leasing("l"))
            await commit_lease(here, releasing("l"))
            await commit(here, ["a"], counting("a"))
            await commit_lease(here, leasing("l"))
            assert delays == [0.0, space.YIELD_SECONDS, 0.0, 0.0]
            published = [await next_of(heard) for _ in range(3)]
            assert [type(changes[0]) for _, changes in published if changes] == [Lease, LeaseEnd, Lease]
            revisions = [revision for revision, _ in published]
            assert revisions == sorted(revisions)

    run(scenario())


def test_a_commit_that_is_found_in_the_head_shows_that_other_servers_are_connected(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its notification may not be there yet, or may be sent later."""
    monkeypatch.setattr(Listener, "_hear", lambda *_: None)
    monkeypatch.setattr(listener, "POLL_SECONDS", 3_600.0)

    async def scenario() -> None:
        async with opened(database.url) as here, opened(database.url) as there:
            await listens(here, there)
            assert await commit(there, ["a"], counting("a")) is None
            assert not here._database.listener.hears_others("default")
            await commit_lease(here, leasing("l"))
            assert here._database.listener.hears_others("default")

    run(scenario())


# Commits of other servers -------------------------------------------------------------------------------------


def test_a_commit_of_another_server_is_published_without_changes_and_for_its_kinds_only(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url) as here, opened(database.url) as there:
            await listens(here, there)
            heard = {kind: subscribed(here, kind) for kind in KINDS}
            assert await commit(there, ["a"], counting("a")) is None
            assert await next_of(heard[ENTRY]) == (1, None)
            assert all_of(heard[LEASE]) == []
            await commit_lease(there, leasing("l"))
            assert await next_of(heard[LEASE]) == (2, None)
            assert all_of(heard[ENTRY]) == []

    run(scenario())


@pytest.mark.parametrize("payload", ["1", "freed\x1fl", "1\x1freceipt\x1flease"])
def test_notifications_of_other_versions_are_understood(database: Database, payload: str) -> None:
    """Version 0.1 gives no kinds. A later version may give kinds that this one does not know."""
    of_older = payload == "1"

    async def scenario() -> None:
        async with opened(database.url) as space:
            await listens(space)
            heard = {kind: subscribed(space, kind) for kind in KINDS}
            connection = await asyncpg.connect(database.url)
            for each in (payload, "1", "2\x1fentry"):
                await connection.execute("SELECT pg_notify('leasehold', $1)", f"{database.schema}/default/{each}")
                if each == "1" and of_older:
                    break
            await connection.close()
            assert (await next_of(heard[LEASE]))[1] is None, "leases may have changed"
            if of_older:
                assert await next_of(heard[ENTRY]) == (1, None)
            assert space.revision >= 1

    run(scenario())


def test_a_server_of_the_previous_version_reads_the_revision_from_a_notification(database: Database) -> None:
    """It splits the text after the namespace at U+001F, and reads the first part if it is a number."""

    async def scenario() -> list[str]:
        payloads: list[str] = []
        async with opened(database.url) as space:
            older = await asyncpg.connect(database.url)
            heard = asyncio.Event()

            def hear(_connection: object, _process: int, _channel: str, payload: object) -> None:
                payloads.append(str(payload))
                heard.set()

            await older.add_listener(head_statements.CHANNEL, hear)
            await commit_lease(space, leasing("l"))
            async with asyncio.timeout(ANSWER_SECONDS):
                await heard.wait()
            await older.close()
        return [part for part in payloads if part.startswith(f"{database.schema}/default/")]

    [payload] = run(scenario())
    notice, *_ = payload.removeprefix(f"{database.schema}/default/").split("\x1f")
    assert notice == "1"


# Commits that may have been missed ----------------------------------------------------------------------------


def test_every_kind_is_published_after_a_reconnection_even_if_the_head_is_known(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "RELISTEN_SECONDS", 0.01)

    async def scenario() -> None:
        async with opened(database.url) as space:
            await listens(space)
            assert await commit(space, ["a"], counting("a")) is None
            heard = {kind: subscribed(space, kind) for kind in KINDS}
            assert space._database.listener._link._connection is not None
            space._database.listener._link._connection.terminate()
            assert [await next_of(of_kind) for of_kind in heard.values()] == [(1, None)] * len(KINDS)

    run(scenario())


def test_missed_commits_of_other_servers_are_published_before_an_own_commit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a subscriber that gets changes has already got the earlier ones, or a publication without changes."""
    monkeypatch.setattr(Listener, "_hear", lambda *_: None)
    monkeypatch.setattr(listener, "POLL_SECONDS", 3_600.0)

    async def scenario() -> None:
        async with opened(database.url) as here, opened(database.url) as there:
            await listens(here, there)
            await commit_lease(there, leasing("l"))
            heard = {kind: subscribed(here, kind) for kind in KINDS}
            assert await commit(here, ["a"], counting("a")) is None
            assert all_of(heard[LEASE]) == [(2, None)]
            [unknown, (revision, changes)] = all_of(heard[ENTRY])
            assert unknown == (2, None)
            assert (revision, len(changes or ())) == (2, 1)

    run(scenario())


def test_nothing_is_published_while_the_store_is_degraded_and_every_kind_afterwards(database: Database) -> None:
    """Waiters that tried in that time would be refused and lose their places in the queue."""

    async def scenario() -> None:
        async with opened(database.url) as here, opened(database.url) as there:
            await listens(here, there)
            heard = {kind: subscribed(here, kind) for kind in KINDS}
            here._fault.note(unavailable("away"))
            await commit_lease(there, leasing("l"))
            async with asyncio.timeout(ANSWER_SECONDS):
                while here.revision < 1:  # noqa: ASYNC110 - the event is another server's
                    await asyncio.sleep(0.01)
            assert [of_kind.qsize() for of_kind in heard.values()] == [0] * len(KINDS)
            await here.recover()
            assert here.fault is None
            assert [all_of(of_kind) for of_kind in heard.values()] == [[(1, None)]] * len(KINDS)

    run(scenario())


# Several spaces -----------------------------------------------------------------------------------------------


def test_spaces_of_one_engine_are_isolated_from_each_other(database: Database) -> None:
    async def scenario() -> None:
        engine = PostgresEngine(database.url)
        assert engine.space("one") is engine.space("one")
        await engine.open()
        for name in ("one", "two"):
            await engine.create(name, QuotaChange())
        async with opened_space(engine.space("one")) as one, opened_space(engine.space("two")) as two:
            heard = {kind: subscribed(two, kind) for kind in KINDS}
            for _ in range(3):
                assert await commit(one, ["a"], counting("a")) is None
            await commit_lease(one, leasing("l"))
            assert await commit(one, ["gone"], lambda _view, revision, _now: [Deletion("gone", revision + 1)]) is None
            assert (one.revision, two.revision) == (5, 0)
            assert one.incarnation != two.incarnation
            assert await read(two, "a") is None
            assert await read_record(two, LEASE, "l") is None
            assert (await two.scan(ENTRY, "", None, 10)).records == []
            assert (await two.changes(ENTRY, 0, "", 10)).changes == []
            first_look = (0, None)
            assert {each for of_kind in heard.values() for each in all_of(of_kind)} <= {first_look}
            assert await commit(two, ["a"], counting("a")) is None
            assert [revision for revision, _ in all_of(heard[ENTRY]) if revision] == [1]
            entry = await read(one, "a")
            assert isinstance(entry, Entry)
            assert entry.value == b"3"
        await engine.close()

    run(scenario())


# The order ----------------------------------------------------------------------------------------------------


def test_a_publication_after_a_delayed_one_of_the_same_kind_waits_for_it() -> None:
    async def scenario() -> None:
        feed_ = Feed(lambda: True)
        heard: asyncio.Queue[tuple[int, object]] = asyncio.Queue()
        others: list[int] = []
        feed_.subscribe(LEASE, lambda revision, changes: heard.put_nowait((revision, changes)))
        feed_.subscribe(ENTRY, lambda revision, _changes: others.append(revision))
        feed_.publish(LEASE, 1, [], delay_seconds=0.05)
        feed_.publish(LEASE, 2, None)
        feed_.publish(LEASE, 3, [], delay_seconds=0.01)
        feed_.publish(ENTRY, 3, [])
        assert others == [3]
        assert heard.qsize() == 0
        async with asyncio.timeout(ANSWER_SECONDS):
            assert [(await heard.get())[0] for _ in range(3)] == [1, 2, 3]
        feed_.publish(LEASE, 4, [])
        assert heard.qsize() == 1
        feed_.publish(LEASE, 5, [], delay_seconds=0.01)
        feed_.close()
        await asyncio.sleep(0.05)
        assert heard.qsize() == 1

    run(scenario())


def test_what_was_withheld_is_delivered_once_as_unknown_changes() -> None:
    async def scenario() -> None:
        is_in_doubt = True
        heard: list[tuple[int, object]] = []
        feed_ = Feed(lambda: not is_in_doubt)
        feed_.subscribe(LEASE, lambda revision, changes: heard.append((revision, changes)))
        feed_.publish(LEASE, 1, [])
        feed_.publish_unknown([LEASE], 2)
        feed_.catch_up(2)
        assert heard == []
        is_in_doubt = False
        feed_.catch_up(3)
        feed_.catch_up(4)
        assert heard == [(3, None)]

    run(scenario())
