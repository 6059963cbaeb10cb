"""Bodies that are made or sent in pieces, so that no long one blocks the event loop or is whole in memory."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from leasehold.http.media_types import Media
from leasehold.http.responses import Response
from leasehold.limits import KIB
from leasehold.store.turns import Turn

CHUNK_BYTES: Final = 64 * KIB
"""The largest chunk of a stream, unless one entry is larger."""


def chunked(data: bytes) -> bytes:
    """A chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"


def gathered(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces, made one at a time: a page of large values is never whole in memory."""
    gathering: list[bytes] = []
    size = 0
    for part in parts:
        if gathering and size + len(part) > CHUNK_BYTES:
            yield b"".join(gathering)
            gathering, size = [], 0
        gathering.append(part)
        size += len(part)
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

    async def add(self, items: Iterable[bytes]) -> None:
        """Add items in the representation of the list. All lists together yield to the event loop every 64 KiB."""
        left = iter(items)
        is_over = False
        while not is_over:
            async with self._turn:
                is_over = self._add_some(left)
                if self._turn.encoded_bytes > CHUNK_BYTES:
                    self._turn.encoded_bytes = 0
                    await asyncio.sleep(0)

    def _add_some(self, items: Iterator[bytes]) -> bool:
        """Add items until the turn has CHUNK_BYTES or more. True: there are no more."""
        for item in items:
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
