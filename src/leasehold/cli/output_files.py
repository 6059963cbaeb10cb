"""The file, or standard output, that a command writes. A file gets its name once it is complete and durable."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from leasehold.errors import unavailable

if TYPE_CHECKING:
    from pathlib import Path

Write = Callable[[bytes], object]


@contextmanager
def written(output: "Path | None") -> Iterator[Write]:
    """Takes the content of a new file, or of standard output. Raises `unavailable` if it cannot be stored."""
    if output is None:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    try:
        with _new_file(output) as write:
            yield write
    except OSError as error:
        raise unavailable(f"{output} cannot be written: {error.strerror or 'the disk failed'}") from error


@contextmanager
def _new_file(path: "Path") -> Iterator[Write]:
    """A new file. It gets the name `path` at the end, durably, if nothing was raised."""
    from leasehold.engines.file.disk import FILE_MODE, OsDisk

    disk = OsDisk()
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file.write
            file.flush()
            disk.fsync(file.fileno())
        disk.rename(temporary, path)
        disk.sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
