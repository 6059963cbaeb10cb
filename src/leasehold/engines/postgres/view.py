"""What a batch asks for, and what is loaded for it: the View on which it is decided."""

from collections.abc import Container, Mapping, Sequence
from typing import Final

import asyncpg
import msgspec

from leasehold.engines.postgres import record_statements
from leasehold.engines.postgres.record_statements import joined
from leasehold.model import KINDS, AnyKind, Kind, Quota, R, Record, Touched, Usage

KIND_NAMES: Final = [kind.name for kind in KINDS]


class Names(msgspec.Struct, frozen=True):
    """The names and lookups that a batch touches, as parameters of `record_statements.load`."""

    kinds: tuple[AnyKind, ...]
    parameters: tuple[str, ...]
    by_kind: Mapping[AnyKind, Container[str]]
    """The names alone."""

    @classmethod
    def of(cls, touched: Touched) -> "Names":
        """Build it from `touched`. Each name appears once."""
        kinds: list[AnyKind] = []
        by_kind: dict[AnyKind, Container[str]] = {}
        parameters: list[str] = []
        for kind in KINDS:
            names, lookups = touched.names.get(kind, ()), touched.lookups.get(kind, ())
            if names or lookups:
                kinds.append(kind)
                by_kind[kind] = once = dict.fromkeys(names)
                parameters.append(joined(once))
                if kind.lookup:
                    parameters.append(joined(dict.fromkeys(lookups)))
        return cls(tuple(kinds), tuple(parameters), by_kind)


EVERY_KIND: Final = Names(tuple(KINDS), tuple("" for kind in KINDS for _ in range(2 if kind.lookup else 1)), {})
"""Every kind, without names."""


class Totals(msgspec.Struct, frozen=True):
    """What the head has beside the revisions and the incarnation."""

    quota: Quota | None = None
    usage: Usage | None = None
    """None: it is not needed, or it is not known, because it was never counted or a server of an earlier version has
    committed since."""
    is_deleted: bool = False

    @classmethod
    def of(cls, members: Sequence[int | None]) -> "Totals":
        """Of the last column of the head in the rows of `record_statements.load`."""
        is_deleted, max_entries, max_bytes, entries, size = members
        if is_deleted:
            return DELETED
        usage = None if entries is None or size is None else Usage(max(entries, 0), max(size, 0))
        return cls(Quota(max_entries, max_bytes), usage)


UNLIMITED: Final = Totals()
DELETED: Final = Totals(is_deleted=True)


class Loaded(msgspec.Struct, frozen=True):
    """The View on which a batch is decided."""

    head: int
    compacted: int
    incarnation: str
    now: int
    by_name: Mapping[AnyKind, Mapping[str, Record]]
    by_lookup: Mapping[AnyKind, Mapping[str, Record]]
    rows: Mapping[AnyKind, Mapping[str, Sequence[object]]]
    """The stored rows by name, for kinds with a document."""
    totals: Totals
    complete_from: int
    """The table `batches` has all changes after this revision."""

    @property
    def quota(self) -> Quota | None:
        return self.totals.quota

    @property
    def usage(self) -> Usage:
        assert self.totals.usage is not None  # only asked for with a quota
        return self.totals.usage

    def records(self, kind: Kind[R]) -> Mapping[str, R]:
        return self.by_name.get(kind, {})  # type: ignore[arg-type, return-value] # the kind says which

    def found(self, kind: Kind[R]) -> Mapping[str, R]:
        return self.by_lookup.get(kind, {})  # type: ignore[arg-type, return-value] # as above


def current(rows: Sequence[asyncpg.Record]) -> tuple[int, int, int, str | None, Totals, int] | None:
    """The time, the head, the compacted revision, the incarnation, the totals, and `complete_from`.

    `rows`: those of `record_statements.load`. None: there is no such namespace.
    """
    for row in rows:  # it is the first one, although nothing in SQL says so
        if row[1] is not None:
            now, head, compacted, incarnation, complete_from, members = row[: record_statements.LOADED_AT]
            totals = UNLIMITED if members is None else Totals.of(members)
            return now, head, compacted, incarnation, totals, complete_from
    return None


def head_is_missing() -> asyncpg.InterfaceError:
    """The failure if `default` has no head: it always exists."""
    return asyncpg.InterfaceError("the head row is missing")
