"""Clients that do all kinds of operations on few keys and record the answers; see `histories`.

They run on one event loop and need little time, so that they can keep a server on the same machine busy. The connection
takes the time of an answer as soon as its last byte has arrived.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec
from running import message

from harness.histories import Change, History, Loss, Sight, Value

KEYS: Final = 5
LOCKS: Final = 2
PREFIX: Final = "k/"
LEASE_SECONDS: Final = 3_600
"""The ttl of leases. None expires during a run."""
RECONNECT_SECONDS: Final = 0.01
UNKNOWN: Final = b"may or may not"
"""In the message of an error after which the outcome is unknown. After any other 503, nothing was changed."""

clock = time.monotonic_ns


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    ended: int

    @property
    def json(self) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", msgspec.json.decode(self.body))


class Connection(asyncio.Protocol):
    """A kept connection with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._received = b""

    @property
    def is_waiting(self) -> bool:
        return self._answer is not None

    async def ask(self, request: bytes) -> Answer:
        """Send a request. Raises ConnectionError if the connection ends before the answer is complete."""
        if self._transport is None:
            raise ConnectionError("the connection has ended")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    def hang_up(self) -> None:
        """Disconnect without waiting for an answer."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        ended = clock()
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        complete = _complete_body(head, body)
        if complete is None:
            return
        self._received = b""
        assert self._answer is not None, "an answer without a request"
        if not self._answer.done():
            self._answer.set_result(Answer(int(head[9:12]), complete, ended))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is defined by the protocol
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the connection has ended"))


def _complete_body(head: bytes, body: bytes) -> bytes | None:
    """The body without its framing; None while it is incomplete."""
    _, length, rest = head.partition(b"\r\nContent-Length: ")
    if length:
        size = int(rest.partition(b"\r\n")[0])
        return body if len(body) == size else None
    assert b"\r\nTransfer-Encoding: chunked" in head, head
    if not body.endswith(b"0\r\n\r\n"):
        return None
    chunks = []
    while True:
        size_text, _, body = body.partition(b"\r\n")
        size = int(size_text, 16)
        chunks.append(body[:size])
        body = body[size + 2 :]
        if not size:
            return b"".join(chunks)


@dataclass
class Place:
    """A server for its clients. `is_up` is cleared while the server is known to be down."""

    address: tuple[str, int]
    is_up: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Load:
    """What all clients share: the amount of work, and what they have learnt from answers."""

    history: History
    operations: int
    progress: Callable[[], None]
    """Called after each operation."""
    figures: Counter[str] = field(default_factory=Counter)
    done: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    """The last revision of each key that a client saw, for If-Match."""
    lock_names: int = 0
    """Grows with each kill, because a lease whose holder got no answer keeps its lock for ever."""

    @property
    def is_over(self) -> bool:
        return self.done >= self.operations

    def count(self, *names: str) -> None:
        self.done += 1
        self.figures.update(("operations", *names))
        self.progress()


@dataclass(frozen=True, slots=True)
class Held:
    lock: str
    lease_id: str
    token: int


class Client:
    """Does one operation after another at `place` until the load is done. Its connection may end at any time."""

    def __init__(self, name: str, place: Place, load: Load, rng: random.Random) -> None:
        self._name = name
        self._place = place
        self._load = load
        self._history = load.history
        self._rng = rng
        self._marks = 0
        self._held: list[Held] = []
        self._stale: list[Held] = []
        self._must_pause = False
        """The server could not be used. It would refuse thousands of requests in a second."""
        self.connection = Connection()
        operations = {
            self._read: 34,
            self._list: 5,
            self._write: 14,
            self._write_part: 10,
            self._compare_and_set: 14,
            self._create: 6,
            self._delete: 6,
            self._write_fenced: 5,
            self._lock: 4,
            self._read_lock: 2,
        }
        self._choices = [operation for operation, weight in operations.items() for _ in range(weight)]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._load.is_over:
            await self._place.is_up.wait()
            try:
                _, self.connection = await loop.create_connection(Connection, *self._place.address)
                while not self._load.is_over:
                    await self._rng.choice(self._choices)()
                    if self._must_pause:
                        self._must_pause = False
                        await asyncio.sleep(RECONNECT_SECONDS)
            except OSError:
                await asyncio.sleep(RECONNECT_SECONDS)
            finally:
                self.connection.hang_up()

    async def look(self) -> None:
        """Read all keys, on a separate connection."""
        _, self.connection = await asyncio.get_running_loop().create_connection(Connection, *self._place.address)
        await self._list()
        self.connection.hang_up()

    # Reads ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        key = self._key()
        began = clock()
        answer = await self.connection.ask(message("GET", f"/kv/{key}"))
        if answer.status == 200:
            self._saw_entry(key, began, answer, answer.json)
        elif answer.status == 404:
            self._history.sights.append(Sight(key, began, answer.ended, is_there=False))
        else:
            self._note_refusal(f"GET {key}", answer)
        self._load.count("reads")

    async def _list(self) -> None:
        """Read all keys in one request, as a page or as a stream."""
        began = clock()
        limit = self._rng.choice(("", "&limit=100"))
        answer = await self.connection.ask(message("GET", f"/kv?prefix={PREFIX}{limit}"))
        if answer.status == 200:
            listed = answer.json
            missing = {f"{PREFIX}{number}" for number in range(KEYS)}
            for entry in listed["entries"]:
                missing.discard(entry["key"])
                self._saw_entry(entry["key"], began, answer, entry, head=listed["revision"])
            self._history.sights += [
                Sight(key, began, answer.ended, is_there=False, head=listed["revision"]) for key in missing
            ]
        else:
            self._note_refusal("GET /kv", answer)
        self._load.count("lists")

    def _saw_entry(self, key: str, began: int, answer: Answer, entry: Mapping[str, Any], *, head: int = 0) -> None:
        revision = self._load.seen[key] = entry["revision"]
        value = _value_of(entry["value"])
        self._history.sights.append(Sight(key, began, answer.ended, True, revision, value, head))  # noqa: FBT003

    # Writes ---------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        await self._put(self._new_change("whole"))

    async def _write_part(self) -> None:
        await self._put(self._new_change("part"))

    async def _compare_and_set(self) -> None:
        change = self._new_change(self._rng.choice(("whole", "part", "removal")))
        change.expected = self._load.seen.get(change.key, 1)
        condition = f'If-Match: "{change.expected}"'
        await (self._remove if change.kind == "removal" else self._put)(change, condition)

    async def _create(self) -> None:
        change = self._new_change("whole")
        change.expected = "absent"
        await self._put(change, "If-None-Match: *")

    async def _delete(self) -> None:
        await self._remove(self._new_change("removal"))

    async def _write_fenced(self) -> None:
        """Write under a lease. Sometimes it is one that the client has released itself."""
        leases = self._stale if self._stale and (not self._held or self._rng.random() < 0.2) else self._held
        if not leases:
            await self._lock()
            return
        held = self._rng.choice(leases)
        change = self._new_change("whole")
        change.fence = held.lock, held.token
        await self._put(change, f"If-Lease: {held.lease_id}")

    async def _put(self, change: Change, *fields: str) -> None:
        if change.kind == "whole":
            request = message("PUT", f"/kv/{change.key}", *fields, body=b'{"whole":"%b"}' % change.mark.encode())
        else:
            request = message("PUT", f"/kv/{change.key}?path=/part", *fields, body=b'"%b"' % change.mark.encode())
        answer = await self._send(change, request)
        if answer.status in (200, 201):
            change.found = answer.status == 200
            self._done(change, answer, answer.json["revision"])
        else:
            self._refused(change, answer)
        self._load.count("writes")

    async def _remove(self, change: Change, *fields: str) -> None:
        answer = await self._send(change, message("DELETE", f"/kv/{change.key}", *fields))
        if answer.status == 200:
            self._done(change, answer, answer.json["revision"])
        elif answer.status == 404:
            self._history.sights.append(Sight(change.key, change.began, answer.ended, is_there=False))
        else:
            self._refused(change, answer)
        self._load.count("writes")

    async def _send(self, change: Change, request: bytes) -> Answer:
        """Send a change. Returns the answer, or None: then the outcome of the change is unknown."""
        change.began = clock()
        try:
            return await self.connection.ask(request)
        except ConnectionError:
            self._is_uncertain(change)
            self._load.count("writes")
            raise

    def _done(self, change: Change, answer: Answer, revision: int) -> None:
        change.ended, change.revision = answer.ended, revision
        self._history.changes.append(change)
        self._load.seen[change.key] = revision

    def _is_uncertain(self, change: Change) -> None:
        self._load.figures["uncertain"] += 1
        self._history.changes.append(change)

    def _refused(self, change: Change, answer: Answer) -> bool:
        """Record what a refusal says about the state of the key or of the lease. Returns whether the change is
        uncertain."""
        if answer.status == 503:
            self._must_pause = True
            is_uncertain = UNKNOWN in answer.body
            if is_uncertain:
                self._is_uncertain(change)
            else:
                self._load.figures["unavailable"] += 1
            return is_uncertain
        body = answer.json
        key, began, ended = change.key, change.began, answer.ended
        if answer.status == 412 and body["error"] == "lease_lost" and change.fence is not None:
            self._history.losses.append(Loss(*change.fence, began, ended))
        elif answer.status == 412 and body["error"] == "precondition_failed" and change.expected is not None:
            revision = body["revision"]
            if revision == change.expected or (revision is None and change.expected == "absent"):
                self._history.faults.append(f"{change} was refused although its precondition holds: {body}")
            self._history.sights.append(Sight(key, began, ended, revision is not None, revision))
            if revision is not None:
                self._load.seen[key] = revision
        else:
            self._note_refusal(str(change), answer)
        self._load.figures["refused"] += 1
        return False

    # Locks ----------------------------------------------------------------------------------------------------

    async def _lock(self) -> None:
        """Acquire a lock, or release it."""
        if self._stale and self._rng.random() < 0.05:
            await self._release(self._rng.choice(self._stale))
        elif self._held and self._rng.random() < 0.6:
            await self._release(self._held.pop(self._rng.randrange(len(self._held))))
        else:
            await self._acquire()

    async def _acquire(self) -> None:
        change = Change(self._lock_name(), "whole", self._new_mark(), 0, expected="absent")
        request = message("POST", f"/locks/{change.key}?wait=0&ttl={LEASE_SECONDS}&owner={change.mark}")
        try:
            answer = await self._send(change, request)
        except ConnectionError:
            self._may_be_released_for_us(change)
            raise
        body = answer.json
        if answer.status == 201:
            self._done(change, answer, body["token"])
            self._held.append(Held(change.key, body["lease_id"], body["token"]))
        elif answer.status == 423:
            self._saw_lock(change.key, change.began, answer, body)
        elif self._refused(change, answer):
            self._may_be_released_for_us(change)
        self._load.count("locks")

    def _may_be_released_for_us(self, change: Change) -> None:
        """The server itself may release a lease whose client has disconnected before the answer."""
        self._history.changes.append(
            Change(change.key, "removal", f"{change.mark}-left", change.began, expected="present")
        )

    async def _release(self, held: Held) -> None:
        change = Change(held.lock, "removal", self._new_mark(), 0, expected=held.token)
        answer = await self._send(change, message("DELETE", f"/locks/{held.lock}?lease_id={held.lease_id}"))
        began, ended = change.began, answer.ended
        if answer.status == 200:
            self._done(change, answer, answer.json["revision"])
            self._stale = [*self._stale[-4:], held]
        elif answer.status in (404, 409):
            self._history.losses.append(Loss(held.lock, held.token, began, ended))
            self._history.sights.append(Sight(held.lock, began, ended, answer.status == 409))
        else:
            self._refused(change, answer)
        self._load.count("locks")

    async def _read_lock(self) -> None:
        lock = self._lock_name()
        began = clock()
        answer = await self.connection.ask(message("GET", f"/locks/{lock}"))
        if answer.status == 200:
            self._saw_lock(lock, began, answer, answer.json)
        elif answer.status == 404:
            self._history.sights.append(Sight(lock, began, answer.ended, is_there=False))
        else:
            self._note_refusal(f"GET {lock}", answer)
        self._load.count("locks")

    def _saw_lock(self, lock: str, began: int, answer: Answer, body: Mapping[str, Any]) -> None:
        value = (body["owner"], None)
        self._history.sights.append(Sight(lock, began, answer.ended, True, body.get("token"), value))  # noqa: FBT003

    # ----------------------------------------------------------------------------------------------------------

    def _note_refusal(self, asked: str, answer: Answer) -> None:
        if answer.status == 503:
            self._must_pause = True
            self._load.figures["unavailable"] += 1
        else:
            self._history.faults.append(f"{asked} was answered with {answer.status}: {answer.body[:200]!r}")

    def _key(self) -> str:
        return f"{PREFIX}{self._rng.randrange(KEYS)}"

    def _lock_name(self) -> str:
        return f"l/{self._load.lock_names}/{self._rng.randrange(LOCKS)}"

    def _new_change(self, kind: Any) -> Change:
        return Change(self._key(), kind, self._new_mark(), 0)

    def _new_mark(self) -> str:
        self._marks += 1
        return f"{self._name}.{self._marks}"


def _value_of(value: Mapping[str, str]) -> Value:
    return value.get("whole"), value.get("part")
