"""The feed of a space: its subscribers by kind, and the order in which they are called."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from leasehold.engines.base import Published
from leasehold.model import KINDS, AnyKind, Change

_Delivery = tuple[float, int, Sequence[Change] | None]
"""The earliest time of the delivery, by the event loop's clock, and the arguments of `Published`."""


class Feed:
    """Calls subscribers if `may_deliver` returns true at that moment; otherwise `catch_up` calls them.

    It returns false while writes fail, because the attempts of the subscribers would fail, too.

    The deliveries of one kind are made in the order of their publication. So a delayed one delays those after it.
    """

    def __init__(self, may_deliver: Callable[[], bool]) -> None:
        self._may_deliver = may_deliver
        self._subscribers: dict[AnyKind, list[Published]] = {kind: [] for kind in KINDS}
        self._delayed: dict[AnyKind, deque[_Delivery]] = {kind: deque() for kind in KINDS}
        self._timers: dict[AnyKind, asyncio.TimerHandle] = {}
        self._withheld: set[AnyKind] = set()
        """Kinds of deliveries that were not made."""

    def subscribe(self, kind: AnyKind, published: Published) -> None:
        """See `Space.subscribe`."""
        self._subscribers[kind].append(published)

    def publish(
        self, kind: AnyKind, revision: int, changes: Sequence[Change] | None, *, delay_seconds: float = 0.0
    ) -> None:
        """Deliver at once, or after earlier deliveries of the kind that are delayed."""
        delayed = self._delayed[kind]
        if not delayed and not delay_seconds:
            self._deliver(kind, revision, changes)
            return
        now = asyncio.get_running_loop().time()
        delayed.append((now + delay_seconds, revision, changes))
        if kind not in self._timers:
            self._wait(kind, delay_seconds)

    def publish_unknown(self, kinds: Iterable[AnyKind], revision: int) -> None:
        """For each of `kinds`, there may be changes up to `revision` that this server does not know."""
        for kind in kinds:
            self.publish(kind, revision, None)

    def catch_up(self, revision: int) -> None:
        """Deliver what was withheld, as unknown changes up to `revision`, if that is possible now."""
        if self._withheld and self._may_deliver():
            kinds, self._withheld = self._withheld, set()
            self.publish_unknown(kinds, revision)

    def close(self) -> None:
        """Drop all delayed deliveries."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for delayed in self._delayed.values():
            delayed.clear()

    def _wait(self, kind: AnyKind, seconds: float) -> None:
        self._timers[kind] = asyncio.get_running_loop().call_later(seconds, self._deliver_delayed, kind)

    def _deliver_delayed(self, kind: AnyKind) -> None:
        del self._timers[kind]
        delayed = self._delayed[kind]
        _, revision, changes = delayed.popleft()
        if delayed:
            self._wait(kind, max(delayed[0][0] - asyncio.get_running_loop().time(), 0.0))
        self._deliver(kind, revision, changes)

    def _deliver(self, kind: AnyKind, revision: int, changes: Sequence[Change] | None) -> None:
        if self._may_deliver():
            for published in self._subscribers[kind]:
                published(revision, changes)
        else:
            self._withheld.add(kind)
