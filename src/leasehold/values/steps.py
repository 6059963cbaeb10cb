"""Work in steps. A generator yields after each step, so that its caller can let other clients go on in between."""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]
Encoded = bytes | Steps[bytes]
"""An encoded item, or the steps that encode a large one."""


def finished(steps: Steps[T]) -> T:
    """Do all steps at once, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
