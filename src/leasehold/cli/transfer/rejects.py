"""What cannot be imported: some of it is shown, and all of it can be kept in a file of the same format."""

import os
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
        self._path: str | None = None
        self._file: BinaryIO | None = None
        self._frame = _LINES

    @contextmanager
    def kept_in(self, path: str | None, format_name: FormatName) -> Iterator[None]:
        """Keep in a new file what `add` gets in the block. There is none if it gets nothing. Raises CommandFailed."""
        if path is not None and os.path.lexists(path):
            raise CommandFailed(f"{path} exists already")
        self._path, self._frame = path, _FRAMES[format_name]
        try:
            yield
        finally:
            # Also if the import ends early: what was rejected before is not read again.
            if self._file is not None:
                with self._file:
                    self._write(self._frame.end)

    def add(self, place: int, text: bytes, reason: str) -> None:
        """Show why this cannot be imported, and keep it."""
        self._count += 1
        if self._count <= MAX_SHOWN:
            print_error(f"{self._program}: {self._unit} {place}: {reason}")
        self._write((self._frame.separator if self._count > 1 else self._frame.begin) + text)

    def _write(self, data: bytes) -> None:
        if self._path is None:
            return
        try:
            if self._file is None:
                self._file = open(self._path, "xb")  # noqa: PTH123, SIM115 - closed at the end of `kept_in`
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise CommandFailed(f"{self._path} cannot be written: {error.strerror}") from error
