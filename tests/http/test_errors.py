"""Errors: their members, unknown paths and methods, and that they show no internal details."""

import pytest
from contract import INTERNALS
from running import Server, Wire, message, refusal

NO_ROUTE = (404, "no_such_route")
NOT_ALLOWED = (405, "method_not_allowed")


def test_an_error_has_a_code_a_message_and_the_request_id(server: Server, key: str) -> None:
    response = server.get(key, headers={"X-Request-Id": "mine"})
    assert response.json() == {"error": "not_found", "message": "key does not exist", "request_id": "mine"}


def test_an_error_is_json(server: Server) -> None:
    assert server.request("GET", "/nowhere").headers["Content-Type"] == "application/json"


# Routes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/KV/a",
        "/kv2",
        "/k",
        "/health/",
        "/health/lively",
        "/openapi",
        "/docs",
        "/openapi.json/x",
        "/%6Bv/a",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_path_without_a_route_is_not_found(server: Server, method: str, path: str) -> None:
    assert refusal(server.request(method, path)) == NO_ROUTE


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/kv", "DELETE, GET, HEAD, OPTIONS"),
        ("PUT", "/kv", "DELETE, GET, HEAD, OPTIONS"),
        ("DELETE", "/stream", "GET, HEAD, OPTIONS"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("PUT", "/health/live", "GET, HEAD, OPTIONS"),
        ("DELETE", "/health/ready", "GET, HEAD, OPTIONS"),
        ("PATCH", "/openapi.json", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_method_that_the_path_does_not_have_is_refused_with_the_allowed_methods(
    server: Server, method: str, path: str, allowed: str
) -> None:
    response = server.request(method, path)
    assert (refusal(response), response.headers["Allow"]) == (NOT_ALLOWED, allowed)


def test_a_body_for_a_path_without_a_route_is_read_and_the_connection_stays(server: Server) -> None:
    """One of 64 KiB at most; a longer one ends the connection, as tests/http/test_refusals_before_the_body.py shows."""
    with Wire(server) as wire:
        wire.send(message("POST", "/nowhere", body=b"x" * 65_536), message("GET", "/health/live"))
        assert [wire.answer().status, wire.answer().status] == [404, 200]


@pytest.mark.parametrize("path", ["/health?x=1", "/health/live?x", "/openapi.json?x=1"])
def test_an_unknown_parameter_is_refused_on_every_route(server: Server, path: str) -> None:
    assert refusal(server.request("GET", path)) == (400, "invalid_argument")


def test_the_key_is_checked_before_the_body(server: Server) -> None:
    assert refusal(server.request("PUT", "/kv//", content=b"[")) == (400, "invalid_key")


# No internal details ------------------------------------------------------------------------------------------

HOSTILE = [
    message("GET", "/kv/" + "%00" * 5),
    message("GET", "/kv/a?path=" + "/a" * 500),
    message("GET", "/kv/a?" + "&".join(["x=1"] * 1000)),
    message("GET", "/kv/a?%F0%9F%A6%8A=%00"),
    message("GET", "/kv?after=%FF"),
    message("PUT", "/kv/a", "Content-Type: \xff\xfe", body=b"1"),
    message("PUT", "/kv/a", "Content-Type: application/json; charset=\xff", body=b"1"),
    message("PUT", "/kv/a", "Accept: ;;;,,,;q=;q=q", body=b"1"),
    message("PUT", "/kv/a", "Accept: \xff/\xff", body=b"1"),
    message("PUT", "/kv/a", 'If-Match: "\xff', body=b"1"),
    message("PUT", "/kv/a", 'If-Match: "' + "9" * 400 + '"', body=b"1"),
    message("PUT", "/kv/a", "Expect: 200-ok", body=b"{"),
    message("PUT", "/kv/a?ttl=" + "9" * 400, body=b"1"),
    message("GET", "/kv?limit=" + "9" * 400),
    message("PUT", "/kv/a", body=b'"\xff"'),
    message("PUT", "/kv/a", body=b"9" * 100_000),
    message("PUT", "/kv/a", body=b"[" * 100_000),
    message("PATCH", "/kv/a", "Content-Type: application/json-patch+json", body=b'[{"op":"\\ud800","path":0}]'),
    message("GET", "http://[::1"),
    message("GET", "//kv/a"),
    message("GET", "*"),
    message("GET", "://"),
]


@pytest.mark.parametrize("sent", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_request_is_refused_without_internal_details(server: Server, sent: bytes) -> None:
    with Wire(server) as wire:
        answer = wire.send(sent).answer()
    assert (400 <= answer.status < 500, INTERNALS.search(answer.body.decode())) == (True, None)


def test_hostile_requests_cause_no_traceback_in_the_log(server: Server) -> None:
    for sent in HOSTILE:
        with Wire(server) as wire:
            wire.send(sent).answer()
    assert "Traceback" not in server.log()
