"""A connection from 100-continue to its end: keep-alive, close, HTTP/1.0, half-closed connections, and upgrades."""

import pytest
from running import Server, Wire, message

# Expect: 100-continue -----------------------------------------------------------------------------------------


def expecting(key: str, body: bytes, *fields: str) -> tuple[bytes, bytes]:
    """A request in two parts: the head, and the body that waits for leave."""
    head = message("PUT", f"/kv/{key}", "Expect: 100-continue", f"Content-Length: {len(body)}", *fields)
    return head, body


def test_a_client_that_expects_100_continue_gets_it(server: Server, key: str) -> None:
    head, body = expecting(key, b'"alice"')
    with Wire(server) as wire:
        interim = wire.send(head).answer()
        final = wire.send(body).answer()
    assert (interim.status, final.status, final.value) == (100, 201, "alice")


def test_the_expectation_is_accepted_in_any_case(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", "Expect: 100-Continue", "Content-Length: 1"))
        assert wire.answer().status == 100


def test_a_client_that_expects_100_continue_for_a_chunked_body_gets_it(server: Server, key: str) -> None:
    with Wire(server) as wire:
        interim = wire.send(message("PUT", f"/kv/{key}", "Expect: 100-continue", "Transfer-Encoding: chunked")).answer()
        final = wire.send(b"1\r\n1\r\n0\r\n\r\n").answer()
    assert (interim.status, final.status) == (100, 201)


def test_a_too_large_body_is_refused_instead_of_100_continue(server: Server, key: str) -> None:
    head, _ = expecting(key, b"x" * (1024 * 1024 + 1))
    with Wire(server) as wire:
        seen = (wire.send(head).answer().refusal, wire.is_closed())
    assert seen == ((413, "too_large"), True)


def test_100_continue_comes_after_the_earlier_answers(server: Server, key: str) -> None:
    head, body = expecting(key, b"2")
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", body=b"1"), message("GET", f"/kv/{key}"), head)
        seen = [wire.answer().status, wire.answer().status, wire.answer().status]
        seen.append(wire.send(body).answer().status)
    assert seen == [201, 200, 100, 200]


def test_http_1_0_gets_no_100_continue(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", "Expect: 100-continue", body=b"1", version="HTTP/1.0"))
        assert wire.answer().status == 201


# HEAD, and responses without a body ---------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/kv/{}", "/kv/{}?raw", "/kv/{}/absent", "/kv", "/health", "/kv//"])
def test_an_answer_to_head_has_no_body(server: Server, key: str, target: str) -> None:
    server.put(key, '"alice"')
    with Wire(server) as wire:
        wire.send(message("HEAD", target.format(key)), message("GET", f"/kv/{key}"))
        wire.answer(to="HEAD")
        assert wire.answer().value == "alice"


def test_a_not_modified_answer_has_no_body(server: Server, key: str) -> None:
    etag = server.put(key, '"alice"').headers["ETag"]
    with Wire(server) as wire:
        wire.send(message("GET", f"/kv/{key}", f"If-None-Match: {etag}"), message("GET", f"/kv/{key}"))
        assert [wire.answer().status, wire.answer().value] == [304, "alice"]


# The end of a connection --------------------------------------------------------------------------------------


def test_a_connection_stays_for_the_next_request(server: Server) -> None:
    with Wire(server) as wire:
        seen = [wire.send(message("GET", "/health")).answer().headers.get("connection") for _ in range(3)]
    assert seen == [None] * 3


def test_a_connection_with_connection_close_is_closed(server: Server) -> None:
    with Wire(server) as wire:
        answer = wire.send(message("GET", "/health", "Connection: close")).answer()
        assert (answer.headers["connection"], wire.is_closed()) == ("close", True)


def test_a_request_after_one_that_closes_is_not_done(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("GET", "/health", "Connection: close"), message("PUT", f"/kv/{key}", body=b"1"))
        wire.answer()
        assert (wire.is_cut(), server.get(key).status_code) == (True, 404)


def test_http_1_0_is_closed_after_the_answer(server: Server) -> None:
    with Wire(server) as wire:
        answer = wire.send(b"GET /health/live HTTP/1.0\r\n\r\n").answer()
        assert (answer.status, answer.headers["connection"], wire.is_closed()) == (200, "close", True)


def test_http_1_0_with_keep_alive_stays_and_the_answer_says_so(server: Server) -> None:
    request = b"GET /health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    with Wire(server) as wire:
        answers = [wire.send(request).answer(), wire.send(request).answer()]
    assert [answer.headers["connection"] for answer in answers] == ["keep-alive", "keep-alive"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", ["/kv", "/kv?limit=1", "/stream", "/stream/123e4567-e89b-12d3-a456-426614174000"])
def test_a_stream_for_http_1_0_is_refused_because_a_cut_would_look_like_its_end(
    server: Server, method: str, target: str
) -> None:
    server.put("123e4567-e89b-12d3-a456-426614174000", "1")
    request = f"{method} {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode()
    with Wire(server) as wire:
        answer = wire.send(request).answer(to=method)
        assert (answer.status, answer.headers["upgrade"]) == (426, "HTTP/1.1")
        assert answer.headers["connection"] == "keep-alive, Upgrade"
        if method == "GET":
            assert (answer.refusal, b"proxy_http_version 1.1" in answer.body) == ((426, "upgrade_required"), True)
        assert wire.send(b"GET /health HTTP/1.0\r\n\r\n").answer().status == 200


def test_an_answer_of_known_length_is_sent_to_http_1_0(server: Server, key: str) -> None:
    server.put(key, "1")
    with Wire(server) as wire:
        for target, fields in ((f"/kv/{key}", ()), ("/kv", ("Accept: application/vnd.msgpack",)), ("/locks", ())):
            keep = ("Connection: keep-alive", *fields)
            answer = wire.send(message("GET", target, *keep, version="HTTP/1.0")).answer()
            assert (answer.status, int(answer.headers["content-length"])) == (200, len(answer.body))


def test_a_client_that_has_closed_its_half_still_gets_its_answers(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", body=b"1"), message("GET", f"/kv/{key}"), message("GET", "/kv"))
        wire.end_sending()
        seen = [wire.answer().status, wire.answer().value, wire.answer().status, wire.is_closed()]
    assert seen == [201, 1, 200, True]


def test_a_request_cut_off_by_the_client_is_not_done(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", body=b"12345")[:-1]).end_sending()
        assert (wire.is_closed(), server.get(key).status_code) == (True, 404)


def test_a_client_that_disconnects_during_its_write_does_not_disturb_others(server: Server, key: str) -> None:
    for number in range(50):
        with Wire(server) as wire:
            wire.send(message("PUT", f"/kv/{key}/{number}", body=b"1"))
    assert server.put(key, "1").status_code == 201


# Upgrades -----------------------------------------------------------------------------------------------------


UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")


def test_an_upgrade_to_another_protocol_is_ignored(server: Server) -> None:
    with Wire(server) as wire:
        wire.send(message("GET", "/health/live", *UPGRADE), message("GET", "/health/live"))
        assert [wire.answer().status, wire.answer().status] == [200, 200]


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.0", "h2c, websocket"])
def test_an_upgrade_with_a_body_is_ignored(server: Server, key: str, protocol: str) -> None:
    fields = ("Connection: upgrade", f"Upgrade: {protocol}")
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", *fields, body=b'"alice"'), message("GET", f"/kv/{key}"))
        assert [wire.answer().status, wire.answer().value] == [201, "alice"]


def test_an_upgrade_with_a_body_that_arrives_byte_by_byte_is_ignored(server: Server, key: str) -> None:
    with Wire(server) as wire:
        for byte in message("PUT", f"/kv/{key}", *UPGRADE, body=b'"alice"') + message("GET", f"/kv/{key}"):
            wire.send(bytes([byte]))
        assert [wire.answer().status, wire.answer().value] == [201, "alice"]


def test_an_upgrade_with_a_chunked_body_is_ignored(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", "Transfer-Encoding: chunked", *UPGRADE), b"1\r\n1\r\n0\r\n\r\n")
        wire.send(message("GET", f"/kv/{key}"))
        assert [wire.answer().status, wire.answer().value] == [201, 1]


def test_an_upgrade_with_a_too_large_body_is_refused(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", *UPGRADE, "Transfer-Encoding: chunked"))
        wire.send(b"200000\r\n", b"x" * 0x200000, b"\r\n0\r\n\r\n")
        assert (wire.answer().refusal, wire.is_closed()) == ((413, "too_large"), True)
