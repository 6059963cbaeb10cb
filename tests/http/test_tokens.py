"""Bearer tokens, permissions, prefixes, cross-site requests, and services without tokens."""

import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import jwt
import msgspec
import pytest
from contract import sequence
from hypothesis import given, settings
from hypothesis import strategies as st
from running import Server, Wire, http_client, leasehold, message, refusal, running, until

from leasehold.access.token_minting import mint_token

SECRET = b"a-secret-of-more-than-32-bytes-for-tests"
UUID = "abcdef00-0000-4000-8000-0000000000aa"
UNAUTHENTICATED = (401, "unauthenticated")
FORBIDDEN = (403, "forbidden")
INSECURE = {"LEASEHOLD_INSECURE_OPEN": "true"}
CENTURY_SECONDS = 3_155_760_000.0
"""Tokens made while this file is read are used whenever its tests come: minutes later, or hours on a busy machine."""


def token(
    *permissions: str,
    prefixes: list[str] | None = None,
    lifetime_seconds: float = CENTURY_SECONDS,
    secret: bytes = SECRET,
    subject: str = "ann",
) -> str:
    return mint_token(
        secret, subject, permissions, prefixes=prefixes, now=time.time(), lifetime_seconds=lifetime_seconds
    )


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


READER = bearer(token("read"))
WRITER = bearer(token("write"))
BOTH = bearer(token("read", "write"))


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def guarded(secret_file: Path) -> Iterator[Server]:
    """A server that asks for tokens."""
    environment = {"LEASEHOLD_AUTH_SECRET_FILE": str(secret_file)}
    with running(environment=environment, log_level="debug") as started:
        yield started


def put(server: Server, key: str, value: Any = 1) -> None:
    assert server.put(key, json.dumps(value), headers=BOTH).status_code in (200, 201)


def routes(server: Server, *, permission: bool = True) -> list[tuple[str, str]]:
    """Method and target of all routes that ask for a token, or of all that do not."""
    return [
        (method.upper(), path.replace("{key}", "a").replace("{uuid}", UUID).replace("{name}", "a"))
        for path, methods in server.contract.document["paths"].items()
        for method, operation in methods.items()
        if ({"bearer": []} in operation["security"]) == permission
    ]


def request(server: Server, method: str, target: str, headers: Mapping[str, str]) -> httpx.Response:
    body = {"value": 1} if target == "/set" else 1
    return server.request(method, target, headers=headers, content=json.dumps(body) if method[0] == "P" else None)


def test_tokens_of_parametrized_tests_are_valid_for_the_whole_run() -> None:
    made = [headers["Authorization"].removeprefix("Bearer ") for headers in (READER, WRITER, BOTH, OF_ANOTHER)]
    ends = [jwt.decode(each, SECRET, algorithms=["HS256"])["exp"] for each in [*made, GOOD]]
    assert min(ends) > time.time() + CENTURY_SECONDS / 2


# Bad tokens ---------------------------------------------------------------------------------------------------

GOOD = token("read", "write")
BAD: dict[str, dict[str, str]] = {
    "no header": {},
    "empty": {"Authorization": ""},
    "scheme alone": {"Authorization": "Bearer"},
    "no scheme": {"Authorization": GOOD},
    "Basic": {"Authorization": f"Basic {GOOD}"},
    "garbage": bearer("garbage"),
    "alg none": bearer(jwt.encode({"sub": "a", "exp": 4e9}, "", algorithm="none")),
    "another secret": bearer(token("read", "write", secret=b"x" * 32)),
    "tampered": bearer(GOOD[:-4] + "AAAA"),
    "expired": bearer(token("read", "write", lifetime_seconds=-3_600)),
    "no exp": bearer(jwt.encode({"sub": "a", "permissions": ["read"]}, SECRET)),
    "exp beyond all floats": bearer(jwt.encode({"sub": "a", "exp": 10**400}, SECRET)),
    "another algorithm": bearer(jwt.encode({"sub": "a", "exp": 4e9}, SECRET + SECRET, algorithm="HS512")),
    "jku": bearer(jwt.encode({"sub": "a", "exp": 4e9}, SECRET, headers={"jku": "http://localhost/"})),
    "too long": bearer(jwt.encode({"sub": "a", "exp": 4e9, "x": "x" * 4_096}, SECRET)),
}


@pytest.mark.parametrize("kind", BAD)
def test_every_invalid_token_gets_the_same_401_on_every_route(guarded: Server, kind: str) -> None:
    checked = routes(guarded)
    assert len(checked) >= 10
    seen = set()
    for method, target in [*checked, ("HEAD", "/kv/a"), ("HEAD", "/kv"), ("HEAD", "/stream")]:
        response = request(guarded, method, target, BAD[kind])
        body = {} if method == "HEAD" else response.json()
        body.pop("request_id", None)
        seen.add((response.status_code, response.headers["WWW-Authenticate"], method == "HEAD", json.dumps(body)))
    text = json.dumps({"error": "unauthenticated", "message": "a valid bearer token is needed"})
    assert seen == {(401, "Bearer", False, text), (401, "Bearer", True, "{}")}


def test_a_refused_request_does_not_show_whether_the_entry_exists(guarded: Server, key: str) -> None:
    put(guarded, key)
    answers = [guarded.get(name) for name in (key, f"{key}-absent")]
    texts = [answer.text.replace(answer.headers["X-Request-Id"], "") for answer in answers]
    names = [sorted(answer.headers) for answer in answers]
    assert (texts[0], names[0]) == (texts[1], names[1])


def test_a_token_sent_twice_is_refused(guarded: Server) -> None:
    field = f"Authorization: Bearer {GOOD}"
    with Wire(guarded) as wire:
        wire.send(message("GET", "/kv", field, field), message("GET", "/kv", field))
        assert [wire.answer().refusal, wire.answer().status] == [UNAUTHENTICATED, 200]


def test_a_refused_write_changes_nothing(guarded: Server, key: str) -> None:
    put(guarded, key)
    for headers in (BAD["expired"], READER):
        guarded.put(key, "2", headers=headers)
        guarded.delete(key, headers=headers)
    assert guarded.get(key, headers=READER).json()["value"] == 1


def test_a_token_that_expires_while_the_service_runs_is_refused(guarded: Server) -> None:
    short = bearer(token("read", lifetime_seconds=2))

    def status() -> int:
        return guarded.request("GET", "/kv", headers=short).status_code

    assert status() == 200
    until(lambda: status() == 401)


def test_an_unknown_path_is_not_found_without_a_token(guarded: Server) -> None:
    assert refusal(guarded.request("GET", "/nowhere")) == (404, "no_such_route")
    assert refusal(guarded.request("POST", "/kv")) == (405, "method_not_allowed")


def test_a_refused_token_leaves_the_connection_open(guarded: Server) -> None:
    with Wire(guarded) as wire:
        wire.send(message("PUT", "/kv/a", body=b"1"), message("GET", "/health"))
        assert [wire.answer().refusal, wire.answer().status] == [UNAUTHENTICATED, 200]


@given(st.binary(max_size=60).map(lambda noise: noise.translate(None, b"\r\n\0")))
@settings(max_examples=200, deadline=None, database=None)
def test_random_bytes_as_a_token_are_refused(guarded: Server, noise: bytes) -> None:
    with Wire(guarded) as wire:
        wire.send(b"GET /kv HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + noise + b"\r\n\r\n")
        assert wire.answer().status in (400, 401)


# What needs no token ------------------------------------------------------------------------------------------


def test_health_needs_no_token(guarded: Server) -> None:
    open_routes = routes(guarded, permission=False)
    assert {target for _, target in open_routes} == {"/health", "/health/live", "/health/ready", "/openapi.json"}
    assert [request(guarded, *route, {}).status_code for route in open_routes] == [200] * 4


def test_an_invalid_token_is_refused_on_routes_that_need_none(guarded: Server) -> None:
    assert refusal(guarded.request("GET", "/health", headers=BAD["expired"])) == UNAUTHENTICATED


def test_a_service_without_tokens_ignores_the_authorization_header(server: Server, key: str) -> None:
    assert server.put(key, "1", headers=BAD["garbage"]).status_code == 201


# Permissions --------------------------------------------------------------------------------------------------


def test_a_token_with_read_is_forbidden_on_every_write(guarded: Server) -> None:
    seen = {
        (method, target): refusal(response) if response.status_code == 403 else None
        for method, target in routes(guarded)
        for response in [request(guarded, method, target, READER)]
    }
    assert seen == {route: None if route[0] == "GET" else FORBIDDEN for route in seen}


def test_a_token_with_write_is_forbidden_on_every_read(guarded: Server) -> None:
    statuses = {
        (method, target): request(guarded, method, target, WRITER).status_code == 403
        for method, target in routes(guarded)
    }
    assert statuses == {route: route[0] == "GET" for route in statuses}


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


NAMES = ["a", "a/1", "a/2", "ab", "b", "b/1", "c/1", "c/2", "c/3", "d", "ä/1", "🦊"]
PREFIX_SETS = [
    ["a/", "c/"],
    ["c", "a"],
    ["a", "a/", "a/1"],
    ["b/1"],
    ["ä", "🦊", "b"],
    ["x", "y"],
    ["d", "x", "c/3"],
    [],
]


@pytest.fixture(scope="module")
def listing(guarded: Server) -> str:
    """A folder with NAMES in it."""
    for name in NAMES:
        put(guarded, f"listing/{name}", name)
    return "listing/"


def covered(prefixes: list[str], asked: str = "") -> list[str]:
    names = [name for name in NAMES if name.startswith(tuple(prefixes)) and name.startswith(asked)]
    return sorted(names, key=str.encode)


def pages(server: Server, headers: Mapping[str, str], *, of: str = "entries", **parameters: str) -> Iterator[list[str]]:
    path, name = {"entries": ("/kv", "key"), "locks": ("/locks", "lock")}[of]
    after: str | None = None
    while True:
        more = {} if after is None else {"after": after}
        page = server.request("GET", path, params=parameters | more, headers=headers).json()
        yield [each[name] for each in page[of]]
        after = page["next"]
        if after is None:
            return


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


# Locks --------------------------------------------------------------------------------------------------------

OF_ANOTHER = bearer(token("read", "write", subject="bob"))


def lock_requests(lock: str, uuid: str, lease_id: str) -> list[tuple[str, str]]:
    """Every request that changes a lock, by name and by UUID, in an order in which they succeed."""
    return [
        ("POST", f"/locks/{lock}?wait=0"),
        ("PUT", f"/locks/{lock}?lease_id={lease_id}"),
        ("DELETE", f"/locks/{lock}?lease_id={lease_id}"),
        ("POST", f"/lock?lock_id={uuid}&wait=0"),
        ("POST", f"/renew?lock_id={uuid}&lease_id={lease_id}"),
        ("DELETE", f"/unlock?lock_id={uuid}&lease_id={lease_id}"),
        ("DELETE", f"/unlock?lock_id={uuid}&token=1"),
    ]


def acquire(server: Server, lock: str, headers: Mapping[str, str], **asked: Any) -> httpx.Response:
    return server.request("POST", f"/locks/{lock}", json={"wait": 0} | asked, headers=headers)


@pytest.fixture
def uuid(key: str) -> str:
    """A UUID that no other test uses."""
    return f"abcdef00-0000-4000-8004-{key.removeprefix('entry-'):0>12}"


def test_locking_needs_the_permission_to_write(guarded: Server, lock: str, uuid: str) -> None:
    leases = [acquire(guarded, name, BOTH).json() for name in (lock, uuid)]
    before = guarded.request("GET", "/locks", headers=READER).json()["locks"]
    refused = [
        guarded.request(method, target, headers=READER)
        for lease in leases
        for method, target in lock_requests(lock, uuid, lease["lease_id"])
    ]
    assert [refusal(response) for response in refused] == [FORBIDDEN] * 14
    assert guarded.request("GET", "/locks", headers=READER).json()["locks"] == before
    assert guarded.request("PUT", f"/locks/{lock}?lease_id={leases[0]['lease_id']}", headers=WRITER).status_code == 200


def test_reading_locks_needs_the_permission_to_read(guarded: Server, lock: str) -> None:
    acquire(guarded, lock, WRITER)
    targets = [f"/locks/{lock}", f"/locks/{lock}/absent", "/locks", f"/locks?prefix={lock}"]
    statuses = [
        [guarded.request("GET", target, headers=headers).status_code for target in targets]
        for headers in (READER, WRITER)
    ]
    assert statuses == [[200, 404, 200, 200], [403, 403, 403, 403]]


def test_a_fenced_write_needs_the_permission_to_write(guarded: Server, lock: str, key: str) -> None:
    lease_id = acquire(guarded, lock, BOTH).json()["lease_id"]
    assert refusal(guarded.put(key, "1", headers=READER | {"If-Lease": lease_id})) == FORBIDDEN
    assert guarded.put(key, "1", headers=WRITER | {"If-Lease": lease_id}).status_code == 201


def test_requests_for_covered_locks_are_done(guarded: Server, lock: str, uuid: str) -> None:
    own = bearer(token("read", "write", prefixes=[f"{lock}/own", uuid]))
    name = f"{lock}/owned"
    lease = acquire(guarded, name, own).json()
    by_uuid = guarded.request("POST", "/lock", json={"lock_id": uuid.upper()}, headers=own).json()
    covered = [
        guarded.request("GET", f"/locks/{name}", headers=own),
        guarded.request("PUT", f"/locks/{name}?lease_id={lease['lease_id']}", headers=own),
        guarded.request("DELETE", f"/locks/{name}?lease_id={lease['lease_id']}", headers=own),
        guarded.request("POST", f"/renew?lock_id={uuid.upper()}&lease_id={by_uuid['lease_id']}", headers=own),
        guarded.request("DELETE", f"/unlock?lock_id={uuid}&token={by_uuid['token']}", headers=own),
    ]
    assert [response.status_code for response in covered] == [200] * 5


def test_requests_for_locks_that_no_prefix_covers_are_forbidden(guarded: Server, lock: str, uuid: str) -> None:
    own = bearer(token("read", "write", prefixes=[f"{lock}/own"]))
    other = f"{lock}/other"
    leases = [acquire(guarded, name, BOTH).json() for name in (other, uuid)]
    refused = [
        guarded.request(method, target, headers=own)
        for lease in leases
        for method, target in lock_requests(other, uuid, lease["lease_id"])
    ]
    refused += [
        guarded.request("GET", f"/locks/{name}", headers=own)
        for name in (other, f"{lock}/absent", lock, f"{lock}/Own", f"x{lock}/own", f"{lock}%2Fother", uuid)
    ]
    assert [refusal(response) for response in refused] == [FORBIDDEN] * len(refused)
    assert len({response.text.replace(response.headers["X-Request-Id"], "") for response in refused}) == 1
    held = [guarded.request("GET", f"/locks/{name}", headers=BOTH).json()["expires_at"] for name in (other, uuid)]
    assert held == [lease["expires_at"] for lease in leases]


def test_an_acquisition_of_a_lock_that_is_not_covered_is_refused_without_waiting(guarded: Server, lock: str) -> None:
    acquire(guarded, lock, BOTH)
    own = bearer(token("read", "write", prefixes=[f"{lock}/own"]))
    started = time.monotonic()
    assert refusal(acquire(guarded, lock, own, wait=60)) == FORBIDDEN
    assert time.monotonic() - started < 30


def test_a_lease_of_a_lock_that_is_not_covered_still_fences(guarded: Server, lock: str, key: str) -> None:
    """Whoever knows its secret was given it by the holder."""
    lease_id = acquire(guarded, lock, BOTH).json()["lease_id"]
    own = bearer(token("write", prefixes=[key]))
    assert guarded.put(key, "1", headers=own | {"If-Lease": lease_id}).status_code == 201
    assert refusal(guarded.put(f"x{key}", "1", headers=own | {"If-Lease": lease_id})) == FORBIDDEN


@pytest.fixture(scope="module")
def locks_listing(guarded: Server) -> str:
    """A folder of locks that are held: NAMES."""
    for name in NAMES:
        assert acquire(guarded, f"listing/{name}", BOTH, ttl=86_400, owner=name).status_code == 201
    return "listing/"


@pytest.mark.parametrize("prefixes", PREFIX_SETS, ids=str)
@pytest.mark.parametrize("limit", [1, 2, 5, 12])
def test_pages_across_prefixes_have_every_covered_lock_once(
    guarded: Server, locks_listing: str, prefixes: list[str], limit: int
) -> None:
    own = bearer(token("read", prefixes=[locks_listing + prefix for prefix in prefixes]))
    found = list(pages(guarded, own, of="locks", limit=str(limit)))
    expected = [locks_listing + name for name in covered(prefixes)]
    assert [name for page in found for name in page] == expected
    assert [len(page) for page in found] == [len(expected[i : i + limit]) for i in range(0, len(expected) or 1, limit)]


@pytest.mark.parametrize("prefixes", PREFIX_SETS, ids=str)
@pytest.mark.parametrize("asked", ["", "a", "a/", "c/3", "b", "zz"])
def test_lists_of_locks_show_only_covered_locks(
    guarded: Server, locks_listing: str, prefixes: list[str], asked: str
) -> None:
    own = bearer(token("read", prefixes=[locks_listing + prefix for prefix in prefixes]))
    page = guarded.request("GET", "/locks", params={"prefix": locks_listing + asked}, headers=own).json()
    assert ([each["owner"] for each in page["locks"]], page["next"]) == (covered(prefixes, asked), None)


def unlock(server: Server, uuid: str, headers: Mapping[str, str], **asked: Any) -> httpx.Response:
    return server.request("DELETE", "/unlock", json={"lock_id": uuid} | asked, headers=headers)


def test_the_caller_that_acquired_a_lock_releases_it_by_its_token(guarded: Server, uuid: str) -> None:
    fencing = acquire(guarded, uuid, BOTH).json()["token"]
    other_token_of_the_same = bearer(token("write", lifetime_seconds=CENTURY_SECONDS / 2))
    assert unlock(guarded, uuid, other_token_of_the_same, token=fencing).json()["released"] is True


def test_the_token_of_an_earlier_lease_of_the_same_subject_does_not_release_the_lock(
    guarded: Server, uuid: str
) -> None:
    first = acquire(guarded, uuid, BOTH).json()["token"]
    unlock(guarded, uuid, BOTH, token=first)
    acquire(guarded, uuid, BOTH)
    assert refusal(unlock(guarded, uuid, BOTH, token=first)) == (409, "lease_lost")
    assert refusal(unlock(guarded, uuid, BOTH)) == (400, "invalid_argument")


def test_another_subject_cannot_release_a_lock_by_its_token(guarded: Server, uuid: str) -> None:
    lease = acquire(guarded, uuid, BOTH).json()
    assert refusal(unlock(guarded, uuid, OF_ANOTHER, token=lease["token"])) == FORBIDDEN
    holder = guarded.request("GET", f"/locks/{uuid}", headers=READER).json()
    assert holder["token"] == lease["token"]


def test_another_subject_can_release_a_lock_by_its_lease_id(guarded: Server, uuid: str) -> None:
    lease = acquire(guarded, uuid, BOTH).json()
    assert unlock(guarded, uuid, OF_ANOTHER, lease_id=lease["lease_id"]).json()["released"] is True


def test_the_previous_holder_cannot_release_the_lock_of_the_next(guarded: Server, uuid: str) -> None:
    first = acquire(guarded, uuid, BOTH).json()["token"]
    unlock(guarded, uuid, BOTH, token=first)
    second = acquire(guarded, uuid, OF_ANOTHER).json()["token"]
    refused = [refusal(unlock(guarded, uuid, BOTH, token=each)) for each in (first, second)]
    assert (refused, unlock(guarded, uuid, OF_ANOTHER, token=second).status_code) == ([FORBIDDEN] * 2, 200)


@pytest.mark.parametrize("headers", [BOTH, OF_ANOTHER], ids=["ann", "bob"])
def test_a_release_of_a_free_lock_is_not_found_with_tokens(
    guarded: Server, uuid: str, headers: Mapping[str, str]
) -> None:
    assert refusal(unlock(guarded, uuid, headers, token=1)) == (404, "lock_not_found")


def test_the_subject_of_a_lease_is_kept_after_a_restart(tmp_path: Path, secret_file: Path) -> None:
    with running(tmp_path / "data.json", arguments=[f"--auth-secret-file={secret_file}"]) as own:
        fencing = acquire(own, UUID, BOTH, ttl=1_000).json()["token"]
        own.restart()
        refused, released = (unlock(own, UUID, headers, token=fencing) for headers in (OF_ANOTHER, BOTH))
        assert (refusal(refused), released.status_code) == (FORBIDDEN, 200)


# Ending the lease of another ----------------------------------------------------------------------------------

ADMIN = bearer(token("write", "admin", subject="operator"))
ENDINGS = ["/locks/{uuid}?force", "/unlock?lock_id={uuid}&force"]


@pytest.mark.parametrize("target", ENDINGS)
def test_a_token_with_admin_ends_the_lease_of_another_subject(guarded: Server, uuid: str, target: str) -> None:
    acquire(guarded, uuid, OF_ANOTHER)
    assert guarded.request("DELETE", target.format(uuid=uuid), headers=ADMIN).json()["released"] is True
    assert acquire(guarded, uuid, BOTH).status_code == 201


@pytest.mark.parametrize("target", ENDINGS)
@pytest.mark.parametrize(
    "headers",
    [BOTH, bearer(token("admin")), bearer(token("read", "admin")), bearer(token("write", "admin", prefixes=["x"]))],
    ids=["without admin", "admin alone", "read and admin", "another prefix"],
)
def test_force_needs_write_and_admin_and_a_prefix_that_covers_the_lock(
    guarded: Server, uuid: str, target: str, headers: Mapping[str, str]
) -> None:
    lease = acquire(guarded, uuid, BOTH).json()
    refused = guarded.request("DELETE", target.format(uuid=uuid), headers=headers)
    holder = guarded.request("GET", f"/locks/{uuid}", headers=READER).json()
    assert (refusal(refused), holder["token"]) == (FORBIDDEN, lease["token"])


def test_a_release_by_force_is_logged_with_the_subject(guarded: Server, uuid: str) -> None:
    lease_id = acquire(guarded, uuid, OF_ANOTHER).json()["lease_id"]
    guarded.request("DELETE", f"/locks/{uuid}?force", headers=ADMIN)
    told = [line for line in guarded.log().splitlines() if "by force" in line and uuid in line]
    assert (len(told), "operator" in told[0], lease_id in guarded.log()) == (1, True, False)


def test_a_service_without_tokens_releases_by_force(uuid: str) -> None:
    """Whoever reaches it may change everything else, and nobody else could end a lease of 30 days."""
    with running(arguments=["--host=0.0.0.0", "--insecure-open"]) as own:
        own.client = httpx.Client(base_url=f"http://127.0.0.1:{own.address[1]}")
        own.lease(uuid, ttl=2_592_000)
        assert own.request("DELETE", f"/locks/{uuid}?force").status_code == 200


# What is told -------------------------------------------------------------------------------------------------


def test_the_log_has_no_token_and_no_secret(guarded: Server) -> None:
    for headers in [*BAD.values(), READER, BOTH]:
        guarded.put("logged", "1", headers=headers)
    log = guarded.log()
    tokens = [value.removeprefix("Bearer ") for headers in [*BAD.values(), READER, BOTH] for value in headers.values()]
    parts = {part for text in tokens for part in text.split(".") if len(part) > 10}
    assert [part for part in parts if part in log] == []
    assert ("/kv/logged" in log, SECRET.decode() in log, "Traceback" in log) == (True, False, False)


LOGGED: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "no token": ("/kv/logged-key", {}, {"status": 401, "reason": "no token"}),
    "expired": ("/kv/logged-key", BAD["expired"], {"status": 401, "reason": "expired"}),
    "another secret": ("/kv/logged-key", BAD["another secret"], {"status": 401, "reason": "signed with another key"}),
    "no right": ("/kv/logged-key", WRITER, {"status": 403, "reason": "no permission to read", "sub": "ann"}),
    "another prefix": (
        "/kv/logged-key",
        bearer(token("read", prefixes=["x"], subject="bob")),
        {"status": 403, "reason": "not covered by the prefixes", "sub": "bob"},
    ),
    "another site": (
        "/kv/logged-key",
        BOTH | {"Origin": "http://evil.example"},
        {"status": 403, "reason": "page of another site"},
    ),
    "another host": ("/kv/logged-key", BOTH | {"Host": "evil.example"}, {"status": 403, "reason": "another host"}),
    "a list": ("/kv?prefix=logged-key", {}, {"status": 401, "route": "/kv"}),
}


def test_a_refusal_is_logged_without_the_token_and_the_key(secret_file: Path) -> None:
    arguments = [f"--auth-secret-file={secret_file}", "--log-format=json"]
    with running(arguments=arguments) as own:
        for kind, (target, headers, _) in LOGGED.items():
            own.request("GET", target, headers={"X-Request-Id": kind.replace(" ", "-")} | headers)
        log = own.log()
    lines = {event["request_id"]: event for event in map(json.loads, log.splitlines()) if "request_id" in event}
    usual = {"event": "request refused", "method": "GET", "route": "/kv/{key}", "client": "127.0.0.1"}
    for kind, (_, _, expected) in LOGGED.items():
        line = lines[kind.replace(" ", "-")]
        assert (kind, line) == (kind, line | usual | expected)
    parts = {part for _, headers, _ in LOGGED.values() for part in headers.get("Authorization", "").split(".") if part}
    assert [part for part in [*parts, "logged-key"] if part in log] == []


def test_many_refusals_are_logged_as_a_few_lines_and_a_count(secret_file: Path) -> None:
    with running(arguments=[f"--auth-secret-file={secret_file}"]) as own:
        for _ in range(200):
            own.client.get("/kv/a")
        own.terminate()
        lines = own.log().splitlines()
    told, more = (sum(event in line for line in lines) for event in ("request refused", "more requests were refused"))
    assert (told < 100, more > 0) == (True, True)


@pytest.mark.parametrize("kind", BAD)
def test_no_answer_shows_a_part_of_the_token(guarded: Server, kind: str) -> None:
    response = guarded.get("a", headers=BAD[kind])
    said = response.text + repr(response.headers)
    sent = BAD[kind].get("Authorization", "").removeprefix("Bearer ")
    assert [part for part in sent.split(".") if len(part) > 6 and part in said] == []


# Keys for tokens ----------------------------------------------------------------------------------------------


def test_tokens_of_the_old_secret_are_refused_after_a_restart_with_another_one(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    with running(arguments=[f"--auth-secret-file={path}"]) as server:
        before = server.get("a", headers=BOTH).status_code
        path.write_bytes(b"another secret, of 32 bytes or more")
        server.restart()
        after = server.get("a", headers=BOTH).status_code
    assert (before, after) == (404, 401)


def test_valid_tokens_are_accepted_at_every_step_of_a_rotation_of_the_secret(tmp_path: Path) -> None:
    """The recipe of docs/operations.md, step by step."""
    old, new = tmp_path / "secret", tmp_path / "secret.new"
    old.write_bytes(SECRET)
    new.write_bytes(b"another secret, of 32 bytes or more")

    def made(*arguments: str) -> dict[str, str]:
        given = [*arguments, "--subject=ann", "--permission=read"]
        return bearer(leasehold("token", *given).stdout.strip())

    first = made(f"--auth-secret-file={old}", f"--auth-secret-file={new}")
    second = made(f"--auth-secret-file={new}", f"--auth-secret-file={old}")
    statuses = []
    for files in ([old], [old, new], [new, old], [new]):
        by_flags = [f"--auth-secret-file={path}" for path in files]
        with running(arguments=by_flags) as server:
            statuses.append([server.get("a", headers=headers).status_code for headers in (first, second)])
    assert statuses == [[404, 401], [404, 404], [404, 404], [401, 404]]


def test_several_secrets_may_be_in_the_environment_variable(tmp_path: Path, secret_file: Path) -> None:
    (tmp_path / "other").write_bytes(b"x" * 32)
    environment = {"LEASEHOLD_AUTH_SECRET_FILE": f"{tmp_path / 'other'},{secret_file}"}
    with running(environment=environment) as server:
        statuses = [
            server.get("a", headers=headers).status_code for headers in (BOTH, bearer(token("read", secret=b"x" * 32)))
        ]
        made = leasehold("token", "--subject=a", "--permission=read", environment=environment).stdout.strip()
        statuses.append(server.get("a", headers=bearer(made)).status_code)
    assert (statuses, jwt.decode(made, b"x" * 32, algorithms=["HS256"])["sub"]) == ([404] * 3, "a")


def test_several_public_keys_verify_while_a_provider_changes_its_key(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    old, new = generate_private_key(SECP256R1()), Ed25519PrivateKey.generate()
    arguments = []
    privates: list[Any] = [old, new]
    for number, private in enumerate(privates):
        path = tmp_path / f"{number}.pem"
        path.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        arguments.append(f"--auth-public-key-file={path}")
    claims = {"sub": "a", "exp": time.time() + 60, "permissions": ["read"]}
    tokens = [jwt.encode(claims, old, algorithm="ES256"), jwt.encode(claims, new, algorithm="EdDSA")]
    with running(arguments=arguments) as server:
        assert [server.get("a", headers=bearer(made)).status_code for made in tokens] == [404, 404]


def test_a_token_is_accepted_within_the_leeway(secret_file: Path) -> None:
    """By much more than what a busy machine takes between making a token and sending it."""

    def signed(**claims: float) -> dict[str, str]:
        now = time.time()
        times = {name: now + seconds for name, seconds in claims.items()}
        return bearer(jwt.encode({"sub": "a", "permissions": ["read"], "exp": now + 600} | times, SECRET))

    arguments = [f"--auth-secret-file={secret_file}"]
    environment = {"LEASEHOLD_AUTH_LEEWAY_SECONDS": "300", "LEASEHOLD_AUTH_EXPIRY_LEEWAY_SECONDS": "300"}
    with running(arguments=arguments) as usual, running(arguments=arguments, environment=environment) as lenient:
        for server, statuses in ((usual, [404, 401, 401, 404]), (lenient, [404, 404, 404, 404])):
            sent = [signed(nbf=1), signed(nbf=150), signed(exp=-1), signed(iat=1e9)]
            assert [server.get("a", headers=headers).status_code for headers in sent] == statuses


def test_a_public_key_verifies_tokens_of_an_identity_provider(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = Ed25519PrivateKey.generate()
    path = tmp_path / "key.pem"
    path.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    claims = {
        "sub": "a",
        "exp": time.time() + CENTURY_SECONDS,
        "permissions": ["read"],
        "iss": "https://id.example",
        "aud": "db",
    }
    environment = {"LEASEHOLD_AUTH_ISSUER": "https://id.example", "LEASEHOLD_AUTH_AUDIENCE": "db"}
    with running(environment=environment, arguments=[f"--auth-public-key-file={path}"]) as server:
        statuses = [
            server.get("a", headers=bearer(made)).status_code
            for made in (
                jwt.encode(claims, private, algorithm="EdDSA"),
                jwt.encode(claims | {"aud": "other"}, private, algorithm="EdDSA"),
                jwt.encode(claims | {"iss": "other"}, private, algorithm="EdDSA"),
                token("read"),
            )
        ]
    assert statuses == [404, 401, 401, 401]


def test_an_empty_issuer_and_audience_are_not_checked(secret_file: Path) -> None:
    environment = {"LEASEHOLD_AUTH_ISSUER": "", "LEASEHOLD_AUTH_AUDIENCE": ""}
    with running(environment=environment, arguments=[f"--auth-secret-file={secret_file}"]) as server:
        assert server.put("a", "1", headers=BOTH).status_code == 201


@pytest.mark.parametrize(
    ("flag", "content", "line"),
    [
        ("--auth-secret-file", b"short\n", "the secret must have at least 32 bytes"),
        ("--auth-secret-file", None, "the secret's file cannot be read: No such file or directory"),
        ("--auth-public-key-file", b"no key", "the public key's file has no public key in PEM"),
    ],
)
def test_the_service_does_not_start_with_an_invalid_key(
    tmp_path: Path, flag: str, content: bytes | None, line: str
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    result = leasehold("serve", "--store=memory:", "--port=0", f"{flag}={tmp_path / 'key'}")
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"leasehold: {line}\n")


def test_the_error_for_several_keys_names_the_invalid_one(tmp_path: Path, secret_file: Path) -> None:
    (tmp_path / "secret.new").write_bytes(b"short")
    files = [f"--auth-secret-file={path}" for path in (secret_file, tmp_path / "secret.new")]
    result = leasehold("serve", "--store=memory:", "--port=0", *files)
    line = "leasehold: secret.new: the secret must have at least 32 bytes\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", line)


@pytest.mark.parametrize(
    "arguments", [["--auth-secret-file=a", "--auth-public-key-file=b"], ["--auth-secret-file="]], ids=str
)
def test_contradicting_or_empty_settings_of_keys_are_a_usage_error(arguments: list[str]) -> None:
    result = leasehold("serve", "--store=memory:", "--port=0", *arguments)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)


# Foreign pages ------------------------------------------------------------------------------------------------

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


def status_for_host(server: Server, host: str, *fields: str) -> int:
    lines = ["GET /kv/absent HTTP/1.1", f"Host: {host}", *fields, "", ""]
    with Wire(server) as wire:
        return wire.send("\r\n".join(lines).encode("latin-1")).answer().status


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


# Open, but only on loopback -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["0.0.0.0", pytest.param("::", marks=pytest.mark.skipif(not socket.has_ipv6, reason=""))]
)
def test_without_a_key_the_service_starts_only_on_loopback(tmp_path: Path, host: str) -> None:
    result = leasehold("serve", f"--store={tmp_path / 'data.json'}", "--port=0", f"--host={host}")
    line, rest = result.stderr.split("\n", 1)
    assert (result.returncode, result.stdout, rest, list(tmp_path.iterdir())) == (1, "", "", [])
    assert line.startswith(f"leasehold: without a key for tokens the service runs on loopback only, and {host} is not")


@pytest.mark.parametrize(
    "how", [{"arguments": ["--insecure-open"]}, {"environment": INSECURE}], ids=["flag", "variable"]
)
def test_a_service_without_tokens_on_another_address_starts_with_a_warning(how: dict[str, Any]) -> None:
    options = how | {"arguments": ["--host=0.0.0.0", *how.get("arguments", [])]}
    server = Server(log_level="warning", **options)
    with server:
        server.client = http_client(f"http://127.0.0.1:{server.address[1]}")
        written = server.put("a", "1").status_code
        named = server.get("a", headers={"Host": "192.0.2.7"}).status_code
        foreign = server.get("a", headers={"Origin": "http://evil.example"}).status_code
        log = server.log()
    assert (written, named, foreign) == (201, 200, 403)
    assert (log.count("\n"), "anybody who can reach the port may read, write and end any lease" in log) == (1, True)


def test_with_a_key_the_service_starts_on_any_address_and_warns_about_unencrypted_tokens(secret_file: Path) -> None:
    arguments = ["--host=0.0.0.0", f"--auth-secret-file={secret_file}"]
    with running(arguments=arguments, log_level="warning") as server:
        url = f"http://127.0.0.1:{server.address[1]}/kv"
        statuses = [server.client.get(url, headers=headers).status_code for headers in ({}, READER)]
        log = server.log()
    assert (statuses, log.count("\n"), "unencrypted over plain HTTP" in log) == ([401, 200], 1, True)


@pytest.mark.parametrize(
    ("mode", "warns"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o620, True)]
)
def test_a_secret_file_that_other_users_can_read_or_change_gives_a_warning(
    tmp_path: Path, mode: int, *, warns: bool
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    path.chmod(mode)
    with running(arguments=[f"--auth-secret-file={path}"], log_level="warning") as server:
        log = server.log()
    assert (log.count("\n"), str(path) in log, SECRET.decode() in log) == (warns, warns, False)


def test_the_host_is_checked_on_another_address_only_with_the_setting(secret_file: Path) -> None:
    arguments = ["--host=0.0.0.0", f"--auth-secret-file={secret_file}"]
    with running(arguments=arguments, environment={"LEASEHOLD_ALLOWED_HOSTS": "db.example"}) as server:
        statuses = [status_for_host(server, host) for host in ("db.example", "127.0.0.1", "evil.example")]
    assert statuses == [401, 401, 403]
