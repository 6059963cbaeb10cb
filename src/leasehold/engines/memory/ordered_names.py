"""The names of a table in order.

The order is brought up to date when it is read, or when MAX_UNORDERED names have been added or removed. A lock that is
acquired and released again and again is never put in order, which took longer than the rest of its publication.
"""

from collections.abc import Iterable
from typing import Final

from sortedcontainers import SortedList

MAX_UNORDERED: Final = 256
"""To put so many names in order takes 0.2 ms, with a million names 1 ms."""


class OrderedNames:
    """A set of names, and the same names in order. The caller must know which names it has."""

    def __init__(self, names: Iterable[str]) -> None:
        self._ordered: SortedList[str] = SortedList(names)
        self._unordered: dict[str, bool] = {}
        """Names that are missing in `_ordered` (True), or that it has although they were removed (False)."""

    def add(self, name: str) -> None:
        """Add a name that is not there."""
        if self._unordered.pop(name, None) is None:
            self._unordered[name] = True
            if len(self._unordered) > MAX_UNORDERED:
                self._put_in_order()

    def remove(self, name: str) -> None:
        """Remove a name that is there."""
        if self._unordered.pop(name, None) is None:
            self._unordered[name] = False
            if len(self._unordered) > MAX_UNORDERED:
                self._put_in_order()

    def in_order(self) -> "SortedList[str]":
        """All names. The next change may change this list."""
        if self._unordered:
            self._put_in_order()
        return self._ordered

    def _put_in_order(self) -> None:
        ordered, unordered = self._ordered, self._unordered
        for name, is_missing in list(unordered.items()):
            if is_missing:
                ordered.add(name)
            else:
                ordered.remove(name)
            del unordered[name]
