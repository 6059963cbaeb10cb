"""Fixtures: real servers, started by `tests/running.py` of the repository."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from callers import SECRET
from running import Server, free_port, running

_numbers = count(1)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Shared by all tests, each of which uses its own keys."""
    with running() as shared:
        yield shared


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test only, with files. It keeps its port when it is started again."""
    with free_port() as port:
        environment = {"LEASEHOLD_PORT": str(port)}
        with running(tmp_path / "data.json", environment=environment) as server:
            yield server


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for tokens, which `callers.token` makes."""
    secret = tmp_path_factory.mktemp("secret") / "secret"
    secret.write_bytes(SECRET + b"\n")
    secret.chmod(0o600)
    with running(environment={"LEASEHOLD_AUTH_SECRET_FILE": str(secret)}) as started:
        yield started


@pytest.fixture
def key() -> str:
    """A key, or the name of a lock, that no other test uses, and no other process of the tests."""
    return f"entry-{next(_numbers):05}"
