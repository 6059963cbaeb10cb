"""The names of a table in order.

The order is brought up to date when it is read, or when MAX_UNORDERED names have been added or removed. A lock that is
acquired and released again and again is never put in order, which took longer than the rest of its publication.
"""

from collections.abc import Collection
from typing import Final

from sortedcontainers import SortedList

MAX_UNORDERED: Final = 256
"""To put so many names in order takes 0.2 ms, with a million names 1 ms."""


class OrderedNames:
    """A set of names, and the same names in order. The caller must know which names it has."""

    __slots__ = ("_ordered", "_unordered")

    def __init__(self, names: Collection[str]) -> None:
        are_few = len(names) <= MAX_UNORDERED
        self._ordered: SortedList[str] | None = None if are_few else SortedList(names)
        """None if it would be empty. Few names are put in order later: a start makes these for thousands of namespaces.
        """
        self._unordered: dict[str, bool] = dict.fromkeys(names, True) if are_few else {}
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
        return self._ordered if self._ordered is not None and not self._unordered else self._put_in_order()

    def _put_in_order(self) -> "SortedList[str]":
        if self._ordered is None:
            self._ordered = SortedList()
        ordered, unordered = self._ordered, self._unordered
        for name, is_missing in list(unordered.items()):
            if is_missing:
                ordered.add(name)
            else:
                ordered.remove(name)
            del unordered[name]
        return ordered
