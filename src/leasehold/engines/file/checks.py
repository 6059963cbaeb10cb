"""Checks that the records in a file are valid for the API, because the file may have been edited.

Nearly all text needs no check. A search in the joined values of many records shows this, and takes a tenth of the time
that reading them takes. Only if it finds something are the values examined one by one.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Final, cast

import msgspec
from msgspec.structs import replace

from leasehold import values
from leasehold.engines.file.fields import JSON, names_of
from leasehold.engines.file.lines import RemovalLine
from leasehold.engines.state import StoredState
from leasehold.errors import ServiceError
from leasehold.keys import check_key, check_keys
from leasehold.limits import MAX_NESTING
from leasehold.model import ENTRY, LEASE, RECEIPT, AnyKind, Binary, Entry, Lease, Receipt, Record, decode_memo

_ESCAPE: Final = b"\\u"
"""Leasehold writes it only for control characters. In an edited file it may be U+0000 or half of a surrogate pair."""


def _shape_of(byte: int) -> int:
    """Replaces each digit, exponent, sign and control character by one representative of its class."""
    kinds = {"0123456789": "0", "eE": "e", "+-": "-"}
    kind = next((shape for members, shape in kinds.items() if chr(byte) in members), None)
    return ord(kind or ("c" if byte < ord(" ") else " "))


_SHAPES: Final = bytes(map(_shape_of, range(256)))
_NOT_PLAIN: Final = (b"0" * 19, b"0e000", b"0e-000", b"c")
"""An integer that may be out of range, exponents that may be out of range for a double, and control characters."""


def needs_no_check(text: bytes) -> bool:
    """Whether JSON text has nothing that the API might refuse, apart from its nesting.

    `text` is one JSON value, or several joined by commas.
    """
    if b"\\" in text and _ESCAPE in text:  # searching for one byte is a hundred times as fast
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
    if isinstance(value, Binary):
        if values.parse_media_type(value.media) != value.media:
            raise ServiceError("invalid_argument", "its media is not a media type")
        return entry
    if needs_no_check and (len(value) <= MAX_NESTING or not _may_be_deep(value)):
        return entry
    return replace(entry, value=values.parse_json(value, max_containers=None))


_value_of = operator.attrgetter("value")


def _checked_entries(entries: Sequence[Entry], keys: Sequence[str]) -> Sequence[Entry]:
    check_keys(keys)
    texts = list(map(_value_of, entries))
    if all(texts):
        entries_of_bytes = []
    else:
        entries_of_bytes = [entry for entry in entries if isinstance(entry.value, Binary)]
        texts = list(filter(None, texts))
    if needs_no_check(b",".join(texts)) and not any(len(text) > MAX_NESTING and _may_be_deep(text) for text in texts):
        for entry in entries_of_bytes:
            checked_entry(entry)
        return entries
    return list(map(checked_one, entries))


def checked_one(entry: Entry) -> Entry:
    """As `checked_entry`, after a search in the text of this entry."""
    text = entry.value
    return checked_entry(entry, needs_no_check=needs_no_check(text)) if text else checked_entry(entry)


def _may_be_deep(text: bytes) -> bool:
    return text.count(b"[") + text.count(b"{") > MAX_NESTING


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


def checked_records(kind: AnyKind, records: Sequence[Record], names: Sequence[str]) -> Sequence[Record]:
    """As `check_of(kind)` for each record. `names` are the names of the records, in their order."""
    if kind is ENTRY:
        return _checked_entries(cast("Sequence[Entry]", records), names)
    return list(map(check_of(kind), records))


def _check_lease(lease: Lease) -> None:
    if not lease.lease_id.isprintable() or not lease.lease_id or lease.ttl <= 0:
        raise ServiceError("invalid_argument", "its lease_id or its ttl is wrong")
    if lease.token > lease.revision:
        raise ServiceError("invalid_argument", "its token is greater than its revision")


def _check_receipt(receipt: Receipt) -> None:
    try:
        decode_memo(receipt.memo)
    except msgspec.DecodeError as error:
        raise ServiceError("invalid_argument", "its memo is not as Leasehold writes it") from error


_EXTRA_CHECKS: Final[Mapping[AnyKind, Callable[..., None]]] = {LEASE: _check_lease, RECEIPT: _check_receipt}
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
