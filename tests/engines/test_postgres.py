"""What the engine on PostgreSQL guarantees in addition to the conformance suite."""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from databases import (
    GUARDED_USER,
    Database,
    commit,
    counting,
    opened,
    read,
    run,
    shared_server_url,
    subscribed,
    until,
    writing,
)
from driving import Driver, json_text
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy import Proxy
from running import ANSWER_SECONDS

from leasehold import values
from leasehold.engines import open_engine
from leasehold.engines.base import Decide
from leasehold.engines.file.engine import FileEngine
from leasehold.engines.memory.engine import MemoryEngine
from leasehold.engines.postgres import differences, listener, record_statements, schema
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.engines.postgres.links import Address
from leasehold.engines.postgres.listener import Listener
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.engines.postgres.tables import entries
from leasehold.errors import ServiceError
from leasehold.keys import BEHIND_ANY_KEY
from leasehold.limits import KIB, MAX_NESTING, MIB
from leasehold.model import ENTRY, LEASE, Change, Deletion, Entry, Json, View

_numbers = count(1)


def new_database() -> Database:
    return Database(shared_server_url(), f"own_{next(_numbers)}").create()


@pytest.fixture
def database() -> Database:
    return new_database()


@pytest.fixture
def driver(database: Database) -> Iterator[Driver]:
    with Driver(PostgresEngine(database.url).space()) as driver:
        yield driver


# Several servers ----------------------------------------------------------------------------------------------


def test_commits_of_several_servers_have_consecutive_revisions(database: Database) -> None:
    seen: list[int] = []

    async def write(engine: PostgresSpace, key: str) -> None:
        def decide(view: View, revision: int, now: int) -> Sequence[Change]:
            changes = counting(key)(view, revision, now)
            decided.append(changes[0].revision)
            return changes

        for _ in range(50):
            decided: list[int] = []
            assert await commit(engine, [key], decide) is None
            seen.append(decided[-1])

    async def scenario() -> None:
        async with opened(database.url) as first, opened(database.url) as second:
            await asyncio.gather(write(first, "shared"), write(second, "shared"))
            entry = await read(first, "shared")
            assert isinstance(entry, Entry)
            assert (entry.value, entry.revision) == (b"100", 100)

    run(scenario())
    assert sorted(seen) == list(range(1, 101))


def test_a_batch_that_waited_for_another_server_sees_the_writes_of_that_server(database: Database) -> None:
    """The snapshot of its statement is from before it got the lock."""

    async def scenario() -> Entry | ServiceError | None:
        async with opened(database.url) as engine:
            assert await commit(engine, ["a"], counting("a")) is None
            other = await asyncpg.connect(database.url)
            await other.execute("BEGIN; SELECT * FROM head FOR UPDATE")
            waiting = asyncio.create_task(commit(engine, ["a"], counting("a")))
            await until_blocked(database)
            await other.execute("UPDATE data SET data = '41', revision = 2; UPDATE head SET revision = 2; COMMIT")
            await other.close()
            assert await waiting is None
            return await read(engine, "a")

    entry = run(scenario())
    assert isinstance(entry, Entry)
    assert (entry.value, entry.revision) == (b"42", 3)


async def until_blocked(database: Database) -> None:
    """Wait until a session waits for a lock in the database."""
    await until(database, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")


def test_the_time_of_a_batch_is_read_after_its_wait_for_other_servers(database: Database) -> None:
    times: list[int] = []

    def decide(_view: View, _revision: int, now: int) -> Sequence[Change]:
        times.append(now)
        return []

    async def scenario() -> int:
        async with opened(database.url) as engine:
            other = await asyncpg.connect(database.url)
            await other.execute("BEGIN; SELECT * FROM head FOR UPDATE")
            waiting = asyncio.create_task(commit(engine, ["a"], decide))
            await until_blocked(database)
            released = await other.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            await other.execute("COMMIT")
            await other.close()
            assert await waiting is None
            assert isinstance(released, int)
            return released

    released = run(scenario())
    assert times[-1] >= released


def test_a_commit_of_another_server_is_published(database: Database) -> None:
    async def scenario() -> int:
        async with opened(database.url) as first, opened(database.url) as second:
            await listening(database, 2)
            heard = subscribed(second, ENTRY)
            assert await commit(first, ["a"], counting("a")) is None
            async with asyncio.timeout(ANSWER_SECONDS):
                while await heard.get() != (1, None):
                    pass
            return second.revision

    assert run(scenario()) == 1


def test_a_commit_of_another_server_is_seen_without_notifications(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection pooler does not pass them on."""
    monkeypatch.setattr(listener, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(Listener, "_hear", lambda *_: None)

    async def scenario() -> None:
        async with opened(database.url) as first, opened(database.url) as second:
            heard = subscribed(second, LEASE)
            assert await commit(first, ["a"], counting("a")) is None
            async with asyncio.timeout(ANSWER_SECONDS):
                while await heard.get() != (1, None):  # nobody says which kind has changed
                    pass

    run(scenario())


async def listening(database: Database, servers: int) -> None:
    """Wait until so many servers have begun to listen, and have looked at the head once."""
    looked = "query LIKE 'SELECT namespace, revision, inc%' AND state = 'idle'"
    await until(database, f"SELECT count(*) >= {servers} FROM pg_stat_activity WHERE {looked}")


def test_notifications_of_another_store_in_the_same_database_are_ignored(database: Database) -> None:
    other = new_database()

    async def scenario() -> int:
        async with opened(database.url) as here, opened(other.url) as there:
            await listening(database, 2)
            for _ in range(3):
                await commit(there, ["a"], counting("a"))
            await commit(here, ["a"], counting("a"))
            return here.revision

    assert run(scenario()) == 1


# Tables -------------------------------------------------------------------------------------------------------


def test_servers_that_start_together_deploy_the_tables_once(database: Database) -> None:
    async def scenario() -> None:
        engines = [PostgresEngine(database.url).space() for _ in range(4)]
        await asyncio.gather(*(each.open() for each in engines))
        for each in engines:
            await each.close()

    run(scenario())
    assert [row[0] for row in database.fetch("SELECT version FROM leasehold_migrations")] == list(range(1, 10))


def test_migrations_are_run_once_and_in_order(driver: Driver, database: Database) -> None:
    scripts = [*schema.load_scripts(), "CREATE TABLE steps AS SELECT 10 AS step", "INSERT INTO steps VALUES (11)"]

    async def deploy(upto: int) -> None:
        connection = await Address(database.url).connect()
        await schema.deploy(connection, scripts[:upto], now=0)
        await connection.close()

    for upto in (10, 11, 11):
        run(deploy(upto))
    assert [row[0] for row in database.fetch("SELECT step FROM steps")] == [10, 11]
    versions = [row[0] for row in database.fetch("SELECT version FROM leasehold_migrations ORDER BY 1")]
    assert versions == list(range(1, 12))


def test_a_failed_migration_leaves_the_tables_as_they_were(driver: Driver, database: Database) -> None:
    async def deploy() -> None:
        connection = await Address(database.url).connect()
        try:
            await schema.deploy(connection, [*schema.load_scripts(), "CREATE TABLE half (); SELECT 1 / 0"], now=0)
        finally:
            await connection.close()

    with pytest.raises(asyncpg.DivisionByZeroError):
        run(deploy())
    assert database.fetch("SELECT to_regclass('half')")[0][0] is None
    assert [row[0] for row in database.fetch("SELECT version FROM leasehold_migrations")] == list(range(1, 10))


def test_tables_of_a_newer_version_are_refused(database: Database) -> None:
    with Driver(PostgresEngine(database.url).space()):
        database.execute("INSERT INTO leasehold_migrations VALUES (99, now())")
    assert refusal_of(database.url) == "the tables have version 99, made by a newer Leasehold; this one knows 9"


def test_tables_of_another_program_are_refused_and_not_changed(database: Database) -> None:
    database.execute("CREATE TABLE data (mine int)")
    assert refusal_of(database.url) == "the database holds tables of something else under the names of Leasehold's"
    assert database.fetch("SELECT to_regclass('leasehold_migrations')")[0][0] is None


def columns_of(database: Database) -> set[str]:
    rows = database.fetch(
        "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = $1",
        database.schema,
    )
    return {row[0] for row in rows}


def indexes_of(database: Database) -> set[str]:
    rows = database.fetch(
        "SELECT tablename || '.' || indexname FROM pg_indexes WHERE schemaname = $1",
        database.schema,
    )
    return {row[0] for row in rows}


def test_each_migration_adds_the_columns_or_indexes_that_identify_it(database: Database) -> None:
    for script, identifying in zip(schema.load_scripts(), schema.MIGRATIONS.values(), strict=True):
        columns, indexes = columns_of(database), indexes_of(database)
        database.execute(script)
        added = columns_of(database) - columns
        assert added <= identifying
        assert identifying - added <= indexes_of(database) - indexes


VERSIONS = range(len(schema.MIGRATIONS) + 1)
"""Of the tables. 0: there are none yet."""


@pytest.mark.parametrize(("by_server", "by_hand"), [(a, b) for a in VERSIONS for b in VERSIONS if a <= b])
def test_tables_that_were_created_by_hand_are_accepted_and_migrated(
    database: Database, by_server: int, by_hand: int
) -> None:
    """A server creates the tables up to one version, and psql, which runs a script as it is, up to a later one."""
    scripts = schema.load_scripts()

    async def deploy() -> None:
        connection = await Address(database.url).connect()
        await schema.deploy(connection, scripts[:by_server], now=0)
        await connection.close()

    async def execute() -> None:
        connection = await asyncpg.connect(database.url)
        for script in scripts[by_server:by_hand]:
            await connection.execute(script)
        await connection.close()

    run(deploy())
    run(execute())
    with Driver(PostgresEngine(database.url).space()) as driver:
        driver.put("a")
        assert driver.value("a") == b"1"
    rows = database.fetch("SELECT version FROM leasehold_migrations ORDER BY version")
    assert [row[0] for row in rows] == list(range(1, len(scripts) + 1))


def test_incomplete_tables_are_refused_and_not_changed(database: Database) -> None:
    database.execute(schema.load_scripts()[0])
    database.execute("DROP TABLE writers")
    assert refusal_of(database.url) == "the database holds tables of something else under the names of Leasehold's"


def test_times_are_stored_to_the_microsecond(driver: Driver, database: Database) -> None:
    time = 1_769_860_800_123_457
    change = Entry("a", b"1", 1, time, time + 1, time + 31_536_000_000_000)
    driver.decide_and_commit(["a"], lambda *_: [change])
    row = database.fetch("SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') FROM data")[0]
    assert row[0] == "2026-01-31 12:00:00.123457"
    assert driver.run(driver.space.changes(ENTRY, 0, "", 1)).changes == [change]


def test_deletions_that_are_too_old_are_removed(
    driver: Driver, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leasehold.engines.base.HISTORY_CHANGES", 10)
    for number in range(20):
        driver.commit((f"k{number}", None))
    assert database.fetch("SELECT count(*) FROM deletions")[0][0] < 13
    with pytest.raises(ServiceError) as caught:
        driver.run(driver.space.changes(ENTRY, 9, "", 100))
    assert caught.value.code == "revision_compacted"
    changes = driver.run(driver.space.changes(ENTRY, 10, "", 100))
    assert changes.changes == [Deletion(f"k{number}", number + 1) for number in range(10, 20)]


def test_a_key_that_was_deleted_and_written_again_is_not_stored_as_a_deletion(driver: Driver) -> None:
    driver.commit(("a", b"1"), ("b", b"1"))
    driver.commit(("a", None), ("b", None))
    driver.commit(("b", None))
    driver.commit(("a", b"2"))
    changes = driver.run(driver.space.changes(ENTRY, 2, "", 100))
    assert [(change.name, change.revision, type(change)) for change in changes.changes] == [
        ("b", 5, Deletion),
        ("a", 6, Entry),
    ]


def test_a_list_by_prefix_reads_only_its_part_of_the_index(driver: Driver, database: Database) -> None:
    driver.commit(*((f"a/{number:04}", b"1") for number in range(1000)), ("b/1", b"1"), ("b/2", b"1"))

    async def plan() -> str:
        connection = await Address(database.url).connect()
        scan = record_statements.OF_KIND[ENTRY].scan
        await connection.execute(f"PREPARE scan (text, text, text, text, int, timestamptz, bigint) AS {scan}")
        behind = "b/" + BEHIND_ANY_KEY
        rows = await connection.fetch(
            f"EXPLAIN (ANALYZE, BUFFERS OFF, FORMAT JSON) EXECUTE scan ('default', 'b/', '', '{behind}', 3, NULL, 1000)"
        )
        await connection.close()
        text = rows[0][0]
        assert isinstance(text, str)
        return text

    scans = [node for node in nodes(json.loads(run(plan()))[0]["Plan"]) if node.get("Relation Name") == "data"]
    assert [(node["Node Type"], node["Index Name"], node["Actual Rows"]) for node in scans] == [
        ("Index Scan", "data_pkey", 2)
    ]


def nodes(plan: dict[str, object]) -> Iterator[dict[str, object]]:
    yield plan
    plans = plan.get("Plans", [])
    assert isinstance(plans, list)
    for part in plans:
        yield from nodes(part)


# Values -------------------------------------------------------------------------------------------------------

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FLOATS | TEXTS,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(TEXTS, parts, max_size=4),
    max_leaves=12,
)

CORPUS = [
    *(b"null", b"true", b"false", b'""', b"[]", b"{}", b'{"":1}', b'{"a":[1,2]}', b"0", b"-9223372036854775808"),
    *(b"18446744073709551615", b"9007199254740993", b"0.1", b"1.0", b"1.7976931348623157e308", b"5e-324", b"1e300"),
    *(b"0.3333333333333333", b"100.0", b"[1.0]", b"[0.2]", '"Grüße, 世界 🎉"'.encode(), '"é🎉/"'.encode()),
    *(b'"\\u0001\\n\\t\\u001f\\u007f"', b'"\\\\u0000"', b'"123456789012345678901234567890"', '"\ufffe\uffff"'.encode()),
    *(b"-0.0", b"[-0.0,-0.0,0]", b'{"-0":-0.0}', b'["-0",-0.0,"\\"-0,"]', b'["-0\\\\",-0.0]', b"1e16", b"-1e-7"),
    *(b'"from 3 to -0"', b'"1e5"', b'"550e8400-e29b-41d4-a716-446655440000"', b"[-0.5,-0.05,-0.001]", b"0.00001"),
    b"[" * MAX_NESTING + b"1" + b"]" * MAX_NESTING,
    b'{"a":' * MAX_NESTING + b"1e300" + b"}" * MAX_NESTING,
    b'{"b":1,"a":{"z":[],"y":{}},"aa":[1, 2]}',
    b'{"a b, c: d":"e, f: g"}',
]


def test_every_engine_returns_the_same_values(driver: Driver, tmp_path: Path) -> None:
    @settings(deadline=None, max_examples=60, derandomize=True)
    @given(st.lists(VALUES.map(values.encode), min_size=1, max_size=20))
    def check(written: list[bytes]) -> None:
        batch = [(f"k{number}", value) for number, value in enumerate(written)]
        for each in (driver, in_memory, on_disk):
            each.commit(*batch)
        found = [[each.value(key) for key, _ in batch] for each in (driver, in_memory, on_disk)]
        assert found[1] == found[2] == written
        for value, expected in zip(found[0], written, strict=True):
            assert value is not None
            assert repr_of(json_text(value)) == repr_of(expected)
            assert len(value) == len(expected), "not compact"

    with Driver(MemoryEngine().space()) as in_memory, Driver(FileEngine(tmp_path / "data.json").space()) as on_disk:
        check.hypothesis.inner_test([values.parse_json(value) for value in CORPUS])  # type: ignore[attr-defined]
        check()


def repr_of(value: bytes) -> str:
    """Text that differs for 1, 1.0 and true, and for 0.0 and -0.0, but not for another order of members."""
    return repr(sort(values.decode(value)))


def sort(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: sort(value[name]) for name in sorted(value)}
    return [sort(part) for part in value] if isinstance(value, list) else value


def test_a_value_is_readable_as_json_in_the_database(driver: Driver, database: Database) -> None:
    driver.put("a", b'{"user":{"name":"alice"}}')
    driver.put("b", b"[1e300]")
    rows = database.fetch("SELECT data #>> '{user,name}', exact FROM data ORDER BY key")
    assert [tuple(row) for row in rows] == [("alice", None), (None, "[1e300]")]


# Large documents ----------------------------------------------------------------------------------------------


def large_document(size: int) -> dict[str, Json]:
    text = "x" * 90
    return {
        "profile": {"name": "alice", "tags": ["a", "b", "c"], "visits": 1},
        "rows": [{"id": number, "text": text} for number in range(size // 110)],
    }


PARTIAL_UPDATES = {
    "a member changed": ("/profile/name", '"bob"'),
    "a member added": ("/profile/email", '"alice@example.org"'),
    "a member of another kind": ("/profile/visits", "true"),
    "an element changed": ("/rows/500/text", '"y"'),
    "an element appended": ("/profile/tags/-", '"d"'),
    "an element of a large list appended": ("/rows/-", '{"id":-1}'),
    "a name with a slash": ("/profile/a~1b", "1"),
    "an element removed": ("/rows/3", None),
    "a member removed": ("/profile/visits", None),
}


def test_only_the_changed_part_of_a_large_document_is_sent(database: Database) -> None:
    document = large_document(MIB)
    sent: dict[str, int] = {}

    async def scenario() -> None:
        async with Proxy(database.port) as proxy, opened(database.at(f"127.0.0.1:{proxy.port}")) as engine:
            assert await commit(engine, ["a"], writing("a", values.encode(document))) is None
            expected: Json = document
            for name, (path, part) in PARTIAL_UPDATES.items():
                before = proxy.sent_bytes
                assert await commit(engine, ["a"], changing("a", path, part)) is None
                sent[name] = proxy.sent_bytes - before
                expected = changed(expected, path, part)
                entry = await read(engine, "a")
                assert isinstance(entry, Entry)
                assert sort(values.decode(json_text(entry.value))) == sort(expected)

    run(scenario())
    assert len(values.encode(document)) > 0.95 * MIB
    assert max(sent.values()) < 16 * KIB, sent


def changing(key: str, path: str, part: str | None) -> Decide:
    def decide(view: View, revision: int, now: int) -> Sequence[Change]:
        before = view.records(ENTRY).get(key)
        assert before is not None
        value = values.encode(changed(values.decode(json_text(before.value)), path, part))
        return [Entry(key, value, revision + 1, before.created_at, now)]

    return decide


def changed(value: Json, path: str, part: str | None) -> Json:
    value = values.decode(values.encode(value))
    pointer = values.parse_pointer(path)
    return values.remove_at(value, pointer) if part is None else values.set_at(value, pointer, json.loads(part))


def test_any_change_of_any_document_is_stored_as_it_was_decided(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here differences are sent for documents of any size, and the database applies them."""
    monkeypatch.setattr(entries, "LARGE_DOCUMENT_BYTES", 0)
    parts: list[bool] = []
    difference = differences.difference

    def watched(before: bytes, after: bytes) -> differences.Difference | None:
        found = difference(before, after)
        parts.append(found is not None)
        return found

    monkeypatch.setattr(entries, "difference", watched)

    @settings(deadline=None, max_examples=150, derandomize=True)
    @given(DOCUMENTS, st.data())
    def check(document: Json, data: st.DataObject) -> None:
        driver.put("a", values.encode(document))
        for _ in range(3):
            before = driver.value("a")
            assert before is not None
            after = values.encode(mutate(values.decode(json_text(before)), data))
            driver.put("a", after)
            stored = driver.value("a")
            assert stored is not None
            assert repr_of(json_text(stored)) == repr_of(after)

    check()
    assert sum(parts) > len(parts) / 5


NAMES = st.sampled_from(["a", "b", "0", "1", "-1", "", "ä/~"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1.0, 0.5, -0.0, 1e300]) | st.just("long " * 20),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(NAMES, parts, max_size=4),
    max_leaves=12,
)


def mutate(value: Json, data: st.DataObject) -> Json:
    """`value` with one or two places changed."""
    for _ in range(data.draw(st.integers(1, 2))):
        value = mutate_once(value, data)
    return value


def mutate_once(value: Json, data: st.DataObject) -> Json:
    if isinstance(value, dict) and value:
        name = data.draw(st.sampled_from(sorted(value)) | NAMES)
        match data.draw(st.sampled_from(["down", "set", "remove"])):
            case "down":
                return value | {name: mutate_once(value.get(name), data)}
            case "set":
                return value | {name: data.draw(DOCUMENTS)}
        return {other: part for other, part in value.items() if other != name}
    if isinstance(value, list) and value:
        index = data.draw(st.integers(0, len(value) - 1))
        match data.draw(st.sampled_from(["down", "append", "remove"])):
            case "down":
                return [*value[:index], mutate_once(value[index], data), *value[index + 1 :]]
            case "append":
                return [*value, data.draw(DOCUMENTS)]
        return [*value[:index], *value[index + 1 :]]
    return data.draw(DOCUMENTS)


# Start --------------------------------------------------------------------------------------------------------


def refusal_of(url: str) -> str:
    with pytest.raises(ServiceError) as caught, Driver(open_engine(url).space()):
        pass
    message = caught.value.message
    assert "secret" not in message
    return message.removeprefix("the store cannot be opened: ")


def test_a_wrong_password_is_reported(database: Database) -> None:
    url = database.as_role(GUARDED_USER).url.replace(f"//{GUARDED_USER}:{GUARDED_USER}@", f"//{GUARDED_USER}:secret@")
    assert refusal_of(url) == "PostgreSQL refused the user or the password"


def test_a_user_without_rights_is_reported(database: Database) -> None:
    assert (
        refusal_of(database.as_role("bystander", "USAGE").url)
        == "the user lacks a privilege: it must own the database or its schema"
    )


def test_a_missing_database_is_reported(database: Database) -> None:
    assert (
        refusal_of(database.url.replace(f"/{urlsplit(database.url).path[1:]}?", "/nowhere?"))
        == "PostgreSQL has no such database"
    )


def test_a_missing_schema_is_reported(database: Database) -> None:
    assert refusal_of(f"{database.url}_not") == "the database has no schema that the user may use"


def test_an_unknown_host_is_reported() -> None:
    assert refusal_of("postgresql://u:secret@host.invalid/d") == "the host of PostgreSQL is unknown"


def test_a_closed_port_is_reported() -> None:
    assert refusal_of("postgresql://u:secret@127.0.0.1:1/d") == "nothing listens at the host and port of PostgreSQL"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://u:secret@h:port/d", "a port is a number from 1 to 65535"),
        ("postgresql://u:secret@h/d?sslmode=maybe", "sslmode must be one of disable, allow"),
        ("host=h password=secret channel_binding=require", "channel_binding as it is given is refused"),
        ("postgresql://u:secret@h/d?sslmode=verify-full", "sslmode=verify-full needs sslrootcert"),
        ("postgresql://u:secret@h/d?sslrootcert=/nowhere", "the file of sslrootcert is not there or cannot be read"),
    ],
)
def test_an_invalid_connection_string_is_reported(url: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    assert reason in refusal_of(url)


def test_an_old_database_server_is_reported(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MIN_SERVER_VERSION", 990_000)
    assert refusal_of(database.url).startswith("PostgreSQL is too old: ")


def test_a_missing_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "leasehold.engines.postgres.engine", None)
    with pytest.raises(ServiceError) as caught:
        open_engine("postgresql://localhost/leasehold")
    assert caught.value.message == "PostgreSQL needs asyncpg: install '.[postgres]' from a clone of Leasehold"


def test_the_host_that_accepts_writes_is_found(database: Database) -> None:
    with Driver(PostgresEngine(database.at(f"127.0.0.1:1,127.0.0.1:{database.port}")).space()) as driver:
        driver.put("a")
        assert driver.value("a") == b"1"
