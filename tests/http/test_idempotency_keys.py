"""`Idempotency-Key`: a request is done once, and its repetition gets the same response."""

import json
import re
from collections.abc import Callable
from itertools import count
from typing import Any

import httpx
import msgspec
import pytest
from callers import BOTH, OF_ANOTHER, READER, UUID, WRITER
from running import Server, Wire, message, refusal, until

_numbers = count(1)
REUSED = (422, "idempotency_key_reused")
MSGPACK = "application/vnd.msgpack"
REPETITIONS = 2
"""How many `repeated` sends: one in each format."""


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


@pytest.fixture(scope="module")
def guarded(any_guarded: Server) -> Server:
    """Every test of tokens runs on every engine, too."""
    return any_guarded


@pytest.fixture
def once() -> dict[str, str]:
    """A header with a key that no other test uses."""
    return {"Idempotency-Key": f'"once-{next(_numbers)}"'}


def is_replayed(response: httpx.Response) -> bool:
    return "Idempotent-Replayed" in response.headers


def repeated(server: Server, method: str, target: str, headers: dict[str, str], **options: Any) -> httpx.Response:
    """Send a request and repeat it, in both formats. Returns its response, after a check that the others repeat it."""
    first = server.request(method, target, headers=headers, **options)
    assert first.status_code in (200, 201), first.text
    assert not is_replayed(first)
    again = server.request(method, target, headers=headers, **options)
    assert is_replayed(again)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for name in ("ETag", "Location", "Content-Type", "Preference-Applied"):
        assert again.headers.get(name) == first.headers.get(name)
    if "Accept" not in headers:
        packed = server.request(method, target, headers=headers | {"Accept": MSGPACK}, **options)
        assert (packed.status_code, is_replayed(packed), packed.headers["Content-Type"]) == (
            first.status_code,
            True,
            MSGPACK,
        )
        assert msgspec.msgpack.decode(packed.content) == first.json()
    return first


# Every request that changes something -------------------------------------------------------------------------


def test_a_repeated_write_creates_one_revision(server: Server, key: str, once: dict[str, str]) -> None:
    written = repeated(server, "POST", f"/kv/{key}", once, content=b'{"a": 1}')
    assert written.status_code == 201
    assert server.get(key).json() == written.json()


def test_a_write_that_replaces_an_entry_is_repeated_with_the_value_of_then(
    server: Server, key: str, once: dict[str, str]
) -> None:
    server.put(key, "0")
    written = server.request("PUT", f"/kv/{key}", headers=once, content=b"1")
    server.put(key, "2")
    again = server.request("PUT", f"/kv/{key}", headers=once, content=b"1")
    assert (is_replayed(again), again.content) == (True, written.content)
    assert server.value(key) == 2


def test_a_repeated_append_appends_once(server: Server, key: str, once: dict[str, str]) -> None:
    server.put(key, "[]")
    appended = repeated(server, "POST", f"/kv/{key}?path=/-", once, content=b'"x"')
    assert appended.json()["value"] == "x"
    assert server.value(key) == ["x"]


def test_a_repeated_increment_adds_once(server: Server, key: str, once: dict[str, str]) -> None:
    assert repeated(server, "POST", f"/kv/{key}?increment", once, content=b"5").json()["value"] == 5
    assert server.value(key) == 5


def test_a_repeated_increment_of_a_part_adds_once(server: Server, key: str, once: dict[str, str]) -> None:
    server.put(key, '{"n": 1, "long": "x"}')
    assert repeated(server, "POST", f"/kv/{key}?path=/n&increment", once, content=b"5").json()["value"] == 6
    assert server.value(key) == {"n": 6, "long": "x"}


@pytest.mark.parametrize(
    ("kind", "patch"), [("merge-patch", {"b": 2}), ("json-patch", [{"op": "add", "path": "/b", "value": 2}])]
)
def test_a_repeated_patch_shows_the_value_of_then(
    kind: str, patch: Any, server: Server, key: str, once: dict[str, str]
) -> None:
    server.put(key, '{"a": 1}')
    headers = once | {"Content-Type": f"application/{kind}+json"}
    patched = server.request("PATCH", f"/kv/{key}", headers=headers, json=patch)
    server.put(key, '"another"')
    again = server.request("PATCH", f"/kv/{key}", headers=headers, json=patch)
    assert (is_replayed(again), again.content) == (True, patched.content)
    assert again.json()["value"] == {"a": 1, "b": 2}


def test_a_repeated_deletion_is_not_answered_with_not_found(server: Server, key: str, once: dict[str, str]) -> None:
    server.put(key, "1")
    repeated(server, "DELETE", f"/kv/{key}", once)
    assert server.get(key).status_code == 404


def test_a_repeated_deletion_of_a_part_removes_it_once(server: Server, key: str, once: dict[str, str]) -> None:
    server.put(key, '{"a": 1, "b": 2}')
    repeated(server, "DELETE", f"/kv/{key}?path=/a", once)
    assert server.value(key) == {"b": 2}


@pytest.mark.parametrize("entries", [1, 40])
def test_a_repeated_deletion_by_prefix_spares_what_was_written_since(
    entries: int, server: Server, key: str, once: dict[str, str]
) -> None:
    for number in range(entries):
        server.put(f"{key}/{number}", "1")
    assert repeated(server, "DELETE", f"/kv?prefix={key}/", once).json()["deleted"] == entries
    server.put(f"{key}/later", "1")
    again = server.request("DELETE", f"/kv?prefix={key}/", headers=once)
    assert (is_replayed(again), again.json()["deleted"]) == (True, entries)
    assert server.value(f"{key}/later") == 1


def test_a_deletion_by_prefix_of_nothing_is_decided_again(server: Server, key: str, once: dict[str, str]) -> None:
    target = f"/kv?prefix={key}/"
    assert server.request("DELETE", target, headers=once).json()["deleted"] == 0
    server.put(f"{key}/a", "1")
    assert repeated(server, "DELETE", target, once).json()["deleted"] == 1


def test_a_repeated_set_without_a_key_makes_one_entry(server: Server, once: dict[str, str]) -> None:
    made = repeated(server, "POST", "/set", once, json={"value": [next(_numbers)]})
    assert server.request("GET", made.headers["Location"]).json() == made.json()


def test_a_repeated_transaction_is_done_once(server: Server, key: str, once: dict[str, str]) -> None:
    body = {
        "if": [{"key": key, "revision": None}],
        "do": [
            {"op": "put", "key": key, "value": 1},
            {"op": "increment", "key": f"{key}/n", "value": 1},
            {"op": "get", "key": key},
            {"op": "get", "key": f"{key}/absent"},
        ],
    }
    done = repeated(server, "POST", "/txn", once, json=body).json()
    assert done["results"][2] == server.get(key).json()
    assert server.value(f"{key}/n") == 1


IMAGE = {"Content-Type": "image/png"}
PNG = b"\x89PNG\r\n\x1a\n\x00\xff"


@pytest.mark.parametrize("accept", ["application/json", MSGPACK])
def test_a_repeated_write_of_bytes_creates_one_revision(
    accept: str, server: Server, key: str, once: dict[str, str]
) -> None:
    written = repeated(server, "PUT", f"/kv/{key}", once | IMAGE | {"Accept": accept}, content=PNG)
    assert written.status_code == 201
    assert server.get(key, headers={"Accept": "image/png"}).content == PNG


def test_bytes_that_replace_a_value_are_shown_by_the_repetition(server: Server, key: str, once: dict[str, str]) -> None:
    server.put(key, "1")
    written = repeated(server, "PUT", f"/kv/{key}?ttl=keep", once | IMAGE, content=PNG)
    assert (written.json()["media"], written.json()["size"]) == ("image/png", len(PNG))


def test_bytes_with_another_media_type_are_another_request(server: Server, key: str, once: dict[str, str]) -> None:
    server.request("PUT", f"/kv/{key}", headers=once | IMAGE, content=PNG)
    again = server.request("PUT", f"/kv/{key}", headers=once | {"Content-Type": "image/gif"}, content=PNG)
    assert refusal(again) == REUSED


def test_a_repeated_write_that_keeps_the_ttl_shows_the_expiry_of_then(
    server: Server, key: str, once: dict[str, str]
) -> None:
    server.put(f"{key}?ttl=60", "1")
    written = server.request("PUT", f"/kv/{key}?ttl=keep", headers=once, content=b"2")
    server.put(f"{key}?ttl=900", "3")
    again = server.request("PUT", f"/kv/{key}?ttl=keep", headers=once, content=b"2")
    assert (is_replayed(again), again.content) == (True, written.content)
    assert "expires_at" in written.json()


@pytest.mark.parametrize("accept", ["application/json", MSGPACK])
def test_a_repeated_transaction_shows_bytes_as_the_first_one_did(
    accept: str, server: Server, key: str, once: dict[str, str]
) -> None:
    server.request("PUT", f"/kv/{key}", headers=IMAGE, content=PNG)
    do = [
        {"op": "get", "key": key},
        {"op": "put", "key": f"{key}/b", "base64": "AP8=", "media": "image/gif"},
        {"op": "put", "key": f"{key}/c", "value": 1},
        {"op": "get", "key": f"{key}/b"},
    ]
    done = repeated(server, "POST", "/txn?base64", once | {"Accept": accept}, json={"do": do})
    server.request("DELETE", f"/kv?prefix={key}")
    again = server.request("POST", "/txn?base64", headers=once | {"Accept": accept}, json={"do": do})
    assert (is_replayed(again), again.content) == (True, done.content)


def test_a_repeated_acquisition_returns_the_same_lease(server: Server, lock: str, once: dict[str, str]) -> None:
    lease = repeated(server, "POST", f"/locks/{lock}", once, json={"ttl": 300, "owner": {"job": 7}}).json()
    assert (lease["owner"], server.holder(lock).json()["token"]) == ({"job": 7}, lease["token"])
    assert server.release(lock, lease["lease_id"]).status_code == 200


def test_the_commands_of_locks_by_uuid_are_repeated(server: Server, uuid: str, once: dict[str, str]) -> None:
    lease = repeated(server, "POST", "/lock", once, json={"lock_id": uuid, "ttl": 300}).json()
    members = {"lock_id": uuid, "lease_id": lease["lease_id"]}
    repeated(server, "POST", "/renew", {"Idempotency-Key": f"{uuid}-renew"}, json=members | {"ttl": 600})
    repeated(server, "DELETE", "/unlock", {"Idempotency-Key": f"{uuid}-unlock"}, json=members)
    assert server.is_free(uuid)


def test_a_repeated_renewal_does_not_extend_the_lease_again(server: Server, lock: str, once: dict[str, str]) -> None:
    lease = server.lease(lock, ttl=100)
    renewed = repeated(server, "PUT", f"/locks/{lock}", once, json={"lease_id": lease["lease_id"], "ttl": 200}).json()
    assert server.holder(lock).json()["expires_at"] == renewed["expires_at"]


def test_a_repeated_release_does_not_release_the_next_lease(server: Server, lock: str, once: dict[str, str]) -> None:
    server.lease(lock)
    repeated(server, "DELETE", f"/locks/{lock}?force", once)
    server.lease(lock)
    assert is_replayed(server.request("DELETE", f"/locks/{lock}?force", headers=once))
    assert not server.is_free(lock)


def mutations(server: Server) -> dict[tuple[str, str], Any]:
    """The operations of the description that change something in a namespace, by method and path."""
    return {
        (method.upper(), path): operation
        for path, methods in server.contract.document["paths"].items()
        for method, operation in methods.items()
        if method not in ("get", "options") and "servers" in operation
    }


def test_every_request_that_changes_something_is_repeated(
    server: Server, key: str, lock: str, uuid: str, once: dict[str, str]
) -> None:
    server.put(key, '{"a": 1}')
    merge = {"Content-Type": "application/merge-patch+json"}
    lease, lease_by_uuid = server.lease(lock), server.lease(uuid)
    of_lease = {"lock_id": uuid, "lease_id": lease_by_uuid["lease_id"]}
    requests: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
        ("POST", "/kv/{key}"): (f"/kv/{key}", {"content": b"1"}),
        ("PUT", "/kv/{key}"): (f"/kv/{key}", {"content": b"1"}),
        ("PATCH", "/kv/{key}"): (f"/kv/{key}", {"content": b'{"b": 2}', "headers": merge}),
        ("DELETE", "/kv/{key}"): (f"/kv/{key}", {}),
        ("DELETE", "/kv"): (f"/kv?prefix={key}", {}),
        ("POST", "/set"): ("/set", {"json": {"value": 1}}),
        ("POST", "/txn"): ("/txn", {"json": {"do": [{"op": "put", "key": key, "value": 1}]}}),
        ("POST", "/locks/{name}"): (f"/locks/{lock}-new?ttl=300", {}),
        ("PUT", "/locks/{name}"): (f"/locks/{lock}", {"json": {"lease_id": lease["lease_id"]}}),
        ("DELETE", "/locks/{name}"): (f"/locks/{lock}?lease_id={lease['lease_id']}", {}),
        ("POST", "/lock"): ("/lock", {"json": {"lock_id": UUID, "ttl": 300}}),
        ("POST", "/renew"): ("/renew", {"json": of_lease}),
        ("DELETE", "/unlock"): ("/unlock", {"json": of_lease}),
        ("POST", "/terraform/{state}/lock"): (f"/terraform/{key}/lock", {"json": {"ID": "1"}}),
        ("POST", "/terraform/{state}"): (f"/terraform/{key}?ID=1", {"json": {"serial": 1}}),
        ("PUT", "/terraform/{state}"): (f"/terraform/{key}?ID=1", {"json": {"serial": 2}}),
        ("DELETE", "/terraform/{state}/lock"): (f"/terraform/{key}/lock", {"json": {"ID": "1"}}),
        ("DELETE", "/terraform/{state}"): (f"/terraform/{key}", {}),
        # OpenAPI cannot describe these methods.
        ("LOCK", "/terraform/{state}"): (f"/terraform/{key}", {"json": {"ID": "2"}}),
        ("UNLOCK", "/terraform/{state}"): (f"/terraform/{key}", {"json": {"ID": "2"}}),
    }
    assert {each for each in requests if not each[0].endswith("LOCK")} == mutations(server).keys()
    server.request("DELETE", f"/locks/{UUID}?force")
    for (method, path), (target, options) in requests.items():
        server.put(key, '{"a": 1}')  # so that there is something to change or to delete
        own = {"Idempotency-Key": f"{once['Idempotency-Key'][1:-1]} {method} {path}"}
        repeated(server, method, target, options.pop("headers", {}) | own, **options)


def test_the_description_has_the_header_of_each_request_and_its_answers(server: Server) -> None:
    for (method, path), operation in mutations(server).items():
        names = {parameter["name"] for parameter in operation["parameters"]}
        assert "Idempotency-Key" in names, f"{method} {path}"
        for status, answer in operation["responses"].items():
            described = server.contract.resolve(answer)
            repeats = described["headers"].get("Idempotent-Replayed")
            assert (repeats is not None) == (status in ("200", "201")), f"{method} {path} {status}"
        for status, code in (("400", "invalid_argument"), ("422", "idempotency_key_reused")):
            described = server.contract.resolve(operation["responses"][status])
            assert code in described["description"], f"{method} {path} {status}"
    for path, methods in server.contract.document["paths"].items():
        named = json.dumps(methods.get("get", {}))
        assert "Idempoten" not in named, path


def test_a_read_with_a_key_is_a_read(server: Server, key: str, once: dict[str, str]) -> None:
    server.put(key, "1")
    for value in (2, 3):
        server.put(key, str(value))
        response = server.get(key, headers=once)
        assert (response.json()["value"], is_replayed(response)) == (value, False)
    assert server.get(key, headers={"Idempotency-Key": '"'}).status_code == 200


# The response -------------------------------------------------------------------------------------------------


def test_the_response_has_the_representation_that_the_repetition_asks_for(
    server: Server, key: str, once: dict[str, str]
) -> None:
    first = server.put(key, '{"a": 1}', headers=once)
    packed = server.put(key, '{"a": 1}', headers=once | {"Accept": MSGPACK})
    assert (packed.status_code, msgspec.msgpack.decode(packed.content)) == (201, first.json())
    minimal = server.put(key, '{"a": 1}', headers=once | {"Prefer": "return=minimal"})
    assert minimal.json() == {name: part for name, part in first.json().items() if name != "value"}


def test_the_repetition_of_a_write_with_return_minimal_is_minimal(
    server: Server, key: str, once: dict[str, str]
) -> None:
    repeated(server, "POST", f"/kv/{key}", once | {"Prefer": "return=minimal"}, content=b"1")


def test_a_messagepack_body_is_repeated(server: Server, key: str, once: dict[str, str]) -> None:
    headers = once | {"Content-Type": MSGPACK}
    assert repeated(server, "POST", f"/kv/{key}", headers, content=msgspec.msgpack.encode({"a": 1.0})).json()["value"]


# The same key with another request ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "suffix", "body", "headers"),
    [
        ("PUT", "", b"1", {}),
        ("DELETE", "", None, {}),
        ("POST", "-other", b"1", {}),
        ("POST", "?ttl=60", b"1", {}),
        ("POST", "", b"2", {}),
        ("POST", "", b" 1", {}),
        ("POST", "", b"1", {"If-None-Match": "*"}),
        ("POST", "", b"1", {"If-Match": "*"}),
        ("POST", "", b"1", {"If-Lease": "unknown"}),
        ("POST", "", b"1", {"Content-Type": MSGPACK}),
        ("POST", "", b"1", {"Content-Type": "image/png"}),
    ],
    ids=[
        *("method", "deletion", "target", "query", "body", "spaces"),
        *("if-none-match", "if-match", "if-lease", "type", "bytes"),
    ],
)
def test_another_request_with_the_key_is_refused_and_does_nothing(
    method: str,
    suffix: str,
    body: bytes | None,
    headers: dict[str, str],
    still_server: Server,
    key: str,
    once: dict[str, str],
) -> None:
    still_server.put(key, "1", headers=once)
    before = still_server.revision()
    response = still_server.request(method, f"/kv/{key}{suffix}", headers=once | headers, content=body)
    assert refusal(response) == REUSED
    assert still_server.revision() == before
    assert is_replayed(still_server.put(key, "1", headers=once))


def test_an_acquisition_with_the_key_of_another_request_is_refused(
    server: Server, key: str, lock: str, once: dict[str, str]
) -> None:
    server.put(key, "1", headers=once)
    assert refusal(server.request("POST", f"/locks/{lock}", headers=once)) == REUSED
    assert refusal(server.request("DELETE", f"/kv?prefix={key}", headers=once)) == REUSED
    assert server.is_free(lock)


# Only successes are kept --------------------------------------------------------------------------------------


def test_a_refused_request_is_decided_again(server: Server, key: str, once: dict[str, str]) -> None:
    assert server.delete(key, headers=once).status_code == 404
    server.put(key, "1")
    repeated(server, "DELETE", f"/kv/{key}", once)


def test_a_refused_request_does_not_use_the_key_up(server: Server, key: str, once: dict[str, str]) -> None:
    assert server.put(key, "1", headers=once | {"If-Match": "*"}).status_code == 412
    repeated(server, "POST", f"/kv/{key}", once, content=b"1")


def test_a_lock_that_was_held_is_acquired_by_the_repetition(server: Server, lock: str, once: dict[str, str]) -> None:
    held = server.lease(lock)
    assert server.request("POST", f"/locks/{lock}?wait=0", headers=once).status_code == 423
    server.release(lock, held["lease_id"])
    repeated(server, "POST", f"/locks/{lock}?wait=0", once)


# The header ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("plain", '"plain"'),
        ("!", '"!"'),
        ('"with \\"quotes\\" and \\\\"', '"with \\"quotes\\" and \\\\"'),
        ("a b,c;d=e", '"a b,c;d=e"'),
        ("x" * 255, '"' + "x" * 255 + '"'),
    ],
    ids=["quoted", "short", "escaped", "punctuation", "long"],
)
def test_a_key_may_be_quoted(first: str, again: str, server: Server, key: str) -> None:
    assert server.put(key, "1", headers={"Idempotency-Key": first}).status_code == 201
    assert is_replayed(server.put(key, "1", headers={"Idempotency-Key": again}))
    server.delete(key)


@pytest.mark.parametrize(
    "sent",
    ["", '""', '"', '"open', '"a"b"', '"a\\b"', "x" * 256, '"' + "x" * 256 + '"', "umlaut-ü".encode()],
    ids=["empty", "empty quotes", "quote", "open", "quote inside", "escape", "long", "long quoted", "ü"],
)
def test_a_malformed_key_is_refused_and_nothing_is_done(sent: str | bytes, server: Server, key: str) -> None:
    with Wire(server) as wire:
        head = message("POST", f"/kv/{key}", "Idempotency-Key: @", body=b"1")
        raw = sent if isinstance(sent, bytes) else sent.encode()
        assert wire.send(head.replace(b"@", raw)).answer().refusal == (400, "invalid_argument")
        lock = message("POST", f"/locks/{key}", "Idempotency-Key: @", body=b"")
        assert wire.send(lock.replace(b"@", raw)).answer().refusal == (400, "invalid_argument")
    assert server.get(key).status_code == 404


@pytest.mark.parametrize("second", ["a", "b", "", '"a"'])
def test_a_request_with_two_keys_is_refused_and_nothing_is_done(second: str, server: Server, key: str) -> None:
    """Joined by a comma they would be a third key, so a repetition with one of them would be done again."""
    with Wire(server) as wire:
        fields = ("Idempotency-Key: a", f"idempotency-key: {second}")
        wire.send(message("POST", f"/kv/{key}?increment", *fields, body=b"1"))
        assert wire.answer().refusal == (400, "invalid_request")
        assert wire.is_closed()
    assert server.get(key).status_code == 404


@pytest.mark.parametrize(
    ("sent", "fits"),
    [
        *((each, True) for each in ("a", "a b", '"a"', '"a\\"b"', "x" * 255, '"' + "x" * 255 + '"', "a,b")),
        *((each, False) for each in ("", '""', '"open', '"a"b"', "x" * 256, '"' + "x" * 256 + '"', " a", "ü")),
    ],
)
def test_the_description_says_which_keys_are_accepted(sent: str, fits: bool, server: Server) -> None:  # noqa: FBT001
    parameters = server.contract.document["paths"]["/kv/{key}"]["put"]["parameters"]
    (schema,) = [each["schema"] for each in parameters if each["name"] == "Idempotency-Key"]
    assert (re.search(schema["pattern"], sent) is not None) == fits


# Callers ------------------------------------------------------------------------------------------------------


def test_callers_have_their_own_keys(guarded: Server, key: str, once: dict[str, str]) -> None:
    first = guarded.put(key, "1", headers=once | BOTH)
    other = guarded.put(key, "2", headers=once | OF_ANOTHER)
    assert (first.status_code, other.status_code) == (201, 200)
    assert is_replayed(guarded.put(key, "1", headers=once | BOTH))


def test_the_repetition_needs_the_permission(guarded: Server, key: str, once: dict[str, str]) -> None:
    assert guarded.put(key, "1", headers=once | BOTH).status_code == 201
    assert guarded.put(key, "1", headers=once | READER).status_code == 403
    written = guarded.put(key, "1", headers=once | WRITER)
    assert (is_replayed(written), "value" in written.json()) == (True, False)


# At the same time ---------------------------------------------------------------------------------------------


def test_equal_requests_at_the_same_time_have_one_effect(
    server: Server, key: str, once: dict[str, str], wires: Callable[[], Wire]
) -> None:
    header = f"Idempotency-Key: {once['Idempotency-Key']}"
    clients = [wires() for _ in range(16)]
    for client in clients:
        client.send(message("POST", f"/kv/{key}?increment", header, body=b"1"))
    answers = [client.answer(to="POST") for client in clients]
    assert {(answer.status, answer.body) for answer in answers} == {(201, answers[0].body)}
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert server.value(key) == 1


def test_a_pipelined_repetition_has_no_effect(server: Server, key: str, once: dict[str, str]) -> None:
    request = message("POST", f"/kv/{key}?increment", f"Idempotency-Key: {once['Idempotency-Key']}", body=b"1")
    with Wire(server) as wire:
        wire.send(request * 5)
        bodies = {wire.answer(to="POST").body for _ in range(5)}
    assert len(bodies) == 1
    assert server.value(key) == 1


def test_equal_requests_that_wait_for_a_lock_get_one_lease(
    server: Server, lock: str, once: dict[str, str], wires: Callable[[], Wire]
) -> None:
    held = server.lease(lock)
    request = message("POST", f"/locks/{lock}?wait=60&ttl=300", f"Idempotency-Key: {once['Idempotency-Key']}")
    clients = [wires() for _ in range(3)]
    for client in clients:
        client.send(request)
    until(lambda: server.waiters(lock) == 3)
    server.release(lock, held["lease_id"])
    answers = [client.answer(to="POST") for client in clients]
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    assert json.loads(answers[0].body)["token"] == server.holder(lock).json()["token"]
    late = server.request("POST", f"/locks/{lock}?wait=60&ttl=300", headers=once)
    assert (is_replayed(late), late.content) == (True, answers[0].body)


def test_a_repetition_does_not_wait_behind_other_waiters(
    server: Server, lock: str, once: dict[str, str], wires: Callable[[], Wire]
) -> None:
    lease = repeated(server, "POST", f"/locks/{lock}?ttl=300", once).json()
    waiting = wires().send(message("POST", f"/locks/{lock}?wait=60"))
    until(lambda: server.waiters(lock) == 1)
    assert server.request("POST", f"/locks/{lock}?ttl=300", headers=once).json() == lease
    server.release(lock, lease["lease_id"])
    assert waiting.answer(to="POST").status == 201


# The receipts -------------------------------------------------------------------------------------------------


def test_receipts_are_in_no_list_and_no_watch(server: Server, key: str, once: dict[str, str]) -> None:
    before = server.revision()
    server.put(key, "1", headers=once)
    with server.client.stream("GET", f"/watch?since={before}&locks&prefix=&heartbeat=1") as response:
        seen = b""
        for data in response.iter_raw():
            seen += data
            if b"event: progress" in seen or seen.count(b"event: put") == 1:
                break
    assert seen.count(b"event: put") == 1
    listed = server.request("GET", f"/kv?prefix={key}").json()["entries"]
    assert [entry["key"] for entry in listed] == [key]


def test_replayed_requests_are_counted(server: Server, key: str, once: dict[str, str]) -> None:
    def replays() -> float:
        lines = server.request("GET", "/metrics").text.splitlines()
        [line] = [line for line in lines if line.startswith("leasehold_replayed_requests_total ")]
        return float(line.split()[1])

    before = replays()
    repeated(server, "POST", f"/kv/{key}", once, content=b"1")
    repeated(server, "POST", f"/locks/{key}?ttl=300", {"Idempotency-Key": f"{key}-lock"})
    repeated(server, "DELETE", f"/kv?prefix={key}", {"Idempotency-Key": f"{key}-delete"})
    assert replays() == before + 3 * REPETITIONS
