"""The harnesses. Each tries to break one promise of the service, briefly (`make test`) or for hours (`make torture`).

A harness is a module with a function that runs one round: its arguments are a seed and how much to do, and it returns a
`Finding`. The same seed does the same, as far as the machine allows. `tests/faults` runs each harness briefly and shows
that it detects planted bugs. `tests/torture` runs them one after another for a given time.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Self

DEPTH: Final = 0.25
"""`make test` does this share of the amounts named in tests, so that it ends in minutes."""


def depth(amount: int) -> int:
    """The share of an amount that `make test` does. Use it also for the expected figures."""
    return max(1, round(amount * DEPTH))


@dataclass
class Finding:
    """What a round did, and the violations that it found.

    `figures`: how much was done, with names for people (`kills`, `operations under way`). They add up over rounds. A
    round is meaningful only under load, so they include how much was in progress when a fault came.

    `seconds`: how long something took, each time, by names for people. No check depends on it.
    """

    figures: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def took(self, what: str, seconds: float) -> None:
        self.seconds.setdefault(what, []).append(seconds)

    def add(self, other: Self) -> None:
        self.figures.update(other.figures)
        self.violations += other.violations
        for what, seconds in other.seconds.items():
            self.seconds.setdefault(what, []).extend(seconds)
