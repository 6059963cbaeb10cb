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


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return f"entry-{next(_numbers):05}"
