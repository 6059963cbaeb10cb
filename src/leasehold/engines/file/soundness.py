"""Whether what was read from a file is what the API would have accepted: a file may have been edited.

Nearly all text is plain, and is told to be so by a look at a whole block of bytes, which costs a tenth of reading it.
Only what is not plain is decoded and checked value by value.
"""

from typing import Final

from msgspec.structs import replace

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.keys import check_key
from leasehold.limits import MAX_NESTING
from leasehold.model import Entry, Lease

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

    `needs_no_check`: the text that it came from is plain and compact, so that only its key and nesting are in question.
    """
    check_key(entry.key)
    value = entry.value
    if needs_no_check and (len(value) <= MAX_NESTING or value.count(b"[") + value.count(b"{") <= MAX_NESTING):
        return entry
    return replace(entry, value=values.parse_json(value, max_containers=None))


def checked_lease(lease: Lease) -> Lease:
    """As `checked_entry`."""
    check_key(lease.lock)
    if not lease.lease_id.isprintable() or not lease.lease_id or lease.ttl <= 0:
        raise ServiceError("invalid_argument", "its lease_id or its ttl is wrong")
    return replace(lease, owner=values.parse_json(lease.owner, max_containers=None))
