"""A long JSON text is checked and decoded in pieces: the result is the same as that of the whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leasehold.errors import ServiceError
from leasehold.limits import MIB
from leasehold.model import Json
from leasehold.values import check_json_text, check_steps, decode, decode_steps, encode, to_messagepack
from leasehold.values.decoding import to_messagepack_steps
from leasehold.values.json_pieces import PIECE_BYTES, pieces, with_float_zeros_steps
from leasehold.values.json_text import with_float_zeros
from leasehold.values.steps import finished
from leasehold.values.text import refusal_of

TEXTS = st.sampled_from(["", "a", "[", '{"', "\\", '\\"', ",", "]}", "é", "😀", "\n", "-0"])
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda parts: st.lists(parts, max_size=5) | st.dictionaries(TEXTS, parts, max_size=5),
    max_leaves=30,
)
GOOD_TEXTS = VALUES.map(msgspec.json.encode)
SPACED_TEXTS = GOOD_TEXTS.map(lambda text: msgspec.json.format(text, indent=2))
SOUP = st.lists(
    st.sampled_from(
        [b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\\\\", b'\\"', b"1", b'"a":', b" ", b"\\ud800"]
    ),
    max_size=40,
).map(b"".join)


@st.composite
def broken_texts(draw: st.DrawFn) -> bytes:
    """A text with one byte inserted, replaced or removed."""
    text = draw(GOOD_TEXTS | SPACED_TEXTS)
    place = draw(st.integers(0, len(text)))
    inserted = draw(st.sampled_from([b"", b"[", b"]", b"{", b"}", b'"', b",", b":", b"\\", b"1", b" ", b"\0"]))
    return text[:place] + inserted + text[place + draw(st.integers(0, 1)) :]


@contextmanager
def in_pieces_of(size: int) -> Iterator[None]:
    with (
        patch("leasehold.values.json_pieces.PIECE_BYTES", size),
        patch("leasehold.values.decoding.PIECE_BYTES", size),
        patch("leasehold.values.json_pieces._MANY_BRACKETS", size // 3),
    ):
        yield


def fault_of_whole(text: bytes) -> str | None:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
        text.decode()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"invalid_json: {refusal_of(error, text, 'text').message}"
    return None


def fault_in_pieces(text: bytes) -> str | None:
    try:
        check_json_text(text, max_brackets=MIB, max_commas=MIB)
    except ServiceError as refusal:
        return f"{refusal.code}: {refusal.message}"
    return None


@settings(deadline=None, max_examples=600)
@given(GOOD_TEXTS | SPACED_TEXTS | broken_texts() | SOUP, st.integers(8, 40))
@example(b"[[,1,2,3,4,5,6]]", 8)
@example(b'{"a":1,"bbbbbbbb",1:2}', 8)
@example(b'["aaaaaaaaaaaaa,bbbbbbbbbbbbbbb,', 8)
@example(b"[1,2,3,4]],[5,6,7,8,9,10]", 8)
@example(b"[1,2,3,4}, 5,6,7,8,9,10]", 8)
@example(b"1,2,3,4,5,6,7,8,9", 8)
@example(b"[1,2,3,4,]", 9)
def test_a_text_is_json_if_its_pieces_are_and_the_message_is_the_same(text: bytes, size: int) -> None:
    with in_pieces_of(size):
        assert fault_in_pieces(text) == fault_of_whole(text)


def decoded(text: bytes) -> bytes | str:
    """The value as text, with the order of its members, or the error."""
    try:
        return encode(finished(decode_steps(text)))
    except ServiceError as error:
        return error.message


@settings(deadline=None, max_examples=600)
@given(GOOD_TEXTS | SPACED_TEXTS | broken_texts() | SOUP, st.integers(8, 40))
@example(b'{"a":[1],"b":[2],"a":[3,4,5,6,7,8]}', 8)
@example(b'{"a":{"c":1},"b":{"d":2},"a":{"e":3,"f":4,"g":5},"h":6}', 8)
@example(b'{"\\u0000":[1,2,3,4],"\\u0000\\u0000":[5,6,7,8,9,10]}', 8)
@example(b'[[1,"aaaaaaaaaaaaaaaaaaaaaaaa"],[2,{"b":[3,4,5,{"c":6},7]},8],9]', 8)
def test_a_value_is_the_same_if_it_is_decoded_in_pieces(text: bytes, size: int) -> None:
    whole = decoded(text)
    with in_pieces_of(size):
        assert decoded(text) == whole


@settings(deadline=None)
@given(GOOD_TEXTS | SPACED_TEXTS, st.integers(8, 40))
@example(b'["-0",-0,"\\"-0",{"-0":-0,"a":-0.5,"b":1e-05},-0]', 8)
def test_the_signs_of_zeros_are_kept_if_the_text_is_in_pieces(text: bytes, size: int) -> None:
    with in_pieces_of(size):
        assert finished(with_float_zeros_steps(text)) == with_float_zeros(text)


@settings(deadline=None)
@given(GOOD_TEXTS, st.integers(8, 40))
def test_the_messagepack_is_the_same_if_the_value_is_decoded_in_pieces(text: bytes, size: int) -> None:
    with in_pieces_of(size):
        assert finished(to_messagepack_steps(text)) == to_messagepack(text)


LARGE = {
    "numbers": b"[" + b"1," * (MIB // 2) + b"1]",
    "members": b"{" + b",".join(b'"%x":1' % number for number in range(109_000)) + b"}",
    "nested members": b'{"a":[{"b":{' + b",".join(b'"%x":1' % number for number in range(109_000)) + b"}}]}",
    "lists": b"[" + b"[]," * (MIB // 3) + b"1]",
    "nested lists": b"[" + b",".join([b"[" * 126 + b"]" * 126] * 4_000) + b"]",
    "strings": b"[" + b'"\\"[,{",' * (MIB // 8) + b"1]",
}


@pytest.mark.parametrize("kind", LARGE)
def test_no_piece_is_long(kind: str) -> None:
    text = LARGE[kind]
    found = [piece for piece in pieces(text) if piece is not None]
    assert found[0].begin == 0
    assert [piece.end for piece in found[:-1]] == [piece.begin for piece in found[1:]]
    assert found[-1].end == len(text)
    assert max(len(piece.completed(text)) for piece in found) < PIECE_BYTES + 4_000
    assert max(text.count(b"[", piece.begin, piece.end) for piece in found[:-1]) <= PIECE_BYTES // 4


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_value_is_decoded_in_a_step_for_each_piece(kind: str) -> None:
    text = LARGE[kind]
    longest = 0

    def counting(piece: bytes) -> object:
        nonlocal longest
        longest = max(longest, len(piece))
        return decode(piece)

    with patch("leasehold.values.decoding.decode", counting):
        assert sum(1 for _ in decode_steps(text)) >= len(text) // PIECE_BYTES
    assert 0 < longest < PIECE_BYTES + 4_000


def test_a_long_string_is_looked_for_its_end_in_steps() -> None:
    text = b'["%b",1]' % (b"\\n" * MIB)
    assert [piece is None for piece in pieces(text)][:-1] == [True] * (len(text) // PIECE_BYTES)
    steps = check_steps(text, max_brackets=MIB, max_commas=MIB)
    assert sum(1 for _ in steps) > len(text) // PIECE_BYTES
