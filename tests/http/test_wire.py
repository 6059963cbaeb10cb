"""Requests byte by byte: malformed ones are refused, and unusual valid ones are answered."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Server, Wire, message, refusal

MALFORMED: dict[str, str] = {
    f"{section}: {name}": text
    for section, cases in tomllib.loads(Path(__file__).with_name("malformed.toml").read_text("utf-8")).items()
    for name, text in cases.items()
}
INVALID_REQUEST = (400, "invalid_request")
NOT_IMPLEMENTED = (501, "not_implemented")


# Malformed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_one_piece", [True, False], ids=["in one piece", "byte by byte"])
@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_refused_and_ends_the_connection(
    server: Server, key: str, text: str, *, in_one_piece: bool
) -> None:
    sent = text.encode("latin-1")
    with Wire(server) as wire:
        for piece in [sent] if in_one_piece else [bytes([byte]) for byte in sent]:
            wire.send(piece)
        wire.send(message("PUT", f"/kv/{key}", body=b'"smuggled"'))
        answer = wire.answer()
        seen = (answer.refusal, answer.headers["connection"], wire.is_closed(), server.get(key).status_code)
    assert seen == (INVALID_REQUEST, "close", True, 404)


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_after_valid_ones_is_refused(server: Server, key: str, text: str) -> None:
    with Wire(server) as wire:
        for _ in range(3):
            assert (
                wire.send(b"PUT /kv/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1").answer().status < 400
            )
            assert wire.send(b"GET /kv/x HTTP/1.1\r\nHost: localhost\r\n\r\n").answer().status == 200
        wire.send(text.encode("latin-1"), message("PUT", f"/kv/{key}", body=b'"smuggled"'))
        seen = (wire.answer().refusal, wire.is_closed(), server.get(key).status_code)
    assert seen == (INVALID_REQUEST, True, 404)


def test_a_valid_request_before_a_malformed_one_is_answered_first(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", body=b"1"), b"nonsense\r\n\r\n")
        seen = [wire.answer().status, wire.answer().refusal, wire.is_closed()]
    assert seen == [201, INVALID_REQUEST, True]


# Unusual but valid --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["http://leasehold{}", "http://other.example:81{}", "HTTP://leasehold{}", "https://a{}"]
)
def test_a_target_in_absolute_form_is_understood(server: Server, key: str, target: str) -> None:
    server.put(key, '{"a": 1}')
    with Wire(server) as wire:
        assert wire.send(message("GET", target.format(f"/kv/{key}?path=/a"))).answer().value == 1


def test_an_absolute_target_without_a_path_is_the_root(server: Server) -> None:
    with Wire(server) as wire:
        assert wire.send(message("GET", "http://leasehold")).answer().refusal == (404, "no_such_route")


def test_connect_is_not_implemented_and_the_connection_stays(server: Server) -> None:
    with Wire(server) as wire:
        wire.send(message("CONNECT", "example.com:443"), message("GET", "/health/live"))
        assert [wire.answer().refusal, wire.answer().status] == [NOT_IMPLEMENTED, 200]


@pytest.mark.parametrize("method", ["PROPFIND", "TRACE", "MKCOL", "SEARCH", "PURGE", "LINK"])
@pytest.mark.parametrize("target", ["/kv/x", "/nowhere"])
def test_a_method_of_another_protocol_is_not_implemented_and_the_connection_stays(
    server: Server, method: str, target: str
) -> None:
    with Wire(server) as wire:
        wire.send(message(method, target), message("GET", "/health/live"))
        assert [wire.answer().refusal, wire.answer().status] == [NOT_IMPLEMENTED, 200]


@pytest.mark.parametrize("in_one_piece", [True, False], ids=["in one piece", "byte by byte"])
@pytest.mark.parametrize("method", ["BREW", "get", "G", "GETS", "X-GET", "!"])
def test_an_unknown_method_is_not_implemented_and_ends_the_connection(
    server: Server, key: str, method: str, *, in_one_piece: bool
) -> None:
    sent = message(method, f"/kv/{key}", body=b"1")
    with Wire(server) as wire:
        # A HEAD before it must not make its answer one without a body.
        assert wire.send(message("HEAD", "/health/live")).answer(to="HEAD").status == 200
        for piece in [sent] if in_one_piece else [bytes([byte]) for byte in sent]:
            wire.send(piece)
        seen = (wire.answer().refusal, wire.is_closed(), server.get(key).status_code)
    assert seen == (NOT_IMPLEMENTED, True, 404)


def test_bytes_that_begin_no_request_line_are_refused_before_the_line_ends(server: Server) -> None:
    with Wire(server) as wire:
        assert wire.send(b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03").answer().refusal == INVALID_REQUEST


def test_a_request_line_without_end_is_too_long(server: Server) -> None:
    with Wire(server) as wire:
        wire.send(b"GET /kv/" + b"x" * 5_000, b"y" * 5_000)
        assert wire.answer().refusal == (414, "uri_too_long")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "localhost:", "127.0.0.1:8080", "[::1]", "[::1]:80"])
def test_a_host_with_or_without_a_port_is_understood(server: Server, host: str) -> None:
    with Wire(server) as wire:
        assert wire.send(f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).answer().status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/kv/{}"), ("POST", "/kv/{}"), ("PATCH", "/kv/{}"), ("DELETE", "/kv/{}"), ("POST", "/set")],
)
def test_a_write_of_a_content_range_is_refused(server: Server, key: str, method: str, path: str) -> None:
    before = server.put(key, "1").json()
    headers = {"Content-Range": "bytes 0-3/100"}
    refused = server.request(method, path.format(key), content=b"{}", headers=headers)
    assert (refusal(refused), server.get(key).json()) == ((400, "invalid_argument"), before)


def test_a_content_range_of_a_read_is_ignored(server: Server, key: str) -> None:
    server.put(key, "1")
    assert server.get(key, headers={"Content-Range": "bytes 0-3/100"}).status_code == 200


def test_empty_lines_before_a_request_are_ignored(server: Server) -> None:
    with Wire(server) as wire:
        assert wire.send(b"\r\n\r\n", message("GET", "/health/live")).answer().status == 200


def test_header_names_are_accepted_in_any_case(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(b"PUT /kv/%b HTTP/1.1\r\nhOST: localhost\r\ncONTENT-lENGTH: 1\r\niF-mATCH: *\r\n\r\n1" % key.encode())
        assert wire.answer().status == 412


def test_white_space_around_a_header_value_is_removed(server: Server) -> None:
    with Wire(server) as wire:
        wire.send(b"GET /health HTTP/1.1\r\nHost:localhost\r\nX-Request-Id: \t abc \t \r\n\r\n")
        assert wire.answer().headers["x-request-id"] == "abc"


def test_a_request_that_arrives_byte_by_byte_is_understood(server: Server, key: str) -> None:
    with Wire(server) as wire:
        for byte in message("PUT", f"/kv/{key}", "X-Request-Id: drop-by-drop", body=b'{"a": [1, 2]}'):
            wire.send(bytes([byte]))
        answer = wire.answer()
    assert (answer.value, answer.headers["x-request-id"]) == ({"a": [1, 2]}, "drop-by-drop")


def test_a_body_of_a_read_is_ignored(server: Server, key: str) -> None:
    server.put(key, "1")
    with Wire(server) as wire:
        wire.send(message("GET", f"/kv/{key}", body=b"whatever"), message("GET", f"/kv/{key}"))
        assert [wire.answer().value, wire.answer().value] == [1, 1]


def test_a_write_without_a_length_has_an_empty_body(server: Server, key: str) -> None:
    with Wire(server) as wire:
        assert wire.send(message("PUT", f"/kv/{key}")).answer().refusal == (400, "invalid_json")


# Header fields that were sent before --------------------------------------------------------------------------


FIELDS = b"Host: localhost\r\nContent-Length: 3\r\nPrefer: return=representation\r\n\r\n"


@pytest.fixture
def familiar(server: Server, key: str) -> Iterator[Wire]:
    """A connection whose server has seen FIELDS, and a body of three bytes after them, several times."""
    with Wire(server) as wire:
        for _ in range(3):
            wire.send(f"PUT /kv/{key} HTTP/1.1\r\n".encode(), FIELDS, b"[1]").answer()
        yield wire


def test_the_same_fields_serve_for_another_key_method_and_body(familiar: Wire, key: str) -> None:
    for number, method in enumerate(("PUT", "POST", "PUT", "PATCH", "GET", "DELETE")):
        familiar.send(f"{method} /kv/{key}/{number} HTTP/1.1\r\n".encode(), FIELDS, b"[%d]" % number)
    assert [familiar.answer().status for _ in range(6)] == [201, 201, 201, 415, 404, 404]


def test_the_same_fields_serve_for_a_query(familiar: Wire, key: str) -> None:
    familiar.send(f"PUT /kv/{key}?path=/%30&ttl=60 HTTP/1.1\r\n".encode(), FIELDS, b"[2]")
    answer = familiar.answer()
    assert (answer.value, "expires_at" in json.loads(answer.body)) == ([2], True)


def test_the_same_fields_with_a_faulty_query_are_refused(familiar: Wire, key: str) -> None:
    familiar.send(f"PUT /kv/{key}?path=%f HTTP/1.1\r\n".encode(), FIELDS, b"[2]")
    assert familiar.answer().refusal == (400, "invalid_argument")


def test_the_same_fields_with_a_body_in_pieces_wait_for_it(familiar: Wire, key: str) -> None:
    for piece in (f"PUT /kv/{key} HTTP/1.1\r\n".encode(), FIELDS, b"[", b"2", b"]"):
        familiar.send(piece)
    assert familiar.answer().value == [2]


def test_the_same_fields_with_a_longer_body_are_followed_by_a_malformed_request(familiar: Wire, key: str) -> None:
    familiar.send(f"PUT /kv/{key} HTTP/1.1\r\n".encode(), FIELDS, b"[2]]\r\n\r\n")
    assert [familiar.answer().value, familiar.answer().refusal] == [[2], INVALID_REQUEST]


def test_the_same_fields_after_a_long_target_are_refused(familiar: Wire) -> None:
    familiar.send(b"PUT /kv/" + b"k" * 9_000 + b" HTTP/1.1\r\n", FIELDS, b"[2]")
    assert familiar.answer().refusal == (414, "uri_too_long")


def test_the_same_fields_in_http_1_0_end_the_connection(familiar: Wire, key: str) -> None:
    familiar.send(f"PUT /kv/{key} HTTP/1.0\r\n".encode(), FIELDS, b"[2]")
    assert (familiar.answer().headers["connection"], familiar.is_closed()) == ("close", True)


def test_the_same_fields_get_another_request_id_each_time(familiar: Wire, key: str) -> None:
    request = f"PUT /kv/{key} HTTP/1.1\r\n".encode() + FIELDS + b"[2]"
    assert len({familiar.send(request).answer().headers["x-request-id"] for _ in range(5)}) == 5


@pytest.mark.parametrize("count", [2, 3, 100])
def test_the_same_fields_in_several_requests_of_one_packet_are_all_answered(
    familiar: Wire, key: str, count: int
) -> None:
    familiar.send(*(f"PUT /kv/{key} HTTP/1.1\r\n".encode() + FIELDS + b"%03d" % (100 + n) for n in range(count)))
    assert [familiar.answer().value for _ in range(count)] == [100 + n for n in range(count)]


# Chunked bodies -----------------------------------------------------------------------------------------------


def chunked(key: str, *chunks: bytes, trailers: bytes = b"") -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return message("PUT", f"/kv/{key}", "Transfer-Encoding: chunked") + framed + b"0\r\n" + trailers + b"\r\n"


def test_the_chunks_of_a_body_are_joined(server: Server, key: str) -> None:
    with Wire(server) as wire:
        assert wire.send(chunked(key, b'{"a":', b" [1,", b" 2]}")).answer().value == {"a": [1, 2]}


def test_a_request_after_a_chunked_body_is_understood(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(chunked(key, b"1"), message("GET", f"/kv/{key}"))
        assert [wire.answer().status, wire.answer().value] == [201, 1]


def test_extensions_of_chunks_are_ignored(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(
            message("PUT", f"/kv/{key}", "Transfer-Encoding: chunked"), b'1;a=b\r\n[\r\n1;c="d"\r\n]\r\n0\r\n\r\n'
        )
        assert wire.answer().value == []


def test_sizes_of_chunks_may_have_leading_zeros_and_capitals(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", "Transfer-Encoding: CHUNKED"), b'000A\r\n"abcdefgh"\r\n00\r\n\r\n')
        assert wire.answer().value == "abcdefgh"


def test_trailers_are_ignored(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(chunked(key, b"1", trailers=b"If-Match: *\r\nHost: evil\r\nX-Request-Id: no\r\n"))
        answer = wire.answer()
    assert (answer.status, answer.headers["x-request-id"] == "no") == (201, False)


def test_a_request_after_trailers_is_understood(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(chunked(key, b"1", trailers=b"X: y\r\n"), message("GET", f"/kv/{key}"))
        assert [wire.answer().status, wire.answer().value] == [201, 1]
