"""What a file contains: entries to be written, and what is not one. Frozen data."""

from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from leasehold.model import Value

Loss = Literal["flags", "lease"]
"""What an entry of another tool has and Leasehold does not keep: flags of Consul, a lease of etcd."""


class Item(msgspec.Struct, frozen=True, gc=False):
    """An entry to be written. Its value was checked, its key was not, because it may be renamed.

    `place`: the number of its line, or of its place in a JSON array, from 1. `text`: all of it, as it was read.
    `expires_at`: in microseconds since the epoch. `ttl`: in seconds. At most one of both is set.
    """

    place: int
    text: bytes
    key: str
    value: Value
    expires_at: int | None = None
    ttl: float | None = None
    loss: Loss | None = None


class Unusable(msgspec.Struct, frozen=True, gc=False):
    """A line or an item that is no entry. `reason`: for people. `key`: None if it cannot be found."""

    place: int
    text: bytes
    reason: str
    key: str | None = None


class LeftOut(msgspec.Struct, frozen=True, gc=False):
    """`folder`: a key of Consul that ends with a slash and has no value, which its user interface shows as a folder.
    `lease`: an entry of etcd with a lease, where such entries are not wanted.
    """

    place: int
    reason: Literal["folder", "lease"]


Found: TypeAlias = Item | Unusable | LeftOut
FoundItems: TypeAlias = Iterator[Found]
