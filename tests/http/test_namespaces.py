"""Namespaces: created, changed, listed, deleted and created again; their quotas while many write at once."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from databases import STORES
from namespaced import new_namespace
from running import Server, Wire, http_client, message, refusal, running, until
from watching import EVENTS, LINES, Watch, gauge

MISSING = (404, "no_such_namespace")
FULL = (507, "quota_exceeded")


@pytest.fixture(scope="module", params=list(STORES))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(STORES[request.param](tmp_path_factory.mktemp("store"))) as started:
        yield started


def described(server: Server, path: str) -> Any:
    response = server.request("GET", path)
    assert response.status_code == 200, response.text
    return response.json()


def quota_of(server: Server, path: str) -> tuple[int | None, int | None]:
    shown = described(server, path)
    return shown["max_entries"], shown["max_bytes"]


# Creating and changing ------------------------------------------------------------------------------------------


def test_a_new_namespace_is_empty_and_has_a_location(server: Server) -> None:
    response = server.request("PUT", "/ns/fresh")
    assert (response.status_code, response.headers["Location"]) == (201, "/ns/fresh")
    shown = described(server, "/ns/fresh")
    assert response.json() == shown
    created_at = shown.pop("created_at")
    assert created_at.endswith("Z")
    assert shown == {
        "namespace": "fresh",
        "revision": 0,
        "entries": 0,
        "bytes": 0,
        "max_entries": None,
        "max_bytes": None,
    }


def test_a_namespace_that_exists_is_not_created_again(server: Server) -> None:
    path = new_namespace(server)
    server.request("POST", f"{path}/kv/a", content=b"1")
    created_at = described(server, path)["created_at"]
    response = server.request("PUT", path)
    assert (response.status_code, response.json()["entries"], response.json()["created_at"]) == (200, 1, created_at)


def test_a_member_that_is_missing_keeps_its_limit_and_null_removes_it(server: Server) -> None:
    path = new_namespace(server, max_entries=5, max_bytes=100)
    assert quota_of(server, path) == (5, 100)
    server.request("PUT", path)
    assert quota_of(server, path) == (5, 100)
    server.request("PUT", path, json={"max_entries": 6})
    assert quota_of(server, path) == (6, 100)
    server.request("PUT", path, json={"max_bytes": None})
    assert quota_of(server, path) == (6, None)
    server.request("PUT", path, json={"max_entries": None})
    assert quota_of(server, path) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        {"max_entries": -1},
        {"max_entries": 1.5},
        {"max_entries": True},
        {"max_bytes": "1"},
        {"max_bytes": 2**53},
        {"max": 1},
        [],
        1,
        "x",
    ],
    ids=json.dumps,
)
def test_a_wrong_quota_is_refused_and_creates_nothing(server: Server, body: Any) -> None:
    assert refusal(server.request("PUT", "/ns/wrong", json=body)) == (400, "invalid_argument")
    assert refusal(server.request("GET", "/ns/wrong")) == MISSING


NAMES = {
    "a" * 63: 201,
    "a" * 64: 400,
    "-": 201,
    "0-9": 201,
    "A": 400,
    "a_b": 400,
    "a.b": 400,
    "%61-encoded": 201,
    "a%2Fb": 400,
    "a%2fkv%2fx": 400,
    "%2e%2e": 400,
    "%00": 400,
    "%ff": 400,
    "%": 400,
    "%C3%A9": 400,
    "*": 400,
    "": 400,
}


@pytest.mark.parametrize("name", NAMES)
def test_names_have_lower_case_letters_digits_and_hyphens(server: Server, name: str) -> None:
    with Wire(server) as wire:
        answer = wire.send(message("PUT", f"/ns/{name}", body=b"")).answer()
        inner = wire.send(message("GET", f"/ns/{name}/kv/absent")).answer()
    assert answer.status == NAMES[name]
    expected = (404, "not_found") if answer.status == 201 else (400, "invalid_argument")
    assert inner.refusal == expected


def test_an_encoded_name_is_the_same_namespace(server: Server) -> None:
    path = new_namespace(server)
    encoded = "/ns/%74est" + path.removeprefix("/ns/test")
    assert server.request("POST", f"{encoded}/kv/a", content=b"1").headers["Location"] == f"{encoded}/kv/a"
    assert described(server, path)["entries"] == described(server, encoded)["entries"] == 1


@pytest.mark.parametrize(("method", "target"), [("POST", "/kv/a"), ("PUT", "/kv/b"), ("POST", "/set")])
def test_the_location_of_a_new_entry_is_in_its_namespace(server: Server, method: str, target: str) -> None:
    path, key = new_namespace(server), {"Idempotency-Key": "once"}
    for _ in range(2):  # done, and repeated
        created = server.request(method, f"{path}{target}", json={"value": 1}, headers=key)
        assert created.status_code == 201
        assert server.request("GET", created.headers["Location"]).json()["key"] == created.json()["key"]


@pytest.mark.parametrize(
    "target", ["/ns/default/ns/default", "/ns/default/ns/default/kv/a", "/ns/default/", "/ns//kv/a"]
)
def test_namespaces_are_not_nested(server: Server, target: str) -> None:
    with Wire(server) as wire:
        answer = wire.send(message("GET", target)).answer()
    assert answer.refusal in ((404, "no_such_route"), (400, "invalid_argument"))


def test_an_idempotency_key_is_refused_because_the_request_may_be_repeated(server: Server) -> None:
    for method in ("PUT", "DELETE"):
        response = server.request(method, "/ns/keyed", headers={"Idempotency-Key": "a"})
        assert refusal(response) == (400, "invalid_argument")


def test_head_and_options_of_a_namespace(server: Server) -> None:
    path = new_namespace(server)
    server.request("POST", f"{path}/kv/a", content=b"1")
    head, got = server.request("HEAD", f"{path}/kv/a"), server.request("GET", f"{path}/kv/a")
    assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", got.headers["ETag"])
    assert server.request("HEAD", "/ns/missing/kv/a").status_code == 404
    assert server.request("HEAD", path).status_code == 200
    assert server.request("OPTIONS", path).headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PUT"
    allowed = server.request("OPTIONS", "/kv/a").headers["Allow"]
    assert server.request("OPTIONS", f"{path}/kv/a").headers["Allow"] == allowed
    assert refusal(server.request("POST", path)) == (405, "method_not_allowed")


def test_a_state_in_a_namespace_has_the_limit_of_states(server: Server) -> None:
    path = new_namespace(server)
    large = json.dumps({"serial": 1, "text": "x" * 2_000_000}).encode()
    assert server.request("POST", f"{path}/terraform/a", content=large).is_success
    assert server.request("GET", f"{path}/terraform/a").content == large
    assert refusal(server.request("POST", f"{path}/kv/a", content=large)) == (413, "too_large")


# Listing --------------------------------------------------------------------------------------------------------


def test_namespaces_are_listed_in_pages_in_the_order_of_their_names(server: Server) -> None:
    paths = [new_namespace(server) for _ in range(5)]
    whole = server.request("GET", "/ns").json()
    names = [each["namespace"] for each in whole["namespaces"]]
    assert whole["next"] is None
    assert names == sorted(names)
    assert {"default", *(path.removeprefix("/ns/") for path in paths)} <= set(names)
    paged: list[str] = []
    after: str | None = ""
    while after is not None:
        page = server.request("GET", "/ns", params={"limit": "2", "after": after}).json()
        assert 0 < len(page["namespaces"]) <= 2
        paged += [each["namespace"] for each in page["namespaces"]]
        after = page["next"]
    assert paged == names


def test_a_listed_namespace_is_shown_as_alone(server: Server) -> None:
    path = new_namespace(server, max_entries=3)
    listed = server.request("GET", "/ns").json()["namespaces"]
    assert described(server, path) in listed


# Deleting -------------------------------------------------------------------------------------------------------


def test_default_is_not_deleted(server: Server, key: str) -> None:
    server.put(key, "1")
    assert refusal(server.request("DELETE", "/ns/default")) == (400, "invalid_argument")
    assert server.value(key) == 1


def test_a_deleted_namespace_is_gone_with_all_that_it_had(server: Server) -> None:
    path = new_namespace(server)
    for number in range(3):
        server.request("POST", f"{path}/kv/{number}", content=b"1")
    response = server.request("DELETE", path)
    assert response.json() == {"namespace": path.removeprefix("/ns/"), "deleted": True, "revision": 4}
    assert refusal(server.request("GET", path)) == MISSING
    assert refusal(server.request("DELETE", path)) == MISSING
    assert refusal(server.request("GET", f"{path}/kv/1")) == MISSING
    server.request("PUT", path)
    assert described(server, path)["entries"] == 0
    assert server.request("GET", f"{path}/kv").json()["entries"] == []


def test_fencing_tokens_and_revisions_never_repeat_in_a_namespace_that_is_created_again(server: Server) -> None:
    path = new_namespace(server)
    tokens, tags = [], []
    for _ in range(4):
        tokens.append(server.request("POST", f"{path}/locks/a", json={"ttl": 600, "wait": 0}).json()["token"])
        tags.append(server.request("POST", f"{path}/kv/a", content=b"1").headers["ETag"])
        last = described(server, path)["revision"]
        assert server.request("DELETE", path).json()["revision"] == last + 1
        assert server.request("PUT", path).json()["revision"] == last + 1
    assert tokens == sorted(set(tokens))
    assert len({tag.partition(".")[2] for tag in tags}) == 4, "each time another incarnation"


def test_an_etag_and_a_lease_of_a_deleted_namespace_are_worth_nothing(server: Server) -> None:
    path = new_namespace(server)
    tag = server.request("POST", f"{path}/kv/a", content=b"1").headers["ETag"]
    lease = server.request("POST", f"{path}/locks/a", json={"ttl": 600}).json()["lease_id"]
    server.request("DELETE", path)
    server.request("PUT", path)
    server.request("POST", f"{path}/kv/a", content=b"1")
    conditions = {"If-Match": tag}, {"If-Lease": lease}
    codes = [refusal(server.request("PUT", f"{path}/kv/a", content=b"2", headers=each)) for each in conditions]
    assert codes == [(412, "precondition_failed"), (412, "lease_lost")]


def test_an_idempotency_key_of_a_deleted_namespace_is_forgotten(server: Server) -> None:
    path, key = new_namespace(server), {"Idempotency-Key": "once"}
    server.request("POST", f"{path}/kv/a", content=b"1", headers=key)
    server.request("DELETE", path)
    server.request("PUT", path)
    again = server.request("POST", f"{path}/kv/a", content=b"1", headers=key)
    assert (again.status_code, "Idempotent-Replayed" in again.headers) == (201, False)


def test_the_history_of_a_deleted_namespace_is_not_shown(server: Server) -> None:
    path = new_namespace(server)
    for number in range(3):
        server.request("POST", f"{path}/kv/secret-{number}", content=b"1")
    server.request("DELETE", path)
    server.request("PUT", path)
    response = server.request("GET", f"{path}/watch?since=1")
    assert refusal(response) == (410, "revision_compacted")


def test_whoever_has_seen_the_last_change_of_a_deleted_namespace_is_told_of_the_deletion(server: Server) -> None:
    """A copy of the namespace has entries that are gone, and no later change removes them."""
    path = new_namespace(server)
    last = server.request("POST", f"{path}/kv/a", content=b"1").json()["revision"]
    server.request("DELETE", path)
    server.request("PUT", path)
    assert refusal(server.request("GET", f"{path}/watch?since={last}")) == (410, "revision_compacted")
    with Watch(server, f"snapshot&since={last}", namespace=path) as watch:
        assert [event.name for event in watch.ready()] == ["reset"]
    server.request("POST", f"{path}/kv/b", content=b"1")
    assert refusal(server.request("GET", f"{path}/watch?since={last}")) == (410, "revision_compacted")


@pytest.mark.parametrize("accept", [EVENTS, LINES])
def test_a_watch_in_a_namespace_that_is_deleted_ends_with_a_reason(server: Server, accept: str) -> None:
    path = new_namespace(server)
    with Watch(server, "snapshot", accept=accept, namespace=path) as watch:
        watch.ready()
        server.request("DELETE", path)
        [end] = watch.rest()
    assert (end.name, end.data["error"]) == ("end", "no_such_namespace")


def test_what_waits_in_a_namespace_that_is_deleted_gets_an_answer(server: Server) -> None:
    path = new_namespace(server)
    assert server.request("POST", f"{path}/locks/a", json={"ttl": 600}).status_code == 201
    with Wire(server) as lock, Wire(server) as read:
        lock.send(message("POST", f"{path}/locks/a", body=b'{"wait": 60, "ttl": 600}'))
        read.send(message("GET", f"{path}/kv/absent?wait=60"))
        until(lambda: gauge(server, "waiters") and gauge(server, "waiting_reads"))
        assert server.request("DELETE", path).status_code == 200
        assert (lock.answer().refusal, read.answer().refusal) == (MISSING, MISSING)


def test_writes_while_a_namespace_is_deleted_are_done_before_or_refused(server: Server) -> None:
    path = new_namespace(server)

    def write(number: int) -> list[int]:
        with http_client(server.url) as client:
            return [client.post(f"{path}/kv/{number}-{each}", content=b"1").status_code for each in range(30)]

    with ThreadPoolExecutor(6) as pool:
        writes = [pool.submit(write, number) for number in range(5)]
        revision = server.request("DELETE", path).json()["revision"]
        statuses = [each.result() for each in writes]
    for of_client in statuses:
        assert of_client == sorted(of_client), "none is done after one was refused"
        assert set(of_client) <= {201, 404}
    assert sum(each.count(201) for each in statuses) + 1 == revision, "the deletion has a revision, too"
    assert server.request("PUT", path).json()["entries"] == 0


# Quotas ---------------------------------------------------------------------------------------------------------


def statuses_of_many(server: Server, requests: list[tuple[str, str, bytes]]) -> list[int]:
    """Sent from 8 connections at once, all requests of a connection in one piece."""

    def send(part: list[tuple[str, str, bytes]]) -> list[int]:
        with Wire(server) as wire:
            wire.send(b"".join(message(method, target, body=body) for method, target, body in part))
            return [wire.answer().status for _ in part]

    with ThreadPoolExecutor(8) as pool:
        parts = [requests[number::8] for number in range(8)]
        return [status for statuses in pool.map(send, parts) for status in statuses]


def test_exactly_as_many_entries_as_the_quota_allows_are_written_at_once(server: Server) -> None:
    path = new_namespace(server, max_entries=50)
    statuses = statuses_of_many(server, [("POST", f"{path}/kv/{number}", b"1") for number in range(400)])
    assert (statuses.count(201), statuses.count(507)) == (50, 350)
    assert described(server, path)["entries"] == 50


def test_exactly_as_many_bytes_as_the_quota_allows_are_written_at_once(server: Server) -> None:
    path = new_namespace(server, max_bytes=1_000)
    statuses = statuses_of_many(server, [("PUT", f"{path}/kv/{number:03}", b"1234567") for number in range(400)])
    assert (statuses.count(201), statuses.count(507)) == (100, 300)
    assert described(server, path)["bytes"] == 1_000


def test_writes_transactions_and_deletions_at_once_never_exceed_the_quota(server: Server) -> None:
    path = new_namespace(server, max_entries=20)
    two = {"do": [{"op": "put", "key": "PLACE-1", "value": 1}, {"op": "put", "key": "PLACE-2", "value": 1}]}
    requests = []
    for number in range(300):
        body = json.dumps(two).replace("PLACE", str(number)).encode()
        requests += [
            ("POST", f"{path}/kv/{number}-0", b"1"),
            ("POST", f"{path}/txn", body),
            ("DELETE", f"{path}/kv/{number - 9}-1", b""),
        ]
    statuses = statuses_of_many(server, requests)
    assert set(statuses) <= {200, 201, 404, 507}
    assert 507 in statuses
    listed = server.request("GET", f"{path}/kv?count").json()["count"]
    assert described(server, path)["entries"] == listed <= 20


def test_a_transaction_beyond_the_quota_stores_nothing(server: Server) -> None:
    path = new_namespace(server, max_entries=2)
    operations = [{"op": "put", "key": str(number), "value": 1} for number in range(3)]
    response = server.request("POST", f"{path}/txn", json={"do": operations})
    assert (refusal(response), response.json()["limit"]) == (FULL, 2)
    shown = described(server, path)
    assert (shown["entries"], shown["bytes"], shown["revision"]) == (0, 0, 0)
    assert server.request("POST", f"{path}/txn", json={"do": operations[:2]}).status_code == 200


def test_deletions_and_smaller_values_are_stored_beyond_the_quota(server: Server) -> None:
    path = new_namespace(server)
    server.request("POST", f"{path}/kv/a", json="a long value")
    server.request("POST", f"{path}/kv/b", content=b"1")
    server.request("PUT", path, json={"max_entries": 1, "max_bytes": 0})
    assert refusal(server.request("POST", f"{path}/kv/c", content=b"1")) == FULL
    assert refusal(server.request("POST", f"{path}/kv/b", content=b"22")) == FULL
    assert server.request("POST", f"{path}/kv/b", content=b"2").status_code == 200
    assert server.request("POST", f"{path}/kv/a", content=b"1").status_code == 200
    assert server.request("DELETE", f"{path}/kv/a").status_code == 200
    assert described(server, path)["entries"] == 1


def test_the_number_of_bytes_is_that_of_keys_and_stored_values(server: Server) -> None:
    path = new_namespace(server)
    server.request("POST", f"{path}/kv/%C3%A9", content=b'{"a" : 1}')
    server.request("PUT", f"{path}/kv/image", content=b"12345", headers={"Content-Type": "image/png"})
    assert described(server, path)["bytes"] == 2 + len('{"a":1}') + 5 + 5


def test_a_refused_request_with_an_idempotency_key_is_decided_again(server: Server) -> None:
    path, key = new_namespace(server, max_entries=0), {"Idempotency-Key": "a"}
    assert refusal(server.request("POST", f"{path}/kv/a", content=b"1", headers=key)) == FULL
    server.request("PUT", path, json={"max_entries": 1})
    assert server.request("POST", f"{path}/kv/a", content=b"1", headers=key).status_code == 201


def test_the_namespace_default_can_have_a_quota(key: str) -> None:
    with running() as own:
        assert own.request("PUT", "/ns/default", json={"max_entries": 1}).status_code == 200
        assert [own.put(name, "1").status_code for name in ("a", "b", "a")] == [201, 507, 200]
        own.request("PUT", "/ns/default", json={"max_entries": None})
        assert own.put(key, "1").status_code == 201


@pytest.mark.long
def test_a_thousand_namespaces_are_used_at_once(server: Server) -> None:
    names = [f"many-{number}" for number in range(1_000)]
    assert set(statuses_of_many(server, [("PUT", f"/ns/{name}", b"") for name in names])) == {201}
    writes = [("POST", f"/ns/{name}/kv/{each}", b"1") for each in range(2) for name in names]
    assert set(statuses_of_many(server, writes)) == {201}
    listed = server.request("GET", "/ns?limit=2000").json()["namespaces"]
    of_these = [each for each in listed if each["namespace"].startswith("many-")]
    assert [(each["revision"], each["entries"]) for each in of_these] == [(2, 2)] * 1_000
    assert set(statuses_of_many(server, [("DELETE", f"/ns/{name}", b"") for name in names])) == {200}
