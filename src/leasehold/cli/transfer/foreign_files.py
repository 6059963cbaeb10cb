"""Files that `consul kv export` and `etcdctl get --prefix "" -w json` have written.

Both are one JSON document, so they are read as a whole. Keys of etcd, and values of both, are bytes in base64. Neither
has times, so imported entries do not expire. The types are those of `command/kv/impexp` in the source of Consul, and of
`RangeResponse` in the API of etcd.
"""

from base64 import b64decode
from collections.abc import Callable, Sequence

import msgspec

from leasehold.cli.transfer.choices import ValueKind
from leasehold.cli.transfer.entry_lines import base64_text
from leasehold.cli.transfer.foreign_values import value_of
from leasehold.cli.transfer.items import Found, FoundItems, Item, LeftOut, Loss, Unusable
from leasehold.errors import ServiceError
from leasehold.model import Binary, Value


class _ConsulItem(msgspec.Struct):
    key: str
    value: str | None = None
    flags: int = 0


class _EtcdItem(msgspec.Struct):
    """Members that are 0 or empty are left out."""

    key: str = ""
    value: str = ""
    lease: int = 0


class _EtcdDocument(msgspec.Struct):
    header: msgspec.Raw
    kvs: list[msgspec.Raw] = []


def read_consul(document: bytes, kind: ValueKind, *, keeps_flags: bool) -> FoundItems:
    """`keeps_flags`: each value becomes an object with `flags` and `value`.

    Raises MsgspecError or UnicodeDecodeError for another document.
    """

    def found(place: int, text: bytes) -> Found:
        item = msgspec.json.decode(text, type=_ConsulItem)
        data = b64decode(item.value or "", validate=True)
        if item.key.endswith("/") and not data:
            return LeftOut(place, "folder")
        flags = item.flags if keeps_flags else None
        return _entry(place, text, item.key, data, kind, flags=flags, loss="flags" if item.flags else None)

    return _found_in(msgspec.json.decode(document, type=list[msgspec.Raw]), found)


def read_etcd(document: bytes, kind: ValueKind, *, takes_leased: bool) -> FoundItems:
    """`takes_leased`: also entries that have a lease.

    Raises MsgspecError or UnicodeDecodeError for another document.
    """

    def found(place: int, text: bytes) -> Found:
        item = msgspec.json.decode(text, type=_EtcdItem)
        if item.lease and not takes_leased:
            return LeftOut(place, "lease")
        try:
            key = b64decode(item.key, validate=True).decode()
        except UnicodeDecodeError:
            return Unusable(place, text, "the key is not UTF-8")
        data = b64decode(item.value, validate=True)
        return _entry(place, text, key, data, kind, loss="lease" if item.lease else None)

    return _found_in(msgspec.json.decode(document, type=_EtcdDocument).kvs, found)


def _entry(
    place: int, text: bytes, key: str, data: bytes, kind: ValueKind, *, loss: Loss | None, flags: int | None = None
) -> Found:
    """`flags`: kept in the value, unless they are None."""
    try:
        value = value_of(data, kind)
    except ServiceError as error:
        return Unusable(place, text, error.message, key)
    if flags is not None:
        return Item(place, text, key, _with_flags(value, flags))
    return Item(place, text, key, value, loss=loss)


def _with_flags(value: Value, flags: int) -> bytes:
    content = base64_text(value) if isinstance(value, Binary) else b'"value":%b' % value
    return b'{"flags":%d,%b}' % (flags, content)


def _found_in(texts: Sequence[msgspec.Raw], found: Callable[[int, bytes], Found]) -> FoundItems:
    for place, raw in enumerate(texts, 1):
        text = bytes(raw)
        try:
            yield found(place, text)
        except msgspec.MsgspecError as error:
            yield Unusable(place, text, f"it is not an entry: {error}")
        except ValueError:
            yield Unusable(place, text, "the key or the value is not valid base64")
