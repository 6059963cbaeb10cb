"""Values in bodies: invalid ones are refused, and valid ones are read back as they were written."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from databases import STORES
from running import Server, refusal, running

MIB = 1024 * 1024

REFUSED = {
    "empty body": b"",
    "only white space": b" \r\n\t ",
    "byte order mark": b"\xef\xbb\xbf1",
    "UTF-16": "1".encode("utf-16"),
    "bad UTF-8 in a string": b'"\xff"',
    "UTF-8 cut off": b'"\xc3"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "surrogate as UTF-8": b'"\xed\xa0\x80"',
    "lone high surrogate": rb'"\ud800"',
    "lone low surrogate": rb'"\udc00"',
    "surrogates in the wrong order": rb'"\udc00\ud800"',
    "lone surrogate in a member name": rb'{"\ud800": 1}',
    "U+0000 escaped": rb'"a\u0000b"',
    "U+0000 in a member name": rb'{"a\u0000": 1}',
    "U+0000 as a byte": b'"a\0b"',
    "NaN": b"NaN",
    "nan in a list": b"[nan]",
    "infinity": b"Infinity",
    "negative infinity": b'{"a": -Infinity}',
    "number over the largest double": b"1e309",
    "negative number over the largest double": b"[-1e400]",
    "integer of more than 64 bits": b"18446744073709551616",
    "negative integer of more than 64 bits": b"-9223372036854775809",
    "integer of 100 digits": b"1" * 100,
    "trailing data": b"1 2",
    "trailing bracket": b"[1]]",
    "trailing comma": b"[1,]",
    "trailing comma in an object": b'{"a": 1,}',
    "two documents": b"{}{}",
    "unclosed object": b'{"a": 1',
    "unclosed string": b'"abc',
    "member without a value": b'{"a"}',
    "member name that is no string": b"{1: 2}",
    "single quotes": b"'a'",
    "bare word": b"alice",
    "capital literal": b"True",
    "comment": b"1 // one",
    "leading zero": b"01",
    "leading plus": b"+1",
    "point without digits": b"1.",
    "point first": b".5",
    "exponent without digits": b"1e",
    "hexadecimal": b"0x10",
    "control character in a string": b'"a\nb"',
    "unknown escape": rb'"\x41"',
    "escape cut off": rb'"\u00e"',
    "nesting of 129 lists": b"[" * 129 + b"]" * 129,
    "nesting of 129 objects": b'{"a":' * 129 + b"1" + b"}" * 129,
    "nesting of 100,000 lists": b"[" * 100_000,
}

KEPT = {
    "null": "null",
    "true": "true",
    "false": "false",
    "zero": "0",
    "negative zero": "-0",
    "negative zero as a fraction": "-0.0",
    "negative zero inside": '[0, -0, {"a": -0}, -0.0, 0.0]',
    "largest signed integer": "9223372036854775807",
    "largest integer": "18446744073709551615",
    "smallest integer": "-9223372036854775808",
    "integer next to what a double holds": "9007199254740993",
    "integers around the doubles": "[9007199254740991, 9007199254740992, 9007199254740993, -9007199254740993]",
    "large double": "1e300",
    "largest double": "1.7976931348623157e308",
    "smallest double": "5e-324",
    "fraction": "0.1",
    "double of 17 digits": "0.30000000000000004",
    "double that is whole": "1.0",
    "too small for a double is zero": "1e-400",
    "empty string": '""',
    "emoji": '"🦊👩‍👩‍👧‍👦"',
    "emoji escaped": r'"\ud83e\udd8a"',
    "escapes": r'"\"\\\/\b\f\n\r\t\u001f"',
    "line separators": '"\u2028\u2029"',
    "last character": '"\U0010ffff\uffff"',
    "combining letters are kept apart": '"a\u0308 \u00e4"',
    "empty list": "[]",
    "empty object": "{}",
    "empty member name": '{"": {"": []}}',
    "null inside": '{"a": null, "b": [null]}',
    "members": '{"b": 1, "a": 2, "10": 3, "9": 4}',
    "white space around": ' \r\n\t{ "a" : [ 1 , 2 ] } \n',
    "member names with pointer signs": '{"a/b": 1, "m~n": 2, "~1": 3}',
    "strings that look like numbers": '["1e309", "-0", "NaN", "18446744073709551616"]',
    "nesting of 128 lists": "[" * 128 + "]" * 128,
    "nesting of 128 objects": '{"a":' * 128 + "1" + "}" * 128,
}


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


def exactly(value: Any) -> str:
    """A text that is equal only for equal values of equal kinds: 1 is not 1.0, 0.0 not -0.0. Members have no order."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_an_invalid_value_is_refused_and_changes_nothing(server: Server, key: str, body: bytes) -> None:
    before = server.put(key, '"untouched"').json()
    refused = server.request("POST", f"/kv/{key}", content=body)
    assert (refusal(refused), server.get(key).json()) == ((400, "invalid_json"), before)


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_a_value_is_read_back_as_it_was_written(server: Server, key: str, text: str) -> None:
    server.put(key, text)
    expected = float(text) if text == "-0" else json.loads(text.replace("-0,", "-0.0,").replace("-0}", "-0.0}"))
    assert exactly(server.value(key)) == exactly(expected)


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_the_answer_to_a_write_has_the_written_value(server: Server, key: str, text: str) -> None:
    written = server.put(key, text).json()
    assert exactly(written) == exactly(server.get(key).json())


@pytest.mark.parametrize("store", ["memory", "file"])
def test_engines_that_store_text_keep_the_order_of_members(tmp_path: Path, store: str) -> None:
    """More than JSON promises, and than PostgreSQL's JSONB keeps."""
    with running(STORES[store](tmp_path)) as own:
        own.put("a", '{"b": 1, "a": 2, "10": 3, "9": 4}')
        assert list(own.value("a")) == ["b", "a", "10", "9"]


def test_the_last_of_duplicate_members_is_stored(server: Server, key: str) -> None:
    server.put(key, '{"a": 1, "b": {"c": 1, "c": 2}, "a": [3]}')
    assert server.value(key) == {"a": [3], "b": {"c": 2}}


def test_a_body_of_exactly_one_mebibyte_is_accepted(server: Server, key: str) -> None:
    text = '"' + "x" * (MIB - 2) + '"'
    assert (server.put(key, text).status_code, len(server.value(key))) == (201, MIB - 2)


def test_a_body_of_one_byte_more_than_one_mebibyte_is_too_large(server: Server, key: str) -> None:
    response = server.put(key, '"' + "x" * (MIB - 1) + '"')
    assert (refusal(response), response.json()["limit"]) == ((413, "too_large"), MIB)


def test_a_body_that_is_too_large_only_by_white_space_is_too_large(server: Server, key: str) -> None:
    assert refusal(server.put(key, "1" + " " * MIB)) == (413, "too_large")


def test_a_value_may_grow_by_parts_to_the_limit_and_no_further(server: Server, key: str) -> None:
    server.put(key, '{"a": "%s"}' % ("x" * (MIB // 2)))
    fits = server.put(key, '"%s"' % ("y" * (MIB // 2 - 20)), params={"path": "/b"})
    beyond = server.put(key, '"%s"' % ("z" * 100), params={"path": "/c"})
    assert (fits.status_code, refusal(beyond)) == (200, (413, "too_large"))


def test_a_value_may_be_nested_to_the_limit_by_parts_and_no_further(server: Server, key: str) -> None:
    server.put(key, "[" * 127 + '{"a": 1}' + "]" * 127)
    path = "/0" * 127
    fits = server.put(key, "2", params={"path": f"{path}/b"})
    beyond = server.put(key, "[]", params={"path": f"{path}/b"})
    assert (fits.status_code, refusal(beyond)) == (200, (400, "invalid_json"))


# MessagePack carries the same values --------------------------------------------------------------------------

MESSAGEPACK = {"Content-Type": "application/vnd.msgpack"}
NO_JSON = {
    "empty body": b"",
    "trailing data": b"\x01\x02",
    "cut off": b"\x92\x01",
    "never used byte": b"\xc1",
    "NaN": b"\xcb\x7f\xf8\0\0\0\0\0\0",
    "infinity": b"\xcb\x7f\xf0\0\0\0\0\0\0",
    "binary": b"\xc4\x01a",
    "extension": b"\xd4\x05a",
    "timestamp": b"\xd6\xff\x00\x00\x00\x00",
    "name that is a number": b"\x81\x01\x02",
    "bad UTF-8": b"\xa1\xff",
    "U+0000": b"\xa1\0",
    "nesting of 129": b"\x91" * 128 + b"\x90",
    "nesting of 100,000": b"\x91" * 100_000,
}


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_messagepack_that_is_not_a_json_value_is_refused_and_changes_nothing(
    server: Server, key: str, body: bytes
) -> None:
    before = server.put(key, '"untouched"').json()
    refused = server.request("POST", f"/kv/{key}", content=body, headers=MESSAGEPACK)
    assert (refusal(refused), server.get(key).json()) == ((400, "invalid_json"), before)


@pytest.mark.parametrize(
    "value",
    [None, True, 0, 2**64 - 1, -(2**63), 1.5, -0.0, 1e300, "", "🦊", [], {}, [[1], {"a": [None]}], {"": {"b": 1.0}}],
    ids=repr,
)
def test_a_value_sent_as_messagepack_is_read_back_the_same(server: Server, key: str, value: Any) -> None:
    server.request("POST", f"/kv/{key}", content=msgspec.msgpack.encode(value), headers=MESSAGEPACK)
    assert exactly(server.value(key)) == exactly(value)
