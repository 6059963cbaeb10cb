"""Entries as rows of a table, as lines of JSON, or as their values."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from leasehold.cli.options import RAW, TABLE
from leasehold.cli.output import Table, shown_time, write_bytes, write_lines
from leasehold.cli.pages import decoded

TITLES: Final = ("KEY", "REVISION", "UPDATED", "EXPIRES", "VALUE")


class ShownEntry(msgspec.Struct, frozen=True):
    """The members of an entry that a table shows. A response to a write has some of them."""

    key: str
    revision: int
    updated_at: str = ""
    expires_at: str = ""
    value: Raw = Raw(b"")
    media: str | None = None
    size: int = 0

    @property
    def row(self) -> Sequence[str]:
        times = (shown_time(self.updated_at), shown_time(self.expires_at))
        value = bytes(self.value).decode() if self.media is None else f"{self.size} bytes of {self.media}"
        return (self.key, str(self.revision), *times, value)


def print_entry(body: bytes) -> None:
    """Print the entry in this response as a table. Raises CommandFailed."""
    Table(TITLES).add([decoded(body, ShownEntry).row])


class EntryPrinter:
    """Prints entries, page by page."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._table = Table(TITLES) if output == TABLE else None

    def add(self, entries: Iterable[Raw]) -> None:
        if self._table is not None:
            self._table.add(decoded(entry, ShownEntry).row for entry in entries)
        elif self._output == RAW:
            write_lines(decoded(entry, ShownEntry).value for entry in entries)
        else:
            write_lines(entries)


def print_keys(entries: Iterable[Raw]) -> None:
    write_bytes("".join(f"{decoded(entry, ShownEntry).key}\n" for entry in entries).encode())
