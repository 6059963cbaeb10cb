"""The service, started by its command line in the variants that are measured."""

import random
import re
import secrets
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from bench import processes
from bench.calling import Caller, run_caller
from bench.interpreters import Interpreter
from bench.load import Load
from bench.locking import LEASE_SECONDS, Locker, waiting
from bench.machine import Memory, cpu_seconds, memory_of
from bench.postgresql import PostgreSQL
from bench.processes import BenchError, exchange
from bench.relay import Relay, Traffic
from bench.sides import SETTLE_SECONDS, LockStore
from bench.watching import Watched
from bench.workload import (
    AWAITED_LOCKS,
    MIB,
    PUTS,
    WAITERS,
    Work,
    document,
    http_request,
    key,
    lock,
    value,
    write_foreign_store,
)
from leasehold.access.permissions import PERMISSIONS
from leasehold.access.token_minting import mint_token

_READY_SECONDS: Final = 120.0
_READY: Final = re.compile(rb"leasehold ready on http://127\.0\.0\.1:(\d+) ")
_JSON: Final = {"Content-Type": "application/json"}
_TOKEN_SECONDS: Final = 24 * 3600.0
_PART: Final = "/a/b/c"
_HOLD: Final = b'{"ttl":3600}'
_WAIT: Final = b'{"wait":60}'
_IDLE_SECONDS: Final = 20.0
_QUEUE_SECONDS: Final = 20.0
_SPARE_CONNECTIONS: Final = 100
_FIRST_PART: Final = 1_000_000
"""Has the length of the later parts, so that the document keeps its size, which is the largest allowed."""


class EntryAnswer(msgspec.Struct):
    """The parts of the service's answer that are checked."""

    value: msgspec.Raw


class _LeaseAnswer(msgspec.Struct):
    """The parts of the answer to an acquire that are checked."""

    lease_id: str


def _acquire(lock: str, headers: Mapping[str, str], asked: bytes) -> bytes:
    return http_request("POST", f"/locks/{lock}", headers, asked)


def _release(lock: str, headers: Mapping[str, str], answer: bytes) -> bytes:
    lease_id = msgspec.json.decode(answer, type=_LeaseAnswer).lease_id
    return http_request("DELETE", f"/locks/{lock}", headers, b'{"lease_id":"%b"}' % lease_id.encode())


class Leasehold(LockStore):
    """The service as `leasehold serve` starts it, with its file engine unless `store` names another one.

    `program`: the command `leasehold`, with the interpreter that it runs on. Every request carries a token.
    """

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        program: Sequence[str],
        *,
        store: str | None = None,
        workers: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self._stack = stack
        self._program = program
        self._environment = environment
        self._options = ["--store", store or str(folder / "data.json"), "--workers", str(workers)]
        secret = secrets.token_hex(32).encode()
        self._secret_file = folder / "secret"
        self._secret_file.touch(mode=0o600)
        self._secret_file.write_bytes(secret)
        self._token = mint_token(
            secret, "bench", PERMISSIONS, prefixes=None, now=time.time(), lifetime_seconds=_TOKEN_SECONDS
        )

    def start(self) -> float:
        """Start the service. Returns the seconds from the start of the program to its ready line."""
        log, started = self.folder / "log", time.perf_counter()
        command = [*self._program, "serve", "--port", "0", *self._options]
        command += ["--auth-secret-file", str(self._secret_file)]
        self._process = processes.start(
            self._stack, command, log, stdout=subprocess.PIPE, environment=self._environment
        )
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], _READY_SECONDS)
        line = self._process.stdout.readline() if readable else b""
        seconds = time.perf_counter() - started
        ready = _READY.match(line)
        if ready is None:
            raise BenchError(f"the service is not ready: {line.decode(errors='replace')} {processes.last_lines(log)}")
        self.port = int(ready[1])
        self._refuse_without_token()
        return seconds

    def _refuse_without_token(self) -> None:
        """Raises BenchError unless a request without a token is refused. Otherwise no authorization is measured."""
        status, _ = exchange(self.port, http_request("GET", f"/kv/{key(0)}", {"Host": f"127.0.0.1:{self.port}"}))
        if status != 401:
            raise BenchError(f"the service answered a request without a token with {status}")

    def stop(self) -> None:
        processes.stop(self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def memory(self) -> Memory:
        return memory_of(self._process.pid)

    def headers(self) -> Mapping[str, str]:
        return {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Bearer {self._token}"}

    def get(self, name: str) -> bytes:
        return http_request("GET", f"/kv/{name}", self.headers())

    def put(self, name: str, text: bytes) -> bytes:
        return http_request("POST", f"/kv/{name}", self._json_headers(), text)

    def value_in(self, answer: bytes) -> bytes:
        return bytes(msgspec.json.decode(answer, type=EntryAnswer).value)

    def request(self, work: Work, name: str, rng: random.Random) -> bytes:
        """`name` is not used for several puts: they have keys of their own."""
        if work not in (Work.TRANSACTION, Work.PIPELINED):
            return super().request(work, name, rng)
        puts = [(key(number), value(rng)) for number in rng.sample(range(self.key_count), PUTS)]
        if work is Work.PIPELINED:
            return b"".join(self.put(each, text) for each, text in puts)
        do = b",".join(b'{"op":"put","key":"%b","value":%b}' % (each.encode(), text) for each, text in puts)
        return http_request("POST", "/txn", self._json_headers(), b'{"do":[%b]}' % do)

    def run(self, work: Work, *, connections: int, seconds: int, seed: int) -> Load:
        load = super().run(work, connections=connections, seconds=seconds, seed=seed)
        if work is not Work.PIPELINED:
            return load
        # wrk counts each of the puts, and its percentiles are wrong if several answers are due at once.
        rate = load.operations_per_second / PUTS
        return msgspec.structs.replace(load, operations_per_second=rate, p50_ms=0.0, p99_ms=0.0)

    def watched(self) -> Watched:
        return Watched(
            watch=http_request("GET", "/watch?prefix=k", self.headers()),
            ready=b"\nevent: ready\n",
            event=b"\nevent: put\n",
            publish=self.put,
            shown=lambda text: text,
        )

    def _json_headers(self) -> Mapping[str, str]:
        return {**self.headers(), **_JSON}

    def lockers(self, names: Sequence[str]) -> list[Locker]:
        headers = self._json_headers()
        asked = b'{"ttl":%d}' % LEASE_SECONDS
        return [Locker(_acquire(name, headers, asked), partial(_release, name, headers)) for name in names]


class SmallLeasehold(Leasehold):
    """The service with the keys that every side has."""

    def __init__(self, stack: ExitStack, folder: Path, program: Sequence[str]) -> None:
        super().__init__(stack, folder, program)
        self.start()
        self.fill()


class CalledLeasehold(SmallLeasehold):
    """The service with callers in Python. `callers`: for each kind of load."""

    def __init__(self, stack: ExitStack, folder: Path, python: Interpreter, callers: Mapping[Work, Caller]) -> None:
        super().__init__(stack, folder, python.service)
        self._python = python.python
        self._callers = callers

    def run(self, work: Work, *, connections: int, seconds: int, seed: int) -> Load:
        """`connections` is 1."""
        assert connections == 1
        return run_caller(self._python, self._callers[work], self.port, self._token, seconds=seconds, seed=seed)


class LargeLeasehold(Leasehold):
    """The service with `key_count` keys, imported from a plain JSON file; started again after the import."""

    def __init__(self, stack: ExitStack, folder: Path, program: Sequence[str], *, key_count: int, starts: int) -> None:
        super().__init__(stack, folder, program)
        self.key_count = key_count
        last_value = write_foreign_store(folder / "data.json", key_count, random.Random(4))
        self.take_over_seconds = self.start()
        self.start_seconds: list[float] = []
        for _ in range(starts):
            self.stop()
            self.start_seconds.append(self.start())
        self._expect(key(key_count - 1), last_value)
        self.memory_at_start = self.memory()


class LeaseholdOnPostgreSQL(Leasehold):
    """The service with its own database, and the keys that every side has."""

    def __init__(
        self, stack: ExitStack, folder: Path, program: Sequence[str], server: PostgreSQL, *, workers: int = 1
    ) -> None:
        self.url = server.create(folder.name)
        super().__init__(stack, folder, program, store=self.url, workers=workers)
        self.start()
        self.fill()


class PairOnPostgreSQL(LeaseholdOnPostgreSQL):
    """Two servers on one database. A load has so many connections to each of them, at the same time."""

    def __init__(self, stack: ExitStack, folder: Path, program: Sequence[str], server: PostgreSQL) -> None:
        super().__init__(stack, folder, program, server)
        of_other = folder / "other"
        of_other.mkdir()
        self._other = Leasehold(stack, of_other, program, store=self.url)
        self._other.start()

    def run(self, work: Work, *, connections: int, seconds: int, seed: int) -> Load:
        """The latencies are the larger ones of the two."""
        for server in (self, self._other):
            server.prepared(work)  # before both loads, so that they begin together
        with ThreadPoolExecutor(1) as pool:
            others = pool.submit(self._other.run, work, connections=connections, seconds=seconds, seed=seed + 1)
            first = super().run(work, connections=connections, seconds=seconds, seed=seed)
            second = others.result()
        return Load(
            first.operations_per_second + second.operations_per_second,
            max(first.p50_ms, second.p50_ms),
            max(first.p99_ms, second.p99_ms),
            (first.client_share or 0.0) + (second.client_share or 0.0),
        )


class RelayedLeasehold(Leasehold):
    """The service with one large document in a database that it reaches through a relay, which counts the traffic."""

    def __init__(self, stack: ExitStack, folder: Path, program: Sequence[str], server: PostgreSQL) -> None:
        self._relay = Relay(stack, server.port)
        url = server.create(folder.name).replace(f":{server.port}/", f":{self._relay.port}/")
        super().__init__(stack, folder, program, store=url)
        self.start()
        self.whole = self._count(self.put("doc", document(MIB, part=_FIRST_PART)))
        if self.whole.sent < MIB:
            raise BenchError("the service does not reach its database through the relay")

    def update(self, number: int) -> Traffic:
        """Do the partial update `number`. Returns its traffic with the database."""
        place, part = f"doc?path={_PART}", b"%d" % (_FIRST_PART + number)
        traffic = self._count(self.put(place, part))
        self._expect(place, part)
        return traffic

    def _count(self, request: bytes) -> Traffic:
        before = self._relay.traffic()
        self.succeed(request)
        after = self._relay.traffic()
        return Traffic(after.sent - before.sent, after.received - before.received)


class _Lock(msgspec.Struct):
    waiters: int


class _LocksAnswer(msgspec.Struct):
    locks: list[_Lock]


class AwaitedLeasehold(Leasehold):
    """The service with locks that are held for long, and enough connections for clients that wait for them."""

    def __init__(self, stack: ExitStack, folder: Path, program: Sequence[str]) -> None:
        most = str(WAITERS + _SPARE_CONNECTIONS)
        names = ("LEASEHOLD_MAX_CONNECTIONS", "LEASEHOLD_MAX_CONNECTIONS_PER_ADDRESS")
        super().__init__(stack, folder, program, environment=dict.fromkeys(names, most))
        self.start()
        for name in map(lock, range(AWAITED_LOCKS)):
            self.succeed(_acquire(name, self._json_headers(), _HOLD))

    def idle_percent(self) -> float:
        """Processor time as a percentage of one core, while WAITERS requests wait and nothing else happens."""
        headers = self._json_headers()
        requests = [_acquire(lock(number % AWAITED_LOCKS), headers, _WAIT) for number in range(WAITERS)]
        with waiting(self.port, requests):
            self._see_all_wait()
            began, before = time.perf_counter(), cpu_seconds(self._process.pid)
            time.sleep(_IDLE_SECONDS)
            taken = cpu_seconds(self._process.pid) - before
            return 100 * taken / (time.perf_counter() - began)

    def _see_all_wait(self) -> None:
        deadline = time.monotonic() + _QUEUE_SECONDS
        asked = http_request("GET", "/locks", self.headers())
        while True:
            answer = msgspec.json.decode(self.succeed(asked), type=_LocksAnswer)
            if (count := sum(each.waiters for each in answer.locks)) == WAITERS:
                return
            if time.monotonic() > deadline:
                raise BenchError(f"only {count:,} wait")
            time.sleep(SETTLE_SECONDS)
