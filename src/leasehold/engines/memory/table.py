"""The records of one kind in memory, with indexes by name, by lookup and by expiry.

Invariants: `_names` has exactly the names of `by_name`; `_expiries` has each record with an expiry. `_expiries` may
also have stale items, whose record was replaced or removed. They are dropped when they are due, or when there are too
many.
"""

import heapq
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from itertools import compress, filterfalse
from operator import attrgetter
from typing import Final, Generic, cast, get_type_hints

import msgspec

from leasehold.engines.base import revision_of
from leasehold.engines.memory.history import History, NoHistory
from leasehold.engines.memory.ordered_names import OrderedNames
from leasehold.engines.state import Contents, KindSnapshot
from leasehold.keys import BEHIND_ANY_KEY
from leasehold.model import Change, Counted, JsonText, Kind, Page, R, Value, is_expired

STALE_EXPIRIES: Final = 1_024
"""The maximum length of `_expiries` is twice the number of records, plus this."""

MAX_SKIPPED: Final = 5_000
"""After skipping this many expired or stale records, a call ends early. It has then taken 1 to 5 ms."""

FEW_CHANGES: Final = 2
"""A loop over so many takes no longer than the steps of `_replace`."""

LINE_BYTES: Final = 128
"""The approximate size of a line of `data.json` without its name and its JSON text, or the bytes in place of one. Bytes
are counted as they are, although base64 is a third longer."""
TEXT_FIELD_BYTES: Final = 48
"""The approximate size of each other string."""
REMOVAL_LINE_BYTES: Final = 64


_expires_at_of = attrgetter("expires_at")
_is_not_none = partial(operator.is_not, None)


class _Expiry(msgspec.Struct, frozen=True, order=True, gc=False):
    """An item of the heap of expiries. It takes 32 bytes; a tuple takes 80, and the garbage collector visits it."""

    at: int
    name: str


class _Form(Generic[R]):
    """How records of a kind are read. All tables of the kind share it, because there may be thousands of namespaces."""

    def __init__(self, kind: Kind[R]) -> None:
        fields = get_type_hints(kind.record, include_extras=True)
        name_field = kind.record.__struct_fields__[0]
        self.name_of: Callable[[Change], str] = attrgetter(name_field)
        """50 ns faster per change than the property `name`."""
        self.lookup_of: Callable[[R], str] | None = attrgetter(kind.lookup) if kind.lookup else None
        texts = [field for field, form in fields.items() if form in (JsonText, Value, bytes)]
        self.text_of: Callable[[R], Value] = attrgetter(texts[0]) if texts else _no_text
        others = sum(1 for field, form in fields.items() if form is str and field != name_field)
        self.line_bytes = LINE_BYTES + others * TEXT_FIELD_BYTES
        """The approximate size of a line without its name and its text."""


@cache
def _form_of(kind: Kind[R]) -> _Form[R]:
    return _Form(kind)


class Table(Generic[R]):
    """Records of `kind`. Used on the event loop's thread only."""

    __slots__ = (
        "_expiries",
        "_line_bytes",
        "_lookup_of",
        "_name_of",
        "_names",
        "_text_bytes",
        "_text_of",
        "by_lookup",
        "by_name",
        "history",
        "kind",
    )

    def __init__(self, kind: Kind[R], contents: Contents[R], floor: int) -> None:
        self.kind = kind
        self.by_name = contents.by_name
        self.by_lookup: dict[str, R] = {}
        """By the value of `kind.lookup`; empty if the kind has none."""
        form = _form_of(kind)
        self._name_of, self._lookup_of, self._text_of = form.name_of, form.lookup_of, form.text_of
        self._line_bytes = form.line_bytes
        if self._lookup_of is not None:
            self.by_lookup = {self._lookup_of(record): record for record in self.by_name.values()}
        self._names = OrderedNames(self.by_name)
        self._expiries: list[_Expiry] = []
        self._text_bytes = 0
        if self.by_name:
            self._index()
        self.history = (History if kind.has_history else NoHistory)(kind, contents, self.by_name, floor)

    def _index(self) -> None:
        """Find the expiries and the size of the records. A start waits for these passes over all of them.

        `map` with a getter takes a third of the time of a loop.
        """
        records = self.by_name.values()
        expiries = list(map(_expires_at_of, records))
        if expiries.count(None) < len(expiries):
            may_expire = list(map(_is_not_none, expiries))
            self._expiries = list(map(_Expiry, compress(expiries, may_expire), compress(self.by_name, may_expire)))
            heapq.heapify(self._expiries)
        self._text_bytes = (
            len(records) * self._line_bytes
            + sum(map(len, self.by_name))
            + sum(len(name.encode()) - len(name) for name in filterfalse(str.isascii, self.by_name))
            + sum(map(len, map(self._text_of, records)))
        )

    def __len__(self) -> int:
        return len(self.by_name)

    # Reads ----------------------------------------------------------------------------------------------------

    def page(
        self, prefix: str, after: str | None, limit: int, revision: int, now: int, *, is_reversed: bool = False
    ) -> Page[R]:
        """Live records in the order of their names, as in `Space.scan`.

        Python compares strings by code points, which is the order of their UTF-8 bytes.
        """
        found: list[R] = []
        skipped = 0
        last = ""
        for name in self._names_of(prefix, after, is_reversed=is_reversed):
            record = self.by_name[name]
            if is_expired(record, now):
                skipped += 1
                if skipped == MAX_SKIPPED:
                    return Page(found, revision, name)
                continue
            if len(found) == limit:
                return Page(found, revision, last)
            found.append(record)
            last = name
        return Page(found, revision, None)

    def count(
        self, prefix: str, after: str | None, limit: int, revision: int, now: int, *, is_reversed: bool = False
    ) -> Counted:
        """How many live records there are, as in `Space.count`. It looks at each of them only if some have expired."""
        if not self._expiries or self._expiries[0].at > now:
            begin, end = self._places_of(prefix, after, is_reversed=is_reversed)
            count = min(end - begin, limit)
            if count <= 0:
                return Counted(0, revision, None, is_complete=True)
            last = self._names.in_order()[end - count if is_reversed else begin + count - 1]
            return Counted(count, revision, last, is_complete=count == end - begin)
        count = 0
        name: str | None = None
        for passed, name in enumerate(self._names_of(prefix, after, is_reversed=is_reversed), start=1):
            count += not is_expired(self.by_name[name], now)
            if count == limit or passed == MAX_SKIPPED:
                return Counted(count, revision, name, is_complete=False)
        return Counted(count, revision, name, is_complete=True)

    def _names_of(self, prefix: str, after: str | None, *, is_reversed: bool) -> Iterable[str]:
        """The names of a list, expired records included. The arguments are those of `Space.scan`."""
        low, high, includes_low = _bounds(prefix, after, is_reversed=is_reversed)
        return () if low >= high else self._names.in_order().irange(low, high, (includes_low, False), is_reversed)

    def _places_of(self, prefix: str, after: str | None, *, is_reversed: bool) -> tuple[int, int]:
        """The places of the same names in `_names`: from the first number to before the second one."""
        low, high, includes_low = _bounds(prefix, after, is_reversed=is_reversed)
        names = self._names.in_order()
        return names.bisect_left(low) if includes_low else names.bisect_right(low), names.bisect_left(high)

    def expired(self, limit: int, now: int) -> list[str]:
        """The names of expired records, the earliest expiry first. Each call returns them until they are removed."""
        due: list[_Expiry] = []
        skipped = 0
        while self._expiries and self._expiries[0].at <= now and len(due) < limit and skipped < MAX_SKIPPED:
            expiry = heapq.heappop(self._expiries)
            skipped += 1
            if self._is_current(expiry) and (not due or due[-1] != expiry):
                due.append(expiry)
        for expiry in due:
            heapq.heappush(self._expiries, expiry)
        return [expiry.name for expiry in due]

    def surplus(self, most: int, most_bytes: int, limit: int) -> list[str]:
        """See `Space.surplus`. The size of a record is that of its line in `data.json`."""
        count, size = len(self.by_name) - most, self._text_bytes - most_bytes
        if count <= 0 and size <= 0:
            return []
        earliest: list[_Expiry] = []
        while self._expiries and len(earliest) < limit and (count > 0 or size > 0):
            expiry = heapq.heappop(self._expiries)
            if self._is_current(expiry) and (not earliest or earliest[-1] != expiry):
                earliest.append(expiry)
                count -= 1
                size -= self._bytes_of(expiry.name, self.by_name[expiry.name])
        for expiry in earliest:
            heapq.heappush(self._expiries, expiry)
        return [expiry.name for expiry in earliest]

    # Changes --------------------------------------------------------------------------------------------------

    def publish(self, changes: Sequence[Change], head: int) -> None:
        """Make a batch visible to readers. `changes` are in the order of revisions. 0.5 µs per replaced record."""
        if len(changes) > FEW_CHANGES and self._lookup_of is None and self._replace(changes):
            self.history.trim(head)
            return
        by_name, history, name_of, text_of = self.by_name, self.history, self._name_of, self._text_of
        record_type, lookup_of, by_lookup = self.kind.record, self._lookup_of, self.by_lookup
        note_revision, note_name = history.revisions.append, history.names.append
        for change in changes:
            name = name_of(change)
            before = by_name.get(name)
            if lookup_of is not None and before is not None:
                del by_lookup[lookup_of(before)]
            if type(change) is record_type:
                by_name[name] = change
                if lookup_of is not None:
                    by_lookup[lookup_of(change)] = change
                if before is None:
                    self._names.add(name)
                    self._text_bytes += self._bytes_of(name, change)
                    history.removals.pop(name, None)
                else:
                    self._text_bytes += len(text_of(change)) - len(text_of(before))
                if change.expires_at is not None:
                    self._note_expiry(change.expires_at, name)
            else:
                if before is not None:
                    del by_name[name]
                    self._names.remove(name)
                    self._text_bytes -= self._bytes_of(name, before)
                history.removals[name] = change.revision
            note_revision(change.revision)
            note_name(name)
        history.trim(head)

    def _replace(self, changes: Sequence[Change]) -> bool:
        """Publish changes that only replace records, none of which will expire. Returns False if there are others.

        Nearly all batches are such. `map` takes a third of the instructions of a loop.
        """
        names = list(map(self._name_of, changes))
        before = list(map(self.by_name.get, names))
        if not all(before) or set(map(type, changes)) != {self.kind.record} or any(map(_expires_at_of, changes)):
            return False
        text_of, history = self._text_of, self.history
        self._text_bytes += sum(map(len, map(text_of, changes))) - sum(map(len, map(text_of, before)))
        self.by_name.update(zip(names, cast("Sequence[R]", changes), strict=True))
        history.revisions += map(revision_of, changes)
        history.names += names
        return True

    def _note_expiry(self, expires_at: int, name: str) -> None:
        heapq.heappush(self._expiries, _Expiry(expires_at, name))
        if len(self._expiries) > 2 * len(self.by_name) + STALE_EXPIRIES:
            self._expiries = [expiry for expiry in set(self._expiries) if self._is_current(expiry)]
            heapq.heapify(self._expiries)

    def _is_current(self, expiry: _Expiry) -> bool:
        record = self.by_name.get(expiry.name)
        return record is not None and record.expires_at == expiry.at

    # All records ----------------------------------------------------------------------------------------------

    @property
    def content_bytes(self) -> int:
        """The exact size of all names, in UTF-8, and of the text or the bytes of all records."""
        return self._text_bytes - len(self.by_name) * self._line_bytes

    @property
    def text_bytes(self) -> int:
        """The approximate size of the records and removals in `data.json`."""
        return self._text_bytes + REMOVAL_LINE_BYTES * len(self.history.removals)

    def text_bytes_after(self, change: Change) -> int:
        """An upper bound of `text_bytes` after a change."""
        name = self._name_of(change)
        before = self.by_name.get(name)
        after = self._bytes_of(name, change) if type(change) is self.kind.record else REMOVAL_LINE_BYTES
        return self.text_bytes + after - (0 if before is None else self._bytes_of(name, before))

    def _bytes_of(self, name: str, record: R) -> int:
        name_bytes = len(name) if name.isascii() else len(name.encode())
        return self._line_bytes + name_bytes + len(self._text_of(record))

    def contents(self) -> Contents[R]:
        """A copy of all records and removals."""
        return Contents(dict(self.by_name), dict(self.history.removals))

    def copy_by_name(self) -> tuple[Sequence[str], Mapping[str, R]]:
        """Copies: the sorted names, and the records by name. 30 ms for a million."""
        return list(self._names.in_order()), self.by_name.copy()

    def snapshot(self, head: int) -> KindSnapshot[R]:
        """The snapshot of the current records."""
        removals = self.history.known_removals(head)
        return KindSnapshot(self.kind, list(self._names.in_order()), list(self.by_name.values()), removals)

    def snapshot_after(self, changes: Sequence[Change], head: int) -> KindSnapshot[R]:
        """The snapshot after a batch. For small spaces only, because it sorts on the event loop."""
        by_name, removals = dict(self.by_name), self.history.known_removals(head)
        apply_changes(self.kind, changes, by_name, removals)
        return KindSnapshot(self.kind, sorted(by_name), list(by_name.values()), removals)


def _bounds(prefix: str, after: str | None, *, is_reversed: bool) -> tuple[str, str, bool]:
    """Between which names a list is, and whether it includes the first of them. It does not include the second one."""
    behind = prefix + BEHIND_ANY_KEY
    if after is None:
        return prefix, behind, True
    if is_reversed:
        return prefix, min(after, behind), True
    return (after, behind, False) if after >= prefix else (prefix, behind, True)


def _no_text(_record: object) -> bytes:
    """For kinds without JSON text and without bytes."""
    return b""


def apply_changes(kind: Kind[R], changes: Sequence[Change], by_name: dict[str, R], removals: dict[str, int]) -> None:
    """Apply the changes of a kind to its records and removals."""
    for change in changes:
        name = change.name
        if isinstance(change, kind.record):
            by_name[name] = change
            removals.pop(name, None)
        else:
            by_name.pop(name, None)
            if kind.has_history:
                removals[name] = change.revision
