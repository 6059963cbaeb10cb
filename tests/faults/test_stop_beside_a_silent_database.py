"""SIGTERM ends the process though its database is connected and answers nothing; what was acknowledged is kept."""

from collections.abc import Iterator

import pytest
from databases import PostgresServer
from running import Server, Wire, message, running, until

WRITE = message("PUT", "/kv/a", body=b"2")


@pytest.fixture
def database_server() -> Iterator[PostgresServer]:
    """A server to be stopped, which is let go on at the end."""
    with PostgresServer() as server:
        yield server


@pytest.mark.parametrize("workers", [1, 2])
def test_the_process_ends_and_acknowledged_writes_are_there_afterwards(
    database_server: PostgresServer, workers: int
) -> None:
    options = {"environment": {"LEASEHOLD_SHUTDOWN_TIMEOUT_SECONDS": "0.5"}, "arguments": [f"--workers={workers}"]}
    with Server(database_server.url, **options) as server, Wire(server) as wire:  # type: ignore[arg-type]
        assert server.put("a", "1").status_code == 201
        database_server.freeze()
        try:
            wire.send(WRITE)
            until(lambda: server.request("GET", "/health/live").status_code == 200)
            assert server.terminate() in (0, 1)
        finally:
            database_server.thaw()
    with running(database_server.url) as server:
        assert server.value("a") in (1, 2)
