"""What is requested from every server: keys, values, and requests encoded in advance.

All sides get the same keys, values from the same distribution, and requests prepared in the same way, so that the
client costs the same for each. All randomness comes from `random.Random` arguments.
"""

import random
import string
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

SMALL_STORE_KEYS: Final = 1_000
MIN_VALUE_BYTES: Final = 25
MAX_VALUE_BYTES: Final = 100
REQUESTS: Final = 100_000
"""Requests generated for one kind of work. wrk repeats them in a cycle."""
ALL_KEYS_REQUESTS: Final = 1_000_000
"""As REQUESTS, for GET_ALL and POST_ALL. A server with few keys gets as many requests, so that they cost wrk the same.
"""

FRAME_BYTES: Final = len('{"id":1234567,"name":""}')
MIB: Final = 1 << 20

WAITERS: Final = 10_000
AWAITED_LOCKS: Final = 20
"""So 500 requests wait for each lock. The service allows 1,000."""

LETTERS: Final = "".join(random.Random(1).choices(string.ascii_letters, k=10_000))


class Work(StrEnum):
    """A kind of load. A new kind needs an answer in `Store.request` and in `postgresql`, or its own `run`."""

    GET = "GET"
    POST = "POST"
    GET_ALL = "GET-all"
    """As GET, but all keys are requested in turn, in a random order. A large store has too many for REQUESTS."""
    POST_ALL = "POST-all"
    """As GET_ALL. The values have MAX_VALUE_BYTES, like those of the large store."""
    LOCK = "LOCK"
    """Acquire a lock and release it. Each connection has its own lock."""
    WATCH = "WATCH"
    """Send events to watchers of one prefix: one on each connection. The events are made by 64 writers at a time."""
    WATCH_ONE = "WATCH-one"
    """As WATCH, with one writer."""
    TRANSACTION = "TRANSACTION"
    """Ten puts of different keys in one transaction."""
    PIPELINED = "PIPELINED"
    """Ten puts of different keys, which are sent together."""
    CALL = "CALL"
    """As GET, from a Python program that makes one call after another, in a thread."""
    CALL_ASYNC = "CALL-async"
    """As CALL, on an event loop."""


WRITERS: Final = {Work.WATCH: 64, Work.WATCH_ONE: 1}
"""Requests in a burst of events."""
BURSTS: Final = 100
"""Bursts generated for one kind of work. The client repeats them in a cycle."""
PUTS: Final = 10
"""Of a TRANSACTION, and of an operation of PIPELINED."""
WATCHERS: Final = 10_000
"""Idle watchers of the service."""
CHANGES: Final = 100_000
"""Which a watcher catches up. The service knows no more."""


def key(number: int) -> str:
    return f"k{number:07d}"


def drawn_keys(work: Work, key_count: int, rng: random.Random) -> Iterator[str]:
    """The keys of the requests of a load, each equally likely."""
    if work in (Work.GET_ALL, Work.POST_ALL):
        left = ALL_KEYS_REQUESTS
        while left:
            numbers = rng.sample(range(key_count), min(key_count, left))
            yield from map(key, numbers)
            left -= len(numbers)
    else:
        for _ in range(REQUESTS // PUTS if work in (Work.TRANSACTION, Work.PIPELINED) else REQUESTS):
            yield key(rng.randrange(key_count))


def lock(number: int) -> str:
    return f"lock-{number:04d}"


def value(rng: random.Random, size: int | None = None) -> bytes:
    """A JSON object of `size` bytes, by default of MIN_VALUE_BYTES to MAX_VALUE_BYTES."""
    letters = (size or rng.randint(MIN_VALUE_BYTES, MAX_VALUE_BYTES)) - FRAME_BYTES
    start = rng.randrange(len(LETTERS) - letters)
    return f'{{"id":{rng.randint(1_000_000, 9_999_999)},"name":"{LETTERS[start : start + letters]}"}}'.encode()


def document(size: int, *, part: int) -> bytes:
    """An object of `size` bytes: `part` at /a/b/c, and members with values of MAX_VALUE_BYTES."""
    rng = random.Random(5)
    text = b'{"a":{"b":{"c":%d}}' % part
    number = 0
    while len(text) < size - 3 * MAX_VALUE_BYTES:
        text += b',"%b":%b' % (key(number).encode(), value(rng, MAX_VALUE_BYTES))
        number += 1
    last = b',"rest":%b}'
    return text + last % value(rng, size - len(text) - len(last % b""))


def http_request(method: str, target: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
    length = {} if body is None else {"Content-Length": str(len(body))}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {text}" for name, text in {**headers, **length}.items())]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def write_requests(path: Path, requests: Iterable[bytes]) -> None:
    """Write the file that `replay.lua` reads."""
    with path.open("wb") as file:
        file.writelines(b"%d\n%b" % (len(request), request) for request in requests)


def write_foreign_store(path: Path, key_count: int, rng: random.Random) -> bytes:
    """A plain JSON object of `key_count` keys with values of MAX_VALUE_BYTES. Returns the last value.

    The service imports such a file at its first start.
    """
    text = b""
    with path.open("wb") as file:
        for number in range(key_count):
            text = value(rng, MAX_VALUE_BYTES)
            file.write(b'%b"%b":%b' % (b",\n" if number else b"{", key(number).encode(), text))
        file.write(b"}\n")
    return text
