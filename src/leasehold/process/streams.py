"""Standard input, output and error. Each may be closed, full or without a reader.

If a command cannot print, it fails and reports that. The service goes on: its ready line is for the program that
started it, and serving does not depend on it.
"""

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from leasehold.errors import unavailable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD_INPUT: Final = 0
STANDARD_OUTPUT: Final = 1
STANDARD_ERROR: Final = 2


class OutputError(OSError):
    """Standard output did not accept what was printed."""


class NoReaderError(Exception):
    """The program that read standard output has ended, as `head` does. A command ends as SIGPIPE would end it."""


class _Output(io.FileIO):
    """Standard output that raises OutputError, so that its failures differ from those of files."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from error


def hold_standard_streams() -> None:
    """Occupy the descriptor numbers of closed standard streams, before a socket or a file of the store gets one.

    Printing to a closed standard output still fails, so that it is reported. A closed standard error discards
    everything.
    """
    for number in (STANDARD_INPUT, STANDARD_OUTPUT, STANDARD_ERROR):
        try:
            os.fstat(number)
        except OSError:
            # `open` returns the lowest free number, which is this one.
            os.open(os.devnull, os.O_WRONLY if number == STANDARD_ERROR else os.O_RDONLY)
    encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
    output = io.BufferedWriter(_Output(STANDARD_OUTPUT, "w", closefd=False))
    sys.stdout = io.TextIOWrapper(output, encoding=encoding, line_buffering=os.isatty(STANDARD_OUTPUT))
    if sys.stderr is None:
        sys.stderr = os.fdopen(STANDARD_ERROR, "w", closefd=False)


def print_now(line: str) -> None:
    """Print a line to standard output without waiting. Raises OSError; BlockingIOError if it would have to wait."""
    if not select.select([], [STANDARD_OUTPUT], [], 0)[1]:
        raise BlockingIOError
    os.write(STANDARD_OUTPUT, f"{line}\n".encode())


def print_error(line: str) -> None:
    """Print a line to standard error. A failure is ignored, because there is no other place to report it."""
    with suppress(OSError):
        os.write(STANDARD_ERROR, f"{line}\n".encode("utf-8", "backslashreplace"))


@contextmanager
def translate_output_errors() -> Iterator[None]:
    """Raise `unavailable` if standard output does not accept what is printed in the `with` block, or NoReaderError."""
    try:
        yield
        sys.stdout.flush()
    except OutputError as error:
        # Otherwise the interpreter would try to write the rest of the buffer again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_OUTPUT)
        if error.errno == errno.EPIPE:
            raise NoReaderError from error
        raise unavailable(f"standard output cannot be written: {error.strerror}") from error
