"""Which commits the other servers may not know yet."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from leasehold.engines.postgres import notifications
from leasehold.engines.postgres.notifications import Notifications, Untold, texts
from leasehold.model import ENTRY, LEASE, RECEIPT, AnyKind

SECONDS = 60.0


def run(scenario: Callable[[Notifications, asyncio.Event], Awaitable[None]]) -> None:
    async def run_it() -> None:
        woken = asyncio.Event()
        async with asyncio.timeout(SECONDS):
            await scenario(Notifications(woken.set), woken)

    asyncio.run(run_it())


@pytest.fixture
def _for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "INTERVAL_SECONDS", 2 * SECONDS)


def test_what_was_not_told_is_due_after_the_interval() -> None:
    async def scenario(told: Notifications, woken: asyncio.Event) -> None:
        told.add("a", 5, [ENTRY])
        await woken.wait()
        assert told.is_due
        assert texts(told.untold()) == ["a/5\x1fentry"]
        told.sent(told.untold())
        assert told.untold() == {}
        woken.clear()
        told.add("a", 6, [ENTRY])
        await woken.wait()

    run(scenario)


def test_a_text_has_the_largest_revision_and_all_kinds() -> None:
    assert texts({"a": {ENTRY: 7, RECEIPT: 5}, "b": {ENTRY: 1}}) == ["a/7\x1fentry\x1freceipt", "b/1\x1fentry"]


@pytest.mark.usefixtures("_for_long")
def test_a_commit_can_wait_only_after_a_recent_notification() -> None:
    async def scenario(told: Notifications, _woken: asyncio.Event) -> None:
        assert not told.can_wait([ENTRY])
        told.heard("a", 1, [LEASE])
        assert told.can_wait([ENTRY, RECEIPT])
        told._heard_at -= notifications.INTERVAL_SECONDS
        assert not told.can_wait([ENTRY])

    run(scenario)


@pytest.mark.usefixtures("_for_long")
def test_commits_of_leases_do_not_wait() -> None:
    async def scenario(told: Notifications, _woken: asyncio.Event) -> None:
        told.heard("a", 1, [ENTRY])
        assert not told.can_wait([ENTRY, LEASE])

    run(scenario)


@pytest.mark.usefixtures("_for_long")
@pytest.mark.parametrize(
    ("namespace", "revision", "kinds", "left"),
    [
        ("a", 5, [ENTRY, RECEIPT], {}),
        ("a", 9, [ENTRY], {"a": {RECEIPT: 4}}),
        ("a", 4, [ENTRY, RECEIPT], {"a": {ENTRY: 5}}),
        ("a", 3, [ENTRY, RECEIPT], {"a": {ENTRY: 5, RECEIPT: 4}}),
        ("a", 9, [LEASE], {"a": {ENTRY: 5, RECEIPT: 4}}),
        ("b", 9, [ENTRY, RECEIPT], {"a": {ENTRY: 5, RECEIPT: 4}}),
    ],
)
def test_a_notification_tells_of_all_earlier_commits_of_its_kinds(
    namespace: str, revision: int, kinds: list[AnyKind], left: Untold
) -> None:
    async def scenario(told: Notifications, _woken: asyncio.Event) -> None:
        told.add("a", 4, [ENTRY, RECEIPT])
        told.add("a", 5, [ENTRY])
        told.heard(namespace, revision, kinds)
        assert told.untold() == left

    run(scenario)


def test_what_was_told_meanwhile_does_not_become_due(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(told: Notifications, woken: asyncio.Event) -> None:
        told.add("a", 1, [ENTRY])
        told.heard("a", 1, [ENTRY])
        monkeypatch.setattr(notifications, "INTERVAL_SECONDS", 0.02)
        told.add("a", 2, [ENTRY])
        told.add("b", 2, [ENTRY])
        told.heard("a", 2, [ENTRY])
        await woken.wait()
        assert texts(told.untold()) == ["b/2\x1fentry"]

    run(scenario)


def test_what_was_told_before_it_could_be_sent_is_not_sent() -> None:
    async def scenario(told: Notifications, woken: asyncio.Event) -> None:
        told.add("a", 1, [ENTRY])
        await woken.wait()
        told.heard("a", 1, [ENTRY])
        assert not told.is_due

    run(scenario)


def test_a_commit_during_the_sending_is_told_later() -> None:
    async def scenario(told: Notifications, woken: asyncio.Event) -> None:
        told.add("a", 1, [ENTRY, RECEIPT])
        await woken.wait()
        untold = told.untold()
        told.add("a", 2, [ENTRY])
        told.sent(untold)
        assert not told.is_due
        woken.clear()
        await woken.wait()
        assert texts(told.untold()) == ["a/2\x1fentry"]

    run(scenario)
