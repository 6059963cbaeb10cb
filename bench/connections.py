"""The connections of the bench's own clients, which `locking` and `watching` have in place of wrk's."""

import re
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from bench.processes import BenchError

ANSWER_SECONDS: Final = 20.0
_SPARE_DESCRIPTORS: Final = 200
_GOOD: Final = (b"HTTP/1.1 200 ", b"HTTP/1.1 201 ")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@contextmanager
def connections() -> Iterator[ExitStack]:
    """Closes the connections opened in it, and raises any failure of one as BenchError."""
    try:
        with ExitStack() as stack:
            yield stack
    except OSError as error:
        raise BenchError(f"a connection failed: {error}") from error


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def body_of(answer: bytes) -> bytes | None:
    """The body of a complete answer, or None while a part is missing. Raises BenchError if it is no success or has no
    body."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if answer and not end:
        return None
    length = _LENGTH.search(head)
    if not head.startswith(_GOOD) or length is None:
        raise BenchError(f"a client was answered with {answer[:200]!r}")
    return body if len(body) == int(length[1]) else None


def raise_descriptor_limit(count: int) -> None:
    """Let this process, and those that it starts, have so many connections. Raises BenchError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise BenchError(f"{wanted:,} files must be open at once, and {hard:,} may be")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
