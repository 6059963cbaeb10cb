"""The cache of parsed header blocks."""

import pytest

from leasehold.http.requests import Headers
from leasehold.http.wire.header_cache import CHANGING_FIELDS, CONNECTION_FIELDS, MAX_HEADS, HeaderCache
from leasehold.limits import Limits


def request(**fields: str) -> tuple[bytes, Headers]:
    """A request with these fields, and its head as the parser returns it."""
    headers = Headers()
    headers.update({name.encode(): value.encode() for name, value in fields.items()})
    lines = [name + b": " + value for name, value in headers.items()]
    return b"\r\n".join((b"GET /kv/a HTTP/1.1", *lines, b"", b"")), headers


@pytest.fixture
def heads() -> HeaderCache:
    return HeaderCache(Limits())


def test_a_block_that_was_parsed_before_is_returned_from_the_cache(heads: HeaderCache) -> None:
    data, headers = request(host="localhost")
    assert heads.recall(data) is None
    heads.remember(data, headers)
    recalled = heads.recall(data)
    assert recalled is not None
    assert (recalled.method, recalled.headers) == ("GET", {b"host": b"localhost"})


@pytest.mark.parametrize("name", sorted(CHANGING_FIELDS), ids=bytes.decode)
def test_fields_that_differ_each_time_do_not_evict_others(heads: HeaderCache, name: bytes) -> None:
    usual, usual_headers = request(host="localhost")
    heads.remember(usual, usual_headers)
    changing = [request(host="localhost", **{name.decode(): f'"{number}"'}) for number in range(MAX_HEADS * 2)]
    for data, headers in changing:
        heads.remember(data, headers)
    assert heads.recall(changing[-1][0]) is None
    assert heads.recall(usual) is not None


@pytest.mark.parametrize("name", sorted(CONNECTION_FIELDS), ids=bytes.decode)
def test_blocks_with_connection_fields_are_parsed_each_time(heads: HeaderCache, name: bytes) -> None:
    data, headers = request(host="localhost", **{name.decode(): "x"})
    heads.remember(data, headers)
    assert heads.recall(data) is None


@pytest.mark.parametrize("value", ["keep-alive", "Keep-Alive", "KEEP-ALIVE"])
def test_a_block_that_asks_to_keep_the_connection_is_kept(heads: HeaderCache, value: str) -> None:
    data, headers = request(host="localhost", connection=value)
    heads.remember(data, headers)
    assert heads.recall(data) is not None


@pytest.mark.parametrize(
    "value", ["close", "keep-alive, close", "keep-alive,", "keep-alive, upgrade", "keep-alive, keep-alive", "x", ""]
)
def test_blocks_with_another_option_of_the_connection_are_parsed_each_time(heads: HeaderCache, value: str) -> None:
    data, headers = request(host="localhost", connection=value)
    heads.remember(data, headers)
    assert heads.recall(data) is None


def test_a_known_block_does_not_make_a_request_one_of_http_1_1(heads: HeaderCache) -> None:
    data, headers = request(host="localhost", connection="keep-alive")
    heads.remember(data, headers)
    assert heads.recall(data.replace(b"HTTP/1.1", b"HTTP/1.0")) is None


def test_a_full_cache_drops_its_older_half(heads: HeaderCache) -> None:
    blocks = [request(host="localhost", authorization=f"Bearer {number}") for number in range(MAX_HEADS + 1)]
    for data, headers in blocks:
        heads.remember(data, headers)
    known = [heads.recall(data) is not None for data, _ in blocks]
    assert known == [False] * (MAX_HEADS // 2) + [True] * (MAX_HEADS // 2 + 1)


def test_what_was_found_by_its_size_is_forgotten_with_the_older_half(heads: HeaderCache) -> None:
    blocks = [request(host="localhost", authorization=f"Bearer {number}") for number in range(MAX_HEADS + 1)]
    (data, headers), *others = blocks
    heads.remember(data, headers)
    begin = data.index(b" HTTP/1.1")
    assert heads.find(data, begin) is headers
    assert heads.by_size == {len(data) - begin: headers}
    for other, its_headers in others:
        heads.remember(other, its_headers)
    assert heads.find(data, begin) is None
    assert heads.by_size == {}


# The field of a trace -------------------------------------------------------------------------------------------


def traced(number: int, **fields: str) -> tuple[bytes, Headers]:
    return request(host="localhost", traceparent=f"00-{number:032x}-00f067aa0ba902b7-01", **fields)


def test_a_block_is_kept_without_the_field_of_its_trace(heads: HeaderCache) -> None:
    data, headers = traced(1)
    heads.remember(data, headers)
    plain, _ = request(host="localhost")
    recalled = heads.recall(plain)
    assert recalled is not None
    assert (recalled.headers, recalled.trace, heads.recall(data)) == ({b"host": b"localhost"}, None, None)


def test_a_block_with_two_traces_is_not_kept(heads: HeaderCache) -> None:
    data, _ = traced(1)
    _, second = traced(2)
    headers = Headers()
    headers.update(second | {b"traceparent": second[b"traceparent"] + b", " + second[b"traceparent"]})
    heads.remember(data, headers)
    assert heads.recall(request(host="localhost")[0]) is None


def test_a_block_that_another_field_would_bring_over_a_limit_is_not_kept() -> None:
    data, headers = request(host="localhost", accept="*/*")
    for limits, is_kept in ((Limits(max_header_fields=3), True), (Limits(max_header_fields=2), False)):
        heads = HeaderCache(limits)
        heads.remember(data, headers)
        assert (heads.recall(data) is not None) is is_kept
