"""`/locks`, and `/lock`, `/renew` and `/unlock` by UUID: locks are acquired, renewed, released, read and listed.

Waiting for a lock is tested in `test_waiting`, writes that depend on a lease in `test_fences`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx
import msgspec
import pytest
from databases import STORES
from running import Server, Wire, message, refusal, running, until

INVALID_KEY = (400, "invalid_key")
INVALID_ARGUMENT = (400, "invalid_argument")
INVALID_JSON = (400, "invalid_json")
LOCK_NOT_FOUND = (404, "lock_not_found")
LEASE_LOST = (409, "lease_lost")
LOCK_HELD = (423, "lock_held")
MESSAGEPACK = "application/vnd.msgpack"
CLOCKS = timedelta(seconds=1)
"""By so much the clocks of a test and of the service may differ."""
NO_LEASE = "0" * 32
"""What could be a lease_id and is none."""

LOCK_MEMBERS = {"lock", "token", "owner", "acquired_at", "expires_at", "ttl"}
BAD_TTLS = [0, 0.999, -1, 2_592_000.001, 2_592_001, 1e300, 2**63, "30", "", True, False, [], {}]
BAD_WAITS = [-1, -0.001, 60.001, 61, 1e300, "5", "", True, False, [], {}]
BAD_LEASE_IDS = ["", "x" * 129, "a\tb", 5, True, [], {}]

_numbers = count(1)


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """What is told here is told of every engine."""
    return any_server


@pytest.fixture
def uuid() -> str:
    """A UUID that no other test uses, with letters in it."""
    return f"abcdef00-0000-4000-8001-{next(_numbers):012x}"


@pytest.fixture(scope="module")
def expired(server: Server) -> Iterator[Any]:
    """Leases that have ended by themselves, of locks that nobody has taken since; each is asked for once.

    They end together, so that the tests need not wait one after the other.
    """
    leases = [server.lease(f"expired-{next(_numbers)}", ttl=1) for _ in range(12)]
    until(lambda: all(server.is_free(lease["lock"]) for lease in leases))
    return iter(leases)


def post(server: Server, lock: str, body: bytes, **options: Any) -> httpx.Response:
    return server.request("POST", f"/locks/{lock}", content=body, **options)


def lives(lease: Mapping[str, str], *, since: str = "acquired_at") -> timedelta:
    return datetime.fromisoformat(lease["expires_at"]) - datetime.fromisoformat(lease[since])


# POST /locks/{name} -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ttl": null, "wait": null, "owner": null}'])
def test_a_lock_is_acquired_with_the_defaults(server: Server, lock: str, body: bytes) -> None:
    response = post(server, lock, body)
    lease = response.json()
    assert (response.status_code, set(lease)) == (201, LOCK_MEMBERS | {"lease_id"})
    assert (lease["lock"], lease["ttl"], lease["owner"]) == (lock, 30, None)


def test_a_lock_is_acquired_without_a_content_type(server: Server, lock: str) -> None:
    with Wire(server) as wire:
        assert wire.send(message("POST", f"/locks/{lock}")).answer().status == 201


def test_a_lease_id_is_128_bits_and_differs_each_time(server: Server, lock: str) -> None:
    lease_ids = [server.lease(f"{lock}/{number}")["lease_id"] for number in range(20)]
    assert [bool(re.fullmatch("[0-9a-f]{32}", lease_id)) for lease_id in lease_ids] == [True] * 20
    assert len(set(lease_ids)) == 20


@pytest.mark.parametrize("store", STORES)
def test_a_token_is_the_revision_of_the_acquisition(tmp_path_factory: pytest.TempPathFactory, store: str) -> None:
    with running(STORES[store](tmp_path_factory.mktemp("store"))) as own:
        own.put("a", "1")
        lease = own.lease("a")
        revisions = [lease["token"], own.revision()]
        revisions += [own.renew("a", lease["lease_id"]).json()["token"], own.revision()]
        revisions += [own.release("a", lease["lease_id"]).json()["revision"], own.lease("b")["token"]]
    assert revisions == [2, 2, 2, 3, 4, 5]


@pytest.mark.parametrize("ttl", [1, 1.0, 1.5, 30, 1.000001, 86_401, 2_591_999.999999, 2_592_000])
def test_a_lease_ends_its_ttl_after_its_acquisition(server: Server, lock: str, ttl: float) -> None:
    lease = server.lease(lock, ttl=ttl)
    assert (lease["ttl"], lives(lease)) == (ttl, timedelta(seconds=ttl))


def test_times_are_rfc_3339_in_utc_with_microseconds(server: Server, lock: str) -> None:
    before = datetime.now(UTC)
    lease = server.lease(lock)
    form = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
    assert [bool(form.fullmatch(lease[name])) for name in ("acquired_at", "expires_at")] == [True, True]
    acquired_at = datetime.fromisoformat(lease["acquired_at"])
    assert before - CLOCKS <= acquired_at <= datetime.now(UTC) + CLOCKS


OWNERS: list[Any] = [None, "", 0, False, -0.5, 2**64 - 1, [], {}, {"host": "a", "pids": [1, {"ä": "🦊"}]}, "x" * 1_022]


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: repr(owner)[:20])
def test_an_owner_may_be_any_json_up_to_1_kib(server: Server, lock: str, owner: Any) -> None:
    lease = server.lease(lock, owner=owner)
    assert [lease["owner"], server.holder(lock).json()["owner"]] == [owner, owner]


@pytest.mark.parametrize("owner", ["x" * 1_023, "ä" * 512, [[]] * 400], ids=lambda owner: repr(owner)[:8])
def test_a_larger_owner_is_refused(server: Server, lock: str, owner: Any) -> None:
    refused = server.acquire(lock, owner=owner)
    assert (refusal(refused), refused.json()["limit"], server.is_free(lock)) == (INVALID_ARGUMENT, 1_024, True)


@pytest.mark.parametrize(
    "asked",
    [{"ttl": ttl} for ttl in BAD_TTLS]
    + [{"wait": wait} for wait in BAD_WAITS]
    + [{"tll": 30}, {"lease_id": NO_LEASE}, {"lock_id": "a"}, {"": 1}, {"TTL": 30}],
    ids=str,
)
def test_an_acquisition_with_an_invalid_member_is_refused(server: Server, lock: str, asked: Any) -> None:
    assert (refusal(server.acquire(lock, **asked)), server.is_free(lock)) == (INVALID_ARGUMENT, True)


@pytest.mark.parametrize("body", [b"null", b"[]", b'"ttl"', b"30", b"true", b"[30]"])
def test_a_body_that_is_not_an_object_is_refused(server: Server, lock: str, body: bytes) -> None:
    refused = [server.request(method, f"/locks/{lock}", content=body) for method in ("POST", "PUT", "DELETE")]
    assert [refusal(response) for response in refused] == [INVALID_ARGUMENT] * 3
    assert server.is_free(lock)


@pytest.mark.parametrize(
    "body", [b" ", b"{", b'{"ttl": NaN}', b'{"ttl": 1e400}', b'{"owner": "\\ud800"}', b"{}{}", b"\xef\xbb\xbf{}"]
)
def test_a_body_that_is_not_json_is_refused(server: Server, lock: str, body: bytes) -> None:
    refused = [server.request(method, f"/locks/{lock}", content=body) for method in ("POST", "PUT", "DELETE")]
    assert [refusal(response) for response in refused] == [INVALID_JSON] * 3


def test_the_error_for_an_unknown_member_names_it(server: Server, lock: str) -> None:
    assert server.acquire(lock, tll=5).json()["member"] == "tll"


def test_a_body_of_another_media_type_is_refused(server: Server, lock: str) -> None:
    refused = post(server, lock, b"ttl: 30", headers={"Content-Type": "text/yaml"})
    assert refusal(refused) == (415, "unsupported_media_type")


def test_all_members_may_be_in_the_query(server: Server, lock: str) -> None:
    response = post(server, f"{lock}?ttl=60.5&wait=0&owner=me%20%C3%A4", b"")
    lease = response.json()
    assert (response.status_code, lease["ttl"], lives(lease), lease["owner"]) == (
        201,
        60.5,
        timedelta(seconds=60.5),
        "me ä",
    )


def test_some_members_may_be_in_the_query_and_others_in_the_body(server: Server, lock: str) -> None:
    lease = post(server, f"{lock}?ttl=60", b'{"owner": 5}').json()
    assert (lease["ttl"], lease["owner"]) == (60, 5)


@pytest.mark.parametrize(
    "query",
    [
        "ttl=0",
        "ttl=2592001",
        "ttl=",
        "ttl=1e2",
        "ttl=nan",
        "ttl=-5",
        "ttl=true",
        "wait=61",
        "wait=-1",
        "wait=inf",
        "wait=",
        "spam=1",
        "lease_id=a",
        "lock_id=a",
        "ttl=30&ttl=30",
        "owner=a&owner=b",
    ],
)
def test_an_acquisition_with_an_invalid_query_is_refused(server: Server, lock: str, query: str) -> None:
    assert (refusal(post(server, f"{lock}?{query}", b"")), server.is_free(lock)) == (INVALID_ARGUMENT, True)


@pytest.mark.parametrize(("name", "text", "value"), [("ttl", "30", 30), ("wait", "0", 0), ("owner", "a", "a")])
def test_a_member_in_the_body_and_in_the_query_is_refused(
    server: Server, lock: str, name: str, text: str, value: Any
) -> None:
    refused = post(server, f"{lock}?{name}={text}", json.dumps({name: value}).encode())
    assert (refusal(refused), server.is_free(lock)) == (INVALID_ARGUMENT, True)


def test_a_held_lock_is_refused_with_its_owner_and_expiry(server: Server, lock: str) -> None:
    lease = server.lease(lock, ttl=1_000, owner={"host": "a"})
    refused = server.acquire(lock, owner="b")
    told = refused.json()
    assert (refusal(refused), set(told)) == (LOCK_HELD, {"error", "message", "request_id", "owner", "expires_at"})
    assert (told["owner"], told["expires_at"]) == ({"host": "a"}, lease["expires_at"])
    assert 990 <= int(refused.headers["Retry-After"]) <= 1_000
    assert lease["lease_id"] not in refused.text + repr(refused.headers)


def test_the_holder_cannot_acquire_its_lock_again(server: Server, lock: str) -> None:
    lease = server.lease(lock, owner="a")
    again = server.acquire(lock, owner="a")
    assert (refusal(again), server.holder(lock).json()["token"]) == (LOCK_HELD, lease["token"])


def test_a_released_or_expired_lock_is_acquired_with_a_larger_token(server: Server, lock: str, expired: Any) -> None:
    first = server.lease(lock)
    server.release(lock, first["lease_id"])
    second = server.lease(lock)
    third = next(expired)
    fourth = server.lease(third["lock"])
    assert first["token"] < second["token"] < fourth["token"]
    assert (third["token"] < fourth["token"], third["lease_id"] == fourth["lease_id"]) == (True, False)


def test_a_lock_is_not_visible_as_an_entry(server: Server, lock: str) -> None:
    server.lease(lock)
    assert refusal(server.get(lock)) == (404, "not_found")
    assert server.request("GET", "/kv", params={"prefix": lock}).json()["entries"] == []


def test_an_entry_is_not_visible_as_a_lock(server: Server, lock: str) -> None:
    server.put(lock, "1")
    assert server.is_free(lock)
    server.lease(lock)
    assert (server.delete(lock).status_code, server.is_free(lock)) == (200, False)


# Names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("jobs/nightly", "jobs/nightly"),
        ("jobs%2Fnightly", "jobs/nightly"),
        ("%6aobs", "jobs"),
        ("twice%2541", "twice%41"),
        ("%C3%A4/%F0%9F%A6%8A", "ä/🦊"),
        ("quote%22%5C", 'quote"\\'),
        ("space%20", "space "),
        ("plus+plus", "plus+plus"),
        ("query%3F", "query?"),
        (".hidden", ".hidden"),
        ("locks/locks", "locks/locks"),
    ],
)
def test_the_name_of_a_lock_is_percent_decoded_once(server: Server, lock: str, sent: str, name: str) -> None:
    lease = server.lease(f"{lock}/{sent}")
    told = [lease["lock"], server.holder(f"{lock}/{sent}").json()["lock"]]
    told += [
        response(f"{lock}/{sent}", lease["lease_id"]).json()["lock"] for response in (server.renew, server.release)
    ]
    assert told == [f"{lock}/{name}"] * 4


def test_two_encodings_of_a_name_are_the_same_lock(server: Server, lock: str) -> None:
    server.lease(f"{lock}%2F%C3%A4")
    assert refusal(server.acquire(f"{lock}/%c3%A4")) == LOCK_HELD


def test_names_that_differ_in_case_are_different_locks(server: Server, lock: str) -> None:
    assert [server.acquire(name).status_code for name in (lock, lock.upper())] == [201, 201]


def test_a_lock_name_of_512_bytes_is_accepted(server: Server, lock: str) -> None:
    name = lock + "x" * (512 - len(lock))
    assert server.lease(name)["lock"] == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 513,
        "%C3%A4" * 257,
        "a//b",
        "/a",
        "a/",
        ".",
        "..",
        "a/../b",
        "%2e",
        "%00",
        "a%0Ab",
        "%7F",
        "%FF",
        "%ED%A0%80",
        "%",
        "%zz",
    ],
)
def test_a_lock_name_that_is_no_valid_key_is_refused(server: Server, name: str) -> None:
    body = json.dumps({"lease_id": NO_LEASE}).encode()
    with Wire(server) as wire:
        wire.send(message("POST", f"/locks/{name}"), message("PUT", f"/locks/{name}", body=body))
        wire.send(message("DELETE", f"/locks/{name}", body=body), message("GET", f"/locks/{name}"))
        assert [wire.answer().refusal for _ in range(4)] == [INVALID_KEY] * 4


# PUT /locks/{name} --------------------------------------------------------------------------------------------


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


# PUT and DELETE need the lease_id -----------------------------------------------------------------------------


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


# DELETE /locks/{name} -----------------------------------------------------------------------------------------


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


# GET /locks/{name} --------------------------------------------------------------------------------------------


def test_a_lock_shows_its_owner_and_not_its_lease_id(server: Server, lock: str) -> None:
    lease = server.lease(lock, owner={"host": "a"})
    response = server.holder(lock)
    lease_id = lease.pop("lease_id")
    assert (response.status_code, response.json()) == (200, lease | {"waiters": 0})
    assert lease_id not in response.text + repr(response.headers)


def test_a_lock_shows_the_number_of_waiters(server: Server, lock: str) -> None:
    lease = server.lease(lock)
    with Wire(server) as first, Wire(server) as second:
        for wire in (first, second):
            wire.send(message("POST", f"/locks/{lock}", body=b'{"wait": 60}'))
        until(lambda: server.waiters(lock) == 2)
        listed = server.request("GET", "/locks", params={"prefix": lock}).json()["locks"]
        server.release(lock, lease["lease_id"])
        first.answer()
        assert ([each["waiters"] for each in listed], server.waiters(lock)) == ([2], 1)


def test_a_free_lock_is_not_found(server: Server, lock: str, expired: Any) -> None:
    released = server.lease(f"{lock}/released")
    server.release(f"{lock}/released", released["lease_id"])
    names = [lock, f"{lock}/released", next(expired)["lock"]]
    assert [refusal(server.holder(name)) for name in names] == [LOCK_NOT_FOUND] * 3


def test_head_of_a_lock_has_the_length_and_no_body(server: Server, lock: str) -> None:
    server.lease(lock)
    for path in (f"/locks/{lock}", f"/locks?prefix={lock}"):
        whole, head = (server.request(method, path) for method in ("GET", "HEAD"))
        assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(whole.content)))
    assert server.request("HEAD", f"/locks/{lock}/absent").status_code == 404


def test_a_query_of_a_single_lock_is_refused(server: Server, lock: str) -> None:
    server.lease(lock)
    assert refusal(server.request("GET", f"/locks/{lock}?lease_id={NO_LEASE}")) == INVALID_ARGUMENT


# GET /locks ---------------------------------------------------------------------------------------------------

NAMES = ["a", "a/1", "a/2", "ab", "b", "\uffff", "\U0001f98a", "ä"]
"""Among them two that UTF-16 would sort the other way."""


@pytest.fixture(scope="module")
def listing(server: Server) -> str:
    """A folder of locks that are held, and one that no longer is."""
    for number, name in enumerate(reversed(NAMES)):
        server.lease(f"listing/{name}", ttl=86_400, owner=number)
    freed = server.lease("listing/freed")
    server.release("listing/freed", freed["lease_id"])
    return "listing/"


def listed(server: Server, **parameters: Any) -> Any:
    return server.request("GET", "/locks", params=parameters).json()


def names_in(page: Any, listing: str) -> list[str]:
    return [each["lock"].removeprefix(listing) for each in page["locks"]]


def test_locks_are_listed_in_the_order_of_their_bytes(server: Server, listing: str) -> None:
    page = listed(server, prefix=listing)
    assert (set(page), page["next"]) == ({"locks", "revision", "next"}, None)
    assert names_in(page, listing) == sorted(NAMES, key=str.encode)


def test_a_list_has_each_lock_as_a_single_read_answers_it(server: Server, listing: str) -> None:
    page = listed(server, prefix=listing)
    assert page["locks"] == [server.holder(listing + name).json() for name in sorted(NAMES, key=str.encode)]


def test_a_list_of_locks_has_the_revision_of_the_store(server: Server, lock: str) -> None:
    token = server.lease(lock)["token"]
    assert token <= listed(server, prefix=lock)["revision"] <= server.revision()


@pytest.mark.parametrize("prefix", ["a", "a/", "ab", "ä", "b/", "zz"])
def test_a_prefix_narrows_a_list_of_locks(server: Server, listing: str, prefix: str) -> None:
    expected = sorted((name for name in NAMES if name.startswith(prefix)), key=str.encode)
    assert names_in(listed(server, prefix=listing + prefix), listing) == expected


@pytest.mark.parametrize("after", ["a", "a/", "a/1", "aa", "b", "\U0001f98a", "", "zz"])
def test_a_list_of_locks_continues_after_a_name(server: Server, listing: str, after: str) -> None:
    expected = [name for name in sorted(NAMES, key=str.encode) if name.encode() > after.encode()]
    assert names_in(listed(server, prefix=listing, after=listing + after), listing) == expected


@pytest.mark.parametrize("limit", [1, 3, 4, 7, 8, 10_000])
def test_pages_have_every_lock_once(server: Server, listing: str, limit: int) -> None:
    pages = [listed(server, prefix=listing, limit=limit)]
    while pages[-1]["next"] is not None:
        pages.append(listed(server, prefix=listing, limit=limit, after=pages[-1]["next"]))
    expected = sorted(NAMES, key=str.encode)
    found = [names_in(page, listing) for page in pages]
    assert found == [expected[begin : begin + limit] for begin in range(0, len(expected), limit)]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=10001",
        "limit=",
        "limit=a",
        "limit=1.0",
        "limit=-1",
        "values=false",
        "lease_id=a",
        "prefix=a&prefix=b",
        "prefix=" + "x" * 513,
        "after=" + "x" * 513,
    ],
)
def test_a_list_of_locks_with_an_invalid_parameter_is_refused(server: Server, query: str) -> None:
    assert refusal(server.request("GET", f"/locks?{query}")) == INVALID_ARGUMENT


def test_an_expired_lock_is_not_listed(server: Server, expired: Any) -> None:
    assert listed(server, prefix=next(expired)["lock"])["locks"] == []


def test_a_list_of_locks_shows_no_lease_id(server: Server, lock: str) -> None:
    lease_id = server.lease(lock)["lease_id"]
    assert lease_id not in server.request("GET", "/locks").text


# POST /lock, POST /renew, DELETE /unlock ----------------------------------------------------------------------


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


# Methods and representations ----------------------------------------------------------------------------------


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


# If-Lease is for writes of entries ----------------------------------------------------------------------------


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
