"""The claim `namespaces`: a token is for the namespaces that it names, on every route, and learns of no others."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jwt
import pytest
from callers import FORBIDDEN, SECRET, bearer, token
from databases import STORES
from namespaced import ASKED, Filled, content, filled
from running import Server, Wire, http_client, message, refusal, running

from leasehold.http.endpoints import ROUTES

ALL = ("read", "write", "admin")
NAMESPACED = [(route.method, route.pattern) for route in ROUTES if route.scope == "namespace"]
ADMIN = bearer(token(*ALL, namespaces=["*"]))
FOR_A = bearer(token(*ALL, namespaces=["a"]))
FOR_A_AND_B = bearer(token(*ALL, namespaces=["a", "b"]))
WITHOUT = bearer(token(*ALL))
FOR_NONE = bearer(token(*ALL, namespaces=[]))


@pytest.fixture(scope="module", params=["memory", "postgres"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, secret_file: Path
) -> Iterator[Server]:
    environment = {"LEASEHOLD_AUTH_SECRET_FILE": str(secret_file)}
    with running(STORES[request.param](tmp_path_factory.mktemp("store")), environment=environment) as started:
        for name in ("a", "b"):
            assert started.request("PUT", f"/ns/{name}", headers=ADMIN).status_code == 201
        yield started


@pytest.fixture(scope="module")
def full(server: Server) -> Mapping[str, Filled]:
    """The namespaces `a`, `b` and `default`, all filled, as the owner of a token for all of them."""
    client = server.client
    server.client = http_client(server.url)
    server.client.headers.update(ADMIN)
    made = {name: filled(server, f"/ns/{name}", f"mark {name}") for name in ("a", "b", "default")}
    server.client.close()
    server.client = client
    return made


def refused(
    server: Server, route: tuple[str, str], of: Filled, path: str, headers: Mapping[str, str]
) -> tuple[int, str]:
    response = ASKED[route](of).send(server, route[0], path, **headers)
    assert of.mark not in response.text
    body = response.json()
    del body["request_id"]
    return response.status_code, json.dumps(body)


@pytest.mark.parametrize("route", NAMESPACED, ids=" ".join)
def test_a_token_for_another_namespace_gets_the_same_403_whether_the_namespace_exists(
    server: Server, full: Mapping[str, Filled], route: tuple[str, str]
) -> None:
    existing = refused(server, route, full["b"], "/ns/b", FOR_A)
    missing = refused(server, route, full["b"], "/ns/missing", FOR_A)
    assert existing == missing
    assert (existing[0], json.loads(existing[1])["error"]) == FORBIDDEN


@pytest.mark.parametrize("route", NAMESPACED, ids=" ".join)
def test_a_token_that_does_not_name_default_is_not_for_default(
    server: Server, full: Mapping[str, Filled], route: tuple[str, str]
) -> None:
    for path in ("", "/ns/default"):
        for headers in (FOR_A, FOR_NONE):
            response = ASKED[route](full["default"]).send(server, route[0], path, **headers)
            assert refusal(response) == FORBIDDEN


@pytest.mark.parametrize("route", NAMESPACED, ids=" ".join)
def test_a_token_without_the_claim_is_for_default_only(
    server: Server, full: Mapping[str, Filled], route: tuple[str, str]
) -> None:
    assert refusal(ASKED[route](full["a"]).send(server, route[0], "/ns/a", **WITHOUT)) == FORBIDDEN
    assert ASKED[route](full["default"]).send(server, route[0], "", **WITHOUT).status_code != 403


@pytest.mark.parametrize("route", NAMESPACED, ids=" ".join)
def test_a_token_for_a_namespace_may_use_each_route_in_it(
    server: Server, full: Mapping[str, Filled], route: tuple[str, str]
) -> None:
    for headers in (FOR_A, FOR_A_AND_B, ADMIN):
        response = ASKED[route](full["a"]).send(server, route[0], "/ns/a", **headers)
        assert response.status_code not in (401, 403)


def test_the_fast_paths_refuse_a_token_for_another_namespace(server: Server, key: str) -> None:
    """They are not asked about namespaces, so they must never be given the requests of such a token."""
    own = http_client(server.url)
    own.post(f"/kv/{key}", content=b"1", headers=ADMIN)
    own.post(f"/ns/a/kv/{key}", content=b"2", headers=ADMIN)
    sent = f"Authorization: {FOR_A['Authorization']}"
    with Wire(server) as wire:
        for _ in range(5):
            assert wire.send(message("GET", f"/ns/a/kv/{key}", sent)).answer().value == 2
            assert wire.send(message("GET", f"/kv/{key}", sent)).answer().refusal == FORBIDDEN
            assert wire.send(message("PUT", f"/kv/{key}", sent, body=b"3")).answer().refusal == FORBIDDEN
            assert wire.send(message("PUT", f"/ns/b/kv/{key}", sent, body=b"3")).answer().refusal == FORBIDDEN
    assert own.get(f"/kv/{key}", headers=ADMIN).json()["value"] == 1
    own.close()


def test_prefixes_hold_in_each_namespace_of_the_token(server: Server) -> None:
    narrow = bearer(token("read", "write", namespaces=["a", "b"], prefixes=["own/"]))
    for path in ("/ns/a", "/ns/b"):
        assert server.request("PUT", f"{path}/kv/own/1", content=b"1", headers=narrow).status_code in (200, 201)
        assert refusal(server.request("PUT", f"{path}/kv/other", content=b"1", headers=narrow)) == FORBIDDEN
        listed = server.request("GET", f"{path}/kv", headers=narrow).json()["entries"]
        assert [each["key"] for each in listed] == ["own/1"]


def test_the_token_of_terraform_is_for_its_namespaces(server: Server) -> None:
    def password(headers: Mapping[str, str]) -> tuple[str, str]:
        return "ann", headers["Authorization"].removeprefix("Bearer ")

    saved = server.request("POST", "/ns/a/terraform/own", json={"serial": 1}, auth=password(FOR_A))
    assert saved.is_success
    for path in ("/ns/b", "/ns/missing", ""):
        response = server.request("GET", f"{path}/terraform/own", auth=password(FOR_A))
        assert refusal(response) == FORBIDDEN


# Namespaces themselves --------------------------------------------------------------------------------------------


def test_only_a_token_for_the_namespace_with_admin_and_without_prefixes_manages_it(server: Server) -> None:
    others = {
        "for another": FOR_A,
        "without the claim": WITHOUT,
        "without admin": bearer(token("read", "write", namespaces=["*"])),
        "with prefixes": bearer(token(*ALL, namespaces=["*"], prefixes=["a"])),
    }
    for name, headers in others.items():
        for method in ("PUT", "GET", "DELETE"):
            for path in ("/ns/b", "/ns/missing"):
                assert refusal(server.request(method, path, headers=headers)) == FORBIDDEN, f"{name} {method} {path}"
    assert refusal(server.request("GET", "/ns/default", headers=FOR_A)) == FORBIDDEN
    assert server.request("GET", "/ns/b", headers=FOR_A_AND_B).status_code == 200
    assert server.request("PUT", "/ns/b", headers=FOR_A_AND_B).status_code == 200
    assert refusal(server.request("GET", "/ns/missing", headers=ADMIN)) == (404, "no_such_namespace")


def listed(server: Server, headers: Mapping[str, str], query: str = "") -> tuple[list[str], str | None]:
    response = server.request("GET", f"/ns{query}", headers=headers)
    assert response.status_code == 200, response.text
    return [each["namespace"] for each in response.json()["namespaces"]], response.json()["next"]


def test_a_token_is_shown_the_namespaces_that_it_is_for(server: Server) -> None:
    assert listed(server, ADMIN) == (["a", "b", "default"], None)
    assert listed(server, FOR_A_AND_B) == (["a", "b"], None)
    assert listed(server, FOR_A_AND_B, "?limit=1") == (["a"], "a")
    assert listed(server, FOR_A_AND_B, "?limit=1&after=a") == (["b"], None)
    assert listed(server, bearer(token("admin", namespaces=["a", "missing"]))) == (["a"], None)
    assert listed(server, WITHOUT) == (["default"], None)
    assert listed(server, FOR_NONE) == ([], None)
    assert refusal(server.request("GET", "/ns", headers=bearer(token("read", namespaces=["*"])))) == FORBIDDEN


@pytest.mark.parametrize("namespaces", ["a", ["A"], ["a", 1], [None], {}, ["a/b"], [""], 1])
def test_a_token_with_a_wrong_claim_is_invalid(server: Server, namespaces: object) -> None:
    claims = {"sub": "ann", "exp": time.time() + 600, "permissions": ["read"], "namespaces": namespaces}
    response = server.request("GET", "/kv/absent", headers=bearer(jwt.encode(claims, SECRET)))
    assert refusal(response) == (401, "unauthenticated")


def test_a_preflight_needs_no_token_and_tells_nothing_of_the_namespace(server: Server) -> None:
    answers = [server.request("OPTIONS", f"/ns/{name}/kv/a") for name in ("a", "missing")]
    assert [answer.status_code for answer in answers] == [204, 204]
    assert answers[0].headers["Allow"] == answers[1].headers["Allow"]


def test_a_refusal_is_logged_with_its_namespace(secret_file: Path) -> None:
    with running(environment={"LEASEHOLD_AUTH_SECRET_FILE": str(secret_file)}) as own:
        own.request("GET", "/ns/b/kv/absent", headers=FOR_A)
        [line] = [line for line in own.log().splitlines() if "another namespace" in line]
    assert re.search(r"\bnamespace\W+b\b", line)
    assert "/ns/{namespace}/kv/{key}" in line


def test_what_a_refused_token_asks_for_changes_nothing(server: Server, full: Mapping[str, Filled]) -> None:
    server.client.headers.update(ADMIN)
    before = content(server, "/ns/b")
    for route in NAMESPACED:
        ASKED[route](full["b"]).send(server, route[0], "/ns/b", **FOR_A)
    assert content(server, "/ns/b") == before
    del server.client.headers["Authorization"]


def test_the_metrics_show_the_namespaces_of_the_token_only(server: Server) -> None:
    def named(headers: Mapping[str, str]) -> set[str]:
        text = server.request("GET", "/metrics", headers=headers).text
        return set(re.findall(r'^leasehold_namespace_entries\{namespace="([^"]+)"\}', text, re.MULTILINE))

    assert named(ADMIN) == {"a", "b", "default"}
    assert named(FOR_A) == {"a"}
    assert named(WITHOUT) == {"default"}
    assert named(FOR_NONE) == set()


def test_a_refusal_because_of_a_quota_is_counted(server: Server) -> None:
    def counted() -> float:
        text = server.request("GET", "/metrics", headers=ADMIN).text
        found = re.search(r"^leasehold_quota_refusals_total (\S+)", text, re.MULTILINE)
        assert found is not None
        return float(found[1])

    before = counted()
    assert server.request("PUT", "/ns/small", json={"max_entries": 0}, headers=ADMIN).status_code == 201
    response = server.request("PUT", "/ns/small/kv/a", content=b"1", headers=ADMIN)
    assert refusal(response) == (507, "quota_exceeded")
    assert counted() == before + 1
    server.request("DELETE", "/ns/small", headers=ADMIN)
