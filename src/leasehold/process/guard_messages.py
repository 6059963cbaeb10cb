"""What a guard and the process that started it write to each other: lines of a word and its numbers, through pipes.

| order to the guard | |
|---|---|
| `deadline SECONDS` | the lease was renewed, and certainly lasts until then (`boot_clock`) |
| `lost` | the lease is over |
| `signal NUMBER` | send this signal to the group of the command |

| report of the guard | |
|---|---|
| `started GROUP` | the command starts, in this process group |
| `failed CODE MESSAGE` | the command cannot be run; the last report |
| `stopped NUMBER COUNT` | the command was stopped by this signal, after COUNT orders to continue it |
| `lost` | the command is told to end because the lease ends |
| `ended CODE IS_LEFT` | the last report. CODE as a shell has it, or `?`. IS_LEFT: 1 if processes of it may still run |
"""

import os
import select
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

READ_BYTES: Final = 4096


def write(pipe: int, word: str, *values: object) -> None:
    """Write a line. A reader that has ended, or that has not read for thousands of lines, is no error here.

    A line is not longer than PIPE_BUF (512 bytes or more), so lines of several threads do not mix.
    """
    with suppress(BrokenPipeError, BlockingIOError):
        os.write(pipe, f"{' '.join((word, *map(str, values)))}"[:500].replace("\n", " ").encode() + b"\n")


class Lines:
    """The reading end of a pipe."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self.is_over = False
        """Whether the writer has ended."""
        self._rest = b""

    def read(self) -> Iterator[Sequence[str]]:
        """The lines that have come, split into words. Does not wait."""
        while not self.is_over and select.select([self.pipe], [], [], 0)[0]:
            received = os.read(self.pipe, READ_BYTES)
            self.is_over = not received
            *lines, self._rest = (self._rest + received).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace").split(" ")
