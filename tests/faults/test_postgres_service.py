"""The whole service while its database is away: what callers get meanwhile, and that nothing is lost.

Each client counts in an entry of its own, so that a lost or repeated change shows in the number.
"""

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Self
from urllib.parse import quote

import httpx
import psutil
import pytest
from databases import GUARDED_USER, Database, PostgresServer
from running import Server, Wire, http_client, leasehold, message, refusal, running, until

CLIENTS = 16
SHORT_ABSENCE_SECONDS = 3.0
"""Shorter than the time for which the service retries."""
RECOVERY_SECONDS = 60.0
PASSWORD = "pass/word@of:the?test#%"
ENCODED_PASSWORD = quote(PASSWORD, safe="")
SCHEMA = "schema_of_the_test"
LEAK = re.compile(
    rb"(?i)postgres(?:ql)?:|asyncpg|psycopg|traceback|exception|errno|select |insert |update |commit\b|\bSQL|sqlstate"
    rb"|127\.0\.0\.1|/(?:home|usr|tmp|var|root|src|site-packages)/|\.py\b|relation |column "
)
"""What an answer must not contain: SQL, exceptions, paths, addresses."""

_numbers = count(1)


@pytest.fixture(scope="module")
def database_server() -> Iterator[PostgresServer]:
    """A server for faults. Each test leaves it running."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def guarded_url(database_server: PostgresServer) -> str:
    """The URL of a database whose user needs a password."""
    admin = Database(database_server.url, "public")
    admin.execute(f"CREATE ROLE {GUARDED_USER} LOGIN PASSWORD '{PASSWORD}'")
    admin.execute(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {GUARDED_USER}")
    user = f"{GUARDED_USER}:{ENCODED_PASSWORD}"
    return f"postgresql://{user}@127.0.0.1:{database_server.port}/postgres?search_path={SCHEMA}"


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def service(request: pytest.FixtureRequest, guarded_url: str) -> Iterator[Server]:
    """A running service. At the end it checks that the log and the answers contain no secret."""
    with running(guarded_url, arguments=[f"--workers={request.param}"], log_level="debug") as started:
        yield started
        started.terminate()
        log = started.log()
        assert "Traceback" not in log, log
        assert [line for line in log.splitlines() if is_secret(line)] == []
        assert not is_secret(started.ready_line)


def is_secret(text: str) -> bool:
    return any(secret in text for secret in (PASSWORD, ENCODED_PASSWORD, "word@of", "word%40of"))


@dataclass
class Seen:
    """The answers to one client."""

    key: str
    statuses: list[int] = field(default_factory=list)
    unavailable: list[httpx.Response] = field(default_factory=list)
    slowest_seconds: float = 0.0
    acknowledged: int = 0
    uncertain: int = 0
    """Writes whose answer says that they may or may not have been stored."""


class Load:
    """Clients that read and count all the time, until the `with` block ends."""

    def __init__(self, service: Server) -> None:
        self._service = service
        self._over = threading.Event()
        folder = f"load-{next(_numbers)}"
        self.seen = [Seen(f"{folder}/{number}") for number in range(CLIENTS)]
        self._threads = [threading.Thread(target=self._count, args=(seen,)) for seen in self.seen]
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _count(self, seen: Seen) -> None:
        try:
            with http_client(self._service.url) as client:
                while not self._over.is_set():
                    written = self._ask(client, seen, "PATCH")
                    if written.status_code == 503:
                        seen.uncertain += "may or may not" in written.text
                    else:
                        seen.acknowledged += 1
                    self._ask(client, seen, "GET")
        except Exception as failure:  # noqa: BLE001 - reported by the test
            self.failures.append(repr(failure))

    def _ask(self, client: httpx.Client, seen: Seen, method: str) -> httpx.Response:
        """Append to the client's list, or read it. Its length is the count."""
        began = time.monotonic()
        if method == "GET":
            answer = client.get(f"/kv/{seen.key}")
        else:
            answer = client.post(f"/kv/{seen.key}", params={"path": "/-"}, content=b"1")
        seen.slowest_seconds = max(seen.slowest_seconds, time.monotonic() - began)
        seen.statuses.append(answer.status_code)
        if answer.status_code == 503:
            seen.unavailable.append(answer)
            time.sleep(0.05)  # as clients should, and so that most answers are not refusals
        return answer

    def answers(self) -> int:
        return sum(len(seen.statuses) for seen in self.seen)

    def go_on(self) -> None:
        """Wait until every client has had more answers that are not refusals."""
        before = [seen.acknowledged for seen in self.seen]
        until(
            lambda: all(seen.acknowledged > old + 3 for seen, old in zip(self.seen, before, strict=True)),
            seconds=RECOVERY_SECONDS,
        )


def counts(service: Server, load: Load) -> list[int]:
    return [len(service.value(seen.key)) for seen in load.seen]


# A short outage -----------------------------------------------------------------------------------------------


def test_a_short_outage_of_the_database_only_delays_callers(service: Server, database_server: PostgresServer) -> None:
    with Load(service) as load:
        load.go_on()
        database_server.stop()
        try:
            time.sleep(SHORT_ABSENCE_SECONDS)
        finally:
            database_server.start()
        load.go_on()
    assert load.failures == []
    assert {status for seen in load.seen for status in seen.statuses} == {200, 201}
    assert min(seen.slowest_seconds for seen in load.seen) > SHORT_ABSENCE_SECONDS / 2
    assert counts(service, load) == [seen.acknowledged for seen in load.seen]


# A long outage ------------------------------------------------------------------------------------------------


def test_a_long_outage_of_the_database_is_reported_to_callers_and_the_service_recovers(
    service: Server, database_server: PostgresServer
) -> None:
    with Load(service) as load:
        load.go_on()
        database_server.stop()
        try:
            # Wait until each client has been refused, while the database is still away.
            until(lambda: all(seen.unavailable for seen in load.seen))
            told = [service.request("GET", "/health") for _ in range(3)]
            ready = service.request("GET", "/health/ready")
            live = service.request("GET", "/health/live")
            others = [service.request(method, path, **options) for method, path, options in OTHER_REQUESTS]
        finally:
            database_server.start()
        load.go_on()
    assert load.failures == []
    assert {status for seen in load.seen for status in seen.statuses} == {200, 201, 503}
    for answer in [*others, *(answer for seen in load.seen for answer in seen.unavailable)]:
        assert refusal(answer) == (503, "unavailable"), answer.request
        assert int(answer.headers["Retry-After"]) >= 1
        assert LEAK.search(answer.content) is None, answer.content
    assert live.status_code == 200
    for answer in [*told, ready]:
        assert (answer.status_code, answer.json()["status"]) == (503, "degraded")
        assert int(answer.headers["Retry-After"]) >= 1
        assert LEAK.search(answer.content) is None, answer.content
    until(lambda: {service.request("GET", "/health").status_code for _ in range(4)} == {200})
    for seen, found in zip(load.seen, counts(service, load), strict=True):
        assert seen.acknowledged <= found <= seen.acknowledged + seen.uncertain


OTHER_REQUESTS: list[tuple[str, str, dict[str, object]]] = [
    ("GET", "/kv/some", {}),
    ("GET", "/kv/some?raw", {}),
    ("GET", "/kv?limit=5", {}),
    ("GET", "/kv?limit=5&values=false", {}),
    ("PUT", "/kv/some", {"content": b"1"}),
    ("PUT", "/kv/some?ttl=5", {"content": b"1", "headers": {"If-Match": "*"}}),
    ("PATCH", "/kv/some", {"content": b"1", "headers": {"Content-Type": "application/merge-patch+json"}}),
    ("DELETE", "/kv/some", {}),
    ("POST", "/set", {"json": {"value": 1}}),
    ("GET", "/get/00000000-0000-4000-8000-000000000000", {}),
    ("GET", "/stream/00000000-0000-4000-8000-000000000000", {}),
    ("GET", "/kv", {}),
    ("GET", "/stream?prefix=", {}),
]


# Secrets ------------------------------------------------------------------------------------------------------


def test_the_ready_line_shows_the_store_without_its_password(service: Server, guarded_url: str) -> None:
    shown = guarded_url.replace(ENCODED_PASSWORD, "***")
    assert service.ready_line == f"leasehold ready on {service.url} store {shown}"


def test_no_answer_shows_the_address_of_the_database(service: Server) -> None:
    for path in ("/health", "/health/live", "/metrics", "/openapi.json", "/kv/absent", "/kv?limit=0", "/nowhere"):
        answer = service.request("GET", path)
        for secret in (PASSWORD, GUARDED_USER, SCHEMA, "postgresql://"):
            assert secret not in answer.text, (path, secret)


def test_a_password_in_the_parameters_is_not_shown(guarded_url: str) -> None:
    url = guarded_url.replace(f":{ENCODED_PASSWORD}@", "@") + f"&password={ENCODED_PASSWORD}"
    with running(url) as service:
        assert service.put("by-parameter", "1").status_code in (200, 201)
        assert not is_secret(service.ready_line + service.log())
    assert service.ready_line.endswith("&password=***")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("password", "PostgreSQL refused the user or the password"),
        ("database", "PostgreSQL has no such database"),
        ("host", "nothing listens at the host and port of PostgreSQL"),
    ],
)
def test_a_store_that_cannot_be_opened_is_reported_without_its_password(
    guarded_url: str, harm: str, reason: str, workers: int
) -> None:
    wrong = {
        "password": guarded_url.replace(ENCODED_PASSWORD, f"{ENCODED_PASSWORD}wrong"),
        "database": guarded_url.replace("/postgres?", "/absent?"),
        "host": re.sub(r":\d+/postgres", ":1/postgres", guarded_url),
    }[harm]
    result = leasehold("serve", f"--store={wrong}", "--port=0", f"--workers={workers}")
    line = f"leasehold: the store cannot be opened: {reason}\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", line)


# Workers and shutdown -----------------------------------------------------------------------------------------


def test_a_worker_that_dies_during_an_outage_is_replaced_when_the_database_is_back(
    guarded_url: str, database_server: PostgresServer
) -> None:
    with running(guarded_url, arguments=["--workers=2"]) as service:
        supervisor = psutil.Process(service.pid)
        (killed, left) = supervisor.children()
        database_server.stop()
        try:
            killed.kill()
            until(lambda: "a worker could not be started" in service.log())
            # The remaining worker still accepts new connections.
            for _ in range(10):
                with Wire(service) as wire:
                    assert wire.send(message("GET", "/health/live")).answer().status == 200
        finally:
            database_server.start()
        until(lambda: len(running_children(supervisor)) == 2)
        assert left in supervisor.children()
        until(lambda: service.put("afterwards", "1").status_code in (200, 201))
        assert not is_secret(service.log())


def running_children(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_stops_in_order_while_its_database_is_away(
    guarded_url: str, database_server: PostgresServer, workers: int
) -> None:
    """A change that waits for the database is refused; it is not left without an answer."""
    with running(guarded_url, arguments=[f"--workers={workers}"]) as service, Wire(service) as wire:
        database_server.stop()
        try:
            wire.send(message("PUT", "/kv/late", body=b"1"))
            until(lambda: "a commit is tried again" in service.log())
            assert service.terminate() == 0
            assert wire.answer().refusal == (503, "unavailable")
        finally:
            database_server.start()
        assert "Traceback" not in service.log()
