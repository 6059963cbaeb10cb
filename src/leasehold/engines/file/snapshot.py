"""The text of `data.json`: a whole space as one JSON value, one record per line, sorted by name.

    {"leasehold": 1, "incarnation": "5f3a9c", "revision": 42, "entries": [
    {"key":"username","value":"alice","revision":42,"created_at":"…","updated_at":"…"},
    …
    ], "leases": [
    {"lock":"jobs/nightly","lease_id":"8b0c…","token":40,…},
    …
    ], "compacted_revision": 7, "removals": [
    {"kind":"entry","name":"password","revision":41},
    …
    ]}

Each kind has the member `Kind.plural`, in the order of KINDS. Without records it is left out, except that of the first
kind.

`removals` has the removals of all kinds after `compacted_revision`. So all changes after this revision are known: the
removals, and the records with a greater revision. `removals` is left out if it is empty. Both members are left out if
`compacted_revision` is the revision, because then no change is known. A file without both is read in this way: one of
version 0.1.0, a backup, or a list of entries.

Version 0.1.0 wrote no incarnation. A backup (`backups`) ends with a checksum. A file in exactly this layout is read in
blocks of lines, and a search in the values of a block shows whether they must be checked one by one (`checks`).
`documents` reads a file in any other layout as a whole, and reports what is wrong in a file.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

import msgspec

from leasehold.engines.file.checks import add_removal, checked_records, has_duplicates
from leasehold.engines.file.disk import Disk
from leasehold.engines.file.lines import RemovalLine, decode_removals, encode_removal, line_format
from leasehold.engines.state import AnyKindSnapshot, Contents, Snapshot, StoredState
from leasehold.errors import ServiceError
from leasehold.limits import KIB
from leasehold.model import KINDS, AnyKind
from leasehold.progress import Progress
from leasehold.values.steps import Encoded

FORMAT: Final = 1
CHUNK_BYTES: Final = 128 * KIB
"""Bytes to write at a time, plus one line, or a piece of a large one."""
BLOCK_BYTES: Final = 512 * KIB
"""Bytes to read at a time. Larger blocks fragment the memory more: a freed block leaves a gap between the entries."""

INCARNATION: Final = "[0-9a-f]{6}"
_HEAD: Final = re.compile(
    rb'\{"leasehold": 1, (?:"incarnation": "(%b)", )?"revision": (\d{1,19}), "%b": \[\n'
    % (INCARNATION.encode(), KINDS[0].plural.encode())
)
_SEPARATOR: Final = b",\n"
_BOUNDARY: Final = b'\n], "'
"""It does not occur in a line, because the text of a value has no line breaks."""
_NEXT_MEMBER: Final = re.compile(rb'\n\], (?:"compacted_revision": (\d{1,19}), )?"([a-z_]+)": \[\n')
_TAIL: Final = re.compile(rb'\n\](?:, "compacted_revision": (\d{1,19})|, "sha256": "[0-9a-f]{64}")?\}\n\Z')
REMOVALS: Final = "removals"
"""The name of the member."""

# Writing ----------------------------------------------------------------------------------------------------------


def encode_head(incarnation: str, revision: int) -> bytes:
    """The text before the lines of the first kind."""
    return b'{"leasehold": %d, "incarnation": "%b", "revision": %d, "%b": [' % (
        FORMAT,
        incarnation.encode("ascii"),
        revision,
        KINDS[0].plural.encode(),
    )


def snapshot_text(snapshot: Snapshot) -> Iterator[bytes]:
    """The text of `data.json`, in chunks. Raises ServiceError `internal` for an entry that cannot be read."""
    yield encode_head(snapshot.incarnation, snapshot.revision)
    first, *others = snapshot.kinds
    yield from _joined(_record_lines(first))
    for part in others:
        if part.names:
            yield b'\n], "%b": [' % part.kind.plural.encode()
            yield from _joined(_record_lines(part))
    if snapshot.compacted_revision < snapshot.revision:
        yield b'\n], "compacted_revision": %d' % snapshot.compacted_revision
        if any(part.removals for part in snapshot.kinds):
            yield b', "%b": [' % REMOVALS.encode()
            yield from _joined(_removal_lines(snapshot.kinds))
            yield b"\n]"
        yield b"}\n"
    else:
        yield b"\n]}\n"


def _joined(lines: Iterator[Encoded]) -> Iterator[bytes]:
    """Lines as the elements of a list, in chunks.

    Only a join, and writing a chunk, let the event loop run while many megabytes are copied.
    """
    chunk: list[bytes] = []
    size = 0
    separator = b"\n"
    for line in lines:
        chunk.append(separator)
        separator = _SEPARATOR
        for piece in (line,) if isinstance(line, bytes) else line:
            chunk.append(piece)
            size += len(piece)
            if size > CHUNK_BYTES:
                yield b"".join(chunk)
                chunk, size = [], 0
    if chunk:
        yield b"".join(chunk)


def _record_lines(part: AnyKindSnapshot) -> Iterator[Encoded]:
    lines_of = line_format(part.kind)
    return map(lines_of.encode, map(lines_of.by_name(part.records).__getitem__, part.names))


def _removal_lines(kinds: Sequence[AnyKindSnapshot]) -> Iterator[bytes]:
    for part in kinds:
        for name, revision in part.removals.items():
            yield encode_removal(RemovalLine(part.kind.name, name, revision))


# Reading the layout that Leasehold writes -------------------------------------------------------------------------


class AnotherLayoutError(Exception):
    """The file has another layout, or something in it is wrong. `documents` finds the reason and the place."""


def read_lines(disk: Disk, file: int, kinds: Sequence[AnyKind], progress: Progress) -> StoredState:
    """The space in a file with the layout that Leasehold writes. Raises `AnotherLayoutError`, also for any error."""
    return read_blocks(_blocks(disk, file, progress), kinds)


def read_blocks(blocks: Iterator[tuple[bytes, bool]], kinds: Sequence[AnyKind]) -> StoredState:
    """As `read_lines`, for a text in blocks.

    A block has complete lines, joined by commas. The first one begins with the head, and the last one, whose second
    value is True, includes the tail.
    """
    beginning, is_last = next(blocks)
    head = _HEAD.match(beginning)
    if head is None:
        raise AnotherLayoutError
    reader = _LineReader(kinds, int(head[2]), (head[1] or b"").decode("ascii"))
    try:
        reader.read(chain([(beginning[head.end() - 1 :], is_last)], blocks))
    except (msgspec.DecodeError, ValueError, RecursionError, ServiceError) as error:
        raise AnotherLayoutError from error
    return reader.state


def _blocks(disk: Disk, file: int, progress: Progress) -> Iterator[tuple[bytes, bool]]:
    parts: list[bytes] = []  # of a line that is longer than a block
    rest = b""
    while data := disk.read(file, BLOCK_BYTES):
        progress.done += len(data)
        lines, separator, rest = (rest + data).rpartition(_SEPARATOR)
        if separator:
            yield b"".join([*parts, lines]), False
            parts.clear()
        else:
            # The next separator may begin with the last byte, so this one is searched again. The others are not.
            parts.append(rest[:-1])
            rest = rest[-1:]
    yield b"".join([*parts, rest]), True


class _LineReader:
    """Reads the lines of all members into `state`."""

    def __init__(self, kinds: Sequence[AnyKind], revision: int, incarnation: str) -> None:
        self.state = StoredState({kind: Contents() for kind in kinds}, revision, revision, incarnation)
        self._kinds = {kind.plural: kind for kind in kinds}
        self._members_to_come = [*self._kinds, REMOVALS]
        self._counts = dict.fromkeys(kinds, 0)
        self._is_compacted = False
        """`compacted_revision` has been read."""

    def read(self, blocks: Iterable[tuple[bytes, bool]]) -> None:
        """Read all blocks. Raises the errors of the decoders and checks, and `AnotherLayoutError`."""
        member = KINDS[0].plural
        self._begin(member)
        for block, is_last in blocks:
            text = self._without_tail(block) if is_last else block
            while (end := self._take(member, text)) >= 0:
                boundary = _NEXT_MEMBER.match(text, end)
                if boundary is None:
                    raise AnotherLayoutError
                self._take(member, text[:end])
                member = boundary[2].decode("ascii")
                self._begin(member, boundary[1])
                text = text[boundary.end() - 1 :]
        for kind, count in self._counts.items():
            if count and has_duplicates(kind, self.state.by_name(kind), count):
                raise AnotherLayoutError

    def _without_tail(self, block: bytes) -> bytes:
        tail = _TAIL.search(block)
        if tail is None:
            raise AnotherLayoutError
        if tail[1] is not None:
            self._compact(tail[1])
        return block[: tail.start()]

    def _begin(self, member: str, compacted_revision: bytes | None = None) -> None:
        """Check that the members have the right order, and that the compacted revision is before the removals."""
        if member not in self._members_to_come or (compacted_revision is not None) is not (member == REMOVALS):
            raise AnotherLayoutError
        self._members_to_come = self._members_to_come[self._members_to_come.index(member) + 1 :]
        if compacted_revision is not None:
            self._compact(compacted_revision)

    def _compact(self, revision: bytes) -> None:
        self.state.compacted_revision = int(revision)
        if self._is_compacted or self.state.compacted_revision > self.state.revision:
            raise AnotherLayoutError
        self._is_compacted = True

    def _take(self, member: str, text: bytes) -> int:
        """Read lines of a member, joined by commas. Returns -1.

        If they end before the end of `text`, this returns where they end, and has read none of them. The decoder
        notices it, because this text is not a list. A search in each block would take 5 % of the time of reading it.
        """
        try:
            if member == REMOVALS:
                for line in decode_removals(b"[%b]" % text):
                    add_removal(line, self.state)
            else:
                self._take_records(self._kinds[member], text)
        except msgspec.DecodeError:
            end = text.find(_BOUNDARY)
            if end < 0:
                raise
            return end
        return -1

    def _take_records(self, kind: AnyKind, text: bytes) -> None:
        lines_of = line_format(kind)
        lines = lines_of.decode_lines(b"[%b]" % text)
        names = list(map(lines_of.name_of, lines))
        records = checked_records(kind, lines_of.records(lines), names)
        self.state.by_name(kind).update(zip(names, records, strict=True))
        self._counts[kind] += len(lines)
        for revision_of in lines_of.revisions_of:
            if max(map(revision_of, lines), default=0) > self.state.revision:
                raise AnotherLayoutError
