"""Watches over a connection of their own, read event by event."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec
from contract import messagepack_sequence, server_sent
from running import Ended, Listening, Server, Wire, message

EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
PACKED = "application/vnd.msgpack"
EVENT_SCHEMA = {"$ref": "#/components/schemas/Event"}


@dataclass(frozen=True)
class Event:
    """An event in any representation. `id`: the cursor, if it has one."""

    name: str
    data: Any
    id: int | None

    @property
    def subject(self) -> str:
        """The key or the lock."""
        subject = self.data.get("key", self.data.get("lock"))
        assert isinstance(subject, str)
        return subject

    @property
    def revision(self) -> int:
        revision = self.data["revision"]
        assert isinstance(revision, int)
        return revision


class Watch:
    """One watch. The `with` block closes its connection. `query` is the part of the target after `?`.

    Each event of a server is held against the description of the service.
    """

    def __init__(
        self,
        server: Listening,
        query: str = "",
        *fields: str,
        accept: str = LINES,
        receive_buffer_bytes: int | None = None,
        namespace: str = "",
    ) -> None:
        """`namespace`: how the path begins, for example `/ns/a`."""
        self.accept = accept
        self._contract = server.contract if isinstance(server, Server) else None
        self.wire = Wire(server, receive_buffer_bytes=receive_buffer_bytes)
        try:
            self.wire.send(message("GET", f"{namespace}/watch?{query}", f"Accept: {accept}", *fields))
            self.head = self.wire.head()
            assert self.head.status == 200, self.wire.rest()
        except BaseException:
            self.wire.close()
            raise
        assert self.head.headers["content-type"] == accept
        self._events = self._read()

    def _read(self) -> Iterator[Event]:
        """The events until the response is complete. A chunk has whole events."""
        while (chunk := self.wire.chunk()) != b"":
            for item in _items(chunk, self.accept):
                faults = self._contract.faults(EVENT_SCHEMA, item) if self._contract is not None else []
                assert not faults, f"{item} has {faults}"
                yield Event(item["event"], item["data"], item.get("id"))

    def next(self) -> Event:
        """Wait for the next event."""
        return next(self._events)

    def take(self, count: int) -> list[Event]:
        return [self.next() for _ in range(count)]

    def through(self, revision: int) -> list[Event]:
        """The events up to the first whose id is at least `revision`."""
        found = [self.next()]
        while found[-1].id is None or found[-1].id < revision:
            found.append(self.next())
        return found

    def ready(self) -> list[Event]:
        """The events before `ready`, which is read, too."""
        found = []
        while (event := self.next()).name != "ready":
            found.append(event)
        return found

    def rest(self) -> list[Event]:
        """The events until the response is complete."""
        return list(self._events)

    def until_cut(self) -> list[Event]:
        """The events until the connection ends, complete or not."""
        found: list[Event] = []
        with contextlib.suppress(Ended, ConnectionResetError):
            found.extend(iter(self._events))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wire.close()


def _items(chunk: bytes, accept: str) -> list[Any]:
    if accept == PACKED:
        return messagepack_sequence(chunk)
    if accept == EVENTS:
        assert chunk.endswith(b"\n\n")
        return [server_sent(text) for text in chunk.decode().split("\n\n")[:-1]]
    assert chunk.endswith(b"\n")
    return [msgspec.json.decode(line) for line in chunk.split(b"\n")[:-1]]


# Servers ------------------------------------------------------------------------------------------------------


def gauge(server: Server, name: str) -> int:
    """A gauge of the service: `watchers`, `watch_lag_revisions`."""
    found = re.search(rf"^leasehold_{name} (\d+)", server.request("GET", "/metrics").text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def watchers(server: Server) -> int:
    return gauge(server, "watchers")


def put(server: Server, key: str, value: Any = 1, **options: Any) -> int:
    """Write a value. Returns its revision."""
    answer = server.put(key, json.dumps(value), **options)
    assert answer.status_code in (200, 201), answer.text
    revision = answer.json()["revision"]
    assert isinstance(revision, int)
    return revision


def brief(events: Iterable[Event]) -> list[tuple[str, str, int | None]]:
    """Name, subject and id of each event."""
    return [(event.name, event.subject, event.id) for event in events]
