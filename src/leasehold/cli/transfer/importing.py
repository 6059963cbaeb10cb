"""Writes entries to a service, in transactions, one after the other.

What cannot be written is reported and left out; all other entries are written. A request that is refused as a whole is
divided until the entry that is the cause is found. An error that is not the fault of an entry ends the import: then
everything before `Importer.first_open` was done.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from leasehold_client import (
    Conflict,
    InvalidArgument,
    InvalidJson,
    InvalidKey,
    PreconditionFailed,
    TooLarge,
    UnsupportedMediaType,
)
from leasehold_client import ServiceError as Refusal
from msgspec.structs import replace

from leasehold.cli.transfer import requests
from leasehold.cli.transfer.items import Found, Item, LeftOut, Unusable
from leasehold.cli.transfer.prefixes import Prefix, renamed
from leasehold.errors import ServiceError
from leasehold.keys import check_key

if TYPE_CHECKING:
    from leasehold_client import Request, Response
    from leasehold_client.protocol.messages import Pairs

Report = Callable[[int, bytes, str], None]
"""Called with the place, the text and the reason of what cannot be written."""


FAULTS_OF_ENTRIES: Final = (Conflict, InvalidArgument, InvalidJson, InvalidKey, TooLarge, UnsupportedMediaType)
"""All other errors end the import."""


class WriteOptions(msgspec.Struct, frozen=True):
    """`headers`: of each request that writes. With `is_dry_run` nothing is written."""

    prefixes: Sequence[Prefix] = ()
    if_absent: bool = False
    is_dry_run: bool = False
    headers: "Pairs" = ()


class Counts(msgspec.Struct):
    """What became of the items that were read. In a dry run: what would become of them."""

    written: int = 0
    existing: int = 0
    """Not written because of `if_absent`. In a dry run without it: those of `written` that would be replaced."""
    expired: int = 0
    outside: int = 0
    """With keys that no prefix takes."""
    folders: int = 0
    leased: int = 0
    rejected: int = 0
    lost_flags: int = 0
    lost_leases: int = 0


class Importer:
    """`send` raises LeaseholdError. `clock`: microseconds since the epoch."""

    def __init__(
        self,
        send: "Callable[[Request], Response]",
        report: Report,
        options: WriteOptions,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._send = send
        self._report = report
        self._options = options
        self._clock = clock
        self.counts = Counts()
        self.first_open = 1
        """The place of the first item that was perhaps not written yet."""
        self.read = self.read_bytes = 0
        """How many items were read, and about how long they were in the file."""

    def run(self, found: Iterable[Found]) -> None:
        """Write all items. Raises what `found` and `send` raise."""
        batch = requests.Batch()
        for each in found:
            item = self._taken(each)
            if item is None:
                continue
            if not batch.has_room_for(item):
                self._write(batch.items)
                batch = requests.Batch()
                self.first_open = item.place
            batch.add(item)
        self._write(batch.items)

    # Which items are written ----------------------------------------------------------------------------------

    def _taken(self, found: Found) -> Item | None:
        counts = self.counts
        self.read += 1
        if isinstance(found, LeftOut):
            if found.reason == "folder":
                counts.folders += 1
            else:
                counts.leased += 1
            return None
        self.read_bytes += len(found.text)
        key = None if found.key is None else renamed(found.key, self._options.prefixes)
        if key is None and found.key is not None:
            counts.outside += 1
            return None
        if isinstance(found, Unusable):
            self._reject(found, found.reason)
            return None
        assert key is not None
        try:
            check_key(key)
        except ServiceError as error:
            hint = "; --prefix /= removes the slash at the beginning" if key.startswith("/") else ""
            self._reject(found, f"the key {key!r} is not valid: {error.message}{hint}")
            return None
        if requests.has_expired(found, self._clock()):
            counts.expired += 1
            return None
        return found if key == found.key else replace(found, key=key)

    def _reject(self, item: Item | Unusable, reason: str) -> None:
        self.counts.rejected += 1
        self._report(item.place, item.text, reason)

    # Writing --------------------------------------------------------------------------------------------------

    def _write(self, items: Sequence[Item]) -> None:
        """Write these items, each unless it is refused or exists already."""
        open_batches = [items]
        while open_batches:
            open_batches.extend(self._attempt(open_batches.pop()))

    def _attempt(self, items: Sequence[Item]) -> Sequence[Sequence[Item]]:
        """Send one request for these items. Returns what must be sent after that, the first ones last."""
        options, now = self._options, self._clock()
        if not items:
            return ()
        try:
            if options.is_dry_run:
                self._send(requests.look(items))
            elif len(items) == 1 and requests.is_sent_alone(items[0]):
                self._send(
                    requests.write_alone(items[0], if_absent=options.if_absent, headers=options.headers, now=now)
                )
            else:
                self._send(requests.write(items, if_absent=options.if_absent, headers=options.headers, now=now))
        except PreconditionFailed as error:
            return self._without_existing(items, error)
        except FAULTS_OF_ENTRIES as error:
            return self._without_refused(items, error)
        self._count(items)
        return ()

    def _without_existing(self, items: Sequence[Item], error: PreconditionFailed) -> Sequence[Sequence[Item]]:
        existing = {failed["index"] for failed in error.failed} if error.failed else range(len(items))
        self.counts.existing += len(existing)
        rest = [item for index, item in enumerate(items) if index not in existing]
        if not self._options.is_dry_run:
            return (rest,)
        self._count(rest if self._options.if_absent else items)
        return ()

    def _without_refused(self, items: Sequence[Item], error: Refusal) -> Sequence[Sequence[Item]]:
        index = error.details.get("index")
        if isinstance(index, int) and index < len(items):
            self._reject(items[index], _refusal(items[index], error.message.removeprefix(f"operation {index}: ")))
            return ([*items[:index], *items[index + 1 :]],)
        if len(items) == 1:
            self._reject(items[0], _refusal(items[0], error.message))
            return ()
        middle = len(items) // 2
        return (items[middle:], items[:middle])

    def _count(self, items: Sequence[Item]) -> None:
        counts = self.counts
        counts.written += len(items)
        counts.lost_flags += sum(item.loss == "flags" for item in items)
        counts.lost_leases += sum(item.loss == "lease" for item in items)


def _refusal(item: Item, message: str) -> str:
    return f"the service refuses {item.key!r}: {message}"
