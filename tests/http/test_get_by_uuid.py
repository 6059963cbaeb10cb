"""`GET /get/{uuid}` and `GET /get`: entries by UUID are read and listed."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from contract import sequence
from databases import STORES
from running import Server, Wire, message, refusal, running

MESSAGEPACK = "application/vnd.msgpack"
NDJSON = "application/x-ndjson"
INVALID_ARGUMENT = (400, "invalid_argument")
NOT_FOUND = (404, "not_found")


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


def set_(server: Server, body: Any, **options: Any) -> httpx.Response:
    return server.request("POST", "/set", content=json.dumps(body), **options)


def test_get_and_kv_read_the_same_entries(server: Server, uuid: str) -> None:
    server.put(uuid, '{"a": [1]}')
    assert server.request("GET", f"/get/{uuid}").json() == server.get(uuid).json()
    set_(server, {"key": uuid, "value": 2})
    assert server.get(uuid).json()["value"] == 2
    server.delete(uuid)
    assert refusal(server.request("GET", f"/get/{uuid}")) == NOT_FOUND


def test_get_reads_parts(server: Server, uuid: str) -> None:
    server.put(uuid, '{"a": {"b": [1, 2]}, "c": 3}')
    one = server.request("GET", f"/get/{uuid}?path=/a/b/1").json()
    two = server.request("GET", f"/get/{uuid}?path=/a/b&path=/c").json()
    missing = server.request("GET", f"/get/{uuid}?path=/x")
    assert (one["value"], one["path"], two["value"]) == (2, "/a/b/1", {"/a/b": [1, 2], "/c": 3})
    assert refusal(missing) == (404, "path_not_found")


@pytest.mark.parametrize("query", ["?raw", "?raw&path=/a", "?path=/a", ""])
@pytest.mark.parametrize("accept", ["application/json", MESSAGEPACK])
def test_get_answers_the_same_as_kv(server: Server, uuid: str, query: str, accept: str) -> None:
    server.put(uuid, '{"a": "ä"}')
    by_uuid, by_key = (
        server.request("GET", f"/{route}/{uuid}{query}", headers={"Accept": accept}) for route in ("get", "kv")
    )
    names = ("ETag", "Content-Type", "Content-Length")
    assert by_uuid.content == by_key.content
    assert [by_uuid.headers[name] for name in names] == [by_key.headers[name] for name in names]


def test_get_checks_preconditions(server: Server, uuid: str) -> None:
    tag = server.put(uuid, "1").headers["ETag"]
    statuses = [
        server.request(method, f"/get/{uuid}", headers=headers).status_code
        for method, headers in [
            ("GET", {"If-None-Match": tag}),
            ("HEAD", {"If-None-Match": tag}),
            ("GET", {"If-None-Match": '"0"'}),
            ("GET", {"If-Match": tag}),
            ("GET", {"If-Match": '"0"'}),
        ]
    ]
    assert statuses == [304, 304, 200, 200, 412]


def test_head_of_an_entry_has_the_length_and_no_body(server: Server, uuid: str) -> None:
    server.put(uuid, "1")
    whole, head = (server.request(method, f"/get/{uuid}") for method in ("GET", "HEAD"))
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(whole.content)))


@pytest.mark.parametrize(("method", "path"), [("GET", "/set"), ("PUT", "/set"), ("POST", "/get/{}")])
@pytest.mark.parametrize("uuid_of_path", ["abcdef00-0000-4000-8000-0000000000aa"])
def test_other_methods_are_not_allowed(server: Server, method: str, path: str, uuid_of_path: str) -> None:
    response = server.request(method, path.format(uuid_of_path), content=b"{}" if method != "GET" else None)
    assert (refusal(response), "Allow" in response.headers) == ((405, "method_not_allowed"), True)


@pytest.mark.parametrize("path", ["/gets", "/set/", "/sets"])
def test_similar_paths_are_not_found(server: Server, path: str) -> None:
    assert refusal(server.request("GET", path)) == (404, "no_such_route")


# GET /get -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=STORES)
def mixed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with 40 UUIDs as keys, in order in `MIXED`, among 2,000 other keys, many of which look alike."""
    with running(STORES[request.param](tmp_path_factory.mktemp("mixed"))) as own:
        values = {key: number for number, key in enumerate(MIXED)}
        others = [*(f"{number:04x}" for number in range(1_000)), *(f"name/{number}" for number in range(1_000))]
        others += [*(f"{key}/x" for key in MIXED), *(key.replace("-", "_") for key in MIXED), MIXED[0].upper()]
        do = [{"op": "put", "key": key, "value": value} for key, value in (dict.fromkeys(others, 0) | values).items()]
        for begin in range(0, len(do), 100):
            assert own.request("POST", "/txn", json={"do": do[begin : begin + 100]}).status_code == 200
        yield own


MIXED = [f"{number:02x}0e8400-e29b-41d4-a716-446655440000" for number in range(0, 240, 6)]


def page_of(response: httpx.Response) -> tuple[list[str], str | None]:
    page = response.json()
    return [entry["key"] for entry in page["entries"]], page["next"]


def test_all_entries_whose_keys_are_uuids_are_listed(mixed: Server) -> None:
    response = mixed.request("GET", "/get")
    assert (response.status_code, page_of(response)) == (200, (MIXED, None))
    assert response.json()["entries"][3] == mixed.get(MIXED[3]).json()
    assert response.json()["revision"] == mixed.revision()


@pytest.mark.parametrize("limit", [1, 7, 39, 40, 41])
def test_pages_of_uuids_have_exactly_the_limit(mixed: Server, limit: int) -> None:
    seen: list[str] = []
    after: str | None = ""
    pages = 0
    while after is not None:
        keys, after = page_of(mixed.request("GET", "/get", params={"limit": limit, "after": after}))
        assert 0 < len(keys) <= limit
        seen += keys
        pages += 1
    assert (seen, pages) == (MIXED, -(-40 // limit))


def test_a_list_of_uuids_takes_prefix_after_and_values(mixed: Server) -> None:
    assert page_of(mixed.request("GET", "/get?prefix=1")) == ([key for key in MIXED if key[0] == "1"], None)
    assert page_of(mixed.request("GET", f"/get?after={MIXED[37]}")) == (MIXED[38:], None)
    assert page_of(mixed.request("GET", "/get?prefix=name/")) == ([], None)
    assert "value" not in mixed.request("GET", "/get?values=false&limit=1").json()["entries"][0]
    assert refusal(mixed.request("GET", "/get?limit=0")) == INVALID_ARGUMENT


def test_a_list_of_uuids_can_be_messagepack(mixed: Server) -> None:
    page = msgspec.msgpack.decode(mixed.request("GET", "/get?limit=3", headers={"Accept": MESSAGEPACK}).content)
    assert ([entry["key"] for entry in page["entries"]], page["next"]) == (MIXED[:3], MIXED[2])


@pytest.mark.parametrize("accept", [MESSAGEPACK, NDJSON])
@pytest.mark.parametrize("query", ["", "?prefix=absent"])
def test_a_stream_of_an_empty_store_is_empty(accept: str, query: str) -> None:
    with running() as empty, Wire(empty) as wire:
        wire.send(message("GET", f"/stream{query}", f"Accept: {accept}"), message("GET", "/health/live"))
        answer = wire.answer()
        seen = (answer.status, answer.headers["content-type"], answer.body, wire.answer().status)
    assert seen == (200, accept, b"", 200)


def test_expired_entries_are_not_streamed(server: Server, key: str) -> None:
    server.put(f"{key}/a", "1", params={"ttl": 0.1})
    server.put(f"{key}/b", "1")
    while server.get(f"{key}/a").status_code == 200:
        pass
    assert [entry["key"] for entry in sequence(server.request("GET", f"/stream?prefix={key}"))] == [f"{key}/b"]


@pytest.mark.parametrize("accept", ["application/json", "text/html", f"{MESSAGEPACK};q=0, {NDJSON};q=0"])
def test_a_stream_of_all_entries_in_another_media_type_is_not_acceptable(server: Server, accept: str) -> None:
    response = server.request("GET", "/stream", headers={"Accept": accept})
    assert (refusal(response), response.headers["Content-Type"]) == ((406, "not_acceptable"), "application/json")


@pytest.mark.parametrize("query", ["limit=5", "after=a", "path=/a", "prefix=a&prefix=b", "prefix=" + "x" * 513])
def test_an_unknown_parameter_of_a_stream_is_refused(server: Server, query: str) -> None:
    assert refusal(server.request("GET", f"/stream?{query}")) == INVALID_ARGUMENT
