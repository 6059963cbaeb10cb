"""Entries as rows of a table."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from leasehold.cli.exit_codes import CommandFailed
from leasehold.cli.output import Table

ENTRY_TITLES: Final = ("KEY", "REVISION", "UPDATED", "EXPIRES", "VALUE")


class ShownEntry(msgspec.Struct):
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
        times = (each.partition(".")[0].replace("T", " ") for each in (self.updated_at, self.expires_at))
        return (self.key, str(self.revision), *times, self._shown_value())

    def _shown_value(self) -> str:
        if self.media is not None:
            return f"{self.size} bytes of {self.media}"
        return bytes(self.value).decode()


def print_entry(body: bytes) -> None:
    """Print the entry in this response as a table. Raises CommandFailed."""
    try:
        entry = msgspec.json.decode(body, type=ShownEntry)
    except msgspec.DecodeError as error:
        raise not_of_the_service() from error
    Table(ENTRY_TITLES).add([entry.row])


def not_of_the_service() -> CommandFailed:
    return CommandFailed("the response is not one of the service; is a proxy in between?")
