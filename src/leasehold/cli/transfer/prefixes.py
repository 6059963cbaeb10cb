"""Which keys are taken, and how they are renamed: `--prefix OLD=NEW`. Pure functions."""

from collections.abc import Sequence
from typing import NamedTuple


class Prefix(NamedTuple):
    """Keys that begin with `old`; this becomes `new`."""

    old: str
    new: str


def parse_prefix(text: str) -> Prefix:
    """The `type` of an option: `OLD=NEW`, or `OLD` for keys that keep their names. The first `=` separates."""
    old, is_renamed, new = text.partition("=")
    return Prefix(old, new if is_renamed else old)


def renamed(key: str, prefixes: Sequence[Prefix]) -> str | None:
    """The new key, by the first prefix with which the key begins. None: the key is not taken.

    Without prefixes, all keys are taken.
    """
    if not prefixes:
        return key
    for old, new in prefixes:
        if key.startswith(old):
            return key if old == new else new + key[len(old) :]
    return None
