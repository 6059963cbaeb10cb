"""Locks as rows of a table, or as lines of JSON."""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw

from leasehold.cli.options import TABLE
from leasehold.cli.output import Table, shown_time, write_lines
from leasehold.cli.pages import decoded

TITLES: Final = ("LOCK", "TOKEN", "ACQUIRED", "EXPIRES", "OWNER")


class ShownLock(msgspec.Struct, frozen=True):
    """The members of a lock that a table shows."""

    lock: str
    token: int
    acquired_at: str
    expires_at: str
    owner: Raw


class LockPrinter:
    """Prints locks, page by page."""

    def __init__(self, output: str) -> None:
        self._table = Table(TITLES) if output == TABLE else None

    def add(self, locks: Iterable[Raw]) -> None:
        if self._table is None:
            write_lines(locks)
        else:
            self._table.add(_row(decoded(each, ShownLock)) for each in locks)


def _row(lock: ShownLock) -> tuple[str, ...]:
    times = (shown_time(lock.acquired_at), shown_time(lock.expires_at))
    return (lock.lock, str(lock.token), *times, bytes(lock.owner).decode())
