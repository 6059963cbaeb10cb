"""Slow and misbehaving clients are disconnected at their deadlines, and good clients are served meanwhile.

200 such clients connect to one server at once, each in a thread. The tests check the outcome of each.
"""

import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from running import Server, Wire, message, running, until

LIMIT_SECONDS = 1.0
LATE_SECONDS = 20.0
"""Deadlines are looked at once a second and never held early; the rest is for a busy machine."""
SLOW_SECONDS = 4.0
"""So long a reader is slow: longer than a reader may take that does not read."""
CLIENTS_OF_A_KIND = 25
LIVE = message("GET", "/health/live")


@dataclass(frozen=True)
class Fate:
    """What became of a client: what it was sent, and how long after its last good turn it was sent off."""

    received: bytes
    seconds: float


def fate(wire: Wire, drip: Callable[[], bytes] = lambda: b"") -> Fate:
    """Send what `drip` gives, ten times a second, until the server ends the connection."""
    started = time.monotonic()
    received = b""
    wire.socket.settimeout(0.1)
    while time.monotonic() - started < 2 * LATE_SECONDS:
        try:
            wire.send(drip())
            part = wire.socket.recv(65536)
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            break
        if not part:
            break
        received += part
    return Fate(received, time.monotonic() - started)


def silent(server: Server) -> Fate:
    with Wire(server) as wire:
        return fate(wire)


def stalls_in_the_head(server: Server) -> Fate:
    with Wire(server) as wire:
        return fate(wire.send(LIVE[:-4]))


def drips_a_head(server: Server) -> Fate:
    with Wire(server) as wire:
        return fate(wire.send(b"GET /health HTTP/1.1\r\nHost: a\r\nX: "), lambda: b"x")


def stalls_in_the_body(server: Server) -> Fate:
    with Wire(server) as wire:
        return fate(wire.send(message("PUT", "/kv/misbehaving", body=b"123456")[:-1]))


def drips_a_body(server: Server) -> Fate:
    with Wire(server) as wire:
        return fate(wire.send(message("PUT", "/kv/misbehaving", "Content-Length: 1000")), lambda: b"1")


def drips_chunks(server: Server) -> Fate:
    with Wire(server) as wire:
        return fate(wire.send(message("PUT", "/kv/misbehaving", "Transfer-Encoding: chunked")), lambda: b"1\r\n1\r\n")


def idles(server: Server) -> Fate:
    with Wire(server) as wire:
        wire.send(LIVE).answer()
        return fate(wire)


def vanishes(server: Server) -> Fate:
    with Wire(server) as wire:
        wire.send(message("PUT", "/kv/misbehaving", "Content-Length: 1000"), b"123")
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return Fate(b"", 0.0)


MISBEHAVING = (
    silent,
    stalls_in_the_head,
    drips_a_head,
    stalls_in_the_body,
    drips_a_body,
    drips_chunks,
    idles,
    vanishes,
)


@dataclass
class Outcome:
    fates: dict[Callable[[Server], Fate], list[Fate]] = field(default_factory=lambda: defaultdict(list))
    good_seconds: list[float] = field(default_factory=list)


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A server with short deadlines."""
    names = ("HEADER", "BODY", "IDLE", "WRITE")
    with running(environment={f"LEASEHOLD_{name}_TIMEOUT_SECONDS": str(LIMIT_SECONDS) for name in names}) as started:
        yield started


@pytest.fixture(scope="module")
def outcome(strict: Server) -> Outcome:
    """200 misbehaving clients at once, and one good client meanwhile."""
    seen = Outcome()
    over = threading.Event()

    def be_good() -> None:
        while not over.is_set():
            started = time.monotonic()
            with Wire(strict) as wire:
                assert wire.send(message("PUT", "/kv/good", body=b"1")).answer().status in (200, 201)
            seen.good_seconds.append(time.monotonic() - started)

    with ThreadPoolExecutor(1) as good, ThreadPoolExecutor(len(MISBEHAVING) * CLIENTS_OF_A_KIND) as pool:
        goodness = good.submit(be_good)
        clients = [(kind, pool.submit(kind, strict)) for kind in MISBEHAVING * CLIENTS_OF_A_KIND]
        for kind, client in clients:
            seen.fates[kind].append(client.result())
        over.set()
        goodness.result()
    return seen


@pytest.mark.parametrize("kind", [kind for kind in MISBEHAVING if kind is not vanishes], ids=lambda kind: kind.__name__)
def test_a_misbehaving_client_is_disconnected_at_its_deadline_and_not_earlier(
    outcome: Outcome, kind: Callable[[Server], Fate]
) -> None:
    wrong = [f for f in outcome.fates[kind] if not LIMIT_SECONDS < f.seconds < LIMIT_SECONDS + LATE_SECONDS]
    assert (len(outcome.fates[kind]), wrong) == (CLIENTS_OF_A_KIND, [])


@pytest.mark.parametrize(
    "kind",
    [stalls_in_the_head, drips_a_head, stalls_in_the_body, drips_a_body, drips_chunks],
    ids=lambda kind: kind.__name__,
)
def test_a_client_that_began_a_request_gets_an_error(outcome: Outcome, kind: Callable[[Server], Fate]) -> None:
    wrong = [f for f in outcome.fates[kind] if not f.received.startswith(b"HTTP/1.1 408 ")]
    assert (wrong, b'"error":"request_timeout"' in outcome.fates[kind][0].received) == ([], True)


@pytest.mark.parametrize("kind", [silent, idles], ids=lambda kind: kind.__name__)
def test_a_client_that_sent_nothing_gets_no_answer(outcome: Outcome, kind: Callable[[Server], Fate]) -> None:
    assert {fate.received for fate in outcome.fates[kind]} == {b""}


def test_good_clients_are_served_beside_misbehaving_ones(outcome: Outcome) -> None:
    slowest = sorted(outcome.good_seconds)[: int(len(outcome.good_seconds) * 0.99)][-1]
    assert (len(outcome.good_seconds) > 10, slowest < LATE_SECONDS / 2) == (True, True)


def test_requests_that_misbehaving_clients_did_not_finish_are_not_done(strict: Server, outcome: Outcome) -> None:
    assert outcome.fates
    assert strict.get("misbehaving").status_code == 404


def test_a_server_works_after_misbehaving_clients(strict: Server, outcome: Outcome, key: str) -> None:
    assert outcome.fates
    assert (strict.put(key, "1").status_code, "Traceback" in strict.log()) == (201, False)


# Readers ------------------------------------------------------------------------------------------------------

WRITE_LIMIT_SECONDS = 2.0
"""Long enough for another client to see that the place is taken."""
LARGE_VALUES = 20
LARGE_VALUE = '"' + "x" * 1_000_000 + '"'


@pytest.fixture(scope="module")
def single() -> Iterator[Server]:
    """A server for one connection at a time, with much to read and a short deadline for readers.

    One place only, so that a client learns when another has been cut: before, it is refused.
    """
    environment = {"LEASEHOLD_WRITE_TIMEOUT_SECONDS": str(WRITE_LIMIT_SECONDS), "LEASEHOLD_MAX_CONNECTIONS": "1"}
    with running(environment=environment) as started:
        for number in range(LARGE_VALUES):
            started.put(f"large/{number}", LARGE_VALUE)
        started.client.close()
        yield started


def has_place(server: Server) -> bool:
    with Wire(server) as wire:
        return wire.send(LIVE).answer().status == 200


@pytest.mark.parametrize(
    "asked",
    [message("GET", "/kv"), message("GET", "/kv?limit=20"), message("GET", "/kv/large/1") * 20],
    ids=["streamed list", "one page", "pipelined reads"],
)
def test_a_client_that_does_not_read_is_disconnected(single: Server, asked: bytes) -> None:
    until(lambda: has_place(single))
    with Wire(single, receive_buffer_bytes=4096) as wire:
        wire.send(asked)
        started = time.monotonic()
        until(lambda: not has_place(single))
        until(lambda: has_place(single))
        held = time.monotonic() - started
        try:
            received = len(wire.rest())
        except ConnectionResetError:
            received = 0
    assert (WRITE_LIMIT_SECONDS < held < WRITE_LIMIT_SECONDS + LATE_SECONDS, received < LARGE_VALUES * 1_000_000) == (
        True,
        True,
    )


def test_a_client_that_reads_slowly_gets_everything(single: Server) -> None:
    until(lambda: has_place(single))
    received = bytearray()
    with Wire(single, receive_buffer_bytes=64 * 1024) as wire:
        wire.send(message("GET", "/kv"))
        started = time.monotonic()
        while not received.endswith(b"\r\n0\r\n\r\n"):
            part = wire.socket.recv(64 * 1024)
            assert part, "a reader that reads was cut"
            received += part
            if time.monotonic() - started < SLOW_SECONDS:
                time.sleep(0.05)
    assert received.count(LARGE_VALUE.encode()) == LARGE_VALUES
