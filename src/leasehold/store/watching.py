"""Watchers: responses that report the changes of entries and leases as they are committed.

A watcher has no queue of events. It has a cursor: a revision up to which everything that matches has been sent. It is
in one of two modes:

- **Live.** It has everything up to the head, and `LiveWatchers` sends it each new change.
- **Catching up.** Its own task reads windows of the history after its cursor and sends them at the client's pace. It
  becomes live when its cursor reaches `LiveWatchers.position`.

A live watcher whose client reads slowly falls behind: it leaves with its cursor, and catches up when the client has
read. So a slow reader costs no memory. It misses intermediate states of a name, never the latest one.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final

from leasehold.engines.base import Space, compacted
from leasehold.errors import ServiceError, shutting_down
from leasehold.model import ENTRY, Change, Entry, Lease, Page, Record
from leasehold.store.live_watchers import LiveWatchers, read_window
from leasehold.store.watch_windows import (
    FIRST_WINDOW_CHANGES,
    common_prefix,
    next_size,
    pieces,
    record_pieces,
    until,
)
from leasehold.store.watchers import NO_TIMER_SECONDS, Sink, Watch, Watcher

END_SECONDS: Final = 1.0
"""How long a stop waits for watchers that catch up: they may be waiting for a database, or for their clients."""

EntryPages = Callable[[Sequence[str]], AsyncGenerator[Page[Entry]]]
"""All entries under some prefixes, in pages."""
LeasePages = Callable[[Sequence[str]], AsyncGenerator[Page[Lease]]]


class Watching:
    """All watchers of a store."""

    __slots__ = ("_behind", "_entry_pages", "_lease_pages", "_live", "_space", "_stopping", "_watchers")

    def __init__(self, space: Space, entry_pages: EntryPages, lease_pages: LeasePages) -> None:
        self._space = space
        self._entry_pages = entry_pages
        self._lease_pages = lease_pages
        self._live = LiveWatchers(space)
        self._watchers: set[Watcher] = set()
        self._behind: set[Watcher] = set()
        """Those that catch up."""
        self._stopping: ServiceError | None = None

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def lag(self) -> int:
        """How many revisions the watcher that is furthest behind has not been sent yet."""
        sent = [watcher.cursor for watcher in self._behind]
        if self._live:
            sent.append(self._live.position)
        head = self._space.revision
        return max(head - min(sent, default=head), 0)

    async def require_known(self, cursor: int) -> None:
        """Raise `revision_compacted` if the history does not reach back to `cursor`, or if it ends before it."""
        found = await self._space.changes(ENTRY, cursor, "", 1)
        if found.revision < cursor:  # the cursor is from another history
            raise compacted(found.revision)

    async def watch(self, watch: Watch, sink: Sink) -> None:
        """Send events until the client disconnects (the task is cancelled), the token expires or the service stops.

        If the service ends the response, its last event says why.
        """
        watcher = Watcher(watch, sink)
        watcher.ending = self._stopping
        self._watchers.add(watcher)
        timer: asyncio.TimerHandle | None = None
        if watch.token_seconds < NO_TIMER_SECONDS:
            expired = ServiceError("unauthenticated", "the token has expired; watch again with a new one")
            timer = asyncio.get_running_loop().call_later(max(watch.token_seconds, 0.0), self._end, watcher, expired)
        try:
            await self._follow(watcher)
        except ServiceError as error:
            sink.write(watch.interest.format.end(error))
        finally:
            if timer is not None:
                timer.cancel()
            if watcher.is_live:
                self._live.leave(watcher, self._live.position)
            self._watchers.discard(watcher)
            self._behind.discard(watcher)

    async def _follow(self, watcher: Watcher) -> None:
        """Raises the error with which the response ends."""
        watcher.require_going_on()
        await self._begin(watcher)
        self._behind.add(watcher)
        while True:
            try:
                await self._catch_up(watcher)
            except ServiceError as error:
                if error.code != "revision_compacted" or not watcher.watch.with_snapshot:
                    raise
                await self._reset(watcher)
                continue
            self._behind.discard(watcher)
            assert watcher.left is not None
            await watcher.left
            self._behind.add(watcher)
            watcher.require_going_on()
            await watcher.sink.give_way()

    # Begin ----------------------------------------------------------------------------------------------------

    async def _begin(self, watcher: Watcher) -> None:
        """Send `ready`, after a snapshot if one is needed."""
        watch = watcher.watch
        if watch.since is None and watch.with_snapshot:
            await self._send_snapshot(watcher)
            return
        watcher.cursor = self._space.revision if watch.since is None else watch.since
        if watch.since is not None and watch.with_snapshot:
            try:
                await self.require_known(watch.since)
            except ServiceError as error:
                if error.code != "revision_compacted":
                    raise
                await self._reset(watcher)
                return
        watcher.sink.write(watch.interest.format.ready(watcher.cursor))

    async def _reset(self, watcher: Watcher) -> None:
        watcher.sink.write(watcher.watch.interest.format.reset(self._space.revision))
        await self._send_snapshot(watcher)

    async def _send_snapshot(self, watcher: Watcher) -> None:
        """All records that match, then `ready` with the revision from before the first one was read.

        Changes during the snapshot may be in it, and are sent after it in any case.
        """
        interest = watcher.watch.interest
        revision: int | None = None
        async with aclosing(self._entry_pages(interest.prefixes)) as entry_pages:
            async for page in entry_pages:
                revision = page.revision if revision is None else revision
                await self._send_records(watcher, page.records)
        if interest.with_locks:
            async with aclosing(self._lease_pages(interest.prefixes)) as lease_pages:
                async for leases in lease_pages:
                    await self._send_records(watcher, leases.records)
        assert revision is not None
        watcher.cursor = revision
        watcher.sink.write(interest.format.ready(revision))

    async def _send_records(self, watcher: Watcher, records: Sequence[Record]) -> None:
        for piece in record_pieces(records):
            watcher.sink.write(watcher.watch.interest.format.snapshot(piece))
            await watcher.sink.give_way()
            watcher.require_going_on()

    # Catching up ----------------------------------------------------------------------------------------------

    async def _catch_up(self, watcher: Watcher) -> None:
        """Send the changes after the cursor until the watcher is live. Raises `revision_compacted`.

        The last piece and the step to live mode are done without a pause in between, so that a watcher becomes live
        also while changes are committed all the time.
        """
        interest, sink, live = watcher.watch.interest, watcher.sink, self._live
        prefix = common_prefix(interest.prefixes)
        size = FIRST_WINDOW_CHANGES
        while True:
            head = self._space.revision
            window = await read_window(self._space, watcher.cursor, prefix, size, with_locks=interest.with_locks)
            watcher.require_going_on()
            size = next_size(size, window.changes)
            if live:
                window = until(window, max(live.position, watcher.cursor))
            matching: Sequence[Change] = window.changes
            if interest.prefixes != (prefix,):
                matching = [change for change in matching if change.name.startswith(interest.prefixes)]
            piece: Sequence[Change] = ()
            for following in pieces(matching):
                if piece:
                    await self._send_piece(watcher, piece)
                piece = following
            if piece:
                sink.write(interest.format.changes(piece))
            watcher.cursor = window.revision
            if live.join(watcher, is_at_head=watcher.cursor >= head):
                return
            await sink.give_way()
            watcher.require_going_on()

    async def _send_piece(self, watcher: Watcher, piece: Sequence[Change]) -> None:
        watcher.sink.write(watcher.watch.interest.format.changes(piece))
        watcher.cursor = piece[-1].revision
        await watcher.sink.give_way()
        watcher.require_going_on()

    # Ends -----------------------------------------------------------------------------------------------------

    def _end(self, watcher: Watcher, reason: ServiceError) -> None:
        """End the response with a reason. A watcher that is not live ends at its next step."""
        watcher.ending = reason
        if watcher.is_live:
            self._live.leave(watcher, self._live.position)

    def stop(self, reason: Callable[[], ServiceError] = shutting_down) -> None:
        """End all responses, present and future, with the error that `reason` makes.

        Those whose client does not read are cut off.
        """
        self._stopping = reason()
        for watcher in list(self._watchers):
            if watcher.sink.is_paused:
                watcher.sink.abort()
            else:
                self._end(watcher, self._stopping)
        if self._watchers:
            asyncio.get_running_loop().call_later(END_SECONDS, self._cut_off)

    def _cut_off(self) -> None:
        for watcher in list(self._watchers):
            watcher.sink.abort()

    async def close(self) -> None:
        await self._live.close()
