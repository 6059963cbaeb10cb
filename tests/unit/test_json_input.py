"""What `parse_json` and `parse_messagepack` accept, and the text that is stored."""

import json
import math
import struct
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leasehold.errors import ServiceError
from leasehold.limits import MAX_INTEGER, MAX_NESTING, MIN_INTEGER
from leasehold.model import Json
from leasehold.values import (
    decode,
    encode,
    parse_json,
    parse_json_value,
    parse_messagepack,
    parse_messagepack_value,
    to_messagepack,
)

INTEGERS = st.integers(MIN_INTEGER, MAX_INTEGER)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXTS,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(TEXTS, parts, max_size=4),
    max_leaves=12,
)


def refusal_of_json(body: bytes) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        parse_json(body)
    return caught.value


def refusal_of_messagepack(body: bytes) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        parse_messagepack(body)
    return caught.value


class Refused(str):
    """A refusal, reduced to its code."""

    __slots__ = ()


def result_of(parse: Callable[[bytes], Json], body: bytes) -> Json:
    try:
        return parse(body)
    except ServiceError as refusal:
        return Refused(refusal.code)


# Accepted JSON ------------------------------------------------------------------------------------------------

KEPT = {
    "null": (b"null", b"null"),
    "true": (b"true", b"true"),
    "false": (b"false", b"false"),
    "an empty string": (b'""', b'""'),
    "an empty list": (b"[]", b"[]"),
    "an empty object": (b"{}", b"{}"),
    "an empty member name": (b'{"":1}', b'{"":1}'),
    "white space around": (b' \t\r\n{ "a" : [ 1 , 2 ] } \n', b'{"a":[1,2]}'),
    "zero": (b"0", b"0"),
    "the smallest integer": (b"-9223372036854775808", b"-9223372036854775808"),
    "the largest integer": (b"18446744073709551615", b"18446744073709551615"),
    "an integer that no double holds": (b"9007199254740993", b"9007199254740993"),
    "a fraction": (b"0.1", b"0.1"),
    "a fraction of zero": (b"1.0", b"1.0"),
    "the largest double": (b"1.7976931348623157e308", b"1.7976931348623157e308"),
    "the smallest double": (b"5e-324", b"5e-324"),
    "many digits after the point": (b"0.3333333333333333333333333", b"0.3333333333333333"),
    "an exponent in capitals": (b"1E+2", b"100.0"),
    "an exponent of minus zero": (b"[1e-0]", b"[1.0]"),
    "an exponent beginning with zero": (b"[2e-01]", b"[0.2]"),
    "letters as they are": ('"Grüße, 世界 🎉"'.encode(), '"Grüße, 世界 🎉"'.encode()),
    "letters as escapes": (b'"\\u00e9\\ud83c\\udf89\\/"', '"é🎉/"'.encode()),
    "control characters as escapes": (b'"\\u0001\\n\\t\\u001f"', b'"\\u0001\\n\\t\\u001f"'),
    "a quoted backslash before u0000": (b'"\\\\u0000"', b'"\\\\u0000"'),
    "a string of many digits": (b'"123456789012345678901234567890"', b'"123456789012345678901234567890"'),
    "non-characters": ('"\ufffe\uffff"'.encode(), '"\ufffe\uffff"'.encode()),
}


@pytest.mark.parametrize(("body", "stored"), KEPT.values(), ids=KEPT.keys())
def test_valid_json_is_stored_in_compact_form(body: bytes, stored: bytes) -> None:
    assert parse_json(body) == stored


def test_of_duplicate_members_the_last_wins() -> None:
    assert parse_json(b'{"a":1,"b":2,"a":3}') == b'{"a":3,"b":2}'


MINUS_ZERO = {
    "alone": (b"-0", b"-0.0"),
    "with white space": (b" -0\n", b"-0.0"),
    "with a fraction": (b"-0.0", b"-0.0"),
    "with an exponent": (b"-0e5", b"-0.0"),
    "in a list": (b"[-0,-0 ,0]", b"[-0.0,-0.0,0]"),
    "in an object": (b'{"-0":-0}', b'{"-0":-0.0}'),
    "beside a string that holds one": (b'["-0",-0,"\\"-0,"]', b'["-0",-0.0,"\\"-0,"]'),
    "beside a string that ends in a backslash": (b'["-0\\\\",-0]', b'["-0\\\\",-0.0]'),
    "only in a string": (b'"from 3 to -0"', b'"from 3 to -0"'),
    "in a date": (b'"2026-01-31"', b'"2026-01-31"'),
    "beside an exponent": (b"[1e-0,-0]", b"[1.0,-0.0]"),
}


@pytest.mark.parametrize(("body", "stored"), MINUS_ZERO.values(), ids=MINUS_ZERO.keys())
def test_minus_zero_keeps_its_sign(body: bytes, stored: bytes) -> None:
    assert parse_json(body) == stored


def test_the_deepest_allowed_nesting_is_accepted() -> None:
    body = b"[" * MAX_NESTING + b"1" + b"]" * MAX_NESTING
    assert parse_json(body) == body


def test_many_brackets_side_by_side_do_not_count_as_nesting() -> None:
    body = b"[" + b",".join([b'{"a":[]}'] * MAX_NESTING) + b"]"
    assert parse_json(body) == body


def test_brackets_in_a_string_do_not_count_as_nesting() -> None:
    body = b'"' + b"[{" * MAX_NESTING + b'"'
    assert parse_json(body) == body


# Refused JSON -------------------------------------------------------------------------------------------------

REFUSED = {
    "an empty body": b"",
    "only white space": b" \n",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a byte that is not UTF-8": b'"\xff"',
    "a member name that is not UTF-8": b'{"\xff":1}',
    "an overlong encoding": b'"\xc0\x80"',
    "a code point past U+10FFFF": b'"\xf4\x90\x80\x80"',
    "a surrogate as bytes": b'"\xed\xa0\x80"',
    "a cut UTF-8 sequence": b'"\xe4\xb8"',
    "a lone high surrogate": b'"\\ud800"',
    "a lone low surrogate": b'"\\udc00"',
    "a high surrogate before a letter": b'"\\ud800\\u0041"',
    "surrogates the wrong way round": b'"\\udc00\\ud800"',
    "a lone surrogate in a member name": b'{"\\ud800 ":1}',
    "U+0000 in a string": b'"a\\u0000b"',
    "U+0000 in a member name": b'{"\\u0000":1}',
    "U+0000 deep inside": b'[{"a":["\\u0000"]}]',
    "U+0000 after a quoted backslash": b'"\\\\\\u0000"',
    "a NUL byte": b'"\x00"',
    "a bare newline in a string": b'"a\nb"',
    "a bare tab in a string": b'"a\tb"',
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "a number that no double holds": b"1e400",
    "a negative number that no double holds": b"-1e400",
    "a number just past the largest double": b"1.7976931348623159e308",
    "a fraction before which no double reaches": b"1" * 400 + b".0",
    "an integer one too large": b"18446744073709551616",
    "an integer one too small": b"-9223372036854775809",
    "a large integer deep inside": b'{"a":[[99999999999999999999]]}',
    "an integer of thousands of digits": b"1" * 5000,
    "a leading zero": b"01",
    "a negative leading zero": b"-01",
    "a leading plus": b"+1",
    "a point without digits": b"1.",
    "a point at the beginning": b".5",
    "an exponent without digits": b"1e",
    "a lone minus": b"-",
    "a hexadecimal number": b"0x10",
    "trailing data": b"1 2",
    "a trailing brace": b"{}}",
    "a trailing NUL": b"1\x00",
    "a trailing comma in a list": b"[1,]",
    "a trailing comma in an object": b'{"a":1,}',
    "a missing comma": b"[1 2]",
    "a missing colon": b'{"a" 1}',
    "a missing value": b'{"a":}',
    "a name without quotes": b"{a:1}",
    "a name that is a number": b"{1:2}",
    "single quotes": b"'a'",
    "a comment": b"1 // one",
    "an unknown escape": b'"\\x41"',
    "an escape with too few digits": b'"\\u12"',
    "an open string": b'"abc',
    "an open list": b"[1",
    "an open object": b'{"a":1',
    "a word cut short": b"tru",
    "a word in capitals": b"True",
    "one level too many": b"[" * (MAX_NESTING + 1) + b"]" * (MAX_NESTING + 1),
    "one object too many": b'{"a":' * (MAX_NESTING + 1) + b"1" + b"}" * (MAX_NESTING + 1),
    "nesting that exhausts the decoder": b"[" * 100_000 + b"]" * 100_000,
    "nesting that never closes": b"[" * 100_000,
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_invalid_json_is_refused(body: bytes) -> None:
    assert refusal_of_json(body).code == "invalid_json"


MESSAGES = {
    "empty": (b"", "the body is empty"),
    "byte order mark": (b"\xef\xbb\xbf1", "the body begins with a byte order mark"),
    "a bare word": (b"alice", "a JSON string needs quotes; in a shell, -d '\"alice\"'"),
    "a bare address": (b"ann@example.com", "a JSON string needs quotes; in a shell, -d '\"alice\"'"),
    "two bare words": (b"alice smith", "the JSON is invalid at byte 0"),
    "a word of another language": (b"True", "the JSON is invalid at byte 0"),
    "not a number": (b"NaN", "the JSON is invalid at byte 0"),
    "position": (b'{"a":x}', "the JSON is invalid at byte 5"),
    "truncated": (b'{"a":', "the JSON ends too early"),
    "UTF-8": (b'"\xff"', "a string is not UTF-8"),
    "U+0000": (b'"\\u0000"', "a string contains U+0000"),
    "a lone high surrogate": (b'["\\ud83d","x"]', "a string contains a lone surrogate"),
    "a lone high surrogate at the end": (b'"\\ud83d"', "a string contains a lone surrogate"),
    "a lone high surrogate shortly before the end": (b'{"a":"\\uDBFF"}', "a string contains a lone surrogate"),
    "a lone high surrogate before a letter": (b'"\\ud83cA"', "a string contains a lone surrogate"),
    "a lone low surrogate": (b'"\\udc00"', "a string contains a lone surrogate"),
    "truncated within a pair": (b'"\\ud83d\\ude', "the JSON ends too early"),
    "truncated after what is no surrogate": (b'["\\\\ud83d"', "the JSON ends too early"),
    "double": (b"1e400", "a number is out of range"),
    "integer": (b"1" * 30, "an integer is outside -9223372036854775808 to 18446744073709551615"),
    "nesting": (b"[" * 129 + b"]" * 129, "nested deeper than 128 levels"),
}


@pytest.mark.parametrize(("body", "message"), MESSAGES.values(), ids=MESSAGES.keys())
def test_a_refusal_says_what_is_wrong(body: bytes, message: str) -> None:
    assert refusal_of_json(body).message == message


# JSON in general ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(value=VALUES, ascii_only=st.booleans())
def test_a_stored_value_equals_the_written_one(value: Json, *, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=1).encode()
    assert repr(decode(parse_json(body))) == repr(value)


@settings(deadline=None, max_examples=200)
@given(VALUES)
def test_a_stored_text_is_parsed_to_itself(value: Json) -> None:
    stored = encode(value)
    assert parse_json(stored) == stored


NOTABLE = st.sampled_from(
    [
        *("-0", "-0.5", "1e-0", '"-0"', "0", "[]", "nul"),
        *(r'"\u0000"', r'"\\u0000"', "18446744073709551616", "-9223372036854775809"),
    ]
)
"""Texts that need a check, or look as if they did."""
NOTABLE_LISTS = st.lists(NOTABLE, max_size=5).map(lambda texts: f"[{','.join(texts)}]".encode())


@settings(deadline=None, max_examples=500)
@given(NOTABLE_LISTS | VALUES.map(encode))
def test_a_short_body_has_the_same_result_as_one_that_white_space_makes_long(body: bytes) -> None:
    """They are checked in different ways."""

    def stored(body: bytes) -> str:
        return parse_json(body).decode()

    assert result_of(stored, body) == result_of(stored, body + b" " * (MAX_NESTING + 1))


@settings(deadline=None, max_examples=200)
@given(st.text(st.sampled_from('[]{}",:\\u0dD8-1e.tn ')).map(str.encode) | st.binary(max_size=30))
def test_random_bytes_are_accepted_or_refused_as_invalid_json(body: bytes) -> None:
    result = result_of(parse_json_value, body)
    assert result == ("invalid_json" if isinstance(result, Refused) else json.loads(body))


# MessagePack --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(VALUES)
def test_messagepack_gives_the_same_value_as_json(value: Json) -> None:
    assert parse_messagepack(msgspec.msgpack.encode(value)) == encode(value)


@settings(deadline=None, max_examples=200)
@given(VALUES)
def test_messagepack_that_was_written_is_read_back_unchanged(value: Json) -> None:
    assert repr(parse_messagepack_value(to_messagepack(encode(value)))) == repr(value)


def test_minus_zero_in_messagepack_keeps_its_sign() -> None:
    assert parse_messagepack(b"\xcb" + struct.pack(">d", -0.0)) == b"-0.0"


def test_a_single_precision_float_in_messagepack_is_stored_exactly() -> None:
    (single,) = struct.unpack(">f", struct.pack(">f", 0.1))
    assert parse_messagepack_value(b"\xca" + struct.pack(">f", 0.1)) == single


REFUSED_MESSAGEPACK = {
    "an empty body": b"",
    "a code that is never used": b"\xc1",
    "trailing data": b"\x01\x02",
    "a cut list": b"\x92\x01",
    "a list that claims four billion elements": b"\xdd\xff\xff\xff\xff",
    "a map that claims four billion members": b"\xdf\xff\xff\xff\xff",
    "a string that claims four gigabytes": b"\xdb\xff\xff\xff\xff",
    "binary": b"\xc4\x01a",
    "binary deep inside": b"\x81\xa1a\x91\xc4\x01a",
    "an extension": b"\xd4\x05a",
    "a timestamp": b"\xd6\xff\x00\x00\x00\x00",
    "a timestamp out of range": b"\xc7\x0c\xff" + b"\xff" * 12,
    "a name that is a number": b"\x81\x01\x02",
    "a name that is nil": b"\x81\xc0\x02",
    "a name that is binary": b"\x81\xc4\x01a\x02",
    "a name that is a list": b"\x81\x90\x02",
    "a name that is a map": b"\x81\x80\x02",
    "a name that is a number, deep inside": b"\x91\x91\x81\x01\x02",
    "NaN": b"\xcb" + struct.pack(">d", math.nan),
    "infinity": b"\xcb" + struct.pack(">d", math.inf),
    "minus infinity in single precision": b"\xca" + struct.pack(">f", -math.inf),
    "U+0000 in a string": b"\xa1\x00",
    "U+0000 in a member name": b"\x81\xa1\x00\x01",
    "bad UTF-8": b"\xa1\xff",
    "a surrogate": b"\xa3\xed\xa0\x80",
    "one level too many": b"\x91" * (MAX_NESTING + 1) + b"\x01",
    "nesting that exhausts the decoder": b"\x91" * 100_000 + b"\x01",
    "lists in lists that all claim to be large": b"\xdd\x00\xff\xff\xff" * 100_000,
}


@pytest.mark.parametrize("body", REFUSED_MESSAGEPACK.values(), ids=REFUSED_MESSAGEPACK.keys())
def test_messagepack_that_json_cannot_represent_is_refused(body: bytes) -> None:
    assert refusal_of_messagepack(body).code == "invalid_json"


def test_the_deepest_allowed_nesting_in_messagepack_is_accepted() -> None:
    body = b"\x91" * MAX_NESTING + b"\x01"
    assert parse_messagepack(body) == b"[" * MAX_NESTING + b"1" + b"]" * MAX_NESTING


def test_a_refusal_of_messagepack_names_the_format() -> None:
    assert refusal_of_messagepack(b"\x01\x02").message == "the MessagePack is invalid at byte 1"


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=40))
def test_random_bytes_are_accepted_as_messagepack_or_refused_as_invalid_json(body: bytes) -> None:
    result = result_of(parse_messagepack_value, body)
    assert result == ("invalid_json" if isinstance(result, Refused) else parse_json_value(encode(result)))


@pytest.mark.parametrize("size", [10, 200])
def test_a_compact_text_is_stored_as_the_object_that_was_received(size: int) -> None:
    body = b'{"a":"%b"}' % (b"x" * size)
    assert parse_json(body) is body
    assert parse_json(b" " + body) == body
