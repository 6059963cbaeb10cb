"""Waiting for a lock: waiters get it in order of arrival, one at a time, and a wait ends at its time."""

import contextlib
import json
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from databases import STORES
from running import ANSWER_SECONDS, Server, Wire, message, refusal, running, until
from waiting import (
    LIVE,
    LOCK_HELD,
    MAX_WAITERS,
    SOON_SECONDS,
    answered,
    asking,
    every_store,
    is_silent,
    lease_in,
    pass_through,
    queue_up,
)


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


# In order -----------------------------------------------------------------------------------------------------


def test_64_waiters_get_the_lock_in_order_of_arrival_one_at_a_time(
    server: Server, lock: str, wires: Callable[[], Wire]
) -> None:
    holder = server.lease(lock, ttl=1_000)
    waiting = [wires() for _ in range(64)]
    queue_up(server, lock, waiting)
    leases = pass_through(server, lock, holder, waiting)
    tokens = [holder["token"], *(lease["token"] for lease in leases)]
    assert [lease["wire"] for lease in leases] == waiting
    assert (tokens == sorted(set(tokens)), server.is_free(lock)) == (True, True)
    assert [wire for wire in waiting if not is_silent(wire)] == []


def test_a_new_waiter_does_not_overtake_earlier_ones(server: Server, lock: str, wires: Callable[[], Wire]) -> None:
    holder, first, second = server.lease(lock), wires(), wires()
    queue_up(server, lock, [first])
    with Wire(server) as releasing:
        releasing.send(message("DELETE", f"/locks/{lock}?lease_id={holder['lease_id']}"))
        second.send(asking(lock))
        lease = lease_in(first.answer())
    until(lambda: server.waiters(lock) == 1)
    assert is_silent(second)
    server.release(lock, lease["lease_id"])
    assert second.answer().status == 201


def test_waiters_of_different_locks_are_independent(server: Server, lock: str, wires: Callable[[], Wire]) -> None:
    names = [f"{lock}/{number}" for number in range(4)]
    holders, waiting = [server.lease(name) for name in names], [wires() for _ in names]
    for name, wire in zip(names, waiting, strict=True):
        queue_up(server, name, [wire])
    for index in (2, 0, 3, 1):
        server.release(names[index], holders[index]["lease_id"])
        assert lease_in(waiting[index].answer())["lock"] == names[index]


def test_waiters_by_uuid_and_by_name_are_in_one_queue(server: Server, wires: Callable[[], Wire]) -> None:
    uuid = "abcdef00-0000-4000-8003-00000000000a"
    holder, first, second = server.lease(uuid), wires(), wires()
    first.send(message("POST", "/lock", body=json.dumps({"lock_id": uuid.upper(), "wait": 60}).encode()))
    until(lambda: server.waiters(uuid) == 1)
    second.send(asking(uuid))
    until(lambda: server.waiters(uuid) == 2)
    assert [lease["wire"] for lease in pass_through(server, uuid, holder, [first, second])] == [first, second]


# The end of a wait --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [0, 0.0], ids=repr)
def test_an_acquisition_without_waiting_is_refused_at_once(server: Server, lock: str, wait: float) -> None:
    server.lease(lock)
    started = time.monotonic()
    assert refusal(server.acquire(lock, wait=wait)) == LOCK_HELD
    assert time.monotonic() - started < SOON_SECONDS


def test_an_acquisition_without_waiting_is_refused_while_others_wait(
    server: Server, lock: str, wires: Callable[[], Wire]
) -> None:
    lease = server.lease(lock, owner="a", ttl=1_000)
    queue_up(server, lock, [wires(), wires()])
    refused = server.acquire(lock, wait=0)
    told = refused.json()
    assert (refusal(refused), told["owner"], told["expires_at"]) == (LOCK_HELD, "a", lease["expires_at"])
    assert server.waiters(lock) == 2


def test_a_waiter_is_refused_at_the_end_of_its_wait(server: Server, lock: str) -> None:
    lease = server.lease(lock, owner="a", ttl=1_000)
    started = time.monotonic()
    refused = server.acquire(lock, wait=0.3)
    took = time.monotonic() - started
    told = refused.json()
    assert (refusal(refused), told["owner"], told["expires_at"]) == (LOCK_HELD, "a", lease["expires_at"])
    assert (0.3 <= took < 0.3 + SOON_SECONDS, server.waiters(lock)) == (True, 0)


def test_a_wait_that_ends_keeps_the_order_of_the_others(server: Server, lock: str, wires: Callable[[], Wire]) -> None:
    holder, before, short, after = server.lease(lock), wires(), wires(), wires()
    queue_up(server, lock, [before])
    short.send(asking(lock, wait=3))
    until(lambda: server.waiters(lock) == 2)
    after.send(asking(lock))
    assert short.answer().refusal == LOCK_HELD
    until(lambda: server.waiters(lock) == 2)
    leases = pass_through(server, lock, holder, [before, after])
    assert [lease["wire"] for lease in leases] == [before, after]


def test_a_refusal_after_a_wait_shows_the_lease_of_that_time(
    server: Server, lock: str, wires: Callable[[], Wire]
) -> None:
    lease, wire = server.lease(lock, ttl=60), wires()
    queue_up(server, lock, [wire], wait=3)
    renewed = server.renew(lock, lease["lease_id"], ttl=1_000).json()
    refused = wire.answer()
    assert (refused.refusal, json.loads(refused.body)["expires_at"]) == (LOCK_HELD, renewed["expires_at"])
    assert 990 <= int(refused.headers["retry-after"]) <= 1_000


def test_a_refusal_without_waiting_shows_the_current_lease_while_others_wait(
    server: Server, lock: str, wires: Callable[[], Wire]
) -> None:
    lease = server.lease(lock, ttl=60)
    queue_up(server, lock, [wires()])
    renewed = server.renew(lock, lease["lease_id"], ttl=1_000).json()
    refused = server.acquire(lock, wait=0)
    assert (refusal(refused), refused.json()["expires_at"]) == (LOCK_HELD, renewed["expires_at"])
    assert 990 <= int(refused.headers["Retry-After"]) <= 1_000


def test_the_default_wait_is_five_seconds(lock: str) -> None:
    with running() as own:
        own.lease(lock)
        started = time.monotonic()
        refused = own.request("POST", f"/locks/{lock}")
        took = time.monotonic() - started
    assert (refusal(refused), 5 <= took < 5 + SOON_SECONDS) == (LOCK_HELD, True)


# What wakes a waiter ------------------------------------------------------------------------------------------


def test_a_release_wakes_a_waiter(server: Server, lock: str, wires: Callable[[], Wire]) -> None:
    holder, wire = server.lease(lock, ttl=1_000), wires()
    queue_up(server, lock, [wire], owner="next", ttl=60)
    server.release(lock, holder["lease_id"])
    lease = lease_in(wire.answer())
    told = (lease["lock"], lease["owner"], lease["ttl"], lease["token"] > holder["token"])
    assert told == (lock, "next", 60, True)


def test_a_release_by_force_wakes_a_waiter(server: Server, lock: str, wires: Callable[[], Wire]) -> None:
    holder, wire = server.lease(lock, ttl=2_592_000), wires()
    queue_up(server, lock, [wire])
    assert server.request("DELETE", f"/locks/{lock}?force").status_code == 200
    assert lease_in(wire.answer())["token"] > holder["token"]
    assert refusal(server.renew(lock, holder["lease_id"])) == (409, "lease_lost")


def test_the_expiry_of_a_lease_wakes_a_waiter_and_not_earlier(
    server: Server, lock: str, wires: Callable[[], Wire]
) -> None:
    holder, first, second = server.lease(lock, ttl=3), wires(), wires()
    queue_up(server, lock, [first, second])
    lease = lease_in(first.answer())
    begin, end = (datetime.fromisoformat(text) for text in (lease["acquired_at"], holder["expires_at"]))
    assert (begin >= end, (begin - end).total_seconds() < SOON_SECONDS, is_silent(second)) == (True, True, True)


def test_the_expiry_of_a_waiters_lease_wakes_the_next(server: Server, lock: str, wires: Callable[[], Wire]) -> None:
    holder, first, second = server.lease(lock), wires(), wires()
    queue_up(server, lock, [first, second], ttl=1)
    server.release(lock, holder["lease_id"])
    leases = [lease_in(wire.answer()) for wire in (first, second)]
    assert leases[1]["acquired_at"] >= leases[0]["expires_at"]


def test_a_waiter_keeps_waiting_when_the_current_lease_is_renewed(
    server: Server, lock: str, wires: Callable[[], Wire]
) -> None:
    holder, wire = server.lease(lock, ttl=3), wires()
    queue_up(server, lock, [wire])
    server.renew(lock, holder["lease_id"], ttl=1_000)
    clock = server.lease(f"{lock}/clock", ttl=3)
    until(lambda: server.is_free(clock["lock"]))
    assert (is_silent(wire), server.waiters(lock)) == (True, 1)
    server.release(lock, holder["lease_id"])
    assert wire.answer().status == 201


# Other requests of a connection -------------------------------------------------------------------------------


def test_requests_behind_one_that_waits_are_answered_after_it(
    server: Server, lock: str, key: str, wires: Callable[[], Wire]
) -> None:
    holder, wire = server.lease(lock), wires()
    wire.send(message("PUT", f"/kv/{key}", body=b"1"), asking(lock), message("GET", f"/kv/{key}"), LIVE)
    assert wire.answer().status == 201
    until(lambda: server.waiters(lock) == 1)
    server.put(key, "2")
    assert is_silent(wire)
    server.release(lock, holder["lease_id"])
    lease = lease_in(wire.answer())
    assert (lease["lock"], wire.answer().value, wire.answer().status) == (lock, 2, 200)


def test_requests_behind_one_whose_wait_ends_are_answered_after_it(
    server: Server, lock: str, wires: Callable[[], Wire]
) -> None:
    server.lease(lock)
    wire = wires().send(asking(lock, wait=0.1), LIVE, asking(lock, wait=0), LIVE)
    assert [wire.answer().status for _ in range(4)] == [423, 200, 423, 200]


def test_a_connection_may_release_what_it_has_acquired(server: Server, lock: str, wires: Callable[[], Wire]) -> None:
    wire = wires()
    for _ in range(3):
        lease = lease_in(wire.send(asking(lock)).answer())
        wire.send(message("DELETE", f"/locks/{lock}?lease_id={lease['lease_id']}"))
        assert wire.answer(to="DELETE").status == 200


# The limit of a queue -----------------------------------------------------------------------------------------


def test_a_waiter_above_the_maximum_is_refused_with_retry_after(lock: str) -> None:
    with running() as own, contextlib.ExitStack() as stack:
        holder = own.lease(lock, ttl=1_000)
        waiting = [stack.enter_context(Wire(own)).send(asking(lock)) for _ in range(MAX_WAITERS)]
        until(lambda: own.waiters(lock) == MAX_WAITERS)
        refused = own.acquire(lock, wait=60)
        told = (refusal(refused), refused.json()["limit"], int(refused.headers["Retry-After"]) >= 1)
        assert told == ((429, "too_many_requests"), MAX_WAITERS, True)
        own.release(lock, holder["lease_id"])
        [first] = answered(waiting)
        assert first.answer().status == 201
        until(lambda: own.waiters(lock) == MAX_WAITERS - 1)
        newcomer = stack.enter_context(Wire(own)).send(asking(lock))
        until(lambda: own.waiters(lock) == MAX_WAITERS)
        assert is_silent(newcomer)


# The end of the service ---------------------------------------------------------------------------------------


@every_store
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_waiters_are_refused_when_the_service_stops(tmp_path: Path, store: str, number: signal.Signals) -> None:
    with running(STORES[store](tmp_path)) as own, contextlib.ExitStack() as stack:
        lease = own.lease("a", ttl=1_000)
        waiting = [stack.enter_context(Wire(own)) for _ in range(3)]
        queue_up(own, "a", waiting)
        started = time.monotonic()
        code = own.terminate(number)
        took = time.monotonic() - started
        answers = [wire.answer() for wire in waiting]
        told = [(answer.refusal, int(answer.headers["retry-after"]) >= 1) for answer in answers]
        assert (code, took < SOON_SECONDS) == (0, True)
        assert told == [((503, "unavailable"), True)] * 3
        assert [wire.is_cut() for wire in waiting] == [True] * 3
        if store != "memory":
            own.start()
            assert own.holder("a").json()["token"] == lease["token"]
            own.release("a", lease["lease_id"])
            assert own.is_free("a")


def test_an_acquisition_while_the_service_stops_does_not_wait() -> None:
    """Its request is under way when the signal comes, so it is answered."""
    with running() as own, Wire(own) as wire:
        own.lease("a", ttl=1_000)
        sent = asking("a")
        wire.send(sent[:-1])
        with Wire(own) as other:
            other.send(LIVE).answer()
        assert own.process is not None
        own.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in own.log())
        assert wire.send(sent[-1:]).answer().refusal == (503, "unavailable")
        assert own.process.wait(ANSWER_SECONDS) == 0
