"""The state that a batch is decided on: the committed records, overlaid with the changes of the batch so far.

`Staging` is such a state for several changes of one operation, which are added to the batch all at once.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import cast

from leasehold.limits import MAX_BATCH_WORK_BYTES
from leasehold.model import ENTRY, AnyKind, Change, Kind, R, View, is_expired

_revision_of = attrgetter("revision")


class BatchLimitError(Exception):
    """The batch ends before this operation, because the batch would take too long with it."""


class Overlay:
    """One batch under evaluation.

    An operation changes it in one call of `put`, as its last step. So an operation that raises has changed nothing. A
    revision that it took is not used again. Operations that must be done together use a `Staging`.
    """

    __slots__ = (
        "_changes",
        "_found",
        "_is_in_order",
        "_view",
        "max_value_bytes",
        "now",
        "revision",
        "work_bytes",
    )

    def __init__(self, view: View, revision: int, now: int, max_value_bytes: int) -> None:
        self._view = view
        self.revision = revision
        """The last revision that was taken."""
        self.now = now
        self.max_value_bytes = max_value_bytes
        self._changes: dict[AnyKind, dict[str, Change]] = {}
        """The last state of each name that this batch has changed."""
        self._found: dict[tuple[AnyKind, str], str] = {}
        """Names by the value of `Kind.lookup`, for the records that this batch has put."""
        self._is_in_order = True
        """No name was changed twice, so the changes of each kind are in the order of their revisions."""
        self.work_bytes = 0
        """The bytes of values that partial updates have processed."""

    @property
    def incarnation(self) -> str:
        """That of the space, which is part of each ETag."""
        return self._view.incarnation

    # Reading --------------------------------------------------------------------------------------------------

    def stored(self, kind: Kind[R], name: str) -> R | None:
        """The record after the changes so far, expired or not."""
        changes = self._changes.get(kind)  # type: ignore[arg-type] # of one of the kinds
        change = None if changes is None else changes.get(name)
        if change is None:
            return self._view.records(kind).get(name)
        return cast("R", change) if type(change) is kind.record else None

    def live(self, kind: Kind[R], name: str) -> R | None:
        """The record, unless it has expired."""
        # The code of `stored` is repeated here: every operation runs it, and a call would double the time.
        changes = self._changes.get(kind)  # type: ignore[arg-type] # of one of the kinds
        change = None if changes is None else changes.get(name)
        if change is None:
            record = self._view.records(kind).get(name)
        else:
            record = cast("R", change) if type(change) is kind.record else None
        if record is None or record.expires_at is None:  # nearly always
            return record
        return None if is_expired(record, self.now) else record

    def live_by_lookup(self, kind: Kind[R], value: str) -> R | None:
        """The live record whose field `kind.lookup` has this value."""
        name = self._name_of(kind, value)
        record = None if name is None else self.live(kind, name)
        return record if record is not None and getattr(record, kind.lookup) == value else None

    def _name_of(self, kind: Kind[R], value: str) -> str | None:
        """The name of a record that has, or had, this value of `kind.lookup`."""
        name = self._found.get((kind, value))  # type: ignore[arg-type] # of one of the kinds
        if name is not None:
            return name
        seen = self._view.found(kind).get(value)
        return None if seen is None else seen.name

    # Changing -------------------------------------------------------------------------------------------------

    def next_revision(self) -> int:
        """Take a revision."""
        self.revision += 1
        return self.revision

    def put(self, kind: AnyKind, name: str, change: Change) -> None:
        """Set the state of a name: a record or its removal."""
        changes = self._changes.get(kind)
        if changes is None:
            changes = self._changes[kind] = {}
        if name in changes:
            self._is_in_order = False
        changes[name] = change
        if kind.lookup and type(change) is kind.record:
            self._found[kind, getattr(change, kind.lookup)] = name

    def take_room(self, entries: Mapping[str, Change]) -> None:
        """Raise `quota_exceeded` if these changes of entries would exceed the quota. Here there is none.

        Called with all changes of a `Staging` before it is kept.
        """

    def changes(self) -> list[Change]:
        """The changes so far, in the order of their revisions."""
        if len(self._changes) == 1 and self._is_in_order:  # nearly always
            [changes] = self._changes.values()
            return list(changes.values())
        return sorted((change for changes in self._changes.values() for change in changes.values()), key=_revision_of)

    # Work -----------------------------------------------------------------------------------------------------

    def begin_work(self, value_bytes: int) -> None:
        """Call before a value is decoded. Raises `BatchLimitError` if the batch would exceed MAX_BATCH_WORK_BYTES."""
        if self.work_bytes and self.work_bytes + value_bytes > MAX_BATCH_WORK_BYTES:
            raise BatchLimitError
        self.work_bytes += value_bytes


class Staging(Overlay):
    """Changes that are not in the batch yet: an operation makes several, or none.

    They are decided on the changes of the batch so far. `keep` adds them to the batch, all or none. Until then they
    have no effect, so an operation that raises has changed nothing, wherever it raises. `work_bytes` continues that of
    the batch; the caller gives it back.
    """

    __slots__ = ("_batch", "shown_bytes")

    def __init__(self, batch: Overlay) -> None:
        super().__init__(batch._view, batch.revision, batch.now, batch.max_value_bytes)  # noqa: SLF001 - a part of it
        self.work_bytes = batch.work_bytes
        self.shown_bytes = 0
        """The bytes of stored values that the answer shows."""
        self._batch = batch

    def stored(self, kind: Kind[R], name: str) -> R | None:
        changes = self._changes.get(kind)  # type: ignore[arg-type] # of one of the kinds
        if changes is None or name not in changes:
            return self._batch.stored(kind, name)
        return super().stored(kind, name)

    def live(self, kind: Kind[R], name: str) -> R | None:
        record = self.stored(kind, name)
        return None if record is None or is_expired(record, self.now) else record

    def _name_of(self, kind: Kind[R], value: str) -> str | None:
        name = self._found.get((kind, value))  # type: ignore[arg-type] # of one of the kinds
        return self._batch._name_of(kind, value) if name is None else name  # noqa: SLF001 - as above

    def keep(self) -> None:
        """Add the changes to the batch, all of them or, if this raises, none. Nothing after it may raise."""
        batch = self._batch
        if ENTRY in self._changes:
            batch.take_room(self._changes[ENTRY])
        if self._found:
            batch._found.update(self._found)  # noqa: SLF001 - as above; a name without such a record has no effect
        several = len(self._changes) > 1
        for kind, changes in self._changes.items():
            kept = batch._changes.setdefault(kind, {})  # noqa: SLF001 - as above
            if not kept.keys().isdisjoint(changes):
                batch._is_in_order = False  # noqa: SLF001 - as above
            if not several:  # one step by itself
                kept.update(changes)
        if several:
            _update_all([(batch._changes[kind], changes) for kind, changes in self._changes.items()])  # noqa: SLF001
        batch.revision = self.revision


def _update_all(merged: Sequence[tuple[dict[str, Change], dict[str, Change]]]) -> None:
    """Add the second of each pair to the first. If it raises, because memory runs out, all are as before."""
    before = [{name: kept[name] for name in changes if name in kept} for kept, changes in merged]
    try:
        for kept, changes in merged:
            kept.update(changes)
    except BaseException:
        for (kept, changes), previous in zip(merged, before, strict=True):
            for name in changes:
                if name in previous:
                    kept[name] = previous[name]
                elif name in kept:
                    del kept[name]
        raise
