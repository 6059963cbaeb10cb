"""Work in steps. A generator yields after each step, so that its caller can let other clients go on in between."""

from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]
Pieces = Iterator[bytes]
"""A large text or body in pieces, some of which may be empty. To make one is a step."""
Encoded = bytes | Pieces


def joined(items: Iterable[Encoded]) -> Encoded:
    """Encoded items one after the other, in pieces if one of them is."""
    found = list(items)
    whole = [item for item in found if isinstance(item, bytes)]
    return b"".join(whole) if len(whole) == len(found) else chain.from_iterable(map(pieces_of, found))


def pieces_of(item: Encoded) -> Iterable[bytes]:
    """The pieces of an item, which is one if it is whole."""
    return (item,) if isinstance(item, bytes) else item


def finished(steps: Steps[T]) -> T:
    """Do all steps at once, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
