"""An exception at any call of the service's code is an error for one caller or for its batch, and the lane continues.

The calls are found, not listed: a profile function sees each call by the service's own code, of Python and of C
functions, on the thread of the event loop and on those of the file engine. One run records them. Then each call is made
to raise once while the same requests are sent again. New code is covered as soon as it is called.

The service runs in this process with real connections, because only then can its calls be observed one by one.

A second run of the file engine is about the calls in its own code only. There each round has checkpoints, too, and
after each exception the files are read as if the process had been killed.
"""

import asyncio
import gc
import json
import logging
import random
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Final, Self

import msgspec
import structlog
import uvloop
from driving import json_text, set_pace

import leasehold
from harness import Finding
from leasehold.engines.base import Engine
from leasehold.engines.file.engine import FileEngine
from leasehold.engines.file.space import FileSpace
from leasehold.errors import ServiceError
from leasehold.http.endpoints import ROUTES
from leasehold.http.routing.admission import Admission
from leasehold.http.routing.route import Service
from leasehold.http.routing.router import Router
from leasehold.http.wire.connection import Connection
from leasehold.http.wire.connections import Connections
from leasehold.limits import Limits
from leasehold.metrics import Metrics
from leasehold.model import RECEIPT, Forget
from leasehold.store.store import Store
from leasehold.store.stores import Stores

SOURCE: Final = str(Path(leasehold.__file__).parent)
OF_FILES: Final = ("engines/file/",)
_MEMORY: Final = Path("/dev/shm")
WAIT_SECONDS: Final = 20.0
"""Longer than any answer takes. A caller without an answer by then would wait for ever."""
FAILURES: Final[Sequence[type[BaseException]]] = (MemoryError, ValueError, OSError, KeyError, RuntimeError)
TOLD_UNCHANGED: Final = (
    "nothing was changed",
    "could not be stored",
    "its log has the request id",
    "cannot be",
    "the stored value cannot be read",
)
TOLD_STORED: Final = "the change was stored"
NEVER_RAISE: Final = frozenset({"lock.__exit__"})
"""Python releases a lock without taking memory. An exception in place of this call would leave the lock taken."""
MOST_ROUNDS: Final = 4
"""For one kind of call. After a fault, several rounds may be of the same kind."""
TIMES_OF_LIKELY: Final = 20
"""Whether there is harm can depend on the kind of round, and on what other threads do meanwhile."""
ROUNDS_OF_RECEIPTS: Final = 20
"""Receipts are kept for about as many rounds."""
STARTS: Final = ("_start_batch", "_answer")
"""The functions that start a commit, and a query for gathered reads."""

Value = str | int | float | list["Value"] | dict[str, "Value"] | None
Site = tuple[str, int, str]
"""The calling function, its line, and the called function."""


# Calls --------------------------------------------------------------------------------------------------------


class Injector:
    """Sees the calls of the service on the threads where `install` was called. If armed, it raises at one of them."""

    def __init__(self, folders: Sequence[str]) -> None:
        """The calls by code in these folders of the service are recorded."""
        self._recorded = tuple(f"{SOURCE}/{folder}" for folder in folders)
        self._is_service: dict[str, bool] = {}
        """By the names of files: to hash a code object takes long, and this is asked at each call."""
        self._target: Site | None = None
        self._calls_before = 0
        """How often the target is called before the call at which it raises."""
        self._failure: BaseException = MemoryError()
        self._watches = False
        self._records = False
        self.seen: list[Site] = []
        """The calls, while it is not armed."""
        self.fired: Site | None = None
        self.stack: list[tuple[str, str]] = []
        """File and function of the service's frames where it raised, the innermost first."""

    def install(self) -> None:
        sys.setprofile(self._profile)

    def watch(self) -> None:
        """Record all calls from the next start of a batch on."""
        self._target, self.fired, self.seen, self._watches, self._records = None, None, [], False, True

    def arm(self, site: Site, occurrence: int, failure: BaseException) -> None:
        """Raise once, at the n-th call of `site`."""
        self.watch()
        self._target, self._calls_before, self._failure, self._records = site, occurrence, failure, False

    def disarm(self) -> None:
        self._target, self._watches, self._records = None, False, False

    def _in_service(self, frame: FrameType) -> bool:
        file = frame.f_code.co_filename
        known = self._is_service.get(file)
        if known is None:
            known = self._is_service[file] = file.startswith(SOURCE)
        return known

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        """Runs millions of times, so the comparisons that rule out most calls come first, and the slow ones last.

        Python searches a table for the line of a frame, and composes the name of a C function.
        """
        if event == "call":
            if not self._watches:
                if frame.f_code.co_name not in STARTS or not self._in_service(frame):
                    return
                self._watches = True
            caller = frame.f_back
        elif event == "c_call" and self._watches:
            caller = frame
        else:
            return
        target = self._target
        if target is None:
            if self._records and caller is not None and self._in_service(caller):
                self._record(caller, _site(caller, frame, event, argument))
            return
        if caller is None or caller.f_code.co_qualname != target[0] or not self._in_service(caller):
            return
        if _site(caller, frame, event, argument) != target:
            return
        self._calls_before -= 1
        if self._calls_before < 0:
            self._target, self.fired = None, target
            self.stack = list(self._frames(caller))
            raise self._failure

    def _record(self, caller: FrameType, site: Site) -> None:
        if site[2] not in NEVER_RAISE and caller.f_code.co_filename.startswith(self._recorded):
            self.seen.append(site)

    def _frames(self, frame: FrameType | None) -> Iterator[tuple[str, str]]:
        while frame is not None:
            if self._in_service(frame):
                yield frame.f_code.co_filename.removeprefix(SOURCE + "/"), frame.f_code.co_qualname
            frame = frame.f_back

    def may_cost_the_batch(self) -> bool:
        """Whether it raised where a batch is handled as a whole: in the engine, or in the lane around it."""
        for file, function in self.stack:
            if file.startswith("http/") or file == "store/lock_queues.py":
                return False
            if file.startswith("rules/") and function.partition(".<locals>")[0] not in _OF_THE_BATCH:
                return False
            if file.startswith(("engines/", "store/", "rules/")):
                return True
        return False


def _site(caller: FrameType, frame: FrameType, event: str, argument: object) -> Site:
    callee = frame.f_code.co_qualname if event == "call" else getattr(argument, "__qualname__", "")
    return caller.f_code.co_qualname, caller.f_lineno, callee


_OF_THE_BATCH: Final = (
    *("Overlay.__init__", "Overlay.changes", "evaluate"),
    *("touched", "names_of", "names_in", "lookups_of", "lookups_in"),
)


# The service --------------------------------------------------------------------------------------------------


@dataclass
class Running:
    """The service in this process, on a free port."""

    stores: Stores
    store: Store
    connections: Connections
    port: int


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[Running]:
    """The parts that `server.run.serve` creates, without its signals. The caller closes the stores."""
    loop = asyncio.get_running_loop()
    metrics = Metrics()
    stores = Stores(engine, Limits(), metrics)
    await stores.start()
    store = stores.default
    router = Router(ROUTES)
    service = Service(
        store,
        Limits(),
        uptime_seconds=loop.time,
        openapi=b"{}",
        metrics=metrics,
        gauges=store.gauges,
        stores=stores,
    )
    connections = Connections(router, Admission(None, None), service, logs_requests=True)
    sweeper = loop.create_task(connections.keep_deadlines())
    server = await loop.create_server(lambda: Connection(connections), "127.0.0.1", 0)
    try:
        yield Running(stores, store, connections, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        sweeper.cancel()
        await connections.drain(1.0)


@dataclass
class Answer:
    """An answer. `status` 0: the connection ended without one. `body` is decoded."""

    status: int
    body: dict[str, Value] = field(default_factory=dict)


class Client:
    """One connection, made again after the service has ended it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> None:
        if self._streams is None or self._streams[0].at_eof() or self._streams[1].is_closing():
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)

    def has_more(self) -> bool:
        """Whether data was received that belongs to no request."""
        return self._streams is not None and bool(self._streams[0]._buffer)  # type: ignore[attr-defined]

    def send(self, request: "Request") -> None:
        assert self._streams is not None
        self._streams[1].write(request.encoded())

    async def answer(self) -> Answer:
        assert self._streams is not None
        reader, writer = self._streams
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            raw = await reader.readexactly(int(fields.get("content-length", "0")))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            self._streams = None
            return Answer(0)
        if fields.get("connection") == "close":
            writer.close()
            self._streams = None
        decode = msgspec.msgpack.decode if "msgpack" in fields["content-type"] else msgspec.json.decode
        return Answer(int(head[0].split(" ")[1]), decode(raw))

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass(frozen=True)
class Request:
    """A request. `key` and `after`: the entry that it changes, and its value afterwards as a function of the value
    before."""

    method: str
    path: str
    body: Value = None
    fields: tuple[tuple[str, str], ...] = ()
    key: str | None = None
    after: Callable[[Value], Value] | None = None

    def encoded(self) -> bytes:
        body = b"" if self.method in ("GET", "DELETE") else json.dumps(self.body).encode()
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.fields)
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


# What is sent -------------------------------------------------------------------------------------------------

MESSAGEPACK: Final = (("Accept", "application/vnd.msgpack"),)
MERGE: Final = (("Content-Type", "application/merge-patch+json"), *MESSAGEPACK)
STEPS: Final = (("Content-Type", "application/json-patch+json"),)
OTHER: Final = "other"
"""Another namespace, in which only a run about files writes."""
MISSING: Final = "(missing)"
"""The value of a missing entry."""


class Round:
    """The requests of one round, sent together. The next round uses what this one left."""

    def __init__(self, number: int, lock: str, lease: tuple[str, str] | None) -> None:
        self._number = number
        self._lock = lock
        self._lease = lease

    def requests(self) -> list[Request]:
        number = self._number
        reads = [Request("GET", "/kv/plain"), Request("GET", "/kv/list?path=/items", fields=MESSAGEPACK)]
        writes = [
            Request("PUT", "/kv/plain", number, key="plain", after=lambda _: number),
            Request("POST", "/kv/list?path=/items/-", number, key="list", after=self._appended),
            Request("PATCH", "/kv/document", {"last": number}, MERGE, "document", self._merged),
            Request("POST", "/txn", self._transaction(), key="pair", after=lambda _: number),
            self.keyed_request(),
        ]
        if self._lease is None:
            writes += [
                Request("POST", f"/locks/{self._lock}", {"ttl": 3_600, "wait": 0}),
                Request("PUT", "/kv/passing?ttl=3600", number, key="passing", after=lambda _: number),
            ]
        else:
            lock, lease_id = self._lease
            fenced = (("If-Lease", lease_id),)
            steps: Value = [{"op": "replace", "path": "/last", "value": number}]
            writes += [
                Request("PUT", "/kv/fenced", number, fenced, "fenced", lambda _: number),
                Request("PATCH", "/kv/steps", steps, STEPS, "steps", lambda _: {"last": number}),
                Request("PUT", f"/locks/{lock}", {"lease_id": lease_id}),
                Request("DELETE", "/kv/passing", key="passing", after=lambda _: MISSING),
            ]
        return [*writes, *reads]

    def keyed_request(self) -> Request:
        """Counts the rounds. It may be sent again, and counts only once."""
        fields = (("Idempotency-Key", f"{self._lock}/counted"),)
        return Request("POST", "/kv/counted?increment", 1, fields, "counted", lambda _: self._number)

    def _transaction(self) -> Value:
        """Writes the same value to both entries of the pair."""
        do: list[Value] = [{"op": "put", "key": key, "value": self._number} for key in ("pair", "twin")]
        return {"if": [{"key": "twin", "exists": True}], "do": do}

    def _appended(self, before: Value) -> Value:
        assert isinstance(before, dict)
        items = before["items"]
        assert isinstance(items, list)
        return {"items": [*items, self._number]}

    def _merged(self, before: Value) -> Value:
        assert isinstance(before, dict)
        return {**before, "last": self._number}


FIRST: Final[dict[str, Value]] = {
    "plain": 0,
    "list": {"items": []},
    "document": {"last": 0},
    "fenced": 0,
    "steps": {"last": 0},
    "passing": 0,
    "pair": 0,
    "twin": 0,
    "counted": 0,
}


class Witness:
    """Sends rounds, and compares what is stored with the answers.

    `in_files`: each round has checkpoints beside commits in two namespaces, and the files are read after an exception.
    """

    def __init__(self, service: Running, injector: Injector, finding: Finding, *, in_files: bool = False) -> None:
        self._in_files = in_files
        self._service = service
        self._injector = injector
        self._finding = finding
        self._clients = [Client(service.port) for _ in range(11)]
        self._prober, self._other_prober = Client(service.port), Client(service.port)
        self._numbers = count(1)
        self._mark = secrets.token_hex(4)
        """Makes its locks differ from those that an earlier run left in the store."""
        self._head = 0
        self._pair_began = 0
        """The head when the entries of the pair had been written one after the other."""
        self._lease: tuple[str, str] | None = None
        self._last_fired: Site | None = None
        self.stored: dict[str, Value] = {}

    async def __aenter__(self) -> Self:
        for key, value in FIRST.items():
            assert await self._put(key, value) in (200, 201)
        self.stored = dict(FIRST)
        if self._in_files:
            assert await self._send(self._other_prober, Request("PUT", f"/ns/{OTHER}", {})) in (200, 201)
        self._pair_began = self._service.store.space.revision
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in [*self._clients, self._prober, self._other_prober]:
            client.close()

    @property
    def has_lease(self) -> bool:
        """Which of the two kinds of rounds comes next: one that uses a lease, or one that acquires it."""
        return self._lease is not None

    async def round(self) -> None:
        """Send the requests, and compare. Raises TimeoutError if one of them is never answered."""
        number = next(self._numbers)
        lease, self._lease = self._lease, None
        space = self._service.store.space
        if isinstance(space, FileSpace):
            set_pace(space, isolated=lease is None)  # so that `data.json` and the journal are written in turn
        this_round = Round(number, f"{self._mark}/{number}", lease)
        requests = this_round.requests()
        clients = self._clients[: len(requests)]
        for client in clients:
            if client.has_more():
                self._finding.violations.append(f"{self._last_fired}: a request was answered twice")
                client.close()
            await client.connect()
        await self._install()
        try:
            for client, request in zip(clients, requests, strict=True):
                client.send(request)
            async with asyncio.timeout(WAIT_SECONDS):
                answers = [await client.answer() for client in clients]
                if self._in_files:
                    await self._write_checkpoints()
        finally:
            self._injector.disarm()
            sys.setprofile(None)
        self._finding.figures["requests"] += len(requests)
        self._judge(requests, answers)
        if not lease:
            granted = next(
                answer for request, answer in zip(requests, answers, strict=True) if request.path.startswith("/locks/")
            )
            if granted.status == 201:
                self._lease = str(granted.body["lock"]), str(granted.body["lease_id"])
        await self._recover()
        await self._compare(requests, answers)
        await self._repeat(this_round.keyed_request(), number)
        if number % ROUNDS_OF_RECEIPTS == 0:
            await self._forget_receipts()
        if self._in_files and self._injector.fired is not None:
            await self._compare_files(number)

    async def _write_checkpoints(self) -> None:
        """One that replaces the journal and one that does not, beside commits."""
        space = self._service.store.space
        assert isinstance(space, FileSpace)
        volume = space.volume
        set_pace(space, isolated=False)
        await asyncio.gather(self._put("meanwhile", 0), self._put_other("meanwhile", 0))  # right after the fault
        for rotates in (True, False):
            with suppress(*FAILURES):  # whoever calls this would log it
                if volume.storage is not None:
                    volume.start_checkpoint(volume.storage, rotates=rotates)
            await asyncio.gather(self._put("meanwhile", 1), self._put_other("meanwhile", 1))
            with suppress(*FAILURES):
                await volume.rest()
            volume._retry_checkpoint_at = 0.0

    async def _compare_files(self, number: int) -> None:
        """Append one more change to the journal, and compare what the process would leave if it were killed now."""
        engine, space = self._service.stores.engine, self._service.store.space
        assert isinstance(engine, FileEngine)
        assert isinstance(space, FileSpace)
        set_pace(space, isolated=False)
        statuses = await asyncio.gather(self._put("last", number), self._put_other("last", number))
        if not {200, 201}.issuperset(statuses):
            self._violate(f"a write after the recovery was refused: {statuses}")
        before = len(self._finding.violations)
        await _compare_after_kill(engine, self.stored | {"last": number, f"{OTHER}:last": number}, self._finding)
        if len(self._finding.violations) > before:
            self._violate("this was found when the files were read")

    async def _repeat(self, request: Request, number: int) -> None:
        """Send the request with a key again: the change and its receipt are both stored, or neither is."""
        await self._prober.connect()
        self._prober.send(request)
        answer = await self._prober.answer()
        if answer.status != 200 or answer.body["value"] != number:
            self._violate(f"{request.method} {request.path} was repeated in round {number}: {answer}")
        self.stored["counted"] = number

    async def _forget_receipts(self) -> None:
        """Remove the receipts of earlier rounds. `data.json` contains them all, so it would take longer and longer to
        write."""
        store, engine = self._service.store, self._service.stores.engine
        if isinstance(store.space, FileSpace):
            names = [name for _, name in await engine.surplus(RECEIPT, 0, 0, 10_000)]
            await store.submitted(Forget(tuple(names), store.space.revision))

    async def _install(self) -> None:
        """Install it on the threads of the service, too. An exception on a thread has removed it there."""
        space = self._service.store.space
        if isinstance(space, FileSpace):
            await space.volume.sync.call(self._injector.install)
            await space.volume.checkpointer.call(self._injector.install)
        self._injector.install()

    def _judge(self, requests: Sequence[Request], answers: Sequence[Answer]) -> None:
        harmed = [
            f"{request.method} {request.path}: {answer.status} {answer.body.get('message', '')}"
            for request, answer in zip(requests, answers, strict=True)
            if answer.status >= 500 or not answer.status
        ]
        refused = [
            f"{request.method} {request.path}: {answer.status}"
            for request, answer in zip(requests, answers, strict=True)
            if 400 <= answer.status < 500 and (request.method != "DELETE" or self.stored["passing"] != MISSING)
        ]
        fired = self._injector.fired
        self._last_fired = fired or self._last_fired
        if refused:
            self._violate(f"refused: {refused}")
        if harmed and fired is None:
            self._violate(f"without a fault: {harmed}")
        if len(harmed) > 1 and not self._injector.may_cost_the_batch():
            self._violate(f"more than one caller: {harmed}")
        if fired is not None:
            self._finding.figures["faults"] += 1
            self._finding.figures["answers that tell of them"] += len(harmed)

    async def _recover(self) -> None:
        """The next write must succeed, if necessary after the engine has recovered from its fault."""
        async with asyncio.timeout(WAIT_SECONDS):
            while await self._put("probe", 1) not in (200, 201):
                await self._service.stores.engine.recover()
                await asyncio.sleep(0.01)

    async def _put(self, key: str, value: Value) -> int:
        return await self._send(self._prober, Request("PUT", f"/kv/{key}", value))

    async def _put_other(self, key: str, value: Value) -> int:
        return await self._send(self._other_prober, Request("PUT", f"/ns/{OTHER}/kv/{key}", value))

    @staticmethod
    async def _send(client: Client, request: Request) -> int:
        await client.connect()
        client.send(request)
        return (await client.answer()).status

    async def _compare(self, requests: Sequence[Request], answers: Sequence[Answer]) -> None:
        page = await self._service.store.page([""], None, 10_000)
        revisions = {entry.key: entry.revision for entry in page.records}
        self._check_pair(revisions)
        self._check_revisions(list(revisions.values()))
        seen = {entry.key: msgspec.json.decode(json_text(entry.value)) for entry in page.records}
        for request, answer in zip(requests, answers, strict=True):
            if request.key is None or request.after is None:
                continue
            before = self.stored[request.key]
            after, now = request.after(before), seen.get(request.key, MISSING)
            if now not in _allowed(answer, before, after):
                self._violate(f"{request.method} {request.path}: {answer}, but stored is {now!r:.200}")
            self.stored[request.key] = now
        if seen["twin"] != seen["pair"]:
            self._violate(f"half a transaction: {seen['pair']!r} and {seen['twin']!r}")
        self.stored["twin"] = seen["twin"]
        for key, value in self.stored.items():
            if seen.get(key, MISSING) != value:
                self._violate(f"{key} has changed: {value!r:.200} became {seen.get(key, MISSING)!r:.200}")

    def _check_pair(self, revisions: dict[str, int]) -> None:
        """Both changes of the transaction have one revision. Leave one of them."""
        pair, twin = revisions["pair"], revisions.pop("twin")
        if pair != twin and pair > self._pair_began:
            self._violate(f"the changes of a transaction have the revisions {pair} and {twin}")

    def _check_revisions(self, revisions: Sequence[int]) -> None:
        """Each change has its own revision, none is beyond the head, and the head grows."""
        before, self._head = self._head, self._service.store.space.revision
        if len(set(revisions)) < len(revisions):
            self._violate(f"two entries have one revision: {sorted(revisions)}")
        if max(revisions) > self._head or self._head < before:
            self._violate(f"the head is {self._head}, after {before}, and entries have {sorted(revisions)}")

    def _violate(self, what: str) -> None:
        self._finding.violations.append(f"{self._injector.fired}: {what}")


def _allowed(answer: Answer, before: Value, after: Value) -> list[Value]:
    """The values of which one may be stored after this answer."""
    message = str(answer.body.get("message", "")) if answer.status >= 400 else ""
    if TOLD_STORED in message or 200 <= answer.status < 300:
        return [after]
    if not answer.status or "may or may not" in message:
        return [before, after]
    if answer.status < 500 or any(told in message for told in TOLD_UNCHANGED):
        return [before]
    return []


async def contents(store: Store, prefix: str = "") -> dict[str, Value]:
    """The values by key. `prefix` is put before the keys."""
    page = await store.page([""], None, 10_000)
    return {prefix + entry.key: msgspec.json.decode(json_text(entry.value)) for entry in page.records}


# The harness --------------------------------------------------------------------------------------------------


class _EventLoop(uvloop.Loop):
    """A loop whose `close` ends. After the exceptions, uvloop may wait for ever for a handle that nobody closed."""

    def close(self) -> None:
        closing = threading.Thread(target=super().close, daemon=True)
        closing.start()
        closing.join(WAIT_SECONDS)


def survive_exceptions(
    make: Callable[[], Engine],
    seed: int,
    *,
    points: int | None = None,
    stops_at_first: bool = False,
    begins_in: str = "",
    folders: Sequence[str] = ("",),
    in_files: bool = False,
) -> Finding:
    """Raise at each kind of call once, or at this many random `points`. Compare each time, and after a restart.

    `make` makes an engine on the same storage each time. `stops_at_first`: at the first violation. `begins_in`: the
    calls of functions with this in their name come first, many times. `folders`: only the calls by code in these
    folders of the service. `in_files`: in the file engine's, with checkpoints, and the files are compared each time.
    """
    finding = Finding()
    configured = structlog.get_config()
    unraisable, sys.unraisablehook = sys.unraisablehook, lambda _: None  # of callbacks of the garbage collector
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        with asyncio.Runner(loop_factory=_EventLoop) as runner:
            runner.get_loop().set_exception_handler(lambda _loop, _context: None)
            injector = Injector(OF_FILES if in_files else folders)
            rng = random.Random(seed)
            runner.run(
                _survive(
                    make,
                    injector,
                    rng,
                    finding,
                    points,
                    stops_at_first=stops_at_first,
                    begins_in=begins_in,
                    in_files=in_files,
                )
            )
    finally:
        structlog.configure(**configured)
        gc.collect()  # connections that an exception has left open warn of that, here and not in another test
        sys.unraisablehook = unraisable
    return finding


async def _survive(
    make: Callable[[], Engine],
    injector: Injector,
    rng: random.Random,
    finding: Finding,
    points: int | None,
    *,
    stops_at_first: bool,
    begins_in: str,
    in_files: bool,
) -> None:
    stored: dict[str, Value] = {}
    first = make()
    try:
        async with running(first) as service, Witness(service, injector, finding, in_files=in_files) as witness:
            kinds_of_rounds = await _targets(witness, injector)
            targets = list(kinds_of_rounds)
            if points is not None:
                targets = [rng.choice(targets) for _ in range(points)]
            finding.figures["kinds of calls"] += len(set(targets))
            if begins_in:
                likely = [site for site in targets if begins_in in site[0]]
                finding.figures["likely calls"] += len(likely)
                targets = [site for site in targets if begins_in not in site[0]]
                targets[:0] = rng.sample(likely * TIMES_OF_LIKELY, len(likely) * TIMES_OF_LIKELY)
            left = [_Target(site, set(kinds_of_rounds[site])) for site in targets]
            while left:
                # A round makes only calls of its kind. So choose one that it makes, if there is one.
                kind = witness.has_lease
                place = next((place for place, target in enumerate(left) if kind in target.kinds), 0)
                target = left[place]
                occurrence = 0 if points is None else rng.randrange(3)
                failure = MemoryError if points is None else rng.choice(FAILURES)
                injector.arm(target.site, occurrence, failure("injected"))
                await witness.round()
                target.kinds.discard(kind)
                target.rounds += 1
                if injector.fired is not None or not target.kinds or target.rounds == MOST_ROUNDS:
                    del left[place]
                if finding.violations and stops_at_first:
                    return
            stored = witness.stored
            if isinstance(first, FileEngine):
                await _compare_after_kill(first, stored, finding)
            async with asyncio.timeout(WAIT_SECONDS):
                await service.stores.close()
    except TimeoutError:
        finding.violations.append(f"{injector.fired}: a caller waits for ever")
        return
    except Exception as broken:  # noqa: BLE001 - the store cannot be read at all
        finding.violations.append(f"{injector.fired}: the store is broken: {broken!r}")
        return
    if first.durable:
        await _compare_after_restart(make(), stored, finding)


@dataclass
class _Target:
    """A kind of call at which to raise, until it was done once."""

    site: Site
    kinds: set[bool]
    """The kinds of rounds (`has_lease`) that make this call and in which it was not tried."""
    rounds: int = 0


async def _targets(witness: Witness, injector: Injector) -> dict[Site, set[bool]]:
    """Each kind of call that the rounds make, with the kinds of rounds that make it (`has_lease`)."""
    sites: dict[Site, set[bool]] = {}
    for _ in range(6):
        kind = witness.has_lease
        injector.watch()
        await witness.round()
        for site in injector.seen:
            sites.setdefault(site, set()).add(kind)
    return sites


async def _compare_after_kill(engine: FileEngine, stored: dict[str, Value], finding: Finding) -> None:
    """Compare with what the files contain now, without an orderly shutdown."""
    space = engine.space()
    await space.volume.rest()
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        copy = shutil.copytree(space.volume.path.parent, Path(folder) / "copy")
        await _compare_after_restart(FileEngine(copy / space.volume.path.name), stored, finding)


async def _compare_after_restart(engine: Engine, stored: dict[str, Value], finding: Finding) -> None:
    """`stored`: the keys of entries in the namespace OTHER begin with its name."""
    stores = Stores(engine, Limits())
    try:
        await stores.start()
    except ServiceError as error:
        finding.violations.append(f"the store does not open any more: {error.message}")
        return
    seen = await contents(stores.default)
    if any(key.startswith(f"{OTHER}:") for key in stored):
        seen |= await contents(await stores.open(OTHER), f"{OTHER}:")
    await stores.close()
    for key, value in stored.items():
        if seen.get(key, MISSING) != value:
            finding.violations.append(f"after a restart {key} is {seen.get(key, MISSING)!r:.200}, not {value!r:.200}")
