"""Cross-site requests and unknown hosts are refused, with and without tokens."""

import pytest
from callers import BOTH, FORBIDDEN, request, status_for_host
from running import Server, Wire, refusal, running

OWN = "localhost:{port}"
PAGES: dict[str, tuple[dict[str, str], bool]] = {
    "no page": ({}, True),
    "own origin": ({"Origin": "http://" + OWN}, True),
    "own origin over TLS": ({"Origin": "https://" + OWN}, True),
    "own origin in capitals": ({"Origin": "http://LOCALHOST:{port}"}, True),
    "own page": ({"Origin": "http://" + OWN, "Sec-Fetch-Site": "same-origin"}, True),
    "typed address": ({"Sec-Fetch-Site": "none"}, True),
    "foreign origin": ({"Origin": "http://evil.example"}, False),
    "foreign origin over TLS": ({"Origin": "https://evil.example"}, False),
    "origin null": ({"Origin": "null"}, False),
    "origin empty": ({"Origin": ""}, False),
    "origin of another port": ({"Origin": "http://localhost:1"}, False),
    "origin without the port": ({"Origin": "http://localhost"}, False),
    "origin that begins with ours": ({"Origin": "http://" + OWN + ".evil.example"}, False),
    "origin that ends with ours": ({"Origin": "http://evil." + OWN}, False),
    "origin of a name that means us": ({"Origin": "http://127.0.0.1:{port}"}, False),
    "two origins": ({"Origin": "http://" + OWN + " http://evil.example"}, False),
    "cross-site": ({"Sec-Fetch-Site": "cross-site"}, False),
    "same-site": ({"Sec-Fetch-Site": "same-site"}, False),
    "cross-site with our origin": ({"Origin": "http://" + OWN, "Sec-Fetch-Site": "cross-site"}, False),
    "same-origin with a foreign origin": ({"Origin": "http://evil", "Sec-Fetch-Site": "same-origin"}, False),
    "site unknown": ({"Sec-Fetch-Site": "whatever"}, False),
    "site empty": ({"Sec-Fetch-Site": ""}, False),
}


@pytest.mark.parametrize("kind", PAGES)
def test_only_pages_of_the_same_origin_are_admitted_with_and_without_tokens(
    server: Server, guarded: Server, kind: str
) -> None:
    sent, is_own = PAGES[kind]
    for asked in (server, guarded):
        port = str(asked.address[1])
        headers = {name: text.replace("{port}", port) for name, text in sent.items()}
        headers |= {"Host": f"localhost:{port}"} | (BOTH if asked is guarded else {})
        responses = [
            request(asked, method, target, headers)
            for method, target in (("GET", "/kv/absent"), ("PUT", "/kv/page"), ("GET", "/health"), ("GET", "/stream"))
        ]
        assert [response.status_code != 403 for response in responses] == [is_own] * 4
        assert is_own or [refusal(response) for response in responses] == [FORBIDDEN] * 4
        asked.delete("page", headers=BOTH)


def test_a_refused_cross_site_request_changes_nothing(server: Server, key: str) -> None:
    server.put(key, "1", headers={"Origin": "http://evil.example"})
    assert server.get(key).status_code == 404


def test_an_answer_has_no_cors_headers_by_default(server: Server) -> None:
    headers = server.request("GET", "/health", headers={"Origin": "http://evil.example"}).headers
    assert [name for name in headers if name.startswith("access-control")] == []


OWN_HOSTS = ["localhost", "localhost:1", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:9", "[::1]", "[::1]:80"]
FOREIGN_HOSTS = ["evil.example", "evil.example:8080", "localhost.evil.example", "evil-localhost", "127.0.0.2", "", "["]
FOREIGN_HOSTS += ["0.0.0.0", "127.1", "[::2]", "xn--lcalhost-6za", "l\xf6calhost", ":8080"]


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_a_request_with_an_allowed_host_is_answered(server: Server, host: str) -> None:
    assert [status_for_host(server, host) for _ in range(2)] == [404, 404]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_request_with_an_unknown_host_is_refused_on_loopback(server: Server, guarded: Server, host: str) -> None:
    field = f"Authorization: {BOTH['Authorization']}"
    statuses = [status_for_host(server, host), status_for_host(server, host), status_for_host(guarded, host, field)]
    assert [status in (400, 403) for status in statuses] == [True] * 3


def test_the_host_is_checked_before_the_token(guarded: Server) -> None:
    assert status_for_host(guarded, "evil.example") == 403


def test_http_1_0_without_a_host_is_answered(server: Server) -> None:
    with Wire(server) as wire:
        assert wire.send(b"GET /health HTTP/1.0\r\n\r\n").answer().status == 200
    with Wire(server) as wire:
        assert wire.send(b"GET /health HTTP/1.0\r\nOrigin: null\r\n\r\n").answer().status == 403


def test_the_allowed_hosts_setting_adds_names() -> None:
    with running(environment={"LEASEHOLD_ALLOWED_HOSTS": "db.example, Other.Example ,"}) as server:
        hosts = ["db.example", "DB.example:443", "other.example", "localhost", "evil.example", "x.db.example"]
        statuses = [status_for_host(server, host) for host in hosts]
        page = status_for_host(server, "db.example", "Origin: https://db.example")
        foreign = status_for_host(server, "db.example", "Origin: https://evil.example")
    assert (statuses, page, foreign) == ([404, 404, 404, 404, 403, 403], 404, 403)
