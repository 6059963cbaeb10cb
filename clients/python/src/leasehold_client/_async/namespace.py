"""The entries and locks of one namespace: all reads, watches and locks. A client is this, too."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Concatenate, Final, ParamSpec, TypeVar, overload

from leasehold_client.errors import NotFound
from leasehold_client.protocol import entries, locks
from leasehold_client.protocol.messages import Request, Response
from leasehold_client.protocol.watching import Interest
from leasehold_client.records import Entry, Holder
from leasehold_client.values import MISSING, Json, MissingType

from . import runtime
from .leases import AsyncLease
from .locking import AsyncHeldLock
from .transactions import AsyncTransaction
from .watching import AsyncWatch
from .writes import AsyncHeldElsewhere, AsyncWrites

MAX_WAIT_SECONDS: Final = 60.0
PAGE_ENTRIES: Final = 1_000

D = TypeVar("D")
P = ParamSpec("P")
R = TypeVar("R")


class AsyncNamespace(AsyncWrites):
    """One namespace of a service: `AsyncClient.namespace`. It uses the connections of its client, and is not closed.

    NoSuchNamespace if there is none with this name, Forbidden if the token may not use it.
    """

    async def send(self, request: Request, *, within_seconds: float | None = None) -> Response:
        """Send any request of the HTTP interface, and return the response as the service sent it.

        Its target is that of the namespace `default`: this method puts the namespace before it.

        For what the other methods do not do: they decode values, which may change how numbers are written. The token
        and the retries are those of this client. `within_seconds`: until when retries may begin, instead of
        `retry_seconds`; an attempt takes at most half of it. Raises LeaseholdError for a status of 400 or more.
        """
        return await self._sender.send(request, within_seconds=within_seconds)

    async def stream(self, request: Request, *, silence_seconds: float = 60.0) -> AsyncIterator[bytes]:
        """Send a request that changes nothing, and return the body of the response in pieces, as they arrive.

        It is sent once, when the first piece is asked for. `silence_seconds`: how long the response may bring nothing.
        Raises LeaseholdError: Unreachable if the response is cut off.
        """
        stream = await self._sender.begin_stream(request, silence_seconds=silence_seconds)
        try:
            while True:
                piece = await stream.next_piece()
                if piece is None:
                    return
                yield piece
        finally:
            await stream.close()

    # Reads ----------------------------------------------------------------------------------------------------

    @overload
    async def get(
        self, key: str, *, path: str | None = None, wait: float = 0.0, changed_from: Entry | None = None
    ) -> Entry: ...

    @overload
    async def get(
        self, key: str, *, default: D, path: str | None = None, wait: float = 0.0, changed_from: Entry | None = None
    ) -> Entry | D: ...

    async def get(
        self,
        key: str,
        *,
        default: D | MissingType = MISSING,
        path: str | None = None,
        wait: float = 0.0,
        changed_from: Entry | None = None,
    ) -> Entry | D:
        """Read an entry, or the part of it at `path` (a JSON Pointer).

        `wait`: seconds to wait while there is no such entry or part, or with `changed_from` while the entry is still
        this one; `math.inf` waits for ever. If it does not change, `changed_from` itself is returned. `default` is
        returned if there is no entry or part; without it, NotFound.
        """
        give_up_at = runtime.clock() + wait
        while True:
            seconds = min(max(give_up_at - runtime.clock(), 0.0), MAX_WAIT_SECONDS)
            request = entries.get(key, path=path, wait_seconds=seconds, known=changed_from)
            try:
                response = await self._sender.send(request)
                if response.status == entries.NOT_MODIFIED and changed_from is not None:
                    entry = changed_from
                else:
                    entry = entries.read_entry(response)
                    if entries.needs_bytes(entry):
                        return entries.read_entry(await self._sender.send(entries.get(key, with_bytes=True)))
            except NotFound:
                if runtime.clock() < give_up_at:
                    continue
                if default is MISSING:
                    raise
                return default
            if entry is not changed_from or runtime.clock() >= give_up_at:
                return entry

    async def get_many(self, keys: Sequence[str]) -> Sequence[Entry]:
        """Up to 128 entries of one moment, in this order, without the missing ones."""
        if not keys:
            return []  # without a key, the request would be that of a list
        return entries.read_page(await self._sender.send(entries.get_many(keys))).entries

    async def list(
        self,
        prefix: str = "",
        *,
        after: str | None = None,
        reverse: bool = False,
        values: bool = True,
        path: str | None = None,
        page_entries: int = PAGE_ENTRIES,
    ) -> AsyncIterator[Entry]:
        """All entries whose keys begin with `prefix`, in the order of their keys, read in pages while you iterate.

        An entry that nobody changes meanwhile comes once; others may be there or not. `after`: only keys greater than
        this one, or with `reverse` less than it. `path`: only this part of each value, and only entries that have it.
        """
        while True:
            request = entries.page(prefix, after, limit=page_entries, reverse=reverse, values=values, path=path)
            page = entries.read_page(await self._sender.send(request))
            for entry in page.entries:
                yield entry
            if page.next is None:
                return
            after = page.next

    async def count(self, prefix: str = "") -> int:
        """How many entries have keys that begin with `prefix`."""
        total = 0
        after: str | None = None
        while True:
            counted = entries.read_count(await self._sender.send(entries.count(prefix, after)))
            total += counted.count
            if counted.next is None:
                return total
            after = counted.next

    def watch(
        self,
        *prefixes: str,
        snapshot: bool = False,
        since: int | None = None,
        locks: bool = False,
        values: bool = True,
        heartbeat_seconds: int = 15,
        reconnect_seconds: float | None = None,
    ) -> AsyncWatch:
        """Changes of entries whose keys begin with one of these prefixes, and with `locks` of locks: see AsyncWatch.

        `snapshot`: first all entries. `since`: first what has changed after this revision (`AsyncWatch.cursor`).
        `reconnect_seconds`: how long it tries to connect again; None: as long as it takes.
        """
        interest = Interest(prefixes, snapshot, locks, values, heartbeat_seconds)
        return AsyncWatch(self._sender, interest, since, reconnect_seconds)

    # Fenced writes and transactions ---------------------------------------------------------------------------

    def transaction(self, *, lease: AsyncLease | None = None) -> AsyncTransaction:
        """Several checks and operations, all or nothing, sent at the end of the block: see AsyncTransaction.

        With `lease` it is refused if the lease is not alive.
        """
        return super().transaction() if lease is None else lease.transaction()

    def fenced(self, lease_id: str) -> AsyncWrites:
        """Writes that are refused unless this lease, which another program renews, is alive."""
        return AsyncWrites(self._sender, AsyncHeldElsewhere(lease_id))

    # Locks ----------------------------------------------------------------------------------------------------

    def lock(
        self, name: str, *, ttl: float = 30.0, wait: float = 5.0, owner: Json = None, renew_every: float | None = None
    ) -> AsyncHeldLock:
        """A block in which this client holds the lock. Raises LockHeld if it is not free within `wait` seconds.

        The lease of `ttl` seconds is renewed every `renew_every` seconds, by default after a third of the ttl, until
        the block ends. `wait=math.inf` waits for ever. `owner`: what other clients see of the holder. AsyncHeldLock
        says what happens when the lease is lost.
        """
        return AsyncHeldLock(self._sender, [name], ttl=ttl, wait=wait, owner=owner, renew_every=renew_every)

    def locked(
        self, name: str, *, ttl: float = 30.0, wait: float = 5.0, owner: Json = None, renew_every: float | None = None
    ) -> Callable[[Callable[Concatenate[AsyncLease, P], Awaitable[R]]], Callable[P, Coroutine[object, object, R]]]:
        """A decorator: the function runs while this client holds the lock, and gets the lease as first argument."""

        def decorate(
            function: Callable[Concatenate[AsyncLease, P], Awaitable[R]],
        ) -> Callable[P, Coroutine[object, object, R]]:
            @functools.wraps(function)
            async def held(*arguments: P.args, **options: P.kwargs) -> R:
                async with self.lock(name, ttl=ttl, wait=wait, owner=owner, renew_every=renew_every) as lease:
                    return await function(lease, *arguments, **options)

            return held

        return decorate

    def elect(self, name: str, *, ttl: float = 15.0, wait: float = math.inf, owner: Json = None) -> AsyncHeldLock:
        """A block in which this process leads: it waits until it is elected. `holder` says who leads.

        LeaseLost at the end of the block means that it leads no more; enter a new block to be a candidate again.
        """
        return self.lock(name, ttl=ttl, wait=wait, owner=owner)

    def semaphore(
        self,
        name: str,
        places: int,
        *,
        ttl: float = 30.0,
        wait: float = 5.0,
        owner: Json = None,
        renew_every: float | None = None,
    ) -> AsyncHeldLock:
        """A block in which this client has one of `places` places: the locks `NAME/0`, `NAME/1` and so on.

        All clients must give the same number. Those that wait get a place in no particular order.
        """
        if places < 1:
            raise ValueError("a semaphore has at least one place")
        names = [f"{name}/{number}" for number in range(places)]
        return AsyncHeldLock(self._sender, names, ttl=ttl, wait=wait, owner=owner, renew_every=renew_every)

    async def holder(self, name: str) -> Holder | None:
        """Who holds a lock."""
        try:
            return locks.read_holder(await self._sender.send(locks.holder(name)))
        except NotFound:
            return None

    async def holders(self, prefix: str = "", *, page_locks: int = PAGE_ENTRIES) -> AsyncIterator[Holder]:
        """All leases that are alive on locks whose names begin with `prefix`."""
        after: str | None = None
        while True:
            page = locks.read_page(await self._sender.send(locks.page(prefix, after, limit=page_locks)))
            for holder in page.holders:
                yield holder
            if page.next is None:
                return
            after = page.next

    async def unlock(self, name: str, *, token: int | None = None, force: bool = False) -> None:
        """End the lease on a lock: your own one with this fencing `token`, or with `force` that of anyone.

        LockNotFound if no lease is alive, LeaseLost if another one is.
        """
        if force == (token is not None):
            raise TypeError("give either token or force")
        await self._sender.send(locks.force_release(name) if token is None else locks.release_by_token(name, token))
