"""How commands print responses: as the service sent them, or as a table for people.

JSON is passed on as text and never decoded and encoded again, so integers of 64 bits and the form of numbers survive.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from leasehold.cli.exit_codes import CommandFailed

if TYPE_CHECKING:
    from typing_extensions import Buffer

GAP: Final = "  "
MAX_CELL_CHARACTERS: Final = 60
"""A longer cell is cut. The other formats show all of it."""


def write_bytes(content: bytes) -> None:
    """Write to standard output at once, so that the next program in a pipe need not wait for the end of this one."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def write_json(content: bytes) -> None:
    """Print a JSON text as a line."""
    write_bytes(content.rstrip(b"\n") + b"\n")


def write_lines(texts: "Iterable[Buffer]") -> None:
    """Print JSON texts, each on a line."""
    write_bytes(b"".join(bytes(text) + b"\n" for text in texts))


def write_media(content: bytes, media: str) -> None:
    """Print a value that is bytes, without a change. Raises CommandFailed if a terminal would interpret them."""
    if sys.stdout.isatty() and not media.startswith("text/"):
        size = len(content)
        raise CommandFailed(f"the value is {size} bytes of {media}: redirect the output to a file, or use -o json")
    write_bytes(content)


class Table:
    """Columns for people, printed in parts. Their widths are those of the widest cells so far.

    The titles are printed with the first row, so nothing is printed if there is none. `widths`: the least ones, for
    rows that come one by one.
    """

    def __init__(self, titles: Sequence[str], widths: Sequence[int] | None = None) -> None:
        self._titles: Sequence[Sequence[str]] = [titles]
        self._widths = [0] * len(titles) if widths is None else [*widths]

    def add(self, rows: Iterable[Sequence[str]]) -> None:
        cells = [*self._titles, *([_cell(each) for each in row] for row in rows)]
        self._titles = []
        for row in cells:
            self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, row, strict=True)]
        lines = (
            GAP.join(f"{cell:{width}}" for cell, width in zip(row, self._widths, strict=True)).rstrip() for row in cells
        )
        write_bytes("".join(f"{line}\n" for line in lines).encode())


def shown_time(text: str) -> str:
    """A time of the service without fractions of a second, or nothing."""
    return f"{text.partition('.')[0]}Z" if text else ""


def _cell(text: str) -> str:
    """Without control characters, which a terminal would interpret."""
    if len(text) > MAX_CELL_CHARACTERS:
        text = f"{text[: MAX_CELL_CHARACTERS - 1]}…"
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
