"""The names of a table in order, which are put in order late."""

import random

import pytest

from leasehold.engines.memory import ordered_names
from leasehold.engines.memory.ordered_names import OrderedNames


@pytest.mark.parametrize("seed", range(20))
def test_names_that_are_added_and_removed_at_random_are_in_order_whenever_they_are_read(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered_names, "MAX_UNORDERED", 5)
    rng = random.Random(seed)
    expected = {f"n{rng.randrange(30)}" for _ in range(10)}
    names = OrderedNames(expected)
    for _ in range(300):
        name = f"n{rng.randrange(30)}"
        if name in expected:
            names.remove(name)
        else:
            names.add(name)
        expected ^= {name}
        if rng.random() < 0.1:
            assert list(names.in_order()) == sorted(expected)
    assert list(names.in_order()) == sorted(expected)


def test_only_a_limited_number_of_names_is_left_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered_names, "MAX_UNORDERED", 3)
    names = OrderedNames(())
    for number in range(4):
        names.add(f"n{number}")
    assert names._unordered == {}
    for number in range(3):
        names.remove(f"n{number}")
    assert len(names._unordered) == 3


def test_a_name_that_is_added_and_removed_leaves_nothing_to_put_in_order() -> None:
    names = OrderedNames(["a"])
    for _ in range(1_000):
        names.add("b")
        names.remove("b")
        names.remove("a")
        names.add("a")
    assert (names._unordered, list(names.in_order())) == ({}, ["a"])
