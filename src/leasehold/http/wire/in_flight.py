"""Budgets for what clients keep in memory, all connections together: bodies that arrive, responses that are unsent.

Each connection has limits of its own. They do not help against a thousand connections that all use their limits up and
then stop. So there is one budget for each direction. When it is used up, the clients that have made no progress for
longest lose their connections.
"""

from typing import Protocol

from leasehold.errors import ServiceError, unavailable
from leasehold.limits import MAX_BODIES_BYTES, MAX_UNSENT_BYTES


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
