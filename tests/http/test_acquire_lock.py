"""`POST /locks/{name}`: a lock is acquired, or refused while it is held. See `test_waiting_for_locks`, too."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from databases import STORES
from locking import (
    BAD_TTLS,
    BAD_WAITS,
    CLOCKS,
    INVALID_ARGUMENT,
    INVALID_JSON,
    INVALID_KEY,
    LOCK_HELD,
    LOCK_MEMBERS,
    NO_LEASE,
    lives,
    post,
)
from running import Server, Wire, message, refusal, running


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


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
