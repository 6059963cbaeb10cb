"""Reads that wait until their answer is another one than "not modified" or "not found".

A waiter is a read of one key. The feed of entries says which keys have changed; the service then reads these keys again
and decides each of their waiters anew. So a wait costs no polling. It ends with the usual result of a read: when that
is a success or another error, when its time is over, and when the service stops.

Invariants:

- A waiter is registered before its first read, so it misses no change.
- A result is given only to waiters that were registered when the read of their key began. An older result could be
  from before the change that the caller already knows.
- A key is read once for all its waiters. If it changes during that read, it is read once more afterwards. On
  PostgreSQL, a commit of another server does not say which keys it changed, so all waited keys are read; the engine
  gathers these reads into one query for each thousand keys.
- Waiters are decided in slices, because a thousand may wait for one large value.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from leasehold import rules
from leasehold.completions import report
from leasehold.engines.base import Space
from leasehold.errors import ServiceError
from leasehold.limits import KIB
from leasehold.model import ENTRY, Change, Entry, NotModified, Outcome, Read
from leasehold.store.turns import Places

NOT_FOUND: Final = frozenset({"not_found", "path_not_found"})
SLICE_BYTES: Final = 64 * KIB
"""How much is decided before other requests are served. Each waiter counts WAITER_BYTES and the size of the value."""
WAITER_BYTES: Final = 1 * KIB

_Result = Entry | ServiceError | None
"""What `Space.read` gives."""


class _Waiter:
    """One caller. `result` is completed with an outcome or an error."""

    __slots__ = ("is_over", "last", "read", "result")

    def __init__(self, read: Read, result: asyncio.Future[Outcome]) -> None:
        self.read = read
        self.result = result
        self.is_over = False
        """Its time is over: the next result ends the wait, whatever it is."""
        self.last: NotModified | ServiceError | None = None
        """The last result, for which it waits on. None before the first one."""


class _Key:
    """A key that is waited for. It exists while it has waiters."""

    __slots__ = ("is_being_read", "must_read_again", "waiters")

    def __init__(self) -> None:
        self.waiters: set[_Waiter] = set()
        self.is_being_read = False
        self.must_read_again = False


class WaitingReads:
    """All waiting reads of a store. Subscribed to the entries of the space."""

    __slots__ = ("_keys", "_must_read_all", "_places", "_space", "_stopped", "_undecided", "_waiters")

    def __init__(self, space: Space, places: Places) -> None:
        """`places`: those of all stores of the process."""
        self._space = space
        self._places = places
        self._keys: dict[str, _Key] = {}
        self._waiters = 0
        self._undecided: list[tuple[_Waiter, _Result]] = []
        """Waiters whose key was read, with the result. Not a deque, which takes 700 bytes in each idle namespace."""
        self._stopped = False
        self._must_read_all = False
        """Keys could not be read after a publication; `catch_up` repeats it."""
        space.subscribe(ENTRY, self._published)

    def __len__(self) -> int:
        return self._waiters

    async def read(self, read: Read, wait_seconds: float) -> Outcome:
        """The result of a read once it is neither "not modified" nor "not found", or the result after `wait_seconds`.

        Raises `too_many_requests` if no place is free, and the errors of a read.
        """
        places = self._places
        if places.taken >= places.most:
            raise ServiceError(
                "too_many_requests",
                "too many reads wait at this server",
                details={"limit": places.most},
                headers={"Retry-After": "1"},
            )
        loop = asyncio.get_running_loop()
        waiter = _Waiter(read, loop.create_future())
        waiter.is_over = self._stopped or wait_seconds <= 0
        key = self._keys.setdefault(read.key, _Key())
        key.waiters.add(waiter)
        self._waiters += 1
        places.taken += 1
        timer = None if waiter.is_over else loop.call_later(wait_seconds, self._end, waiter)
        try:
            self._read_for(read.key, (waiter,))
            return await waiter.result
        finally:
            if timer is not None:
                timer.cancel()
            self._remove(waiter)

    def stop(self, reason: Callable[[], ServiceError] | None = None) -> None:
        """End all waits: with the error that `reason` makes, or with their last result. Later reads do not wait."""
        self._stopped = True
        for key in list(self._keys.values()):
            for waiter in list(key.waiters):
                waiter.is_over = True
                if reason is not None:
                    _fail(waiter, reason())
                elif waiter.last is not None:
                    _finish(waiter, waiter.last)

    def catch_up(self) -> None:
        """Repeat what failed before. Called every second."""
        if self._undecided:
            self._decide_some()
        if self._must_read_all:
            self._must_read_all = False
            self._published(self._space.revision, None)

    # The feed -------------------------------------------------------------------------------------------------

    def _published(self, _revision: int, changes: Sequence[Change] | None) -> None:
        if not self._keys:
            return
        names = list(self._keys) if changes is None else [change.name for change in changes]
        try:
            for name in names:
                if name in self._keys:
                    self._read_again(name)
        except Exception as failure:  # noqa: BLE001 - the commit is done; `catch_up` reads the keys
            self._must_read_all = True
            report("waiting reads could not be woken", failure)

    def _read_again(self, name: str) -> None:
        key = self._keys[name]
        if key.is_being_read:
            key.must_read_again = True
            return
        key.is_being_read = True
        key.must_read_again = False
        try:
            self._space.read(ENTRY, name, partial(self._found_again, name, key, tuple(key.waiters)))
        except BaseException:
            key.is_being_read = False
            raise

    def _found_again(self, name: str, key: _Key, waiters: Sequence[_Waiter], result: _Result) -> None:
        key.is_being_read = False
        self._found(waiters, result)
        if key.must_read_again and self._keys.get(name) is key:
            self._read_again(name)

    # Decisions ------------------------------------------------------------------------------------------------

    def _end(self, waiter: _Waiter) -> None:
        """The time of a waiter is over. It gets the result of a new read: a notification may be late."""
        waiter.is_over = True
        try:
            self._read_for(waiter.read.key, (waiter,))
        except Exception as failure:  # noqa: BLE001 - its caller gets it
            _fail(waiter, failure)

    def _read_for(self, name: str, waiters: Sequence[_Waiter]) -> None:
        self._space.read(ENTRY, name, partial(self._found, waiters))

    def _found(self, waiters: Sequence[_Waiter], result: _Result) -> None:
        if not self._undecided:
            asyncio.get_running_loop().call_soon(self._decide_some)
        self._undecided += [(waiter, result) for waiter in waiters]

    def _decide_some(self) -> None:
        """Decide one slice of waiters. Those with a path decode the whole value, so each of them is a slice."""
        left, taken = SLICE_BYTES, 0
        for waiter, result in self._undecided:
            if left <= 0:
                break
            taken += 1
            if waiter.result.done():
                continue
            try:
                self._decide(waiter, result)
            except Exception as failure:  # noqa: BLE001 - its caller gets it
                _fail(waiter, failure)
            left -= WAITER_BYTES
            if isinstance(result, Entry):
                left -= len(result.value) if waiter.read.paths is None else SLICE_BYTES
        del self._undecided[:taken]
        if self._undecided:
            asyncio.get_running_loop().call_soon(self._decide_some)

    def _decide(self, waiter: _Waiter, result: _Result) -> None:
        outcome: Outcome | ServiceError
        if isinstance(result, ServiceError):
            outcome = result
        else:
            try:
                outcome = rules.evaluate_read(waiter.read, result, self._space.incarnation)
            except ServiceError as refusal:
                outcome = refusal.with_traceback(None)  # it refers to this frame, and the waiter may keep the refusal
        if waiter.is_over or not _is_waited_on(outcome):
            _finish(waiter, outcome)
        else:
            assert isinstance(outcome, NotModified | ServiceError)
            waiter.last = outcome

    def _remove(self, waiter: _Waiter) -> None:
        self._waiters -= 1
        self._places.taken -= 1
        key = self._keys[waiter.read.key]
        key.waiters.remove(waiter)
        if not key.waiters:
            del self._keys[waiter.read.key]


def _is_waited_on(outcome: Outcome | ServiceError) -> bool:
    """Whether a caller that still has time waits for another result."""
    return isinstance(outcome, NotModified) or (isinstance(outcome, ServiceError) and outcome.code in NOT_FOUND)


def _finish(waiter: _Waiter, outcome: Outcome | ServiceError) -> None:
    if isinstance(outcome, ServiceError):
        _fail(waiter, outcome)
    elif not waiter.result.done():
        waiter.result.set_result(outcome)


def _fail(waiter: _Waiter, failure: Exception) -> None:
    if not waiter.result.done():
        waiter.result.set_exception(failure)
