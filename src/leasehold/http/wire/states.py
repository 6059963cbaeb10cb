"""The states of one connection. Everything that decides what a connection does next is in this file.

A connection is two state machines that run side by side:

- `Receiving`: which part of a request the next bytes from the client are. Owned by `Reception`.
- `Answering`: what happens to the requests that are complete. Owned by `Connection`.

`TRANSITIONS` lists every transition of both, and the other tables and functions say what a state means for the
connection. The transitions that happen for every request (parsed, queued, begun, answered) are plain assignments of
the owner, because a lookup in the table would slow each request down. All others go through `moved`, which refuses what
the table does not list. `tests/unit/test_states.py` runs connections that check every assignment against the table.

To add a state: a member, its row in `TRANSITIONS`, and its place in the tables below and in `deadlines.DEADLINES`.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, TypeVar


class Receiving(Enum):
    """What the client sends next."""

    NEW = auto()
    """Its first request, of which nothing has arrived."""
    IDLE = auto()
    """The next request, of which nothing has arrived."""
    HEAD = auto()
    """The rest of a request line and of header fields."""
    EXPECTING = auto()
    """A body, after the service has sent `100 Continue`."""
    BODY = auto()
    """The rest of a body."""
    DISCARDING = auto()
    """The rest of a short body. Its request is refused already; the client may keep the connection."""
    ENDED = auto()
    """Nothing more: its last request is complete or refused. What it sends is ignored."""
    CLIENT_CLOSED = auto()
    """Nothing more: it has shut down its side."""


class Answering(Enum):
    """What the connection does with complete requests."""

    IDLE = auto()
    """There are none."""
    QUEUED = auto()
    """Some wait. None is begun, because the client reads slowly or other connections come first."""
    WORKING = auto()
    """The store or a task works on one."""
    WAITING = auto()
    """It waits for a lock, which only a connected client may get, or a task waits for changes. A watch sends its events
    in this state."""
    STREAMING = auto()
    """The head of a response is sent, and its body is being made. A failure closes the connection."""
    CLOSED = auto()
    """None is begun any more. Responses that were posted are still sent."""
    LOST = auto()
    """The transport is gone."""


State = TypeVar("State", bound=Receiving | Answering)

_ENDS: Final = frozenset({Receiving.ENDED, Receiving.CLIENT_CLOSED})
_CLOSES: Final = frozenset({Answering.CLOSED, Answering.LOST})

TRANSITIONS: Final[Mapping[Receiving | Answering, frozenset[Receiving | Answering]]] = {
    Receiving.NEW: frozenset({Receiving.IDLE, Receiving.HEAD, Receiving.ENDED}),  # IDLE: a whole request in one read
    Receiving.IDLE: _ENDS | {Receiving.IDLE, Receiving.HEAD},
    Receiving.HEAD: _ENDS | {Receiving.HEAD, Receiving.EXPECTING, Receiving.BODY, Receiving.DISCARDING},
    Receiving.EXPECTING: _ENDS | {Receiving.BODY, Receiving.IDLE},  # IDLE: the client did not wait
    Receiving.BODY: _ENDS | {Receiving.IDLE},  # at once where a request has no body
    Receiving.DISCARDING: _ENDS | {Receiving.IDLE},
    Receiving.ENDED: _ENDS,
    Receiving.CLIENT_CLOSED: frozenset(),
    Answering.IDLE: _CLOSES | {Answering.QUEUED, Answering.WORKING},
    Answering.QUEUED: _CLOSES | {Answering.WORKING},
    Answering.WORKING: _CLOSES | {Answering.IDLE, Answering.QUEUED, Answering.WAITING, Answering.STREAMING},
    Answering.WAITING: _CLOSES | {Answering.IDLE, Answering.QUEUED},
    Answering.STREAMING: _CLOSES | {Answering.IDLE, Answering.QUEUED},
    Answering.CLOSED: _CLOSES,
    Answering.LOST: frozenset(),
}


class IllegalTransitionError(Exception):
    """A connection was about to do what its state does not allow: a bug in this package."""


def moved(state: State, to: State) -> State:
    """`to`, if a connection may go there from `state`. Raises IllegalTransitionError."""
    if to not in TRANSITIONS[state]:
        raise IllegalTransitionError(f"{state} → {to}")
    return to


UNANSWERED: Final = frozenset({Answering.QUEUED, Answering.WORKING, Answering.WAITING, Answering.STREAMING})
"""There is a request that will be answered."""
IN_BODY: Final = frozenset({Receiving.EXPECTING, Receiving.BODY, Receiving.DISCARDING})
"""The head of a request is complete and its body is not."""


class Step(Enum):
    """What a connection does when it has answered all complete requests."""

    READ = auto()
    """Wait for more from the client."""
    SEND_CONTINUE = auto()
    """Send `100 Continue`, which must come after the answers to the requests before."""
    CLOSE = auto()


WHEN_IDLE: Final[Mapping[Receiving, Step]] = {
    Receiving.NEW: Step.READ,
    Receiving.IDLE: Step.READ,
    Receiving.HEAD: Step.READ,
    Receiving.EXPECTING: Step.SEND_CONTINUE,
    Receiving.BODY: Step.READ,
    Receiving.DISCARDING: Step.READ,
    Receiving.ENDED: Step.CLOSE,
    Receiving.CLIENT_CLOSED: Step.CLOSE,
}


class AtEnd(Enum):
    """What a connection does when the client shuts down its side."""

    CLOSE = auto()
    """Close, because nothing is left to send."""
    ANSWER = auto()
    """Send the responses that are due, then close."""
    CANCEL = auto()
    """Cancel the task and close. A client that has disconnected looks the same, and must not get the lock."""


AT_END: Final[Mapping[Answering, AtEnd]] = {
    Answering.IDLE: AtEnd.CLOSE,
    Answering.QUEUED: AtEnd.ANSWER,
    Answering.WORKING: AtEnd.ANSWER,
    Answering.WAITING: AtEnd.CANCEL,
    Answering.STREAMING: AtEnd.ANSWER,
    Answering.CLOSED: AtEnd.CLOSE,
    Answering.LOST: AtEnd.CLOSE,
}


def is_busy(receiving: Receiving, answering: Answering) -> bool:
    """Whether a service that stops waits for this connection."""
    return answering in UNANSWERED or receiving in IN_BODY
