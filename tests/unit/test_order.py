"""Long tests come first in the share of each worker, and none is lost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from order import long_first


@dataclass(frozen=True)
class Item:
    number: int
    is_long: bool

    def get_closest_marker(self, name: str) -> object:
        assert name == "long"
        return name if self.is_long else None


def ordered_for(items: Sequence[Item], workers: int) -> list[Item]:
    return cast("list[Item]", long_first(cast("Any", items), workers))


def shares(count: int, workers: int) -> list[range]:
    """Which tests pytest-xdist gives each worker at the beginning."""
    given: list[range] = []
    begin = 0
    for number in range(workers):
        size = (count - begin) // (workers - number)
        given.append(range(begin, begin + size))
        begin += size
    return given


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8))
def test_each_share_begins_with_its_part_of_the_long_tests(are_long: list[bool], workers: int) -> None:
    items = [Item(number, is_long) for number, is_long in enumerate(are_long)]
    ordered = ordered_for(items, workers)
    assert sorted(ordered, key=lambda item: item.number) == items
    of_shares = [[ordered[place].is_long for place in share] for share in shares(len(items), workers)]
    assert of_shares == [sorted(share, reverse=True) for share in of_shares]
    if sum(are_long) <= min(map(len, of_shares)):
        counts = [sum(share) for share in of_shares]
        assert max(counts) - min(counts) <= 1


def test_the_order_is_otherwise_kept() -> None:
    items = [Item(number, number in {4, 6}) for number in range(8)]
    assert [item.number for item in ordered_for(items, 1)] == [4, 6, 0, 1, 2, 3, 5, 7]
    assert [item.number for item in ordered_for(items, 2)] == [4, 0, 1, 2, 6, 3, 5, 7]


def test_tests_with_the_mark_are_long(request: pytest.FixtureRequest) -> None:
    request.node.add_marker("long")
    other = Item(0, is_long=False)
    assert ordered_for([other, request.node], 1) == [request.node, other]
