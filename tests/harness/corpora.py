"""Bad input for this service: JSON, HTTP, keys and paths, tokens, and requests for locks.

Each case is a request as bytes and its expected answer: a status, or a status and the code of an error. Some cases look
bad and are good, so that a server that refuses everything fails. Tests of single rules are elsewhere; these cases go to
every engine, and mutations start from them.
"""

import base64
import hashlib
import hmac
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from running import message

UUID: Final = "123e4567-e89b-12d3-a456-4266141740ff"
MALFORMED: Final = Path(__file__).parent.parent / "http" / "malformed.toml"


@dataclass(frozen=True)
class Case:
    """`expected`: for example `200` or `400 invalid_json`. Empty: anything that the contract allows."""

    name: str
    sent: bytes
    expected: str


# JSON -----------------------------------------------------------------------------------------------------------

GOOD_JSON: Final[Mapping[str, bytes]] = {
    "white space of all kinds": b" \t\r\n[ 1 ,\t2 ]\r\n ",
    "the smallest integer": b"-9223372036854775808",
    "the largest integer": b"18446744073709551615",
    "an integer no double holds": b"9007199254740993",
    "minus zero": b"-0",
    "minus zero as a fraction": b"-0.0",
    "the largest double": b"1.7976931348623157e308",
    "the smallest double": b"5e-324",
    "less than the smallest double": b"1e-400",
    "an exponent in capitals": b"1E+2",
    "an exponent with zeros": b"1e0000000000000000001",
    "three hundred digits as a double": b"1e300",
    "many digits after the point": b"0." + b"3" * 1000,
    "an integer written as a double": b"1.0",
    "duplicate members": b'{"a":1,"a":2}',
    "duplicate members by an escape": b'{"a":1,"\\u0061":2}',
    "an empty member name": b'{"":{"":""}}',
    "members of objects as in Python": b'{"__class__":1,"__proto__":{"constructor":1}}',
    "letters as escapes": b'"\\u00e9\\ud83c\\udf89\\/\\b\\f"',
    "control characters as escapes": b'"\\u0001\\u001f\\u007f"',
    "a DEL as it is": b'"\x7f"',
    "line separators": '"\u2028\u2029"'.encode(),
    "non-characters": '"\ufffe\uffff\U0010ffff"'.encode(),
    "a byte order mark in a string": '"\ufeff"'.encode(),
    "letters that join": '"e\u0301\u0065\u0301\u200d"'.encode(),
    "text from right to left": '"\u202e\u05d0"'.encode(),
    "quoted backslashes before u0000": b'"\\\\u0000"',
    "brackets in a string": b'"' + b"[{" * 1000 + b'"',
    "128 levels": b"[" * 128 + b"]" * 128,
    "many members": b"{" + b",".join(b'"%d":%d' % (n, n) for n in range(5_000)) + b"}",
    "a long member name": b'{"' + b"n" * 100_000 + b'":1}',
}
BAD_JSON: Final[Mapping[str, bytes]] = {
    "nothing": b"",
    "white space": b" \r\n\t",
    "a byte order mark": b"\xef\xbb\xbf1",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without a mark": '"a"'.encode("utf-16-le"),
    "UTF-32": '"a"'.encode("utf-32-be"),
    "Latin-1": '"\xe9"'.encode("latin-1"),
    "an overlong slash": b'"\xc0\xaf"',
    "an overlong NUL": b'"\xc0\x80"',
    "an overlong letter of three bytes": b'"\xe0\x81\x81"',
    "a code point past the last": b'"\xf4\x90\x80\x80"',
    "a surrogate as bytes": b'"\xed\xa0\x80"',
    "a pair of surrogates as bytes": b'"\xed\xa0\xbd\xed\xb8\x80"',
    "a cut sequence": b'"\xe4\xb8"',
    "a lone continuation": b'"\x80"',
    "a lone high surrogate": b'"\\ud800"',
    "a lone low surrogate": b'"\\udfff"',
    "surrogates the wrong way round": b'"\\udc00\\ud800"',
    "a high surrogate before a letter": b'"\\ud83c\\u0041"',
    "a lone surrogate as a member name": b'{"\\ud800":1}',
    "U+0000": b'"\\u0000"',
    "U+0000 as a member name": b'{"a\\u0000":1}',
    "a NUL byte": b'"\0"',
    "a NUL byte at the end": b"1\0",
    "a bare line feed in a string": b'"a\nb"',
    "a bare escape character": b'"\x1b"',
    "an escape of a letter": b'"\\a"',
    "an escape in hexadecimal": b'"\\x41"',
    "an escape cut short": b'"\\u12"',
    "an escape of no digits": b'"\\uGGGG"',
    "a backslash at the end": b'"\\',
    "NaN": b"NaN",
    "minus NaN": b"-NaN",
    "Infinity": b"[Infinity]",
    "minus Infinity": b"-Infinity",
    "inf": b"inf",
    "a number no double holds": b"1e309",
    "a number of many digits no double holds": b"1" * 310 + b".0",
    "an exponent of many digits": b"1e" + b"9" * 1000,
    "an integer one too large": b"18446744073709551616",
    "an integer one too small": b"-9223372036854775809",
    "an integer of many digits": b"1" * 100_000,
    "a leading zero": b"01",
    "a leading zero after minus": b"-01",
    "a plus": b"+1",
    "two minuses": b"--1",
    "a point at the end": b"1.",
    "a point at the beginning": b".1",
    "two points": b"1.1.1",
    "an exponent without digits": b"1e+",
    "hexadecimal": b"0x1F",
    "digits of another script": "\uff11\uff12".encode(),
    "an underscore": b"1_000",
    "a suffix": b"1n",
    "trailing data": b"1 1",
    "a second document": b"{}{}",
    "a second line": b"1\n2",
    "a trailing comma": b"[1,]",
    "a leading comma": b"[,1]",
    "two commas": b"[1,,1]",
    "a trailing comma in an object": b'{"a":1,}',
    "a comma alone": b"[,]",
    "no comma": b"[1 1]",
    "no colon": b'{"a" 1}',
    "two colons": b'{"a"::1}',
    "no value": b'{"a":}',
    "no name": b"{:1}",
    "a name without quotes": b"{a:1}",
    "a number as a name": b"{1:1}",
    "single quotes": b"['a']",
    "a comment": b"/* */1",
    "a comment at the end": b"1 //",
    "a semicolon": b"1;",
    "the wrong bracket": b"[1}",
    "a bracket too many": b"[1]]",
    "an open list": b"[[1]",
    "an open object": b'{"a":{}',
    "an open string": b'["a',
    "a word in capitals": b"TRUE",
    "a word cut short": b"nul",
    "a word too long": b"nulll",
    "undefined": b"undefined",
    "white space of another kind": "\u00a01".encode(),
    "a vertical tab": b"\x0b1",
    "129 levels": b"[" * 129 + b"]" * 129,
    "129 objects": b'{"a":' * 129 + b"1" + b"}" * 129,
    "a hundred thousand levels": b"[" * 100_000,
    "a hundred thousand objects": b'{"":' * 100_000,
}


def json_cases() -> Iterator[Case]:
    for name, body in GOOD_JSON.items():
        yield Case(f"JSON: {name}", message("PUT", "/kv/m/json", body=body), "20")
        yield Case(f"JSON: {name}, read", message("GET", "/kv/m/json"), "200")
    yield Case("JSON: a value to keep", message("PUT", "/kv/m/json", body=b'"kept"'), "200")
    for name, body in BAD_JSON.items():
        refused = "400 invalid_json"
        yield Case(f"JSON: {name}", message("PUT", "/kv/m/json", body=body), refused)
        yield Case(f"JSON: {name}, a part", message("PUT", "/kv/m/json?path=/a", body=body), refused)
        yield Case(
            f"JSON: {name}, a patch",
            message("PATCH", "/kv/m/json", "Content-Type: application/merge-patch+json", body=body),
            refused,
        )
        yield Case(f"JSON: {name}, in /set", message("POST", "/set", body=b'{"value":' + body + b"}"), "")
        in_transaction = b'{"do":[{"op":"put","key":"m/json","value":' + body + b"}]}"
        yield Case(f"JSON: {name}, in /txn", message("POST", "/txn", body=in_transaction), "")
        if body:
            yield Case(f"JSON: {name}, for a lock", message("POST", "/locks/m/json", body=body), refused)
    yield Case("JSON: the kept value", message("GET", "/kv/m/json"), "200")


# HTTP -----------------------------------------------------------------------------------------------------------

PUT_CHUNKED: Final = message("PUT", "/kv/m/http", "Transfer-Encoding: chunked")
HTTP: Final[Mapping[str, tuple[bytes, str]]] = {
    "chunk extensions": (PUT_CHUNKED + b'1;a=b;c="d;e"\r\n1\r\n0;f\r\n\r\n', "20"),
    "a line feed in a chunk extension": (PUT_CHUNKED + b"1;a\n\r\n1\r\n0\r\n\r\n", "400"),
    "chunks of zeros": (PUT_CHUNKED + b"0000000001\r\n1\r\n000\r\n\r\n", "20"),
    "a chunk size of 64 bits": (PUT_CHUNKED + b"ffffffffffffffff\r\n1\r\n0\r\n\r\n", ""),
    "a chunk size one past 64 bits": (PUT_CHUNKED + b"10000000000000000\r\n1\r\n0\r\n\r\n", "400"),
    "a request inside of a chunk": (
        PUT_CHUNKED + b"2c\r\n" + b'"GET /kv/m/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"'.ljust(0x2C) + b"\r\n0\r\n\r\n",
        "400 invalid_json",
    ),
    "a Transfer-Encoding with a tab": (
        b"PUT /kv/m/http HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:\tchunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",
        "20",
    ),
    "a Transfer-Encoding with a comma": (
        b"PUT /kv/m/http HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: ,chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n",
        "400",
    ),
    "a Transfer-Encoding with an underscore": (
        b"PUT /kv/m/http HTTP/1.1\r\nHost: localhost\r\nTransfer_Encoding: chunked\r\nContent-Length: 1\r\n\r\n1",
        "20",
    ),
    "a Content-Length of zeros": (
        b"PUT /kv/m/http HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0000000000000000001\r\n\r\n1",
        "",
    ),
    "a Content-Length of 64 bits": (
        b"PUT /kv/m/http HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551615\r\n\r\n1",
        "413 too_large",
    ),
    "a Content-Length in other digits": (
        b"PUT /kv/m/http HTTP/1.1\r\nHost: localhost\r\nContent-Length: \xd9\xa1\r\n\r\n1",
        "400 invalid_request",
    ),
    "an upgrade to HTTP/2": (
        message("GET", "/health/live", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"),
        "200",
    ),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "400 invalid_request"),
    "a hello of TLS": (b"\x16\x03\x01\0\xa5\x01\0\0\xa1\x03\x03" + bytes(32), "400 invalid_request"),
    "an unknown expectation": (message("PUT", "/kv/m/http", "Expect: 200-ok", body=b"1"), ""),
    "an expectation without a body": (message("GET", "/kv/m/http", "Expect: 100-continue"), ""),
    "an absolute target": (message("GET", "http://localhost/health/live"), "200"),
    "an absolute target of another host": (message("GET", "http://evil.example/health/live"), "200"),
    "an absolute target of another scheme": (message("GET", "file:///health/live"), ""),
    "an absolute target without a path": (message("GET", "http://localhost"), "404 no_such_route"),
    "a target of a fragment": (message("GET", "/health/live#fragment"), "400 invalid_request"),
    "a target beyond ASCII": (b"GET /kv/m/\xc3\xa4 HTTP/1.1\r\nHost: localhost\r\n\r\n", ""),
    "a method beyond ASCII": (b"G\xcbT /kv/m/a HTTP/1.1\r\nHost: localhost\r\n\r\n", "400 invalid_request"),
    "a method of symbols": (b"!#$%& /kv/m/a HTTP/1.1\r\nHost: localhost\r\n\r\n", "501 not_implemented"),
    "a method that does not end": (b"G" * 10_000, "501 not_implemented"),
    "TRACE": (message("TRACE", "/kv/m/a"), "501 not_implemented"),
    "a method of WebDAV": (message("PROPFIND", "/kv/m/a"), "501 not_implemented"),
    "a folded header": (b"GET /kv/m/a HTTP/1.1\r\nHost: localhost\r\nX: a\r\n\tb\r\n\r\n", "400 invalid_request"),
    "a NUL in a header": (b"GET /kv/m/a HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n", "400 invalid_request"),
    "a header beyond ASCII": (b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: \xff\xc3\r\n\r\n", "200"),
    "a Host with a NUL": (b"GET /health/live HTTP/1.1\r\nHost: local\0host\r\n\r\n", "400 invalid_request"),
    "a Host with a user": (b"GET /health/live HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n", "400 invalid_request"),
    "a Host of brackets": (b"GET /health/live HTTP/1.1\r\nHost: [::1\r\n\r\n", "400 invalid_request"),
    "a Host with a port of words": (
        b"GET /health/live HTTP/1.1\r\nHost: localhost:http\r\n\r\n",
        "400 invalid_request",
    ),
    "a Host with a huge port": (b"GET /health/live HTTP/1.1\r\nHost: localhost:99999999999\r\n\r\n", ""),
    "an Accept of nothing": (message("GET", "/kv/m/http", "Accept: "), ""),
    "an Accept of commas": (message("GET", "/kv/m/http", "Accept: ,,,;;;===,"), ""),
    "an Accept with huge weights": (message("GET", "/kv/m/http", "Accept: */*;q=" + "9" * 1000), ""),
    "an Accept with weights that are none": (message("GET", "/kv/m/http", "Accept: */*;q=nan, */*;q=-1"), ""),
    "an Accept of a thousand": (message("GET", "/kv/m/http", "Accept: " + "a/b;q=0.1," * 1000 + "*/*"), ""),
    "a Content-Type of nothing": (message("PUT", "/kv/m/http", "Content-Type: ;", body=b"1"), ""),
    "an unknown charset": (
        message("PUT", "/kv/m/http", "Content-Type: application/json; charset=utf-7", body=b"1"),
        "415 unsupported_media_type",
    ),
    "a compressed body": (message("PUT", "/kv/m/http", "Content-Encoding: gzip", body=b"\x1f\x8b"), ""),
    "a range": (message("GET", "/kv/m/http", "Range: bytes=0-,0-,0-"), "200"),
    "tags that do not end": (message("GET", "/kv/m/http", 'If-None-Match: "' + "1" * 8000), "400 invalid_argument"),
    "a thousand tags": (message("GET", "/kv/m/http", "If-None-Match: " + ",".join(['"0"'] * 1000)), "200"),
    "a tag past 64 bits": (message("GET", "/kv/m/http", 'If-Match: "99999999999999999999"'), "412 precondition_failed"),
    "a tag of minus one": (message("GET", "/kv/m/http", 'If-Match: "-1"'), "412 precondition_failed"),
    "a request id with a line break": (message("GET", "/health/live", "X-Request-Id: a\x0bb"), ""),
    "a long request id": (message("GET", "/health/live", "X-Request-Id: " + "a" * 5000), "200"),
    "a malformed preference": (message("PUT", "/kv/m/http", "Prefer: return=;,=,;", body=b"1"), "200"),
    "a body of MessagePack that is JSON": (
        message("PUT", "/kv/m/http", "Content-Type: application/vnd.msgpack", body=b'{"a":1}'),
        "400 invalid_json",
    ),
    "a body of MessagePack that claims to be huge": (
        message("PUT", "/kv/m/http", "Content-Type: application/vnd.msgpack", body=b"\xdd\xff\xff\xff\xff"),
        "400 invalid_json",
    ),
}


def http_cases() -> Iterator[Case]:
    for section, cases in tomllib.loads(MALFORMED.read_text("utf-8")).items():
        for name, text in cases.items():
            yield Case(f"{section}: {name}", text.encode("latin-1"), "400 invalid_request")
    for name, (sent, expected) in HTTP.items():
        yield Case(f"HTTP: {name}", sent, expected)


# Keys and paths -------------------------------------------------------------------------------------------------

GOOD_KEYS: Final = (
    "m/" + "k" * 510,
    "m/%" + "C3%A4%" * 254 + "C3%A4",
    "m/%F0%9F%A6%8A",
    "m/a%2Fb",
    "m/%2e%2e%2e",
    "m/....",
    "m/.a",
    "m/a%20b",
    "m/a+b",
    "m/%25%32%46",
    "m/%EF%BF%BF",
    "m/%C2%A0",
    "m/%E2%80%AE",
    "m/a;b=c",
    "m/@:!$&'()*,",
)
BAD_KEYS: Final = (
    "",
    "m/" + "k" * 511,
    "m/%C3%A4" + "%C3%A4" * 255,
    "m//a",
    "m/",
    "/m",
    "m/.",
    "m/..",
    "../m",
    "m/./a",
    "m/../a",
    "m/%2e%2e/a",
    "m/%2e",
    "m/..%2Fa",
    "%2Fm",
    "m%2F%2Fa",
    "m/%00",
    "m/a%00b",
    "m/%0a",
    "m/%0d%0aX:%20y",
    "m/%7f",
    "m/%C2%85",
    "m/%",
    "m/%4",
    "m/%GG",
    "m/%u0061",
    "m/%C0%AF",
    "m/%C0%80",
    "m/%E0%80%AF",
    "m/%ED%A0%80",
    "m/%F4%90%80%80",
    "m/%80",
    "m/%C3",
    "m/%FF%FE",
)
BAD_PATHS: Final = ("a", "a/b", "/~", "/~2", "/a~", "/%00", "//~3")
QUERIES: Final = (
    "ttl=0",
    "ttl=-1",
    "ttl=nan",
    "ttl=inf",
    "ttl=1e5",
    "ttl=0x10",
    "ttl=1_0",
    "ttl=%D9%A1",
    "ttl=",
    "ttl=31536000.1",
    "ttl=99999999999999999999",
    "ttl=1&ttl=2",
    "ttl=%00",
    "%ff=1",
    "ttl=%f",
    "ttl=%FF",
    "path=/%ED%A0%80",
    "unknown=1",
    "TTL=1",
    "ttl[]=1",
)


def key_cases() -> Iterator[Case]:
    for key in GOOD_KEYS:
        yield Case(f"key {key[:40]}: written", message("PUT", f"/kv/{key}", body=b"1"), "20")
        yield Case(f"key {key[:40]}: read", message("GET", f"/kv/{key}"), "200")
        yield Case(f"key {key[:40]}: locked", message("POST", f"/locks/{key}", body=b'{"wait":0}'), "201")
    for key in BAD_KEYS:
        for method, route in (("GET", "kv"), ("PUT", "kv"), ("DELETE", "kv"), ("POST", "locks"), ("GET", "locks")):
            sent = message(method, f"/{route}/{key}", body=b"" if method == "POST" else b"1")
            yield Case(f"key {key[:40]}: {method} {route}", sent, "400 invalid_key")
        yield Case(f"key {key[:40]}: a UUID", message("GET", f"/get/{key}"), "400 invalid_key")
    yield Case("a value for paths", message("PUT", "/kv/m/path", body=b'{"a":[1]}'), "201")
    for path in BAD_PATHS:
        for method in ("GET", "PUT", "DELETE"):
            yield Case(
                f"path {path}: {method}", message(method, f"/kv/m/path?path={path}", body=b"1"), "400 invalid_path"
            )
    for path in ("/a/" + "9" * 1000, "/a/-1", "/a/01", "/a/1e0", "/a/+1", "/a/%D9%A1", "/" * 2000, "/a/-/-"):
        for method in ("GET", "PUT", "DELETE"):
            yield Case(f"path {path[:20]}: {method}", message(method, f"/kv/m/path?path={path}", body=b"1"), "")
    for query in QUERIES:
        yield Case(f"query {query}", message("PUT", f"/kv/m/query?{query}", body=b"1"), "400 invalid_argument")


def list_cases() -> Iterator[Case]:
    for limit in ("0", "-1", "10001", "1e2", "%D9%A1", "", "9" * 1000, "1.0"):
        yield Case(f"limit {limit[:20]}", message("GET", f"/kv?prefix=m/no&limit={limit}"), "400 invalid_argument")
    for route in ("/kv", "/get"):
        for query in ("reverse=2", "count=no", "reverse&reverse", "count=%00", "count=1&count=1", "key=a&after=a"):
            yield Case(f"{route}?{query}", message("GET", f"{route}?{query}"), "400 invalid_argument")
        for path in BAD_PATHS:
            yield Case(f"{route}: path {path}", message("GET", f"{route}?count&path={path}"), "400 invalid_path")
        for path in ("/a/" + "9" * 1000, "/a/-1", "/" * 100, "/a/-/-"):
            yield Case(f"{route}: path {path[:20]}", message("GET", f"{route}?prefix=m/path&path={path}"), "200")


# Locks ----------------------------------------------------------------------------------------------------------

LEASE_IDS: Final = ("", "x" * 129, "\x7f", "\xff", "a\tb", "0" * 32, "x" * 128, "' OR 1=1 --")
BAD_LOCK_BODIES: Final[tuple[Any, ...]] = (
    [],
    1,
    "text",
    {"unknown": 1},
    {"ttl": 0},
    {"ttl": -1},
    {"ttl": 0.999},
    {"ttl": 2_592_001},
    {"ttl": 1e300},
    {"ttl": "30"},
    {"ttl": True},
    {"ttl": []},
    {"wait": -1},
    {"wait": 61},
    {"wait": "0"},
    {"wait": True},
    {"wait": {}},
    {"owner": "x" * 1025, "wait": 0},
    {"lease_id": "x", "wait": 0},
)


def lock_cases() -> Iterator[Case]:
    yield Case("a lock that is held", message("POST", "/locks/m/held", body=b'{"ttl":3600,"wait":0}'), "201")
    for body in BAD_LOCK_BODIES:
        text = json.dumps(body).encode()
        yield Case(f"lock {text[:40]!r}", message("POST", "/locks/m/lock", body=text), "400 invalid_argument")
        yield Case(f"lock {text[:40]!r}, renewed", message("PUT", "/locks/m/held", body=text), "4")
    for lease_id in LEASE_IDS:
        text = json.dumps({"lease_id": lease_id}).encode()
        yield Case(f"lease {lease_id[:20]!r}: renewed", message("PUT", "/locks/m/held", body=text), "4")
        yield Case(f"lease {lease_id[:20]!r}: released", message("DELETE", "/locks/m/held", body=text), "4")
        write = message("PUT", "/kv/m/fenced", f"If-Lease: {lease_id}", body=b"1")
        yield Case(f"lease {lease_id[:20]!r}: fences", write, "4")
    for lock_id in (None, 1, "", "x", UUID + "0", UUID.replace("-", ""), [UUID]):
        text = json.dumps({"lock_id": lock_id, "wait": 0}).encode()
        yield Case(f"lock_id {lock_id!r}", message("POST", "/lock", body=text), "400")
    yield Case("what was never fenced", message("GET", "/kv/m/fenced"), "404 not_found")
    yield Case("the lock is held", message("GET", "/locks/m/held"), "200")


# Tokens ---------------------------------------------------------------------------------------------------------

SECRET: Final = b"a-secret-of-more-than-32-bytes-for-bad-input"
CLAIMS: Final[Mapping[str, Any]] = {"sub": "ann", "exp": 4_000_000_000, "permissions": ["read", "write"]}


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(head: bytes, claims: bytes, *, secret: bytes = SECRET) -> str:
    """A token with a good signature over any parts."""
    text = f"{segment(head)}.{segment(claims)}"
    return f"{text}.{segment(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def token(claims: Mapping[str, Any] = CLAIMS, *, secret: bytes = SECRET, head: Mapping[str, Any] | None = None) -> str:
    header = {"alg": "HS256", "typ": "JWT", **(head or {})}
    return signed(json.dumps(header).encode(), json.dumps(dict(claims)).encode(), secret=secret)


def _bad_heads() -> Iterator[tuple[str, str]]:
    claims = json.dumps(dict(CLAIMS)).encode()
    for spelling in ("none", "None", "NONE", "nOnE", "", " none", "none\0", "HS256\0", "hs256", "HS384", "RS256", None):
        yield f"alg {spelling!r}", token(head={"alg": spelling})
        unsigned = segment(json.dumps({"alg": spelling}).encode())
        yield f"alg {spelling!r} without a signature", f"{unsigned}.{segment(claims)}."
    for alg in (1, True, ["HS256"], {"HS256": 1}):
        yield f"alg {alg!r}", token(head={"alg": alg})
    yield "no alg", signed(b'{"typ":"JWT"}', claims)
    for name in ("jku", "jwk", "x5u", "crit"):
        for value in ("http://localhost/", ["exp"], {"kty": "oct", "k": segment(SECRET)}, False):
            yield f"{name} {value!r}", token(head={name: value})


def _bad_claims() -> Iterator[tuple[str, str]]:
    yield "no exp", token({"sub": "ann", "permissions": ["read"]})
    yield "no sub", token({"exp": 4_000_000_000, "permissions": ["read"]})
    yield "huge", token({**CLAIMS, "x": "x" * 4096})
    values: dict[str, tuple[Any, ...]] = {
        "exp": (None, "4000000000", True, [], {}, 0, -1, 1, 1.5, math.nan, math.inf, 10**400, -(10**400)),
        "nbf": (4_000_000_000, "1", [], math.inf, 10**400),
        "sub": (None, 1, True, [], {}),
        "permissions": ("read", {"read": 1}, 1, True, [1], [None], [["read"]]),
        "prefixes": ("a", 1, {"a": 1}, [1], [None]),
    }
    for name, wrong in values.items():
        for value in wrong:
            yield f"{name} {str(value)[:20]}", token({**CLAIMS, name: value})
    for part in (b"", b"[]", b"1", b"null", b'"text"', b"{", b"\xff", b"[" * 2000, b'{"exp":NaN}'):
        yield f"claims {part[:10]!r}", signed(b'{"alg":"HS256"}', part)
        yield f"head {part[:10]!r}", signed(part, json.dumps(dict(CLAIMS)).encode())


def bad_tokens(public_key: bytes) -> Iterator[tuple[str, str]]:
    """Names and tokens. `public_key`: the text of a public key with which a server verifies signatures."""
    yield from _bad_heads()
    yield from _bad_claims()
    yield "signed by the public key", token(secret=public_key)
    yield "signed by nothing", token(secret=b"")
    yield "signed by another secret", token(secret=b"x" * 32)
    good = token()
    head, claims, signature = good.split(".")
    yield "padding", f"{good}="
    yield "padding of the head", f"{head}=.{claims}.{signature}"
    yield "a plus", f"{head}.{claims}.{signature[:-1]}+"
    yield "a bad letter", f"{head}.{claims}.{signature[:-1]}*"
    yield "a space inside", f"{head}.{claims} .{signature}"
    yield "no dots", head + claims + signature
    yield "one dot", f"{head}.{claims}"
    yield "four parts", f"{good}.{signature}"
    yield "empty parts", ".."
    yield "no head", f".{claims}.{signature}"
    yield "no signature", f"{head}.{claims}."
    yield "the signature cut", good[:-4]
    yield "the signature twice", good + signature
    yield "another claim", f"{head}.{segment(json.dumps({**CLAIMS, 'sub': 'eve'}).encode())}.{signature}"
    yield "letters beyond ASCII", good + "\xe4"
    yield "quotes", f'"{good}"'
    yield "two tokens", f"{good}, {good}"
    yield "JSON", json.dumps(dict(CLAIMS))


def all_cases() -> Iterator[Case]:
    """All cases except the tokens. Their order matters, because some prepare what others read."""
    yield from json_cases()
    yield from http_cases()
    yield from key_cases()
    yield from list_cases()
    yield from lock_cases()
