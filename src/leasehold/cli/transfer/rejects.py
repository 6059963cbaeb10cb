"""What cannot be imported: some of it is shown, and all of it can be kept in a file of the same format."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, NamedTuple

from leasehold.cli.exit_codes import CommandFailed
from leasehold.cli.transfer.choices import FormatName
from leasehold.process.streams import print_error

MAX_SHOWN: Final = 20


class _Frame(NamedTuple):
    """What stands before, between and after the items of a file."""

    begin: bytes
    separator: bytes
    end: bytes


_LINES: Final = _Frame(b"", b"\n", b"\n")
_FRAMES: Final[dict[FormatName, _Frame]] = {
    "entries": _LINES,
    "backup": _LINES,  # the lines of its entries; a checksum would say that this is all of the backup
    "consul": _Frame(b"[\n", b",\n", b"\n]\n"),
    "etcd": _Frame(b'{"header":{},"kvs":[\n', b",\n", b"\n]}\n"),
}


class Rejects:
    """`unit`: what a place counts, `line` or `item`."""

    def __init__(self, program: str, unit: str) -> None:
        self._program = program
        self._unit = unit
        self._count = 0
        self._file: BinaryIO | None = None
        self._frame = _LINES

    @contextmanager
    def kept_in(self, path: str | None, format_name: FormatName) -> Iterator[None]:
        """Keep in a new file what `add` gets in the block. There is none if it gets nothing. Raises CommandFailed."""
        self._frame = _FRAMES[format_name]
        if path is None:
            yield
            return
        try:
            with open(path, "xb") as self._file:  # noqa: PTH123 - pathlib takes long to import
                yield
                if self._count:
                    self._file.write(self._frame.end)
        except FileExistsError as error:
            raise CommandFailed(f"{path} exists already") from error

    def add(self, place: int, text: bytes, reason: str) -> None:
        """Show why this cannot be imported, and keep it."""
        self._count += 1
        if self._count <= MAX_SHOWN:
            print_error(f"{self._program}: {self._unit} {place}: {reason}")
        if self._file is not None:
            self._file.write((self._frame.separator if self._count > 1 else self._frame.begin) + text)
            self._file.flush()
