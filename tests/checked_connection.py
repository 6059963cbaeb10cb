"""Connections that note each transition of their states, and a transport that sends nowhere."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from leasehold.http.wire.connection import Connection
from leasehold.http.wire.connections import Connections
from leasehold.http.wire.reception import Reception
from leasehold.http.wire.states import TRANSITIONS, Answering, Receiving

Transition = tuple[Receiving, Receiving] | tuple[Answering, Answering]
USED: set[Transition] = set()
"""The transitions that were made by checked connections."""
ILLEGAL: list[Transition] = []
"""Those that the table does not list. Noted, because a connection would handle an exception like any other failure."""


def note(transition: Transition) -> None:
    USED.add(transition)
    if transition[1] not in TRANSITIONS[transition[0]]:
        ILLEGAL.append(transition)


class CheckedReception(Reception):
    """Each assignment of `state` is noted."""

    _checked_state: Receiving | None = None

    @property
    def state(self) -> Receiving:
        assert self._checked_state is not None
        return self._checked_state

    @state.setter
    def state(self, state: Receiving) -> None:
        if self._checked_state is None:
            assert state is Receiving.NEW
        else:
            note((self._checked_state, state))
        self._checked_state = state


class CheckedConnection(Connection):
    """Each assignment of `_state` is noted. Made within `checked_receptions`."""

    _checked_state: Answering | None = None

    @property
    def _state(self) -> Answering:
        assert self._checked_state is not None
        return self._checked_state

    @_state.setter
    def _state(self, state: Answering) -> None:
        if self._checked_state is None:
            assert state is Answering.IDLE
        else:
            note((self._checked_state, state))
        self._checked_state = state

    @property
    def states(self) -> tuple[Receiving, Answering]:
        return self._reception.state, self._state

    def check(self) -> None:
        """What holds whenever the event loop is not inside a connection."""
        receiving, answering = self.states
        current, queue = self._current, self._queue
        if self._begun is not None:
            assert answering is Answering.WORKING
            assert current is None
        elif answering in (Answering.WORKING, Answering.WAITING, Answering.STREAMING):
            assert current is not None
        else:
            assert current is None
        if answering is Answering.QUEUED:
            assert queue
        if answering in (Answering.IDLE, Answering.CLOSED, Answering.LOST):
            assert not queue
        if answering in (Answering.WAITING, Answering.STREAMING):
            assert self._task is not None
        if answering in (Answering.CLOSED, Answering.LOST):
            assert receiving in (Receiving.ENDED, Receiving.CLIENT_CLOSED)
        if answering is Answering.IDLE:
            assert receiving not in (Receiving.EXPECTING, Receiving.ENDED, Receiving.CLIENT_CLOSED)
            assert not self._is_reading_paused
        transport = self._sender.transport
        if self.ready_for is not None:
            assert self._is_ready()
            assert transport is not None
        if answering is Answering.CLOSED and isinstance(transport, Transport) and not transport.is_closing():
            assert transport.sent_end
            assert transport.reads
        assert self._queued_bytes == sum(len(request.body) for request in queue)
        assert not self._is_advancing
        assert not self._is_feeding
        assert self._reception.parser is None


@contextmanager
def checked_receptions() -> Iterator[None]:
    with patch("leasehold.http.wire.answering.Reception", CheckedReception):
        yield


class Transport(asyncio.Transport):
    """Takes what is written. When it is closed it tells its connection so in the next iteration, as uvloop does."""

    def __init__(self, connection: Connection) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self._connection = connection
        self._is_closing = False
        self.is_lost = False
        self.reads = True
        self.sent_end = False
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._is_closing
        assert not self.sent_end
        self.written += data

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def write_eof(self) -> None:
        self.sent_end = True

    def pause_reading(self) -> None:
        assert self.reads
        self.reads = False

    def resume_reading(self) -> None:
        assert not self.reads
        self.reads = True

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self.lose)

    abort = close

    def lose(self) -> None:
        """The connection is lost, by whichever side."""
        self._is_closing = True
        if not self.is_lost:
            self.is_lost = True
            self._connection.connection_lost(None)


def connected(shared: Connections) -> tuple[CheckedConnection, Transport]:
    with checked_receptions():
        connection = CheckedConnection(shared)
    transport = Transport(connection)
    connection.connection_made(transport)
    return connection, transport
