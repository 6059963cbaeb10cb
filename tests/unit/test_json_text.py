"""Facts computed from the bytes of a JSON text, compared with a walk over the decoded value."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.model import Json
from leasehold.values.json_text import containers, holds_nul, is_deeper, outside_strings, with_float_zeros

AWKWARD = st.text(st.sampled_from('"\\[]{}-0eE.,:u a\n\0'), max_size=8)
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.integers(-3, 3) | st.sampled_from([0.5, -0.0, 1e-05, -1e300]) | AWKWARD,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(AWKWARD, parts, max_size=4),
    max_leaves=15,
)


def walked_depth(value: Json) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(walked_depth, parts), default=0)


def walked_containers(value: Json) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + sum(map(walked_containers, parts))


def walked_strings(value: Json) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in walked_strings(part)]
    if isinstance(value, dict):
        return [*value, *(text for part in value.values() for text in walked_strings(part))]
    return []


@given(value=VALUES, ascii_only=st.booleans())
def test_depth_and_containers_of_a_text_are_those_of_its_value(value: Json, *, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    levels = walked_depth(value)
    assert containers(text) == walked_containers(value)
    assert not is_deeper(text, levels)
    assert is_deeper(text, levels - 1) == (levels > 0)


def test_the_depth_of_a_long_text_counts_from_its_beginning() -> None:
    wide = b"[" + b"[]," * 50_000 + b"[[]]]"
    assert is_deeper(wide, 2)
    assert not is_deeper(wide, 3)
    assert is_deeper(b"[" * 200_000, 199_999)
    assert not is_deeper(b"[" * 200_000, 200_000)


@given(VALUES)
def test_a_nul_is_found_exactly_where_a_string_or_name_contains_one(value: Json) -> None:
    assert holds_nul(json.dumps(value).encode()) == any("\0" in text for text in walked_strings(value))


@given(VALUES)
def test_outside_strings_removes_strings_and_quotes(value: Json) -> None:
    assert set(outside_strings(json.dumps(value).encode())) <= set(b"[]{},: nul-0123456789.e+")


@given(VALUES, st.sampled_from([", ", ",", " ,\n"]))
def test_only_texts_with_minus_zero_are_changed_and_all_keep_their_value(value: Json, separator: str) -> None:
    text = json.dumps(value, separators=(separator, ":")).encode()
    assert with_float_zeros(text) == text  # Python writes -0.0


@pytest.mark.parametrize(
    ("text", "signed"),
    [
        (b"-0", b"-0.0"),
        (b"[-0,-0 ,\t-0]", b"[-0.0,-0.0 ,\t-0.0]"),
        (b'{"-0":-0}', b'{"-0":-0.0}'),
        (b'["\\"-0",-0,"-0\\\\",-0]', b'["\\"-0",-0.0,"-0\\\\",-0.0]'),
        (b"[-0.5,-0e1,-0E1,1e-0,1E-05,-0.0,-0e-0]", b"[-0.5,-0e1,-0E1,1e-0,1E-05,-0.0,-0e-0]"),
        (b'["2026-01-01",-01]', b'["2026-01-01",-0.01]'),  # not JSON; only the first part is used
    ],
)
def test_minus_zero_is_written_as_a_float_only_outside_of_strings(text: bytes, signed: bytes) -> None:
    assert with_float_zeros(text) == signed
