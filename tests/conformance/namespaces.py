"""The contract of `engines.base.Engine` for several namespaces, as tests that an engine's test module inherits."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Final, ParamSpec, Self

import pytest
from driving import FrozenClock

from leasehold.engines.base import Engine, Space
from leasehold.errors import ServiceError
from leasehold.model import (
    ENTRY,
    LEASE,
    RECEIPT,
    AnyKind,
    Binary,
    Change,
    Content,
    DeletedEntries,
    Deletion,
    Entry,
    Kind,
    Lease,
    Memo,
    Quota,
    QuotaChange,
    R,
    Receipt,
    Touched,
    Usage,
    Value,
    View,
    encode_memo,
)
from leasehold.namespaces import DEFAULT_NAMESPACE

SECOND: Final = 1_000_000
WAIT_SECONDS: Final = 60.0

P = ParamSpec("P")


def scenario(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Run a test on an event loop of its own."""

    @wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        async def in_time() -> None:
            async with asyncio.timeout(WAIT_SECONDS):
                await test(*arguments, **named)

        asyncio.run(in_time())

    return run


class Opened:
    """An open engine and the spaces that a test has opened."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._spaces: list[Space] = []

    async def __aenter__(self) -> Self:
        await self.engine.open()
        self.default = await self.space(DEFAULT_NAMESPACE)
        return self

    async def __aexit__(self, *_: object) -> None:
        for space in reversed(self._spaces):
            await space.close()
        await self.engine.close()

    async def space(self, name: str) -> Space:
        """Open the space of a namespace that exists."""
        space = self.engine.space(name)
        await space.open()
        if space not in self._spaces:
            self._spaces.append(space)
        return space

    async def created(self, name: str, change: QuotaChange | None = None) -> Space:
        """Create a namespace and open its space."""
        _, is_new = await self.engine.create(name, change or QuotaChange())
        assert is_new
        return await self.space(name)

    async def names(self) -> list[str]:
        return [each.name for each in await self.engine.namespaces(None, 1000)]

    async def usage(self, name: str) -> Usage:
        return (await self.engine.namespace(name)).usage


async def commit(space: Space, touched: Touched, decide: Callable[[View, int, int], Sequence[Change]]) -> None:
    """Raises the error of the commit."""
    done: asyncio.Future[ServiceError | None] = asyncio.get_running_loop().create_future()
    space.commit(touched, decide, done.set_result)
    error = await done
    if error is not None:
        raise error


async def put(space: Space, *batch: tuple[str, Value | None], expires_at: int | None = None) -> None:
    """Commit values by key; None removes the key."""

    def decide(_view: View, revision: int, now: int) -> Sequence[Change]:
        return [
            Deletion(key, number) if value is None else Entry(key, value, number, now, now, expires_at)
            for number, (key, value) in enumerate(batch, start=revision + 1)
        ]

    await commit(space, Touched({ENTRY: [key for key, _ in batch]}), decide)


async def lock(space: Space, name: str, now: int, *, seconds: int = 30) -> int:
    """Acquire a lock. Returns its fencing token."""
    tokens: list[int] = []

    def decide(_view: View, revision: int, _now: int) -> Sequence[Change]:
        tokens.append(revision + 1)
        ttl = seconds * SECOND
        return [Lease(name, f"id-of-{name}-{revision}", revision + 1, revision + 1, now, now + ttl, ttl, "a", b"null")]

    await commit(space, Touched({LEASE: [name]}), decide)
    return tokens[-1]


async def keep_receipt(space: Space, name: str, expires_at: int) -> None:
    memo = encode_memo(Memo(bytes(20), DeletedEntries(1, 1)))
    await commit(
        space, Touched({RECEIPT: [name]}), lambda _view, revision, _now: [Receipt(name, memo, revision + 1, expires_at)]
    )


async def values(space: Space) -> Mapping[str, Value]:
    page = await space.scan(ENTRY, "", None, 1000)
    return {entry.key: entry.value for entry in page.records}


async def read(space: Space, kind: Kind[R], name: str) -> R | None:
    """Raises the error of the read."""
    done: asyncio.Future[R | ServiceError | None] = asyncio.get_running_loop().create_future()
    space.read(kind, name, done.set_result)
    found = await done
    if isinstance(found, ServiceError):
        raise found
    return found


def note_published(space: Space, revisions: list[int]) -> None:
    """Note the revisions of changes of entries. At any time, an engine may also publish that there may be others."""

    def hear(revision: int, changes: Sequence[Change] | None) -> None:
        if changes is not None:
            revisions.append(revision)

    space.subscribe(ENTRY, hear)


async def code_of(refused: Awaitable[object]) -> str:
    with pytest.raises(ServiceError) as caught:
        await refused
    return caught.value.code


async def all_expired(engine: Engine, expected: int) -> list[tuple[str, AnyKind, str]]:
    """What has expired, once it is so many records. An engine may look less often."""
    while len(found := await engine.expired(100)) < expected:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    return sorted(found, key=lambda each: (each[0], each[1].name, each[2]))


class NamespaceConformance(ABC):
    """Inherit it in a class `Test…` and define `make_engine`."""

    @abstractmethod
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        """An engine whose storage is in, or belongs to, `folder`: the same storage for the same folder."""

    @pytest.fixture
    def clock(self) -> FrozenClock:
        return FrozenClock()

    @asynccontextmanager
    async def opened(self, folder: Path, clock: FrozenClock) -> AsyncIterator[Opened]:
        async with Opened(self.make_engine(folder, clock)) as opened:
            yield opened

    @scenario
    async def test_the_namespace_default_always_exists(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            assert await opened.names() == [DEFAULT_NAMESPACE]
            described, is_new = await opened.engine.create(DEFAULT_NAMESPACE, QuotaChange())
            assert (described.name, described.revision, described.usage, described.quota, is_new) == (
                DEFAULT_NAMESPACE,
                0,
                Usage(0, 0),
                Quota(),
                False,
            )
            assert opened.engine.space() is opened.default

    @scenario
    async def test_a_new_namespace_is_empty_and_is_created_once(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            await put(opened.default, ("a", b"1"))
            described, is_new = await opened.engine.create("team-a", QuotaChange(max_entries=5))
            assert is_new
            assert (described.name, described.revision, described.usage) == ("team-a", 0, Usage(0, 0))
            assert described.quota == Quota(5, None)
            assert await opened.engine.namespace("team-a") == described
            space = await opened.space("team-a")
            assert opened.engine.space("team-a") is space
            assert (space.revision, await values(space)) == (0, {})
            again, is_new = await opened.engine.create("team-a", QuotaChange(max_bytes=7))
            assert (again.quota, again.created_at, is_new) == (Quota(5, 7), described.created_at, False)
            again, _ = await opened.engine.create("team-a", QuotaChange(max_entries=None))
            assert again.quota == Quota(None, 7)

    @scenario
    async def test_a_namespace_that_does_not_exist_is_refused(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            assert await code_of(opened.space("missing")) == "no_such_namespace"
            assert await code_of(opened.engine.namespace("missing")) == "no_such_namespace"
            assert await code_of(opened.engine.delete("missing")) == "no_such_namespace"
            assert await opened.names() == [DEFAULT_NAMESPACE]

    @scenario
    async def test_namespaces_are_listed_in_pages_by_name(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            for name in ("z", "a-1", "a", "0", "a1"):
                await opened.engine.create(name, QuotaChange())
            expected = sorted(["z", "a-1", "a", "0", "a1", DEFAULT_NAMESPACE])
            assert await opened.names() == expected
            found: list[str] = []
            while page := await opened.engine.namespaces(found[-1] if found else None, 2):
                assert len(page) <= 2
                found += [each.name for each in page]
            assert found == expected

    @scenario
    async def test_namespaces_share_nothing(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            a, b = await opened.created("a"), await opened.created("b")
            published: dict[str, list[int]] = {"a": [], "b": []}
            for name, space in (("a", a), ("b", b)):
                note_published(space, published[name])
            await put(a, ("key", b'"a"'), ("only/a", b"1"))
            await put(b, ("key", b'"b"'))
            assert await lock(b, "l", clock.now) == 2
            await keep_receipt(b, "r", clock.now + SECOND)
            await put(opened.default, ("key", b'"default"'))
            await put(a, ("key", None))
            assert [space.revision for space in (opened.default, a, b)] == [1, 3, 3]
            assert await values(opened.default) == {"key": b'"default"'}
            assert await values(a) == {"only/a": b"1"}
            assert await values(b) == {"key": b'"b"'}
            assert (await read(a, LEASE, "l"), await read(opened.default, LEASE, "l")) == (None, None)
            assert (await read(a, RECEIPT, "r"), await read(opened.default, RECEIPT, "r")) == (None, None)
            assert (await a.count(ENTRY, "", None, 10)).count == 1
            assert [each.name for each in (await a.changes(ENTRY, 0, "", 10)).changes] == ["only/a", "key"]
            assert [each.name for each in (await b.changes(ENTRY, 0, "", 10)).changes] == ["key"]
            assert [each.name for each in (await b.changes(LEASE, 0, "", 10)).changes] == ["l"]
            assert set(published["a"]) == {2, 3}
            assert set(published["b"]) == {1}
            assert len({space.incarnation for space in (opened.default, a, b)}) == 3

    @scenario
    async def test_a_batch_sees_the_records_of_its_namespace_only(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            a, b = await opened.created("a"), await opened.created("b")
            await put(a, ("key", b"1"))
            await lock(a, "l", clock.now)
            seen: list[object] = []

            def decide(view: View, revision: int, _now: int) -> Sequence[Change]:
                seen.append((view.records(ENTRY).get("key"), view.records(LEASE).get("l"), revision, view.incarnation))
                seen.append(view.found(LEASE).get("id-of-l-1"))
                return []

            await commit(b, Touched({ENTRY: ["key"], LEASE: ["l"]}, {LEASE: ["id-of-l-1"]}), decide)
            assert seen == [(None, None, 0, b.incarnation), None]

    # Usage and quotas -----------------------------------------------------------------------------------------

    @scenario
    async def test_the_usage_is_that_of_all_entries(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            a = await opened.created("a")
            await put(a, ("k", b"[1,2]"), ("größe", b'"\xc3\xa4"'))
            assert await opened.usage("a") == Usage(2, 1 + 5 + 7 + 4)
            await put(a, ("k", Binary("text/plain", Content(b"123"))), ("new", b"1"))
            assert await opened.usage("a") == Usage(3, 1 + 3 + 7 + 4 + 3 + 1)
            await lock(a, "l", clock.now)
            await keep_receipt(a, "r", clock.now + SECOND)
            await put(a, ("größe", None), ("missing", None))
            assert await opened.usage("a") == Usage(2, 1 + 3 + 3 + 1)
            await put(a, ("k", b"1"), expires_at=clock.now + 1)
            clock.now += 2
            assert await opened.usage("a") == Usage(2, 1 + 1 + 3 + 1)
            assert await opened.usage(DEFAULT_NAMESPACE) == Usage(0, 0)

    @scenario
    async def test_decide_sees_the_usage_and_the_quota(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            a = await opened.created("a")
            await opened.engine.create(DEFAULT_NAMESPACE, QuotaChange(max_bytes=9))
            seen: list[object] = []

            def decide(view: View, revision: int, now: int) -> Sequence[Change]:
                seen.append((view.quota, None if view.quota is None else view.usage))
                return [Entry("key", b"12", revision + 1, now, now)]

            for space in (a, opened.default, opened.default):
                await commit(space, Touched({ENTRY: ["key"]}), decide)
            await opened.engine.create("a", QuotaChange(max_entries=1))
            await commit(a, Touched({ENTRY: ["key"]}), decide)
            await opened.engine.create("a", QuotaChange(max_entries=None))
            await commit(a, Touched({ENTRY: ["key"]}), decide)
            assert seen == [
                (None, None),
                (Quota(None, 9), Usage(0, 0)),
                (Quota(None, 9), Usage(1, 5)),
                (Quota(1, None), Usage(1, 5)),
                (None, None),
            ]

    # Deletion -------------------------------------------------------------------------------------------------

    @scenario
    async def test_a_deleted_namespace_is_gone_and_the_others_stay(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            a, b = await opened.created("a"), await opened.created("b")
            await put(a, ("k", b"1"), ("l", b"1"))
            await put(b, ("k", b"2"))
            assert await opened.engine.delete("a") == 3, "the deletion has a revision, too"
            assert await opened.names() == ["b", DEFAULT_NAMESPACE]
            assert await code_of(put(a, ("k", b"2"))) == "no_such_namespace"
            assert await code_of(read(a, ENTRY, "k")) == "no_such_namespace"
            assert await code_of(a.scan(ENTRY, "", None, 10)) == "no_such_namespace"
            assert await code_of(a.changes(ENTRY, 0, "", 10)) == "no_such_namespace"
            assert await code_of(opened.engine.namespace("a")) == "no_such_namespace"
            assert await code_of(opened.engine.delete("a")) == "no_such_namespace"
            assert await values(b) == {"k": b"2"}
            await put(b, ("k", b"3"))

    @scenario
    async def test_tokens_revisions_and_incarnations_never_come_again(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            tokens: list[int] = []
            incarnations: list[str] = []
            for _ in range(3):
                a = await opened.created("a")
                incarnations.append(a.incarnation)
                before = a.revision
                assert await values(a) == {}
                assert await read(a, LEASE, "l") is None
                assert (await a.changes(ENTRY, before, "", 10)).changes == []
                if before:
                    assert await code_of(a.changes(ENTRY, before - 1, "", 10)) == "revision_compacted"
                tokens.append(await lock(a, "l", clock.now))
                await put(a, ("k", b"1"))
                assert [each.name for each in (await a.changes(ENTRY, before, "", 10)).changes] == ["k"]
                assert await opened.engine.delete("a") == a.revision + 1
            assert tokens == [1, 4, 7]
            assert len(set(incarnations)) == 3

    @scenario
    async def test_a_namespace_that_is_created_again_has_no_quota(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            await opened.engine.create("a", QuotaChange(max_entries=1))
            await opened.engine.delete("a")
            again, is_new = await opened.engine.create("a", QuotaChange())
            assert (again.quota, again.usage, is_new) == (Quota(), Usage(0, 0), True)

    @scenario
    async def test_a_commit_is_done_before_the_deletion_or_refused(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            for number in range(5):
                a = await opened.created("a")
                before = a.revision
                writing = asyncio.create_task(put(a, ("k", b"1")))
                for _ in range(number):
                    await asyncio.sleep(0)
                kept = await opened.engine.delete("a")
                result = (await asyncio.gather(writing, return_exceptions=True))[0]
                if result is None:
                    assert kept == before + 2
                else:
                    assert kept == before + 1
                    assert isinstance(result, ServiceError)
                    assert result.code == "no_such_namespace"
                again = await opened.created("a")
                assert (again.revision, await values(again)) == (kept, {})
                await opened.engine.delete("a")

    # Cleaning -------------------------------------------------------------------------------------------------

    @scenario
    async def test_expired_records_of_all_namespaces_are_named(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            a = await opened.created("a")
            await opened.created("b")
            await put(a, ("over", b"1"), expires_at=clock.now + SECOND)
            await put(a, ("alive", b"1"), expires_at=clock.now + 3 * SECOND)
            await lock(a, "l", clock.now, seconds=1)
            await put(opened.default, ("over", b"1"), expires_at=clock.now + SECOND)
            assert list(await opened.engine.expired(100)) == []
            clock.now += SECOND
            assert await all_expired(opened.engine, 3) == [
                ("a", ENTRY, "over"),
                ("a", LEASE, "l"),
                (DEFAULT_NAMESPACE, ENTRY, "over"),
            ]
            assert await opened.engine.expired(1)

    @scenario
    async def test_surplus_receipts_are_counted_by_namespace(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            a = await opened.created("a")
            for number in range(3):
                await keep_receipt(a, f"r{number}", clock.now + number * SECOND + 1)
            await keep_receipt(opened.default, "r", clock.now + 1)
            assert list(await opened.engine.surplus(RECEIPT, 1, 1_000_000, 100)) == [("a", "r0"), ("a", "r1")]


class DurableNamespaceConformance(NamespaceConformance):
    """Also what a namespace is after a restart."""

    @scenario
    async def test_namespaces_are_the_same_after_restarts(self, tmp_path: Path, clock: FrozenClock) -> None:
        async with self.opened(tmp_path, clock) as opened:
            a = await opened.created("a", QuotaChange(max_entries=5))
            await opened.created("empty")
            await put(a, ("k", b"1"), ("größe", b"[]"))
            await put(a, ("l", b"1"), ("k", None))
            await lock(a, "l", clock.now)
            await keep_receipt(a, "r", clock.now + SECOND)
            await put(opened.default, ("k", b'"default"'))
            described = await opened.engine.namespaces(None, 10)
            changes = await a.changes(ENTRY, 0, "", 10)
            incarnations = [a.incarnation, opened.default.incarnation]
        for _ in range(2):
            async with self.opened(tmp_path, clock) as opened:
                assert await opened.engine.namespaces(None, 10) == described
                a = await opened.space("a")
                assert await values(a) == {"größe": b"[]", "l": b"1"}
                assert await values(opened.default) == {"k": b'"default"'}
                assert await a.changes(ENTRY, 0, "", 10) == changes
                assert await read(a, RECEIPT, "r") is not None
                found = await read(a, LEASE, "l")
                assert found is not None
                assert found.token == 5
                assert [a.incarnation, opened.default.incarnation] == incarnations

    @scenario
    async def test_a_deletion_is_the_same_after_restarts(self, tmp_path: Path, clock: FrozenClock) -> None:
        incarnations: list[str] = []
        for life in range(3):
            async with self.opened(tmp_path, clock) as opened:
                assert await opened.names() == [DEFAULT_NAMESPACE]
                assert await code_of(opened.space("a")) == "no_such_namespace"
                a = await opened.created("a")
                incarnations.append(a.incarnation)
                assert (a.revision, await values(a)) == (3 * life, {})
                await put(a, ("k", b"1"), ("l", b"1"))
            async with self.opened(tmp_path, clock) as opened:
                assert await opened.engine.delete("a") == 3 * life + 3
        assert len(set(incarnations)) == 3

    @scenario
    async def test_expired_records_of_namespaces_that_are_not_open_are_named(
        self, tmp_path: Path, clock: FrozenClock
    ) -> None:
        async with self.opened(tmp_path, clock) as opened:
            await put(await opened.created("a"), ("over", b"1"), expires_at=clock.now + SECOND)
        clock.now += SECOND
        async with self.opened(tmp_path, clock) as opened:
            assert await all_expired(opened.engine, 1) == [("a", ENTRY, "over")]
