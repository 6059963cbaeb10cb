"""The sides of a comparison. Each starts in its constructor; the exit stack that it gets as an argument stops it."""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.load import Load, run_wrk
from bench.locking import Locker, check_exclusion, run_lockers
from bench.processes import BenchError, exchange
from bench.watching import Watched, check_delivery, run_watchers
from bench.workload import (
    BURSTS,
    MAX_VALUE_BYTES,
    SMALL_STORE_KEYS,
    WRITERS,
    Work,
    drawn_keys,
    key,
    lock,
    value,
    write_requests,
)

SETTLE_SECONDS: Final = 0.3
"""The pause between two loads, because wrk disconnects while requests are in progress."""


class Side(ABC):
    """Something that can be loaded, after a check of its answers."""

    key_count = SMALL_STORE_KEYS

    def load(self, work: Work, *, connections: int, seconds: int, seed: int) -> Load:
        """Check the answers, then run the load. Raises BenchError if any answer was wrong."""
        time.sleep(SETTLE_SECONDS)
        self.verify(random.Random(seed))
        return self.run(work, connections=connections, seconds=seconds, seed=seed)

    @abstractmethod
    def verify(self, rng: random.Random) -> None:
        """Raises BenchError unless a value is read as expected, after it was written if this side can write."""

    @abstractmethod
    def run(self, work: Work, *, connections: int, seconds: int, seed: int) -> Load:
        """Run the load itself."""


class Server(Side):
    """A program from which keys are read over HTTP."""

    port: int

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._requests: dict[Work, Path] = {}

    @abstractmethod
    def get(self, name: str) -> bytes:
        """The request that reads the key `name`."""

    @abstractmethod
    def value_in(self, answer: bytes) -> bytes:
        """The JSON text of the value in the body of the answer to `get`."""

    @abstractmethod
    def request(self, work: Work, name: str, rng: random.Random) -> bytes:
        """A request of this kind for the key `name`."""

    def run(self, work: Work, *, connections: int, seconds: int, seed: int) -> Load:
        return run_wrk(self.port, self.prepared(work), connections=connections, seconds=seconds, seed=seed)

    def _expect(self, name: str, text: bytes) -> None:
        answer = self.succeed(self.get(name))
        try:
            found = self.value_in(answer)
        except msgspec.MsgspecError as error:
            raise BenchError(f"an answer that cannot be parsed: {answer[:200]!r}") from error
        if found != text:
            raise BenchError(f"wrote {text!r}, read {found!r}")

    def succeed(self, request: bytes) -> bytes:
        """The body of the answer. Raises BenchError unless it is a success."""
        status, body = exchange(self.port, request)
        if status not in {200, 201}:
            raise BenchError(f"{request[:60]!r} was answered with {status} {body[:200]!r}")
        return body

    def prepared(self, work: Work) -> Path:
        """The file with the requests of a load. It is written once."""
        return self._requests.get(work) or self._prepare(work)

    def _prepare(self, work: Work) -> Path:
        rng = random.Random(3)
        path = self._requests[work] = self.folder / f"requests-{work}"
        names = drawn_keys(work, self.key_count, rng)
        write_requests(path, (self.request(work, name, rng) for name in names))
        return path


class Store(Server):
    """A side that also supports writes, and watchers."""

    @abstractmethod
    def put(self, name: str, text: bytes) -> bytes:
        """The request that writes the JSON `text` under the key `name`."""

    @abstractmethod
    def watched(self) -> Watched:
        """How the keys are watched."""

    def run(self, work: Work, *, connections: int, seconds: int, seed: int) -> Load:
        if work not in WRITERS:
            return super().run(work, connections=connections, seconds=seconds, seed=seed)
        rng, watched = random.Random(seed), self.watched()
        check_delivery(self.port, watched, key(rng.randrange(self.key_count)), value(rng))
        bursts = [
            [watched.publish(key(number), value(rng)) for number in rng.sample(range(self.key_count), WRITERS[work])]
            for _ in range(BURSTS)
        ]
        return run_watchers(self.port, watched, watchers=connections, bursts=bursts, seconds=seconds)

    def request(self, work: Work, name: str, rng: random.Random) -> bytes:
        if work in (Work.GET, Work.GET_ALL):
            return self.get(name)
        return self.put(name, value(rng, MAX_VALUE_BYTES if work is Work.POST_ALL else None))

    def verify(self, rng: random.Random) -> None:
        name, text = key(rng.randrange(self.key_count)), value(rng)
        self.succeed(self.put(name, text))
        self._expect(name, text)

    def fill(self) -> None:
        rng = random.Random(2)
        for number in range(self.key_count):
            self.succeed(self.put(key(number), value(rng)))


class LockStore(Store):
    """A side that also has locks."""

    @abstractmethod
    def lockers(self, names: Sequence[str]) -> list[Locker]:
        """One client for each of these locks."""

    def run(self, work: Work, *, connections: int, seconds: int, seed: int) -> Load:
        if work is not Work.LOCK:
            return super().run(work, connections=connections, seconds=seconds, seed=seed)
        try:
            check_exclusion(self.port, *self.lockers([lock(0), lock(0)]))
            return run_lockers(self.port, self.lockers([lock(each) for each in range(connections)]), seconds=seconds)
        except msgspec.MsgspecError as error:
            raise BenchError(f"an answer that cannot be parsed: {error}") from error
