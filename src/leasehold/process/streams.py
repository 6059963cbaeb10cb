"""Standard input, output and error, which may be closed, full, or without a reader.

What a command prints is lost then, and the command says so. The service goes on: its ready line is news for whoever
has started it, and no condition for serving.
"""

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
    """Standard output did not take what was printed."""


class _Output(io.FileIO):
    """Standard output, whose failures are told from those of files."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from error


def hold_standard_streams() -> None:
    """Keep the numbers of closed streams, before a socket or a file of the store gets them.

    What is printed to a closed standard output still fails, so that it is told; standard error takes all and drops it.
    """
    for number in (STANDARD_INPUT, STANDARD_OUTPUT, STANDARD_ERROR):
        try:
            os.fstat(number)
        except OSError:
            # This gets the lowest number that is free, which is the one.
            os.open(os.devnull, os.O_WRONLY if number == STANDARD_ERROR else os.O_RDONLY)
    encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
    output = io.BufferedWriter(_Output(STANDARD_OUTPUT, "w", closefd=False))
    sys.stdout = io.TextIOWrapper(output, encoding=encoding, line_buffering=os.isatty(STANDARD_OUTPUT))
    if sys.stderr is None:
        sys.stderr = os.fdopen(STANDARD_ERROR, "w", closefd=False)


def print_now(line: str) -> None:
    """Print a line to standard output, at once or not at all. Raises OSError; BlockingIOError where it would wait."""
    if not select.select([], [STANDARD_OUTPUT], [], 0)[1]:
        raise BlockingIOError
    os.write(STANDARD_OUTPUT, f"{line}\n".encode())


def complain(line: str) -> None:
    """Print a line to standard error, if that is possible: there is nowhere else to say that it is not."""
    with suppress(OSError):
        os.write(STANDARD_ERROR, f"{line}\n".encode("utf-8", "backslashreplace"))


@contextmanager
def told_failures() -> Iterator[None]:
    """Whatever prints inside: what standard output does not take raises `unavailable`."""
    try:
        yield
        sys.stdout.flush()
    except OutputError as error:
        # What is left in the buffer would be tried again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_OUTPUT)
        raise unavailable(f"standard output cannot be written: {error.strerror}") from error
