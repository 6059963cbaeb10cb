"""Bodies that are made or sent in pieces, so that no long one blocks the event loop or is whole in memory."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Final, TypeVar

import msgspec

from leasehold.http.media_types import Media
from leasehold.http.responses import Response
from leasehold.limits import KIB
from leasehold.store.turns import Turn
from leasehold.values.steps import Encoded, Steps

T = TypeVar("T")

CHUNK_BYTES: Final = 64 * KIB
"""The largest chunk of a stream, unless one entry is larger."""


def chunked(data: bytes) -> bytes:
    """A chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"


async def in_iterations(steps: Steps[T]) -> T:
    """Do one step in each iteration of the event loop, and return the result. The caller holds the store's turn."""
    try:
        while True:
            next(steps)
            await asyncio.sleep(0)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()


async def gathered(items: Iterable[Encoded], turn: asyncio.Lock, *, before: bytes = b"") -> AsyncGenerator[bytes]:
    """The same bytes in fewer pieces, made one at a time: a page of large values is never whole in memory.

    `before` is put before each item. `turn` is that of the store: of all such lists, one does one step in an iteration
    of the event loop.
    """
    gathering: list[bytes] = []
    size = 0
    for item in items:
        if not isinstance(item, bytes):
            async with turn:
                item = await in_iterations(item)  # noqa: PLW2901 - it is the item
        if gathering and size + len(item) > CHUNK_BYTES:
            yield b"".join(gathering)
            gathering, size = [], 0
        gathering += (before, item)
        size += len(before) + len(item)
    if gathering:
        yield b"".join(gathering)


class GatheredList:
    """A list in one response: `{"NAME": [items], "revision": …, "next": …}`.

    Its items are encoded one by one, because to encode all of them at once would block the event loop. `turn`: that of
    the store, for which all lists wait.
    """

    def __init__(self, name: str, media: Media, turn: Turn) -> None:
        self._name = name
        self._turn = turn
        self.is_packed = media is Media.MESSAGEPACK
        self._items: list[bytes] = []
        self.size_bytes = 0
        """Of the items."""

    async def add(self, items: Iterable[Encoded]) -> None:
        """Add items in the representation of the list.

        All lists together yield to the event loop every 64 KiB, and after each step.
        """
        left = iter(items)
        is_over = False
        while not is_over:
            async with self._turn:
                is_over = await self._add_some(left)
                if self._turn.encoded_bytes > CHUNK_BYTES:
                    self._turn.encoded_bytes = 0
                    await asyncio.sleep(0)

    async def _add_some(self, items: Iterator[Encoded]) -> bool:
        """Add items until the turn has CHUNK_BYTES or more. True: there are no more."""
        for item in items:
            if not isinstance(item, bytes):
                item = await in_iterations(item)  # noqa: PLW2901 - it is the item
            self._items.append(item)
            self.size_bytes += len(item)
            self._turn.encoded_bytes += len(item)
            if self._turn.encoded_bytes > CHUNK_BYTES:
                return False
        return True

    def response(self, revision: int, next_after: str | None) -> Response:
        items = self._items
        if not self.is_packed:
            end = b'"revision":%d,"next":%b}' % (revision, msgspec.json.encode(next_after))
            return Response(200, b'{"%b":[%b],%b' % (self._name.encode(), b",\n".join(items), end))
        pack = msgspec.msgpack.encode
        head = b"\x83" + pack(self._name) + b"\xdd" + len(items).to_bytes(4, "big")
        end = pack("revision") + pack(revision) + pack("next") + pack(next_after)
        return Response(200, b"".join((head, *items, end)), is_packed=True)
