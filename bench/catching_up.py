"""The service with watchers: many that are idle, and one that catches up as many changes as the service knows."""

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from bench.connections import connections
from bench.machine import cpu_seconds
from bench.processes import BenchError
from bench.service import Leasehold
from bench.watching import Crowd, Watched, Watcher, begun
from bench.workload import CHANGES, WATCHERS, http_request, key, value

_SPARE_CONNECTIONS: Final = 100
_IDLE_SECONDS: Final = 30.0
"""Twice the heartbeat, so each watcher is sent two events meanwhile."""
_FILLERS: Final = 50
"""Connections that make the changes."""
_REPEATS: Final = 3
MARKS: Final[Mapping[str, tuple[bytes, bytes]]] = {
    "text/event-stream": (b"\nevent: ready\n", b"\nevent: put\n"),
    "application/x-ndjson": (b'{"event":"ready"', b'{"event":"put"'),
    "application/vnd.msgpack": (b"\xa5event\xa5ready", b"\xa5event\xa3put"),
}
"""`Watched.ready` and `Watched.event`, by media type."""


class _ListAnswer(msgspec.Struct):
    revision: int


def write_changes(service: Leasehold) -> int:
    """Make CHANGES changes of different keys. Returns the revision before them."""
    rng = random.Random(6)
    asked = http_request("GET", "/kv?limit=1&values=false", service.headers())
    before = msgspec.json.decode(service.succeed(asked), type=_ListAnswer).revision
    names = [key(number) for number in range(CHANGES)]
    with connections() as stack:
        crowd = Crowd(stack, service.port, service.watched(), watchers=0, writers=_FILLERS)
        for begin in range(0, CHANGES, _FILLERS):
            crowd.burst([service.put(name, value(rng)) for name in names[begin : begin + _FILLERS]])
    return before


def catch_up(service: Leasehold, cursor: int, media: str) -> None:
    """Be sent all changes after `cursor`."""
    ready, event = MARKS[media]
    request = http_request("GET", f"/watch?since={cursor}", {**service.headers(), "Accept": media})
    watched = Watched(request, ready, event, service.put, bytes)
    with connections() as stack:
        [watcher] = begun(stack, service.port, watched, 1)
        while watcher.events < CHANGES:
            watcher.receive()
        if watcher.events > CHANGES:
            raise BenchError(f"{watcher.events:,} events for {CHANGES:,} changes")


class Idleness(msgspec.Struct, frozen=True):
    """What idle watchers cost: processor time as a percentage of one core, and memory of each."""

    percent: float
    kib_each: float


class WatchedLeasehold(Leasehold):
    """The service with enough connections for WATCHERS watchers."""

    def __init__(self, stack: ExitStack, folder: Path, program: Sequence[str]) -> None:
        most = str(WATCHERS + _SPARE_CONNECTIONS)
        names = ("LEASEHOLD_MAX_CONNECTIONS", "LEASEHOLD_MAX_CONNECTIONS_PER_ADDRESS")
        super().__init__(stack, folder, program, environment=dict.fromkeys(names, most))
        self.start()

    def idleness(self) -> Idleness:
        """While nothing is written. Raises BenchError unless all watchers are sent `progress` and nothing else."""
        before = self.memory().rss_mb
        with connections() as stack:
            watchers = list(begun(stack, self.port, self.watched(), WATCHERS))
            time.sleep(1.0)  # until the last one has begun
            kib_each = (self.memory().rss_mb - before) * 1e6 / 1024 / WATCHERS
            began, cpu_before = time.perf_counter(), cpu_seconds(self.pid)
            time.sleep(_IDLE_SECONDS)
            taken = cpu_seconds(self.pid) - cpu_before
            percent = 100 * taken / (time.perf_counter() - began)
            for watcher in watchers:
                _check_progress(watcher)
        return Idleness(percent, kib_each)

    def catch_up_ms(self) -> Mapping[str, float]:
        """Processor time for CHANGES changes, by media type."""
        cursor = write_changes(self)
        found = {}
        for media in MARKS:
            before = cpu_seconds(self.pid)
            for _ in range(_REPEATS):
                catch_up(self, cursor, media)
            found[media] = 1e3 * (cpu_seconds(self.pid) - before) / _REPEATS
        return found


def _check_progress(watcher: Watcher) -> None:
    watcher.connection.settimeout(0)
    try:
        received = watcher.connection.recv(1 << 16)
    except BlockingIOError:
        received = b""
    if received.count(b"\nevent: ") == 0 or received.count(b"\nevent: ") != received.count(b"\nevent: progress\n"):
        raise BenchError(f"an idle watcher was sent {received[:200]!r}")
