"""`POST /txn`: several checks and operations, all or nothing, at one revision."""

import json
from itertools import count
from typing import Any

import httpx
import msgspec
import pytest
from callers import BOTH, FORBIDDEN, READER, WRITER, bearer, put, token
from running import Server, refusal

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
    return f"txn/{next(_numbers):05}"


def transact(server: Server, *do: Any, checks: Any = None, query: str = "", **options: Any) -> httpx.Response:
    body = {"do": list(do)} | ({} if checks is None else {"if": checks})
    return server.request("POST", f"/txn{query}", content=json.dumps(body), **options)


def op(name: str, key: str, **members: Any) -> dict[str, Any]:
    return {"op": name, "key": key, **members}


def entries(server: Server, prefix: str) -> dict[str, tuple[Any, int]]:
    listed = server.request("GET", "/kv", params={"prefix": prefix}).json()["entries"]
    return {entry["key"]: (entry["value"], entry["revision"]) for entry in listed}


# Done ---------------------------------------------------------------------------------------------------------


def test_all_operations_are_done_at_one_revision(server: Server, key: str) -> None:
    for name, value in (("c", {"state": "open"}), ("d", {"a": 1}), ("e", [1]), ("f", 1), ("z", "z")):
        server.put(f"{key}/{name}", json.dumps(value))
    before = server.revision()
    response = transact(
        server,
        op("put", f"{key}/a", value=1, ttl=3000),
        op("put", f"{key}/c", path="/n", value=2),
        op("merge", f"{key}/d", value={"b": 2}),
        op("patch", f"{key}/e", patch=[{"op": "add", "path": "/-", "value": 2}]),
        op("delete", f"{key}/f"),
        op("get", f"{key}/z"),
        op("get", f"{key}/c"),
        op("get", f"{key}/absent"),
        checks=[{"key": f"{key}/a", "revision": None}, {"key": f"{key}/c", "path": "/state", "value": "open"}],
    )
    assert response.status_code == 200
    assert "ETag" not in response.headers
    done = response.json()
    revision = before + 1
    assert (done["revision"], server.revision()) == (revision, revision)
    assert [each["revision"] for each in done["results"]] == [revision] * 5 + [before, revision, None]
    a, c, _, _, f, z, c_again, absent = done["results"]
    assert sorted(a) == ["created_at", "expires_at", "key", "revision", "updated_at"]
    assert (c["path"], "value" in c) == ("/n", False)
    assert f == {"key": f"{key}/f", "deleted": True, "revision": revision}
    assert z == server.get(f"{key}/z").json()
    assert c_again["value"] == {"state": "open", "n": 2}
    assert absent == {"key": f"{key}/absent", "revision": None}
    assert entries(server, key) == {
        f"{key}/a": (1, revision),
        f"{key}/c": ({"state": "open", "n": 2}, revision),
        f"{key}/d": ({"a": 1, "b": 2}, revision),
        f"{key}/e": ([1, 2], revision),
        f"{key}/z": ("z", before),
    }


def test_gets_alone_are_a_consistent_read_that_changes_nothing(server: Server, key: str) -> None:
    server.put(key, "1")
    revision = server.revision()
    done = transact(server, op("get", key), op("get", f"{key}/absent"), op("get", key)).json()
    entry = server.get(key).json()
    assert done == {"revision": revision, "results": [entry, {"key": f"{key}/absent", "revision": None}, entry]}
    assert server.revision() == revision


def test_messagepack_is_accepted_and_sent(server: Server, key: str) -> None:
    body = msgspec.msgpack.encode(
        {"if": [{"key": key, "revision": None}], "do": [op("put", key, value={"n": 2**64 - 1}), op("get", key)]}
    )
    headers = {"Content-Type": MSGPACK, "Accept": MSGPACK}
    response = server.request("POST", "/txn", content=body, headers=headers)
    done = msgspec.msgpack.decode(response.content)
    assert (response.status_code, response.headers["Content-Type"]) == (200, MSGPACK)
    assert done["results"][1]["value"] == {"n": 2**64 - 1}
    again = server.request("POST", "/txn", content=body, headers=headers)
    [failed] = msgspec.msgpack.decode(again.content)["failed"]
    assert (again.status_code, failed) == (412, {"index": 0, "key": key, "revision": done["revision"]})


def test_128_checks_and_128_operations_are_done_and_more_are_refused(server: Server, key: str) -> None:
    do = [op("put", f"{key}/{number}", value=number) for number in range(128)]
    checks = [{"key": f"{key}/{number}", "exists": False} for number in range(128)]
    done = transact(server, *do, checks=checks)
    assert done.status_code == 200
    assert {revision for _, revision in entries(server, key).values()} == {done.json()["revision"]}
    assert len(entries(server, key)) == 128
    for more in (
        transact(server, *do, op("get", key), checks=checks[:1]),
        transact(server, do[0], checks=[*checks, checks[0]]),
    ):
        assert (refusal(more), more.json()["limit"]) == ((400, "invalid_argument"), 128)


def test_a_write_under_if_lease_is_fenced(server: Server, key: str) -> None:
    lease = server.lease(key)
    fenced = {"If-Lease": lease["lease_id"]}
    assert transact(server, op("put", key, value=1), headers=fenced).status_code == 200
    server.release(key, lease["lease_id"])
    refused = transact(server, op("put", key, value=2), checks=[{"key": key, "revision": 1}], headers=fenced)
    assert (refusal(refused), server.value(key)) == ((412, "lease_lost"), 1)


# Refused ------------------------------------------------------------------------------------------------------


def test_all_failed_checks_are_listed_and_nothing_is_changed(server: Server, key: str) -> None:
    revision = server.put(key, '{"state": "open", "n": 1}').json()["revision"]
    lease = server.lease(key)["lease_id"]
    head = server.revision()
    checks = [
        {"key": key, "revision": revision},
        {"key": key, "revision": revision - 1},
        {"key": key, "revision": None},
        {"key": key, "exists": True},
        {"key": key, "exists": False},
        {"key": key, "path": "/state", "value": "open"},
        {"key": key, "path": "/n", "value": True},
        {"key": key, "value": {"n": 1.0, "state": "open"}},
        {"key": key, "path": "/absent", "value": None},
        {"key": f"{key}/absent", "exists": True},
        {"lease": lease},
        {"lease": "0" * 32},
    ]
    refused = transact(server, op("put", f"{key}/new", value=1), op("delete", key), checks=checks)
    here = {"key": key, "revision": revision}
    assert refusal(refused) == (412, "precondition_failed")
    assert refused.json()["failed"] == [
        {"index": 1, **here},
        {"index": 2, **here},
        {"index": 4, **here},
        {"index": 6, **here},
        {"index": 8, **here},
        {"index": 9, "key": f"{key}/absent", "revision": None},
        {"index": 11, "error": "lease_lost"},
    ]
    assert (server.revision(), list(entries(server, key))) == (head, [key])


def test_current_adds_the_entries_to_the_failed_checks(server: Server, key: str) -> None:
    server.put(key, '{"n": 1}')
    checks = [{"key": key, "revision": None}, {"key": f"{key}/absent", "exists": True}]
    refused = transact(server, op("get", key), checks=checks, query="?current")
    assert [each["current"] for each in refused.json()["failed"]] == [server.get(key).json(), None]


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        ({"op": "delete", "key": "KEY/absent"}, (404, "not_found")),
        ({"op": "merge", "key": "KEY/absent", "value": {}}, (404, "not_found")),
        ({"op": "put", "key": "KEY", "path": "/n/x", "value": 1}, (409, "conflict")),
        ({"op": "put", "key": "KEY", "path": "/list/7", "value": 1}, (404, "path_not_found")),
        ({"op": "patch", "key": "KEY", "patch": [{"op": "remove", "path": "/x"}]}, (422, "patch_failed")),
    ],
)
def test_a_refused_operation_has_its_own_status_and_its_index_and_nothing_is_changed(
    server: Server, key: str, do: dict[str, Any], expected: tuple[int, str]
) -> None:
    server.put(key, '{"n": 1, "list": []}')
    before = entries(server, key)
    do = do | {"key": do["key"].replace("KEY", key)}
    refused = transact(server, op("put", f"{key}/new", value=1), op("get", key), do, op("put", f"{key}/late", value=1))
    assert refusal(refused) == expected
    assert (refused.json()["index"], refused.json()["key"]) == (2, do["key"])
    assert entries(server, key) == before


WRONG: list[tuple[Any, str]] = [
    (1, "invalid_argument"),
    ([], "invalid_argument"),
    ({}, "invalid_argument"),
    ({"do": []}, "invalid_argument"),
    ({"do": {}}, "invalid_argument"),
    ({"do": [1]}, "invalid_argument"),
    ({"do": [{}]}, "invalid_argument"),
    ({"do": [{"op": "spam", "key": "a"}]}, "invalid_argument"),
    ({"do": [{"op": ["put"], "key": "a", "value": 1}]}, "invalid_argument"),
    ({"do": [{"op": "put", "key": "a"}]}, "invalid_argument"),
    ({"do": [{"op": "put", "value": 1}]}, "invalid_argument"),
    ({"do": [{"op": "put", "key": 1, "value": 1}]}, "invalid_key"),
    ({"do": [{"op": "put", "key": "a//b", "value": 1}]}, "invalid_key"),
    ({"do": [{"op": "put", "key": "a", "value": 1, "path": ["a"]}]}, "invalid_path"),
    ({"do": [{"op": "put", "key": "a", "value": 1, "path": "a"}]}, "invalid_path"),
    ({"do": [{"op": "put", "key": "a", "value": 1, "ttl": 0}]}, "invalid_argument"),
    ({"do": [{"op": "put", "key": "a", "value": 1, "ttl": "5"}]}, "invalid_argument"),
    ({"do": [{"op": "put", "key": "a", "value": 1, "lease_id": "x"}]}, "invalid_argument"),
    ({"do": [{"op": "merge", "key": "a"}]}, "invalid_argument"),
    ({"do": [{"op": "patch", "key": "a", "patch": {}}]}, "invalid_argument"),
    ({"do": [{"op": "patch", "key": "a", "patch": [{"op": "add", "path": "x", "value": 1}]}]}, "invalid_path"),
    ({"do": [{"op": "delete", "key": "a", "path": "/a"}]}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a", "value": 1}]}, "invalid_argument"),
    ({"do": [{"op": "put", "key": "a", "value": 1}, {"op": "delete", "key": "a"}]}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "else": []}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "if": {}}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "if": ["a"]}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "if": [{"key": "a"}]}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "if": [{"revision": 1}]}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "if": [{"key": "a", "revision": True}]}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "if": [{"key": "a", "revision": -1}]}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "if": [{"key": "a", "revision": 1.5}]}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "if": [{"key": "a", "revision": 1, "exists": True}]}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "if": [{"key": "a", "exists": 1}]}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "if": [{"key": "a", "path": "/a"}]}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "if": [{"key": "a", "path": "x", "value": 1}]}, "invalid_path"),
    ({"do": [{"op": "get", "key": "a"}], "if": [{"key": "", "exists": True}]}, "invalid_key"),
    ({"do": [{"op": "get", "key": "a"}], "if": [{"lease": 1}]}, "invalid_argument"),
    ({"do": [{"op": "get", "key": "a"}], "if": [{"lease": "x", "key": "a"}]}, "invalid_argument"),
]


@pytest.mark.parametrize(("body", "code"), WRONG, ids=lambda each: json.dumps(each)[:70])
def test_a_malformed_transaction_is_refused(server: Server, body: Any, code: str) -> None:
    response = server.request("POST", "/txn", content=json.dumps(body))
    assert refusal(response) == (400, code)


def test_an_invalid_operation_is_named_by_its_index(server: Server) -> None:
    response = transact(server, op("get", "a"), op("put", "a//b", value=1))
    assert (refusal(response), response.json()["index"]) == ((400, "invalid_key"), 1)
    assert response.json()["message"].startswith("operation 1: ")


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_conditions_in_headers_are_refused_because_they_would_not_protect_anything(
    server: Server, key: str, header: str
) -> None:
    refused = transact(server, op("put", key, value=1), headers={header: "*"})
    assert (refusal(refused), server.get(key).status_code) == ((400, "invalid_argument"), 404)


@pytest.mark.parametrize("query", ["?ttl=5", "?current=2", "?current&current"])
def test_unknown_and_malformed_parameters_are_refused(server: Server, query: str) -> None:
    assert refusal(transact(server, op("get", "a"), query=query)) == (400, "invalid_argument")


def test_content_range_is_refused(server: Server, key: str) -> None:
    refused = transact(server, op("put", key, value=1), headers={"Content-Range": "bytes 0-1/2"})
    assert refusal(refused) == (400, "invalid_argument")


def test_values_that_are_read_may_have_2_mib_together(server: Server, key: str) -> None:
    for name in "abc":
        server.put(f"{key}/{name}", json.dumps("x" * (1024 * 1024 - 10)), headers={"Prefer": "return=minimal"})
    assert transact(server, op("get", f"{key}/a"), op("get", f"{key}/b")).status_code == 200
    more = transact(server, *(op("get", f"{key}/{name}") for name in "abc"))
    assert (refusal(more), more.json()["limit"]) == ((413, "too_large"), 2 * 1024 * 1024)
    packed = transact(server, op("get", f"{key}/a"), op("get", f"{key}/b"), headers={"Accept": MSGPACK})
    assert len(msgspec.msgpack.decode(packed.content)["results"]) == 2


def test_the_limit_of_bodies_applies(server: Server, key: str) -> None:
    body = json.dumps({"do": [op("put", key, value=1)]}).encode().ljust(1024 * 1024)
    assert server.request("POST", "/txn", content=body).status_code == 200
    more = server.request("POST", "/txn", content=body + b" ")
    assert (refusal(more), more.json()["limit"]) == ((413, "too_large"), len(body))


# Permissions --------------------------------------------------------------------------------------------------


def test_a_get_needs_read_and_every_write_needs_write(guarded: Server, key: str) -> None:
    put(guarded, key, {"n": 1})
    get, write = op("get", key), op("put", key, value={"n": 1})
    assert transact(guarded, get).status_code == 401
    assert transact(guarded, get, headers=READER).status_code == 200
    assert transact(guarded, write, headers=WRITER).status_code == 200
    assert transact(guarded, get, write, headers=BOTH).status_code == 200
    for headers, do in ((READER, write), (WRITER, get), (bearer(token()), get), (bearer(token("admin")), write)):
        assert refusal(transact(guarded, do, headers=headers)) == FORBIDDEN
    for change in (op("merge", key, value={}), op("patch", key, patch=[]), op("delete", key)):
        assert refusal(transact(guarded, change, headers=READER)) == FORBIDDEN


def test_what_shows_a_stored_value_needs_read(guarded: Server, key: str) -> None:
    put(guarded, key, {"n": 1})
    write = op("put", f"{key}/b", value=1)
    shows = [
        transact(guarded, write, checks=[{"key": key, "path": "/n", "value": 1}], headers=WRITER),
        transact(guarded, write, query="?current", headers=WRITER),
        transact(guarded, op("patch", key, patch=[{"op": "test", "path": "/n", "value": 1}]), headers=WRITER),
    ]
    assert [refusal(each) for each in shows] == [FORBIDDEN] * 3


def test_a_caller_with_write_alone_gets_receipts_and_no_revision_of_others(guarded: Server, key: str) -> None:
    put(guarded, key, {"n": "stored-value"})
    revision = guarded.get(key, headers=BOTH).json()["revision"]
    write = op("put", key, path="/m", value=1)
    done = transact(guarded, write, checks=[{"key": key, "revision": revision}], headers=WRITER).json()
    assert sorted(done["results"][0]) == ["key", "path", "revision", "updated_at"]
    refused = transact(guarded, write, checks=[{"key": key, "revision": 0}, {"lease": "x"}], headers=WRITER)
    assert refused.json()["failed"] == [{"index": 0, "key": key}, {"index": 1, "error": "lease_lost"}]
    refused = transact(guarded, op("put", key, path="/n/x", value=1), headers=WRITER)
    shown = {name: part for name, part in refused.json().items() if name != "request_id"}
    assert shown == {
        "error": "conflict",
        "message": "the change cannot be applied to the stored value",
        "index": 0,
        "key": key,
    }


def test_each_key_must_be_covered_by_the_prefixes_of_the_token(guarded: Server, key: str) -> None:
    own = bearer(token("read", "write", prefixes=[f"{key}/own"]))
    mine, other = f"{key}/own/a", f"{key}/other"
    assert transact(guarded, op("put", mine, value=1), op("get", f"{key}/own"), headers=own).status_code == 200
    for do, checks in (
        ([op("put", other, value=1)], []),
        ([op("put", mine, value=1), op("get", other)], []),
        ([op("put", mine, value=1)], [{"key": other, "revision": None}]),
        ([op("put", mine, value=1)], [{"key": other, "path": "/a", "value": 1}]),
    ):
        assert refusal(transact(guarded, *do, checks=checks, headers=own)) == FORBIDDEN
