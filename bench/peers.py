"""The peers: each starts its program, builds requests for it, and parses its answers.

A peer is configured for speed as its authors recommend, with the durability of the service: a write is on disk before
its answer. PostgreSQL, which does not speak HTTP, is in `postgresql.py`.
"""

import base64
import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from bench import processes
from bench.connections import raise_descriptor_limit
from bench.locking import LEASE_SECONDS, Locker
from bench.processes import BenchError, exchange
from bench.service import EntryAnswer
from bench.sides import SETTLE_SECONDS, LockStore, Server, Store
from bench.watching import Watched
from bench.workload import Work, http_request, key, value

_WATCHERS: Final = 1_000
"""The most of one row. webdis has two connections for each of them."""


class _GetAnswer(msgspec.Struct):
    GET: str


class Webdis(Store):
    """webdis in front of a redis that syncs every batch of writes. Both have Debian's configuration, except for logs.

    Also tried: 1 to 4 threads of webdis, 1, 4 or 20 connections of each to redis, and a Unix socket between them. None
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
        raise_descriptor_limit(2 * _WATCHERS)
        settings = {"redis_host": "127.0.0.1", "redis_port": redis, "http_host": "127.0.0.1", "http_port": self.port}
        settings |= {"threads": 2, "daemonize": False, "database": 0, "verbosity": 0, "logfile": os.devnull}
        file = folder / "webdis.json"
        file.write_bytes(msgspec.json.encode(settings))
        process = processes.start(stack, [processes.program("webdis"), str(file)], log)
        asked = http_request("GET", "/PING", {"Host": f"127.0.0.1:{self.port}"})
        processes.wait_until(lambda: exchange(self.port, asked)[0] == 200, process, log)
        self.fill()

    def verify(self, rng: random.Random) -> None:
        """Like on the other sides, but a few wrong answers are tolerated.

        webdis 0.1.9 may send a new connection the answer for an earlier connection that was cut off. wrk cuts off all
        its connections.
        """
        for _ in range(self._FORGIVEN):
            try:
                return super().verify(rng)
            except BenchError:
                time.sleep(SETTLE_SECONDS)
        return super().verify(rng)

    def get(self, name: str) -> bytes:
        return http_request("GET", f"/GET/{name}", {"Host": "127.0.0.1"})

    def put(self, name: str, text: bytes) -> bytes:
        return http_request("PUT", f"/SET/{name}", {"Host": "127.0.0.1"}, text)

    def watched(self) -> Watched:
        """A channel of redis. Unlike a watch, it keeps nothing: a subscriber that is not connected misses messages."""
        headers = {"Host": "127.0.0.1"}
        return Watched(
            watch=http_request("GET", "/SUBSCRIBE/k", headers),
            ready=b'"subscribe"',
            event=b'"message"',
            publish=lambda _, text: http_request("PUT", "/PUBLISH/k", headers, text),
            shown=lambda text: msgspec.json.encode(text.decode()),
        )

    def value_in(self, answer: bytes) -> bytes:
        return msgspec.json.decode(answer, type=_GetAnswer).GET.encode()


class _EtcdPair(msgspec.Struct):
    value: str


class _RangeAnswer(msgspec.Struct):
    kvs: list[_EtcdPair]


class _GrantAnswer(msgspec.Struct):
    ID: str


class _LockAnswer(msgspec.Struct):
    key: str


class Etcd(LockStore):
    """etcd as a cluster of one, with its default settings, through its HTTP gateway."""

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

    def watched(self) -> Watched:
        # The keys that begin with "k": up to the next letter.
        asked = (base64.b64encode(b"k"), base64.b64encode(b"l"))
        return Watched(
            watch=http_request(
                "POST", "/v3/watch", self._headers(), b'{"create_request":{"key":"%b","range_end":"%b"}}' % asked
            ),
            ready=b'"created":true',
            event=b'"kv":{',
            publish=self.put,
            shown=base64.b64encode,
        )

    def lockers(self, names: Sequence[str]) -> list[Locker]:
        """Clients of etcd's lock service. Each has a lease, granted once, under which it locks and unlocks."""
        return [Locker(self._lock(name, self._grant()), self._unlock) for name in names]

    def _grant(self) -> str:
        request = http_request("POST", "/v3/lease/grant", self._headers(), b'{"TTL":%d}' % LEASE_SECONDS)
        return msgspec.json.decode(self.succeed(request), type=_GrantAnswer).ID

    def _lock(self, name: str, lease: str) -> bytes:
        asked = (base64.b64encode(name.encode()), lease.encode())
        return http_request("POST", "/v3/lock/lock", self._headers(), b'{"name":"%b","lease":"%b"}' % asked)

    def _unlock(self, answer: bytes) -> bytes:
        held = msgspec.json.decode(answer, type=_LockAnswer).key
        return http_request("POST", "/v3/lock/unlock", self._headers(), b'{"key":"%b"}' % held.encode())

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
    """Static files: the speed of an HTTP server in C that does no other work. It has no writes."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        super().__init__(folder)
        self.port, log = processes.free_port(), folder / "log"
        (folder / "files").mkdir()
        self.fill()
        user = "user root;" if os.geteuid() == 0 else ""  # the worker process could not enter the folder otherwise
        (folder / "nginx.conf").write_text(_NGINX_SETTINGS.format(port=self.port, user=user))
        command = [processes.program("nginx"), "-p", f"{folder}/", "-c", "nginx.conf"]
        process = processes.start(stack, command, log)
        processes.wait_until(lambda: exchange(self.port, self.get(key(0)))[0] == 200, process, log)

    def fill(self) -> None:
        """Files as long as the answers of the service for the same keys and values."""
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

    def request(self, work: Work, name: str, rng: random.Random) -> bytes:  # noqa: ARG002 - a file has no new value
        if work is not Work.GET:
            raise BenchError("nginx only serves files")
        return self.get(name)

    def value_in(self, answer: bytes) -> bytes:
        return bytes(msgspec.json.decode(answer, type=EntryAnswer).value)
