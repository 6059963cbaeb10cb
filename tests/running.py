"""A real server in its own process, for tests that use it over HTTP (`Server`) or byte by byte (`Wire`).

Every answer to `Server.request` is checked against the description of the service (`contract`).
"""

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import forked
import httpx
from contract import IN_NAMESPACE, Contract
from forked import PROGRAM, ForkedProcess
from lean_client import LeanClient

START_SECONDS = 120.0
ANSWER_SECONDS = 60.0
"""Longer than any start or answer takes, also on a machine with eight times its load. A test that waits this long
fails."""


def clean_environment() -> dict[str, str]:
    """The environment of this process without settings of the service, of OpenTelemetry or of Terraform, and without
    the variables of `make test`.

    A `make` in a test would otherwise take these for its own: `ARGS="-k journal"` is not an option of the service.
    """
    foreign = ("LEASEHOLD_", "OTEL_", "TF_", "MAKE")
    of_make = {"MFLAGS", "ARGS", "PYTHON", "PYTHONS", "MINUTES", "SEED", "ROWS"}
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign) and name not in of_make}


def http_client(url: str) -> httpx.Client:
    return LeanClient(url, timeout=ANSWER_SECONDS)


@functools.lru_cache(maxsize=16)
def _contract(description: bytes) -> Contract:
    """Most services describe themselves in the same words. Whoever changes the document makes a copy of it."""
    return Contract(json.loads(description))


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """Reserve a TCP port of 127.0.0.1 for a server: `with free_port() as port`.

    No other program gets the port meanwhile, not even between a stop and a start of the server: a socket is bound to it
    that does not listen. SO_REUSEADDR on both sockets, which servers set, lets the server listen all the same.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def run_to_end(
    *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command that ends by itself. `environment` adds variables."""
    variables = clean_environment() | dict(environment or {})
    if forked.may_run(PROGRAM, environment or {}):
        return forked.run(arguments, stdin=stdin, environment=variables, seconds=START_SECONDS)
    return subprocess.run(
        [sys.executable, *PROGRAM, *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=START_SECONDS,
        env=variables,
    )


def leasehold(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The same, with its output as text."""
    done = run_to_end(*arguments, environment=environment)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Server:
    """`leasehold serve` on a free port. The end of the `with` block stops it with SIGTERM.

    `store` is a path, a URL, or `memory:`; None omits the flag. `environment` adds variables (`LEASEHOLD_…`) and
    `arguments` adds flags. `folder` is the working directory. `program`: what Python runs instead of the installed
    command.
    """

    def __init__(
        self,
        store: str | Path | None = "memory:",
        *,
        environment: Mapping[str, str] | None = None,
        log_level: str = "info",
        arguments: Sequence[str] = (),
        folder: Path | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._program = program
        self.store = "data.json" if store is None else str(store)
        self._arguments = [*([] if store is None else [f"--store={store}"]), f"--log-level={log_level}", *arguments]
        self._environment = dict(environment or {})
        self._folder = folder
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__()
        self.process: subprocess.Popen[str] | ForkedProcess | None = None
        self.url = ""
        self.ready_line = ""
        self.client = http_client("")
        self.contract = Contract({})

    def start(self) -> Self:
        # A port in the environment is under test, so no flag may override it.
        port = [] if "LEASEHOLD_PORT" in self._environment else ["--port=0"]
        words = ["serve", *port, *self._arguments]
        environment = clean_environment() | self._environment
        if forked.may_run(self._program, self._environment):
            self.process = forked.start_service(
                self._program, words, errors=self._log, environment=environment, folder=self._folder
            )
        else:
            self.process = subprocess.Popen(
                [sys.executable, *self._program, *words],
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env=environment,
                cwd=self._folder,
            )
        assert self.process.stdout is not None
        self.ready_line = self.process.stdout.readline().rstrip("\n")
        if not self.ready_line:
            code = self.process.wait(START_SECONDS)
            raise AssertionError(f"the server did not start (exit {code}): {self.log()}")
        self.url = self.ready_line.split()[3]
        self.client.close()
        self.client = http_client(self.url)
        self.contract = _contract(self.client.get("/openapi.json", headers={"Connection": "close"}).content)
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def address(self) -> tuple[str, int]:
        """The address, for raw sockets."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def log(self) -> str:
        """What the server has written to standard error so far."""
        position = self._log.tell()
        self._log.seek(0)
        text = self._log.read()
        self._log.seek(position)
        return text

    def kill(self) -> None:
        """Kill with SIGKILL, and wait until the process has ended."""
        self._end(signal.SIGKILL)

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send SIGTERM, or SIGINT. Returns the exit code."""
        return self._end(number)

    def restart(self) -> Self:
        """Kill with SIGKILL and start again on the same store."""
        self.kill()
        return self.start()

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(START_SECONDS)
        finally:
            self._leave_nothing()

    def _leave_nothing(self) -> None:
        """End the process if the test did not, so that none outlives its test."""
        self.client.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self._leave_nothing()
            self._log.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.process is not None and self.process.poll() is None:
                self.terminate()
        finally:
            self._leave_nothing()
            self._log.close()

    # Short forms ----------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The first events of a watch stand for its response, which does not end."""
        if method == "GET" and IN_NAMESPACE.sub("", path.partition("?")[0], count=1) == "/watch":
            response = self._watched(path, options)
        else:
            response = self.client.request(method, path, **options)
        self.contract.check(response)
        return response

    def _watched(self, path: str, options: Mapping[str, Any]) -> httpx.Response:
        with self.client.stream("GET", path, **options) as response:
            if response.status_code != 200:
                response.read()
                return response
            first = next(response.iter_raw())
        headers = {name: text for name, text in response.headers.items() if name != "transfer-encoding"}
        return httpx.Response(200, headers=headers, content=first, request=response.request)

    def put(self, key: str, body: str, **options: Any) -> httpx.Response:
        """POST a JSON text to `/kv/{key}`. `key` is used in the URL unchanged."""
        return self.request("POST", f"/kv/{key}", content=body.encode(), **options)

    def get(self, key: str, **options: Any) -> httpx.Response:
        return self.request("GET", f"/kv/{key}", **options)

    def patch(self, key: str, body: str, *, kind: str = "merge-patch", **options: Any) -> httpx.Response:
        """PATCH with a JSON text; `kind` is `merge-patch` or `json-patch`."""
        headers = {"Content-Type": f"application/{kind}+json"} | options.pop("headers", {})
        return self.request("PATCH", f"/kv/{key}", content=body.encode(), headers=headers, **options)

    def delete(self, key: str, **options: Any) -> httpx.Response:
        return self.request("DELETE", f"/kv/{key}", **options)

    def value(self, key: str) -> Any:
        """The value at `key`, which must exist."""
        response = self.get(key)
        assert response.status_code == 200, response.text
        return response.json()["value"]

    def acquire(self, lock: str, **asked: Any) -> httpx.Response:
        """POST to `/locks/{lock}`. `asked`: the members of the body. Does not wait unless it asks for that."""
        return self.request("POST", f"/locks/{lock}", json={"wait": 0} | asked)

    def lease(self, lock: str, **asked: Any) -> Any:
        """Acquire a free lock. Returns the lease."""
        response = self.acquire(lock, **asked)
        assert response.status_code == 201, response.text
        return response.json()

    def renew(self, lock: str, lease_id: str, **asked: Any) -> httpx.Response:
        return self.request("PUT", f"/locks/{lock}", json={"lease_id": lease_id} | asked)

    def release(self, lock: str, lease_id: str) -> httpx.Response:
        return self.request("DELETE", f"/locks/{lock}", json={"lease_id": lease_id})

    def holder(self, lock: str) -> httpx.Response:
        return self.request("GET", f"/locks/{lock}")

    def is_free(self, lock: str) -> bool:
        return self.holder(lock).status_code == 404

    def waiters(self, lock: str) -> int:
        """How many requests wait for a lock that is held."""
        response = self.holder(lock)
        assert response.status_code == 200, response.text
        waiters = response.json()["waiters"]
        assert isinstance(waiters, int)
        return waiters

    def revision(self) -> int:
        """The head of the store."""
        revision = self.request("GET", "/health").json()["revision"]
        assert isinstance(revision, int)
        return revision


def tag_of(server: Server, revision: int, representation: str = "") -> str:
    """The ETag of a revision: `"42.5f3a9c"`. `representation` is `-raw`, `-msgpack` or both."""
    incarnation = server.request("GET", "/health").json()["incarnation"]
    return f'"{revision}.{incarnation}{representation}"'


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error: `(404, "not_found")`."""
    return response.status_code, response.json()["error"]


@contextlib.contextmanager
def running(store: str | Path | None = "memory:", **options: Any) -> Iterator[Server]:
    with Server(store, **options) as server:
        yield server


def until(condition: Any, *, seconds: float = ANSWER_SECONDS) -> None:
    """Wait for an effect of another process. Fails if it does not come in time.

    What takes longer is asked for less often, because a question also takes time of a processor.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError("the awaited condition did not become true in time")
        time.sleep(min(max(0.01, waited / 10), 0.1))


# Byte by byte -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A response as received. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def refusal(self) -> tuple[int, str]:
        """Like `refusal` of a response."""
        return self.status, json.loads(self.body)["error"]

    @property
    def value(self) -> Any:
        return json.loads(self.body)["value"]


def message(method: str, target: str, *fields: str, body: bytes | None = None, version: str = "HTTP/1.1") -> bytes:
    """A request as bytes, with a Host header. A `body` gets its Content-Length."""
    lines = [f"{method} {target} {version}", "Host: localhost", *fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class Ended(ConnectionError):  # noqa: N818 - not always an error: some tests expect it
    """The server ended the connection before the answer was complete."""


class Listening(Protocol):
    """What a `Wire` connects to: a server, or a proxy in front of one."""

    @property
    def address(self) -> tuple[str, int]: ...


class Wire:
    """One TCP connection to a server. The `with` block closes it."""

    def __init__(self, server: Listening, *, receive_buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(ANSWER_SECONDS)
        try:
            self.socket.connect(server.address)
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = self.socket.makefile("rb")

    def send(self, *parts: bytes) -> Self:
        self.socket.sendall(b"".join(parts))
        return self

    def end_sending(self) -> Self:
        """Close the sending direction."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def answer(self, *, to: str = "GET") -> Answer:
        """The next response; `to` is the method of its request. Interim responses (100) are returned, too."""
        head = self.head()
        return replace(head, body=self._body(to, head.status, head.headers))

    def head(self) -> Answer:
        """The head of the next response, without its body."""
        status_line = self._received.readline()
        if not status_line.endswith(b"\r\n"):
            raise Ended("the connection ended before the answer")
        assert status_line.startswith(b"HTTP/1.1 "), status_line
        status = int(status_line.split()[1])
        headers: dict[str, str] = {}
        while (line := self._line()) != b"":
            name, _, content = line.decode("latin-1").partition(":")
            assert name.lower() not in headers, f"{name} came twice"
            headers[name.lower()] = content.strip()
        return Answer(status, headers, b"")

    def _body(self, method: str, status: int, headers: Mapping[str, str]) -> bytes:
        if method == "HEAD" or status in (100, 204, 304):
            return b""
        if headers.get("transfer-encoding") == "chunked":
            return b"".join(self._chunks())
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        return self._received.read()

    def _chunks(self) -> Iterator[bytes]:
        while (chunk := self.chunk()) != b"":
            yield chunk

    def chunk(self) -> bytes:
        """The next chunk of a chunked body. The last one is empty."""
        size = int(self._line(), 16)
        chunk = self._exactly(size)
        assert self._line() == b""
        return chunk

    def _line(self) -> bytes:
        line = self._received.readline()
        if not line.endswith(b"\r\n"):
            raise Ended("the connection ended in the middle of an answer")
        return line[:-2]

    def _exactly(self, size: int) -> bytes:
        data = self._received.read(size)
        if len(data) < size:
            raise Ended("the connection ended in the middle of an answer")
        return data

    def rest(self) -> bytes:
        """Everything that comes until the server closes."""
        return self._received.read()

    def is_closed(self) -> bool:
        """Wait for the end of the connection. True if the server closed it in order and sent nothing more."""
        return self.rest() == b""

    def is_cut(self) -> bool:
        """Wait for the end of the connection, in order or by a reset. True if nothing more was sent."""
        try:
            return self.rest() == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._received.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
