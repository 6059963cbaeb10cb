"""The deadlines of connections: slow senders, slow readers, and clients that wait for a lock and have disconnected.

One sweep a second over all connections enforces them, so that no request needs a timer. `tick` is the time of the last
sweep. A deadline is counted from the tick before its event, which may be one sweep too early, so `has_passed` adds one
sweep: no deadline ends early.

To change how long a client may take to send: its row in `DEADLINES`. A slow reader has the deadline SLOW_READER, and
`ReadProgress` says what counts as reading.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from time import perf_counter
from typing import Final, Protocol

import msgspec

from leasehold.errors import ServiceError
from leasehold.http.wire.states import Receiving
from leasehold.limits import Limits

SWEEP_SECONDS: Final = 1.0
SWEEP_SLICE_SECONDS: Final = 0.0002
"""A sweep yields to the event loop after so long. To close thousands of connections takes most of a second."""
LINGER_SECONDS: Final = 2.0
"""How long a refused client may go on sending. To close at once would reset the connection and lose the response."""


class Deadline(msgspec.Struct, frozen=True):
    """`limit`: seconds. `message`: of the response with status 408; None: close without a response."""

    limit: Callable[[Limits], float]
    message: str | None = None


_BODY: Final = Deadline(lambda limits: limits.body_timeout_seconds, "the body of the request did not come in time")
_LINGER: Final = Deadline(lambda _: LINGER_SECONDS)

DEADLINES: Final[Mapping[Receiving, Deadline]] = {
    Receiving.NEW: Deadline(lambda limits: limits.header_timeout_seconds),
    Receiving.IDLE: Deadline(lambda limits: limits.idle_timeout_seconds),
    Receiving.HEAD: Deadline(
        lambda limits: limits.header_timeout_seconds, "the head of the request did not come in time"
    ),
    Receiving.EXPECTING: _BODY,
    Receiving.BODY: _BODY,
    Receiving.DISCARDING: _BODY,
    Receiving.ENDED: _LINGER,
    Receiving.CLIENT_CLOSED: _LINGER,
}
"""How long a client may stay in each state when all its complete requests are answered."""


SLOW_READER: Final = Deadline(lambda limits: limits.write_timeout_seconds)
"""How long a client may read nothing while a response waits for it."""


def has_passed(seconds: float, *, since: float, tick: float) -> bool:
    """Whether `seconds` have passed by `tick`."""
    return tick - since > seconds + SWEEP_SECONDS


def missed(state: Receiving, limits: Limits, *, since: float, tick: float) -> Deadline | None:
    """The deadline that a client has missed, if it has been in `state` since `since`."""
    deadline = DEADLINES[state]
    return deadline if has_passed(deadline.limit(limits), since=since, tick=tick) else None


class ReadProgress:
    """Whether a slow reader makes progress, while a response waits for it. Times are ticks.

    What counts is what the client's kernel has acknowledged: the kernel here takes megabytes of a response at once.
    """

    __slots__ = ("_unacknowledged", "since")

    def __init__(self) -> None:
        self.since = 0.0
        """The client has read nothing since."""
        self._unacknowledged = 0

    def begin(self, unacknowledged: int, *, tick: float) -> None:
        """A response begins to wait, with so many bytes that are not acknowledged."""
        self.since, self._unacknowledged = tick, unacknowledged

    def has_stalled(self, unacknowledged: int, limits: Limits, *, tick: float) -> bool:
        """Whether the client has missed SLOW_READER. Called by each sweep while a response waits."""
        if unacknowledged < self._unacknowledged:
            # It read before this sweep, not after it, so the sweep that `has_passed` adds is not needed.
            self.since = tick - SWEEP_SECONDS
        self._unacknowledged = unacknowledged
        return has_passed(SLOW_READER.limit(limits), since=self.since, tick=tick)


def timeout(message: str) -> ServiceError:
    return ServiceError("request_timeout", message)


class Swept(Protocol):
    """A connection."""

    def sweep(self) -> None:
        """End the connection if it has missed a deadline."""


async def sweep(connections: Collection[Swept]) -> None:
    """Sweep all, with pauses: thousands of connections that came at the same time miss their deadlines together."""
    began = perf_counter()
    for each in tuple(connections):
        if each in connections:
            each.sweep()
        if perf_counter() - began > SWEEP_SLICE_SECONDS:
            await asyncio.sleep(0)
            began = perf_counter()
