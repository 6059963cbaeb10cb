"""The events of a watch as rows of a table, or as lines of JSON."""

from typing import Final

import msgspec
from msgspec import Raw

from leasehold.cli.options import TABLE
from leasehold.cli.output import Table, write_json
from leasehold.cli.pages import decoded

TITLES: Final = ("EVENT", "REVISION", "NAME", "VALUE")
WIDTHS: Final = (8, 8, 24, 0)


class _Data(msgspec.Struct, frozen=True):
    """The members of all kinds of events that a table shows."""

    revision: int = 0
    key: str = ""
    value: Raw = Raw(b"")
    media: str | None = None
    size: int = 0
    lock: str = ""
    state: str = ""
    owner: Raw = Raw(b"")


class _Event(msgspec.Struct, frozen=True):
    event: str
    data: _Data = _Data()


class EventPrinter:
    """Prints events, each at once."""

    def __init__(self, output: str) -> None:
        self._table = Table(TITLES, WIDTHS) if output == TABLE else None

    def add(self, line: bytes) -> None:
        if self._table is None:
            write_json(line)
        else:
            self._table.add([_row(decoded(line, _Event))])


def _row(event: _Event) -> tuple[str, str, str, str]:
    data = event.data
    value = f"{data.size} bytes of {data.media}" if data.media is not None else bytes(data.value or data.owner).decode()
    return (data.state or event.event, str(data.revision), data.key or data.lock, value)
