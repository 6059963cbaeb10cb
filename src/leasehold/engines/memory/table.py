"""The records of one kind in memory: by name, in order, some of them until a certain time.

Invariants: `_names` holds exactly the names of `by_name`; each record with an expiry stands in `_expiries`. That may
hold more: an expiry whose record was replaced or removed is dropped when it is due, or when there are too many.
"""

import heapq
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final, Generic, get_type_hints

from sortedcontainers import SortedList

from leasehold.engines.memory.history import History
from leasehold.engines.state import Contents, KindSnapshot
from leasehold.model import Change, JsonText, Kind, Page, R, is_expired

STALE_EXPIRIES: Final = 1_024
"""Expiries of records that are gone, kept at most besides one for each record."""

MAX_PASSED: Final = 5_000
"""Records that one call passes over, because they have expired or gone, before it ends early: 1 to 5 ms."""

LINE_BYTES: Final = 128
"""About what a line of `data.json` has besides its name and its JSON text."""
TEXT_FIELD_BYTES: Final = 48
"""About what another field of text has."""
REMOVAL_LINE_BYTES: Final = 64


class Table(Generic[R]):
    """Records of `kind`. For the event loop's thread."""

    def __init__(self, kind: Kind[R], contents: Contents[R], floor: int) -> None:
        self.kind = kind
        self.by_name = contents.by_name
        self.by_lookup: dict[str, R] = {}
        """By the value of `kind.lookup`; empty if the kind has none."""
        self._lookup_of = attrgetter(kind.lookup) if kind.lookup else None
        if self._lookup_of is not None:
            self.by_lookup = {self._lookup_of(record): record for record in self.by_name.values()}
        fields = get_type_hints(kind.record, include_extras=True)
        name_field = kind.record.__struct_fields__[0]
        self._name_of = attrgetter(name_field)
        """Faster than the property `name`, by 50 ns for each change."""
        texts = [field for field, form in fields.items() if form == JsonText]
        self._json_of = attrgetter(texts[0]) if texts else _no_json
        others = sum(1 for field, form in fields.items() if form is str and field != name_field)
        self._line_bytes = LINE_BYTES + others * TEXT_FIELD_BYTES
        self._names: SortedList[str] = SortedList(self.by_name)
        self._expiries = [
            (record.expires_at, name) for name, record in self.by_name.items() if record.expires_at is not None
        ]
        heapq.heapify(self._expiries)
        self.history = History(kind, contents, self.by_name, floor)
        self._text_bytes = sum(self._bytes_of(name, record) for name, record in self.by_name.items())

    def __len__(self) -> int:
        return len(self.by_name)

    # Reads ----------------------------------------------------------------------------------------------------

    def page(self, prefix: str, after: str | None, limit: int, revision: int, now: int) -> Page[R]:
        """Live records in the order of their names, as in `Space.scan`.

        Strings compare by code points, which is the order of their UTF-8 bytes.
        """
        exclusive = after is not None and after >= prefix
        found: list[R] = []
        passed = 0
        last = ""
        for name in self._names.irange(after if exclusive else prefix, inclusive=(not exclusive, True)):
            if not name.startswith(prefix):
                break
            record = self.by_name[name]
            if is_expired(record, now):
                passed += 1
                if passed == MAX_PASSED:
                    return Page(found, revision, name)
                continue
            if len(found) == limit:
                return Page(found, revision, last)
            found.append(record)
            last = name
        return Page(found, revision, None)

    def expired(self, limit: int, now: int) -> list[str]:
        """Names, the earliest expiry first. What is returned stays known until it is removed."""
        due: list[tuple[int, str]] = []
        passed = 0
        while self._expiries and self._expiries[0][0] <= now and len(due) < limit and passed < MAX_PASSED:
            expiry = heapq.heappop(self._expiries)
            passed += 1
            if self._is_current(expiry) and (not due or due[-1] != expiry):
                due.append(expiry)
        for expiry in due:
            heapq.heappush(self._expiries, expiry)
        return [name for _, name in due]

    # Changes --------------------------------------------------------------------------------------------------

    def publish(self, changes: Sequence[Change], head: int) -> None:
        """Let readers see a batch. `changes` are in the order of their revisions. 0.5 µs for a record replaced."""
        by_name, history, name_of, json_of = self.by_name, self.history, self._name_of, self._json_of
        record_type, has_lookup = self.kind.record, self._lookup_of is not None
        note_revision, note_name = history.revisions.append, history.names.append
        for change in changes:
            name = name_of(change)
            before = by_name.get(name)
            if type(change) is record_type:
                by_name[name] = change
                if before is None:
                    self._names.add(name)
                    self._text_bytes += self._bytes_of(name, change)
                    history.removals.pop(name, None)
                else:
                    self._text_bytes += len(json_of(change)) - len(json_of(before))
                if change.expires_at is not None:
                    self._note_expiry(change.expires_at, name)
            else:
                if before is not None:
                    del by_name[name]
                    self._names.remove(name)
                    self._text_bytes -= self._bytes_of(name, before)
                history.removals[name] = change.revision
            if has_lookup:
                self._note_lookup(before, by_name.get(name))
            note_revision(change.revision)
            note_name(name)
        history.trim(head)

    def _note_lookup(self, before: R | None, after: R | None) -> None:
        assert self._lookup_of is not None
        if before is not None:
            del self.by_lookup[self._lookup_of(before)]
        if after is not None:
            self.by_lookup[self._lookup_of(after)] = after

    def _note_expiry(self, expires_at: int, name: str) -> None:
        heapq.heappush(self._expiries, (expires_at, name))
        if len(self._expiries) > 2 * len(self.by_name) + STALE_EXPIRIES:
            self._expiries = [expiry for expiry in set(self._expiries) if self._is_current(expiry)]
            heapq.heapify(self._expiries)

    def _is_current(self, expiry: tuple[int, str]) -> bool:
        record = self.by_name.get(expiry[1])
        return record is not None and record.expires_at == expiry[0]

    # The whole ------------------------------------------------------------------------------------------------

    @property
    def text_bytes(self) -> int:
        """About what the records and removals take in `data.json`."""
        return self._text_bytes + REMOVAL_LINE_BYTES * len(self.history.removals)

    def text_bytes_after(self, change: Change) -> int:
        """`text_bytes` as it will be, at most."""
        name = self._name_of(change)
        before = self.by_name.get(name)
        after = self._bytes_of(name, change) if type(change) is self.kind.record else REMOVAL_LINE_BYTES
        return self.text_bytes + after - (0 if before is None else self._bytes_of(name, before))

    def _bytes_of(self, name: str, record: R) -> int:
        return self._line_bytes + len(name) + len(self._json_of(record))

    def contents(self) -> Contents[R]:
        """Everything as it is now, copied."""
        return Contents(dict(self.by_name), dict(self.history.removals))

    def copy_by_name(self) -> tuple[Sequence[str], Mapping[str, R]]:
        """The names in order, and the records by them, as they are now. 30 ms for a million."""
        return list(self._names), self.by_name.copy()

    def snapshot(self, head: int) -> KindSnapshot[R]:
        """Everything as it is now."""
        removals = self.history.known_removals(head)
        return KindSnapshot(self.kind, list(self._names), list(self.by_name.values()), removals)

    def snapshot_after(self, changes: Sequence[Change], head: int) -> KindSnapshot[R]:
        """Everything as it will be. For small spaces: it sorts here and now."""
        by_name, removals = dict(self.by_name), self.history.known_removals(head)
        apply_changes(self.kind, changes, by_name, removals)
        return KindSnapshot(self.kind, sorted(by_name), list(by_name.values()), removals)


def _no_json(_record: object) -> bytes:
    """Of a kind without JSON text."""
    return b""


def apply_changes(kind: Kind[R], changes: Sequence[Change], by_name: dict[str, R], removals: dict[str, int]) -> None:
    """Bring the records and removals of a kind forward by changes of that kind."""
    for change in changes:
        name = change.name
        if isinstance(change, kind.record):
            by_name[name] = change
            removals.pop(name, None)
        else:
            by_name.pop(name, None)
            removals[name] = change.revision
