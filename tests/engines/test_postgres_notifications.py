"""While several servers commit, most commits are made without a notification. The last one is told of nevertheless."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

import pytest
from databases import Database, Heard, commit, commit_touching, counting, database_for, opened, run, subscribed
from running import ANSWER_SECONDS

from leasehold.engines.postgres import committer, listener, notifications
from leasehold.engines.postgres.notifications import Notifications
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.model import ENTRY, LEASE, AnyKind, Change, Lease, Touched, View

NEVER_SECONDS = 3_600.0

Added = list[int]
"""The revisions of the commits that were made without a notification."""


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_for(tmp_path).create()


@pytest.fixture(autouse=True)
def _notifications_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server reads the heads after the first time, and a slow machine does not end the time of contention."""
    monkeypatch.setattr(listener, "POLL_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(committer, "CONTENDED_SECONDS", NEVER_SECONDS)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Added:
    revisions: Added = []
    add = Notifications.add

    def noted(self: Notifications, namespace: str, revision: int, kinds: Iterable[AnyKind]) -> None:
        revisions.append(revision)
        add(self, namespace, revision, kinds)

    monkeypatch.setattr(Notifications, "add", noted)
    return revisions


@pytest.fixture
def _no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "INTERVAL_SECONDS", NEVER_SECONDS)


@asynccontextmanager
async def listening(database: Database) -> AsyncIterator[tuple[PostgresSpace, PostgresSpace, Heard]]:
    """Two servers that commit, and what a third one publishes."""
    async with opened(database.url) as one, opened(database.url) as other, opened(database.url) as third:
        heard = subscribed(third, ENTRY)
        async with asyncio.timeout(ANSWER_SECONDS):
            while -math.inf in (space._database.listener.notifications._heard_at for space in (one, other, third)):
                assert await commit(one, ["a"], counting("a")) is None
                await asyncio.sleep(0.01)
        yield one, other, heard


async def commit_until_untold(one: PostgresSpace, other: PostgresSpace, added: Added) -> PostgresSpace:
    """Commit at both in turn until a commit was made without a notification. Returns the space that made it."""
    async with asyncio.timeout(ANSWER_SECONDS):
        for space in cycle((one, other)):
            assert await commit(space, ["a"], counting("a")) is None
            await asyncio.sleep(0)  # the notification may be there
            if space.revision in added:
                return space
    raise AssertionError


async def hears(heard: Heard, revision: int) -> None:
    """Wait until the third server knows this revision."""
    async with asyncio.timeout(ANSWER_SECONDS):
        while (await heard.get())[0] < revision:
            pass


def test_the_last_commit_is_told_of(database: Database, added: Added) -> None:
    async def scenario() -> None:
        async with listening(database) as (one, other, heard):
            last = await commit_until_untold(one, other, added)
            await hears(heard, last.revision)

    run(scenario())


def test_the_last_commit_is_told_of_if_the_connection_is_lost_before(
    database: Database, added: Added, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "RELISTEN_SECONDS", 5 * notifications.INTERVAL_SECONDS)

    async def scenario() -> None:
        async with listening(database) as (one, other, heard):
            last = await commit_until_untold(one, other, added)
            assert last._database.listener.notifications.untold()
            connection = last._database.listener._link._connection
            assert connection is not None
            connection.terminate()
            await hears(heard, last.revision)

    run(scenario())


@pytest.mark.usefixtures("_no_timer")
def test_the_last_commit_is_told_of_when_its_server_stops(database: Database, added: Added) -> None:
    async def scenario() -> None:
        async with listening(database) as (one, other, heard):
            last = await commit_until_untold(one, other, added)
            assert heard.empty() or all(heard.get_nowait()[0] < last.revision for _ in range(heard.qsize()))
            await last.close()
            await hears(heard, last.revision)

    run(scenario())


@pytest.mark.usefixtures("_no_timer")
def test_a_commit_of_leases_is_told_of_at_once(database: Database, added: Added) -> None:
    def decide(_view: View, revision: int, now: int) -> Sequence[Change]:
        return [Lease("l", "id", revision + 1, revision + 1, now, now + 10**9, 10**9, "", b"null")]

    async def scenario() -> None:
        async with opened(database.url) as third, listening(database) as (one, other, _):
            heard = subscribed(third, LEASE)
            last = await commit_until_untold(one, other, added)
            assert await commit_touching(last, Touched({LEASE: ["l"]}), decide) is None
            assert last.revision not in added
            await hears(heard, last.revision)

    run(scenario())


@pytest.mark.usefixtures("_no_timer")
def test_a_server_that_commits_alone_tells_of_each_commit(database: Database, added: Added) -> None:
    async def scenario() -> None:
        async with listening(database) as (one, _, heard):
            for _ in range(3):
                assert await commit(one, ["a"], counting("a")) is None
                await hears(heard, one.revision)
        assert added == []

    run(scenario())


@pytest.mark.usefixtures("_no_timer")
def test_a_notification_of_another_server_tells_of_earlier_commits(database: Database, added: Added) -> None:
    async def scenario() -> None:
        async with listening(database) as (one, other, heard):
            last = await commit_until_untold(one, other, added)
            untold = last._database.listener.notifications.untold
            assert list(untold()) == ["default"]
            next_one = other if last is one else one
            next_one._database.listener.notifications._heard_at = -math.inf
            assert await commit(next_one, ["a"], counting("a")) is None
            await hears(heard, next_one.revision)
            async with asyncio.timeout(ANSWER_SECONDS):
                while untold():  # noqa: ASYNC110 - the event is in the listener
                    await asyncio.sleep(0.01)

    run(scenario())
