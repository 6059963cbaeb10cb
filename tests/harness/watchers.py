"""Watchers end in exactly the store's state, through kills of the server and of connections, restarts and checkpoints.

Writers change entries, pairs of entries in transactions, and locks. Watchers in all representations keep copies of the
store by their events (`watch_states`). Some read slowly, some close their connections. Whenever the writers pause, all
copies must become equal to the store.
"""

import asyncio
import itertools
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import msgspec
from contract import messagepack_sequence, server_sent
from running import Server, Wire, message, running
from watching import Watch

from harness import Finding
from harness.locks import PLANTED
from harness.watch_states import State, WatcherState

WAIT_SECONDS = 120.0
INTERESTS: Sequence[tuple[str, ...]] = (
    ("",),
    ("k/",),
    ("pair/", "big/"),
    ("k/1", "k/2", "lock/"),
    ("pair/3/a", "ttl/"),
)
FORMATS = ("text/event-stream", "application/x-ndjson", "application/vnd.msgpack")
SMALL_BUFFER = 4_096
KEYS = 300
"""So many that most changes are the last ones of their key for a while."""
BIG_VALUE = "x" * 50_000


class Writers:
    """Threads that change the store all the time, except while they are paused."""

    def __init__(self, services: Sequence[Server], seed: int, count: int) -> None:
        self._services = services
        self._changed = threading.Condition()
        self._is_paused = self._is_over = False
        self._busy = 0
        self.writes = 0
        self._threads = [
            threading.Thread(target=self._write, args=(number, random.Random(f"{seed}/{number}")))
            for number in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    @property
    def under_way(self) -> int:
        return self._busy

    def wait_for(self, count: int) -> None:
        with self._changed:
            enough = self.writes + count
            assert self._changed.wait_for(lambda: self.writes >= enough, WAIT_SECONDS), "the writers do not write"

    def pause(self) -> None:
        with self._changed:
            self._is_paused = True
            assert self._changed.wait_for(lambda: self._busy == 0, WAIT_SECONDS), "the writers do not end"

    def resume(self) -> None:
        with self._changed:
            self._is_paused = False
            self._changed.notify_all()

    def _write(self, number: int, rng: random.Random) -> None:
        requests = self._requests(number, rng)
        while not self._is_over:
            with suppress(OSError), Wire(self._services[number % len(self._services)]) as wire:
                while self._begin():
                    try:
                        wire.send(next(requests))
                        status = wire.answer().status
                        assert status in (200, 201, 404, 409, 423, 503), status
                    finally:
                        self._end()
            time.sleep(0.02)

    def _requests(self, number: int, rng: random.Random) -> Any:
        for count in itertools.count():
            value = f"{number}.{count}"
            choice = rng.random()
            if choice < 0.45:
                yield message("PUT", f"/kv/k/{rng.randrange(KEYS)}", body=json.dumps(value).encode())
            elif choice < 0.65:
                yield message("DELETE", f"/kv/k/{rng.randrange(KEYS)}")
            elif choice < 0.80:
                pair = f"pair/{rng.randrange(20)}"
                do = [{"op": "put", "key": f"{pair}/{each}", "value": value} for each in "ab"]
                yield message("POST", "/txn", body=json.dumps({"do": do}).encode())
            elif choice < 0.84:
                yield message("PUT", f"/kv/ttl/{rng.randrange(4)}?ttl=0.4", body=b"1")
            elif choice < 0.92:
                body = json.dumps([value, BIG_VALUE]).encode()
                yield message("PUT", f"/kv/big/{rng.randrange(4)}", "Prefer: return=minimal", body=body)
            elif choice < 0.95:
                yield message("POST", f"/locks/lock/{rng.randrange(6)}", body=b'{"wait": 0, "ttl": 600}')
            else:
                yield message("DELETE", f"/locks/lock/{rng.randrange(6)}?force")

    def _begin(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_paused or self._is_over)
            self._busy += not self._is_over
            return not self._is_over

    def _end(self) -> None:
        with self._changed:
            self._busy -= 1
            self.writes += 1
            self._changed.notify_all()


class Watcher:
    """One client. A slow one reads nothing for `pause` seconds again and again; 0: it reads at once."""

    def __init__(self, number: int, services: Sequence[Server], seed: int) -> None:
        self._rng = random.Random(f"{seed}/watcher/{number}")
        self._services = services
        self._accept = FORMATS[number % len(FORMATS)]
        self._pause = (0.0, 0.0, 0.0, 0.3, 0.8)[number % 5]
        self._closes = number % 4 == 1
        prefixes = INTERESTS[number // 5 % len(INTERESTS)]
        self.state = WatcherState(f"watcher {number}", prefixes, number % 2 == 0, number % 3 != 1)
        self.figures: Counter[str] = Counter()

    async def follow(self) -> None:
        """Watch for ever, with a new connection whenever one has ended."""
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._watch(self._rng.choice(self._services))
            self.figures["reconnections"] += 1
            await asyncio.sleep(0.05)

    async def _watch(self, service: Server) -> None:
        reader, writer = await self._connected(service.address)
        try:
            writer.write(self._request())
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split()[1])
            if status != 200:
                if status != 503:
                    self.state.faults.append(f"{self.state.name}: answered {status}")
                return
            self.state.connect()
            most = self._rng.randrange(1, 60) if self._closes else None
            next_pause = time.monotonic() + self._pause
            for count in itertools.count():
                if count == most:
                    self.figures["connections closed by watchers"] += 1
                    return
                if self._pause and time.monotonic() > next_pause:
                    await asyncio.sleep(self._pause)
                    next_pause = time.monotonic() + self._pause
                size = int(await reader.readuntil(b"\r\n"), 16)
                chunk = (await reader.readexactly(size + 2))[:-2]
                if not size:
                    self.figures["responses ended by the service"] += 1
                    return
                for event in self._events(chunk):
                    self.state.take(event)
        finally:
            writer.close()

    async def _connected(self, address: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        try:
            if self._pause:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            sock.settimeout(0)
            await asyncio.get_running_loop().sock_connect(sock, address)
            return await asyncio.open_connection(sock=sock, limit=SMALL_BUFFER if self._pause else 65_536)
        except BaseException:
            sock.close()
            raise

    def _request(self) -> bytes:
        state = self.state
        query = [f"prefix={prefix}" for prefix in state.prefixes] + ["heartbeat=1"]
        query += ["locks"] * state.with_locks + ["snapshot"] * state.with_snapshot
        fields = [f"Accept: {self._accept}"]
        if state.cursor is not None:
            fields.append(f"Last-Event-ID: {state.cursor}")
        elif not state.with_snapshot:
            query.append("since=0")
        return message("GET", "/watch?" + "&".join(query), *fields)

    def _events(self, chunk: bytes) -> list[Any]:
        if self._accept == FORMATS[0]:
            return [server_sent(text) for text in chunk.decode().split("\n\n")[:-1]]
        if self._accept == FORMATS[1]:
            return [msgspec.json.decode(line) for line in chunk.split(b"\n")[:-1]]
        return messagepack_sequence(chunk)


class Crowd:
    """Watchers on an event loop in a thread of their own."""

    def __init__(self, services: Sequence[Server], seed: int, count: int) -> None:
        self.watchers = [Watcher(number, services, seed) for number in range(count)]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: list[asyncio.Task[None]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(WAIT_SECONDS)

    async def _start(self) -> None:
        self._tasks = [self._loop.create_task(watcher.follow()) for watcher in self.watchers]

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def broken(self) -> list[str]:
        """Watchers whose code has failed."""
        return [repr(task.exception()) for task in self._tasks if task.done() and not task.cancelled()]

    def standing(self, head: int, entries: State, tokens: Mapping[str, int]) -> tuple[list[str], list[str]]:
        """The watchers that have not reached the head, and the differences of the others."""
        return self._do(self._standing(head, entries, tokens))  # type: ignore[no-any-return]

    async def _standing(self, head: int, entries: State, tokens: Mapping[str, int]) -> tuple[list[str], list[str]]:
        states = [watcher.state for watcher in self.watchers]
        behind = [state.name for state in states if state.cursor is None or state.cursor < head]
        return behind, [each for state in states for each in state.differences(entries, tokens)]


def contents(service: Server) -> tuple[int, State, dict[str, int]]:
    """The head, the entries and the tokens of the locks that are held, at one moment."""
    while True:
        head = service.revision()
        entries = service.request("GET", "/kv").json()["entries"]
        locks = service.request("GET", "/locks").json()["locks"]
        if service.revision() == head:
            return (
                head,
                {entry["key"]: (entry["revision"], entry["value"]) for entry in entries},
                {lock["lock"]: lock["token"] for lock in locks},
            )


def remove_expired(service: Server) -> None:
    """Wait until all entries that have expired by now are removed. Those that expire first are removed first."""
    revision = service.put("ttl/last", "1", params={"ttl": 0.1}).json()["revision"]
    with Watch(service, f"prefix=ttl/last&since={revision}&heartbeat=1") as watch:
        while watch.next().name != "delete":
            pass


def compare(service: Server, crowd: Crowd) -> list[str]:
    """Wait until all watchers have reached the head of the store. Returns the differences, while nobody writes."""
    deadline = time.monotonic() + WAIT_SECONDS
    has_expired_entries = True
    while True:
        head, entries, tokens = contents(service)
        behind, differences = crowd.standing(head, entries, tokens)
        if crowd.broken():
            return crowd.broken()
        # A server that was killed may leave a transaction that PostgreSQL commits later.
        is_complete = not behind and service.revision() == head
        if is_complete and differences and has_expired_entries:
            remove_expired(service)
            has_expired_entries = False
        elif is_complete:
            return differences
        elif time.monotonic() > deadline:
            return [f"{name} does not reach {head}" for name in behind] + differences
        else:
            time.sleep(0.1)


def watch_through_kills(
    store: str | Path,
    seed: int,
    *,
    kills: int,
    watchers: int = 100,
    writers: int = 16,
    servers: int = 1,
    most_writes: int = 1_200,
    planted: Mapping[str, str] | None = None,
) -> Finding:
    """Kill or stop a server this many times while watchers watch, start it again, and compare after every third time.

    `store` is empty at first, durable, and shared by the servers. `most_writes`: between two kills. `planted`: the
    environment for `planted`.
    """
    rng, finding = random.Random(seed), Finding()
    program = ("-m", "leasehold") if planted is None else (PLANTED,)
    with ExitStack() as stack:
        services = [
            stack.enter_context(running(store, program=program, environment=planted, log_level="warning"))
            for _ in range(servers)
        ]
        crowd = stack.enter_context(Crowd(services, seed, watchers))
        load = stack.enter_context(Writers(services, seed, writers))
        for number in range(1, kills + 1):
            load.wait_for(rng.randrange(100, most_writes))
            # In turn: the watchers of a server that ends go to the other, and stay there.
            service = services[number % servers]
            finding.figures.update({"kills": 1, "kills with writes under way": load.under_way > 0})
            if number % 3 == 2:
                service.terminate()  # with a checkpoint
            else:
                service.kill()
            service.start()
            if number % 3 == 0 or number == kills:
                load.pause()
                finding.violations += [f"after kill {number}: {each}" for each in compare(service, crowd)]
                finding.figures["comparisons"] += watchers
                load.resume()
            if finding.violations or any(watcher.state.faults for watcher in crowd.watchers):
                break
        finding.figures["writes"] = load.writes
        for watcher in crowd.watchers:
            finding.violations += watcher.state.faults
            finding.figures.update(watcher.figures)
            finding.figures.update({"events": watcher.state.events, "resets": watcher.state.resets})
    return finding
