"""Prefixes of a token: which names they cover, and which part of a list."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leasehold.access.permissions import Principal
from leasehold.errors import ServiceError

NAMES = st.text(st.sampled_from("a/\U0001f98a"), min_size=1, max_size=3)
PREFIXES = st.none() | st.lists(NAMES, max_size=5).map(tuple)


def principal(prefixes: tuple[str, ...] | None) -> Principal:
    return Principal("ann", frozenset(), prefixes)


@given(PREFIXES, NAMES)
def test_a_name_is_covered_if_it_begins_with_a_prefix(prefixes: tuple[str, ...] | None, name: str) -> None:
    expected = prefixes is None or any(name[: len(prefix)] == prefix for prefix in prefixes)
    assert principal(prefixes).covers(name) == expected


@example(("a/", "a", "a/a"), "", ["a/a"])
@given(PREFIXES, st.just("") | NAMES, st.lists(NAMES))
def test_a_prefix_is_narrowed_to_the_prefixes_of_the_covered_names(
    prefixes: tuple[str, ...] | None, prefix: str, names: list[str]
) -> None:
    own = principal(prefixes)
    narrowed = own.covered_prefixes(prefix)
    listed = [name for part in narrowed for name in sorted(set(names)) if name.startswith(part)]
    assert listed == [name for name in sorted(set(names)) if name.startswith(prefix) and own.covers(name)]
    assert list(narrowed) == sorted(narrowed)


def test_a_name_that_no_prefix_covers_is_forbidden() -> None:
    principal(("a/",)).require_covered("a/b")
    with pytest.raises(ServiceError) as refusal:
        principal(("a/",)).require_covered("b")
    assert (refusal.value.code, refusal.value.message) == ("forbidden", "the token does not cover this key")
