"""When each live watcher is due for a `progress`: by the second, so that only those that may be due are looked at.

A timer for each watcher, or a look at all of them each second, would take most of the time of 10,000 idle watchers.
"""

from itertools import islice
from typing import Final

from leasehold.store.watchers import Watcher

NEVER: Final = 0
"""The `heartbeat_slot` of a watcher that is in no slot."""


class Heartbeats:
    """Watchers by the second after the one in which they are due. Times are of the event loop's clock."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: dict[int, dict[Watcher, None]] = {}
        """Dictionaries as sets that keep the order. There are as many as seconds in the longest heartbeat."""

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def put(self, watcher: Watcher, due: float) -> None:
        """Let `take_due` return this watcher at `due`, or up to a second later. It replaces an earlier time."""
        self.remove(watcher)
        slot = int(due) + 1
        watchers = self._slots.get(slot)
        if watchers is None:
            watchers = self._slots[slot] = {}
        watchers[watcher] = None
        watcher.heartbeat_slot = slot

    def remove(self, watcher: Watcher) -> None:
        watchers = self._slots.get(watcher.heartbeat_slot)
        if watchers is not None:
            watchers.pop(watcher, None)
            if not watchers:
                del self._slots[watcher.heartbeat_slot]
        watcher.heartbeat_slot = NEVER

    def take_due(self, now: float, most: int) -> list[Watcher]:
        """Remove up to `most` watchers that are due, and return them."""
        found: list[Watcher] = []
        for slot in sorted(slot for slot in self._slots if slot <= now):
            found += islice(self._slots[slot], most - len(found))
            if len(found) == most:
                break
        for watcher in found:
            self.remove(watcher)
        return found
