"""Bodies that are made or sent in pieces, so that no long one blocks the event loop or is whole in memory."""

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from leasehold.http.media_types import Media
from leasehold.http.responses import Response
from leasehold.limits import KIB
from leasehold.store.turns import Turn
from leasehold.values.steps import Encoded, Pieces

CHUNK_BYTES: Final = 64 * KIB
"""The largest chunk of a stream, unless one entry is larger."""


def chunked(data: bytes) -> bytes:
    """A chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"


async def gathered(items: Iterable[Encoded], turn: asyncio.Lock, *, before: bytes = b"") -> AsyncGenerator[bytes]:
    """The items in chunks that are made one at a time: a page of large values is never whole in memory.

    `before` is put before each item. `turn` is that of the store: of all such lists, one does one step in an iteration
    of the event loop.
    """
    gathering: list[bytes] = []
    size = 0
    for item in items:
        if isinstance(item, bytes):
            if gathering and size + len(item) > CHUNK_BYTES:
                yield b"".join(gathering)
                gathering, size = [], 0
            gathering += (before, item)
            size += len(before) + len(item)
            continue
        gathering.append(before)
        size += len(before)
        async for piece in _one_in_an_iteration(item, turn):
            gathering.append(piece)
            size += len(piece)
            if size > CHUNK_BYTES:
                yield b"".join(gathering)
                gathering, size = [], 0
    if size:
        yield b"".join(gathering)


async def _one_in_an_iteration(pieces: Pieces, turn: asyncio.Lock) -> AsyncGenerator[bytes]:
    """The pieces. `turn` is free while a piece is sent."""
    while True:
        async with turn:
            piece = next(pieces, None)
            if piece is None:
                return
            await asyncio.sleep(0)
        yield piece


async def whole(response: Response, turn: asyncio.Lock) -> Response:
    """The response with its body in one piece. `turn`: as in `gathered`."""
    made: list[bytes] = []
    async with turn:
        for piece in response.pieces or ():
            made.append(piece)
            await asyncio.sleep(0)
        return replace(response, body=b"".join(made), pieces=None)


class GatheredList:
    """A list in one response: `{"NAME": [items], "revision": …, "next": …}`.

    Its items are encoded one by one, because to encode all of them at once would block the event loop. `turn`: that of
    the store, for which all lists wait.
    """

    def __init__(self, name: str, media: Media, turn: Turn) -> None:
        self._name = name
        self._turn = turn
        self.is_packed = media is Media.MESSAGEPACK
        self._parts: list[bytes] = []
        """The items, and what is between them."""
        self._count = 0
        self.size_bytes = 0
        """Of the items."""

    async def add(self, items: Iterable[Encoded], *, until_bytes: float = math.inf) -> int:
        """Add items in the representation of the list, until it has more than `until_bytes`. Returns how many.

        All lists together yield to the event loop every 64 KiB, and after each piece of a large item.
        """
        left = iter(items)
        before = self._count
        is_over = False
        while not is_over and self.size_bytes <= until_bytes:
            async with self._turn:
                is_over = await self._add_some(left)
                if self._turn.encoded_bytes > CHUNK_BYTES:
                    self._turn.encoded_bytes = 0
                    await asyncio.sleep(0)
        return self._count - before

    async def _add_some(self, items: Iterator[Encoded]) -> bool:
        """Add items until the turn has CHUNK_BYTES or more. True: there are no more."""
        for item in items:
            if self._count and not self.is_packed:
                self._parts.append(b",\n")
            self._count += 1
            if isinstance(item, bytes):
                self._append(item)
            else:
                for piece in item:
                    self._append(piece)
                    await asyncio.sleep(0)
            if self._turn.encoded_bytes > CHUNK_BYTES:
                return False
        return True

    def _append(self, part: bytes) -> None:
        self._parts.append(part)
        self.size_bytes += len(part)
        self._turn.encoded_bytes += len(part)

    def response(self, revision: int, next_after: str | None) -> Response:
        if not self.is_packed:
            head = b'{"%b":[' % self._name.encode()
            end = b'],"revision":%d,"next":%b}' % (revision, msgspec.json.encode(next_after))
        else:
            pack = msgspec.msgpack.encode
            head = b"\x83" + pack(self._name) + b"\xdd" + self._count.to_bytes(4, "big")
            end = pack("revision") + pack(revision) + pack("next") + pack(next_after)
        return Response(200, b"".join((head, *self._parts, end)), is_packed=self.is_packed)
