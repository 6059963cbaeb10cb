"""SIGTERM ends the process though its database is connected and answers nothing; what was acknowledged is kept."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from databases import Database, PostgresServer
from running import Server, Wire, message, running, until

WRITE = message("PUT", "/kv/a", body=b"2")
WORKERS = (1, 2)


@pytest.fixture
def database_server() -> Iterator[PostgresServer]:
    """A server to be stopped, which is let go on at the end."""
    with PostgresServer() as server:
        yield server


def test_the_process_ends_and_acknowledged_writes_are_there_afterwards(database_server: PostgresServer) -> None:
    """With one worker, and with two. Both services end at the same time, because their ends take seconds."""
    databases = [Database(database_server.url, f"silent_{workers}").create() for workers in WORKERS]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                Server(
                    database.url,
                    environment={"LEASEHOLD_SHUTDOWN_TIMEOUT_SECONDS": "0.5"},
                    arguments=[f"--workers={workers}"],
                )
            )
            for database, workers in zip(databases, WORKERS, strict=True)
        ]
        for server in servers:
            assert server.put("a", "1").status_code == 201
        wires = [stack.enter_context(Wire(server)) for server in servers]
        database_server.freeze()
        try:
            for server, wire in zip(servers, wires, strict=True):
                wire.send(WRITE)
                until(lambda server=server: server.request("GET", "/health/live").status_code == 200)
            with ThreadPoolExecutor(len(servers)) as threads:
                codes = [*threads.map(Server.terminate, servers)]
        finally:
            database_server.thaw()
        assert set(codes) <= {0, 1}
    for database in databases:
        with running(database.url) as server:
            assert server.value("a") in (1, 2)
