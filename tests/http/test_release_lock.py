"""`DELETE /locks/{name}`: the holder releases its lock; any other release is refused."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from locking import BAD_LEASE_IDS, INVALID_ARGUMENT, LEASE_LOST, LOCK_NOT_FOUND, NO_LEASE
from running import Server, refusal


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


def by_body(server: Server, lock: str, lease_id: str) -> httpx.Response:
    return server.request("DELETE", f"/locks/{lock}", json={"lease_id": lease_id})


def by_query(server: Server, lock: str, lease_id: str) -> httpx.Response:
    return server.request("DELETE", f"/locks/{lock}", params={"lease_id": lease_id})


every_way = pytest.mark.parametrize("release", [by_body, by_query])
Release = Callable[[Server, str, str], httpx.Response]


@every_way
def test_a_released_lock_can_be_acquired(server: Server, lock: str, release: Release) -> None:
    lease = server.lease(lock)
    response = release(server, lock, lease["lease_id"])
    told = response.json()
    assert (response.status_code, told) == (200, {"lock": lock, "released": True, "revision": told["revision"]})
    assert (told["revision"] > lease["token"], server.is_free(lock), server.acquire(lock).status_code) == (
        True,
        True,
        201,
    )


@every_way
def test_a_release_with_another_lease_is_refused_and_releases_nothing(
    server: Server, lock: str, release: Release
) -> None:
    lease = server.lease(lock)
    other = server.lease(f"{lock}/other")
    refused = [release(server, lock, lease_id) for lease_id in (NO_LEASE, other["lease_id"])]
    assert [refusal(response) for response in refused] == [LEASE_LOST] * 2
    assert server.holder(lock).json()["token"] == lease["token"]


def test_a_release_by_the_previous_holder_is_refused(server: Server, lock: str, expired: Any) -> None:
    released, over = server.lease(lock), next(expired)
    server.release(lock, released["lease_id"])
    for stale in (released, over):
        following = server.lease(stale["lock"])
        assert refusal(server.release(stale["lock"], stale["lease_id"])) == LEASE_LOST
        assert server.holder(stale["lock"]).json()["token"] == following["token"]


@every_way
def test_a_release_of_a_free_lock_is_not_found(server: Server, lock: str, release: Release) -> None:
    assert refusal(release(server, lock, NO_LEASE)) == LOCK_NOT_FOUND


def test_a_second_release_is_not_found(server: Server, lock: str) -> None:
    lease = server.lease(lock)
    server.release(lock, lease["lease_id"])
    assert refusal(server.release(lock, lease["lease_id"])) == LOCK_NOT_FOUND


def test_a_release_of_an_expired_lease_is_not_found(server: Server, expired: Any) -> None:
    lease = next(expired)
    assert refusal(server.release(lease["lock"], lease["lease_id"])) == LOCK_NOT_FOUND


@pytest.mark.parametrize("name", ["ttl", "wait", "owner", "lock_id", "spam"])
def test_a_release_with_an_unknown_member_is_refused(server: Server, lock: str, name: str) -> None:
    lease_id = server.lease(lock)["lease_id"]
    refused = [
        server.request("DELETE", f"/locks/{lock}", json={"lease_id": lease_id, name: 1}),
        server.request("DELETE", f"/locks/{lock}?{name}=1", json={"lease_id": lease_id}),
    ]
    assert ([refusal(response) for response in refused], server.is_free(lock)) == ([INVALID_ARGUMENT] * 2, False)


# A missing lease_id -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("body", [b"", b"{}", b'{"lease_id": null}'])
def test_a_renewal_or_release_without_lease_id_is_refused(server: Server, lock: str, method: str, body: bytes) -> None:
    lease = server.lease(lock)
    refused = server.request(method, f"/locks/{lock}", content=body)
    assert (refusal(refused), server.holder(lock).json()["expires_at"]) == (INVALID_ARGUMENT, lease["expires_at"])


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("lease_id", BAD_LEASE_IDS, ids=lambda lease_id: repr(lease_id)[:8])
def test_an_invalid_lease_id_is_refused(server: Server, lock: str, method: str, lease_id: Any) -> None:
    server.lease(lock)
    assert refusal(server.request(method, f"/locks/{lock}", json={"lease_id": lease_id})) == INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_lease_id_in_the_body_and_in_the_query_is_refused(server: Server, lock: str, method: str) -> None:
    lease_id = server.lease(lock)["lease_id"]
    refused = server.request(method, f"/locks/{lock}?lease_id={lease_id}", json={"lease_id": lease_id})
    assert (refusal(refused), server.is_free(lock)) == (INVALID_ARGUMENT, False)
