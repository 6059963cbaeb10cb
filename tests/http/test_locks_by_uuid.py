"""`/lock`, `/renew` and `/unlock`: the commands of `/locks`, with the lock named by a UUID."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest
from locking import INVALID_ARGUMENT, INVALID_KEY, LEASE_LOST, LOCK_HELD, LOCK_MEMBERS, LOCK_NOT_FOUND, NO_LEASE, lives
from running import Server, refusal, running


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


def send(server: Server, method: str, path: str, asked: Mapping[str, Any], where: str) -> httpx.Response:
    """Send what is asked as the body, or in the query."""
    if where == "body":
        return server.request(method, path, json=asked)
    return server.request(method, path, params=asked)


everywhere = pytest.mark.parametrize("where", ["body", "query"])
every_lock = pytest.mark.parametrize("path", ["/locks/{}", "/unlock"])


@everywhere
def test_a_lock_is_acquired_renewed_and_released_by_uuid(server: Server, uuid: str, where: str) -> None:
    acquired = send(server, "POST", "/lock", {"lock_id": uuid, "ttl": 60, "wait": 0, "owner": "me"}, where)
    lease = acquired.json()
    expected = {"lock": uuid, "ttl": 60, "owner": "me"}
    assert (acquired.status_code, lease) == (201, lease | expected)
    assert (set(lease), lives(lease)) == (LOCK_MEMBERS | {"lease_id"}, timedelta(seconds=60))
    asked = {"lock_id": uuid, "lease_id": lease["lease_id"]}
    renewed = send(server, "POST", "/renew", asked | {"ttl": 120}, where)
    told = renewed.json()
    assert (renewed.status_code, told) == (200, lease | {"ttl": 120, "expires_at": told["expires_at"]})
    released = send(server, "DELETE", "/unlock", asked, where)
    told = released.json()
    assert (released.status_code, told) == (200, {"lock": uuid, "released": True, "revision": told["revision"]})
    assert server.is_free(uuid)


def test_a_lock_by_uuid_has_the_same_defaults(server: Server, uuid: str) -> None:
    lease = server.request("POST", f"/lock?lock_id={uuid}").json()
    assert (lease["ttl"], lease["owner"], lives(lease)) == (30, None, timedelta(seconds=30))


def test_a_lock_by_uuid_is_the_lock_of_that_name(server: Server, uuid: str) -> None:
    lease = server.request("POST", "/lock", json={"lock_id": uuid, "wait": 0}).json()
    assert refusal(server.acquire(uuid)) == LOCK_HELD
    assert server.renew(uuid, lease["lease_id"]).status_code == 200
    assert server.release(uuid, lease["lease_id"]).status_code == 200


@everywhere
def test_an_upper_case_uuid_names_the_same_lock(server: Server, uuid: str, where: str) -> None:
    lease = send(server, "POST", "/lock", {"lock_id": uuid.upper(), "wait": 0}, where).json()
    assert lease["lock"] == uuid
    assert refusal(send(server, "POST", "/lock", {"lock_id": uuid, "wait": 0}, where)) == LOCK_HELD
    asked = {"lock_id": uuid.upper(), "lease_id": lease["lease_id"]}
    assert send(server, "POST", "/renew", asked, where).json()["lock"] == uuid
    assert send(server, "DELETE", "/unlock", asked, where).json()["lock"] == uuid


BY_UUID = [("POST", "/lock"), ("POST", "/renew"), ("DELETE", "/unlock")]


@pytest.mark.parametrize(("method", "path"), BY_UUID)
@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "abcdef00-0000-4000-8000-00000000000",
        "abcdef000000400080000000000000aa",
        "{abcdef00-0000-4000-8000-0000000000aa}",
        "abcdef00-0000-4000-8000-0000000000aa\n",
        5,
        True,
        [],
        {},
    ],
    ids=repr,
)
def test_an_invalid_uuid_is_refused(server: Server, method: str, path: str, name: Any) -> None:
    lease_id = {} if path == "/lock" else {"lease_id": NO_LEASE}
    assert refusal(server.request(method, path, json={"lock_id": name} | lease_id)) == INVALID_KEY
    if isinstance(name, str):
        assert refusal(server.request(method, path, params={"lock_id": name} | lease_id)) == INVALID_KEY


@pytest.mark.parametrize(("method", "path"), BY_UUID)
@pytest.mark.parametrize("asked", [{}, {"lock_id": None}, {"lock": "a"}], ids=str)
def test_a_request_without_lock_id_is_refused(server: Server, method: str, path: str, asked: Any) -> None:
    assert refusal(server.request(method, path, json=asked)) == INVALID_ARGUMENT


@everywhere
def test_a_held_lock_is_refused_by_uuid(server: Server, uuid: str, where: str) -> None:
    lease = server.lease(uuid, ttl=1_000, owner="a")
    refused = send(server, "POST", "/lock", {"lock_id": uuid, "wait": 0}, where)
    told = refused.json()
    assert (refusal(refused), told["owner"], told["expires_at"]) == (LOCK_HELD, "a", lease["expires_at"])
    assert 990 <= int(refused.headers["Retry-After"]) <= 1_000


@everywhere
def test_a_lost_lease_is_refused_by_uuid(server: Server, uuid: str, where: str) -> None:
    asked = {"lock_id": uuid, "lease_id": NO_LEASE}
    before = [refusal(send(server, *route, asked, where)) for route in BY_UUID[1:]]
    lease = server.lease(uuid)
    after = [refusal(send(server, *route, asked, where)) for route in BY_UUID[1:]]
    assert (before, after) == ([LEASE_LOST, LOCK_NOT_FOUND], [LEASE_LOST, LEASE_LOST])
    assert server.holder(uuid).json()["expires_at"] == lease["expires_at"]


@everywhere
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/lock", {"ttl": 0}),
        ("/lock", {"wait": 61}),
        ("/lock", {"lease_id": "a"}),
        ("/lock", {"spam": 1}),
        ("/renew", {"ttl": 0}),
        ("/renew", {"lease_id": ""}),
        ("/renew", {"wait": 1}),
        ("/renew", {"spam": 1}),
    ],
    ids=str,
)
def test_an_invalid_acquisition_by_uuid_is_refused(
    server: Server, uuid: str, path: str, asked: Any, where: str
) -> None:
    lease_id = {} if path == "/lock" else {"lease_id": NO_LEASE}
    assert refusal(send(server, "POST", path, {"lock_id": uuid} | lease_id | asked, where)) == INVALID_ARGUMENT
    assert server.is_free(uuid)


@pytest.mark.parametrize("asked", [{"ttl": 5}, {"owner": 1}, {"lease_id": ""}, {"lease_id": "x" * 129}], ids=str)
def test_an_invalid_unlock_is_refused(server: Server, uuid: str, asked: Any) -> None:
    server.lease(uuid)
    refused = server.request("DELETE", "/unlock", json={"lock_id": uuid} | asked)
    assert (refusal(refused), server.is_free(uuid)) == (INVALID_ARGUMENT, False)


def test_a_renewal_by_uuid_without_lease_id_is_refused(server: Server, uuid: str) -> None:
    server.lease(uuid)
    assert refusal(server.request("POST", "/renew", json={"lock_id": uuid})) == INVALID_ARGUMENT


@everywhere
def test_a_uuid_in_the_body_and_in_the_query_is_refused(server: Server, uuid: str, where: str) -> None:
    asked = {"lock_id": uuid} if where == "body" else {}
    refused = server.request("POST", f"/lock?lock_id={uuid}&lock_id={uuid}", json=asked)
    assert (refusal(refused), server.is_free(uuid)) == (INVALID_ARGUMENT, True)


@everywhere
def test_an_unlock_without_lease_id_and_token_is_refused(server: Server, uuid: str, where: str) -> None:
    server.lease(uuid)
    refused = send(server, "DELETE", "/unlock", {"lock_id": uuid}, where)
    assert (refusal(refused), server.is_free(uuid)) == (INVALID_ARGUMENT, False)


@every_lock
def test_a_lease_is_released_by_its_token_instead_of_its_lease_id(server: Server, uuid: str, path: str) -> None:
    asked = {"lock_id": uuid} if path == "/unlock" else {}
    target = path.format(uuid)
    for where in ("body", "query"):
        first, second = server.lease(uuid)["token"], 0
        released = send(server, "DELETE", target, asked | {"token": first}, where)
        second = server.lease(uuid)["token"]
        stale = send(server, "DELETE", target, asked | {"token": first}, where)
        assert (released.json()["released"], refusal(stale), server.is_free(uuid)) == (True, LEASE_LOST, False)
        assert send(server, "DELETE", target, asked | {"token": second}, where).json()["released"] is True


@every_lock
def test_force_releases_the_current_lease(server: Server, uuid: str, path: str) -> None:
    asked = {"lock_id": uuid} if path == "/unlock" else {}
    target = path.format(uuid)
    for query in ("force", "force=true", "force=1"):
        server.lease(uuid)
        released = server.request("DELETE", f"{target}?{query}", json=asked)
        assert (released.json()["released"], server.is_free(uuid)) == (True, True)
    server.lease(uuid)
    assert server.request("DELETE", target, json=asked | {"force": True}).json()["released"] is True
    assert refusal(server.request("DELETE", f"{target}?force", json=asked)) == LOCK_NOT_FOUND


@every_lock
@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("force=false", {}),
        ("force=0", {"force": None}),
        ("force=yes", {}),
        ("force&force", {}),
        ("force", {"force": True}),
        ("force", {"lease_id": NO_LEASE}),
        ("force", {"token": 1}),
        ("", {"force": "true"}),
        ("", {"force": 1}),
        ("", {"force": False}),
        ("token=", {}),
        ("token=-1", {}),
        ("token=1.0", {}),
        ("token=a", {}),
        ("", {"token": "1"}),
        ("", {"token": True}),
        ("", {"token": 1.5}),
        ("", {"token": None}),
        ("", {}),
    ],
    ids=str,
)
def test_a_release_with_contradicting_members_is_refused(
    server: Server, uuid: str, path: str, query: str, asked: Any
) -> None:
    server.lease(uuid)
    asked = asked | ({"lock_id": uuid} if path == "/unlock" else {})
    refused = server.request("DELETE", f"{path.format(uuid)}?{query}", json=asked)
    assert (refusal(refused), server.is_free(uuid)) == (INVALID_ARGUMENT, False)


def test_a_release_by_force_is_logged_without_the_lease_id() -> None:
    with running(log_level="warning") as own:
        lease_id = own.lease("jobs/nightly")["lease_id"]
        own.request("DELETE", "/locks/jobs/nightly?force", headers={"X-Request-Id": "mine"})
        log = own.log()
    assert log.count("\n") == 1
    assert [text in log for text in ("a lease is ended by force", "jobs/nightly", "mine", lease_id)] == [
        True,
        True,
        True,
        False,
    ]
