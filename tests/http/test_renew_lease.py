"""`PUT /locks/{name}`: the holder renews its lease; any other renewal is refused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from locking import BAD_TTLS, CLOCKS, INVALID_ARGUMENT, LEASE_LOST, NO_LEASE
from running import Server, refusal, until


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


def test_a_renewed_lease_lasts_its_ttl_from_now(server: Server, lock: str) -> None:
    lease = server.lease(lock, ttl=60, owner=["me"])
    before = datetime.now(UTC)
    response = server.renew(lock, lease["lease_id"], ttl=120)
    renewed = response.json()
    assert (response.status_code, renewed) == (200, lease | {"ttl": 120, "expires_at": renewed["expires_at"]})
    renewed_at = datetime.fromisoformat(renewed["expires_at"]) - timedelta(seconds=120)
    assert before - CLOCKS <= renewed_at <= datetime.now(UTC) + CLOCKS


def test_a_renewal_without_ttl_keeps_the_ttl_of_the_lease(server: Server, lock: str) -> None:
    lease = server.lease(lock, ttl=60.5)
    renewed = server.renew(lock, lease["lease_id"]).json()
    assert (renewed["ttl"], renewed["expires_at"] > lease["expires_at"]) == (60.5, True)


def test_the_members_of_a_renewal_may_be_in_the_query(server: Server, lock: str) -> None:
    lease_id = server.lease(lock)["lease_id"]
    responses = [
        server.request("PUT", f"/locks/{lock}?lease_id={lease_id}&ttl=60"),
        server.request("PUT", f"/locks/{lock}?lease_id={lease_id}", content=b'{"ttl": 70}'),
        server.request("PUT", f"/locks/{lock}?ttl=80.5", json={"lease_id": lease_id}),
    ]
    seen = [(response.status_code, response.json()["ttl"]) for response in responses]
    assert seen == [(200, 60), (200, 70), (200, 80.5)]


def test_a_renewal_never_shortens_a_lease(server: Server, lock: str) -> None:
    lease = server.lease(lock, ttl=1_000)
    renewed = server.renew(lock, lease["lease_id"], ttl=1).json()
    assert [renewed["expires_at"], server.holder(lock).json()["expires_at"]] == [lease["expires_at"]] * 2


def test_others_see_the_renewed_expiry(server: Server, lock: str) -> None:
    lease = server.lease(lock, ttl=60)
    renewed = server.renew(lock, lease["lease_id"], ttl=600).json()
    del renewed["lease_id"]
    assert server.holder(lock).json() == renewed | {"waiters": 0}
    assert server.acquire(lock).json()["expires_at"] == renewed["expires_at"]


def test_a_renewed_lease_is_alive_after_its_first_expiry(server: Server, lock: str) -> None:
    lease = server.lease(lock, ttl=3)
    server.renew(lock, lease["lease_id"], ttl=1_000)
    clock = server.lease(f"{lock}/clock", ttl=3)
    until(lambda: server.is_free(clock["lock"]))
    assert server.holder(lock).json()["token"] == lease["token"]


def test_a_renewal_with_another_lease_is_refused_and_changes_nothing(server: Server, lock: str) -> None:
    lease = server.lease(lock)
    before = server.holder(lock).json()
    refused = [server.renew(lock, lease_id, ttl=1_000) for lease_id in (NO_LEASE, lease["lease_id"].upper(), "ä")]
    assert [refusal(response) for response in refused] == [LEASE_LOST] * 3
    assert server.holder(lock).json() == before


def test_a_renewal_with_a_lease_of_another_lock_is_refused(server: Server, lock: str) -> None:
    server.lease(lock)
    other = server.lease(f"{lock}/other")
    assert refusal(server.renew(lock, other["lease_id"])) == LEASE_LOST


def test_a_renewal_of_a_lock_that_was_never_held_is_refused(server: Server, lock: str) -> None:
    assert (refusal(server.renew(lock, NO_LEASE)), server.is_free(lock)) == (LEASE_LOST, True)


def test_a_renewal_of_a_released_lease_is_refused(server: Server, lock: str) -> None:
    lease = server.lease(lock)
    server.release(lock, lease["lease_id"])
    assert (refusal(server.renew(lock, lease["lease_id"])), server.is_free(lock)) == (LEASE_LOST, True)


def test_a_renewal_of_an_expired_lease_is_refused_while_the_lock_is_free(server: Server, expired: Any) -> None:
    lease = next(expired)
    assert refusal(server.renew(lease["lock"], lease["lease_id"])) == LEASE_LOST
    assert server.is_free(lease["lock"])


def test_a_renewal_with_an_expired_lease_does_not_renew_the_next_lease(server: Server, expired: Any) -> None:
    lease = next(expired)
    following = server.lease(lease["lock"])
    assert refusal(server.renew(lease["lock"], lease["lease_id"], ttl=1_000)) == LEASE_LOST
    assert server.holder(lease["lock"]).json()["expires_at"] == following["expires_at"]


@pytest.mark.parametrize("ttl", BAD_TTLS, ids=repr)
def test_a_renewal_with_an_invalid_ttl_is_refused(server: Server, lock: str, ttl: Any) -> None:
    lease = server.lease(lock)
    assert refusal(server.renew(lock, lease["lease_id"], ttl=ttl)) == INVALID_ARGUMENT
    assert server.holder(lock).json()["expires_at"] == lease["expires_at"]


@pytest.mark.parametrize("name", ["wait", "owner", "lock_id", "spam"])
def test_a_renewal_with_an_unknown_member_is_refused(server: Server, lock: str, name: str) -> None:
    lease_id = server.lease(lock)["lease_id"]
    refused = [
        server.renew(lock, lease_id, **{name: 1}),
        server.request("PUT", f"/locks/{lock}?{name}=1", json={"lease_id": lease_id}),
    ]
    assert [refusal(response) for response in refused] == [INVALID_ARGUMENT] * 2
