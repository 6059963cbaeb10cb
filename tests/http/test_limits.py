"""Limits of requests and connections: a request above a limit is refused, and its client can read the error."""

from collections.abc import Iterator

import pytest
from running import Server, Wire, message, refusal, running, until

KIB = 1024
MIB = 1024 * KIB

TOO_LONG = (414, "uri_too_long")
TOO_LARGE = (413, "too_large")
TOO_MANY_HEADERS = (431, "headers_too_large")


# The request line ---------------------------------------------------------------------------------------------


def test_a_target_of_8_kib_is_accepted(server: Server, key: str) -> None:
    target = f"/kv/{key}?path=/"
    target += "a" * (8 * KIB - len(target))
    with Wire(server) as wire:
        assert wire.send(message("GET", target)).answer().refusal == (404, "not_found")


def test_a_longer_target_is_refused(server: Server) -> None:
    with Wire(server) as wire:
        answer = wire.send(message("GET", "/" + "a" * 8 * KIB)).answer()
        assert (answer.refusal, wire.is_closed()) == (TOO_LONG, True)


def test_a_target_that_never_ends_is_refused(server: Server) -> None:
    with Wire(server) as wire:
        answer = wire.send(b"GET /" + b"a" * 9 * KIB).answer()
        assert (answer.refusal, wire.is_closed()) == (TOO_LONG, True)


# Headers ------------------------------------------------------------------------------------------------------


def test_100_header_fields_are_accepted(server: Server) -> None:
    with Wire(server) as wire:
        wire.send(message("GET", "/health/live", *(f"X-{number}: 1" for number in range(99))))
        assert wire.answer().status == 200


def test_101_header_fields_are_refused(server: Server) -> None:
    with Wire(server) as wire:
        answer = wire.send(message("GET", "/health/live", *(f"X-{number}: 1" for number in range(100)))).answer()
        assert (answer.refusal, wire.is_closed()) == (TOO_MANY_HEADERS, True)


def test_one_field_repeated_101_times_is_refused(server: Server) -> None:
    with Wire(server) as wire:
        assert wire.send(message("GET", "/health/live", *["Accept: */*"] * 101)).answer().refusal == TOO_MANY_HEADERS


def test_headers_of_nearly_32_kib_are_accepted(server: Server) -> None:
    with Wire(server) as wire:
        assert wire.send(message("GET", "/health/live", "X: " + "a" * 32_000)).answer().status == 200


@pytest.mark.parametrize("fields", [["X: " + "a" * 32 * KIB], ["X: " + "a" * 4 * KIB] * 8, ["X" * 32 * KIB + ": a"]])
def test_headers_of_more_than_32_kib_are_refused(server: Server, fields: list[str]) -> None:
    with Wire(server) as wire:
        answer = wire.send(message("GET", "/health/live", *fields)).answer()
        assert (answer.refusal, wire.is_closed()) == (TOO_MANY_HEADERS, True)


@pytest.mark.parametrize("endless", [b"X: " + b"a" * 64 * KIB, b"X" * 64 * KIB])
def test_a_header_that_never_ends_is_refused(server: Server, endless: bytes) -> None:
    with Wire(server) as wire:
        answer = wire.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n", endless).answer()
        assert (answer.refusal, wire.is_closed()) == (TOO_MANY_HEADERS, True)


def test_trailers_count_as_headers(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", "Transfer-Encoding: chunked"), b"1\r\n1\r\n0\r\n", b"X: y\r\n" * 101)
        assert (wire.answer().refusal, wire.is_closed()) == (TOO_MANY_HEADERS, True)


# Bodies -------------------------------------------------------------------------------------------------------


def test_a_body_with_too_large_a_content_length_is_refused_before_it_arrives(server: Server, key: str) -> None:
    with Wire(server) as wire:
        answer = wire.send(message("PUT", f"/kv/{key}", f"Content-Length: {MIB + 1}")).answer()
        assert (answer.refusal, wire.is_closed()) == (TOO_LARGE, True)


def test_a_chunked_body_of_1_mib_is_accepted(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", "Transfer-Encoding: chunked"))
        for chunk in [b'"' + b"a" * (MIB // 2 - 1), b"a" * (MIB // 2 - 1) + b'"']:
            wire.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        assert wire.send(b"0\r\n\r\n").answer().status == 201


def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", "Transfer-Encoding: chunked"))
        wire.send(b"80000\r\n", b"a" * (MIB // 2), b"\r\n80001\r\n", b"a" * (MIB // 2 + 1))
        assert (wire.answer().refusal, wire.is_closed()) == (TOO_LARGE, True)


def test_a_body_in_chunks_of_one_byte_is_accepted(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", "Transfer-Encoding: chunked"), b'1\r\n"\r\n')
        wire.send(b"1\r\na\r\n" * 100_000, b'1\r\n"\r\n0\r\n\r\n')
        assert len(wire.answer().value) == 100_000


def test_a_chunk_extension_that_never_ends_is_refused(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", "Transfer-Encoding: chunked"), b"1;", b"a" * 9 * MIB)
        assert (wire.answer().refusal, wire.is_closed()) == (TOO_LARGE, True)


def test_a_refused_client_that_continues_to_send_can_read_the_error(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", f"Content-Length: {9 * MIB}"))
        for _ in range(9):
            wire.send(b"a" * MIB)
        assert (wire.answer().refusal, wire.is_closed()) == (TOO_LARGE, True)


@pytest.fixture(scope="module")
def narrow() -> Iterator[Server]:
    """A server with bounds of its own."""
    bounds = {
        "LEASEHOLD_MAX_BODY_BYTES": "10",
        "LEASEHOLD_MAX_REQUEST_LINE_BYTES": "40",
        "LEASEHOLD_MAX_HEADER_BYTES": "600",
        "LEASEHOLD_MAX_HEADER_FIELDS": "9",
    }
    with running(environment=bounds) as started:
        yield started


def test_the_limit_of_a_body_is_a_setting(narrow: Server) -> None:
    assert [narrow.put("k", "1" * size).status_code for size in (10, 11)] == [201, 413]


def test_the_limit_of_a_body_is_also_the_limit_of_a_value_that_grows_by_parts(narrow: Server) -> None:
    narrow.put("grows", "{}")
    assert [narrow.put("grows", part, params={"path": "/a"}).status_code for part in ("1234", "12345")] == [200, 413]


def test_the_limit_of_the_request_line_is_a_setting(narrow: Server) -> None:
    assert [narrow.get("k" * size).status_code for size in (36, 37)] == [404, 414]


def test_the_limit_of_header_bytes_is_a_setting(narrow: Server) -> None:
    assert [narrow.get("a", headers={"X": "x" * size}).status_code for size in (300, 600)] == [404, 431]


def test_the_limit_of_header_fields_is_a_setting(narrow: Server) -> None:
    with Wire(narrow) as wire:
        taken = wire.send(message("GET", "/kv/a", *["X: y"] * 8)).answer()
        refused = wire.send(message("GET", "/kv/a", *["X: y"] * 9)).answer()
    assert [taken.status, refused.status] == [404, 431]


# Connections --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["LEASEHOLD_MAX_CONNECTIONS", "LEASEHOLD_MAX_CONNECTIONS_PER_ADDRESS"])
def crowded(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server for two connections."""
    with running(environment={request.param: "2"}) as started:
        yield started


LIVE = message("GET", "/health/live")


def test_a_connection_above_the_maximum_is_refused_with_retry_after(crowded: Server) -> None:
    with Wire(crowded) as first, Wire(crowded) as second:
        first.send(LIVE).answer()
        second.send(LIVE).answer()
        with Wire(crowded) as third:
            answer = third.answer()
            seen = (answer.refusal, answer.headers["retry-after"].isdecimal(), third.is_closed())
    assert seen == ((503, "unavailable"), True, True)


def test_connections_within_the_maximum_are_served_while_others_are_refused(crowded: Server) -> None:
    with Wire(crowded) as first, Wire(crowded) as second:
        second.send(LIVE).answer()
        for _ in range(20):
            with Wire(crowded) as refused:
                assert refused.answer().status == 503
        assert first.send(LIVE).answer().status == 200


def test_a_connection_is_accepted_again_after_another_one_closed(crowded: Server) -> None:
    with Wire(crowded) as first:
        first.send(LIVE).answer()
        with Wire(crowded) as second:
            second.send(LIVE).answer()

        def is_served() -> bool:
            with Wire(crowded) as third:
                return third.send(LIVE).answer().status == 200

        until(is_served)


def test_an_error_for_a_limit_has_the_limit(narrow: Server) -> None:
    response = narrow.put("k", "1" * 11)
    assert (refusal(response), response.json()["limit"]) == (TOO_LARGE, 10)
