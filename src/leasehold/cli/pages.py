"""Reads lists in pages. Entries and locks stay the text that the service sent."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import Raw

from leasehold.cli.exit_codes import CommandFailed
from leasehold.cli.options import Pair

if TYPE_CHECKING:
    from leasehold_client import Client

FIRST_PAGE: Final = 100
LARGEST_PAGE: Final = 1_000
PAGE_BYTES: Final = 4_194_304
"""Pages are made shorter if they are larger than this, because a value may have 1 MiB."""

Shown = TypeVar("Shown", bound=msgspec.Struct)


class _Page(msgspec.Struct, frozen=True):
    """`GET /kv` or `GET /locks`, also with `count`."""

    entries: tuple[Raw, ...] = ()
    locks: tuple[Raw, ...] = ()
    count: int = 0
    next: str | None = None


def pages(
    db: "Client", path: str, parameters: Sequence[Pair], *, after: str | None = None, limit: int | None = None
) -> Iterator[Sequence[Raw]]:
    """The items of a list, `/kv` or `/locks`, in pages of one or more. `limit`: at most so many in all."""
    left = limit
    size = FIRST_PAGE
    while left is None or left > 0:
        size = size if left is None else min(size, left)
        page, page_bytes = _page(db, path, [*parameters, ("limit", str(size))], after)
        items = page.entries or page.locks
        if items:
            yield items
            size = max(1, min(LARGEST_PAGE, len(items) * PAGE_BYTES // page_bytes))
        if page.next is None:
            return
        after = page.next
        left = None if left is None else left - len(items)


def count(db: "Client", parameters: Sequence[Pair], *, after: str | None, limit: int | None) -> int:
    """How many entries there are, up to `limit`."""
    total = 0
    while True:
        limits = [] if limit is None else [("limit", str(limit - total))]
        page, _ = _page(db, "/kv", [("count", ""), *parameters, *limits], after)
        total += page.count
        if page.next is None or total == limit:
            return total
        after = page.next


def _page(db: "Client", path: str, parameters: Sequence[Pair], after: str | None) -> tuple[_Page, int]:
    """A page, and how many bytes the response has."""
    from leasehold_client import Request
    from leasehold_client.protocol.messages import target

    position = [] if after is None else [("after", after)]
    content = db.send(Request("GET", target(path, [*parameters, *position]), [("Accept", "application/json")])).content
    return decoded(content, _Page), len(content)


def decoded(text: bytes | Raw, kind: type[Shown]) -> Shown:
    """JSON as this struct. Raises CommandFailed if it is something else."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise CommandFailed("the response is not one of the service; is a proxy in between?") from error
