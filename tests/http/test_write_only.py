"""A token with `write` and without `read`: the answers to its writes show nothing that is stored."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import Server, refusal, running

from leasehold.access.token_minting import mint_token

SECRET = b"a-secret-of-more-than-32-bytes-for-tests"
CENTURY_SECONDS = 3_155_760_000.0
STORED = "stored-value-that-nobody-may-see"
CONFLICT = {"error": "conflict", "message": "the change cannot be applied to the stored value"}


def bearer(*permissions: str, subject: str = "ann") -> dict[str, str]:
    made = mint_token(SECRET, subject, permissions, prefixes=None, now=time.time(), lifetime_seconds=CENTURY_SECONDS)
    return {"Authorization": f"Bearer {made}"}


WRITER = bearer("write", subject="writer")
BOTH = bearer("read", "write")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two, which tests fill alike but for the content."""
    path = tmp_path_factory.mktemp("secret") / "secret"
    path.write_bytes(SECRET)
    arguments = [f"--auth-secret-file={path}"]
    with running(arguments=arguments) as one, running(arguments=arguments) as other:
        yield one, other


@pytest.fixture
def guarded(stores: tuple[Server, Server]) -> Server:
    return stores[0]


def told(response: httpx.Response) -> Any:
    """An error as its caller sees it, without its own name."""
    body = response.json()
    del body["request_id"]
    return body


# Responses to writes ------------------------------------------------------------------------------------------

WRITES: dict[str, tuple[str, str, Any, dict[str, str]]] = {
    "post": ("POST", "/kv/{key}", {"a": 1}, {}),
    "put": ("PUT", "/kv/{key}", {"a": 1}, {}),
    "part": ("PUT", "/kv/{key}?path=/list/0", 1, {}),
    "merge patch": ("PATCH", "/kv/{key}", {}, {"Content-Type": "application/merge-patch+json"}),
    "json patch": ("PATCH", "/kv/{key}", [], {"Content-Type": "application/json-patch+json"}),
    "minimal": ("PATCH", "/kv/{key}", {}, {"Content-Type": "application/merge-patch+json", "Prefer": "return=minimal"}),
    "set": ("POST", "/set", {"key": "{key}", "value": 1}, {}),
    "set a part": ("POST", "/set", {"key": "{key}", "value": 1, "path": "/a"}, {}),
}
UUIDS = iter(f"abcdef00-0000-4000-8007-{number:0>12}" for number in range(1_000_000))


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("accept", ["application/json", "application/vnd.msgpack"])
def test_a_write_is_answered_with_a_receipt_of_the_write_alone(guarded: Server, kind: str, accept: str) -> None:
    key = next(UUIDS)
    guarded.put(key, json.dumps({"secret": STORED, "list": [STORED]}), headers=BOTH)
    method, target, body, headers = WRITES[kind]
    sent = json.dumps(body).replace("{key}", key)
    more = {"Accept": accept}
    response = guarded.request(
        method,
        target.replace("{key}", key),
        content=sent,
        headers={"Content-Type": "application/json"} | headers | WRITER | more,
    )
    answer = response.json() if accept == "application/json" else msgspec.msgpack.decode(response.content)
    entry = guarded.get(key, headers=BOTH).json()
    path = {"part": {"path": "/list/0"}, "set a part": {"path": "/a"}}.get(kind, {})
    expected = {"key": key, "revision": entry["revision"], "updated_at": entry["updated_at"]} | path
    assert (response.status_code, answer, STORED in response.text) == (200, expected, False)


def test_a_new_entry_is_answered_with_201(guarded: Server) -> None:
    key = next(UUIDS)
    response = guarded.put(f"{key}?ttl=1000", "1", headers=WRITER)
    assert (response.status_code, response.headers["Location"]) == (201, f"/kv/{key}")
    assert sorted(response.json()) == ["expires_at", "key", "revision", "updated_at"]


@pytest.mark.parametrize("path", ["", "?path=/secret"])
def test_a_deletion_is_answered_without_the_deleted_value(guarded: Server, path: str) -> None:
    key = next(UUIDS)
    guarded.put(key, json.dumps({"secret": STORED}), headers=BOTH)
    response = guarded.delete(key + path, headers=WRITER)
    assert (response.status_code, STORED in response.text, "created_at" in response.text) == (200, False, False)


def test_a_caller_with_read_gets_the_full_answer(guarded: Server) -> None:
    key = next(UUIDS)
    guarded.put(key, '{"a": 1}', headers=BOTH)
    assert guarded.patch(key, '{"b": 2}', headers=BOTH).json()["value"] == {"a": 1, "b": 2}


# Errors -------------------------------------------------------------------------------------------------------


def test_a_failed_precondition_does_not_show_the_revision(guarded: Server) -> None:
    key = next(UUIDS)
    guarded.put(key, "1", headers=BOTH)
    answers = [
        guarded.put(key, "2", headers=WRITER | {"If-Match": '"0"'}),
        guarded.put(key, "2", headers=WRITER | {"If-None-Match": "*"}),
        guarded.put(next(UUIDS), "2", headers=WRITER | {"If-Match": "*"}),
        guarded.delete(key, headers=WRITER | {"If-Match": '"0"'}),
    ]
    expected = {"error": "precondition_failed", "message": "the entry does not meet the precondition"}
    assert [told(answer) for answer in answers] == [expected] * 4
    assert [(answer.status_code, "ETag" in answer.headers) for answer in answers] == [(412, False)] * 4


def test_a_json_patch_with_test_needs_the_permission_to_read(guarded: Server) -> None:
    key = next(UUIDS)
    guarded.put(key, '{"a": 1}', headers=BOTH)
    step = '{"op": "test", "path": "/a", "value": %d}'
    for value in (1, 2):
        refused = guarded.patch(key, f"[{step % value}]", kind="json-patch", headers=WRITER)
        assert told(refused) == {"error": "forbidden", "message": "the token lacks the permission read"}
    assert guarded.patch(key, f"[{step % 1}]", kind="json-patch", headers=BOTH).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "kind"),
    [
        ("PUT", "/list/7", "1", "json"),
        ("PUT", "/text/a", "1", "json"),
        ("PUT", "/list/name", "1", "json"),
        ("DELETE", "/absent", None, "json"),
        ("DELETE", "/list/7", None, "json"),
        ("DELETE", "/text/a", None, "json"),
        ("PATCH", "", '[{"op": "remove", "path": "/list/7"}]', "json-patch+json"),
        (
            "PATCH",
            "",
            '[{"op": "add", "path": "/b", "value": 1}, {"op": "replace", "path": "/c", "value": 1}]',
            "json-patch+json",
        ),
        ("PATCH", "", '[{"op": "copy", "from": "/absent", "path": "/c"}]', "json-patch+json"),
        ("PATCH", "", '[{"op": "move", "from": "/text", "path": "/text/a"}]', "json-patch+json"),
    ],
)
def test_every_change_that_cannot_be_applied_gets_the_same_error(
    guarded: Server, method: str, path: str, body: str | None, kind: str
) -> None:
    key = next(UUIDS)
    guarded.put(key, '{"list": [1, 2], "text": "t"}', headers=BOTH)
    headers = {"Content-Type": f"application/{kind}", "If-Match": "*"}
    target = f"/kv/{key}?path={path}" if path else f"/kv/{key}"
    refused, explained = (
        guarded.request(method, target, content=body, headers=headers | permitted) for permitted in (WRITER, BOTH)
    )
    assert (refused.status_code, told(refused)) == (409, CONFLICT)
    assert told(explained) != CONFLICT


def test_the_refusal_of_a_held_lock_does_not_show_its_owner(guarded: Server) -> None:
    lock = next(UUIDS)
    guarded.request("POST", f"/locks/{lock}", json={"owner": STORED, "ttl": 1_000}, headers=BOTH)
    for target, asked in ((f"/locks/{lock}", {"wait": 0}), ("/lock", {"wait": 0, "lock_id": lock})):
        refused = guarded.request("POST", target, json=asked, headers=WRITER)
        assert told(refused) == {"error": "lock_held", "message": "another lease on the lock is alive"}
        assert (refused.status_code, 900 < int(refused.headers["Retry-After"]) <= 1_000) == (423, True)
    explained = guarded.request("POST", f"/locks/{lock}", json={"wait": 0}, headers=BOTH).json()
    assert explained["owner"] == STORED


def test_a_caller_with_write_alone_sees_its_own_lease(guarded: Server) -> None:
    lock = next(UUIDS)
    lease = guarded.request("POST", f"/locks/{lock}", json={"owner": "me"}, headers=WRITER).json()
    renewed = guarded.request("PUT", f"/locks/{lock}", json={"lease_id": lease["lease_id"]}, headers=WRITER).json()
    released = guarded.request("DELETE", f"/locks/{lock}", json={"lease_id": lease["lease_id"]}, headers=WRITER)
    assert (lease["owner"], renewed["owner"], released.status_code) == ("me", "me", 200)


# Any write, on two stores that differ only in content ---------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "0", "1", "-"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", STORED])
CONTENTS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
SENT = st.recursive(
    st.integers(-3, 3) | st.none(), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner)
)
STEPS = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": PATHS,
        "from": PATHS,
        "value": SENT,
    }
)
CONDITIONS = st.sampled_from(
    [{}, {}, {}, {"If-Match": "*"}, {"If-None-Match": "*"}, {"If-Match": '"0"'}, {"If-Lease": "x"}]
)


@st.composite
def transactions(draw: st.DrawFn) -> dict[str, Any]:
    """A transaction with one operation on the entry `{key}`."""
    members: dict[str, Any] = draw(
        st.one_of(
            st.fixed_dictionaries({"op": st.just("put"), "value": SENT}, optional={"path": PATHS}),
            st.fixed_dictionaries({"op": st.just("merge"), "value": SENT}),
            st.fixed_dictionaries({"op": st.just("patch"), "patch": st.lists(STEPS, max_size=3)}),
            st.fixed_dictionaries({"op": st.sampled_from(["delete", "get"])}),
        )
    )
    every_check: list[dict[str, Any]] = [{"revision": 1}, {"revision": None}, {"exists": True}, {"value": STORED}, {}]
    check = draw(st.sampled_from(every_check))
    checks = [{"key": "{key}"} | check] if check else []
    body = {"if": checks, "do": [{"key": "{key}"} | members]}
    return {"method": "POST", "url": "/txn", "content": json.dumps(body), "headers": {}}


@st.composite
def writes(draw: st.DrawFn) -> dict[str, Any]:
    """A write to the entry `{key}`."""
    kind = draw(st.sampled_from(["put", "part", "merge-patch", "json-patch", "delete", "set", "txn", "txn"]))
    if kind == "txn":
        return draw(transactions())
    query = draw(PATHS.map(lambda path: f"?path={path}") | st.just(""))
    target, sent = "/kv/{key}" + query, draw(st.lists(STEPS, max_size=3) if kind == "json-patch" else SENT)
    headers = draw(CONDITIONS) | draw(st.sampled_from([{}, {"Prefer": "return=minimal"}]))
    if kind in ("merge-patch", "json-patch"):
        headers |= {"Content-Type": f"application/{kind}+json"}
        return {"method": "PATCH", "url": "/kv/{key}", "content": json.dumps(sent), "headers": headers}
    if kind == "delete":
        return {"method": "DELETE", "url": target, "headers": headers}
    if kind == "set":
        body = {"key": "{key}", "value": sent} | ({"path": draw(PATHS)} if query else {})
        return {"method": "POST", "url": "/set", "content": json.dumps(body), "headers": headers}
    return {
        "method": draw(st.sampled_from(["PUT", "POST"])),
        "url": target,
        "content": json.dumps(sent),
        "headers": headers,
    }


def answer_of(server: Server, key: str, content: Any, write: dict[str, Any]) -> tuple[Any, ...]:
    """What the write is answered where the entry has this content, without what names the request or the moment."""
    server.put(key, json.dumps(content), headers=BOTH)
    sent: dict[str, Any] = dict(write)
    sent |= {name: text.replace("{key}", key) for name, text in write.items() if isinstance(text, str)}
    response = server.request(sent.pop("method"), sent.pop("url"), **(sent | {"headers": sent["headers"] | WRITER}))
    assert STORED not in response.text + repr(response.headers)
    own = {"request_id", "revision", "updated_at"}
    told = response.json()
    if response.status_code >= 400:
        own |= {"index", "key"}  # the place in a transaction
    body = {name: part for name, part in told.get("results", [told])[0].items() if name not in own}
    headers = {name: text for name, text in response.headers.items() if name not in ("x-request-id", "date", "etag")}
    headers.pop("content-length")  # of a revision, which has more digits in the one store than in the other
    return response.status_code, body, headers, "etag" in response.headers


@settings(max_examples=400, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONTENTS, CONTENTS, writes())
def test_answers_from_stores_with_different_values_differ_only_in_whether_the_write_was_done(
    stores: tuple[Server, Server], content: Any, other_content: Any, write: dict[str, Any]
) -> None:
    key = next(UUIDS)
    answers = [
        answer_of(server, key, each, write) for server, each in zip(stores, (content, other_content), strict=True)
    ]
    if answers[0] != answers[1]:
        done, refused = sorted(answers, key=lambda answer: answer[0])
        assert (done[0], refused[:2], refused[3]) == (200, (409, CONFLICT), False)


def test_answers_for_an_absent_key_show_only_that_it_is_absent(guarded: Server) -> None:
    """That an entry exists is not hidden: a write says whether it made one."""
    assert refusal(guarded.patch(next(UUIDS), "{}", headers=WRITER)) == (404, "not_found")
    assert refusal(guarded.delete(next(UUIDS), headers=WRITER)) == (404, "not_found")


def test_a_deletion_by_prefix_is_answered_without_what_was_deleted(guarded: Server) -> None:
    key = next(UUIDS)
    guarded.put(key, json.dumps(STORED), headers=BOTH)
    response = guarded.request("DELETE", f"/kv?prefix={key}", headers=WRITER)
    assert sorted(response.json()) == ["deleted", "prefix", "revision"]
    assert STORED not in response.text


def test_the_answers_to_writes_of_a_state_show_no_state(guarded: Server, key: str) -> None:
    target = f"/terraform/{key}"
    changed, info = {"serial": 3}, {"ID": "mine"}
    for number in (1, 2):
        state = {"serial": number, "secret": STORED}
        assert guarded.request("POST", target, json=state, headers=BOTH).is_success
    answers = [
        guarded.request("POST", target, json=changed, headers=WRITER),
        guarded.request("PUT", target, json=changed, headers=WRITER),
        guarded.request("POST", f"{target}/lock", json=info, headers=WRITER),
        guarded.request("DELETE", f"{target}/lock", json=info, headers=WRITER),
        guarded.request("DELETE", target, headers=WRITER),
    ]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert not any(STORED in answer.text for answer in answers)
    assert guarded.request("GET", target, headers=WRITER).status_code == 403


def test_every_route_that_writes_is_tested_here(guarded: Server) -> None:
    """A route that is added must be held against what a writer may be told."""
    paths = guarded.contract.document["paths"].items()
    changing = {(method, path) for path, methods in paths for method in methods if method != "get"}
    changing -= {("put", "/ns/{namespace}"), ("delete", "/ns/{namespace}")}  # they need `admin`
    entries = {
        ("delete", "/kv"),
        ("post", "/txn"),
        ("post", "/kv/{key}"),
        ("put", "/kv/{key}"),
        ("patch", "/kv/{key}"),
        ("delete", "/kv/{key}"),
        ("post", "/set"),
    }
    locks = {(method, "/locks/{name}") for method in ("post", "put", "delete")}
    states = {(method, "/terraform/{state}") for method in ("post", "put", "delete")}
    states |= {(method, "/terraform/{state}/lock") for method in ("post", "delete")}
    assert changing == entries | locks | states | {("post", "/lock"), ("post", "/renew"), ("delete", "/unlock")}
