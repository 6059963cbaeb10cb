"""The text of a backup: a `data.json` with entries only, and a checksum at its end.

    {"leasehold": 1, "incarnation": "5f3a9c", "revision": 42, "entries": [
    {"key":"username","value":"alice","revision":42,"created_at":"…","updated_at":"…"},
    …
    ], "sha256": "…"}

So a backup can be read line by line, and the file engine can open it as its `data.json`. Leases are left out, because
they do not survive a restore. Removals are left out, because a restored store has no changes from before the restore.
The checksum covers all bytes before the last line break. A backup without its last line is incomplete.
"""

import hashlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

from leasehold.engines.base import Moment
from leasehold.engines.file.disk import Disk, close_quietly
from leasehold.engines.file.documents import read_snapshot
from leasehold.engines.file.snapshot import encode_head
from leasehold.engines.seals import SEAL, Seal
from leasehold.engines.state import StoredState
from leasehold.errors import ServiceError, unavailable
from leasehold.limits import KIB
from leasehold.model import Entry
from leasehold.values.entry_text import stored_entry_json

CHUNK_BYTES: Final = 64 * KIB
READ_BYTES: Final = 1_024 * KIB


async def backup_text(moment: Moment) -> AsyncGenerator[bytes]:
    """The backup of a moment, in chunks of about CHUNK_BYTES."""
    digest = hashlib.sha256()
    gathered = [encode_head(moment.incarnation, moment.revision)]
    size = len(gathered[0])
    separator = b"\n"
    async with aclosing(moment.pages) as pages:
        async for page in pages:
            for entry in page:
                line = separator + _line(entry)
                separator = b",\n"
                gathered.append(line)
                size += len(line)
                if size > CHUNK_BYTES:
                    text = b"".join(gathered)
                    gathered, size = [], 0
                    digest.update(text)
                    yield text
    text = b"".join(gathered)
    digest.update(text)
    yield text + SEAL % digest.hexdigest().encode()


def _line(entry: Entry) -> bytes:
    try:
        return stored_entry_json(entry)
    except ServiceError as error:
        reason = "has a value that cannot be read: write or delete it, then back up again"
        raise unavailable(f"the entry {entry.key!r} {reason}") from error


def read_backup(disk: Disk, path: Path, now: int) -> StoredState:
    """The content of a backup, or of a copy of a `data.json`, which has no checksum.

    Raises `unavailable` for a file that is damaged, cut off, or not a backup.
    """
    try:
        file = disk.open(path)
        try:
            seal = Seal()
            for data in _blocks(disk, file):
                seal.take(data)
        finally:
            close_quietly(disk, file)
        if seal.is_present:
            seal.check(path.name)
        state = read_snapshot(disk, path, now)
    except OSError as error:
        raise unavailable(f"{path.name} cannot be read: {error.strerror or 'the disk failed'}") from error
    except ServiceError as error:
        raise unavailable(f"nothing was restored: {error.message}") from error
    if state.foreign:
        raise unavailable(f"nothing was restored: {path.name} is not a backup of Leasehold")
    return state


def _blocks(disk: Disk, file: int) -> Iterator[bytes]:
    return iter(lambda: disk.read(file, READ_BYTES), b"")
