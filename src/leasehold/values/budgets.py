"""How much work one change of a value may take. Work is counted, because a short request can cause much of it.

The unit is the work of decoding, checking and encoding one byte of JSON, which takes at most 30 ns.
"""

from typing import Final

from leasehold.errors import ServiceError
from leasehold.limits import MAX_CHANGE_WORK_BYTES

SEGMENT_WORK_BYTES: Final = 4
"""Following one segment of a path."""
STEP_WORK_BYTES: Final = 40
"""One step of a JSON Patch, in addition to the other costs here."""
MEMBER_WORK_BYTES: Final = 12
"""Merging one member of a merge patch."""
MERGED_OBJECT_WORK_BYTES: Final = 24
"""Merging an object of a merge patch, in addition to its members."""
DECISION_WORK_BYTES: Final = 100
"""Deciding one check or operation of a transaction, in addition to the work on its value: 3 µs."""
SHOWN_BYTES_FOR_ONE_BYTE: Final = 8
"""Showing so many bytes of stored values in the answer to a transaction costs one unit."""
ELEMENTS_MOVED_FOR_ONE_BYTE: Final = 64
"""Moving so many elements of a list by one place costs one unit."""


class WorkBudget:
    """The work that is left for one change. `value_bytes`: the size of the changed value, which must be decoded in any
    case."""

    __slots__ = ("_left", "spent")

    def __init__(self, value_bytes: int = 0) -> None:
        self._left = max(MAX_CHANGE_WORK_BYTES - value_bytes, MAX_CHANGE_WORK_BYTES // 3)
        self.spent = 0

    def spend(self, work_bytes: int) -> None:
        """Raises `too_large` if the budget is exceeded."""
        self.spent += work_bytes
        if self.spent > self._left:
            raise ServiceError(
                "too_large",
                "the change takes too much work; send it in several requests",
                details={"limit": MAX_CHANGE_WORK_BYTES},
            )

    def follow(self, *paths: tuple[str, ...]) -> None:
        """Spend the cost of looking up paths."""
        self.spend(SEGMENT_WORK_BYTES * sum(map(len, paths)))

    def move_elements(self, count: int) -> None:
        """Spend the cost of moving list elements, when one is inserted or removed before them."""
        self.spend(count // ELEMENTS_MOVED_FOR_ONE_BYTE)
