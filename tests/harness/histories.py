"""What clients sent and what they were answered: the history that `revisions` and `registers` check.

A key and a lock are the same kind of object here, a register: at each moment it is empty or has one state. Every change
carries a unique mark, so a state shows which change made it. The mark of a `Value` is that of the last write of the
whole and that of the last partial write since; the mark of a lock is its owner.

Times are of one monotonic clock. An operation precedes another if it ended before the other began; otherwise they are
concurrent. A change without an answer has `Change.ended = None`: it may have taken effect at any time since it began,
or never. Reads without an answer are not recorded.
"""

from dataclasses import dataclass, field
from typing import Literal

Value = tuple[str | None, str | None]


@dataclass(slots=True, eq=False)
class Change:
    """A change of a key or a lock that was sent and not refused.

    `expected`: the precondition, a revision or whether the register had a state. `found`: whether the answer says that
    there was a state before. `fence`: the lock and token of the lease under which the change was sent.
    """

    key: str
    kind: Literal["whole", "part", "removal"]
    mark: str
    began: int
    ended: int | None = None
    revision: int | None = None
    """From the answer. For a change without an answer, `revisions` fills it in when a read has shown it."""
    expected: int | Literal["present", "absent"] | None = None
    found: bool | None = None
    fence: tuple[str, int] | None = None
    floor: int = 0
    """The largest revision that any client knew when the operation began. See `revisions`."""

    @property
    def leaves_something(self) -> bool:
        return self.kind != "removal"

    def __str__(self) -> str:
        return f"{self.kind} {self.mark} of {self.key}"


@dataclass(slots=True, eq=False)
class Sight:
    """What an answer says about one key or lock: the answer of a read, an item of a list, a refusal.

    `revision` and `value` are None if the answer does not contain them. `head`: the revision of the list, which
    includes every change up to it.
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
    """The whole history of a run. `faults`: answers that are never allowed. The store was at revision `base` at its
    start."""

    base: int = 0
    changes: list[Change] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def told(self) -> list[Change | Sight]:
        """The part that concerns one key or lock."""
        return [*self.changes, *self.sights]
