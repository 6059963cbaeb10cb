"""Whether what was read from a file is what the API would have accepted: a file may have been edited.

Nearly all text is plain. A search in a whole block of bytes shows this, and costs a tenth of the time that reading the
block takes. Only the values of other blocks are decoded and checked one by one.
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
"""Our own text has it for control characters only. It may also say U+0000, or half of a surrogate pair."""


def _shape_of(byte: int) -> int:
    """Digits, exponents, signs and control characters, each by one of their kind."""
    kinds = {"0123456789": "0", "eE": "e", "+-": "-", "\n": " "}
    kind = next((shape for members, shape in kinds.items() if chr(byte) in members), None)
    return ord(kind or ("c" if byte < ord(" ") else " "))


_SHAPES: Final = bytes(map(_shape_of, range(256)))
_NOT_PLAIN: Final = (b"0" * 19, b"0e000", b"0e-000", b"c")
"""An integer that may be out of range, exponents that a double may not have, and what JSON has no place for."""


def needs_no_check(text: bytes) -> bool:
    """Whether JSON text holds nothing that the API may refuse, apart from its nesting."""
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
    """The entry, its value in the compact form that the API keeps. Raises what the API raises for its key or value.

    `needs_no_check`: the text that it came from is plain and compact, so that only its key and nesting are checked.
    """
    check_key(entry.key)
    value = entry.value
    if needs_no_check and (len(value) <= MAX_NESTING or value.count(b"[") + value.count(b"{") <= MAX_NESTING):
        return entry
    return replace(entry, value=values.parse_json(value, max_containers=None))


Check = Callable[..., Record]
"""`check(record, needs_no_check=…)` is `checked_entry` for the records of another kind."""


@cache
def check_of(kind: AnyKind) -> Check:
    """What checks the records of a kind: its name, its JSON texts, and what is in `_EXTRA_CHECKS`."""
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
"""What the annotations of the fields do not say."""


def has_duplicates(kind: AnyKind, by_name: Mapping[str, Record], count: int) -> bool:
    """Whether of `count` records of a kind two had the same name, or have the same value of `Kind.lookup`."""
    if len(by_name) != count:
        return True
    return bool(kind.lookup) and len(set(map(operator.attrgetter(kind.lookup), by_name.values()))) != count


def add_removal(line: RemovalLine, state: StoredState) -> None:
    """Add a removal that was read to `state`, which has its records already.

    Raises ServiceError if it contradicts them, or is wrong by itself.
    """
    contents = next((contents for kind, contents in state.contents.items() if kind.name == line.kind), None)
    if contents is None:
        raise ServiceError("invalid_argument", f"there is no kind {line.kind!r}")
    check_key(line.name)
    if line.name in contents.by_name:
        raise ServiceError("invalid_argument", f"the {line.kind} stands in it, too")
    if line.name in contents.removals:
        raise ServiceError("invalid_argument", "it stands in it twice")
    if not state.compacted_revision < line.revision <= state.revision:
        raise ServiceError("invalid_argument", "its revision is not between compacted_revision and revision")
    contents.removals[line.name] = line.revision
