"""The text of a backup: a `data.json` with entries only, and a checksum at its end.

    {"leasehold": 1, "incarnation": "5f3a9c", "revision": 42, "entries": [
    {"key":"username","value":"alice","revision":42,"created_at":"…","updated_at":"…"},
    …
    ], "sha256": "…"}

So a backup can be read line by line, and the file engine can open it as its `data.json`. Leases are left out, because
they do not survive a restore. Removals are left out, because a restored store has no changes from before the restore.
The checksum covers all bytes before the last line break. A backup without its last line is incomplete.

A backup of several namespaces has such a text, without a checksum, for each of them that exists. Of the others it has
the revision, so that no revision is given out again after a restore:

    {"leasehold_backup": 1, "namespaces": [
    {"namespace":"default","data":
    {"leasehold": 1, "incarnation": "5f3a9c", "revision": 42, "entries": [
    …
    ]}
    },
    {"namespace":"team-a","created_at":"…","max_entries":1000,"data":
    …
    },
    {"namespace":"team-b","deleted_at_revision":12}
    ], "sha256": "…"}
"""

import hashlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec

from leasehold.engines.base import Moment
from leasehold.engines.file.disk import Disk, close_quietly
from leasehold.engines.file.documents import read_snapshot
from leasehold.engines.file.namespaces_file import BACKUP_HEAD, DATA, encode_line, read_several
from leasehold.engines.file.snapshot import encode_head
from leasehold.engines.seals import SEAL, Seal
from leasehold.engines.state import Description, StoredState
from leasehold.errors import ServiceError, unavailable
from leasehold.limits import KIB
from leasehold.model import ENTRY, Entry
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.values.entry_text import stored_entry_json
from leasehold.values.steps import Encoded, pieces_of

CHUNK_BYTES: Final = 64 * KIB
READ_BYTES: Final = 1_024 * KIB
_BEGINNING_OF_SEVERAL: Final = re.compile(rb'\s*\{\s*"leasehold_backup"\s*:')


class StoreMoment(msgspec.Struct, frozen=True):
    """All namespaces of a store at one moment.

    `moment_of` is called for each one that exists, in the order of `namespaces`, after the pages of the one before it
    were read.
    """

    namespaces: Mapping[str, Description]
    moment_of: Callable[[str], Coroutine[object, object, Moment]]

    @property
    def has_several(self) -> bool:
        """There is, or was, something beside the entries of `default`."""
        return self.namespaces != {DEFAULT_NAMESPACE: Description()}


Keep = Callable[[StoreMoment], Awaitable[Path]]
"""Saves what will be replaced. Returns the path of the file."""


class Backup(msgspec.Struct):
    """What a backup has. `states` are those of the namespaces that exist.

    `has_several`: the backup says what the namespaces are. Otherwise it has the entries of one, and calls it `default`.
    """

    namespaces: Mapping[str, Description]
    states: Mapping[str, StoredState]
    has_several: bool

    @property
    def entries(self) -> int:
        """The number of entries in all namespaces."""
        return sum(len(state.of(ENTRY).by_name) for state in self.states.values())


async def backup_text(moment: Moment) -> AsyncGenerator[bytes]:
    """The backup of a moment, in chunks of about CHUNK_BYTES."""
    async with aclosing(_sealed(_text_of(moment))) as chunks:
        async for chunk in chunks:
            yield chunk


async def store_backup_text(store: StoreMoment) -> AsyncGenerator[bytes]:
    """The backup of all namespaces. If there is only `default`, it is the same as that of `default`."""
    text = _text_of_several(store) if store.has_several else _text_of(await store.moment_of(DEFAULT_NAMESPACE))
    async with aclosing(_sealed(text)) as chunks:
        async for chunk in chunks:
            yield chunk


async def _sealed(text: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The text, and its checksum."""
    digest = hashlib.sha256()
    async with aclosing(text):
        async for chunk in text:
            digest.update(chunk)
            yield chunk
    yield SEAL % digest.hexdigest().encode()


async def _text_of_several(store: StoreMoment) -> AsyncGenerator[bytes]:
    """All before the checksum."""
    yield BACKUP_HEAD
    separator = b"\n"
    for name, description in store.namespaces.items():
        line = separator + encode_line(name, description)
        separator = b",\n"
        if description.is_deleted:
            yield line
            continue
        yield line[:-1] + DATA + b"\n"
        async with aclosing(_text_of(await store.moment_of(name))) as chunks:
            async for chunk in chunks:
                yield chunk
        yield b"\n]}\n}"


async def _text_of(moment: Moment) -> AsyncGenerator[bytes]:
    """All before the end of the entries, in chunks of about CHUNK_BYTES."""
    gathered = [encode_head(moment.incarnation, moment.revision)]
    size = len(gathered[0])
    separator = b"\n"
    async with aclosing(moment.pages) as pages:
        async for page in pages:
            for entry in page:
                gathered.append(separator)
                separator = b",\n"
                for piece in pieces_of(_line(entry)):
                    gathered.append(piece)
                    size += len(piece)
                    if size > CHUNK_BYTES:
                        yield b"".join(gathered)
                        gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)  # never empty: an empty chunk ends the body of a response


def _line(entry: Entry) -> Encoded:
    try:
        return stored_entry_json(entry)
    except ServiceError as error:
        reason = "has a value that cannot be read: write or delete it, then back up again"
        raise unavailable(f"the entry {entry.key!r} {reason}") from error


def read_backup(disk: Disk, path: Path, now: int) -> Backup:
    """The content of a backup, or of a copy of a `data.json`, which has no checksum.

    Raises `unavailable` for a file that is damaged, cut off, or not a backup.
    """
    try:
        file = disk.open(path)
        try:
            seal = Seal()
            beginning = b""
            for data in _blocks(disk, file):
                beginning = beginning or data
                seal.take(data)
        finally:
            close_quietly(disk, file)
        if seal.is_present:
            seal.check(path.name)
        if _BEGINNING_OF_SEVERAL.match(beginning):
            found = read_several(disk, path)
            return Backup(found.descriptions, found.states, has_several=True)
        state = read_snapshot(disk, path, now)
    except OSError as error:
        raise unavailable(f"{path.name} cannot be read: {error.strerror or 'the disk failed'}") from error
    except ServiceError as error:
        raise unavailable(f"nothing was restored: {error.message}") from error
    if state.foreign:
        raise unavailable(f"nothing was restored: {path.name} is not a backup of Leasehold")
    return Backup({DEFAULT_NAMESPACE: Description()}, {DEFAULT_NAMESPACE: state}, has_several=False)


def _blocks(disk: Disk, file: int) -> Iterator[bytes]:
    return iter(lambda: disk.read(file, READ_BYTES), b"")
