"""Namespaces on PostgreSQL: the spaces of a server share its connections, and servers learn what others do."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from databases import Database, commit, counting, database_for, opened_space, read, run, writing
from running import ANSWER_SECONDS

from leasehold.engines.backups import Backup, StoreMoment
from leasehold.engines.base import Decide, new_incarnation
from leasehold.engines.postgres import backups, cleaner, fault, listener, namespaces, pool
from leasehold.engines.postgres.committer import Batch, Committer
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.engines.postgres.known_head import GAP_REVISIONS
from leasehold.engines.postgres.links import Address, Connection
from leasehold.engines.postgres.listener import Listener
from leasehold.engines.postgres.namespace_statements import ADD_TO_SUMS, COUNT, DESCRIBE
from leasehold.engines.postgres.pipeline import Pipeline
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.engines.postgres.writer import Writer
from leasehold.engines.state import Description, empty_state
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, Binary, Change, Content, Deletion, Entry, Quota, QuotaChange, Usage, Value, View
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.values import parse_json

SPACES = 1_000
MANY = f"""
    INSERT INTO head (namespace, revision, compacted_revision, incarnation, created_at, summed_from, summed_to)
    SELECT 'n' || number, 0, 0, 'aaaaaa', now(), 0, 0 FROM generate_series(1, {SPACES}) AS number
"""
VALUE = '{"a":[1,2.50,"é"]}'.encode()
"""JSONB writes it with spaces."""


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_for(tmp_path).create()


@asynccontextmanager
async def opened_engine(url: str, *names: str) -> AsyncIterator[PostgresEngine]:
    """An engine, and namespaces in it."""
    engine = PostgresEngine(url)
    await engine.open()
    try:
        for name in names:
            await engine.create(name, QuotaChange())
        yield engine
    finally:
        await engine.close()


def code_of(result: object) -> str | None:
    return result.code if isinstance(result, ServiceError) else None


async def raised(coroutine: object) -> str | None:
    try:
        await coroutine  # type: ignore[misc] # any coroutine
    except ServiceError as error:
        return error.code
    return None


# Connections --------------------------------------------------------------------------------------------------


def test_the_number_of_connections_does_not_depend_on_the_number_of_spaces(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "WAIT_SECONDS", ANSWER_SECONDS)  # many lists wait for few connections
    url = f"{database.url}&application_name={database.schema}"
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{database.schema}'"
    names = [f"n{number}" for number in range(1, SPACES + 1)]

    async def scenario() -> int:
        """Use all spaces at the same time. Returns the number of connections after that."""
        async with opened_engine(url) as engine, AsyncExitStack() as stack:
            await execute(database, MANY)
            spaces = [await stack.enter_async_context(opened_space(engine.space(name))) for name in names]
            assert await asyncio.gather(*(commit(space, ["a"], counting("a")) for space in spaces)) == [None] * SPACES
            entries = await asyncio.gather(*(read(space, "a") for space in spaces))
            assert all(isinstance(entry, Entry) and entry.revision == 1 for entry in entries)
            pages = await asyncio.gather(*(space.scan(ENTRY, "", None, 10) for space in spaces))
            assert [page.revision for page in pages] == [1] * SPACES
            [row] = await asyncio.to_thread(database.fetch, sessions)
            return int(row[0])

    assert run(scenario()) == 6


def test_a_space_can_be_used_after_another_one_was_closed(database: Database) -> None:
    async def scenario() -> None:
        async with opened_engine(database.url, "stays", "goes") as engine:
            async with opened_space(engine.space("stays")) as stays:
                async with opened_space(engine.space("goes")) as goes:
                    assert await commit(goes, ["a"], counting("a")) is None
                assert await commit(stays, ["a"], counting("a")) is None
                assert isinstance(await read(stays, "a"), Entry)
                assert code_of(await read(goes, "a")) == "unavailable"
            async with opened_space(engine.space("goes")) as goes:
                assert isinstance(await read(goes, "a"), Entry)

    run(scenario())


# Creation and deletion ----------------------------------------------------------------------------------------


def test_another_server_knows_a_namespace_as_soon_as_it_is_created(database: Database) -> None:
    async def scenario() -> None:
        async with opened_engine(database.url) as here, opened_engine(database.url) as there:
            assert await raised(there.space("new").open()) == "no_such_namespace"
            made, is_new = await here.create("new", QuotaChange(max_entries=5))
            assert (is_new, made.quota) == (True, Quota(5, None))
            assert await there.create("new", QuotaChange(max_bytes=9)) == (await here.namespace("new"), False)
            assert (await here.namespace("new")).quota == Quota(5, 9)
            assert [each.name for each in await there.namespaces(None, 10)] == ["default", "new"]
            assert [each.name for each in await there.namespaces("default", 10)] == ["new"]
            async with opened_space(there.space("new")) as space:
                assert await commit(space, ["a"], counting("a")) is None

    run(scenario())


def test_no_commit_of_any_server_succeeds_after_a_deletion(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if notifications are lost: the commit finds out."""
    monkeypatch.setattr(Listener, "_hear", lambda *_: None)

    async def scenario() -> None:
        async with opened_engine(database.url, "n") as here, opened_engine(database.url) as there:
            told: list[str] = []
            there.subscribe(told.append)
            async with opened_space(here.space("n")) as near, opened_space(there.space("n")) as far:
                assert await commit(near, ["a"], counting("a")) is None
                assert await commit(far, ["a"], counting("a")) is None
                assert await here.delete("n") == 3
                assert code_of(await commit(near, ["a"], counting("a"))) == "no_such_namespace"
                assert code_of(await read(near, "a")) == "no_such_namespace"
                assert code_of(await commit(far, ["a"], counting("a"))) == "no_such_namespace"
                assert code_of(await read(far, "a")) == "no_such_namespace"
                assert told == ["n"]
            assert await raised(here.delete("n")) == "no_such_namespace"
            assert await raised(there.namespace("n")) == "no_such_namespace"
            assert await raised(there.space("n").open()) == "no_such_namespace"
            assert [each.name for each in await there.namespaces(None, 10)] == ["default"]

    run(scenario())
    kept = database.fetch("SELECT revision FROM head WHERE namespace = 'n'")
    assert [row[0] for row in kept] == [3]
    assert database.fetch("SELECT FROM data UNION ALL SELECT FROM batches") == []


@pytest.mark.parametrize("is_heard", [True, False])
def test_another_server_is_told_of_a_deletion(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    is_heard: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """By a notification or, if it is lost, by the next look at the heads."""
    if not is_heard:
        monkeypatch.setattr(listener, "POLL_SECONDS", 0.05)
        monkeypatch.setattr(Listener, "_hear", lambda *_: None)

    async def scenario() -> None:
        async with opened_engine(database.url, "n", "other") as here, opened_engine(database.url) as there:
            told: asyncio.Queue[str] = asyncio.Queue()
            there.subscribe(told.put_nowait)
            async with opened_space(there.space("n")) as far, opened_space(there.space("other")) as other:
                await here.delete("n")
                async with asyncio.timeout(ANSWER_SECONDS):
                    assert await told.get() == "n"
                assert code_of(await read(far, "a")) == "no_such_namespace"
                assert await commit(other, ["a"], counting("a")) is None

    run(scenario())


def test_a_namespace_that_is_created_again_is_empty_and_continues_after_its_last_revision(database: Database) -> None:
    async def scenario() -> None:
        async with opened_engine(database.url, "n") as engine:
            async with opened_space(engine.space("n")) as space:
                for _ in range(3):
                    assert await commit(space, ["a"], counting("a")) is None
                incarnation = space.incarnation
                await engine.delete("n")
            made, is_new = await engine.create("n", QuotaChange())
            assert (is_new, made.revision, made.usage, made.quota) == (True, 4, Usage(0, 0), Quota())
            async with opened_space(engine.space("n")) as space:
                assert space.incarnation != incarnation
                assert await read(space, "a") is None
                assert await commit(space, ["b"], counting("b")) is None
                entry = await read(space, "b")
                assert isinstance(entry, Entry)
                assert entry.revision == 5
                assert await raised(space.changes(ENTRY, 3, "", 10)) == "revision_compacted"

    run(scenario())


def test_what_an_interrupted_deletion_leaves_is_removed_by_the_cleaner_or_by_the_next_creation(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without harm to a namespace that exists."""
    monkeypatch.setattr(namespaces, "REMOVED_AT_ONCE", 2)
    monkeypatch.setattr(cleaner, "LEFTOVERS_SECONDS", 0.0)
    rows = "SELECT namespace FROM data ORDER BY namespace"

    async def scenario() -> None:
        names = ("left", "stays", "again")
        async with opened_engine(database.url, *names) as engine:
            for name in names:
                async with opened_space(engine.space(name)) as space:
                    for key in "abcde":
                        assert await commit(space, [key], counting(key)) is None
            database_rows = await asyncio.to_thread(database.fetch, rows)
            assert len(database_rows) == 15
            mark = "UPDATE head SET deleted_at = now(), summed_to = NULL WHERE namespace IN ('left', 'again')"
            await asyncio.to_thread(database.execute, mark)
            await engine.create("again", QuotaChange())
            assert (await engine.namespace("again")).usage == Usage(0, 0)
            await engine.expired(10)
            assert {row[0] for row in await asyncio.to_thread(database.fetch, rows)} == {"stays"}
            await engine._database.cleaner.empty("stays")
            assert len(await asyncio.to_thread(database.fetch, rows)) == 5

    run(scenario())


def test_the_rest_of_a_large_namespace_is_removed_in_several_calls_of_the_cleaner(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what has expired in other namespaces does not wait for all of it."""
    monkeypatch.setattr(namespaces, "REMOVED_AT_ONCE", 1)
    monkeypatch.setattr(cleaner, "LEFTOVER_PORTIONS", 2)

    async def scenario() -> list[int]:
        async with opened_engine(database.url, "n") as engine:
            async with opened_space(engine.space("n")) as space:
                for key in "abcde":
                    assert await commit(space, [key], counting(key)) is None
            await execute(database, "UPDATE head SET deleted_at = now(), summed_to = NULL WHERE namespace = 'n'")
            left = []
            for _ in range(3):
                await engine.expired(10)
                left.append(len(await asyncio.to_thread(database.fetch, "SELECT FROM data")))
            return left

    assert run(scenario()) == [3, 1, 0]


def test_a_repeated_deletion_spares_a_namespace_that_was_created_since(database: Database) -> None:
    """The answer of the first attempt was lost, and another server has created the namespace again."""

    async def scenario() -> None:
        async with opened_engine(database.url, "n") as engine:
            connection = await Address(database.url).connect()
            deleting = namespaces.Deleting("n", now=1)
            assert await deleting.attempt(connection) == 1
            assert await deleting.attempt(connection) == 1
            await engine.create("n", QuotaChange())
            assert await deleting.attempt(connection) == 1
            await connection.close()
            assert (await engine.namespace("n")).revision == 1

    run(scenario())


def test_a_count_that_begins_after_a_deletion_does_not_end_the_removal_of_the_rows(database: Database) -> None:
    """Whoever lists namespaces counts them one after another, and one may be deleted meanwhile."""

    async def scenario() -> None:
        async with opened_engine(database.url, "n") as engine:
            async with opened_space(engine.space("n")) as space:
                assert await commit(space, ["a"], counting("a")) is None
            await execute(database, "UPDATE head SET deleted_at = now(), summed_to = NULL WHERE namespace = 'n'")
            connection = await Address(database.url).connect()
            assert await namespaces.count(connection, "n") is None
            await connection.close()
            made, is_new = await engine.create("n", QuotaChange())
            assert (is_new, made.usage) == (True, Usage(0, 0))
            assert await asyncio.to_thread(database.fetch, "SELECT FROM data") == []

    run(scenario())


# Usage and quotas ---------------------------------------------------------------------------------------------

FORGET = "UPDATE head SET summed_to = NULL"
"""As in a store of the version before, or after a commit of one of its servers: they do not count."""
OLDER = """
    WITH head AS (UPDATE head SET revision = revision + 1 WHERE namespace = 'n' RETURNING revision)
    INSERT INTO data (namespace, key, data, revision, created_at, updated_at)
    SELECT 'n', 'old', '1', revision, now(), now() FROM head
    ON CONFLICT (namespace, key) DO UPDATE SET data = '12', revision = excluded.revision
"""
"""A commit of such a server: the first one adds 4 bytes, the second one adds 1."""


@asynccontextmanager
async def opened_namespace(database: Database) -> AsyncIterator[tuple[PostgresEngine, PostgresSpace]]:
    async with opened_engine(database.url, "n") as engine, opened_space(engine.space("n")) as space:
        yield engine, space


async def usage_of(engine: PostgresEngine) -> Usage:
    return (await engine.namespace("n")).usage


async def execute(database: Database, statement: str) -> None:
    await asyncio.to_thread(database.execute, statement)


async def is_counted(database: Database) -> bool:
    rows = await asyncio.to_thread(database.fetch, DESCRIBE, "n")
    return bool(rows[0]["is_counted"])


def removing(key: str) -> Decide:
    return lambda _view, revision, _now: [Deletion(key, revision + 1)]


def test_usage_is_the_sum_over_all_entries_after_each_kind_of_change(database: Database) -> None:
    large = b'{"a":"%b","b":1}' % (b"x" * 40_000)

    async def scenario() -> None:
        async with opened_namespace(database) as (engine, space):
            assert await commit(space, ["é"], writing("é", VALUE)) is None
            assert await usage_of(engine) == Usage(1, 2 + len(VALUE))
            assert await commit(space, ["é"], writing("é", b"1e300")) is None
            assert await usage_of(engine) == Usage(1, 2 + 5)
            for value in (large, large.replace(b'"b":1', b'"b":100'), large[:-7] + b"}"):
                assert await commit(space, ["large"], writing("large", value)) is None
                assert await usage_of(engine) == Usage(2, 2 + 5 + 5 + len(value))
            assert await commit(space, ["é"], removing("é")) is None
            assert await commit(space, ["é"], removing("é")) is None
            assert await usage_of(engine) == Usage(1, 5 + len(large) - 6)

    run(scenario())


def test_a_record_that_was_changed_without_being_loaded_counts_too(database: Database) -> None:
    """As the oldest version of a state of Terraform."""

    async def scenario() -> None:
        async with opened_namespace(database) as (engine, space):
            for key in ("a", "b", "c"):
                assert await commit(space, [key], writing(key, VALUE)) is None
            assert await commit(space, ["a"], removing("b")) is None
            assert await usage_of(engine) == Usage(2, 2 + 2 * len(VALUE))
            assert await commit(space, ["a"], removing("missing")) is None
            assert await commit(space, ["a"], writing("c", b"12")) is None
            assert await usage_of(engine) == Usage(2, 2 + len(VALUE) + 2)
            assert await commit(space, [], writing("new", b"1")) is None
            assert await usage_of(engine) == Usage(3, 2 + len(VALUE) + 2 + 4)

    run(scenario())


VALUES: tuple[Value, ...] = (
    *(b"1", b"-1.5", b"-0.0", b"1e300", b"[-0.0,1]", b"null", b"true", b'""', b"[]", b"{}", b"[[],{}]"),
    *(b'" "', b'"a, b: c"', b'[" ",", ",": "]', b'{"a b":" c ","d":[1,2,{"e":null}]}'),
    *(b'"\\""', b'["\\"","\\\\"," \\" , "]', b'{"\\\\":"\\n\\t\\u0001 \x7f"}', '{"ä ö":"€ 😀"}'.encode()),
    *(Binary("image/png", Content(b"\0 \1")), Binary("text/plain", Content(b""))),
)


def test_a_count_gives_what_the_commits_have_added(database: Database) -> None:
    """JSONB has spaces between the parts of a value, which do not count; those within strings do."""

    async def scenario() -> None:
        async with opened_namespace(database) as (engine, space):
            for number, value in enumerate(VALUES):
                if not isinstance(value, Binary):
                    assert parse_json(value) == value
                assert await commit(space, [str(number)], writing(str(number), value)) is None
            expected = Usage(len(VALUES), sum(len(value) + len(str(number)) for number, value in enumerate(VALUES)))
            assert await usage_of(engine) == expected
            await execute(database, FORGET)
            assert await usage_of(engine) == expected
            for number in range(len(VALUES)):
                assert await commit(space, [str(number)], removing(str(number))) is None
            assert await usage_of(engine) == Usage(0, 0)

    run(scenario())


def test_usage_is_counted_again_after_a_server_of_an_earlier_version_has_committed(database: Database) -> None:
    async def scenario() -> None:
        async with opened_namespace(database) as (engine, space):
            assert await commit(space, ["a"], writing("a", b"1")) is None
            await execute(database, OLDER)
            assert not await is_counted(database)
            assert await usage_of(engine) == Usage(2, 6)
            assert await is_counted(database)
            await execute(database, OLDER)
            assert await commit(space, ["a"], writing("a", b"12")) is None
            assert not await is_counted(database)
            assert await usage_of(engine) == Usage(2, 8)
            assert await commit(space, ["old"], removing("old")) is None
            assert await is_counted(database)
            assert await usage_of(engine) == Usage(1, 3)

    run(scenario())


@pytest.mark.parametrize(
    "commits", ["", "here", "older", "here older", "older here", "count", "here count", "count here"]
)
@pytest.mark.parametrize("before", ["", "here"])
def test_a_count_is_right_whatever_happens_meanwhile(database: Database, commits: str, before: str) -> None:
    """Only a commit of a server of an earlier version prevents that it is noted."""

    async def scenario() -> None:
        async with opened_namespace(database) as (engine, space):

            async def happens(what: str) -> None:
                for each in what.split():
                    if each == "here":
                        assert await commit(space, ["a"], counting("a")) is None
                    elif each == "older":
                        await execute(database, OLDER)
                    else:
                        assert await namespaces.count(other, "n") is not None

            assert await commit(space, ["a", "b"], counting("b")) is None
            await execute(database, OLDER)
            await happens(before)
            address = Address(database.url)
            connection, other = await address.connect(), await address.connect()
            [[revision, entries, size, *counted]] = await connection.fetch(COUNT, "n")
            await happens(commits)
            await connection.execute(ADD_TO_SUMS, "n", revision, counted[0] - entries, counted[1] - size)
            await connection.close()
            await other.close()
            assert await is_counted(database) == ("older" not in commits)
            shown = await usage_of(engine)
            await execute(database, FORGET)
            assert await usage_of(engine) == shown

    run(scenario())


def test_a_commit_counts_under_a_quota_if_the_usage_is_not_known(database: Database) -> None:
    seen: list[Usage] = []

    def looking(view: View, revision: int, now: int) -> Sequence[Change]:
        seen.append(view.usage)
        return [Entry("b", b"1", revision + 1, now, now)]

    async def scenario() -> Usage:
        async with opened_namespace(database) as (engine, space):
            await engine.create("n", QuotaChange(max_entries=10))
            for _ in range(2):
                await execute(database, OLDER)
                assert await commit(space, ["b"], looking) is None
            assert await commit(space, ["b"], looking) is None
            assert await is_counted(database)
            return await usage_of(engine)

    assert run(scenario()) == Usage(2, 7)
    assert seen == [Usage(1, 4), Usage(2, 7), Usage(2, 7)]


def test_the_next_commit_counts_nothing_after_a_quota_was_set(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> Usage:
        pytest.fail("all other commits wait for it")

    async def scenario() -> None:
        async with opened_namespace(database) as (engine, space):
            assert await commit(space, ["a"], counting("a")) is None
            await execute(database, FORGET)
            await engine.create("n", QuotaChange(max_entries=10))
            monkeypatch.setattr(Committer, "_counted", fail)
            assert await commit(space, ["a"], counting("a")) is None

    run(scenario())


def test_a_count_continues_without_its_caller_and_is_shared(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = namespaces.count
    begun, may_end = asyncio.Event(), asyncio.Event()
    calls = []

    async def slow(connection: Connection, name: str) -> namespaces.Counted | None:
        calls.append(name)
        begun.set()
        await may_end.wait()
        return await real(connection, name)

    async def scenario() -> None:
        async with opened_namespace(database) as (engine, _):
            await execute(database, FORGET)
            monkeypatch.setattr(namespaces, "count", slow)
            first = asyncio.create_task(usage_of(engine))
            await begun.wait()
            first.cancel()
            second = asyncio.create_task(usage_of(engine))
            await asyncio.wait([first])
            may_end.set()
            assert await second == Usage(0, 0)
            assert calls == ["n"]
            assert await is_counted(database)

    run(scenario())


def test_a_namespace_that_is_missing_in_an_older_state_of_the_database_does_not_exist(database: Database) -> None:
    """If it is created again, no revision is given out twice."""

    async def scenario() -> None:
        async with opened_namespace(database) as (engine, space):
            assert await commit(space, ["a"], counting("a")) is None
            await execute(database, "DELETE FROM head WHERE namespace = 'n'; DELETE FROM data")
            assert code_of(await commit(space, ["a"], counting("a"))) == "no_such_namespace"
            assert engine.fault is None
            await engine.create("n", QuotaChange())
            async with opened_space(engine.space("n")) as again:
                assert again is not space
                assert await commit(again, ["a"], counting("a")) is None
                entry = await read(again, "a")
                assert isinstance(entry, Entry)
                assert entry.revision > GAP_REVISIONS

    run(scenario())


# Offline ------------------------------------------------------------------------------------------------------


def test_a_restore_of_all_namespaces_keeps_what_was_changed_until_it_locked_them(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, kept = namespaces.descriptions, dict[str, Description]()
    backup = Backup({DEFAULT_NAMESPACE: Description()}, {DEFAULT_NAMESPACE: empty_state()}, has_several=True)

    async def keep(store: StoreMoment) -> Path:
        kept.update(store.namespaces)
        return tmp_path

    async def scenario() -> None:
        async with opened_engine(database.url, "n") as engine:

            async def found_first(connection: Connection) -> dict[str, Description]:
                found = await real(connection)
                monkeypatch.setattr(namespaces, "descriptions", real)
                await engine.create("n", QuotaChange(max_entries=5))
                await engine.create("new", QuotaChange())
                return found

            monkeypatch.setattr(namespaces, "descriptions", found_first)
            await backups.restore_all(
                database.url, backup, advance=0, keep=keep, make_incarnation=new_incarnation, now=1
            )
            assert [each.name for each in await engine.namespaces(None, 10)] == ["default"]

    run(scenario())
    assert list(kept) == ["default", "n", "new"]
    assert kept["n"].quota == Quota(5, None)


def test_an_advance_concerns_all_namespaces_also_deleted_ones(database: Database) -> None:
    """A database that was restored may have an older state of each of them."""

    async def scenario() -> list[tuple[str, int]]:
        async with opened_engine(database.url, "n", "gone") as engine:
            for name in ("n", "gone"):
                async with opened_space(engine.space(name)) as space:
                    assert await commit(space, ["a"], counting("a")) is None
            await engine.delete("gone")
        assert await backups.advance(database.url, by=1000, make_incarnation=new_incarnation, now=0) == 1000
        async with opened_engine(database.url) as engine:
            before = [(each.name, each.revision) for each in await engine.namespaces(None, 10)]
            made, is_new = await engine.create("gone", QuotaChange())
            assert (made.revision, made.usage, is_new) == (1002, Usage(0, 0), True)
            assert (await engine.namespace("n")).usage == Usage(1, 2)
            return before

    assert run(scenario()) == [("default", 1000), ("n", 1001)]


# Cleaning -----------------------------------------------------------------------------------------------------


def test_one_server_gets_what_has_expired_in_all_namespaces(database: Database) -> None:
    def expiring(_view: View, revision: int, now: int) -> Sequence[Change]:
        return [Entry("a", b"1", revision + 1, now, now, now + 1)]

    async def scenario() -> None:
        async with opened_engine(database.url, "one", "two") as here, opened_engine(database.url) as there:
            for name in ("one", "two"):
                async with opened_space(here.space(name)) as space:
                    assert await commit(space, ["a"], expiring) is None
            while len(found := await here.expired(10)) < 2:  # noqa: ASYNC110 - the event is the passing of time
                await asyncio.sleep(0.01)
            assert sorted(namespace for namespace, _, _ in found) == ["one", "two"]
            assert await there.expired(10) == []

    run(scenario())


@pytest.mark.parametrize("method", ["__aexit__", "_wake"])
def test_the_other_spaces_continue_after_a_commit_whose_end_has_failed(
    database: Database, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Also those that wait already."""
    real = getattr(Writer, method)
    calls = 0

    def fail_once(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise MemoryError
        return real(*arguments)

    async def scenario() -> None:
        async with opened_engine(database.url, "a", "b", "c") as engine, AsyncExitStack() as stack:
            spaces = [await stack.enter_async_context(opened_space(engine.space(name))) for name in ("a", "b", "c")]
            monkeypatch.setattr(Writer, method, fail_once)
            async with asyncio.timeout(ANSWER_SECONDS):
                ends = await asyncio.gather(*(commit(space, ["k"], counting("k")) for space in spaces))
            assert [end is None for end in ends] == [False, True, True]
            await spaces[0].recover()
            assert await commit(spaces[0], ["k"], counting("k")) is None

    run(scenario())


@pytest.mark.parametrize("recovers", [True, False])
def test_a_commit_that_has_waited_long_for_its_turn_is_repeated_unless_the_database_is_away(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, recovers: bool
) -> None:
    attempt = Committer._attempt
    is_over = asyncio.Event()
    attempts: list[str] = []

    async def fail(self: Committer, pipeline: Pipeline, batch: Batch, *, is_locked: bool) -> object:
        attempts.append(self._namespace)
        if self._namespace == "first":
            await is_over.wait()
        if not recovers or attempts.count("second") == 1:
            raise OSError
        return await attempt(self, pipeline, batch, is_locked=is_locked)

    async def scenario() -> None:
        async with opened_engine(database.url, "first", "second") as engine, AsyncExitStack() as stack:
            first, second = [
                await stack.enter_async_context(opened_space(engine.space(name))) for name in ("first", "second")
            ]
            monkeypatch.setattr(Committer, "_attempt", fail)
            monkeypatch.setattr(fault, "RETRY_SECONDS", 1.0 if recovers else 0.0)
            ends = asyncio.gather(*(commit(space, ["k"], counting("k")) for space in (first, second)))
            await asyncio.sleep(1.1)  # the second commit waits for longer than failures are retried
            is_over.set()
            async with asyncio.timeout(ANSWER_SECONDS):
                codes = [code_of(end) for end in await ends]
        assert codes == ([None, None] if recovers else ["unavailable", "unavailable"])
        assert attempts == (["first", "second", "second"] if recovers else ["first", "second"])

    run(scenario())
