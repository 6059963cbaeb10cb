"""Terraform states over HTTP: saved and read byte by byte, locked, versions, permissions. On every engine.

`test_terraform.py` has the same with the real `terraform`.
"""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from callers import BOTH, FORBIDDEN, READER, UNAUTHENTICATED, WRITER, bearer, token
from running import Server, Wire, message, refusal, running, tag_of, until
from watching import Watch

from leasehold.limits import (
    MAX_LEASE_ID_CHARACTERS,
    MAX_LOCK_INFO_BYTES,
    MAX_STATE_BRACKETS,
    MAX_STATE_COMMAS,
    MAX_STATE_NAME_BYTES,
    MAX_STATE_VERSIONS,
    MIB,
    Limits,
)

INVALID = (400, "invalid_argument")
LOCKED = (423, "lock_held")
LOST = (409, "lease_lost")
NOT_FOUND = (404, "not_found")
ADMIN = bearer(token("read", "write", "admin", subject="eve"))
LOCK_INFO = {
    "ID": "0c8f4a5e-6a2f-5a6c-9f9a-1f3f8d1c6b11",
    "Operation": "OperationTypeApply",
    "Info": "",
    "Who": "ann@ci",
    "Version": "1.11.4",
    "Created": "2026-11-28T12:00:00.000000001Z",
    "Path": "",
}
ID = LOCK_INFO["ID"]


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


@pytest.fixture(scope="module")
def guarded(any_guarded: Server) -> Server:
    return any_guarded


@pytest.fixture
def state(key: str) -> str:
    """The path of a state that no other test uses."""
    return f"/terraform/{key}"


def save(server: Server, path: str, content: str | bytes = "{}", **options: Any) -> httpx.Response:
    return server.request("POST", path, content=content, **options)


def lock(server: Server, path: str, *, lock_id: str = ID, query: str = "", **options: Any) -> httpx.Response:
    return server.request("LOCK", path + query, json=LOCK_INFO | {"ID": lock_id}, **options)


def unlock(server: Server, path: str, *, lock_id: str = ID, **options: Any) -> httpx.Response:
    return server.request("UNLOCK", path, json=LOCK_INFO | {"ID": lock_id}, **options)


def versions(server: Server, path: str) -> list[Any]:
    listed = server.request("GET", f"{path}/versions").json()["versions"]
    assert isinstance(listed, list)
    return listed


def lease_of(server: Server, path: str) -> Any:
    """The lease of the lock of a state, as `/locks` shows it."""
    return server.holder(path.removeprefix("/")).json()


# States -------------------------------------------------------------------------------------------------------

TEXTS = {
    "a newline at its end": b'{"version":4,"serial":1}\n',
    "white space": b' {\n  "a" : [ 1 ,\t2 ]\r\n}  ',
    "an integer beyond 64 bits": b'{"n":123456789012345678901234567890123456789012345678901234567890}',
    "a decimal of 200 digits": b"[0." + b"123456789" * 23 + b"]",
    "exponents": b"[1e999,-0,-0.0,1E+2,1.0]",
    "U+0000": rb'["\u0000","a\u0000b"]',
    "escapes": rb'["\u00e4\ud83e\udd8a\/"' + ',"ä🦊\u2028"]'.encode(),
    "members twice": b'{"a":1,"a":2}',
    "no object": b"null",
    "more lists and objects than a value may have": b"[" + b"{}," * 60_000 + b"{}]",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_state_is_kept_byte_by_byte(server: Server, state: str, method: str, text: bytes) -> None:
    created = server.request(method, state, content=text, headers={"Content-Type": "application/json"})
    assert created.status_code == 201
    version = created.json()["version"]
    assert created.headers["ETag"] == tag_of(server, version)
    read = server.request("GET", state)
    assert (read.status_code, read.content, read.headers["Content-Type"]) == (200, text, "application/json")
    assert read.headers["ETag"] == tag_of(server, version, "-bytes")
    assert server.request(method, state, content=text).status_code == 200


def test_a_state_of_8_mib_is_kept_with_its_version(server: Server, state: str) -> None:
    texts = [json.dumps({"number": number, "resources": ["x" * 1_000] * (8 * MIB // 1_004)}) for number in range(2)]
    assert min(map(len, texts)) > 8 * MIB - 10_000
    for text in texts:
        assert save(server, state, text).status_code in (200, 201)
    assert server.request("GET", state).text == texts[1]
    earlier = versions(server, state)[1]
    assert earlier["size"] == len(texts[0])
    assert server.request("GET", f"{state}?version={earlier['version']}").text == texts[0]
    assert server.request("DELETE", state).status_code == 200


def test_a_state_is_an_entry_that_keeps_its_text(server: Server, state: str) -> None:
    save(server, state, TEXTS["U+0000"])
    key = state.removeprefix("/")
    shown = server.get(key, headers={"Accept": "application/json"}).json()
    assert (shown["key"], shown["media"], shown["size"]) == (key, "text/plain; charset=utf-8", len(TEXTS["U+0000"]))
    assert server.get(key).content == TEXTS["U+0000"]


def test_a_state_that_was_written_to_its_key_is_read(server: Server, state: str) -> None:
    server.put(state.removeprefix("/"), '{"serial":1}')
    assert server.request("GET", state).content == b'{"serial":1}'
    assert save(server, state, "[]").status_code == 200
    assert [each["size"] for each in versions(server, state)] == [2, 12]


def test_a_state_that_does_not_exist_is_not_found(server: Server, state: str) -> None:
    for method, path in (
        ("GET", state),
        ("GET", f"{state}?version=1"),
        ("GET", f"{state}/versions"),
        ("DELETE", state),
    ):
        assert refusal(server.request(method, path)) == NOT_FOUND


def test_the_head_of_a_state_has_its_length(server: Server, state: str) -> None:
    save(server, state, "[1, 2]")
    response = server.request("HEAD", state)
    assert (response.status_code, response.headers["Content-Length"], response.content) == (200, "6", b"")


def test_a_client_that_has_the_state_gets_304(server: Server, state: str) -> None:
    save(server, state)
    tag = server.request("GET", state).headers["ETag"]
    again = server.request("GET", state, headers={"If-None-Match": tag})
    assert (again.status_code, again.headers["ETag"], again.content) == (304, tag, b"")
    save(server, state, "[]")
    assert server.request("GET", state, headers={"If-None-Match": tag}).content == b"[]"


@pytest.mark.parametrize("text", ["", "{", "{}{}", "alice", "[1,]", "NaN", "[" * 200_000], ids=lambda text: text[:9])
def test_a_state_that_is_not_json_is_refused(server: Server, state: str, text: str) -> None:
    assert refusal(save(server, state, text)) == (400, "invalid_json")
    assert refusal(save(server, state, b'"\xff"')) == (400, "invalid_json")
    assert refusal(server.request("GET", state)) == NOT_FOUND


@pytest.mark.parametrize(
    "media", ["application/vnd.msgpack", "application/octet-stream", "application/json; charset=x"]
)
def test_a_state_of_another_media_type_is_refused(server: Server, state: str, media: str) -> None:
    response = save(server, state, headers={"Content-Type": media})
    assert refusal(response) == (415, "unsupported_media_type")
    assert response.headers["Accept"] == "application/json"


def test_a_client_that_takes_no_json_does_not_get_a_state(server: Server, state: str) -> None:
    save(server, state)
    response = server.request("GET", state, headers={"Accept": "application/vnd.msgpack"})
    assert refusal_in_messagepack(response) == (406, "not_acceptable")


def refusal_in_messagepack(response: httpx.Response) -> tuple[int, str]:
    import msgspec

    return response.status_code, msgspec.msgpack.decode(response.content)["error"]


# Names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["team/{}", "{}%2Fprod", "ä/{}", "lock/{}", "versions/{}", "{}/locks", "x" * 380 + "/{}"]
)
def test_a_name_may_have_segments(server: Server, key: str, name: str) -> None:
    path = f"/terraform/{name.format(key)}"
    assert save(server, path, "[1]").status_code == 201
    assert server.request("GET", path).content == b"[1]"
    assert lock(server, path).status_code == 200
    assert server.request("GET", f"{path}/versions").status_code == 200


@pytest.mark.parametrize("name", ["lock", "versions"])
def test_a_name_of_one_segment_may_be_any(server: Server, name: str) -> None:
    assert save(server, f"/terraform/{name}", "[1]").status_code in (200, 201)
    assert server.request("POST", f"/terraform/{name}/lock", json=LOCK_INFO).status_code == 200
    assert server.request("DELETE", f"/terraform/{name}/lock", json=LOCK_INFO).json() == {"unlocked": True}


@pytest.mark.parametrize(
    "name",
    ["a/lock/b", "a%2Flock", "a/versions/7", "a%2Fversions", "a%2Flock%2Flock", "x" * (MAX_STATE_NAME_BYTES + 1)],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "LOCK", "UNLOCK"])
def test_a_name_that_could_be_of_something_else_is_refused(server: Server, name: str, method: str) -> None:
    content = None if method in ("GET", "DELETE") else json.dumps(LOCK_INFO)
    assert refusal(server.request(method, f"/terraform/{name}", content=content)) == (400, "invalid_key")


def test_there_is_no_state_without_a_name(server: Server) -> None:
    assert refusal(server.request("GET", "/terraform")) == (404, "no_such_route")
    assert refusal(server.request("GET", "/terraform/")) == (400, "invalid_key")


def test_the_methods_of_a_state_are_told(server: Server, state: str) -> None:
    assert server.request("OPTIONS", state).headers["Allow"] == "DELETE, GET, HEAD, LOCK, OPTIONS, POST, PUT, UNLOCK"
    assert server.request("OPTIONS", f"{state}/lock").headers["Allow"] == "DELETE, OPTIONS, POST"
    assert server.request("OPTIONS", f"{state}/versions").headers["Allow"] == "GET, HEAD, OPTIONS"
    assert refusal(server.request("LOCK", "/kv/a")) == (405, "method_not_allowed")


# Versions -----------------------------------------------------------------------------------------------------


def test_the_last_versions_are_listed_and_read(server: Server, state: str) -> None:
    saved = [save(server, state, f"[{number}]").json()["version"] for number in range(MAX_STATE_VERSIONS + 2)]
    listed = versions(server, state)
    assert [each["version"] for each in listed] == saved[:1:-1]
    assert [each["size"] for each in listed] == [4, 4] + [3] * (MAX_STATE_VERSIONS - 2)
    times = [each["saved_at"] for each in listed]
    assert times == sorted(times, reverse=True)
    read = [server.request("GET", f"{state}?version={version}") for version in saved]
    assert [refusal(response) for response in read[:2]] == [NOT_FOUND] * 2
    assert [response.json() for response in read[2:]] == [[number] for number in range(2, len(saved))]
    assert read[-1].headers["ETag"] == tag_of(server, saved[-1], "-bytes")


def test_a_deleted_state_leaves_nothing(server: Server, state: str) -> None:
    for number in range(3):
        save(server, state, f"[{number}]")
    deleted = server.request("DELETE", state)
    assert (deleted.status_code, deleted.json()["deleted"]) == (200, True)
    listed = server.request("GET", "/kv", params={"prefix": state.removeprefix("/"), "values": "false"}).json()
    assert listed["entries"] == []
    assert refusal(server.request("GET", f"{state}/versions")) == NOT_FOUND


@pytest.mark.parametrize("version", ["0", "-1", "x", "1.5", "", "9" * 19])
def test_a_version_that_cannot_be_is_refused(server: Server, state: str, version: str) -> None:
    save(server, state)
    assert refusal(server.request("GET", state, params={"version": version})) == INVALID


def test_conditions_for_a_version_are_refused(server: Server, state: str) -> None:
    version = save(server, state).json()["version"]
    response = server.request("GET", f"{state}?version={version}", headers={"If-None-Match": "*"})
    assert refusal(response) == INVALID


# Locks --------------------------------------------------------------------------------------------------------

ROUTES: dict[str, tuple[str, str, str]] = {
    "WebDAV": ("LOCK", "UNLOCK", ""),
    "address of the lock": ("POST", "DELETE", "/lock"),
}


@pytest.mark.parametrize(("locks", "unlocks", "end"), ROUTES.values(), ids=ROUTES)
def test_a_state_is_locked_and_unlocked(server: Server, state: str, locks: str, unlocks: str, end: str) -> None:
    locked = server.request(locks, state + end, json=LOCK_INFO)
    assert locked.status_code == 200
    lease = locked.json()
    assert (lease["lock"], lease["owner"], lease["ttl"]) == (state.removeprefix("/"), LOCK_INFO, 86_400)
    assert "lease_id" not in lease
    again = server.request(locks, state + end, json=LOCK_INFO)
    assert (again.status_code, again.json()) == (200, lease)
    unlocked = [server.request(unlocks, state + end, json=LOCK_INFO) for _ in range(2)]
    assert [(each.status_code, each.json()["unlocked"]) for each in unlocked] == [(200, True), (200, False)]
    assert lock(server, state, lock_id="other").json()["token"] > lease["token"]


def test_whoever_does_not_get_the_lock_is_shown_the_lock_info_of_the_holder(server: Server, state: str) -> None:
    expires_at = lock(server, state).json()["expires_at"]
    response = lock(server, state, lock_id="other")
    assert refusal(response) == LOCKED
    told = response.json()
    assert {name: told[name] for name in LOCK_INFO} == LOCK_INFO
    assert told["expires_at"] == expires_at
    assert int(response.headers["Retry-After"]) > 86_000


def test_the_lock_is_a_lease_with_the_key_of_the_state(server: Server, state: str) -> None:
    lock(server, state)
    lease = lease_of(server, state)
    assert (lease["owner"], lease["ttl"]) == (LOCK_INFO, 86_400)
    assert server.request("DELETE", f"/locks{state}?force").status_code == 200
    held = server.lease(state.removeprefix("/"), ttl=60, owner="a migration")
    told = lock(server, state).json()
    assert (told["ID"], told["Info"]) == (f"lease with token {held['token']}", '"a migration"')
    assert refusal(save(server, state)) == LOCKED


def test_a_write_needs_the_id_of_the_lock_while_the_state_is_locked(server: Server, state: str) -> None:
    save(server, state, "[1]")
    lock(server, state)
    assert refusal(save(server, state, "[2]")) == LOCKED
    assert refusal(save(server, f"{state}?ID=other", "[2]")) == LOST
    assert refusal(server.request("DELETE", state)) == LOCKED
    assert refusal(server.request("DELETE", f"{state}?ID=other")) == LOST
    assert server.request("GET", state).content == b"[1]"
    assert save(server, f"{state}?ID={ID}", "[2]").status_code == 200
    assert server.request("DELETE", f"{state}?ID={ID}").status_code == 200


def test_a_write_after_the_lock_has_expired_is_refused_and_counted(server: Server, state: str) -> None:
    save(server, state, "[1]")
    assert lock(server, state, query="?ttl=1").json()["ttl"] == 1
    until(lambda: server.is_free(state.removeprefix("/")))
    before = late_writes(server)
    assert refusal(save(server, f"{state}?ID={ID}", "[2]")) == LOST
    assert late_writes(server) == before + 1
    assert lock(server, state, lock_id="other").status_code == 200
    assert refusal(save(server, f"{state}?ID={ID}", "[2]")) == LOST
    assert refusal(unlock(server, state)) == LOST
    assert server.request("GET", state).content == b"[1]"


def late_writes(server: Server) -> int:
    text = server.request("GET", "/metrics").text
    [line] = [line for line in text.splitlines() if line.startswith("leasehold_fenced_writes_refused_total ")]
    return int(float(line.rpartition(" ")[2]))


def test_each_write_renews_the_lock(server: Server, state: str) -> None:
    lock(server, state, query="?ttl=1000")
    before = lease_of(server, state)
    save(server, f"{state}?ID={ID}")
    after = lease_of(server, state)
    assert after["expires_at"] > before["expires_at"]
    assert {**after, "expires_at": ""} == {**before, "expires_at": ""}


def test_a_lock_without_a_holder_is_ended_by_force(server: Server, state: str) -> None:
    lock(server, state)
    forced = server.request("UNLOCK", state)
    assert (forced.status_code, forced.json()) == (200, {"unlocked": True})
    assert server.is_free(state.removeprefix("/"))
    assert "a state is unlocked by force" in server.log()
    assert server.request("UNLOCK", state).json() == {"unlocked": False}


@pytest.mark.parametrize(
    ("method", "end", "fields", "body"),
    [("UNLOCK", "", ("Transfer-Encoding: chunked",), b"0\r\n\r\n"), ("DELETE", "/lock", (), b"")],
    ids=["an empty chunked body", "no body"],
)
def test_terraform_unlocks_by_force_with_a_request_of_this_form(
    server: Server, state: str, method: str, end: str, fields: tuple[str, ...], body: bytes
) -> None:
    lock(server, state)
    with Wire(server) as wire:
        answer = wire.send(message(method, state + end, *fields), body).answer()
    assert (answer.status, json.loads(answer.body)) == (200, {"unlocked": True})


WRONG_LOCK_INFOS: dict[str, tuple[Any, tuple[int, str]]] = {
    "no object": ([], INVALID),
    "no ID": ({"Who": "ann"}, INVALID),
    "an empty ID": ({"ID": ""}, INVALID),
    "a number as ID": ({"ID": 1}, INVALID),
    "a control character": ({"ID": "a\n"}, INVALID),
    "a long ID": ({"ID": "x" * (MAX_LEASE_ID_CHARACTERS + 1)}, INVALID),
    "a number as Who": ({"ID": "a", "Who": 1}, INVALID),
    "too long": ({"ID": "a", "Info": "x" * MAX_LOCK_INFO_BYTES}, (413, "too_large")),
}


@pytest.mark.parametrize(("info", "expected"), WRONG_LOCK_INFOS.values(), ids=WRONG_LOCK_INFOS)
@pytest.mark.parametrize("method", ["LOCK", "UNLOCK"])
def test_a_wrong_lock_info_is_refused(
    server: Server, state: str, method: str, info: Any, expected: tuple[int, str]
) -> None:
    assert refusal(server.request(method, state, json=info)) == expected


def test_members_that_are_not_known_are_kept(server: Server, state: str) -> None:
    info = {"ID": "a", "Job": {"number": 7}}
    assert server.request("LOCK", state, json=info).json()["owner"] == info


@pytest.mark.parametrize("query", ["?ID=", "?ID=a&ID=b", "?id=a", "?ttl=0.5", "?ttl=x", "?ttl=2592001"])
def test_a_wrong_parameter_is_refused(server: Server, state: str, query: str) -> None:
    assert refusal(save(server, state + query)) == INVALID


def test_every_request_of_a_state_accepts_the_ttl(server: Server, state: str) -> None:
    assert lock(server, state, query="?ttl=2592000").json()["ttl"] == 2_592_000
    assert save(server, f"{state}?ttl=60&ID={ID}").status_code == 201
    for method, path in (("GET", state), ("GET", f"{state}/versions"), ("UNLOCK", state), ("DELETE", state)):
        assert server.request(method, f"{path}?ttl=60").status_code == 200
    for method, path in (("GET", state), ("UNLOCK", state), ("DELETE", state)):
        assert refusal(server.request(method, f"{path}?ttl=0")) == INVALID


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match", "If-Lease"])
def test_conditions_of_other_routes_are_refused(server: Server, state: str, name: str) -> None:
    save(server, state)
    for method in ("POST", "PUT", "DELETE"):
        content = None if method == "DELETE" else "{}"
        assert refusal(server.request(method, state, content=content, headers={name: '"1"'})) == INVALID


def test_a_repeated_request_with_an_idempotency_key_is_done_once(server: Server, state: str) -> None:
    save(server, state, "[1]")
    answers = [save(server, state, "[2]", headers={"Idempotency-Key": f"of {state}"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert ["Idempotent-Replayed" in answer.headers for answer in answers] == [False, True]
    assert len(versions(server, state)) == 2


def test_a_watch_tells_of_a_saved_state_and_of_its_lock(server: Server, state: str) -> None:
    key = state.removeprefix("/")
    before = server.revision()
    lock(server, state)
    save(server, f"{state}?ID={ID}")
    last = server.revision()
    with Watch(server, f"prefix={key}&locks&since={before}&heartbeat=1") as watch:
        events = [event for event in watch.through(last) if event.name in ("put", "lock")]
    puts = [event.data for event in events if event.name == "put"]
    assert [(put["key"], put["size"]) for put in puts] == [(key, 2)]
    assert {event.data["state"] for event in events if event.name == "lock"} == {"held"}


# Permissions --------------------------------------------------------------------------------------------------


def basic(text: str, *, user: str = "terraform") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{text}".encode()).decode()}


def test_the_password_of_basic_authentication_is_the_token(guarded: Server, state: str) -> None:
    both = token("read", "write")
    assert save(guarded, state, headers=basic(both)).status_code == 201
    assert guarded.request("GET", state, headers=basic(both, user="")).status_code == 200
    lower = {"Authorization": basic(both)["Authorization"].replace("Basic", "basic")}
    assert guarded.request("GET", state, headers=lower).status_code == 200
    assert lock(guarded, state, headers=basic(both)).status_code == 200
    assert guarded.request("GET", f"{state}/versions", headers=basic(both)).status_code == 200
    assert guarded.request("GET", state, headers=BOTH).status_code == 200


def test_a_long_token_is_a_password_too(guarded: Server, state: str) -> None:
    long = token("read", "write", prefixes=["terraform/", *(f"{number:0100}" for number in range(25))])
    assert len(long) > 3_500
    assert save(guarded, state, headers=basic(long)).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("x"),
        basic(""),
        {"Authorization": "Basic"},
        {"Authorization": "Basic %%%"},
        {"Authorization": "Basic " + base64.b64encode(token("read").encode()).decode()},
        basic(token("read", lifetime_seconds=-60)),
    ],
    ids=["none", "wrong", "empty", "nothing", "no base64", "no colon", "expired"],
)
def test_a_state_is_not_shown_without_a_valid_token(guarded: Server, state: str, headers: dict[str, str]) -> None:
    response = guarded.request("GET", state, headers=headers)
    assert refusal(response) == UNAUTHENTICATED
    assert response.headers["WWW-Authenticate"] == 'Bearer, Basic realm="leasehold"'


def test_other_routes_do_not_take_basic_authentication(guarded: Server, key: str) -> None:
    """Not even on a connection on which the same header was accepted."""
    headers = basic(token("read", "write"))
    with Wire(guarded) as wire:
        fields = [f"{name}: {text}" for name, text in headers.items()]
        targets = ["/terraform/x", f"/kv/{key}", "/terraform/x", f"/kv/{key}", f"/locks/{key}"]
        answers = [wire.send(message("GET", target, *fields)).answer() for target in targets]
    assert [answer.status for answer in answers] == [404, 401, 404, 401, 401]
    assert answers[1].headers["www-authenticate"] == "Bearer"


def test_what_a_token_must_permit(guarded: Server, state: str) -> None:
    assert refusal(save(guarded, state, headers=READER)) == FORBIDDEN
    assert refusal(lock(guarded, state, headers=READER)) == FORBIDDEN
    assert save(guarded, state, headers=WRITER).status_code == 201
    assert refusal(guarded.request("GET", state, headers=WRITER)) == FORBIDDEN
    assert refusal(guarded.request("GET", f"{state}/versions", headers=WRITER)) == FORBIDDEN
    assert guarded.request("GET", state, headers=READER).status_code == 200


def test_a_token_must_cover_the_key_of_the_state(guarded: Server, state: str) -> None:
    name = state.rpartition("/")[2]
    for prefix, covers in ((f"terraform/{name}", True), ("terraform/other", False), (name, False)):
        headers = bearer(token("read", "write", "admin", prefixes=[prefix]))
        answers = [
            save(guarded, state, headers=headers),
            guarded.request("GET", state, headers=headers),
            guarded.request("GET", f"{state}/versions", headers=headers),
            lock(guarded, state, headers=headers),
            unlock(guarded, state, headers=headers),
            guarded.request("UNLOCK", state, headers=headers),
            guarded.request("DELETE", state, headers=headers),
        ]
        assert {answer.status_code < 300 for answer in answers} == {covers}
        if not covers:
            assert {refusal(answer) for answer in answers} == {FORBIDDEN}


def test_to_end_the_lock_of_another_caller_needs_the_permission_admin(guarded: Server, state: str) -> None:
    other = bearer(token("read", "write", subject="bob"))
    lock(guarded, state, headers=BOTH)
    assert refusal(guarded.request("UNLOCK", state, headers=BOTH)) == FORBIDDEN
    assert refusal(unlock(guarded, state, headers=other)) == FORBIDDEN
    assert unlock(guarded, state, headers=ADMIN).json() == {"unlocked": True}
    lock(guarded, state, headers=BOTH)
    assert guarded.request("UNLOCK", state, headers=ADMIN).json() == {"unlocked": True}
    assert "a state is unlocked by force" in guarded.log()
    assert "sub=eve" in guarded.log()
    lock(guarded, state, headers=BOTH)
    assert unlock(guarded, state, headers=BOTH).json() == {"unlocked": True}


def test_a_caller_that_may_not_read_is_not_shown_who_holds_the_lock(guarded: Server, state: str) -> None:
    lock(guarded, state, headers=BOTH)
    response = lock(guarded, state, lock_id="other", headers=WRITER)
    assert refusal(response) == LOCKED
    assert set(response.json()) == {"error", "message", "request_id"}


# Limits -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    limits = {"LEASEHOLD_MAX_STATE_BYTES": "3000", "LEASEHOLD_MAX_BODY_BYTES": "1000"}
    with running(environment=limits) as server:
        yield server


def of_size(size: int) -> bytes:
    return b'"' + b"x" * (size - 2) + b'"'


def chunked(body: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:500], body[500:])) + b"0\r\n\r\n"


SENT: dict[str, Callable[[str, bytes], bytes]] = {
    "with its length": lambda path, body: message("POST", path, body=body),
    "in chunks": lambda path, body: message("POST", path, "Transfer-Encoding: chunked") + chunked(body),
    "with an absolute target": lambda path, body: message("POST", f"http://localhost{path}?ttl=60", body=body),
}


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
def test_a_state_has_a_limit_of_its_own(small: Server, state: str, sent: Callable[[str, bytes], bytes]) -> None:
    with Wire(small) as wire:
        assert wire.send(sent(state, of_size(3_000))).answer().status == 201
    with Wire(small) as wire:
        answer = wire.send(sent(state, of_size(3_001))).answer()
    assert answer.refusal == (413, "too_large")
    assert json.loads(answer.body)["limit"] == 3_000
    with Wire(small) as wire:
        answer = wire.send(sent("/kv/a", of_size(1_001)).replace(b"?ttl=60", b"")).answer()
    assert answer.refusal == (413, "too_large")
    assert json.loads(answer.body)["limit"] == 1_000


def test_a_head_that_was_known_from_a_state_does_not_lift_the_limit_of_other_bodies(small: Server) -> None:
    with Wire(small) as wire:
        for _ in range(3):
            assert wire.send(message("POST", "/terraform/known", body=of_size(2_000))).answer().status in (200, 201)
        answer = wire.send(message("POST", "/kv/known", body=of_size(2_000))).answer()
    assert answer.refusal == (413, "too_large")


def test_a_limit_of_states_below_that_of_bodies_holds() -> None:
    with running(environment={"LEASEHOLD_MAX_STATE_BYTES": "100"}) as server:
        assert save(server, "/terraform/a", of_size(100)).status_code == 201
        assert refusal(save(server, "/terraform/a", of_size(101))) == (413, "too_large")
        assert server.put("a", of_size(101).decode()).status_code == 201


def test_the_default_limit_is_16_mib(server: Server, state: str) -> None:
    assert Limits().max_state_bytes == 16 * MIB
    assert save(server, state, of_size(16 * MIB)).status_code == 201
    assert refusal(save(server, state, of_size(16 * MIB + 1))) == (413, "too_large")
    assert len(server.request("GET", state).content) == 16 * MIB
    server.request("DELETE", state)


def test_a_state_with_too_many_brackets_or_commas_is_refused(server: Server, state: str) -> None:
    answer = save(server, state, b"[" + b"[]," * MAX_STATE_BRACKETS + b"1]")
    assert refusal(answer) == (413, "too_large")
    assert answer.json()["limit"] == MAX_STATE_BRACKETS
    answer = save(server, state, b"[" + b"1," * (MAX_STATE_COMMAS + 1) + b"1]")
    assert refusal(answer) == (413, "too_large")
    assert answer.json()["limit"] == MAX_STATE_COMMAS


def test_the_largest_states_are_there_after_a_kill(tmp_path: Any) -> None:
    texts = [of_size(16 * MIB), of_size(16 * MIB - 1)]
    with running(tmp_path / "data.json") as server:
        for text in texts:
            assert save(server, "/terraform/a", text).status_code in (200, 201)
        server.kill()
        server.start()
        assert server.request("GET", "/terraform/a").content == texts[1]
        version = versions(server, "/terraform/a")[1]["version"]
        assert server.request("GET", f"/terraform/a?version={version}").content == texts[0]


def test_states_and_their_locks_are_there_after_a_restart(tmp_path: Any) -> None:
    with running(tmp_path / "data.json") as server:
        save(server, "/terraform/a", TEXTS["a decimal of 200 digits"])
        save(server, "/terraform/a", TEXTS["U+0000"])
        lock(server, "/terraform/a")
        listed = versions(server, "/terraform/a")
        server.restart()
        assert server.request("GET", "/terraform/a").content == TEXTS["U+0000"]
        assert versions(server, "/terraform/a") == listed
        assert (
            server.request("GET", f"/terraform/a?version={listed[1]['version']}").content
            == (TEXTS["a decimal of 200 digits"])
        )
        assert refusal(save(server, "/terraform/a")) == LOCKED
        assert save(server, f"/terraform/a?ID={ID}").status_code == 200
        assert server.terminate() == 0
        server.start()
        assert len(versions(server, "/terraform/a")) == 3
