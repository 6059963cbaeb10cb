"""Waiting for a lock: waiters get it in order of arrival, one at a time, and a disconnected waiter never gets it."""

import contextlib
import json
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from databases import STORES
from running import ANSWER_SECONDS, Answer, Server, Wire, message, refusal, running, until

LOCK_HELD = (423, "lock_held")
SOON_SECONDS = 20.0
"""Less than anybody here waits or holds a lock who is not to hear of it at once, and enough for a busy machine."""
LIVE = message("GET", "/health/live")
MAX_WAITERS = 1_000

every_store = pytest.mark.parametrize("store", STORES)


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """What is told here is told of every engine."""
    return any_server


@pytest.fixture
def wires(server: Server) -> Iterator[Callable[[], Wire]]:
    """Opens connections, which are closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(Wire(server))


def asking(lock: str, **asked: Any) -> bytes:
    return message("POST", f"/locks/{lock}", body=json.dumps({"wait": 60, "ttl": 1_000} | asked).encode())


def queue_up(server: Server, lock: str, wires: list[Wire], **asked: Any) -> None:
    """Let them wait in this order, behind nobody, for a lock that is held."""
    for number, wire in enumerate(wires, start=1):
        wire.send(asking(lock, **asked))
        until(lambda number=number: server.waiters(lock) == number)


def lease_in(answer: Answer) -> Any:
    assert answer.status == 201, answer.body
    return json.loads(answer.body)


def answered(wires: list[Wire], *, seconds: float = ANSWER_SECONDS) -> list[Wire]:
    """Those who have heard something; waits until one has. They may be more than `select` knows."""
    with selectors.DefaultSelector() as selector:
        for wire in wires:
            selector.register(wire.socket, selectors.EVENT_READ, wire)
        return [key.data for key, _ in selector.select(seconds)]


def is_silent(wire: Wire) -> bool:
    """Nothing has come yet."""
    return answered([wire], seconds=0) == []


def pass_through(server: Server, lock: str, lease: Any, wires: list[Wire]) -> list[Any]:
    """Release `lease`, and that of each who gets the lock, until nobody waits. Who got one is noted with it."""
    leases = []
    waiting = list(wires)
    while waiting:
        assert server.release(lock, lease["lease_id"]).status_code == 200
        [wire] = answered(waiting)
        lease = lease_in(wire.answer())
        leases.append(lease | {"wire": wire})
        waiting.remove(wire)
    server.release(lock, lease["lease_id"])
    return leases


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


# The end of the wait ------------------------------------------------------------------------------------------


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


# What wakes ---------------------------------------------------------------------------------------------------


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


# Who has gone -------------------------------------------------------------------------------------------------


def close(wire: Wire) -> None:
    wire.close()


def reset(wire: Wire) -> None:
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


def end_sending(wire: Wire) -> None:
    wire.end_sending()


ways_to_go = pytest.mark.parametrize("go", [close, reset, end_sending])
Go = Callable[[Wire], None]


@ways_to_go
def test_a_waiter_that_disconnects_is_removed(server: Server, lock: str, wires: Callable[[], Wire], go: Go) -> None:
    holder, wire = server.lease(lock), wires()
    queue_up(server, lock, [wire])
    go(wire)
    until(lambda: server.waiters(lock) == 0)
    server.release(lock, holder["lease_id"])
    assert (server.is_free(lock), server.acquire(lock).status_code) == (True, 201)


def test_a_waiter_that_closes_its_half_of_the_connection_is_disconnected(
    server: Server, lock: str, wires: Callable[[], Wire]
) -> None:
    server.lease(lock)
    wire = wires()
    queue_up(server, lock, [wire])
    assert wire.end_sending().is_cut()


@every_store
def test_when_some_waiters_disconnect_all_others_get_the_lock_and_no_lease_is_lost(tmp_path: Path, store: str) -> None:
    """Each lease and each release takes one revision, so a lease that was given to somebody who has gone would show."""
    with running(STORES[store](tmp_path)) as own, contextlib.ExitStack() as stack:
        holder = own.lease("a", ttl=1_000)
        waiting = [stack.enter_context(Wire(own)) for _ in range(18)]
        queue_up(own, "a", waiting)
        # The first, the last, and neighbours among them.
        for index, go in zip((0, 17, 5, 6, 7, 12), (close, reset, end_sending, close, reset, end_sending), strict=True):
            go(waiting[index])
        staying = [wire for index, wire in enumerate(waiting) if index not in (0, 17, 5, 6, 7, 12)]
        until(lambda: own.waiters("a") == len(staying))
        leases = pass_through(own, "a", holder, staying)
        seen = ([lease["wire"] for lease in leases], [lease["token"] for lease in leases], own.revision())
    assert seen == (staying, [3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25], 26)


@ways_to_go
def test_a_waiter_that_disconnects_just_before_the_release_does_not_block_the_lock(
    server: Server, lock: str, go: Go
) -> None:
    for number in range(20):
        name = f"{lock}/{number}"
        holder = server.lease(name, ttl=1_000)
        with Wire(server) as leaving, Wire(server) as releasing, Wire(server) as staying:
            queue_up(server, name, [leaving, staying])
            go(leaving)
            releasing.send(message("DELETE", f"/locks/{name}?lease_id={holder['lease_id']}"))
            assert staying.answer().status == 201


@ways_to_go
def test_an_acquisition_behind_other_requests_is_not_done_after_a_disconnect(
    server: Server, lock: str, key: str, go: Go
) -> None:
    """The request for the lock stands behind answers that are more than the system takes, so it begins later."""
    large = 16
    server.put(key, '"%s"' % ("x" * 1_000_000))
    with Wire(server, receive_buffer_bytes=4_096) as wire:
        wire.send(*[message("GET", f"/kv/{key}")] * large, asking(lock))
        assert wire.socket.recv(1, socket.MSG_PEEK) == b"H"
        go(wire)
        if go is end_sending:
            assert [wire.answer().status for _ in range(large)] == [200] * large
            assert wire.is_cut()
        assert server.acquire(lock, wait=5).status_code == 201


@ways_to_go
def test_a_client_that_disconnects_during_a_write_does_not_wait_for_the_lock_behind_it(
    server: Server, lock: str, key: str, go: Go
) -> None:
    server.lease(lock)
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", body=b"1"), asking(lock))
        go(wire)
        until(lambda: server.get(key).status_code == 200)
        until(lambda: server.waiters(lock) == 0)


def test_a_waiter_that_disconnects_with_many_requests_behind_is_removed(lock: str) -> None:
    """Such a connection is not read from."""
    with running() as own, contextlib.ExitStack() as stack:
        own.lease(lock)
        waiting = [stack.enter_context(Wire(own)) for _ in range(4)]
        queue_up(own, lock, waiting)
        for wire in waiting:
            wire.send(*[LIVE] * 100)
        with Wire(own) as other:
            other.send(LIVE).answer()
        for go, wire in zip((close, reset, end_sending), waiting, strict=False):
            go(wire)
        until(lambda: own.waiters(lock) == 1)
        assert is_silent(waiting[3])


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


# The bound of a queue -----------------------------------------------------------------------------------------


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
