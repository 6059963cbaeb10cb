"""`leasehold` with a planted bug in its file operations: `python planted_disk.py BUG serve …`."""

import os
import sys
from collections.abc import Callable
from unittest.mock import patch

from leasehold.cli.app import main
from leasehold.engines.file.disk import OsDisk, pwrite_all
from leasehold.engines.file.journal import JournalWriter


def no_fsync() -> None:
    """Nothing is ever synced."""
    for name in ("fsync", "fdatasync"):
        patch.object(os, name, lambda _file: None).start()


def no_folder_fsync() -> None:
    """A new file name may be lost."""
    patch.object(OsDisk, "sync_folder", lambda _disk, _folder: None).start()


def answer_before_fsync() -> None:
    """A record of the journal becomes durable only with the next one."""

    def append(writer: JournalWriter, record: bytes) -> None:
        if writer.end + len(record) > writer._allocated:
            writer._allocate(writer.end + len(record))
        writer._disk.fdatasync(writer._file)
        pwrite_all(writer._disk, writer._file, record, writer.end)
        writer.end += len(record)

    patch.object(JournalWriter, "append", append).start()


BUGS: dict[str, Callable[[], None]] = {
    "no-fsync": no_fsync,
    "no-folder-fsync": no_folder_fsync,
    "answer-before-fsync": answer_before_fsync,
}

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    main()
