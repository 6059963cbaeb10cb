"""What clients did and were told: the history that `revisions` and `registers` judge.

A key and a lock are the same kind of thing here, a register: at each moment it is empty or has one state. Every change
that a client sends carries a mark of its own, so a state tells which change made it: `Value` is the mark of the last
write of the whole and that of the last partial write since, and a lock's is its owner.

Times are of one monotonic clock. An operation precedes another if it ended before the other began; all else is
concurrent. What ended without an answer is `Change.ended = None`: it may have happened at any time since it began, or
never. Reads without an answer are not recorded.
"""

from dataclasses import dataclass, field
from typing import Literal

Value = tuple[str | None, str | None]


@dataclass(slots=True, eq=False)
class Change:
    """What was to change a key or a lock, and was not refused.

    `expected`: the precondition, a revision or whether there was anything. `found`: whether the answer says that there
    was something before. `fence`: the lock and the token of the lease under which it was sent.
    """

    key: str
    kind: Literal["whole", "part", "removal"]
    mark: str
    began: int
    ended: int | None = None
    revision: int | None = None
    """As answered; that of one without an answer is filled in by `revisions` when a read has shown it."""
    expected: int | Literal["present", "absent"] | None = None
    found: bool | None = None
    fence: tuple[str, int] | None = None
    floor: int = 0
    """The largest revision that anybody knew when it began. See `revisions`."""

    @property
    def leaves_something(self) -> bool:
        return self.kind != "removal"

    def __str__(self) -> str:
        return f"{self.kind} {self.mark} of {self.key}"


@dataclass(slots=True, eq=False)
class Sight:
    """What an answer says of one key or lock: that of a read, an item of a list, a refusal.

    `revision` and `value` are None where it does not tell. `head`: the revision of the list, which holds every change
    up to it.
    """

    key: str
    began: int
    ended: int
    is_there: bool
    revision: int | None = None
    value: Value | None = None
    head: int = 0
    floor: int = 0

    def __str__(self) -> str:
        seen = "empty" if not self.is_there else f"{self.value or 'something'} at {self.revision or '?'}"
        return f"a sight of {self.key}, {seen}"


@dataclass(slots=True, eq=False)
class Loss:
    """A refusal because the lease of this token was not alive."""

    lock: str
    token: int
    began: int
    ended: int


@dataclass
class History:
    """All of a run. `faults`: answers that nothing allows. The store was at revision `base` when it began."""

    base: int = 0
    changes: list[Change] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def told(self) -> list[Change | Sight]:
        """All that concerns a single key or lock."""
        return [*self.changes, *self.sights]
