"""A watch: the request, its events, and the cursor at which it goes on after a lost connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from leasehold_client.errors import UnexpectedResponse
from leasehold_client.records import EntryDeleted, EntryPut, Event, LockChanged, Ready, Reset
from leasehold_client.values import Json, decode_object, parse_optional_time

from .entries import entry_from
from .messages import Request, target

ACCEPT: Final = (("Accept", "application/x-ndjson"),)
SILENT_HEARTBEATS: Final = 2
GRACE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything up to the cursor that matches was sent."""

    cursor: int | None


@dataclass(frozen=True, slots=True)
class End:
    """Why the service ends the response."""

    error: str
    message: str


Received: TypeAlias = Event | Progress | End


@dataclass(frozen=True)
class Interest:
    """What a watch asks for."""

    prefixes: Sequence[str] = ()
    snapshot: bool = False
    locks: bool = False
    values: bool = True
    heartbeat_seconds: int = 15

    @property
    def silence_seconds(self) -> float:
        """After so much silence the connection is lost: the service would have sent `progress`."""
        return SILENT_HEARTBEATS * self.heartbeat_seconds + GRACE_SECONDS


class WatchState:
    """What was received so far. It does no I/O.

    The cursor moves only with events that have an `id`. What came after the last one is repeated after a reconnect.
    """

    def __init__(self, interest: Interest, since: int | None) -> None:
        self._interest = interest
        self._cursor = since
        self._rest = b""
        self._is_ready = False
        """Whether `Ready` was reported; it is reported once, and once after each `Reset`."""
        self._has_partial_snapshot = False

    def request(self) -> Request:
        """The next request. It resumes at the cursor."""
        interest = self._interest
        parameters = [("prefix", prefix) for prefix in interest.prefixes if prefix]
        if interest.snapshot:
            parameters.append(("snapshot", ""))
        if interest.locks:
            parameters.append(("locks", ""))
        if not interest.values:
            parameters.append(("values", "false"))
        if self._cursor is not None:
            parameters.append(("since", str(self._cursor)))
        parameters.append(("heartbeat", str(interest.heartbeat_seconds)))
        return Request("GET", target("/watch", parameters), ACCEPT)

    def connected(self) -> Sequence[Event]:
        """A new response begins. If a snapshot was cut off, it begins again, so what it reported must be forgotten."""
        self._rest = b""
        if self._has_partial_snapshot and self._cursor is None:
            self._has_partial_snapshot = False
            return [Reset()]
        return []

    def receive(self, data: bytes) -> Iterator[tuple[Received, bytes]]:
        """The events in a piece of the response, which may end in the middle of one. Each with its line."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield self._event(line), line

    def _event(self, line: bytes) -> Received:
        try:
            message = decode_object(line)
            return self._read(message["event"], message["data"], message.get("id"))
        except (KeyError, TypeError, ValueError) as error:
            raise UnexpectedResponse(f"a line of the watch is not an event: {error!r}") from error

    def _read(self, kind: str, body: Mapping[str, Json], cursor: int | None) -> Received:
        if cursor is not None:
            self._cursor = cursor
        match kind:
            case "ready" if not self._is_ready:
                self._is_ready = True
                return Ready(body["revision"], cursor)
            case "reset":
                self._is_ready = False
                self._cursor = None
                self._has_partial_snapshot = True
                return Reset(cursor)
            case "end":
                return End(body["error"], body["message"])
            case "put" | "delete" | "lock":
                self._has_partial_snapshot |= self._cursor is None
                return _change(kind, body, cursor)
            case _:
                # `progress`, `ready` after a reconnect, or a kind of event that this version does not know.
                return Progress(cursor)


def _change(kind: str, body: Mapping[str, Json], cursor: int | None) -> Event:
    if kind == "put":
        return EntryPut(entry_from(body), cursor)
    if kind == "delete":
        return EntryDeleted(body["key"], body["revision"], cursor)
    return LockChanged(
        body["lock"],
        body["revision"],
        body["state"] == "held",
        body.get("token"),
        body.get("owner"),
        parse_optional_time(body.get("expires_at")),
        cursor,
    )
