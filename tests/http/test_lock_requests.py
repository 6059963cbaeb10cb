"""Requests for locks: methods, media types, and headers that are refused."""

from typing import Any

import httpx
import msgspec
import pytest
from locking import INVALID_ARGUMENT, LOCK_MEMBERS, MESSAGEPACK, NO_LEASE, post
from running import Server, refusal


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/locks", "GET, HEAD, OPTIONS"),
        ("PATCH", "/locks/a", "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
        ("GET", "/lock", "OPTIONS, POST"),
        ("PUT", "/renew", "OPTIONS, POST"),
        ("POST", "/unlock", "DELETE, OPTIONS"),
    ],
)
def test_other_methods_on_locks_are_not_allowed(server: Server, method: str, path: str, allow: str) -> None:
    response = server.request(method, path)
    assert (refusal(response), response.headers["Allow"]) == ((405, "method_not_allowed"), allow)


@pytest.mark.parametrize("path", ["/lock/a", "/lock/", "/renew/a", "/unlock/a", "/Locks"])
def test_paths_similar_to_those_of_locks_are_not_found(server: Server, path: str) -> None:
    assert refusal(server.request("GET", path)) == (404, "no_such_route")


def test_the_body_of_a_lock_request_may_be_messagepack(server: Server, lock: str) -> None:
    def sent(method: str, **asked: Any) -> httpx.Response:
        body, headers = msgspec.msgpack.encode(asked), {"Content-Type": MESSAGEPACK}
        return server.request(method, f"/locks/{lock}", content=body, headers=headers)

    lease = sent("POST", ttl=60.5, wait=0, owner={"n": [2**64 - 1, "ä"]}).json()
    assert (lease["ttl"], lease["owner"]) == (60.5, {"n": [2**64 - 1, "ä"]})
    assert sent("PUT", lease_id=lease["lease_id"], ttl=70).json()["ttl"] == 70
    assert sent("DELETE", lease_id=lease["lease_id"]).json()["released"] is True


@pytest.mark.parametrize("ttl", [float("nan"), float("inf"), True, "30"], ids=repr)
def test_an_invalid_ttl_in_messagepack_is_refused(server: Server, lock: str, ttl: Any) -> None:
    body = msgspec.msgpack.encode({"ttl": ttl})
    refused = post(server, lock, body, headers={"Content-Type": MESSAGEPACK})
    assert (refused.status_code, server.is_free(lock)) == (400, True)


def test_the_answer_to_a_lock_request_may_be_messagepack(server: Server, lock: str) -> None:
    packed = {"Accept": MESSAGEPACK}

    def told(response: httpx.Response) -> Any:
        assert response.headers["Content-Type"] == MESSAGEPACK
        return msgspec.msgpack.decode(response.content)

    lease = told(post(server, lock, b'{"owner": {"host": "a"}}', headers=packed))
    shown = {name: lease[name] for name in LOCK_MEMBERS} | {"waiters": 0}
    assert told(server.request("GET", f"/locks/{lock}", headers=packed)) == shown
    assert told(server.request("GET", f"/locks?prefix={lock}", headers=packed))["locks"] == [shown]
    refused = told(post(server, lock, b'{"wait": 0}', headers=packed))
    assert (refused["error"], refused["owner"]) == ("lock_held", {"host": "a"})
    by_query = {"lease_id": lease["lease_id"]}
    assert told(server.request("PUT", f"/locks/{lock}", params=by_query, headers=packed))["token"] == lease["token"]
    assert told(server.request("DELETE", f"/locks/{lock}", params=by_query, headers=packed))["released"] is True


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_lock_request_that_accepts_another_media_type_is_refused(server: Server, lock: str, method: str) -> None:
    refused = server.request(method, f"/locks/{lock}", headers={"Accept": "text/html"})
    assert (refusal(refused), server.is_free(lock)) == ((406, "not_acceptable"), True)


# If-Lease -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lease_id", ["own", NO_LEASE])
def test_if_lease_on_a_lock_request_is_refused(server: Server, uuid: str, lease_id: str) -> None:
    lease = server.lease(uuid)
    asked = {"lock_id": uuid, "lease_id": lease["lease_id"]}
    headers = {"If-Lease": lease["lease_id"] if lease_id == "own" else lease_id}
    refused = [
        server.request("POST", f"/locks/{uuid}/other", headers=headers),
        server.request("PUT", f"/locks/{uuid}", params={"lease_id": lease["lease_id"]}, headers=headers),
        server.request("DELETE", f"/locks/{uuid}", params={"lease_id": lease["lease_id"]}, headers=headers),
        server.request("POST", "/lock", params={"lock_id": uuid, "wait": "0"}, headers=headers),
        server.request("POST", "/renew", params=asked, headers=headers),
        server.request("DELETE", "/unlock", params=asked, headers=headers),
    ]
    assert [refusal(response) for response in refused] == [INVALID_ARGUMENT] * 6
    assert (server.is_free(f"{uuid}/other"), server.holder(uuid).json()["expires_at"]) == (True, lease["expires_at"])
