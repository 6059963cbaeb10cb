"""Waiters that disconnect: they leave the queue, never get the lock, and do not block the others."""

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import STORES
from running import Server, Wire, message, running, until
from waiting import (
    LIVE,
    Go,
    asking,
    close,
    end_sending,
    every_store,
    is_silent,
    pass_through,
    queue_up,
    reset,
    ways_to_go,
)


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


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
