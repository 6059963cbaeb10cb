"""Budgets for what clients keep in memory, all connections together: bodies that arrive, responses that are unsent.

Each connection has limits of its own. They do not help against a thousand connections that all use their limits up and
then stop. So there is one budget for each direction. When it is used up, the clients that have made no progress for
longest lose their connections.

A third budget limits the bodies that are decoded at the same time. When it is used up, the next ones wait.
"""

from collections.abc import Callable
from typing import Final, Protocol

from leasehold.errors import ServiceError, unavailable
from leasehold.http.requests import Request
from leasehold.limits import KIB, MAX_BODIES_BYTES, MAX_CONTAINERS, MAX_LANE_BODIES_BYTES, MAX_UNSENT_BYTES
from leasehold.values.json_text import brackets_at_most
from leasehold.values.messagepack import containers_at_most


class BodySender(Protocol):
    """A connection that is receiving a body."""

    def refuse(self, refusal: ServiceError) -> None: ...


class BodiesInFlight:
    """Bytes of bodies that are being received, and of complete ones until their requests are answered."""

    def __init__(self, max_bytes: int = MAX_BODIES_BYTES) -> None:
        self._max_bytes = max_bytes
        self._incomplete: dict[BodySender, int] = {}
        """In the order in which they began."""
        self.total_bytes = 0

    def note(self, sender: BodySender, size: int) -> None:
        """`size` bytes of a body have arrived. Over the budget, the bodies that began first are refused.

        A body that arrives without delay is complete within moments, so those that began first are the slow ones.
        """
        self.total_bytes += size - self._incomplete.get(sender, 0)
        self._incomplete[sender] = size
        self._make_room()

    def forget(self, sender: BodySender) -> None:
        """The body is complete, or will not be received."""
        self.total_bytes -= self._incomplete.pop(sender, 0)

    def take(self, size: int) -> None:
        """A complete body is kept until `give_back`."""
        self.total_bytes += size
        self._make_room()

    def give_back(self, size: int) -> None:
        self.total_bytes -= size

    def _make_room(self) -> None:
        while self.total_bytes > self._max_bytes and self._incomplete:
            first = next(iter(self._incomplete))
            self.forget(first)
            first.refuse(
                unavailable(f"more than {self._max_bytes} bytes of bodies are on their way", retry_after_seconds=5)
            )


SLOW_BODY_BYTES: Final = 64 * KIB
"""A request with a larger body is begun in its own iteration of the event loop: many clients may send one at the same
moment, and each takes up to 30 ms."""
STEPWISE_BODY_BYTES: Final = 256 * KIB
"""A larger body is read in several iterations. Each iteration may be that of another long sender, so this takes longer
for the client that has sent it."""
_CONTAINER_BYTES: Final = MAX_LANE_BODIES_BYTES // MAX_CONTAINERS
"""A list or object counts as so many bytes, so a body with the most that are allowed is alone in the lane."""


def lane_bytes(request: Request) -> int:
    """What the body takes of the budget of `BodiesInLane`: its bytes, or more if it may have many lists and objects.

    They are not counted exactly, because that takes longer: the same bytes in strings count, too. The first call takes
    0.5 ms for the largest body. It sets `request.lane_bytes`, and `request.brackets` for the check of the body.
    """
    if request.lane_bytes:
        return request.lane_bytes
    body = request.body
    if len(body) >= MAX_LANE_BODIES_BYTES:
        request.lane_bytes = len(body)  # its lists and objects never count as more
        return request.lane_bytes
    if b"msgpack" in request.headers.get(b"content-type", b"").lower():
        containers = containers_at_most(body)
    else:
        containers = request.brackets = brackets_at_most(body)
    request.lane_bytes = max(len(body), _CONTAINER_BYTES * min(containers, MAX_CONTAINERS))
    return request.lane_bytes


class LargeSender(Protocol):
    """A connection with a large body, which is complete."""

    def begin_large(self) -> None:
        """Begin the request with this body, if that is still possible."""


class BodiesInLane:
    """Bodies of the changes that are in the write lane: decoded, and not committed yet. Sizes: see `lane_bytes`.

    While there is no room, the connections with the next bodies wait in the order in which they came. `enqueue`: calls
    a function in a later iteration of the event loop. A body over the budget is begun when there is no other.
    """

    def __init__(self, enqueue: Callable[[Callable[[], None]], None], max_bytes: int = MAX_LANE_BODIES_BYTES) -> None:
        self._enqueue = enqueue
        self._max_bytes = max_bytes
        self._taken: dict[LargeSender, int] = {}
        self._waiting: dict[LargeSender, int] = {}
        """Those that wait, with the sizes of their bodies."""
        self._called: LargeSender | None = None
        """The one that may begin its body now."""
        self._is_call_due = False
        """`_call_first` is enqueued."""
        self.total_bytes = 0

    def has_room(self, size: int) -> bool:
        """Whether a body of this size may be begun before those that wait."""
        return not self._waiting and self._fits(size)

    def admit(self, sender: LargeSender, size: int) -> bool:
        """Whether the sender may begin its body now. False: its `begin_large` will be called."""
        if sender is self._called:
            self._called = None
            return True
        if self.has_room(size):
            return True
        self._waiting.setdefault(sender, size)
        self._call_later()
        return False

    def leave(self, sender: LargeSender) -> None:
        """The sender has nothing to begin any more."""
        if self._waiting.pop(sender, None) is not None:
            self._call_later()

    def take(self, sender: LargeSender, size: int) -> None:
        """The change with the sender's body is in the lane until `give_back`."""
        self._taken[sender] = size
        self.total_bytes += size

    def give_back(self, sender: LargeSender) -> None:
        """The change is completed. May be called again."""
        self.total_bytes -= self._taken.pop(sender, 0)
        self._call_later()

    def _fits(self, size: int) -> bool:
        return not self._taken or self.total_bytes + size <= self._max_bytes

    def _call_later(self) -> None:
        if self._waiting and not self._is_call_due and self._fits(next(iter(self._waiting.values()))):
            self._enqueue(self._call_first)
            self._is_call_due = True

    def _call_first(self) -> None:
        self._is_call_due = False
        if not self._waiting or not self._fits(next(iter(self._waiting.values()))):
            return  # the next `give_back` leads to another call
        self._called = next(iter(self._waiting))
        del self._waiting[self._called]
        try:
            self._called.begin_large()
        finally:
            self._called = None
            self._call_later()


class SlowReader(Protocol):
    """A connection whose client reads more slowly than responses are made."""

    @property
    def last_progress(self) -> float:
        """The last time at which its client was seen to read."""

    def abort(self) -> None: ...


class UnsentAnswers:
    """Bytes of responses that clients have not read."""

    def __init__(self, max_bytes: int = MAX_UNSENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._unsent: dict[SlowReader, int] = {}
        self.total_bytes = 0

    def note(self, reader: SlowReader, size: int) -> None:
        """`size` bytes are unsent. Over the budget, the connections with the oldest progress are closed.

        Of several that are equally old, the one with the most unsent bytes is closed first.
        """
        self.forget(reader)
        self._unsent[reader] = size
        self.total_bytes += size
        while self.total_bytes > self._max_bytes:
            worst = min(self._unsent, key=lambda each: (each.last_progress, -self._unsent[each]))
            self.forget(worst)
            worst.abort()

    def forget(self, reader: SlowReader) -> None:
        """Everything is sent, or the connection is lost."""
        self.total_bytes -= self._unsent.pop(reader, 0)
