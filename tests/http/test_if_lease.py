"""`If-Lease`: a write is done only if the lease is alive at the commit."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from databases import STORES
from running import Server, Wire, http_client, message, refusal, running, until

LOST = (412, "lease_lost")
NO_LEASE = "0" * 32
"""What could be a lease_id and is none."""
BEFORE = {"a": 1, "b": [1]}

_numbers = count(1)

Write = Callable[[Server, str, Mapping[str, str]], httpx.Response]


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


@pytest.fixture
def key() -> str:
    """A UUID that no other test uses, so that `/set` may write it too."""
    return f"abcdef00-0000-4000-8002-{next(_numbers):012x}"


@pytest.fixture(scope="module")
def expired(server: Server) -> Iterator[Any]:
    """Leases that have ended by themselves, of locks that nobody has taken since; each is asked for once."""
    leases = [server.lease(f"over-{next(_numbers)}", ttl=1) for _ in range(40)]
    until(lambda: all(server.is_free(lease["lock"]) for lease in leases))
    return iter(leases)


def put(server: Server, key: str, headers: Mapping[str, str]) -> httpx.Response:
    return server.request("PUT", f"/kv/{key}", content=b"2", headers=headers)


def post(server: Server, key: str, headers: Mapping[str, str]) -> httpx.Response:
    return server.request("POST", f"/kv/{key}?ttl=1000", content=b"2", headers=headers)


def put_part(server: Server, key: str, headers: Mapping[str, str]) -> httpx.Response:
    return server.request("PUT", f"/kv/{key}?path=/a", content=b"2", headers=headers)


def merge(server: Server, key: str, headers: Mapping[str, str]) -> httpx.Response:
    return server.patch(key, '{"a": 2}', headers=headers)


def patch(server: Server, key: str, headers: Mapping[str, str]) -> httpx.Response:
    return server.patch(key, '[{"op": "add", "path": "/b/-", "value": 2}]', kind="json-patch", headers=headers)


def delete(server: Server, key: str, headers: Mapping[str, str]) -> httpx.Response:
    return server.delete(key, headers=headers)


def delete_part(server: Server, key: str, headers: Mapping[str, str]) -> httpx.Response:
    return server.delete(key, params={"path": "/a"}, headers=headers)


def set_(server: Server, key: str, headers: Mapping[str, str]) -> httpx.Response:
    return server.request("POST", "/set", json={"key": key, "value": 2}, headers=headers)


def set_part(server: Server, key: str, headers: Mapping[str, str]) -> httpx.Response:
    return server.request("POST", "/set", json={"key": key, "value": 2, "path": ["b", "-"]}, headers=headers)


AFTER: dict[Write, Any] = {
    put: 2,
    post: 2,
    put_part: {"a": 2, "b": [1]},
    merge: {"a": 2, "b": [1]},
    patch: {"a": 1, "b": [1, 2]},
    delete: None,
    delete_part: {"b": [1]},
    set_: 2,
    set_part: {"a": 1, "b": [1, 2]},
}
"""What each leaves of BEFORE."""

every_write = pytest.mark.parametrize("write", AFTER, ids=lambda write: write.__name__)
creating = pytest.mark.parametrize("write", [put, post, put_part, set_, set_part], ids=lambda write: write.__name__)


def fence(lease: Mapping[str, str]) -> dict[str, str]:
    return {"If-Lease": lease["lease_id"]}


def stored(server: Server, key: str) -> Any:
    """The whole entry, or None."""
    response = server.get(key)
    return response.json() if response.status_code == 200 else None


def kept(server: Server, key: str) -> Any:
    """An entry as it is before each write."""
    server.put(key, json.dumps(BEFORE))
    return stored(server, key)


# While the lease is alive -------------------------------------------------------------------------------------


@every_write
def test_a_write_with_a_valid_lease_is_done(server: Server, key: str, lock: str, write: Write) -> None:
    kept(server, key)
    response = write(server, key, fence(server.lease(lock)))
    entry = stored(server, key)
    assert (response.status_code, None if entry is None else entry["value"]) == (200, AFTER[write])


@creating
def test_an_entry_is_created_with_a_lease_that_is_alive(server: Server, key: str, lock: str, write: Write) -> None:
    assert write(server, key, fence(server.lease(lock))).status_code == 201


def test_a_lease_of_any_lock_fences_any_number_of_writes_of_any_entry(server: Server, key: str, lock: str) -> None:
    lease = server.lease(lock)
    statuses = [put(server, name, fence(lease)).status_code for name in (key, f"{key}/b", key)]
    assert statuses == [201, 201, 200]


def test_a_renewed_lease_still_fences(server: Server, key: str, lock: str) -> None:
    lease = server.lease(lock, ttl=3)
    server.renew(lock, lease["lease_id"], ttl=1_000)
    clock = server.lease(f"{lock}/clock", ttl=3)
    until(lambda: server.is_free(clock["lock"]))
    assert put(server, key, fence(lease)).status_code == 201


def test_a_write_without_if_lease_is_done_while_locks_are_held(server: Server, key: str, lock: str) -> None:
    server.lease(lock)
    assert (put(server, key, {}).status_code, put(server, lock, {}).status_code) == (201, 201)


def test_a_read_ignores_if_lease(server: Server, key: str) -> None:
    before = kept(server, key)
    assert server.get(key, headers={"If-Lease": NO_LEASE}).json() == before


# Lost leases --------------------------------------------------------------------------------------------------


@every_write
@pytest.mark.parametrize("has_entry", [True, False], ids=["entry", "no entry"])
def test_a_write_with_a_released_lease_is_refused_and_changes_nothing(
    server: Server, key: str, lock: str, write: Write, *, has_entry: bool
) -> None:
    before = kept(server, key) if has_entry else None
    lease = server.lease(lock)
    server.release(lock, lease["lease_id"])
    assert (refusal(write(server, key, fence(lease))), stored(server, key)) == (LOST, before)


@every_write
@pytest.mark.parametrize("has_entry", [True, False], ids=["entry", "no entry"])
def test_a_write_with_an_expired_lease_is_refused_while_the_lock_is_free(
    server: Server, key: str, expired: Any, write: Write, *, has_entry: bool
) -> None:
    before = kept(server, key) if has_entry else None
    assert (refusal(write(server, key, fence(next(expired)))), stored(server, key)) == (LOST, before)


@every_write
def test_a_write_with_an_expired_lease_is_refused_while_another_client_holds_the_lock(
    server: Server, key: str, expired: Any, write: Write
) -> None:
    before = kept(server, key)
    lease = next(expired)
    following = server.lease(lease["lock"])
    refused = write(server, key, fence(lease))
    assert (refusal(refused), stored(server, key)) == (LOST, before)
    assert write(server, key, fence(following)).status_code == 200


@every_write
@pytest.mark.parametrize("has_entry", [True, False], ids=["entry", "no entry"])
def test_a_write_with_an_unknown_lease_is_refused_and_changes_nothing(
    server: Server, key: str, write: Write, *, has_entry: bool
) -> None:
    before = kept(server, key) if has_entry else None
    assert (refusal(write(server, key, {"If-Lease": NO_LEASE})), stored(server, key)) == (LOST, before)


@pytest.mark.parametrize("spelling", ["{}x", "{}, {}", "x{}", '"{}"'])
def test_a_lease_id_must_match_as_a_whole(server: Server, key: str, lock: str, spelling: str) -> None:
    lease_id = server.lease(lock)["lease_id"]
    refused = put(server, key, {"If-Lease": spelling.replace("{}", lease_id)})
    assert (refusal(refused), stored(server, key)) == (LOST, None)


def test_a_lease_id_in_another_case_does_not_match(server: Server, key: str, lock: str) -> None:
    lease_id = next(
        lease_id
        for number in range(100)
        if (lease_id := server.lease(f"{lock}/{number}")["lease_id"]) != lease_id.upper()
    )
    assert refusal(put(server, key, {"If-Lease": lease_id.upper()})) == LOST


def test_a_refused_fenced_write_uses_no_revision() -> None:
    with running() as own:
        refused = [put(own, "a", {"If-Lease": NO_LEASE}) for _ in range(3)]
        assert ([refusal(response) for response in refused], own.revision()) == ([LOST] * 3, 0)


def test_the_error_for_a_lost_lease_does_not_show_the_entry(server: Server, key: str) -> None:
    kept(server, key)
    refused = put(server, key, {"If-Lease": NO_LEASE})
    assert (set(refused.json()), "ETag" in refused.headers) == ({"error", "message", "request_id"}, False)


def test_pipelined_writes_are_fenced_in_their_order(server: Server, key: str, lock: str) -> None:
    """All may be in one batch: each sees what those before it did."""
    lease_id = server.lease(lock)["lease_id"]
    field = f"If-Lease: {lease_id}"
    with Wire(server) as wire:
        wire.send(
            message("PUT", f"/kv/{key}", field, body=b"1"),
            message("DELETE", f"/locks/{lock}?lease_id={lease_id}"),
            message("PUT", f"/kv/{key}", field, body=b"2"),
            message("GET", f"/kv/{key}"),
        )
        answers = [wire.answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [201, 200, 412, 200]
    assert answers[3].value == 1


# With conditions ----------------------------------------------------------------------------------------------


@every_write
def test_if_lease_and_if_match_must_both_hold(server: Server, key: str, lock: str, write: Write) -> None:
    alive, current = fence(server.lease(lock)), {"If-Match": f'"{kept(server, key)["revision"]}"'}
    lost, stale = {"If-Lease": NO_LEASE}, {"If-Match": '"0"'}
    refused = [refusal(write(server, key, pair)) for pair in (lost | current, lost | stale, alive | stale)]
    assert refused == [LOST, LOST, (412, "precondition_failed")]
    assert stored(server, key)["value"] == BEFORE
    assert write(server, key, alive | current).status_code == 200


def test_if_lease_and_if_none_match_must_both_hold(server: Server, key: str, lock: str) -> None:
    alive, new = fence(server.lease(lock)), {"If-None-Match": "*"}
    seen = [
        put(server, key, {"If-Lease": NO_LEASE} | new).status_code,
        put(server, key, alive | new).status_code,
        put(server, key, alive | new).status_code,
    ]
    assert seen == [412, 201, 412]


@pytest.mark.parametrize("write", [merge, patch, delete, delete_part], ids=lambda write: write.__name__)
def test_a_fenced_change_of_a_missing_entry_is_not_found(server: Server, key: str, lock: str, write: Write) -> None:
    assert refusal(write(server, key, fence(server.lease(lock)))) == (404, "not_found")


# Invalid lease_ids --------------------------------------------------------------------------------------------


@every_write
@pytest.mark.parametrize("text", ["", "x" * 129], ids=["empty", "too long"])
def test_an_invalid_if_lease_is_refused(server: Server, key: str, write: Write, text: str) -> None:
    before = kept(server, key)
    refused = write(server, key, {"If-Lease": text})
    assert (refusal(refused), stored(server, key)) == ((400, "invalid_argument"), before)


def test_a_lease_id_that_is_not_printable_is_refused(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", "If-Lease: a\tb", body=b"1"))
        wire.send(message("PUT", f"/kv/{key}", "If-Lease: a\xadb", body=b"1"))
        assert [wire.answer().refusal, wire.answer().refusal] == [(400, "invalid_argument")] * 2


def test_128_characters_may_be_a_lease_id(server: Server, key: str) -> None:
    assert refusal(put(server, key, {"If-Lease": "x" * 128})) == LOST


# After a kill -------------------------------------------------------------------------------------------------

durable_stores = pytest.mark.parametrize("store", [name for name in STORES if name != "memory"])


@durable_stores
def test_leases_are_unchanged_after_a_kill(tmp_path: Path, store: str) -> None:
    with running(STORES[store](tmp_path)) as own:
        held = own.lease("held", ttl=1_000, owner={"host": "ä"})
        renewed = own.lease("renewed")
        own.renew("renewed", renewed["lease_id"], ttl=500)
        freed = own.lease("freed")
        own.release("freed", freed["lease_id"])
        before = own.request("GET", "/locks").json()
        own.restart()
        assert own.request("GET", "/locks").json() == before
        assert [each["lock"] for each in before["locks"]] == ["held", "renewed"]
        assert refusal(own.acquire("held")) == (423, "lock_held")
        assert own.renew("held", held["lease_id"]).json()["token"] == held["token"]


@durable_stores
def test_a_lease_still_fences_after_a_kill(tmp_path: Path, store: str) -> None:
    with running(STORES[store](tmp_path)) as own:
        held, freed = own.lease("held", ttl=1_000), own.lease("freed")
        own.release("freed", freed["lease_id"])
        own.restart()
        statuses = [put(own, "a", fence(lease)).status_code for lease in (held, freed)]
        own.release("held", held["lease_id"])
        statuses.append(put(own, "a", fence(held)).status_code)
    assert statuses == [201, 412, 412]


@durable_stores
def test_a_lease_ends_at_its_time_after_a_kill(tmp_path: Path, store: str) -> None:
    with running(STORES[store](tmp_path)) as own:
        lease = own.lease("a", ttl=1)
        own.restart()
        following = own.acquire("a", wait=10).json()
        assert refusal(put(own, "k", fence(lease))) == LOST
    assert datetime.fromisoformat(following["acquired_at"]) >= datetime.fromisoformat(lease["expires_at"])


@durable_stores
def test_tokens_grow_after_a_release_a_deletion_and_a_kill(tmp_path: Path, store: str) -> None:
    tokens = []
    with running(STORES[store](tmp_path)) as own:
        for lock in ("a", "b"):
            lease = own.lease(lock)
            own.release(lock, lease["lease_id"])
            again = own.lease(lock)
            own.put("k", "1")
            own.delete("k")
            own.release(lock, again["lease_id"])
            own.restart()
            tokens += [lease["token"], again["token"]]
        tokens.append(own.lease("a")["token"])
    assert tokens == sorted(set(tokens))


# Counters under a lock ----------------------------------------------------------------------------------------


def test_counters_incremented_under_a_lock_lose_no_increment(server: Server, key: str, lock: str) -> None:
    """Each of several threads reads, adds one, and writes, under the lock; no write of another comes between."""
    threads, rounds = 6, 8
    server.put(key, "0")
    leases: list[Any] = []

    def count_up() -> None:
        with http_client(server.url) as client:
            for _ in range(rounds):
                lease = client.post(f"/locks/{lock}", json={"wait": 30}).json()
                value = client.get(f"/kv/{key}").json()["value"]
                client.put(f"/kv/{key}", json=value + 1, headers=fence(lease)).raise_for_status()
                lease |= client.request("DELETE", f"/locks/{lock}", json={"lease_id": lease["lease_id"]}).json()
                leases.append(lease)

    running_threads = [threading.Thread(target=count_up) for _ in range(threads)]
    for thread in running_threads:
        thread.start()
    for thread in running_threads:
        thread.join()
    leases.sort(key=lambda lease: lease["token"])
    spans = [revision for lease in leases for revision in (lease["token"], lease["revision"])]
    assert (server.value(key), spans == sorted(spans), len(leases)) == (threads * rounds, True, threads * rounds)
