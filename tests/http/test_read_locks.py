"""`GET /locks/{name}` and `GET /locks`: the locks that are held, without their lease_ids."""

from typing import Any

import pytest
from locking import INVALID_ARGUMENT, LOCK_NOT_FOUND, NO_LEASE
from running import Server, Wire, message, refusal, until


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


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
