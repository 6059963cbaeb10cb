"""No request of one namespace reads, changes or notices anything of another one, whichever route it has.

The requests come from the table of routes (`namespaced.ASKED`), so a new route must be added there.
"""

import json
from collections.abc import Iterator

import pytest
from databases import STORES
from namespaced import ASKED, UUID, content, filled, new_namespace
from running import Server, Wire, message, refusal, running
from watching import LINES, Watch

from leasehold.http.endpoints import ROUTES

NAMESPACED = [(route.method, route.pattern) for route in ROUTES if route.scope == "namespace"]
OF_SERVER = [(route.method, route.pattern) for route in ROUTES if route.scope == "server"]
REVEALS_NOTHING = {("GET", "/terraform/{state}/versions")}
"""Its response has sizes and revisions only."""


@pytest.fixture(scope="module", params=list(STORES))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(STORES[request.param](tmp_path_factory.mktemp("store"))) as started:
        yield started


def test_each_route_of_a_namespace_has_a_request() -> None:
    assert sorted(ASKED) == sorted(NAMESPACED)


@pytest.mark.parametrize("route", NAMESPACED, ids=" ".join)
def test_a_request_in_one_namespace_has_no_effect_in_another_one(server: Server, route: tuple[str, str]) -> None:
    method, _ = route
    one = filled(server, new_namespace(server), "the mark of one")
    two = filled(server, new_namespace(server), "the mark of two")
    asked = ASKED[route](one)
    before_in_one, before_in_two = content(server, one.path), content(server, two.path)

    in_two = asked.send(server, method, two.path)
    assert one.mark not in in_two.text
    assert content(server, one.path) == before_in_one
    if one.lease["lease_id"] in json.dumps([asked.body, asked.headers]):
        assert in_two.status_code in (409, 412), "a lease of another namespace is no lease"
        assert content(server, two.path) == before_in_two
    elif asked.reveals:
        assert two.mark in in_two.text

    in_one = asked.send(server, method, one.path)  # the same request does something in its own namespace
    assert two.mark not in in_one.text
    if asked.reveals:
        assert one.mark in in_one.text
    elif route not in REVEALS_NOTHING:
        assert content(server, one.path) != before_in_one


@pytest.mark.parametrize("route", NAMESPACED, ids=" ".join)
def test_a_request_in_an_empty_namespace_finds_nothing_of_a_full_one(server: Server, route: tuple[str, str]) -> None:
    one, empty = filled(server, new_namespace(server), "the mark of one"), new_namespace(server)
    before = content(server, one.path)
    response = ASKED[route](one).send(server, route[0], empty)
    assert one.mark not in response.text
    assert content(server, one.path) == before


@pytest.mark.parametrize("route", NAMESPACED, ids=" ".join)
def test_a_request_in_a_namespace_that_does_not_exist_is_refused(server: Server, route: tuple[str, str]) -> None:
    one = filled(server, new_namespace(server), "one")
    response = ASKED[route](one).send(server, route[0], "/ns/missing")
    assert refusal(response) == (404, "no_such_namespace")


@pytest.mark.parametrize("route", NAMESPACED, ids=" ".join)
def test_a_request_in_a_deleted_namespace_is_refused_until_it_is_created_again(
    server: Server, route: tuple[str, str]
) -> None:
    one = filled(server, new_namespace(server), "the mark of one")
    assert server.request("DELETE", one.path).status_code == 200
    asked = ASKED[route](one)
    assert refusal(asked.send(server, route[0], one.path)) == (404, "no_such_namespace")
    assert server.request("PUT", one.path).status_code == 201
    assert one.mark not in asked.send(server, route[0], one.path).text


@pytest.mark.parametrize(("method", "pattern"), OF_SERVER)
def test_routes_of_the_server_are_in_no_namespace(server: Server, method: str, pattern: str) -> None:
    inner = pattern.replace("{namespace}", "default").replace("{file}", "main.js")
    for namespace in (new_namespace(server), "/ns/default", "/ns/missing"):
        assert refusal(server.request(method, f"{namespace}{inner}")) == (404, "no_such_route")


def test_default_is_the_namespace_of_paths_without_one(server: Server, key: str) -> None:
    server.put(key, "1")
    assert server.request("GET", f"/ns/default/kv/{key}").content == server.get(key).content
    assert server.request("POST", f"/ns/default/kv/{key}", content=b"2").status_code == 200
    assert server.value(key) == 2


# What is shared by chance: revisions, ETags, keys for retries, locks ----------------------------------------------


def test_an_etag_of_one_namespace_does_not_match_in_another_one(server: Server) -> None:
    one, two = (filled(server, new_namespace(server), mark) for mark in ("one", "two"))
    first, second = (server.request("GET", f"{path}/kv/a") for path in (one.path, two.path))
    assert first.json()["revision"] == second.json()["revision"]
    tag = {"If-Match": first.headers["ETag"]}
    assert refusal(server.request("POST", f"{two.path}/kv/a", content=b"1", headers=tag)) == (
        412,
        "precondition_failed",
    )
    fresh = {"If-None-Match": first.headers["ETag"]}
    assert server.request("GET", f"{two.path}/kv/a", headers=fresh).status_code == 200
    assert server.request("GET", f"{one.path}/kv/a", headers=fresh).status_code == 304


def test_revisions_of_namespaces_grow_apart(server: Server) -> None:
    one, two = new_namespace(server), new_namespace(server)
    revisions = [server.request("POST", f"{path}/kv/a", content=b"1").json()["revision"] for path in (one, one, two)]
    assert revisions == [1, 2, 1]


def test_an_idempotency_key_is_used_once_in_each_namespace(server: Server) -> None:
    one, two, key = new_namespace(server), new_namespace(server), {"Idempotency-Key": "the-same"}
    for path in (one, two):
        first, again = (server.request("POST", f"{path}/kv/a", content=b"1", headers=key) for _ in range(2))
        assert (first.status_code, "Idempotent-Replayed" in first.headers) == (201, False)
        assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")


def test_an_idempotency_key_is_the_same_for_both_paths_of_default(server: Server, key: str) -> None:
    sent = {"Idempotency-Key": f"once-{key}"}
    first = server.put(key, "1", headers=sent)
    again = server.request("POST", f"/ns/default/kv/{key}", content=b"1", headers=sent)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"


def test_a_lock_of_the_same_name_is_free_in_another_namespace(server: Server) -> None:
    one, two = new_namespace(server), new_namespace(server)
    held = server.request("POST", f"{one}/locks/a", json={"ttl": 600})
    other = server.request("POST", f"{two}/locks/a", json={"ttl": 600, "wait": 0})
    assert (held.status_code, other.status_code) == (201, 201)
    for method, target, body in (
        ("PUT", "/locks/a", {"lease_id": held.json()["lease_id"]}),
        ("DELETE", "/locks/a", {"lease_id": held.json()["lease_id"]}),
    ):
        assert refusal(server.request(method, two + target, json=body)) == (409, "lease_lost")
    fence = {"If-Lease": held.json()["lease_id"]}
    assert refusal(server.request("POST", f"{two}/kv/a", content=b"1", headers=fence)) == (412, "lease_lost")
    assert server.request("POST", f"{one}/kv/a", content=b"1", headers=fence).status_code == 201


def test_a_watch_reports_its_own_namespace_only(server: Server) -> None:
    one, two = new_namespace(server), new_namespace(server)
    with Watch(server, "snapshot&locks", accept=LINES, namespace=two) as watch:
        watch.ready()
        server.request("POST", f"{one}/kv/a", json="of one")
        server.request("POST", f"{one}/locks/a", json={"ttl": 600})
        server.request("POST", "/kv/of-default", json="of default")
        server.request("POST", f"{two}/kv/b", json="of two")
        event = watch.next()
    assert (event.name, event.subject, event.data["value"]) == ("put", "b", "of two")


def test_a_read_that_waits_is_not_woken_by_another_namespace(server: Server) -> None:
    one, two = new_namespace(server), new_namespace(server)
    with Wire(server) as wire:
        wire.send(message("GET", f"{two}/kv/a?wait=60"))
        server.request("POST", f"{one}/kv/a", json="of one")
        server.request("POST", f"{two}/kv/a", json="of two")
        assert wire.answer().value == "of two"


def test_a_waiting_lock_is_not_woken_by_another_namespace(server: Server) -> None:
    one, two = new_namespace(server), new_namespace(server)
    leases = {path: server.request("POST", f"{path}/locks/a", json={"ttl": 600}).json() for path in (one, two)}
    with Wire(server) as wire:
        wire.send(message("POST", f"{two}/locks/a", body=b'{"wait": 60, "ttl": 600}'))
        for path in (one, two):
            released = server.request("DELETE", f"{path}/locks/a", json={"lease_id": leases[path]["lease_id"]})
            assert released.status_code == 200
        answer = wire.answer()
    assert answer.status == 201
    assert json.loads(answer.body)["token"] > leases[two]["token"]
    assert server.request("GET", f"{one}/locks/a").status_code == 404


def test_requests_for_several_namespaces_on_one_connection_are_kept_apart(server: Server) -> None:
    """A connection keeps what it knows of earlier requests with the same header fields."""
    one, two = (filled(server, new_namespace(server), mark) for mark in ("mark one", "mark two"))
    server.request("DELETE", f"/kv/{UUID}")
    targets = [f"{one.path}/kv/{UUID}", f"{two.path}/kv/{UUID}", f"/kv/{UUID}", f"/ns/default/kv/{UUID}"] * 3
    with Wire(server) as wire:
        wire.send(b"".join(message("GET", target) for target in targets))
        piped = [wire.answer() for _ in targets]
        alone = [wire.send(message("GET", target)).answer() for target in targets]
        written = [
            wire.send(message("PUT", target, body=json.dumps(target).encode())).answer() for target in targets[:2] * 2
        ]
    for answers in (piped, alone):
        shown = [answer.value["mark"] if answer.status == 200 else answer.status for answer in answers]
        assert shown == ["mark one", "mark two", 404, 404] * 3
    assert [answer.value for answer in written] == targets[:2] * 2
    assert server.request("GET", f"/kv/{UUID}").status_code == 404
