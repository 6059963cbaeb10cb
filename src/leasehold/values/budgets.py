"""What one change of a value may cost. Counted in work done, because a short request may ask for a lot of it.

The unit is the work of decoding, checking and encoding one byte of JSON, which takes 30 ns at worst.
"""

from typing import Final

from leasehold.errors import ServiceError
from leasehold.limits import MAX_CHANGE_WORK_BYTES

SEGMENT_WORK_BYTES: Final = 4
"""To follow one segment of a path."""
STEP_WORK_BYTES: Final = 40
"""To do one step of a JSON Patch, beside the others here."""
MEMBER_WORK_BYTES: Final = 12
"""To merge one member of a merge patch."""
MERGED_OBJECT_WORK_BYTES: Final = 24
"""To merge an object of a merge patch, beside its members."""
ELEMENTS_MOVED_FOR_ONE_BYTE: Final = 64
"""Elements of a list, moved by one place."""


class WorkBudget:
    """What is left for one change. `value_bytes`: of the value that is changed, which cost their share in any case."""

    __slots__ = ("_left", "spent")

    def __init__(self, value_bytes: int = 0) -> None:
        self._left = max(MAX_CHANGE_WORK_BYTES - value_bytes, MAX_CHANGE_WORK_BYTES // 3)
        self.spent = 0

    def spend(self, work_bytes: int) -> None:
        """Raises `too_large` when no more is left."""
        self.spent += work_bytes
        if self.spent > self._left:
            raise ServiceError(
                "too_large",
                "the change takes too much work; send it in several requests",
                details={"limit": MAX_CHANGE_WORK_BYTES},
            )

    def follow(self, *paths: tuple[str, ...]) -> None:
        """Paths are looked up."""
        self.spend(SEGMENT_WORK_BYTES * sum(map(len, paths)))

    def move_elements(self, count: int) -> None:
        """Elements of a list make room, or close a gap."""
        self.spend(count // ELEMENTS_MOVED_FOR_ONE_BYTE)
