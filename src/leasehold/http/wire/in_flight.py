"""What is in memory on behalf of clients, all connections together: bodies on their way in, answers on their way out.

Each connection has limits of its own. They do not help against a thousand connections that all go to their limits and
stay there. So there is one budget for each direction, and when it is used up the clients lose their connection that
have been at a standstill for longest: others make room within moments.
"""

from typing import Protocol

from leasehold.errors import ServiceError, unavailable
from leasehold.limits import MAX_BODIES_BYTES, MAX_UNSENT_BYTES


class Receiving(Protocol):
    """A connection whose request has not come to its end."""

    def refuse(self, refusal: ServiceError) -> None: ...


class BodiesInFlight:
    """Bytes of bodies that are not complete, and of those that are and wait for their turn."""

    def __init__(self, max_bytes: int = MAX_BODIES_BYTES) -> None:
        self._max_bytes = max_bytes
        self._incomplete: dict[Receiving, int] = {}
        """The one that began first in front."""
        self.total_bytes = 0

    def note(self, receiving: Receiving, size: int) -> None:
        """So much of a body is there. If that is too much with all others, those are refused that began first.

        A body that comes without delay is complete within moments, so that who holds back is found in front.
        """
        self.total_bytes += size - self._incomplete.get(receiving, 0)
        self._incomplete[receiving] = size
        self._make_room()

    def forget(self, receiving: Receiving) -> None:
        """The body is complete, or will never be."""
        self.total_bytes -= self._incomplete.pop(receiving, 0)

    def take(self, size: int) -> None:
        """A complete body waits, or is worked on."""
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


class Sending(Protocol):
    """A connection whose reader is slower than its answers."""

    @property
    def still_since(self) -> float:
        """The last moment at which its reader was seen to make progress."""

    def abort(self) -> None: ...


class UnsentAnswers:
    """Bytes of answers whose readers do not read them."""

    def __init__(self, max_bytes: int = MAX_UNSENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._unsent: dict[Sending, int] = {}
        self.total_bytes = 0

    def note(self, sending: Sending, size: int) -> None:
        """So much waits for a reader. If that is too much with all others, those are cut that have stood still longest.

        Of those that stand still equally long, the one with the most to read goes first. A slow reader who reads is
        the last of all.
        """
        self.forget(sending)
        self._unsent[sending] = size
        self.total_bytes += size
        while self.total_bytes > self._max_bytes:
            worst = min(self._unsent, key=lambda each: (each.still_since, -self._unsent[each]))
            self.forget(worst)
            worst.abort()

    def forget(self, sending: Sending) -> None:
        """Its reader has caught up, or has gone."""
        self.total_bytes -= self._unsent.pop(sending, 0)
