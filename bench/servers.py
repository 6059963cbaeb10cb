"""The sides of a comparison: each starts its program, says how a request to it looks, and what its answer holds.

A peer is set up as its makers would for speed, with the same durability as the service: a write is on the disk before
its answer. To add a side, add a class here and its name to `SERVERS`.
"""

import base64
import os
import random
import re
import secrets
import select
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from bench import processes, rows
from bench.load import Load, run_wrk
from bench.machine import Memory, memory_of
from bench.processes import BenchError, exchange
from bench.workload import (
    REQUESTS,
    SMALL_STORE_KEYS,
    Work,
    http_request,
    key,
    value,
    write_foreign_store,
    write_requests,
)
from leasehold.auth import PERMISSIONS, mint

_READY_SECONDS: Final = 120.0
_SETTLE_SECONDS: Final = 0.3
"""Between two loads: wrk leaves with requests under way."""
_READY: Final = re.compile(rb"leasehold ready on http://127\.0\.0\.1:(\d+) ")
_JSON: Final = {"Content-Type": "application/json"}
_TOKEN_SECONDS: Final = 24 * 3600.0


class Server(ABC):
    """A running program that can be asked for keys. Its end is left to the exit stack given to the constructor."""

    key_count = SMALL_STORE_KEYS
    port: int

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._requests: dict[Work, Path] = {}

    @abstractmethod
    def get(self, name: str) -> bytes:
        """The request that reads the key `name`."""

    @abstractmethod
    def value_in(self, answer: bytes) -> bytes:
        """The JSON text of the value in the body that answered a `get`."""

    @abstractmethod
    def request(self, work: Work, rng: random.Random) -> bytes:
        """A request of this kind for a key drawn at random."""

    @abstractmethod
    def verify(self, rng: random.Random) -> None:
        """Raises BenchError unless a value is read as it should be, and stored before that where this side stores."""

    def load(self, work: Work, *, connections: int, seconds: int, seed: int) -> Load:
        """Checks the answers, then runs the load. Raises BenchError if any answer was not what it should be."""
        time.sleep(_SETTLE_SECONDS)
        self.verify(random.Random(seed))
        requests = self._requests.get(work) or self._prepare(work)
        return run_wrk(self.port, requests, connections=connections, seconds=seconds, seed=seed)

    def _expect(self, name: str, text: bytes) -> None:
        answer = self._succeed(self.get(name))
        try:
            found = self.value_in(answer)
        except msgspec.MsgspecError as error:
            raise BenchError(f"an answer that is not understood: {answer[:200]!r}") from error
        if found != text:
            raise BenchError(f"wrote {text!r}, read {found!r}")

    def _succeed(self, request: bytes) -> bytes:
        status, body = exchange(self.port, request)
        if status not in {200, 201}:
            raise BenchError(f"{request[:60]!r} was answered with {status} {body[:200]!r}")
        return body

    def _prepare(self, work: Work) -> Path:
        rng = random.Random(3)
        path = self._requests[work] = self.folder / f"requests-{work}"
        write_requests(path, (self.request(work, rng) for _ in range(REQUESTS)))
        return path


class Store(Server):
    """A side that can also be written to."""

    @abstractmethod
    def put(self, name: str, text: bytes) -> bytes:
        """The request that writes the JSON `text` under the key `name`."""

    def request(self, work: Work, rng: random.Random) -> bytes:
        name = key(rng.randrange(self.key_count))
        return self.get(name) if work is Work.GET else self.put(name, value(rng))

    def verify(self, rng: random.Random) -> None:
        name, text = key(rng.randrange(self.key_count)), value(rng)
        self._succeed(self.put(name, text))
        self._expect(name, text)

    def fill(self) -> None:
        rng = random.Random(2)
        for number in range(self.key_count):
            self._succeed(self.put(key(number), value(rng)))


class _EntryAnswer(msgspec.Struct):
    value: msgspec.Raw


class Leasehold(Store):
    """The service as `leasehold serve` starts it, with its file engine. Every request bears a token."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        super().__init__(folder)
        self._stack = stack
        secret = secrets.token_hex(32).encode()
        self._secret_file = folder / "secret"
        self._secret_file.touch(mode=0o600)
        self._secret_file.write_bytes(secret)
        self._token = mint(
            secret, "bench", PERMISSIONS, prefixes=None, now=time.time(), lifetime_seconds=_TOKEN_SECONDS
        )

    def start(self) -> float:
        """Starts the service on the store in `folder`; the seconds from the start of the program to its ready line."""
        log, started = self.folder / "log", time.perf_counter()
        command = [processes.program("leasehold"), "serve", "--port", "0", "--store", str(self.folder / "data.json")]
        command += ["--auth-secret-file", str(self._secret_file)]
        self._process = processes.start(self._stack, command, log, stdout=subprocess.PIPE)
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
        """Raises BenchError if tokens do not count, for then the figures would be those of another job."""
        status, _ = exchange(self.port, http_request("GET", f"/kv/{key(0)}", {"Host": f"127.0.0.1:{self.port}"}))
        if status != 401:
            raise BenchError(f"the service answered a request without a token with {status}")

    def stop(self) -> None:
        processes.stop(self._process)

    def memory(self) -> Memory:
        return memory_of(self._process.pid)

    def headers(self) -> Mapping[str, str]:
        return {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Bearer {self._token}"}

    def get(self, name: str) -> bytes:
        return http_request("GET", f"/kv/{name}", self.headers())

    def put(self, name: str, text: bytes) -> bytes:
        return http_request("POST", f"/kv/{name}", {**self.headers(), **_JSON}, text)

    def value_in(self, answer: bytes) -> bytes:
        return bytes(msgspec.json.decode(answer, type=_EntryAnswer).value)


class SmallLeasehold(Leasehold):
    """The service with the keys that every side has."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        super().__init__(stack, folder)
        self.start()
        self.fill()


class LargeLeasehold(Leasehold):
    """The service with `key_count` keys, taken over from a plain JSON file and then started again."""

    def __init__(self, stack: ExitStack, folder: Path, *, key_count: int, starts: int) -> None:
        super().__init__(stack, folder)
        self.key_count = key_count
        last_value = write_foreign_store(folder / "data.json", key_count, random.Random(4))
        self.take_over_seconds = self.start()
        self.start_seconds: list[float] = []
        for _ in range(starts):
            self.stop()
            self.start_seconds.append(self.start())
        self._expect(key(key_count - 1), last_value)
        self.memory_at_start = self.memory()


class _GetAnswer(msgspec.Struct):
    GET: str


class Webdis(Store):
    """webdis in front of a redis that syncs every batch of writes, both as Debian ships them but for their logs.

    Tried beside it: 1 to 4 threads of webdis, 1, 4 or 20 connections of each to redis, a Unix socket between them. None
    was faster by more than the noise of a run.
    """

    _FORGIVEN: ClassVar = 4

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        super().__init__(folder)
        redis, self.port, log = processes.free_port(), processes.free_port(), folder / "log"
        command = [processes.program("redis-server"), "--port", str(redis), "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--loglevel", "warning"]
        process = processes.start(stack, command, log)
        processes.wait_until(lambda: processes.listens(redis), process, log)
        settings = {"redis_host": "127.0.0.1", "redis_port": redis, "http_host": "127.0.0.1", "http_port": self.port}
        settings |= {"threads": 2, "daemonize": False, "database": 0, "verbosity": 0, "logfile": os.devnull}
        file = folder / "webdis.json"
        file.write_bytes(msgspec.json.encode(settings))
        process = processes.start(stack, [processes.program("webdis"), str(file)], log)
        asked = http_request("GET", "/PING", {"Host": f"127.0.0.1:{self.port}"})
        processes.wait_until(lambda: exchange(self.port, asked)[0] == 200, process, log)
        self.fill()

    def verify(self, rng: random.Random) -> None:
        """Like the other sides, but a wrong answer is forgiven a few times.

        webdis 0.1.9 may answer a new connection with what it owes to one that was cut off, as wrk cuts all of its own.
        """
        for _ in range(self._FORGIVEN):
            try:
                return super().verify(rng)
            except BenchError:
                time.sleep(_SETTLE_SECONDS)
        return super().verify(rng)

    def get(self, name: str) -> bytes:
        return http_request("GET", f"/GET/{name}", {"Host": "127.0.0.1"})

    def put(self, name: str, text: bytes) -> bytes:
        return http_request("PUT", f"/SET/{name}", {"Host": "127.0.0.1"}, text)

    def value_in(self, answer: bytes) -> bytes:
        return msgspec.json.decode(answer, type=_GetAnswer).GET.encode()


class _EtcdPair(msgspec.Struct):
    value: str


class _RangeAnswer(msgspec.Struct):
    kvs: list[_EtcdPair]


class Etcd(Store):
    """One etcd, alone in its cluster, with its defaults, asked through its HTTP gateway."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        super().__init__(folder)
        self.port, log = processes.free_port(), folder / "log"
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{processes.free_port()}"
        command = [processes.program("etcd"), "--data-dir", str(folder / "data"), "--log-level", "error"]
        command += ["--logger", "zap", "--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", f"default={peer}"]
        process = processes.start(stack, command, log)
        asked = http_request("GET", "/health", self._headers())
        processes.wait_until(lambda: b'"true"' in exchange(self.port, asked)[1], process, log)
        self.fill()

    def _headers(self) -> Mapping[str, str]:
        return {"Host": f"127.0.0.1:{self.port}"}

    def get(self, name: str) -> bytes:
        return http_request("POST", "/v3/kv/range", self._headers(), b'{"key":"%b"}' % base64.b64encode(name.encode()))

    def put(self, name: str, text: bytes) -> bytes:
        pair = (base64.b64encode(name.encode()), base64.b64encode(text))
        return http_request("POST", "/v3/kv/put", self._headers(), b'{"key":"%b","value":"%b"}' % pair)

    def value_in(self, answer: bytes) -> bytes:
        return base64.b64decode(msgspec.json.decode(answer, type=_RangeAnswer).kvs[0].value)


_NGINX_SETTINGS: Final = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit; {user}
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; default_type application/json;
    open_file_cache max=10000 inactive=1h; open_file_cache_valid 1h;
    sendfile off; # faster for files of this size
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{ listen 127.0.0.1:{port}; root files; }}
}}
"""


class Nginx(Server):
    """Static files: what an HTTP server written in C does when there is nothing to do. It cannot be written to."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        super().__init__(folder)
        self.port, log = processes.free_port(), folder / "log"
        (folder / "files").mkdir()
        self.fill()
        user = "user root;" if os.geteuid() == 0 else ""  # else the worker could not enter the folder
        (folder / "nginx.conf").write_text(_NGINX_SETTINGS.format(port=self.port, user=user))
        command = [processes.program("nginx"), "-p", f"{folder}/", "-c", "nginx.conf"]
        process = processes.start(stack, command, log)
        processes.wait_until(lambda: exchange(self.port, self.get(key(0)))[0] == 200, process, log)

    def fill(self) -> None:
        """Files as long as the answers of the service to the same keys and values."""
        rng = random.Random(2)
        for name in map(key, range(self.key_count)):
            times = b'"created_at":"2026-01-31T12:00:00.000001Z","updated_at":"2026-01-31T12:00:00.000001Z"'
            entry = b'{"key":"%b","value":%b,"revision":123456,%b}' % (name.encode(), value(rng), times)
            (self.folder / "files" / name).write_bytes(entry)

    def verify(self, rng: random.Random) -> None:
        name = key(rng.randrange(self.key_count))
        self._expect(name, self.value_in((self.folder / "files" / name).read_bytes()))

    def get(self, name: str) -> bytes:
        return http_request("GET", f"/{name}", {"Host": "127.0.0.1"})

    def request(self, work: Work, rng: random.Random) -> bytes:
        if work is not Work.GET:
            raise BenchError("nginx only serves files")
        return self.get(key(rng.randrange(self.key_count)))

    def value_in(self, answer: bytes) -> bytes:
        return bytes(msgspec.json.decode(answer, type=_EntryAnswer).value)


SERVERS: Final[Mapping[str, Callable[[ExitStack, Path], Server]]] = {
    rows.LEASEHOLD: SmallLeasehold,
    rows.WEBDIS: Webdis,
    rows.ETCD: Etcd,
    rows.NGINX: Nginx,
}
