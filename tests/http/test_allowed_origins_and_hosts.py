"""Allowed origins (CORS), OPTIONS, and the host names under which a service answers."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running import Server, Wire, leasehold, message, refusal, running

APP = "https://app.example.com"
LOCAL = "http://localhost:3000"
FORBIDDEN = (403, "forbidden")
EXPOSED = {"etag", "location", "retry-after", "x-request-id", "allow", "accept-patch", "www-authenticate"}
EXPOSED |= {"preference-applied", "idempotent-replayed"}
WRITES = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


@pytest.fixture(scope="module")
def sharing() -> Iterator[Server]:
    """A server that lets pages of two origins in: one by the flag, given twice."""
    with running(arguments=[f"--allowed-origin={APP}", f"--allowed-origin={LOCAL}"]) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    secret = tmp_path_factory.mktemp("secret") / "secret"
    secret.write_bytes(b"s" * 48)
    secret.chmod(0o600)
    environment = {"LEASEHOLD_ALLOWED_ORIGINS": f"{APP}, {LOCAL}", "LEASEHOLD_AUTH_SECRET_FILE": str(secret)}
    with running(environment=environment) as server:
        yield server


def is_shared(response: httpx.Response, origin: str) -> bool:
    """Whether a browser would let a page of `origin` read the answer, with the headers that it needs."""
    headers = response.headers
    exposed = {name.strip().lower() for name in headers.get("Access-Control-Expose-Headers", "").split(",")}
    assert "Access-Control-Allow-Credentials" not in headers
    assert headers["Vary"] == "Accept, Origin"
    return headers.get("Access-Control-Allow-Origin") == origin and exposed >= EXPOSED


# Responses to pages of allowed origins ------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [APP, LOCAL])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/kv/{}", 200),
        ("GET", "/kv/{}", 200),
        ("HEAD", "/kv/{}", 200),
        ("GET", "/kv", 200),
        ("GET", "/stream", 200),
        ("GET", "/kv/{}/absent", 404),
        ("GET", "/nowhere", 404),
        ("POST", "/health", 405),
        ("GET", "/kv/{}?ttl=1", 400),
        ("GET", "/kv/{}?path=%f", 400),
    ],
)
def test_a_page_of_an_allowed_origin_may_read_the_answer_and_the_error(
    sharing: Server, key: str, origin: str, method: str, path: str, status: int
) -> None:
    sharing.put(key, "1")
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
    for _ in range(3):  # also when the header block is known
        response = sharing.request(method, path.format(key), content=b"1", headers=headers)
        assert (response.status_code, is_shared(response, origin)) == (status, True)


def test_a_page_of_an_allowed_origin_may_read_a_not_modified_answer(sharing: Server, key: str) -> None:
    etag = sharing.put(key, "1").headers["ETag"]
    response = sharing.get(key, headers={"Origin": APP, "If-None-Match": etag})
    assert (response.status_code, is_shared(response, APP)) == (304, True)


def test_a_page_of_an_allowed_origin_may_read_the_error_for_a_too_large_request(sharing: Server, key: str) -> None:
    response = sharing.put(key, '"%s"' % ("x" * 2**20), headers={"Origin": APP})
    assert (response.status_code, is_shared(response, APP)) == (413, True)


def test_a_page_of_an_allowed_origin_may_read_the_error_for_a_missing_token(guarded: Server) -> None:
    response = guarded.get("a", headers={"Origin": APP, "Sec-Fetch-Site": "cross-site"})
    assert (response.status_code, is_shared(response, APP)) == (401, True)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://xapp.example.com",
        "http://localhost",
        "null",
        "",
        f"{APP} {LOCAL}",
    ],
)
def test_a_page_of_another_origin_is_refused_and_may_not_read_the_error(sharing: Server, key: str, origin: str) -> None:
    response = sharing.put(key, "1", headers={"Origin": origin})
    assert (refusal(response), is_shared(response, origin)) == (FORBIDDEN, False)
    assert sharing.get(key).status_code == 404


def test_a_request_of_another_site_without_an_origin_is_refused(sharing: Server) -> None:
    assert refusal(sharing.request("GET", "/health", headers={"Sec-Fetch-Site": "cross-site"})) == FORBIDDEN


def test_a_page_of_an_allowed_origin_is_refused_under_an_unknown_host(sharing: Server) -> None:
    response = sharing.request("GET", "/health", headers={"Origin": APP, "Host": "evil.example"})
    assert refusal(response) == FORBIDDEN


def test_a_client_that_is_no_browser_gets_no_cors_headers(sharing: Server, key: str) -> None:
    response = sharing.put(key, "1")
    assert (response.status_code, response.headers["Vary"]) == (201, "Accept, Origin")
    assert "Access-Control-Allow-Origin" not in response.headers


# Preflight ----------------------------------------------------------------------------------------------------


def preflight(server: Server, path: str, origin: str, method: str = "PUT") -> httpx.Response:
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Access-Control-Request-Method": method}
    return server.request(
        "OPTIONS", path, headers=headers | {"Access-Control-Request-Headers": "authorization,if-match"}
    )


PREFLIGHT_PATHS = ["/kv/a", "/kv/a%2Fb", "/get/x", "/set", "/locks/a", "/stream", "/health"]
PREFLIGHT_TARGETS = [*PREFLIGHT_PATHS, "/kv/a?path=/b&ttl=3", "/kv?prefix=a/", "/txn?base64", "/watch?since=1&prefix=a"]


@pytest.mark.parametrize("path", PREFLIGHT_TARGETS)
def test_a_preflight_of_an_allowed_origin_is_answered_without_a_token(guarded: Server, path: str) -> None:
    response = preflight(guarded, path, APP)
    headers = response.headers
    assert (response.status_code, response.content, is_shared(response, APP)) == (204, b"", True)
    assert headers["Access-Control-Allow-Methods"] == headers["Allow"]
    allowed = {name.strip().lower() for name in headers["Access-Control-Allow-Headers"].split(",")}
    assert allowed >= {"authorization", "content-type", "if-match", "if-none-match", "if-lease", "idempotency-key"}
    assert allowed >= {"prefer", "x-request-id"}
    assert 0 < int(headers["Access-Control-Max-Age"]) <= 7_200
    assert "Content-Length" not in headers


def test_a_preflight_names_the_methods_of_the_path(sharing: Server) -> None:
    assert preflight(sharing, "/kv/a", LOCAL).headers["Access-Control-Allow-Methods"] == WRITES
    assert preflight(sharing, "/stream", LOCAL).headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"


def test_a_preflight_of_another_origin_is_refused(sharing: Server) -> None:
    response = preflight(sharing, "/kv/a", "https://evil.example")
    assert refusal(response) == FORBIDDEN
    assert [name for name in response.headers if name.startswith("access-control")] == []


def test_a_preflight_is_refused_where_no_origin_is_allowed(server: Server) -> None:
    response = preflight(server, "/kv/a", APP)
    assert refusal(response) == FORBIDDEN
    assert [name for name in response.headers if name.startswith("access-control")] == []


def test_the_connection_stays_after_a_preflight(sharing: Server, key: str) -> None:
    fields = (f"Origin: {APP}", "Access-Control-Request-Method: PUT")
    with Wire(sharing) as wire:
        wire.send(message("OPTIONS", f"/kv/{key}", *fields), message("PUT", f"/kv/{key}", f"Origin: {APP}", body=b"1"))
        assert [wire.answer().status, wire.answer().status] == [204, 201]


# OPTIONS ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/kv/a", WRITES),
        ("/kv", "DELETE, GET, HEAD, OPTIONS"),
        ("/set", "OPTIONS, POST"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/locks/a", "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
    ],
)
def test_options_names_the_methods_of_a_path(server: Server, path: str, allowed: str) -> None:
    response = server.request("OPTIONS", path)
    assert (response.status_code, response.content, response.headers["Allow"]) == (204, b"", allowed)
    assert [name for name in response.headers if name.startswith("access-control")] == []


def test_options_of_an_entry_names_the_types_of_patches(server: Server) -> None:
    answer = server.request("OPTIONS", "/kv/a").headers["Accept-Patch"]
    assert answer == "application/merge-patch+json, application/json-patch+json"


def test_options_of_the_server_names_all_methods(server: Server) -> None:
    with Wire(server) as wire:
        answer = wire.send(message("OPTIONS", "*")).answer()
    allowed = "DELETE, GET, HEAD, LOCK, OPTIONS, PATCH, POST, PUT, UNLOCK"
    assert (answer.status, answer.headers["allow"]) == (204, allowed)


def test_options_of_an_unknown_path_is_not_found(server: Server) -> None:
    assert refusal(server.request("OPTIONS", "/nowhere")) == (404, "no_such_route")


# Host names of the service ------------------------------------------------------------------------------------


def status_for(server: Server, host: str, *fields: str) -> int:
    lines = ["GET /kv/absent HTTP/1.1", f"Host: {host}", *fields, "", ""]
    with Wire(server) as wire:
        return wire.send("\r\n".join(lines).encode()).answer().status


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("db.example.com:443", "https://db.example.com", 404),
        ("db.example.com:80", "http://db.example.com", 404),
        ("db.example.com", "https://db.example.com:443", 404),
        ("DB.example.com", "https://db.EXAMPLE.com", 404),
        ("db.example.com.", "https://db.example.com", 404),
        ("db.example.com:8443", "https://db.example.com:8443", 404),
        ("[FD00::1]:443", "https://[fd00:0::1]", 404),
        ("db.example.com:80", "https://db.example.com", 403),
        ("db.example.com:443", "http://db.example.com", 403),
        ("db.example.com:8443", "https://db.example.com", 403),
        ("db.example.com", "https://evil.example", 403),
    ],
)
def test_host_and_origin_are_compared_without_case_final_dot_and_default_port(
    host: str, origin: str, status: int
) -> None:
    with running(environment={"LEASEHOLD_ALLOWED_HOSTS": "db.example.com,fd00::1"}) as server:
        assert status_for(server, host, f"Origin: {origin}") == status


@pytest.mark.parametrize("value", ["x:8443", "*", "[fd00::1]", "good.example,*.example.com"])
def test_an_allowed_host_that_no_host_can_match_is_a_usage_error(value: str) -> None:
    result = leasehold("serve", "--store=memory:", "--port=0", environment={"LEASEHOLD_ALLOWED_HOSTS": value})
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("leasehold: LEASEHOLD_ALLOWED_HOSTS: ")
    assert "is not a host name" in result.stderr


def test_an_invalid_allowed_origin_is_a_usage_error() -> None:
    result = leasehold("serve", "--store=memory:", "--port=0", "--allowed-origin=*")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("leasehold: --allowed-origin: '*' is not an origin")


REBINDING = ("evil.example", "Origin: http://evil.example", "Sec-Fetch-Site: same-origin")
"""What a browser sends when a page has made its own name lead to the service."""


def test_a_service_without_tokens_on_another_address_is_reached_only_by_addresses_by_default() -> None:
    hosts = [
        "127.0.0.1",
        "192.0.2.7:8080",
        "[fd00::1]",
        "localhost:1",
        "db.example.com",
        "127.1",
        "1.2.3.4.example",
        "",
    ]
    with running(arguments=["--host=0.0.0.0", "--insecure-open"]) as server:
        statuses = [status_for(server, host) for host in hosts]
        rebound = status_for(server, *REBINDING)
        own_page = status_for(server, "192.0.2.7:8080", "Origin: http://192.0.2.7:8080", "Sec-Fetch-Site: same-origin")
    assert statuses == [404, 404, 404, 404, 403, 403, 403, 403]
    assert (rebound, own_page) == (403, 404)


def test_a_service_without_tokens_on_another_address_is_reached_by_its_allowed_names() -> None:
    names = {"LEASEHOLD_ALLOWED_HOSTS": "db"}
    with running(arguments=["--host=0.0.0.0", "--insecure-open"], environment=names) as server:
        statuses = [status_for(server, host) for host in ("db", "localhost", "127.0.0.1", "192.0.2.7", "evil.example")]
    assert statuses == [404, 404, 404, 403, 403]


def test_a_service_with_tokens_on_another_address_is_reached_by_any_name(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 48)
    secret.chmod(0o600)
    with running(arguments=["--host=0.0.0.0", f"--auth-secret-file={secret}"]) as server:
        assert status_for(server, "db.example.com") == 401


def test_the_error_for_a_refused_name_names_the_setting(server: Server) -> None:
    refused = server.request("GET", "/health", headers={"Host": "db.example.com"})
    assert (refusal(refused), "LEASEHOLD_ALLOWED_HOSTS" in refused.json()["message"]) == (FORBIDDEN, True)
