"""Locks of two servers on one database: a release on either wakes waiters on both, waiting does not load the database,
and one server removes expired records."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from databases import Database, PostgresServer, shared_server_url
from running import Server, Wire, message, running, until

from leasehold.engines.postgres import listener

LONG = 60
"""Seconds that a lease lasts, longer than any wait here."""
WOKEN_SECONDS = 30.0
"""Time to learn of a commit of the other server. Without that, a waiter tries again at the end of its wait, and a watch
after its heartbeat: both later."""
RELISTENED_SECONDS = 30.0
"""Time for the service to notice a lost connection and to make another."""
WAITERS = 100
LISTENING = "application_name = 'leasehold' AND query ~ '^(LISTEN|SELECT namespace, revision, inc|SELECT pg_notify)'"
"""Selects the database sessions that listen for notifications."""

Pair = tuple[Server, Server]

_numbers = count(1)


@pytest.fixture(scope="module")
def database_server() -> Iterator[PostgresServer]:
    """A server without other sessions. Each test leaves it running."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def database(database_server: PostgresServer) -> Database:
    return Database(database_server.url, "locks_of_two").create()


@pytest.fixture(scope="module")
def pair(database: Database) -> Iterator[Pair]:
    with running(database.url) as one, running(database.url) as other:
        until(lambda: len(database.fetch(f"SELECT FROM pg_stat_activity WHERE {LISTENING}")) == 2)
        yield one, other


@pytest.fixture(scope="module", params=["notified", "polling"])
def pair_of_one_way(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two servers that learn of each other's commits by notifications only, or never by notifications."""
    database = Database(shared_server_url(), f"locks_{request.param}").create()
    program = (str(Path(__file__).parent.parent / "one_way.py"), request.param)
    with running(database.url, program=program) as one, running(database.url, program=program) as other:
        yield one, other


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


@pytest.fixture
def lock() -> str:
    """A lock that no other test uses."""
    return f"lock-{next(_numbers)}"


def acquire(server: Server, lock: str, *, ttl: float = LONG, wait: float = 0) -> httpx.Response:
    """Acquire on a connection of its own, so that any thread may call it."""
    return httpx.post(f"{server.url}/locks/{lock}", json={"ttl": ttl, "wait": wait}, timeout=LONG, verify=False)


def release(server: Server, lease: Any) -> None:
    answer = server.request("DELETE", f"/locks/{lease['lock']}", params={"lease_id": lease["lease_id"]})
    assert answer.status_code == 200, answer.text


def waiters(server: Server, lock: str) -> int:
    count = server.request("GET", f"/locks/{lock}").json()["waiters"]
    assert isinstance(count, int)
    return count


def waiter(pool: ThreadPoolExecutor, server: Server, lock: str) -> Future[tuple[float, Any]]:
    """Wait for the lock at a server. Returns when it got the lock (monotonic clock), and the lease."""

    def wait() -> tuple[float, Any]:
        answer = acquire(server, lock, wait=45)
        assert answer.status_code == 201, answer.text
        return time.monotonic(), answer.json()

    waiting = pool.submit(wait)
    until(lambda: waiters(server, lock) == 1)
    return waiting


# Waking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("here_first", [True, False])
def test_a_release_on_one_server_wakes_a_waiter_on_the_other(
    pair_of_one_way: Pair, pool: ThreadPoolExecutor, lock: str, *, here_first: bool
) -> None:
    here, there = pair_of_one_way if here_first else pair_of_one_way[::-1]
    lease = acquire(here, lock).json()
    waiting = waiter(pool, there, lock)
    release(here, lease)
    _, next_lease = waiting.result(WOKEN_SECONDS)
    assert next_lease["token"] > lease["token"]


def test_a_watch_on_one_server_reports_a_change_on_the_other(pair_of_one_way: Pair, lock: str) -> None:
    here, there = pair_of_one_way
    accept = {"Accept": "application/x-ndjson"}
    path = f"/watch?prefix={lock}&heartbeat={LONG}"
    with there.client.stream("GET", path, headers=accept, timeout=WOKEN_SECONDS) as watch:
        events = map(json.loads, watch.iter_lines())
        assert next(events)["event"] == "ready"
        here.put(lock, '"changed"')
        assert next(event["data"]["value"] for event in events if event["event"] == "put") == "changed"


def test_a_commit_without_a_notification_is_known_within_a_second() -> None:
    """By how often the heads are read. docs/scaling.md promises it."""
    assert listener.POLL_SECONDS < 1


@pytest.mark.parametrize("there_is_busy", [False, True], ids=["idle", "busy"])
def test_a_missed_release_wakes_the_waiter_when_its_server_listens_again(
    pair: Pair, database: Database, pool: ThreadPoolExecutor, lock: str, *, there_is_busy: bool
) -> None:
    """Also if the server has committed by then, so that its own revision is beyond the release."""
    here, there = pair
    lease = acquire(here, lock).json()
    waiting = waiter(pool, there, lock)
    until(lambda: len(database.fetch(f"SELECT FROM pg_stat_activity WHERE {LISTENING}")) == 2)
    killed = database.fetch(f"SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE {LISTENING}")
    assert len(killed) == 2
    released = time.monotonic()
    release(here, lease)
    if there_is_busy:
        there.put(lock, "1")
    got, _ = waiting.result()
    assert got - released < RELISTENED_SECONDS


# No load while waiting ----------------------------------------------------------------------------------------


def test_waiters_hold_no_database_connection(pair: Pair, database: Database, lock: str) -> None:
    def sessions() -> int:
        (row,) = database.fetch("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leasehold'")
        return int(row[0])

    def use_all(key: str) -> None:
        for server in pair:
            server.put(key, "1")
            server.get(key)
            server.request("GET", "/kv", params={"prefix": key})

    use_all("before")
    before = sessions()
    lease = acquire(pair[0], lock).json()
    asked = message("POST", f"/locks/{lock}", body=json.dumps({"ttl": LONG, "wait": LONG}).encode())
    with ExitStack() as stack:
        for number in range(WAITERS):
            stack.enter_context(Wire(pair[number % 2])).send(asked)
        until(lambda: sum(waiters(server, lock) for server in pair) == WAITERS)
        use_all("meanwhile")
        # Each server asks for the changes of leases, in one query at a time, which may run beside a list.
        assert sessions() <= before + len(pair)
    until(lambda: sum(waiters(server, lock) for server in pair) == 0)
    release(pair[0], lease)


# Expiry -------------------------------------------------------------------------------------------------------


def left_to_clean(database: Database, name: str) -> int:
    """The number of rows of leases and entries with such names."""
    (row,) = database.fetch(
        "SELECT (SELECT count(*) FROM locks WHERE starts_with(lock_id, $1))"
        " + (SELECT count(*) FROM data WHERE starts_with(key, $1))",
        name,
    )
    return int(row[0])


@pytest.mark.long
def test_expired_records_are_removed_whichever_server_is_killed(pair: Pair, database: Database, lock: str) -> None:
    def let_expire(server: Server, ttl: float) -> None:
        for number in range(5):
            name = f"{lock}/{server.pid}/{number}"
            assert acquire(server, name, ttl=ttl).status_code == 201
            server.put(name, "1", params={"ttl": ttl})

    for server in pair:
        let_expire(server, 4)
    assert left_to_clean(database, lock) == 20
    until(lambda: left_to_clean(database, lock) == 0)
    for killed, other in (pair, pair[::-1]):
        let_expire(other, 2)
        killed.kill()
        try:
            until(lambda: left_to_clean(database, lock) == 0)
        finally:
            killed.start()
