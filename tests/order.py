"""The order of the tests: those with the mark `long` come first in the share with which each worker begins.

pytest-xdist (`--dist worksteal`) gives each worker a share of the tests, and later moves some to a worker that has none
left. It cannot move the last ones of a worker, so a long one at the end would run while the other workers wait.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import pytest

LONG: Final = "long"


def long_first(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """All `items`, otherwise in their order."""
    long = deque(item for item in items if item.get_closest_marker(LONG) is not None)
    others = deque(item for item in items if item.get_closest_marker(LONG) is None)
    ordered: list[pytest.Item] = []
    for left in range(workers, 0, -1):  # workers that have no share yet
        size = (len(items) - len(ordered)) // left  # as pytest-xdist computes it
        own = min(size, -(-len(long) // left))
        ordered += [long.popleft() for _ in range(own)]
        ordered += [(others or long).popleft() for _ in range(size - own)]
    return ordered
