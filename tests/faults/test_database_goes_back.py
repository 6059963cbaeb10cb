"""The database returns to an older state: a restored dump, or a failover to a copy that lacks commits.

Revisions, tokens and ETags that were used for the lost changes must not be used again: revisions and tokens only grow,
ETags of the lost changes match nothing, and the holder of a lost lease is refused.
"""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest
from databases import (
    Database,
    PostgresServer,
    commit,
    opened,
    read,
    run,
    run_program,
    shared_server_url,
    unprivileged_user,
    writing,
)
from running import ANSWER_SECONDS, Server, refusal, running, until

from leasehold.engines.postgres import listener
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.model import Entry

FAILED = (412, "precondition_failed")
LOST = (412, "lease_lost")
_numbers = count(1)


@pytest.fixture
def database() -> Database:
    return Database(shared_server_url(), f"goes_back_{next(_numbers)}").create()


async def go_back(database: Database, revision: int) -> None:
    statements = (
        f"DELETE FROM data WHERE revision > {revision}",
        f"DELETE FROM deletions WHERE revision > {revision}",
        f"DELETE FROM batches WHERE revision > {revision}",
        f"UPDATE head SET revision = {revision}",
    )
    await asyncio.to_thread(database.execute, ";".join(statements))


async def write(engine: PostgresSpace, key: str) -> int:
    """Write an entry. Returns its revision."""
    assert await commit(engine, [key], writing(key, b"1")) is None
    entry = await read(engine, key)
    assert isinstance(entry, Entry)
    return entry.revision


# One engine ---------------------------------------------------------------------------------------------------


def test_the_next_commit_continues_above_the_known_revision_in_a_new_incarnation(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url) as engine:
            before = engine.incarnation
            for number in range(5):
                await write(engine, str(number))
            await go_back(database, 2)
            assert await write(engine, "a") > 5
            assert engine.incarnation != before
            assert await write(engine, "b") == engine.revision
        [row] = await asyncio.to_thread(database.fetch, "SELECT revision, incarnation FROM head")
        assert tuple(row) == (engine.revision, engine.incarnation)

    run(scenario())


def test_a_server_that_only_reads_also_starts_a_new_incarnation(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "POLL_SECONDS", 0.05)

    async def scenario() -> None:
        async with opened(database.url) as engine:
            before = engine.incarnation
            for number in range(5):
                await write(engine, str(number))
            await go_back(database, 2)
            async with asyncio.timeout(20):
                while engine.incarnation == before:  # noqa: ASYNC110 - waits for another task
                    await asyncio.sleep(0.01)
        [row] = await asyncio.to_thread(database.fetch, "SELECT revision, incarnation FROM head")
        assert (row[0] > 5, row[1]) == (True, engine.incarnation)

    run(scenario())


def test_the_incarnation_stays_while_the_head_only_grows(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers read the head all the time, often shortly before they are notified of a commit."""
    monkeypatch.setattr(listener, "POLL_SECONDS", 0.001)

    async def scenario() -> None:
        async with opened(database.url) as first, opened(database.url) as second:
            before = first.incarnation
            for number in range(100):
                await write(first if number % 2 else second, str(number % 7))
            async with asyncio.timeout(ANSWER_SECONDS):
                while second.revision < 100:  # noqa: ASYNC110 - waits for the notification of a commit
                    await asyncio.sleep(0.01)
            assert (first.incarnation, second.incarnation, second.revision) == (before, before, 100)

    run(scenario())


def test_a_server_that_knows_an_older_head_leaves_a_gap_for_revisions_that_the_other_used(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url) as knows_more, opened(database.url) as knows_less:
            told = [await write(knows_more, str(number)) for number in range(10)]
            await go_back(database, 2)
            knows_less._head.revision = 5  # as if the notifications had not arrived yet
            told.append(await write(knows_less, "a"))
            in_between = knows_less.incarnation
            told += [await write(knows_more, "b"), await write(knows_less, "c"), await write(knows_more, "d")]
            assert told == sorted(set(told))
            assert knows_more.incarnation == knows_less.incarnation == in_between

    run(scenario())


# Whole servers ------------------------------------------------------------------------------------------------


def lost_future(server: Server) -> tuple[str, str, int]:
    """Write what will be lost. Returns the ETag of `a`, and the lease of `lost` with its token."""
    for number in range(5):
        server.put("filler", str(number))
    etag = server.put("a", '"lost"').headers["ETag"]
    lease = server.lease("lost", ttl=600)
    assert server.put("a", '"lost"', headers={"If-Lease": lease["lease_id"]}).status_code == 200
    return etag, lease["lease_id"], lease["token"]


def check_that_nothing_is_told_twice(
    servers: list[Server], kept: dict[str, object], lost: tuple[str, str, int]
) -> None:
    etag, lease_id, token = lost
    for server in servers:
        # Before any other commit, so that it has the revision of the old state.
        assert server.value("a") == "kept"
        assert server.put("a", "2", headers={"If-Lease": str(kept["lease_id"])}).status_code == 200
        assert refusal(server.put("a", "1", headers={"If-Lease": lease_id})) == LOST
        assert refusal(server.put("a", "1", headers={"If-Match": etag})) == FAILED
        assert server.get("a", headers={"If-None-Match": etag}).status_code == 200
        server.put("a", '"kept"')
    tokens = [token]
    for number, server in enumerate(servers * 3):
        tokens.append(server.lease(f"lock-{number}")["token"])
        until(lambda: {each.request("GET", "/health").json()["revision"] for each in servers} == {tokens[-1]})
    assert tokens == sorted(set(tokens))
    incarnations = {server.request("GET", "/health").json()["incarnation"] for server in servers}
    assert len(incarnations) == 1
    assert etag.strip('"').partition(".")[2] not in incarnations


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.close()


def test_running_servers_survive_the_restoration_of_a_dump(own_server: PostgresServer) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(running(own_server.url)) for _ in range(2)]
        servers[0].put("a", '"kept"')
        kept = servers[0].lease("kept", ttl=600)
        dump = run_program("pg_dump", f"--dbname={own_server.url}", "--clean", "--if-exists").stdout
        lost = lost_future(servers[1])
        until(lambda: servers[0].revision() == servers[1].revision())
        script = own_server._folder / "dump.sql"
        script.write_bytes(dump)
        run_program("psql", f"--dbname={own_server.url}", "--single-transaction", "--quiet", f"--file={script}")
        check_that_nothing_is_told_twice(servers, kept, lost)


def test_running_servers_survive_a_failover_to_a_copy_that_lacks_commits(own_server: PostgresServer) -> None:
    stale = PostgresServer()
    try:
        with ExitStack() as stack:
            both = f"postgresql://postgres@127.0.0.1:{own_server.port},127.0.0.1:{stale.port}/postgres"
            servers = [stack.enter_context(running(both)) for _ in range(2)]
            servers[0].put("a", '"kept"')
            kept = servers[0].lease("kept", ttl=600)
            own_server.stop()
            shutil.rmtree(stale._folder / "data")
            shutil.copytree(own_server._folder / "data", stale._folder / "data")
            own_the_copy(stale)
            own_server.start()
            until(lambda: all(server.request("GET", "/health").status_code == 200 for server in servers))
            lost = lost_future(servers[1])
            until(lambda: servers[0].revision() == servers[1].revision())
            own_server.kill()
            stale.start()
            until(lambda: all(server.put("filler", "1").status_code in (200, 201) for server in servers))
            check_that_nothing_is_told_twice(servers, kept, lost)
    finally:
        stale.close()


def own_the_copy(server: PostgresServer) -> None:
    data = server._folder / "data"
    for path in (data, *data.rglob("*")):
        user = unprivileged_user()
        if user is not None:
            shutil.chown(path, user)
