"""What watchers are sent, as pure functions on changes: windows of the history, pieces of them, and prefixes.

A window has the changes after one revision up to another: of each name only the latest, in the order of revisions, with
all changes of each revision. It ends at `Changes.revision`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from leasehold.engines.base import revision_of
from leasehold.limits import KIB, MIB
from leasehold.model import Change, Changes, Entry, Record

FIRST_WINDOW_CHANGES: Final = 16
"""Windows begin small and grow as long as they have few bytes: the size of a value is known only once it is read."""
WINDOW_CHANGES: Final = 512
"""The most changes that are read at a time: 0.5 ms."""
LIGHT_WINDOW_BYTES: Final = 1 * MIB
PIECE_BYTES: Final = 64 * KIB
"""How much is encoded at a time."""
CHANGE_BYTES: Final = 128
"""What a change counts beside its value."""

T = TypeVar("T")


def merged(entries: Changes, leases: Changes) -> Changes:
    """Both kinds in one window, up to the revision to which both are complete.

    A change after that revision is left to the next window. An earlier change of its name may be in neither window,
    because the history has only the latest one.
    """
    end = min(entries.revision, leases.revision)
    if not leases.changes:
        return until(entries, end)
    both = [change for change in (*entries.changes, *leases.changes) if change.revision <= end]
    both.sort(key=revision_of)
    return Changes(both, end)


def until(window: Changes, revision: int) -> Changes:
    """The window without the changes after `revision`."""
    if window.revision <= revision:
        return window
    return Changes([change for change in window.changes if change.revision <= revision], revision)


def pieces(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    """The changes in parts of about PIECE_BYTES. A part ends where a revision ends."""
    begin = size = 0
    previous = -1
    for index, change in enumerate(changes):
        if size >= PIECE_BYTES and change.revision != previous:
            yield changes[begin:index]
            begin, size = index, 0
        previous = change.revision
        size += CHANGE_BYTES + (len(change.value) if type(change) is Entry else 0)
    if begin < len(changes):
        yield changes[begin:]


def record_pieces(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Records in parts of about PIECE_BYTES."""
    begin = size = 0
    for index, record in enumerate(records):
        if size >= PIECE_BYTES:
            yield records[begin:index]
            begin, size = index, 0
        size += CHANGE_BYTES + (len(record.value) if type(record) is Entry else 0)
    if begin < len(records):
        yield records[begin:]


def next_size(size: int, changes: Iterable[Change]) -> int:
    """The size of the next window, in changes: half of it after many bytes, otherwise twice."""
    if sum(len(change.value) for change in changes if type(change) is Entry) > LIGHT_WINDOW_BYTES:
        return max(size // 2, 1)
    return min(2 * size, WINDOW_CHANGES)


def common_prefix(prefixes: Sequence[str]) -> str:
    """The longest text with which all of them begin."""
    if not prefixes:
        return ""
    first, last = min(prefixes), max(prefixes)
    for index, character in enumerate(first):
        if character != last[index]:
            return first[:index]
    return first


class PrefixIndex(Generic[T]):
    """Values by prefix. `of` looks a name up by each length of a prefix, so its cost does not grow with the values."""

    __slots__ = ("_by_prefix", "_lengths")

    def __init__(self) -> None:
        self._by_prefix: dict[str, list[T]] = {}
        self._lengths: dict[int, int] = {}
        """Lengths of prefixes, with how many prefixes have it."""

    def add(self, prefix: str, value: T) -> None:
        values = self._by_prefix.get(prefix)
        if values is None:
            values = self._by_prefix[prefix] = []
            self._lengths[len(prefix)] = self._lengths.get(len(prefix), 0) + 1
        values.append(value)

    def remove(self, prefix: str, value: T) -> None:
        values = self._by_prefix[prefix]
        values.remove(value)
        if not values:
            del self._by_prefix[prefix]
            self._lengths[len(prefix)] -= 1
            if not self._lengths[len(prefix)]:
                del self._lengths[len(prefix)]

    def of(self, name: str) -> Iterator[T]:
        """The values whose prefix the name begins with."""
        for length in self._lengths:
            if length <= len(name):
                yield from self._by_prefix.get(name[:length], ())
