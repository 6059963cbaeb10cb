"""What a batch asks for, and what is loaded for it: the View on which it is decided."""

from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg
import msgspec

from leasehold.engines.postgres import sql
from leasehold.engines.postgres.sql import joined
from leasehold.model import KINDS, AnyKind, Kind, Quota, R, Record, Touched, Usage

KIND_NAMES: Final = [kind.name for kind in KINDS]


class Names(msgspec.Struct, frozen=True):
    """The names and lookups that a batch touches, as parameters of `sql.load`."""

    kinds: tuple[AnyKind, ...]
    parameters: tuple[str, ...]

    @classmethod
    def of(cls, touched: Touched) -> "Names":
        """Build it from `touched`. Each name appears once."""
        kinds: list[AnyKind] = []
        parameters: list[str] = []
        for kind in KINDS:
            names, lookups = touched.names.get(kind, ()), touched.lookups.get(kind, ())
            if names or lookups:
                kinds.append(kind)
                parameters.append(joined(dict.fromkeys(names)))
                if kind.lookup:
                    parameters.append(joined(dict.fromkeys(lookups)))
        return cls(tuple(kinds), tuple(parameters))


EVERY_KIND: Final = Names(tuple(KINDS), tuple("" for kind in KINDS for _ in range(2 if kind.lookup else 1)))
"""Every kind, without names."""


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
    quota: Quota | None = None
    usage: Usage = Usage(0, 0)

    def records(self, kind: Kind[R]) -> Mapping[str, R]:
        return self.by_name.get(kind, {})  # type: ignore[arg-type, return-value] # the kind says which

    def found(self, kind: Kind[R]) -> Mapping[str, R]:
        return self.by_lookup.get(kind, {})  # type: ignore[arg-type, return-value] # as above


def current(rows: Sequence[asyncpg.Record]) -> tuple[int, int, int, str | None]:
    """The time, the head, the compacted revision and the incarnation, of the rows of `sql.load`."""
    for row in rows:  # it is the first one, although nothing in SQL says so
        if row[1] is not None:
            now, head, compacted, incarnation = row[: sql.LOADED_AT]
            return now, head, compacted, incarnation
    raise asyncpg.InterfaceError("the head row is missing")
