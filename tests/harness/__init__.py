"""The harnesses: each tries to break one promise, for a moment (`make test`) or for hours (`make torture`).

A harness is a module with a function that runs one round: it takes a seed and how much to do, and returns a `Finding`.
The same seed does the same, as far as the machine lets it. `tests/faults` runs each for a moment and shows that it
turns red by bugs that are planted; `tests/torture` runs them one after another for as long as it is told to.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Self

DEPTH: Final = 0.5
"""How much of the amounts that tests name `make test` does, so that it ends in minutes. `make torture` goes deeper."""


def depth(amount: int) -> int:
    """So much of it `make test` does. What a test asks of its figures is named in the same way."""
    return max(1, round(amount * DEPTH))


@dataclass
class Finding:
    """What a round did, and what it found wrong.

    `figures`: how much was done, under names for people (`kills`, `operations under way`). They add up over rounds.
    A round counts only if its load was really on, so they say how much was under way when a fault struck.
    """

    figures: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, other: Self) -> None:
        self.figures.update(other.figures)
        self.violations += other.violations
