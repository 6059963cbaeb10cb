"""A watch that connects again by itself."""

from __future__ import annotations

import random
from collections import deque
from types import TracebackType

from leasehold_client.errors import (
    LeaseholdError,
    ServiceError,
    ServiceFailure,
    Unauthenticated,
    UnexpectedResponse,
    Unreachable,
)
from leasehold_client.protocol.retrying import TRANSIENT_STATUSES, backoff
from leasehold_client.protocol.watching import End, Interest, Progress, Received, WatchState
from leasehold_client.records import Event

from . import runtime
from .sending import AsyncSender, AsyncStream, log_retry


class AsyncWatch:
    """The changes of entries and locks, as an iterator. It has no end of its own: leave the loop to end it.

    Use it as the context of a `with` block if the loop may be left before the client is closed: the connection is then
    closed at the end of the block.

    When the connection is lost, or the service stops, it connects again and goes on at its cursor. Nothing is missed,
    but an event may be repeated. `Reset` means: forget everything, a snapshot follows. Without `snapshot`,
    RevisionCompacted if the service no longer knows the changes since the cursor.
    """

    def __init__(
        self, sender: AsyncSender, interest: Interest, since: int | None, reconnect_seconds: float | None
    ) -> None:
        self._sender = sender
        self._interest = interest
        self._state = WatchState(interest, since)
        self._reconnect_seconds = reconnect_seconds
        self._received: deque[tuple[Received, bytes]] = deque()
        self._stream: AsyncStream | None = None
        self._token: str | None = None
        self._attempts = 0
        self._lost_at: float | None = None
        self._has_replaced_token = False
        self.cursor = since
        """All changes up to this revision have been reported. `since` of another watch can begin here."""
        self.line = b""
        """The last event as the service sent it, in JSON. Empty for a `Reset` that this client found out itself."""

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> Event:
        while True:
            while self._received:
                event, line = self._received.popleft()
                if isinstance(event, End):
                    await self._lost(_as_error(event))
                    continue
                if event.cursor is not None:
                    self.cursor = event.cursor
                if not isinstance(event, Progress):
                    self.line = line
                    return event
            try:
                await self._receive()
            except LeaseholdError as error:
                await self._lost(error)

    async def _receive(self) -> None:
        """Wait for a piece of the response."""
        if self._stream is None:
            silence = self._interest.silence_seconds
            self._token = await self._sender.tokens.current()
            self._stream = await self._sender.open_stream(self._state.request(), self._token, silence_seconds=silence)
            self._received.extend((event, b"") for event in self._state.connected())
        piece = await self._stream.read()
        self._received.extend(self._state.receive(piece))
        self._attempts, self._lost_at, self._has_replaced_token = 0, None, False

    async def _lost(self, error: LeaseholdError) -> None:
        """Prepare the next attempt, after a pause. Raises the error if another attempt would not help."""
        await self._disconnect()
        if isinstance(error, Unauthenticated) and not self._has_replaced_token:
            self._has_replaced_token = True
            if await self._sender.tokens.replace(self._token):
                return
        if not _is_transient(error):
            raise error
        now = runtime.clock()
        self._lost_at = now if self._lost_at is None else self._lost_at
        self._attempts += 1
        asked = error.retry_after if isinstance(error, ServiceError) else None
        pause = max(asked or 0.0, backoff(self._attempts, random.random()))  # noqa: S311 - protects nothing
        if self._reconnect_seconds is not None and now + pause > self._lost_at + self._reconnect_seconds:
            raise error
        log_retry(self._state.request(), error, self._attempts, pause)
        await runtime.sleep(pause)

    async def _disconnect(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.close()

    async def aclose(self) -> None:
        """End the watch."""
        await self._disconnect()

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _is_transient(error: LeaseholdError) -> bool:
    if isinstance(error, UnexpectedResponse):
        return error.status in TRANSIENT_STATUSES
    return isinstance(error, (Unreachable, ServiceFailure))


def _as_error(end: End) -> LeaseholdError:
    """Of a history that no longer reaches back to the cursor, the next request says whether a snapshot replaces it."""
    kinds: list[type[ServiceError]] = [Unauthenticated, *ServiceFailure.__subclasses__()]
    for kind in kinds:
        if kind.code == end.error:
            return kind(end.message)
    return Unreachable(end.message)
