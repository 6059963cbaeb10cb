"""`GET /kv?key=…`: several entries of one moment. `DELETE /kv?prefix=…`: all entries with a prefix."""

import json
from itertools import count
from typing import Any

import httpx
import msgspec
import pytest
from callers import BOTH, FORBIDDEN, READER, WRITER, bearer, put, token
from running import Server, Wire, message, refusal

_numbers = count(1)
MSGPACK = "application/vnd.msgpack"


@pytest.fixture(scope="module")
def server(still_server: Server) -> Server:
    """Every test of this file runs on every engine. Nothing expires, so revisions can be counted."""
    return still_server


@pytest.fixture(scope="module")
def guarded(any_guarded: Server) -> Server:
    """Permissions are tested on every engine, too."""
    return any_guarded


@pytest.fixture
def key() -> str:
    return f"several/{next(_numbers):05}"


def get(server: Server, *keys: str, **options: Any) -> httpx.Response:
    return server.request("GET", "/kv", params={"key": list(keys), **options.pop("query", {})}, **options)


# Several entries ----------------------------------------------------------------------------------------------


def test_several_entries_are_read_in_the_order_of_the_request_without_missing_ones(server: Server, key: str) -> None:
    for name in ("a", "b", "ä b"):
        server.put(f"{key}/{name}", json.dumps(name))
    listed = get(server, f"{key}/ä b", f"{key}/absent", f"{key}/b", f"{key}/a").json()
    expected = [server.get(f"{key}/{name}").json() for name in ("ä b", "b", "a")]
    assert listed == {"entries": expected, "revision": server.revision(), "next": None}


def test_one_key_that_is_missing_is_an_empty_list(server: Server, key: str) -> None:
    assert get(server, key).json() == {"entries": [], "revision": server.revision(), "next": None}


def test_values_can_be_left_out(server: Server, key: str) -> None:
    server.put(key, "1")
    [entry] = get(server, key, query={"values": "false"}).json()["entries"]
    assert sorted(entry) == ["created_at", "key", "revision", "updated_at"]


def test_several_entries_are_sent_as_messagepack(server: Server, key: str) -> None:
    server.put(key, "[1]")
    response = get(server, key, f"{key}/absent", headers={"Accept": MSGPACK})
    listed = msgspec.msgpack.decode(response.content)
    assert listed["entries"] == [server.get(key).json()]
    assert listed["next"] is None


def test_several_entries_are_sent_over_http_1_0(server: Server, key: str) -> None:
    server.put(key, "[1]")
    with Wire(server) as wire:
        wire.send(message("GET", f"/kv?key={key}", version="HTTP/1.0"))
        assert wire.answer().status == 200


def test_128_keys_are_read_and_more_are_refused(server: Server, key: str) -> None:
    server.put(f"{key}/127", "1")
    keys = [f"{key}/{number}" for number in range(128)]
    assert [entry["key"] for entry in get(server, *keys).json()["entries"]] == [f"{key}/127"]
    more = get(server, *keys, key)
    assert (refusal(more), more.json()["limit"]) == ((400, "invalid_argument"), 128)


@pytest.mark.parametrize("query", [{"prefix": "a"}, {"after": "a"}, {"limit": "1"}])
def test_key_cannot_be_combined_with_the_parameters_of_a_list(server: Server, query: dict[str, str]) -> None:
    assert refusal(get(server, "a", query=query)) == (400, "invalid_argument")


@pytest.mark.parametrize("wrong", ["", "a//b", "x" * 513, "a\tb"])
def test_an_invalid_key_is_refused(server: Server, wrong: str) -> None:
    assert refusal(get(server, "a", wrong)) == (400, "invalid_key")


def test_values_of_8_mib_together_are_too_large(server: Server, key: str) -> None:
    for number in range(9):
        body = json.dumps("x" * (1024 * 1024 - 10))
        server.put(f"{key}/{number}", body, headers={"Prefer": "return=minimal"})
    keys = [f"{key}/{number}" for number in range(9)]
    assert len(get(server, *keys[:8]).json()["entries"]) == 8
    more = get(server, *keys)
    assert (refusal(more), more.json()["limit"]) == ((413, "too_large"), 8 * 1024 * 1024)
    assert len(get(server, *keys, query={"values": "false"}).json()["entries"]) == 9


def test_each_key_must_be_covered_by_the_token(guarded: Server, key: str) -> None:
    own = bearer(token("read", prefixes=[f"{key}/own"]))
    put(guarded, f"{key}/own")
    assert len(get(guarded, f"{key}/own", headers=own).json()["entries"]) == 1
    assert refusal(get(guarded, f"{key}/own", f"{key}/other", headers=own)) == FORBIDDEN
    assert refusal(get(guarded, f"{key}/own", headers=WRITER)) == FORBIDDEN


# Deletion by prefix -------------------------------------------------------------------------------------------


def delete(server: Server, prefix: str | None, **options: Any) -> httpx.Response:
    return server.request("DELETE", "/kv", params={} if prefix is None else {"prefix": prefix}, **options)


def keys_with(server: Server, prefix: str) -> list[str]:
    listed = server.request("GET", "/kv", params={"prefix": prefix, "values": "false"}).json()
    return [entry["key"] for entry in listed["entries"]]


def test_all_entries_with_the_prefix_are_deleted_and_counted(server: Server, key: str) -> None:
    for name in ("/a", "/b/c", "/ä", "0", ""):
        server.put(f"{key}{name}", "1")
    before = server.revision()
    response = delete(server, f"{key}/")
    assert response.json() == {"prefix": f"{key}/", "deleted": 3, "revision": before + 3}
    assert keys_with(server, key) == [key, f"{key}0"]
    assert server.revision() == before + 3


def test_more_entries_than_one_step_are_deleted(server: Server, key: str) -> None:
    do = [{"op": "put", "key": f"{key}/{number:03}", "value": number} for number in range(600)]
    for begin in range(0, 600, 100):
        server.request("POST", "/txn", json={"do": do[begin : begin + 100]})
    assert delete(server, f"{key}/").json()["deleted"] == 600
    assert keys_with(server, key) == []


def test_a_prefix_of_no_entry_deletes_nothing(server: Server, key: str) -> None:
    before = server.revision()
    assert delete(server, key).json() == {"prefix": key, "deleted": 0, "revision": before}


@pytest.mark.parametrize("prefix", [None, "", "x" * 513])
def test_the_prefix_must_be_given_and_not_be_empty(server: Server, key: str, prefix: str | None) -> None:
    server.put(key, "1")
    assert refusal(delete(server, prefix)) == (400, "invalid_argument")
    assert server.value(key) == 1


def test_a_deletion_by_prefix_under_if_lease_is_fenced(server: Server, key: str) -> None:
    server.put(key, "1")
    lease = server.lease(key)["lease_id"]
    server.release(key, lease)
    refused = delete(server, key, headers={"If-Lease": lease})
    assert (refusal(refused), refused.json()["deleted"], server.value(key)) == ((412, "lease_lost"), 0, 1)
    lease = server.lease(key)["lease_id"]
    assert delete(server, key, headers={"If-Lease": lease}).json()["deleted"] == 1


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_a_deletion_by_prefix_has_no_conditions(server: Server, key: str, header: str) -> None:
    server.put(key, "1")
    assert refusal(delete(server, key, headers={header: "*"})) == (400, "invalid_argument")
    assert server.value(key) == 1


def test_a_deletion_by_prefix_needs_write_and_a_prefix_that_the_token_covers(guarded: Server, key: str) -> None:
    put(guarded, f"{key}/own/a")
    own = bearer(token("write", prefixes=[f"{key}/own/"]))
    assert refusal(delete(guarded, f"{key}/", headers=READER)) == FORBIDDEN
    assert refusal(delete(guarded, f"{key}/", headers=own)) == FORBIDDEN
    assert refusal(delete(guarded, f"{key}/own", headers=own)) == FORBIDDEN
    assert guarded.get(f"{key}/own/a", headers=BOTH).status_code == 200
    assert delete(guarded, f"{key}/own/", headers=own).json()["deleted"] == 1
