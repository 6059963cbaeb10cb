"""Connections that wait for a lock or for a change."""

import json
import selectors
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from databases import STORES
from running import ANSWER_SECONDS, Answer, Server, Wire, message, until

LOCK_HELD = (423, "lock_held")
SOON_SECONDS = 20.0
"""Shorter than the waits and leases of these tests, and long enough for a response on a busy machine."""
LIVE = message("GET", "/health/live")
MAX_WAITERS = 1_000

every_store = pytest.mark.parametrize("store", STORES)


def asking(lock: str, **asked: Any) -> bytes:
    return message("POST", f"/locks/{lock}", body=json.dumps({"wait": 60, "ttl": 1_000} | asked).encode())


def queue_up(server: Server, lock: str, wires: list[Wire], **asked: Any) -> None:
    """Let these connections wait for a held lock, in this order. No other client waits for it."""
    for number, wire in enumerate(wires, start=1):
        wire.send(asking(lock, **asked))
        until(lambda number=number: server.waiters(lock) == number)


def lease_in(answer: Answer) -> Any:
    assert answer.status == 201, answer.body
    return json.loads(answer.body)


def answered(wires: list[Wire], *, seconds: float = ANSWER_SECONDS) -> list[Wire]:
    """The connections that have received something; blocks until one has. `select` itself allows too few."""
    with selectors.DefaultSelector() as selector:
        for wire in wires:
            selector.register(wire.socket, selectors.EVENT_READ, wire)
        return [key.data for key, _ in selector.select(seconds)]


def is_silent(wire: Wire) -> bool:
    """Whether nothing was received yet."""
    return answered([wire], seconds=0) == []


def pass_through(server: Server, lock: str, lease: Any, wires: list[Wire]) -> list[Any]:
    """Release `lease`, then the lease of each waiter that gets the lock, until no one waits. Returns these leases.

    The member `wire` of a lease is the connection that got it.
    """
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


# Ways to disconnect -------------------------------------------------------------------------------------------


def close(wire: Wire) -> None:
    wire.close()


def reset(wire: Wire) -> None:
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


def end_sending(wire: Wire) -> None:
    wire.end_sending()


ways_to_go = pytest.mark.parametrize("go", [close, reset, end_sending])
Go = Callable[[Wire], None]
