"""Lists and maps in MessagePack are counted without decoding it."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.errors import ServiceError
from leasehold.model import Json
from leasehold.values.messagepack import has_more_containers

TEXTS = st.text(st.sampled_from("a\x80\u0391\u4e00\U0001f389"), max_size=70)
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXTS,
    lambda parts: st.lists(parts, max_size=20) | st.dictionaries(TEXTS, parts, max_size=20),
    max_leaves=40,
)


def walked(value: Json) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + sum(map(walked, parts))


@given(VALUES, st.integers(0, 20))
def test_the_count_is_exact_or_within_twice_the_limit(value: Json, limit: int) -> None:
    has_more, count = has_more_containers(msgspec.msgpack.encode(value), limit), walked(value)
    assert has_more == (count > limit) or (limit < count <= 2 * limit and not has_more)


@pytest.mark.parametrize("size", [0xFF, 0x100, 0x10000])
def test_the_content_of_strings_is_skipped(size: int) -> None:
    body = msgspec.msgpack.encode(["\u0391" * size, {"a": [1.5]}, list(range(size)), ["\u0391" * size]])
    assert [has_more_containers(body, limit) for limit in (4, 5)] == [True, False]


@given(st.binary(max_size=60))
def test_random_bytes_are_counted_or_refused(body: bytes) -> None:
    with suppress(ServiceError):
        assert has_more_containers(body, 0) in (True, False)
