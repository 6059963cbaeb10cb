"""What endpoints use: reads, waiting for locks and for changes, and the write lane of one space."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing
from functools import partial

from leasehold import rules, values
from leasehold.engines.backups import backup_text
from leasehold.engines.base import Engine
from leasehold.errors import ServiceError
from leasehold.limits import MIB, Limits
from leasehold.metrics import Metrics
from leasehold.model import (
    ENTRY,
    LEASE,
    RECEIPT,
    Counted,
    Entry,
    Found,
    Keyed,
    Kind,
    Lease,
    NotModified,
    Operation,
    Outcome,
    Page,
    R,
    Read,
    Receipt,
    Replayed,
)
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.store.batch import Done
from leasehold.store.lane import Lane
from leasehold.store.lock_feed import LockFeed
from leasehold.store.lock_queues import LockQueues
from leasehold.store.turns import Turns
from leasehold.store.waiting_reads import WaitingReads
from leasehold.store.watching import Watching

FIRST_PAGE_ENTRIES = 16
STREAM_PAGE_ENTRIES = 512
LIGHT_PAGE_BYTES = 1 * MIB

DoSteps = Callable[[Generator[None, None, Outcome]], None]
"""Does steps in later iterations of the event loop. Their result is the outcome of a read; they raise its error."""


class Store:
    """The space of one namespace. `open` and `close` open and close the space, too."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        metrics: Metrics | None = None,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        turns: Turns | None = None,
    ) -> None:
        """`turns`: those of all stores of the process. Raises `no_such_namespace`."""
        self.engine = engine
        self.space = engine.space(namespace)
        self._max_value_bytes = limits.max_body_bytes
        self._lane = Lane(self.space, Metrics() if metrics is None else metrics, max_value_bytes=self._max_value_bytes)
        self.submit = self._lane.submit
        """See `Lane.submit`."""
        self._queues = LockQueues(self.submit, self.recall)
        self.acquire = self._queues.acquire
        """Wait for a lock in the order of arrival; see `LockQueues.acquire`."""
        self._lock_feed = LockFeed(self.space, self._queues)
        turns = turns or Turns()
        self.turn, self.gathering = turns.turn, turns.gathering
        """See `Turns`."""
        self._waiting_reads = WaitingReads(self.space, turns.waiting_reads)
        self._watching = Watching(self.space, partial(self.pages, after=None, limit=None), self._lease_pages)
        self.watch, self.require_known = self._watching.watch, self._watching.require_known
        """See `Watching`."""
        self._is_backing_up = False

    async def open(self) -> None:
        """Open the space. Raises the errors of `Space.open`."""
        await self.space.open()
        self._lane.open()

    async def close(self) -> None:
        """Refuse new operations, wait until the lane is empty, close the space."""
        self._lane.refuse_all()
        await self._lock_feed.stop()
        await self._watching.close()
        await self._lane.close()
        await self.space.close()

    @property
    def fault(self) -> ServiceError | None:
        """Why changes cannot be made durable now, or None. Either the space has a fault, or the lane is stalled."""
        return self.space.fault or self._lane.fault

    def gauges(self) -> Mapping[str, float]:
        """Gauges of the store and its space, by the names in `metrics.GAUGES`."""
        return {**self.activity(), "revision": self.space.revision, **self.space.gauges()}

    def activity(self) -> Mapping[str, float]:
        """The gauges that say what happens in the store now, not what it contains."""
        return {
            "waiting_operations": len(self._lane),
            "waiters": len(self._queues),
            "waiting_reads": len(self._waiting_reads),
            "watchers": len(self._watching),
            "watch_lag_revisions": self._watching.lag,
            "degraded": int(self.fault is not None),
        }

    def tick(self) -> None:
        """Look whether the lane makes progress, and repeat what failed before. Called every second by `Ticking`."""
        self._lane.check()
        if self.engine.fault is not None:
            return
        self._queues.catch_up()
        self._lock_feed.catch_up()
        self._waiting_reads.catch_up()

    # Reads ----------------------------------------------------------------------------------------------------

    def read(self, read: Read, done: Done, do_steps: DoSteps | None = None) -> None:
        """Call `done` with Found, NotModified or the error. Engines that keep entries in memory call it at once.

        As with a change, a `done` that raises must have had no effect. To read parts of a large value takes long: if
        `do_steps` is given, it is called with the steps of this work in place of `done`.
        """

        def finish(entry: Entry | ServiceError | None) -> None:
            if do_steps is not None and isinstance(entry, Entry) and len(entry.value) > values.PIECE_BYTES:
                do_steps(rules.read_steps(read, entry, self.space.incarnation))
            else:
                done(self.outcome(read, entry))

        self.space.read(ENTRY, read.key, finish)

    def outcome(self, read: Read, entry: Entry | ServiceError | None) -> Found | NotModified | ServiceError:
        """The outcome of `read`, for which the space has given `entry`."""
        if isinstance(entry, ServiceError):
            return entry
        try:
            return rules.evaluate_read(read, entry, self.space.incarnation)
        except ServiceError as refusal:
            return refusal

    async def fetch(self, read: Read) -> Outcome:
        """`read` for coroutines."""
        result: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.read(read, partial(_finish, result))
        return await result

    async def fetch_waiting(self, read: Read, wait_seconds: float) -> Outcome:
        """`fetch`, but wait while the result is "not modified" or "not found"; see `WaitingReads.read`."""
        return await self._waiting_reads.read(read, wait_seconds)

    async def change(self, operation: Operation) -> Outcome:
        """`submit` for coroutines."""
        return await self.submitted(operation)

    def preparation(self, operation: Operation, body_bytes: int) -> Generator[None, None, Operation] | None:
        """Steps to do before `submit`; their result is what to submit. None: submit the operation as it is.

        Without them, all work is done in the lane. So it is if the space does not keep its entries in memory.
        """
        space = self.space
        if space.peek is None:
            return None
        return rules.preparation(operation, space.peek, space.incarnation, body_bytes, self._max_value_bytes)

    def submitted(self, operation: Operation) -> asyncio.Future[Outcome]:
        """`submit`, with a future that gets the outcome or the error."""
        result: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.submit(operation, partial(_finish, result))
        return result

    def recall(self, keyed: Keyed, done: Callable[[Replayed | ServiceError | None], None]) -> None:
        """Call `done` with the outcome of an operation that was done before; None: it was not, as of now.

        For operations that are not simply submitted, because they wait or have several steps. `done` gets
        `idempotency_key_reused` if another request was done with the key.
        """

        def finish(receipt: Receipt | ServiceError | None) -> None:
            if isinstance(receipt, Receipt):
                try:
                    done(rules.replayed(receipt, keyed))
                except ServiceError as refusal:
                    done(refusal)
            else:
                done(receipt)

        self.space.read(RECEIPT, keyed.receipt, finish)

    async def fetch_recalled(self, keyed: Keyed) -> Replayed | None:
        """`recall` for coroutines."""
        result: asyncio.Future[Replayed | None] = asyncio.get_running_loop().create_future()
        self.recall(keyed, partial(_finish_recalled, result))
        return await result

    def entries(self, keys: Sequence[str]) -> AsyncGenerator[Page[Entry]]:
        """Several entries as of one moment; see `Space.read_all`."""
        return self.space.read_all(ENTRY, keys)

    async def page(
        self, prefixes: Sequence[str], after: str | None, limit: int, *, is_reversed: bool = False
    ) -> Page[Entry]:
        """At most `limit` (1..MAX_PAGE_ENTRIES) entries whose keys begin with one of `prefixes`; see `Space.scan`.

        The prefixes must be sorted, and none may begin with another.
        """
        return await self._page(ENTRY, prefixes, after, limit, is_reversed=is_reversed)

    async def _page(
        self, kind: Kind[R], prefixes: Sequence[str], after: str | None, limit: int, *, is_reversed: bool = False
    ) -> Page[R]:
        records: list[R] = []
        revision: int | None = None
        for prefix in _prefixes_left(prefixes, after, is_reversed=is_reversed):
            room = limit - len(records)
            page = await self.space.scan(kind, prefix, after, max(room, 1), is_reversed=is_reversed)
            revision = page.revision if revision is None else revision
            if not room and page.records:
                return Page(records, revision, records[-1].name)
            records += page.records
            if page.next_after is not None:
                return Page(records, revision, page.next_after)
        return Page(records, self.space.revision if revision is None else revision, None)

    async def count(
        self, prefixes: Sequence[str], after: str | None, limit: int, *, is_reversed: bool = False
    ) -> Counted:
        """How many entries there are, but at most `limit`. The arguments are those of `page`."""
        count, position = 0, after
        revision: int | None = None
        for prefix in _prefixes_left(prefixes, after, is_reversed=is_reversed):
            is_complete = False
            while not is_complete:
                part = await self.space.count(ENTRY, prefix, position, limit - count, is_reversed=is_reversed)
                revision = part.revision if revision is None else revision
                count, is_complete = count + part.count, part.is_complete
                position = position if part.last is None else part.last
                if count == limit:
                    rest = await self.page(prefixes, position, 1, is_reversed=is_reversed)
                    return Counted(count, revision, position, not rest.records and rest.next_after is None)
                await asyncio.sleep(0)
        return Counted(count, self.space.revision if revision is None else revision, position, is_complete=True)

    async def pages(
        self, prefixes: Sequence[str], after: str | None, limit: int | None, *, is_reversed: bool = False
    ) -> AsyncGenerator[Page[Entry]]:
        """The entries after the key `after`, in pages: `limit` entries, or all.

        Changes that are committed in the meantime may or may not be included. Memory is bounded: a page's size is known
        only once it is loaded, so pages begin small and grow as long as they have few bytes.
        """
        position, size, left = after, FIRST_PAGE_ENTRIES, limit
        while True:
            page = await self.page(
                prefixes, position, size if left is None else min(size, left), is_reversed=is_reversed
            )
            yield page
            if left is not None:
                left -= len(page.records)
            if page.next_after is None or left == 0:
                return
            position = page.next_after
            if not page.records:
                await asyncio.sleep(0)
            weight = sum(len(entry.value) for entry in page.records)
            size = max(size // 2, 1) if weight > LIGHT_PAGE_BYTES else min(size * 2, STREAM_PAGE_ENTRIES)

    async def backup(self) -> AsyncGenerator[bytes]:
        """The text of a backup, in chunks. One at a time of each namespace, because it keeps all entries in memory.

        Raises `too_many_requests`, and the errors of the engine.
        """
        if self._is_backing_up:
            raise ServiceError("too_many_requests", "a backup is being read", headers={"Retry-After": "10"})
        self._is_backing_up = True
        try:
            async with aclosing(backup_text(await self.space.moment())) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._is_backing_up = False

    # Locks ----------------------------------------------------------------------------------------------------

    def waiting_for(self, lock: str) -> int:
        """How many callers wait for a lock at this server."""
        return self._queues.waiting_for(lock)

    async def lease(self, lock: str) -> Lease | None:
        """The lease of a lock, or None if no lease is alive."""
        result: asyncio.Future[Lease | None] = asyncio.get_running_loop().create_future()

        def done(lease: Lease | ServiceError | None) -> None:
            if result.done():
                return
            if isinstance(lease, ServiceError):
                result.set_exception(lease)
            else:
                result.set_result(lease)

        self.space.read(LEASE, lock, done)
        return await result

    async def lease_page(self, prefixes: Sequence[str], after: str | None, limit: int) -> Page[Lease]:
        """The leases that are alive, in pages as in `page`."""
        return await self._page(LEASE, prefixes, after, limit)

    async def _lease_pages(self, prefixes: Sequence[str]) -> AsyncGenerator[Page[Lease]]:
        after: str | None = None
        while True:
            page = await self.lease_page(prefixes, after, STREAM_PAGE_ENTRIES)
            yield page
            after = page.next_after
            if after is None:
                return

    def refuse_all(self, reason: Callable[[], ServiceError]) -> None:
        """End all waits and watches, and refuse all changes from now on. `reason` makes the error."""
        self._lane.refuse_all(reason)
        self._queues.stop(reason)
        self._waiting_reads.stop(reason)
        self._watching.stop(reason)

    def stop_waiting(self) -> None:
        """Refuse all callers that wait for a lock, and end all waiting reads and watches, present and future."""
        self._queues.stop()
        self._waiting_reads.stop()
        self._watching.stop()


def _prefixes_left(prefixes: Sequence[str], after: str | None, *, is_reversed: bool) -> Sequence[str]:
    """The prefixes of names that a list has behind `after`, in the order of the list."""
    if is_reversed:
        return [each for each in reversed(prefixes) if after is None or each < after]
    return [each for each in prefixes if after is None or after < each or after.startswith(each)]


def _finish(result: asyncio.Future[Outcome], outcome: Outcome | ServiceError) -> None:
    if result.done():
        return
    if isinstance(outcome, ServiceError):
        result.set_exception(outcome)
    else:
        result.set_result(outcome)


def _finish_recalled(result: asyncio.Future[Replayed | None], recalled: Replayed | ServiceError | None) -> None:
    if result.done():
        return
    if isinstance(recalled, ServiceError):
        result.set_exception(recalled)
    else:
        result.set_result(recalled)
