"""The order in which changes of large values, and large answers, are prepared (`large_bodies.py` does the steps)."""

from collections import deque
from collections.abc import Callable

from leasehold.http.requests import Request


class Preparations:
    """Prepares one change at a time, until it is completed; another instance prepares one answer at a time.

    If the next one began earlier and changed the same value, it would have to be prepared again. And the decoded values
    of several changes would be in memory at the same time.
    `enqueue`: calls a function in a later iteration of the event loop.
    """

    def __init__(self, enqueue: Callable[[Callable[[], None]], None]) -> None:
        self._enqueue = enqueue
        self._waiting: deque[tuple[Request, Callable[[], None]]] = deque()
        self._current: Request | None = None
        """That of the change that is being prepared, or is in the lane, or of the answer."""

    def begin(self, request: Request, first_step: Callable[[], None]) -> None:
        """Call `first_step` when it is this request's turn. `end` must be called then."""
        self._waiting.append((request, first_step))
        self._call_next()

    def end(self, request: Request) -> None:
        """The change is completed, or will not be submitted; or the answer is made. May be called again."""
        if self._current is request:
            self._current = None
            self._call_next()

    def _call_next(self) -> None:
        if self._current is None and self._waiting:
            request, first_step = self._waiting[0]
            self._enqueue(first_step)
            self._waiting.popleft()
            self._current = request
