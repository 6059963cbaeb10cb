"""Permissions and prefixes of tokens for locks, release by token, and release by force."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from callers import (
    BOTH,
    CENTURY_SECONDS,
    FORBIDDEN,
    NAMES,
    OF_ANOTHER,
    PREFIX_SETS,
    READER,
    UUID,
    WRITER,
    acquire,
    bearer,
    covered,
    pages,
    token,
)
from running import Server, refusal, running


@pytest.fixture(scope="module")
def guarded(any_guarded: Server) -> Server:
    """Every test of this file with tokens runs on every engine."""
    return any_guarded


def lock_requests(lock: str, uuid: str, lease_id: str) -> list[tuple[str, str]]:
    """Every request that changes a lock, by name and by UUID, in an order in which they succeed."""
    return [
        ("POST", f"/locks/{lock}?wait=0"),
        ("PUT", f"/locks/{lock}?lease_id={lease_id}"),
        ("DELETE", f"/locks/{lock}?lease_id={lease_id}"),
        ("POST", f"/lock?lock_id={uuid}&wait=0"),
        ("POST", f"/renew?lock_id={uuid}&lease_id={lease_id}"),
        ("DELETE", f"/unlock?lock_id={uuid}&lease_id={lease_id}"),
        ("DELETE", f"/unlock?lock_id={uuid}&token=1"),
    ]


def test_locking_needs_the_permission_to_write(guarded: Server, lock: str, uuid: str) -> None:
    leases = [acquire(guarded, name, BOTH).json() for name in (lock, uuid)]
    before = guarded.request("GET", "/locks", headers=READER).json()["locks"]
    refused = [
        guarded.request(method, target, headers=READER)
        for lease in leases
        for method, target in lock_requests(lock, uuid, lease["lease_id"])
    ]
    assert [refusal(response) for response in refused] == [FORBIDDEN] * 14
    assert guarded.request("GET", "/locks", headers=READER).json()["locks"] == before
    assert guarded.request("PUT", f"/locks/{lock}?lease_id={leases[0]['lease_id']}", headers=WRITER).status_code == 200


def test_reading_locks_needs_the_permission_to_read(guarded: Server, lock: str) -> None:
    acquire(guarded, lock, WRITER)
    targets = [f"/locks/{lock}", f"/locks/{lock}/absent", "/locks", f"/locks?prefix={lock}"]
    statuses = [
        [guarded.request("GET", target, headers=headers).status_code for target in targets]
        for headers in (READER, WRITER)
    ]
    assert statuses == [[200, 404, 200, 200], [403, 403, 403, 403]]


def test_a_fenced_write_needs_the_permission_to_write(guarded: Server, lock: str, key: str) -> None:
    lease_id = acquire(guarded, lock, BOTH).json()["lease_id"]
    assert refusal(guarded.put(key, "1", headers=READER | {"If-Lease": lease_id})) == FORBIDDEN
    assert guarded.put(key, "1", headers=WRITER | {"If-Lease": lease_id}).status_code == 201


def test_requests_for_covered_locks_are_done(guarded: Server, lock: str, uuid: str) -> None:
    own = bearer(token("read", "write", prefixes=[f"{lock}/own", uuid]))
    name = f"{lock}/owned"
    lease = acquire(guarded, name, own).json()
    by_uuid = guarded.request("POST", "/lock", json={"lock_id": uuid.upper()}, headers=own).json()
    covered = [
        guarded.request("GET", f"/locks/{name}", headers=own),
        guarded.request("PUT", f"/locks/{name}?lease_id={lease['lease_id']}", headers=own),
        guarded.request("DELETE", f"/locks/{name}?lease_id={lease['lease_id']}", headers=own),
        guarded.request("POST", f"/renew?lock_id={uuid.upper()}&lease_id={by_uuid['lease_id']}", headers=own),
        guarded.request("DELETE", f"/unlock?lock_id={uuid}&token={by_uuid['token']}", headers=own),
    ]
    assert [response.status_code for response in covered] == [200] * 5


def test_requests_for_locks_that_no_prefix_covers_are_forbidden(guarded: Server, lock: str, uuid: str) -> None:
    own = bearer(token("read", "write", prefixes=[f"{lock}/own"]))
    other = f"{lock}/other"
    leases = [acquire(guarded, name, BOTH).json() for name in (other, uuid)]
    refused = [
        guarded.request(method, target, headers=own)
        for lease in leases
        for method, target in lock_requests(other, uuid, lease["lease_id"])
    ]
    refused += [
        guarded.request("GET", f"/locks/{name}", headers=own)
        for name in (other, f"{lock}/absent", lock, f"{lock}/Own", f"x{lock}/own", f"{lock}%2Fother", uuid)
    ]
    assert [refusal(response) for response in refused] == [FORBIDDEN] * len(refused)
    assert len({response.text.replace(response.headers["X-Request-Id"], "") for response in refused}) == 1
    held = [guarded.request("GET", f"/locks/{name}", headers=BOTH).json()["expires_at"] for name in (other, uuid)]
    assert held == [lease["expires_at"] for lease in leases]


def test_an_acquisition_of_a_lock_that_is_not_covered_is_refused_without_waiting(guarded: Server, lock: str) -> None:
    acquire(guarded, lock, BOTH)
    own = bearer(token("read", "write", prefixes=[f"{lock}/own"]))
    started = time.monotonic()
    assert refusal(acquire(guarded, lock, own, wait=60)) == FORBIDDEN
    assert time.monotonic() - started < 30


def test_a_lease_of_a_lock_that_is_not_covered_still_fences(guarded: Server, lock: str, key: str) -> None:
    """Whoever knows its secret was given it by the holder."""
    lease_id = acquire(guarded, lock, BOTH).json()["lease_id"]
    own = bearer(token("write", prefixes=[key]))
    assert guarded.put(key, "1", headers=own | {"If-Lease": lease_id}).status_code == 201
    assert refusal(guarded.put(f"x{key}", "1", headers=own | {"If-Lease": lease_id})) == FORBIDDEN


@pytest.fixture(scope="module")
def locks_listing(guarded: Server) -> str:
    """A folder of locks that are held: NAMES."""
    for name in NAMES:
        assert acquire(guarded, f"listing/{name}", BOTH, ttl=86_400, owner=name).status_code == 201
    return "listing/"


@pytest.mark.parametrize("prefixes", PREFIX_SETS, ids=str)
@pytest.mark.parametrize("limit", [1, 2, 5, 12])
def test_pages_across_prefixes_have_every_covered_lock_once(
    guarded: Server, locks_listing: str, prefixes: list[str], limit: int
) -> None:
    own = bearer(token("read", prefixes=[locks_listing + prefix for prefix in prefixes]))
    found = list(pages(guarded, own, of="locks", limit=str(limit)))
    expected = [locks_listing + name for name in covered(prefixes)]
    assert [name for page in found for name in page] == expected
    assert [len(page) for page in found] == [len(expected[i : i + limit]) for i in range(0, len(expected) or 1, limit)]


@pytest.mark.parametrize("prefixes", PREFIX_SETS, ids=str)
@pytest.mark.parametrize("asked", ["", "a", "a/", "c/3", "b", "zz"])
def test_lists_of_locks_show_only_covered_locks(
    guarded: Server, locks_listing: str, prefixes: list[str], asked: str
) -> None:
    own = bearer(token("read", prefixes=[locks_listing + prefix for prefix in prefixes]))
    page = guarded.request("GET", "/locks", params={"prefix": locks_listing + asked}, headers=own).json()
    assert ([each["owner"] for each in page["locks"]], page["next"]) == (covered(prefixes, asked), None)


def unlock(server: Server, uuid: str, headers: Mapping[str, str], **asked: Any) -> httpx.Response:
    return server.request("DELETE", "/unlock", json={"lock_id": uuid} | asked, headers=headers)


def test_the_caller_that_acquired_a_lock_releases_it_by_its_token(guarded: Server, uuid: str) -> None:
    fencing = acquire(guarded, uuid, BOTH).json()["token"]
    other_token_of_the_same = bearer(token("write", lifetime_seconds=CENTURY_SECONDS / 2))
    assert unlock(guarded, uuid, other_token_of_the_same, token=fencing).json()["released"] is True


def test_the_token_of_an_earlier_lease_of_the_same_subject_does_not_release_the_lock(
    guarded: Server, uuid: str
) -> None:
    first = acquire(guarded, uuid, BOTH).json()["token"]
    unlock(guarded, uuid, BOTH, token=first)
    acquire(guarded, uuid, BOTH)
    assert refusal(unlock(guarded, uuid, BOTH, token=first)) == (409, "lease_lost")
    assert refusal(unlock(guarded, uuid, BOTH)) == (400, "invalid_argument")


def test_another_subject_cannot_release_a_lock_by_its_token(guarded: Server, uuid: str) -> None:
    lease = acquire(guarded, uuid, BOTH).json()
    assert refusal(unlock(guarded, uuid, OF_ANOTHER, token=lease["token"])) == FORBIDDEN
    holder = guarded.request("GET", f"/locks/{uuid}", headers=READER).json()
    assert holder["token"] == lease["token"]


def test_another_subject_can_release_a_lock_by_its_lease_id(guarded: Server, uuid: str) -> None:
    lease = acquire(guarded, uuid, BOTH).json()
    assert unlock(guarded, uuid, OF_ANOTHER, lease_id=lease["lease_id"]).json()["released"] is True


def test_the_previous_holder_cannot_release_the_lock_of_the_next(guarded: Server, uuid: str) -> None:
    first = acquire(guarded, uuid, BOTH).json()["token"]
    unlock(guarded, uuid, BOTH, token=first)
    second = acquire(guarded, uuid, OF_ANOTHER).json()["token"]
    refused = [refusal(unlock(guarded, uuid, BOTH, token=each)) for each in (first, second)]
    assert (refused, unlock(guarded, uuid, OF_ANOTHER, token=second).status_code) == ([FORBIDDEN] * 2, 200)


@pytest.mark.parametrize("headers", [BOTH, OF_ANOTHER], ids=["ann", "bob"])
def test_a_release_of_a_free_lock_is_not_found_with_tokens(
    guarded: Server, uuid: str, headers: Mapping[str, str]
) -> None:
    assert refusal(unlock(guarded, uuid, headers, token=1)) == (404, "lock_not_found")


def test_the_subject_of_a_lease_is_kept_after_a_restart(tmp_path: Path, secret_file: Path) -> None:
    with running(tmp_path / "data.json", arguments=[f"--auth-secret-file={secret_file}"]) as own:
        fencing = acquire(own, UUID, BOTH, ttl=1_000).json()["token"]
        own.restart()
        refused, released = (unlock(own, UUID, headers, token=fencing) for headers in (OF_ANOTHER, BOTH))
        assert (refusal(refused), released.status_code) == (FORBIDDEN, 200)


# Release by force ---------------------------------------------------------------------------------------------


ADMIN = bearer(token("write", "admin", subject="operator"))
ENDINGS = ["/locks/{uuid}?force", "/unlock?lock_id={uuid}&force"]


@pytest.mark.parametrize("target", ENDINGS)
def test_a_token_with_admin_ends_the_lease_of_another_subject(guarded: Server, uuid: str, target: str) -> None:
    acquire(guarded, uuid, OF_ANOTHER)
    assert guarded.request("DELETE", target.format(uuid=uuid), headers=ADMIN).json()["released"] is True
    assert acquire(guarded, uuid, BOTH).status_code == 201


@pytest.mark.parametrize("target", ENDINGS)
@pytest.mark.parametrize(
    "headers",
    [BOTH, bearer(token("admin")), bearer(token("read", "admin")), bearer(token("write", "admin", prefixes=["x"]))],
    ids=["without admin", "admin alone", "read and admin", "another prefix"],
)
def test_force_needs_write_and_admin_and_a_prefix_that_covers_the_lock(
    guarded: Server, uuid: str, target: str, headers: Mapping[str, str]
) -> None:
    lease = acquire(guarded, uuid, BOTH).json()
    refused = guarded.request("DELETE", target.format(uuid=uuid), headers=headers)
    holder = guarded.request("GET", f"/locks/{uuid}", headers=READER).json()
    assert (refusal(refused), holder["token"]) == (FORBIDDEN, lease["token"])


def test_a_release_by_force_is_logged_with_the_subject(guarded: Server, uuid: str) -> None:
    lease_id = acquire(guarded, uuid, OF_ANOTHER).json()["lease_id"]
    guarded.request("DELETE", f"/locks/{uuid}?force", headers=ADMIN)
    told = [line for line in guarded.log().splitlines() if "by force" in line and uuid in line]
    assert (len(told), "operator" in told[0], lease_id in guarded.log()) == (1, True, False)


def test_a_service_without_tokens_releases_by_force(uuid: str) -> None:
    """Whoever reaches it may change everything else, and nobody else could end a lease of 30 days."""
    with running(arguments=["--host=0.0.0.0", "--insecure-open"]) as own:
        own.client = httpx.Client(base_url=f"http://127.0.0.1:{own.address[1]}")
        own.lease(uuid, ttl=2_592_000)
        assert own.request("DELETE", f"/locks/{uuid}?force").status_code == 200


def test_only_the_holder_its_lease_id_or_force_ends_a_lease(guarded: Server, uuid: str) -> None:
    lease = acquire(guarded, uuid, OF_ANOTHER, ttl=2_592_000).json()
    refused = [
        unlock(guarded, uuid, BOTH),
        unlock(guarded, uuid, BOTH, token=lease["token"]),
        unlock(guarded, uuid, OF_ANOTHER, token=lease["token"] + 1),
        unlock(guarded, uuid, BOTH, lease_id="0" * 32),
        unlock(guarded, uuid, BOTH, force=True),
    ]
    lost = (409, "lease_lost")
    assert [refusal(each) for each in refused] == [(400, "invalid_argument"), FORBIDDEN, lost, lost, FORBIDDEN]
    done = [
        unlock(guarded, uuid, OF_ANOTHER, token=lease["token"]),
        unlock(guarded, uuid, BOTH, lease_id=acquire(guarded, uuid, OF_ANOTHER).json()["lease_id"]),
    ]
    acquire(guarded, uuid, OF_ANOTHER)
    done.append(unlock(guarded, uuid, ADMIN, force=True))
    assert [each.status_code for each in done] == [200] * 3


def test_a_holder_whose_lease_was_ended_by_force_can_do_nothing_with_it(guarded: Server, uuid: str, key: str) -> None:
    lease_id = acquire(guarded, uuid, BOTH, ttl=2_592_000).json()["lease_id"]
    assert guarded.put(key, "1", headers=BOTH | {"If-Lease": lease_id}).status_code == 201
    assert guarded.request("DELETE", f"/locks/{uuid}?force", headers=ADMIN).status_code == 200
    assert refusal(guarded.put(key, "2", headers=BOTH | {"If-Lease": lease_id})) == (412, "lease_lost")
    renewal = guarded.request("PUT", f"/locks/{uuid}", json={"lease_id": lease_id}, headers=BOTH)
    assert refusal(renewal) == (409, "lease_lost")
    assert refusal(unlock(guarded, uuid, BOTH, lease_id=lease_id)) == (404, "lock_not_found")
    assert guarded.get(key, headers=BOTH).json()["value"] == 1
