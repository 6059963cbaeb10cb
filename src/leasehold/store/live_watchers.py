"""The live watchers: those that have everything up to the same revision, and are sent new changes together.

Invariants:

- All live watchers have everything up to `position`, except for the window that `_deliver` is sending. It ends at
  `position`, and its recipients were chosen when it began. Whoever becomes live later has it already.
- Publications only wake the task. It reads all changes from the history of the space, so the order is the same for
  commits of this server and of others, and an event is not lost if a publication is.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from leasehold.completions import report
from leasehold.engines.base import Space, compacted
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, KIND_OF, LEASE, Change, Changes
from leasehold.store.heartbeats import Heartbeats
from leasehold.store.watch_windows import FIRST_WINDOW_CHANGES, PrefixIndex, merged, next_size, pieces
from leasehold.store.watchers import Format, Interest, Watcher
from leasehold.tasks import cancel_and_wait, start_task

TICK_SECONDS: Final = 1.0
"""How often it is checked which watchers are due for a `progress`."""
SLICE_WRITES: Final = 64
"""So many watchers are sent a window before other requests are served: 0.5 ms."""
PIECE_WRITES: Final = 16
"""What encoding a piece counts among them."""


async def read_window(space: Space, cursor: int, prefix: str, size: int, *, with_locks: bool) -> Changes:
    """The next window of about `size` changes. Raises `revision_compacted`, and the errors of the storage."""
    window = await space.changes(ENTRY, cursor, prefix, size)
    if with_locks:
        # After the entries: then every change of a lock up to the end of their window is in it.
        window = merged(window, await space.changes(LEASE, cursor, prefix, size))
    if window.revision < cursor:  # the cursor is from another history, or the database has gone back
        raise compacted(window.revision)
    return window


class _Group:
    """The live watchers with one interest. Exists while there are any."""

    __slots__ = ("interest", "watchers")

    def __init__(self, interest: Interest) -> None:
        self.interest = interest
        self.watchers: dict[Watcher, None] = {}
        """A set that keeps the order."""


class LiveWatchers:
    """The live watchers of a store."""

    __slots__ = (
        "_delivered",
        "_groups",
        "_groups_with_locks",
        "_head",
        "_heartbeats",
        "_index",
        "_is_tick_due",
        "_is_woken",
        "_size",
        "_sleeping",
        "_space",
        "_task",
        "_timer",
        "position",
    )

    def __init__(self, space: Space) -> None:
        self._space = space
        self.position = 0
        """See the invariants. Without live watchers it has no meaning."""
        self._delivered = 0
        """All live watchers have everything up to this revision, or up to where they became live."""
        self._groups: dict[Interest, _Group] = {}
        self._index: PrefixIndex[_Group] = PrefixIndex()
        self._groups_with_locks = 0
        self._heartbeats = Heartbeats()
        self._size = FIRST_WINDOW_CHANGES
        self._head = 0
        """The largest revision that is known to be committed."""
        self._task: asyncio.Task[None] | None = None
        """Runs `_run` while there are live watchers, and up to a second longer."""
        self._sleeping: asyncio.Future[None] | None = None
        """What the task waits for when it has nothing to do."""
        self._is_woken = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_tick_due = False
        space.subscribe(ENTRY, self._published)
        space.subscribe(LEASE, self._published)

    def __bool__(self) -> bool:
        return bool(self._groups)

    # Watchers come and leave ----------------------------------------------------------------------------------

    def join(self, watcher: Watcher, *, is_at_head: bool) -> bool:
        """Make the watcher live, if its cursor is at `position`.

        The first one defines the position. It must be at the head, because all later ones wait for `position`.
        """
        if not self._groups:
            if not is_at_head:
                return False
            self.position = self._delivered = watcher.cursor
        elif watcher.cursor != self.position:
            if watcher.cursor > self.position:
                self._note_head(watcher.cursor)
            return False
        interest = watcher.watch.interest
        group = self._groups.get(interest)
        if group is None:
            group = self._groups[interest] = _Group(interest)
            self._groups_with_locks += interest.with_locks
            for prefix in interest.prefixes:
                self._index.add(prefix, group)
        loop = asyncio.get_running_loop()
        group.watchers[watcher] = None
        watcher.is_live, watcher.left = True, loop.create_future()
        watcher.joined_at, watcher.sent_at = self.position, loop.time()
        self._heartbeats.put(watcher, watcher.sent_at + watcher.watch.heartbeat_seconds)
        if self._task is None:
            self._task = start_task(loop, self._run())
        if self._timer is None:
            self._timer = loop.call_later(TICK_SECONDS, self._tick)
        self._note_head(self._space.revision)
        return True

    def leave(self, watcher: Watcher, cursor: int) -> None:
        """The watcher is no longer live. It has everything up to `cursor`."""
        assert watcher.left is not None
        interest = watcher.watch.interest
        group = self._groups[interest]
        del group.watchers[watcher]
        if not group.watchers:
            del self._groups[interest]
            self._groups_with_locks -= interest.with_locks
            for prefix in interest.prefixes:
                self._index.remove(prefix, group)
        self._heartbeats.remove(watcher)
        watcher.is_live, watcher.cursor = False, cursor
        if not watcher.left.done():
            watcher.left.set_result(None)

    def _all_leave(self) -> None:
        for group in list(self._groups.values()):
            for watcher in list(group.watchers):
                self.leave(watcher, max(self._delivered, watcher.joined_at))

    # Waking ---------------------------------------------------------------------------------------------------

    def _published(self, revision: int, _changes: Sequence[Change] | None) -> None:
        try:
            self._note_head(revision)
        except Exception as failure:  # noqa: BLE001 - the commit is done, and the next tick wakes the task
            report("watchers could not be woken", failure)

    def _note_head(self, revision: int) -> None:
        if revision > self._head:
            self._head = revision
        if self._groups and self._head > self.position:
            self._wake()

    def _wake(self) -> None:
        self._is_woken = True
        if self._sleeping is not None and not self._sleeping.done():
            self._sleeping.set_result(None)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        if not self._groups and self._sleeping is not None and self._task is not None:
            self._task.cancel()  # nobody watches this namespace any more, so it costs nothing
            self._task = self._sleeping = None
            return
        self._timer = loop.call_later(TICK_SECONDS, self._tick)
        if self._task is not None and self._task.done():  # even its handling of a fault has failed
            self._task = start_task(loop, self._run())
        self._is_tick_due = True
        self._wake()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            await cancel_and_wait(self._task)

    # Delivery -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Deliver new changes and progress, until it is cancelled."""
        while True:
            if not self._is_woken:
                self._sleeping = asyncio.get_running_loop().create_future()
                await self._sleeping
                self._sleeping = None
            self._is_woken = False
            try:
                try:
                    await self._read_on()
                except ServiceError as error:
                    # Each watcher finds out for itself what it misses. After other errors, the next tick tries again.
                    if error.code == "revision_compacted":
                        self._all_leave()
                if self._is_tick_due:
                    self._is_tick_due = False
                    await self._send_progress()
            except Exception as failure:  # noqa: BLE001 - each watcher continues with what it has
                report("changes could not be delivered to watchers", failure)
                self._all_leave()

    async def _read_on(self) -> None:
        while self._groups and self._head > self.position:
            begin = self.position
            with_locks = self._groups_with_locks > 0
            window = await read_window(self._space, begin, "", self._size, with_locks=with_locks)
            if self.position != begin:  # all watchers have left, and others came
                continue
            if self._groups_with_locks and not with_locks:  # the first one who asks for locks has come
                continue
            if window.revision == begin:
                return
            self._size = next_size(self._size, window.changes)
            await self._deliver(window)

    async def _deliver(self, window: Changes) -> None:
        """Send a window to the live watchers, in slices. It is matched and encoded once for each interest."""
        sent_before, self.position = self.position, window.revision
        matched: dict[_Group, list[Change]] = {}
        for change in window.changes:
            is_lease = KIND_OF[type(change)] is LEASE
            for group in self._index.of(change.name):
                if not is_lease or group.interest.with_locks:
                    matched.setdefault(group, []).append(change)
        recipients = {group: [(watcher, watcher.left) for watcher in group.watchers] for group in matched}
        now = asyncio.get_running_loop().time()
        written = 0
        for group, changes in matched.items():
            sent = sent_before
            for piece in pieces(changes):
                data = group.interest.format.changes(piece)
                written += PIECE_WRITES
                for watcher, left in recipients[group]:
                    if left is None or left.done():
                        continue
                    if watcher.sink.is_paused:
                        self.leave(watcher, sent)
                        continue
                    watcher.sink.write(data)
                    watcher.sent_at = now
                    written += 1
                    if written >= SLICE_WRITES:
                        written = 0
                        await asyncio.sleep(0)
                sent = piece[-1].revision
        self._delivered = self.position

    async def _send_progress(self) -> None:
        """Send `progress` to each live watcher that was sent nothing for its heartbeat, and whose client reads."""
        now = asyncio.get_running_loop().time()
        texts: dict[Format, bytes] = {}
        while due := self._heartbeats.take_due(now, SLICE_WRITES):
            for watcher in due:
                watch = watcher.watch
                if watcher.sink.is_paused:
                    self._heartbeats.put(watcher, now + TICK_SECONDS)
                    continue
                if now - watcher.sent_at >= watch.heartbeat_seconds:
                    encoding = watch.interest.format
                    data = texts.get(encoding)
                    if data is None:
                        data = texts[encoding] = encoding.progress(self.position)
                    watcher.sink.write(data)
                    watcher.sent_at = now
                self._heartbeats.put(watcher, watcher.sent_at + watch.heartbeat_seconds)
            await asyncio.sleep(0)
