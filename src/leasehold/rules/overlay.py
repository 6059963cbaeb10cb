"""The state that one batch is decided on: what the view shows, under what the batch has changed so far."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import cast

from leasehold.limits import MAX_BATCH_WORK_BYTES
from leasehold.model import AnyKind, Change, Kind, R, View, is_expired

_revision_of = attrgetter("revision")


class EnoughError(Exception):
    """The batch ends before this operation, because it would take too long."""


class Overlay:
    """One batch under evaluation.

    An operation changes it in its last step and in one call of `put`. So one that raises has changed nothing, whatever
    it raises; a revision that it took is left out. Operations that must be done together use a `savepoint`.
    """

    __slots__ = (
        "_changes",
        "_found",
        "_is_in_order",
        "_undo",
        "_view",
        "max_value_bytes",
        "now",
        "revision",
        "work_bytes",
    )

    def __init__(self, view: View, revision: int, now: int, max_value_bytes: int) -> None:
        self._view = view
        self.revision = revision
        """The last one that was taken."""
        self.now = now
        self.max_value_bytes = max_value_bytes
        self._changes: defaultdict[AnyKind, dict[str, Change]] = defaultdict(dict)
        self._found: dict[tuple[AnyKind, str], str] = {}
        """The name by the value of `Kind.lookup`, of records that this batch has put."""
        self._is_in_order = True
        """Nothing was changed twice, so each kind is in the order of revisions."""
        self._undo: list[tuple[AnyKind, str, Change | None]] | None = None
        """What was there before each change since the outermost savepoint; None outside of one."""
        self.work_bytes = 0
        """Spent on partial updates."""

    @property
    def incarnation(self) -> str:
        """That of the space, which is part of each ETag."""
        return self._view.incarnation

    # Reading --------------------------------------------------------------------------------------------------

    def stored(self, kind: Kind[R], name: str) -> R | None:
        """The record as it would be stored now, expired or not."""
        change = self._changes[kind].get(name)  # type: ignore[index] # of one of the kinds
        if change is None:
            return self._view.records(kind).get(name)
        return cast("R", change) if type(change) is kind.record else None

    def live(self, kind: Kind[R], name: str) -> R | None:
        """The record, unless it has expired."""
        # `stored` once more: each operation passes here, and a call costs as much as the rest.
        change = self._changes[kind].get(name)  # type: ignore[index] # of one of the kinds
        if change is None:
            record = self._view.records(kind).get(name)
        else:
            record = cast("R", change) if type(change) is kind.record else None
        if record is None or record.expires_at is None:  # nearly always
            return record
        return None if is_expired(record, self.now) else record

    def live_by_lookup(self, kind: Kind[R], value: str) -> R | None:
        """The live record whose field `kind.lookup` has this value."""
        name = self._found.get((kind, value))  # type: ignore[arg-type] # of one of the kinds
        if name is None:
            seen = self._view.found(kind).get(value)
            if seen is None:
                return None
            name = seen.name
        record = self.live(kind, name)
        return record if record is not None and getattr(record, kind.lookup) == value else None

    # Changing -------------------------------------------------------------------------------------------------

    def next_revision(self) -> int:
        """Take a revision."""
        self.revision += 1
        return self.revision

    def put(self, kind: AnyKind, name: str, change: Change) -> None:
        """A record, or its removal, is what this name has now."""
        changes = self._changes[kind]
        if name in changes:
            self._is_in_order = False
        if self._undo is not None:
            self._undo.append((kind, name, changes.get(name)))
        changes[name] = change
        if kind.lookup and type(change) is kind.record:
            self._found[kind, getattr(change, kind.lookup)] = name

    def changes(self) -> list[Change]:
        """What was changed so far, in the order of revisions."""
        if len(self._changes) == 1 and self._is_in_order:  # nearly always
            [changes] = self._changes.values()
            return list(changes.values())
        return sorted((change for changes in self._changes.values() for change in changes.values()), key=_revision_of)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Everything that is put inside is dropped, with its revisions, if an exception leaves the block.

        Savepoints may be nested. Work that was spent stays spent.
        """
        is_outermost = self._undo is None
        undo = self._undo = [] if self._undo is None else self._undo
        mark, revision, was_in_order = len(undo), self.revision, self._is_in_order
        try:
            yield
        except BaseException:
            for kind, name, before in reversed(undo[mark:]):
                if before is None:
                    del self._changes[kind][name]
                else:
                    self._changes[kind][name] = before
            del undo[mark:]
            self.revision, self._is_in_order = revision, was_in_order
            raise
        finally:
            if is_outermost:
                self._undo = None

    # Work -----------------------------------------------------------------------------------------------------

    def begin_work(self, value_bytes: int) -> None:
        """A value is about to be changed. Ends the batch before that (`EnoughError`) if it would take too long."""
        if self.work_bytes and self.work_bytes + value_bytes > MAX_BATCH_WORK_BYTES:
            raise EnoughError
        self.work_bytes += value_bytes
