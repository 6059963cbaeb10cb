"""The requests that write entries, or ask which of them exist. Pure functions.

The bodies are put together from the texts of the values, which are not encoded again.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from leasehold_client import Request
from leasehold_client.protocol.messages import JSON, Pairs, named, target

from leasehold.cli.transfer.entry_lines import base64_text
from leasehold.cli.transfer.items import Item
from leasehold.limits import KIB, MAX_TRANSACTION_OPERATIONS, MIN_TTL_SECONDS
from leasehold.model import Binary

MAX_BATCH_ITEMS: Final = MAX_TRANSACTION_OPERATIONS
MAX_BATCH_BYTES: Final = 512 * KIB
"""Half of the largest body, so that members and escapes have room. A larger value is written alone."""
_MICROSECONDS: Final = 1_000_000
_HEADERS: Final = (("Accept", JSON), ("Content-Type", JSON))
_encode: Final = msgspec.json.Encoder().encode


class Batch:
    """Items that are written together: each key once, within the limits of a transaction."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._keys: set[str] = set()
        self._bytes = 0

    def has_room_for(self, item: Item) -> bool:
        return not self.items or (
            len(self.items) < MAX_BATCH_ITEMS
            and item.key not in self._keys
            and self._bytes + sent_bytes(item) <= MAX_BATCH_BYTES
        )

    def add(self, item: Item) -> None:
        self.items.append(item)
        self._keys.add(item.key)
        self._bytes += sent_bytes(item)


def sent_bytes(item: Item) -> int:
    """About how long the item is in a transaction."""
    value = item.value
    return len(item.key) + (len(value) * 4 // 3 if isinstance(value, Binary) else len(value))


def is_sent_alone(item: Item) -> bool:
    return sent_bytes(item) > MAX_BATCH_BYTES


def ttl_of(item: Item, now: int) -> float | None:
    """The seconds until the entry expires, None if it does not. `now`: microseconds since the epoch."""
    return item.ttl if item.expires_at is None else (item.expires_at - now) / _MICROSECONDS


def has_expired(item: Item, now: int) -> bool:
    """Whether the entry has expired, or does so within the shortest ttl of the service."""
    return item.expires_at is not None and item.expires_at - now < MIN_TTL_SECONDS * _MICROSECONDS


def write(items: Sequence[Item], *, if_absent: bool, headers: Pairs, now: int) -> Request:
    """Write all of these entries, or none. `if_absent`: if none of them exists."""
    operations = b",".join(_operation(item, now) for item in items)
    checks = b'"if":[%b],' % _absence(items) if if_absent else b""
    return _transaction(b'{%b"do":[%b]}' % (checks, operations), headers, is_change=True)


def look(items: Sequence[Item]) -> Request:
    """Ask whether none of these entries exists. It changes nothing: its only operation reads."""
    first = _encode(items[0].key)
    return _transaction(b'{"if":[%b],"do":[{"op":"get","key":%b}]}' % (_absence(items), first), (), is_change=False)


def write_alone(item: Item, *, if_absent: bool, headers: Pairs, now: int) -> Request:
    """Write an entry whose value is too large for a transaction. Raises InvalidKey."""
    value, ttl = item.value, ttl_of(item, now)
    content, kind = (bytes(value.data), value.media) if isinstance(value, Binary) else (value, JSON)
    parameters = () if ttl is None else (("ttl", _seconds(ttl).decode()),)
    absence = (("If-None-Match", "*"),) if if_absent else ()
    own = (("Accept", JSON), ("Prefer", "return=minimal"), ("Content-Type", kind))
    return Request(
        "POST", target(named("/kv", item.key), parameters), (*own, *absence, *headers), content, is_change=True
    )


def _transaction(content: bytes, headers: Pairs, *, is_change: bool) -> Request:
    return Request("POST", "/txn", (*_HEADERS, *headers), content, is_change=is_change)


def _absence(items: Iterable[Item]) -> bytes:
    return b",".join(b'{"key":%b,"exists":false}' % _encode(item.key) for item in items)


def _operation(item: Item, now: int) -> bytes:
    value, ttl = item.value, ttl_of(item, now)
    content = base64_text(value) if isinstance(value, Binary) else b'"value":%b' % value
    expiry = b"" if ttl is None else b',"ttl":%b' % _seconds(ttl)
    return b'{"op":"put","key":%b,%b%b}' % (_encode(item.key), content, expiry)


def _seconds(number: float) -> bytes:
    return b"%.6f" % number
