"""Faults that hit a server in its turn, while it has the lock that orders the batches of several servers.

Each server reaches the database through a proxy of its own. `Turns` reads what passes, so it knows where a turn is and
hits the server exactly there. The turn ends when the database has ended the session: at once if the connection is cut,
and after 5 s, or 10 s in the middle of a batch, if the server is stopped or its network is silent. A fault lasts until
the other server has committed.
The servers have no connection to each other, so there is none to cut.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Sequence
from itertools import product
from typing import Final, Literal
from urllib.parse import urlsplit

from proxy import Proxy, Watch
from running import Server, until

from harness.postgres_faults import BIND_BEGIN, BIND_COMMIT, READY

BIND_LOAD: Final = b"\0with_"
"""As `BIND_BEGIN`. The statement that writes has the same beginning."""
IN_TRANSACTION: Final = b"Z\0\0\0\x05T"
"""The end of an answer when a transaction is open."""
WAIT_SECONDS: Final = 60.0
BATCHES: Final = 2
"""The other server has committed so many batches before a fault ends. The answer to one may have been on its way."""

Fault = Literal["kill", "pause", "cut", "silence"]
"""SIGKILL, SIGSTOP, all connections to the database cut, or all of them silent."""
Place = Literal["lock", "load", "COMMIT", "answer"]
"""When: the answer to the lock arrives, that to the load arrives, COMMIT is sent, or its answer arrives."""
FaultInTurn = tuple[Fault, Place]

FAULTS: Final[Sequence[Fault]] = ("kill", "pause", "cut", "silence")
PLACES: Final[Sequence[Place]] = ("lock", "load", "COMMIT", "answer")
FAULTS_IN_TURNS: Final[Sequence[FaultInTurn]] = tuple(product(FAULTS, PLACES))


def through(store: str, proxy: Proxy) -> str:
    """The URL of a store, behind `proxy`."""
    return store.replace(f":{port_of(store)}/", f":{proxy.port}/", 1)


def port_of(store: str) -> int:
    """The port in the URL of a store."""
    port = urlsplit(store).port
    assert port is not None
    return port


class _Conversation:
    """One connection to the database. `reached(place, is_turn)` is called at each place of a batch.

    `is_turn`: the lock is a round trip of its own. The place "load" is reached again by a query between load and write.
    """

    def __init__(self, reached: Callable[[Place, bool], int | None]) -> None:
        self._reached = reached
        self._awaited: Place | None = None
        """What the database answers next."""
        self._is_turn = False

    def to_server(self, data: bytes) -> int | None:
        if BIND_BEGIN in data:
            self._awaited, self._is_turn = "lock", True
        if BIND_LOAD in data:
            self._is_turn = self._is_turn and self._awaited != "lock"
            self._awaited = "load"
        if BIND_COMMIT not in data:
            return None
        self._awaited = "answer"
        return self._reached("COMMIT", self._is_turn)

    def to_client(self, data: bytes) -> int | None:
        place = self._awaited
        if place is None or not data.endswith(READY if place == "answer" else IN_TRANSACTION):
            return None
        self._awaited = None
        return self._reached(place, self._is_turn)


class Turns:
    """The turns of the server behind `proxy`. The underscored methods run on the proxy's event loop."""

    def __init__(self, proxy: Proxy) -> None:
        self.batches = 0
        """How many batches of the server had their COMMIT answered, in turns or not."""
        self._proxy = proxy
        self._server: Server | None = None
        """The server that is to be hit, or was hit last."""
        self._ordered: FaultInTurn | None = None
        self._has_struck = threading.Event()
        proxy.new_connection = self._new_connection

    def _new_connection(self) -> tuple[Watch, Watch]:
        conversation = _Conversation(self._reached)
        return conversation.to_server, conversation.to_client

    def _reached(self, place: Place, is_turn: bool) -> int | None:  # noqa: FBT001
        self.batches += place == "answer"
        if self._ordered is None or self._ordered[1] != place or not is_turn:
            return None
        fault, self._ordered = self._ordered[0], None
        passing = self._hit(fault)
        self._has_struck.set()
        return passing

    def _hit(self, fault: Fault) -> int | None:
        """Returns how many bytes of the chunk that is at this place may still pass."""
        assert self._server is not None
        self._loop = asyncio.get_running_loop()
        if fault == "kill":
            os.kill(self._server.pid, signal.SIGKILL)
        elif fault == "pause":
            os.kill(self._server.pid, signal.SIGSTOP)
        elif fault == "silence":
            self._proxy.flows.clear()
        else:
            self._proxy.is_open = False
            self._loop.call_soon(self._proxy.cut)
            return 0
        return None

    def strike(self, server: Server, other: "Turns", fault: FaultInTurn) -> None:
        """Hit the server in its next turn, and wait until the other one has committed since. Then call `end`."""
        self._server = server
        self._has_struck.clear()
        self._ordered = fault
        assert self._has_struck.wait(WAIT_SECONDS), f"the server took no turn in which it could be hit: {fault}"
        enough = other.batches + BATCHES
        until(lambda: other.batches >= enough, seconds=WAIT_SECONDS)

    def end(self, fault: Fault) -> None:
        """Undo the fault, and wait until the server commits again. After a kill, the caller has started it again."""
        before = self.batches
        assert self._server is not None
        if fault == "pause":
            os.kill(self._server.pid, signal.SIGCONT)
        self._proxy.is_open = True
        self._loop.call_soon_threadsafe(self._proxy.flows.set)
        until(lambda: self.batches > before, seconds=WAIT_SECONDS)
