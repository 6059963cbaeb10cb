"""What tests of a running service share."""

from collections.abc import Iterator
from itertools import count

import pytest
from running import Server, running

_numbers = count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server that keeps nothing on disk, shared by all tests; each uses keys of its own."""
    with running() as shared:
        yield shared


@pytest.fixture(scope="session", params=["memory", "file"])
def any_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A shared server on each engine, for what depends on how changes are committed."""
    folder = tmp_path_factory.mktemp("store")
    with running("memory:" if request.param == "memory" else folder / "data.json") as shared:
        yield shared


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return f"entry-{next(_numbers):05}"
