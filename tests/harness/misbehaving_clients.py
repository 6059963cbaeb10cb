"""Slow and misbehaving clients are sent off in time, and leave nothing behind; good clients are served meanwhile.

Thousands of misbehaving clients run in a process of their own, on one event loop; the seed chooses the kind of each.
The good clients run here: they read and write on persistent connections, before and during. The server's deadlines are
a second each, so that a round takes seconds.
"""

import asyncio
import json
import multiprocessing
import os
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import uvloop
from running import Server, message

from harness import Finding

SWEEP_SECONDS: Final = 1.0
LINGER_SECONDS: Final = 2.0
"""The service's own: how often it looks at its deadlines, and how long a refused client may go on sending."""
SLACK_SECONDS: Final = 2.0
"""For a busy machine."""

LARGE_VALUES: Final = 200
LARGE_VALUE_BYTES: Final = 50_000
"""A list of ten megabytes is more than what lies between the server and a client that does not read."""
HELD_LOCKS: Final = 16
GOOD_CLIENTS: Final = 16
PAUSE_SECONDS: Final = 0.01
"""A good client thinks between two requests."""
KEPT_BYTES: Final = 16 * 1024 * 1024
KEPT_BYTES_OF_A_CLIENT: Final = 32 * 1024
"""How much larger the server may be after its first crowd, if it is too small a crowd for the server to give back what
the allocator keeps for those who come next (25 KiB each)."""
TIME_SLICE_SECONDS: Final = 0.004
"""How long a process may keep a processor that another one waits for, on kernels with 250 ticks a second. The service,
the good and the misbehaving clients share the machine's processors, so a request may wait as long although the event
loop has no turn of more than 0.6 ms of processor time for any of these clients."""
MORE_MEMORY: Final = 1.2
"""How much larger it may be after the next crowd, when it has given that back."""


@dataclass(frozen=True)
class Terms:
    """How long the server's deadlines are, all of them. Within as long again all clients come."""

    deadline_seconds: float

    @property
    def in_time_seconds(self) -> float:
        """A deadline is held by the second sweep after it."""
        return self.deadline_seconds + 2 * SWEEP_SECONDS + SLACK_SECONDS

    @property
    def cut_seconds(self) -> float:
        """Also whoever does not heed the end of the connection is gone then."""
        return self.in_time_seconds + LINGER_SECONDS + 2 * SWEEP_SECONDS


# The misbehaving ones: what they do ------------------------------------------------------------------------------


class Client:
    """One misbehaving client: what it did and what it saw."""

    def __init__(self, address: tuple[str, int], rng: random.Random, terms: Terms) -> None:
        self.terms = terms
        self.rng = rng
        self.received = b""
        self.ended_after: float | None = None
        """Seconds from the connect to the server's end of the connection; None: not seen."""
        self.looks_on = True
        """It would see that end. Whoever has gone, or does not read, leaves that to the server's descriptors."""
        self.socket: socket.socket | None = None
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._began = 0.0

    def seconds(self) -> float:
        return self._loop.time() - self._began

    async def connect(self, *, receive_buffer_bytes: int | None = None) -> socket.socket:
        self.socket = fresh = socket.socket()
        fresh.setblocking(False)  # noqa: FBT003 - the method's name says what
        if receive_buffer_bytes is not None:
            fresh.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._began = self._loop.time()
        await self._loop.sock_connect(fresh, self._address)
        return fresh

    async def send(self, *parts: bytes) -> None:
        """Ignores a closed connection: to close it is what the server should do."""
        assert self.socket is not None
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(self.terms.in_time_seconds):
                await self._loop.sock_sendall(self.socket, b"".join(parts))

    async def see_the_end(self, drip: bytes = b"", *, seconds: float | None = None) -> None:
        """Read until the server ends the connection, and send `drip` once a second."""
        assert self.socket is not None
        seconds = self.terms.in_time_seconds if seconds is None else seconds
        give_up = self.seconds() + seconds
        reading = asyncio.ensure_future(self._loop.sock_recv(self.socket, 64 * 1024))
        while self.seconds() < give_up:
            # Never cancelled while it goes on: what it has just received would be lost.
            await asyncio.wait((reading,), timeout=min(1.0, seconds) if drip else give_up - self.seconds())
            if not reading.done():
                if drip:
                    await self.send(drip)
                continue
            if isinstance(reading.exception(), ConnectionError) or not reading.result():
                self.ended_after = self.seconds()
                return
            self.received = (self.received + reading.result())[:4096]
            reading = asyncio.ensure_future(self._loop.sock_recv(self.socket, 64 * 1024))
        reading.cancel()

    def vanish(self) -> None:
        """By a reset, in good order, or by closing one half only."""
        assert self.socket is not None
        how = self.rng.choice(("reset", "close", "half"))
        if how == "half":
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
            return
        if how == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self.looks_on = False

    @property
    def status(self) -> int:
        """Of the first answer; 0: none."""
        return int(self.received[9:12]) if self.received.startswith(b"HTTP/1.1 ") else 0


LIVE: Final = message("GET", "/health/live")
PUT_CHUNKED: Final = message("PUT", "/kv/misbehaving", "Transfer-Encoding: chunked")
HEAD_BEGUN: Final = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "


async def silent(client: Client) -> None:
    await client.connect()
    await client.see_the_end()


async def stalls_in_the_head(client: Client) -> None:
    await client.connect()
    await client.send(LIVE[: client.rng.randrange(10, len(LIVE) - 1)])
    await client.see_the_end()


async def drips_a_head(client: Client) -> None:
    await client.connect()
    await client.send(HEAD_BEGUN)
    await client.see_the_end(b"x")


async def stalls_in_the_body(client: Client) -> None:
    await client.connect()
    request = message("PUT", "/kv/misbehaving", body=b"1" * client.rng.choice((10, 60_000)))
    await client.send(request[: -client.rng.randrange(1, 9)])
    await client.see_the_end()


async def drips_a_body(client: Client) -> None:
    await client.connect()
    await client.send(message("PUT", "/kv/misbehaving", "Content-Length: 1000"))
    await client.see_the_end(b"1")


async def stalls_in_a_chunk(client: Client) -> None:
    await client.connect()
    framed = b"5\r\n12345\r\n7;extension\r\n1234567\r\n0\r\n\r\n"
    await client.send(PUT_CHUNKED, framed[: client.rng.randrange(len(framed) - 1)])
    await client.see_the_end()


async def drips_chunks(client: Client) -> None:
    await client.connect()
    await client.send(PUT_CHUNKED)
    await client.see_the_end(b"1\r\n1\r\n")


async def waits_to_continue(client: Client) -> None:
    """It asks whether it may send its body, and then does not."""
    await client.connect()
    await client.send(message("PUT", "/kv/misbehaving", "Expect: 100-continue", "Content-Length: 10"))
    await client.see_the_end()


async def idles(client: Client) -> None:
    await client.connect()
    await client.send(LIVE * client.rng.randrange(1, 4))
    await client.see_the_end()


async def does_not_read(client: Client) -> None:
    """It asks for much, by a list, a stream or many requests at once, and reads nothing of it."""
    fresh = await client.connect(receive_buffer_bytes=4096)
    asked = (
        message("GET", "/kv"),
        message("GET", "/kv?limit=200"),
        message("GET", "/stream"),
        message("GET", "/kv/large/1") * 300,
        LIVE * 500 + message("GET", "/kv"),
    )
    await client.send(client.rng.choice(asked))
    if client.rng.random() < 0.9:
        client.looks_on = False  # what lies in between is much, and to read it would be work
        await asyncio.sleep(client.terms.in_time_seconds)
        return
    await asyncio.sleep(client.terms.in_time_seconds)
    fresh.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024 * 1024)
    await client.see_the_end(seconds=SLACK_SECONDS)


async def vanishes(client: Client) -> None:
    """In the middle of anything."""
    await client.connect()
    requests = (
        LIVE,
        message("GET", "/kv"),
        message("GET", "/stream"),
        message("PUT", "/kv/vanished", body=b"1" * 1000),
        message("GET", "/kv/large/1") * 50,
        message("PUT", "/kv/vanished", "Transfer-Encoding: chunked") + b"5\r\n12345\r\n0\r\n\r\n",
        message("GET", "/locks"),
    )
    request = client.rng.choice(requests)
    await client.send(request[: client.rng.randrange(len(request) + 1)])
    await asyncio.sleep(client.rng.choice((0.0, client.rng.random())))
    client.vanish()
    if client.looks_on:
        await client.see_the_end()


async def vanishes_while_it_waits(client: Client) -> None:
    """For a lock that somebody else holds; maybe with more requests behind than the service reads ahead."""
    await client.connect()
    acquire = message("POST", f"/locks/held/{client.rng.randrange(HELD_LOCKS)}", body=b'{"wait": 60}')
    before = client.rng.choice((b"", LIVE, message("PUT", "/kv/before", body=b"1")))
    await client.send(before, acquire, LIVE * client.rng.choice((0, 1, 100)))
    await asyncio.sleep(client.rng.choice((0.0, client.rng.random())))
    client.vanish()
    if client.looks_on:
        await client.see_the_end()


async def sends_garbage(client: Client) -> None:
    await client.connect()
    garbage = client.rng.randbytes(client.rng.randrange(1, 2000))
    begin = client.rng.choice((b"", b"GET ", b"GET / HTTP/1.1\r\n", PUT_CHUNKED, b"\x16\x03\x01\x02\x00\x01"))
    await client.send(begin, garbage)
    await client.see_the_end()


async def never_ends_its_head(client: Client) -> None:
    """It goes on sending, refused or not, until the connection is cut."""
    fresh = await client.connect()
    await client.send(HEAD_BEGUN)
    try:
        while client.seconds() < client.terms.cut_seconds:
            await asyncio.get_running_loop().sock_sendall(fresh, b"y" * 4000 + b"\r\nX: ")
            await asyncio.sleep(0.1)
    except ConnectionError:
        await client.see_the_end()  # it is there; among thousands of clients it may take a while to be read


async def comes_and_goes(client: Client) -> None:
    for _ in range(client.rng.randrange(5, 15)):
        await client.connect()
        await client.send(client.rng.choice((b"", b"GET", LIVE)))
        assert client.socket is not None
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.close()
        client.looks_on = False


@dataclass(frozen=True)
class Kind:
    """`statuses`: what its first answer may be; 0: none came."""

    behave: Callable[[Client], Awaitable[None]]
    statuses: frozenset[int]
    is_held: bool
    """It must be given its time."""
    goes_on: bool
    """It goes on after the end, or looks for it only then."""

    @property
    def name(self) -> str:
        return self.behave.__name__.replace("_", " ")


def _kind(
    behave: Callable[[Client], Awaitable[None]], *statuses: int, is_held: bool = True, goes_on: bool = False
) -> Kind:
    return Kind(behave, frozenset(statuses), is_held, goes_on)


KINDS: Final = (
    _kind(silent, 0),
    _kind(stalls_in_the_head, 0, 408),
    _kind(drips_a_head, 408),
    _kind(stalls_in_the_body, 408),
    _kind(drips_a_body, 408),
    _kind(stalls_in_a_chunk, 408),
    _kind(drips_chunks, 408),
    _kind(waits_to_continue, 100),
    _kind(idles, 200),
    _kind(does_not_read, 0, 200, is_held=False, goes_on=True),
    _kind(vanishes, 0, 200, 201, 400, 408, is_held=False),
    _kind(vanishes_while_it_waits, 0, 200, 201, is_held=False),
    _kind(sends_garbage, 0, 400, 408, 431, is_held=False),
    _kind(never_ends_its_head, 0, 408, 431, is_held=False, goes_on=True),
    _kind(comes_and_goes, 0, is_held=False),
)


def fault(kind: Kind, client: Client) -> str | None:
    """What was wrong with how a client was treated."""
    if client.status not in kind.statuses:
        return f"one that {kind.name} was answered {client.status}"
    seconds = client.terms.cut_seconds if kind.goes_on else client.terms.in_time_seconds
    if client.ended_after is None:
        return None if not client.looks_on else f"one that {kind.name} was still there after {seconds:g} s"
    if client.ended_after > seconds:
        return f"one that {kind.name} was sent off only after {client.ended_after:.2f} s"
    if kind.is_held and client.ended_after < client.terms.deadline_seconds:
        return f"one that {kind.name} was sent off after {client.ended_after:.2f} s"
    return None


# The misbehaving ones: their process -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Misbehavior:
    """What became of them."""

    kinds: Counter[str]
    faults: list[str]


async def _misbehave(address: tuple[str, int], terms: Terms, seed: int, count: int, talk: Connection) -> None:
    rng = random.Random(seed)
    chosen = [(rng.choice(KINDS), Client(address, random.Random(rng.random()), terms)) for _ in range(count)]

    async def one(kind: Kind, client: Client) -> str | None:
        await asyncio.sleep(client.rng.random() * terms.deadline_seconds)
        try:
            await kind.behave(client)
        except (OSError, ValueError) as error:  # ValueError: its own descriptor is closed
            return f"one that {kind.name} failed by itself: {error!r}"
        return fault(kind, client)

    faults = await asyncio.gather(*(one(kind, client) for kind, client in chosen))
    talk.send(Misbehavior(Counter(kind.name for kind, _ in chosen), [each for each in faults if each is not None]))
    # Its sockets stay open: the server has to let go of them by itself.
    await asyncio.get_running_loop().run_in_executor(None, talk.recv)


def _misbehaving_process(
    address: tuple[str, int], terms: Terms, seed: int, count: int, talk: Connection, *, gives_way: bool
) -> None:
    if gives_way:
        _give_way()
    talk.send("ready")
    talk.recv()
    uvloop.run(_misbehave(address, terms, seed, count, talk))


def _give_way() -> None:
    """Run when nobody else wants the processor.

    Real misbehaving clients run on other machines. Here they share two processors with the service, the disk's
    interrupts and the good clients, so their own use of the processor would count as harm done through the service.
    """
    if hasattr(os, "SCHED_IDLE"):  # Linux: a processor that runs nothing else counts as idle
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


@contextmanager
def misbehaving_clients(
    address: tuple[str, int], terms: Terms, seed: int, count: int, *, gives_way: bool
) -> Iterator[Connection]:
    """They begin at the first message, send their `Misbehavior`, and keep their sockets until the block ends.

    `gives_way`: they run when the processor is idle. Not for a test: beside other work they would not run in time.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    arguments = (address, terms, seed, count, theirs)
    process = spawn.Process(target=_misbehaving_process, args=arguments, kwargs={"gives_way": gives_way})
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        with suppress(OSError):
            ours.send("end")
        process.join(10)
        process.kill()
        process.join()
        process.close()
        ours.close()


# The good ones --------------------------------------------------------------------------------------------------


@dataclass
class Goodness:
    """What good clients saw."""

    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[len(self.seconds) * 99 // 100] if self.seconds else 0.0


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, Any]:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    _, _, length = head.partition(b"Content-Length: ")
    body = await reader.readexactly(int(length.partition(b"\r\n")[0]))
    return int(head[9:12]), json.loads(body)


async def _be_good(address: tuple[str, int], number: int, seen: Goodness, over: asyncio.Event) -> None:
    """Write a number, read it back, and so on."""
    reader, writer = await asyncio.open_connection(*address)
    turn = 0
    try:
        while not over.is_set():
            turn += 1
            for request in (
                message("POST", f"/kv/good/{number}", body=b"%d" % turn),
                message("GET", f"/kv/good/{number}"),
            ):
                began = time.perf_counter()
                status, answer = await _ask(reader, writer, request)
                seen.seconds.append(time.perf_counter() - began)
                if status not in (200, 201) or answer["value"] != turn:
                    seen.faults.append(f"a good client was answered {status} with {answer}")
                await asyncio.sleep(PAUSE_SECONDS)
    except (OSError, EOFError, asyncio.IncompleteReadError) as error:
        seen.faults.append(f"a good client was sent off: {error!r}")
    writer.close()


async def _good_while(address: tuple[str, int], something: Awaitable[object]) -> Goodness:
    """What good clients see while it lasts."""
    seen, over = Goodness(), asyncio.Event()
    clients = [asyncio.create_task(_be_good(address, number, seen, over)) for number in range(GOOD_CLIENTS)]
    await something
    over.set()
    await asyncio.gather(*clients)
    return seen


# A round --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hold:
    """What a process has from the system."""

    descriptors: int
    bytes: int
    peak_bytes: int


def hold_of(pid: int) -> Hold:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    sizes = [int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")]
    return Hold(sum(map(_is_socket, Path(f"/proc/{pid}/fd").iterdir())), *sizes)


def _is_socket(descriptor: Path) -> bool:
    """The store's own files come and go, too."""
    try:
        return str(descriptor.readlink()).startswith("socket:")
    except FileNotFoundError:
        return False


def server_for_misbehaving_clients(store: str | Path, terms: Terms, clients: int) -> Server:
    """With short deadlines, and room for all."""
    names = ("HEADER", "BODY", "IDLE", "WRITE")
    environment = {f"LEASEHOLD_{name}_TIMEOUT_SECONDS": f"{terms.deadline_seconds:g}" for name in names}
    for name in ("CONNECTIONS", "CONNECTIONS_PER_ADDRESS"):
        environment[f"LEASEHOLD_MAX_{name}"] = str(2 * clients + 100)
    return Server(store, environment=environment)


def survive_misbehaving_clients(
    store: str | Path, seed: int, *, clients: int, deadline_seconds: float, is_measured: bool
) -> Finding:
    """Let so many misbehaving clients loose on a server of `store`, which is empty at first.

    `is_measured`: another crowd comes before, so that the server has grown as large as it gets, and the p99 of good
    clients must not more than double, apart from a time slice. It is measured before and afterwards, because the disk
    and the other guests of the machine change meanwhile; the larger one counts. A test does not look at that: the
    machine may do other things.
    """
    finding, terms = Finding(), Terms(deadline_seconds)
    with server_for_misbehaving_clients(store, terms, clients) as server:
        for number in range(LARGE_VALUES):
            server.put(f"large/{number}", '"' + "x" * LARGE_VALUE_BYTES + '"')
        leases: dict[str, str] = {}
        for number in range(HELD_LOCKS):
            acquired = server.request("POST", f"/locks/held/{number}", json={"ttl": 3600})
            leases[f"held/{number}"] = acquired.json()["lease_id"]
        if is_measured:
            with misbehaving_clients(server.address, terms, seed + 1, clients, gives_way=True) as talk:
                talk.recv()
                talk.send("begin")
                finding.violations += talk.recv().faults
            time.sleep(terms.cut_seconds)
        with misbehaving_clients(server.address, terms, seed, clients, gives_way=is_measured) as talk:
            before, during, misbehavior, hold = asyncio.run(_good_and_misbehaving(server, terms, talk))
            allowed = round(hold.bytes * MORE_MEMORY)
            if not is_measured:
                allowed = hold.bytes + KEPT_BYTES + clients * KEPT_BYTES_OF_A_CLIENT
            after = _hold_afterwards(server, terms, hold.descriptors, allowed)
        alone = [before]
        if is_measured:
            alone.append(asyncio.run(_good_while(server.address, asyncio.sleep(terms.deadline_seconds))))
        for seen in (*alone, during):
            finding.violations += seen.faults
        finding.violations += misbehavior.faults
        if after.descriptors > hold.descriptors:
            finding.violations.append(f"{after.descriptors - hold.descriptors} descriptors were not given back")
        if after.bytes > allowed:
            finding.violations.append(f"the server grew from {hold.bytes:,} to {after.bytes:,} bytes")
        finding.violations += _left_behind(server, leases)
    p99 = max(seen.p99 for seen in alone)
    finding.figures.update(misbehavior.kinds)
    finding.figures.update(
        {
            "misbehaving clients": clients,
            "good requests alone": sum(len(seen.seconds) for seen in alone),
            "good requests meanwhile": len(during.seconds),
            "µs of p99 alone": round(p99 * 1e6),
            "µs of p99 meanwhile": round(during.p99 * 1e6),
            "KiB before": hold.bytes // 1024,
            "KiB at most": after.peak_bytes // 1024,
            "KiB afterwards": after.bytes // 1024,
        }
    )
    if is_measured and during.p99 > 2 * p99 + TIME_SLICE_SECONDS:
        finding.violations.append(f"good clients' p99 went from {p99 * 1e3:.1f} to {during.p99 * 1e3:.1f} ms")
    return finding


async def _good_and_misbehaving(
    server: Server, terms: Terms, talk: Connection
) -> tuple[Goodness, Goodness, Misbehavior, Hold]:
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, talk.recv)  # they are ready, and take no more time from the good ones
    await _good_while(server.address, asyncio.sleep(0.5))
    before = await _good_while(server.address, asyncio.sleep(terms.deadline_seconds))
    await asyncio.sleep(2 * SWEEP_SECONDS)  # what is closed is seen to be
    hold = hold_of(server.pid)
    talk.send("begin")
    told = loop.run_in_executor(None, talk.recv)
    during = await _good_while(server.address, told)
    misbehavior = await told
    assert isinstance(misbehavior, Misbehavior)
    return before, during, misbehavior, hold


def _hold_afterwards(server: Server, terms: Terms, descriptors: int, allowed_bytes: int) -> Hold:
    """As soon as it has let go of all connections, or when it should have."""
    give_up = time.monotonic() + terms.cut_seconds
    while True:
        hold = hold_of(server.pid)
        is_over = hold.descriptors <= descriptors and hold.bytes <= allowed_bytes
        if is_over or time.monotonic() > give_up:
            return hold
        time.sleep(0.1)


def _left_behind(server: Server, leases: dict[str, str]) -> Iterator[str]:
    """Waiters who have gone, and leases that they got."""
    for lock, lease_id in leases.items():
        shown = server.request("GET", f"/locks/{lock}").json()
        if shown["waiters"]:
            yield f"{shown['waiters']} still wait for {lock}"
        server.request("DELETE", f"/locks/{lock}", params={"lease_id": lease_id})
        after = server.request("GET", f"/locks/{lock}")
        if after.status_code != 404:
            yield f"{lock} was given to a client that had gone"
    if server.request("GET", "/kv/misbehaving").status_code != 404:
        yield "a request that never came to its end was done"
    if "Traceback" in server.log():
        yield f"the log has a fault: {server.log()[-2000:]}"
