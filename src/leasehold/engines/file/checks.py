"""Checks that the records in a file are valid for the API, because the file may have been edited.

Nearly all text needs no check. A search in a whole block of bytes shows this, and takes a tenth of the time that
reading the block takes. Only in other blocks are the values decoded and checked one by one.
"""

import operator
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from msgspec.structs import replace

from leasehold import values
from leasehold.engines.file.fields import JSON, names_of
from leasehold.engines.file.lines import RemovalLine
from leasehold.engines.state import StoredState
from leasehold.errors import ServiceError
from leasehold.keys import check_key
from leasehold.limits import MAX_NESTING
from leasehold.model import ENTRY, LEASE, AnyKind, Entry, Lease, Record

_ESCAPE: Final = b"\\u"
"""Leasehold writes it only for control characters. In an edited file it may be U+0000 or half of a surrogate pair."""


def _shape_of(byte: int) -> int:
    """Replaces each digit, exponent, sign and control character by one representative of its class."""
    kinds = {"0123456789": "0", "eE": "e", "+-": "-", "\n": " "}
    kind = next((shape for members, shape in kinds.items() if chr(byte) in members), None)
    return ord(kind or ("c" if byte < ord(" ") else " "))


_SHAPES: Final = bytes(map(_shape_of, range(256)))
_NOT_PLAIN: Final = (b"0" * 19, b"0e000", b"0e-000", b"c")
"""An integer that may be out of range, exponents that may be out of range for a double, and control characters."""


def needs_no_check(text: bytes) -> bool:
    """Whether JSON text has nothing that the API might refuse, apart from its nesting."""
    if text.find(_ESCAPE) >= 0:
        return False
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
    shape = text.translate(_SHAPES)
    return all(shape.find(part) < 0 for part in _NOT_PLAIN)


def checked_entry(entry: Entry, *, needs_no_check: bool = False) -> Entry:
    """The entry, with its value in compact form. Raises the error of the API for a wrong key or value.

    `needs_no_check`: the text was found to be valid and compact, so only the key and the nesting are checked.
    """
    check_key(entry.key)
    value = entry.value
    if needs_no_check and (len(value) <= MAX_NESTING or value.count(b"[") + value.count(b"{") <= MAX_NESTING):
        return entry
    return replace(entry, value=values.parse_json(value, max_containers=None))


Check = Callable[..., Record]
"""`check(record, needs_no_check=…)`: like `checked_entry`, for records of any kind."""


@cache
def check_of(kind: AnyKind) -> Check:
    """The check of a kind: of the name, the JSON texts, and by `_EXTRA_CHECKS`."""
    if kind is ENTRY:
        return checked_entry
    texts = names_of(kind.record, JSON)
    extra_check = _EXTRA_CHECKS.get(kind)

    def checked(record: Record, *, needs_no_check: bool = False) -> Record:  # noqa: ARG001 - these are few
        check_key(record.name)
        if extra_check is not None:
            extra_check(record)
        compact = {name: values.parse_json(getattr(record, name), max_containers=None) for name in texts}
        return replace(record, **compact) if compact else record

    return checked


def _check_lease(lease: Lease) -> None:
    if not lease.lease_id.isprintable() or not lease.lease_id or lease.ttl <= 0:
        raise ServiceError("invalid_argument", "its lease_id or its ttl is wrong")
    if lease.token > lease.revision:
        raise ServiceError("invalid_argument", "its token is greater than its revision")


_EXTRA_CHECKS: Final[Mapping[AnyKind, Callable[..., None]]] = {LEASE: _check_lease}
"""Checks that do not follow from the annotations of the fields."""


def has_duplicates(kind: AnyKind, by_name: Mapping[str, Record], count: int) -> bool:
    """Whether two of `count` records have the same name, or the same value of `Kind.lookup`."""
    if len(by_name) != count:
        return True
    return bool(kind.lookup) and len(set(map(operator.attrgetter(kind.lookup), by_name.values()))) != count


def add_removal(line: RemovalLine, state: StoredState) -> None:
    """Add a removal to `state`, which must have all records already.

    Raises ServiceError if the removal is wrong or contradicts the records.
    """
    contents = next((contents for kind, contents in state.contents.items() if kind.name == line.kind), None)
    if contents is None:
        raise ServiceError("invalid_argument", f"there is no kind {line.kind!r}")
    check_key(line.name)
    if line.name in contents.by_name:
        raise ServiceError("invalid_argument", f"the file also has the {line.kind} itself")
    if line.name in contents.removals:
        raise ServiceError("invalid_argument", "the file has it twice")
    if not state.compacted_revision < line.revision <= state.revision:
        raise ServiceError("invalid_argument", "its revision is not between compacted_revision and revision")
    contents.removals[line.name] = line.revision
