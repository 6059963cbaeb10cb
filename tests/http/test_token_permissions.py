"""Permissions and prefixes of tokens: which requests for entries are done, and which are forbidden."""

import json

import msgspec
import pytest
from callers import (
    BOTH,
    FORBIDDEN,
    NAMES,
    PREFIX_SETS,
    READER,
    UUID,
    WRITER,
    bearer,
    covered,
    needs_admin,
    pages,
    put,
    request,
    routes,
    token,
)
from contract import sequence
from running import Server, refusal

# Permissions --------------------------------------------------------------------------------------------------


def test_a_token_with_read_is_forbidden_on_every_write(guarded: Server) -> None:
    seen = {
        (method, target): refusal(response) if response.status_code == 403 else None
        for method, target in routes(guarded)
        for response in [request(guarded, method, target, READER)]
    }
    may_read = {route for route in seen if route[0] == "GET" and not needs_admin(route[1])}
    assert seen == {route: None if route in may_read else FORBIDDEN for route in seen}


def test_a_token_with_write_is_forbidden_on_every_read(guarded: Server) -> None:
    statuses = {
        (method, target): request(guarded, method, target, WRITER).status_code == 403
        for method, target in routes(guarded)
    }
    by_force = ("DELETE", "/terraform/a/lock")  # without a body it ends the lease of any holder
    assert statuses == {route: route[0] == "GET" or route == by_force or needs_admin(route[1]) for route in statuses}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_a_token_without_permissions_is_forbidden_everywhere(guarded: Server, method: str) -> None:
    response = guarded.request(method, "/kv/a", headers=bearer(token()), content=b"1" if method == "PUT" else None)
    assert (response.status_code, "WWW-Authenticate" in response.headers) == (403, False)


# Prefixes -----------------------------------------------------------------------------------------------------


def test_requests_for_covered_keys_are_done(guarded: Server, key: str) -> None:
    own = bearer(token("read", "write", prefixes=[f"{key}/own", UUID[:8]]))
    put(guarded, f"{key}/other")
    put(guarded, f"{key}/owned")
    covered = [
        guarded.put(f"{key}/own", "1", headers=own).status_code,
        guarded.get(f"{key}/owned", headers=own).status_code,
        guarded.patch(f"{key}/own", "2", headers=own).status_code,
        guarded.delete(f"{key}/own", headers=own).status_code,
        guarded.request("POST", "/set", content=f'{{"key": "{UUID.upper()}", "value": 1}}', headers=own).status_code,
        guarded.request("GET", f"/get/{UUID.upper()}", headers=own).status_code,
        guarded.request("GET", f"/stream/{UUID}", headers=own).status_code,
    ]
    assert covered == [201, 200, 200, 200, 201, 200, 200]


def test_requests_for_keys_that_no_prefix_covers_are_forbidden(guarded: Server, key: str) -> None:
    own = bearer(token("read", "write", prefixes=[f"{key}/own"]))
    guarded.request("POST", "/set", content=f'{{"key": "{UUID}", "value": 1}}', headers=BOTH)
    put(guarded, f"{key}/other")
    refused = [
        guarded.get(name, headers=own) for name in (f"{key}/other", f"{key}/absent", key, f"{key}/Own", f"x{key}/own")
    ]
    refused += [request(guarded, method, f"/kv/{key}/other", own) for method in ("PUT", "POST", "DELETE")]
    refused += [guarded.patch(f"{key}/other", "1", headers=own)]
    refused += [guarded.request("GET", f"/{route}/{UUID}", headers=own) for route in ("get", "stream")]
    bodies = [{"key": UUID, "value": 1}, {"value": 1}]
    refused += [guarded.request("POST", "/set", content=json.dumps(body), headers=own) for body in bodies]
    assert [refusal(response) for response in refused] == [FORBIDDEN] * len(refused)
    assert len({response.json()["message"] for response in refused}) == 1
    assert guarded.get(f"{key}/other", headers=BOTH).json()["value"] == 1


def test_a_prefix_is_compared_with_the_decoded_key(guarded: Server, key: str) -> None:
    own = bearer(token("read", "write", prefixes=[f"{key}/ä/"]))
    assert guarded.put(f"{key}%2F%C3%A4/1", "1", headers=own).status_code == 201
    assert refusal(guarded.put(f"{key}%2F%C3%A5/1", "1", headers=own)) == FORBIDDEN
    assert refusal(guarded.get(f"{key}/%C3%A4/../1", headers=own))[0] in (400, 403)


@pytest.fixture(scope="module")
def listing(guarded: Server) -> str:
    """A folder with NAMES in it."""
    for name in NAMES:
        put(guarded, f"listing/{name}", name)
    return "listing/"


@pytest.mark.parametrize("prefixes", PREFIX_SETS, ids=str)
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 12])
def test_pages_across_prefixes_have_every_covered_entry_once(
    guarded: Server, listing: str, prefixes: list[str], limit: int
) -> None:
    own = bearer(token("read", prefixes=[listing + prefix for prefix in prefixes]))
    found = list(pages(guarded, own, limit=str(limit)))
    expected = [listing + name for name in covered(prefixes)]
    assert [name for page in found for name in page] == expected
    assert [len(page) for page in found] == [len(expected[i : i + limit]) for i in range(0, len(expected) or 1, limit)]


@pytest.mark.parametrize("prefixes", PREFIX_SETS, ids=str)
@pytest.mark.parametrize("asked", ["", "a", "a/", "c/3", "b", "zz"])
def test_lists_and_streams_show_only_covered_entries(
    guarded: Server, listing: str, prefixes: list[str], asked: str
) -> None:
    own = bearer(token("read", prefixes=[listing + prefix for prefix in prefixes]))
    parameters = {"prefix": listing + asked}
    page = guarded.request("GET", "/kv", params=parameters, headers=own).json()
    streams = [
        sequence(guarded.request("GET", "/stream", params=parameters, headers=own | {"Accept": accept}))
        for accept in ("application/vnd.msgpack", "application/x-ndjson")
    ]
    packed = guarded.request("GET", "/kv", params=parameters, headers=own | {"Accept": "application/vnd.msgpack"})
    assert [entry["value"] for entry in page["entries"]] == covered(prefixes, asked)
    assert [*streams, msgspec.msgpack.decode(packed.content)["entries"]] == [page["entries"]] * 3
    assert (page["next"], page["revision"] > 0) == (None, True)


def test_a_list_after_a_key_that_is_not_covered_is_answered(guarded: Server, listing: str) -> None:
    own = bearer(token("read", prefixes=[f"{listing}a/", f"{listing}c/"]))
    page = guarded.request("GET", "/kv", params={"after": f"{listing}b", "limit": "2"}, headers=own).json()
    assert ([entry["value"] for entry in page["entries"]], page["next"]) == (["c/1", "c/2"], f"{listing}c/2")
