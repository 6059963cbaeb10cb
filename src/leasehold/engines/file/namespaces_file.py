"""The text of `data.json.namespaces`: all namespaces except `default`, each with a text as in `data.json`.

    {"leasehold_namespaces": 1, "log": "b1946a", "sequence": 57, "namespaces": [
    {"namespace":"team-a","created_at":"…","max_entries":1000,"data":
    {"leasehold": 1, "incarnation": "5f3a9c", "revision": 42, "entries": [
    {"key":"username","value":"alice","revision":42,"created_at":"…","updated_at":"…"}
    ]}
    },
    {"namespace":"team-b","deleted_at_revision":12}
    ]}

They are in one file, because a thousand files would take longer to open than to read. `log` and `sequence` say which
changes the file includes (`namespaces`). The line of `default`, if there is one, has its quota and no data.

A backup of several namespaces has nearly the same layout. There `default` has data, too (`engines.backups`).

A file in exactly this layout is read namespace by namespace, in blocks of lines. A file in any other layout is read as
a whole, which also finds the reason if something is wrong.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from leasehold.engines.file.disk import Disk, close_quietly, read_all
from leasehold.engines.file.documents import read_part
from leasehold.engines.file.namespaces import Head, NamespacesSnapshot, StoredNamespaces
from leasehold.engines.file.snapshot import BLOCK_BYTES, INCARNATION, AnotherLayoutError, read_blocks, snapshot_text
from leasehold.engines.state import Description, Snapshot, StoredState, snapshot_of
from leasehold.errors import ServiceError, unavailable
from leasehold.model import KINDS
from leasehold.namespaces import DEFAULT_NAMESPACE, is_valid_namespace
from leasehold.progress import Progress
from leasehold.times import format_time, parse_time

FORMAT: Final = 1

_HEAD: Final = re.compile(
    rb'\{"leasehold_namespaces": (\d{1,9}), "log": "(%b)", "sequence": (\d{1,18}), "namespaces": \[\n'
    % INCARNATION.encode()
)
DATA: Final = b',"data":'
_END: Final = b"}\n}"
"""The end of a text and of its namespace. Within a text, no line begins with a brace that closes."""
_TAIL: Final = re.compile(rb"\]\}")
BACKUP_HEAD: Final = b'{"leasehold_backup": %d, "namespaces": [' % FORMAT
"""The beginning of a backup of several namespaces."""
_BACKUP_HEAD: Final = re.compile(rb'\{"leasehold_backup": (\d{1,9}), "namespaces": \[\n')
_BACKUP_TAIL: Final = re.compile(rb'\](?:, "sha256": "[0-9a-f]{64}")?\}')


class _Line(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A namespace without its data."""

    namespace: str
    deleted_at_revision: int | None = None
    created_at: str | None = None
    max_entries: int | None = None
    max_bytes: int | None = None


class _AnyLine(_Line, forbid_unknown_fields=True):
    """A namespace as it is in an edited file."""

    data: msgspec.Raw = msgspec.Raw()


class _AnyFile(msgspec.Struct, forbid_unknown_fields=True):
    """The whole of an edited file."""

    leasehold_namespaces: int
    log: str
    sequence: int
    namespaces: list[msgspec.Raw]


class _AnyBackup(msgspec.Struct, forbid_unknown_fields=True):
    """The whole of an edited backup."""

    leasehold_backup: int
    namespaces: list[msgspec.Raw]
    sha256: str | None = None


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_any_line = msgspec.json.Decoder(_AnyLine).decode
_decode_any_file = msgspec.json.Decoder(_AnyFile).decode
_decode_any_backup = msgspec.json.Decoder(_AnyBackup).decode


# Writing ----------------------------------------------------------------------------------------------------------


def encode_line(name: str, description: Description) -> bytes:
    """A namespace without its data, as a JSON object."""
    if description.deleted_at_revision is not None:
        return _encode(_Line(name, deleted_at_revision=description.deleted_at_revision))
    quota, created_at = description.quota, description.created_at
    created = None if created_at is None else format_time(created_at)
    return _encode(_Line(name, None, created, quota.max_entries, quota.max_bytes))


def namespaces_text(snapshot: NamespacesSnapshot) -> Iterator[bytes]:
    """The text of the file, in chunks. Raises ServiceError `internal` for an entry that cannot be read."""
    yield b'{"leasehold_namespaces": %d, "log": "%b", "sequence": %d, "namespaces": [' % (
        FORMAT,
        snapshot.log.encode("ascii"),
        snapshot.sequence,
    )
    yield from _lines({name: head.description for name, head in snapshot.heads.items()}, snapshot.snapshots)
    yield b"\n]}\n"


def whole_text(snapshot: Snapshot, others: StoredNamespaces) -> Iterator[bytes]:
    """All namespaces with everything, `default` included, as a backup without a checksum (`engines.backups`)."""
    yield BACKUP_HEAD
    snapshots = {name: snapshot_of(state) for name, state in others.states.items()}
    yield from _lines(others.descriptions, {DEFAULT_NAMESPACE: snapshot, **snapshots})
    yield b"\n]}\n"


def _lines(descriptions: Mapping[str, Description], snapshots: Mapping[str, Snapshot]) -> Iterator[bytes]:
    separator = b"\n"
    for name, description in sorted(descriptions.items()):
        line = separator + encode_line(name, description)
        separator = b",\n"
        data = snapshots.get(name)
        if data is None:
            yield line
            continue
        yield line[:-1] + DATA + b"\n"
        yield from snapshot_text(data)
        yield b"}"


# Reading ----------------------------------------------------------------------------------------------------------


def read_namespaces(disk: Disk, path: Path, progress: Progress) -> StoredNamespaces:
    """Read the file. Without it, there are no namespaces. Raises `unavailable` for an invalid file, and OSError."""
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return StoredNamespaces()
    try:
        with suppress(AnotherLayoutError):
            return _Reader(disk, file, progress, is_backup=False).read()
    finally:
        close_quietly(disk, file)
    progress.begin(f"decoding {path.name}, which has another layout than Leasehold writes")
    return _read_any_layout(read_all(disk, path), path.name)


def read_several(disk: Disk, path: Path) -> StoredNamespaces:
    """The namespaces in a backup of several, `default` included. Raises `unavailable` and OSError."""
    file = disk.open(path)
    try:
        with suppress(AnotherLayoutError):
            found = _Reader(disk, file, Progress(), is_backup=True).read()
            if DEFAULT_NAMESPACE in found.states:
                return found
    finally:
        close_quietly(disk, file)
    return _read_any_backup(read_all(disk, path), path.name)


class _Reader:
    """Reads a file with the layout that Leasehold writes. Raises AnotherLayoutError, also for any error."""

    def __init__(self, disk: Disk, file: int, progress: Progress, *, is_backup: bool) -> None:
        self._is_backup = is_backup
        self._tail = _BACKUP_TAIL if is_backup else _TAIL
        self._disk = disk
        self._file = file
        self._progress = progress
        self._text = b""
        self._position = 0
        """Up to here, `_text` has been read."""
        self._found = StoredNamespaces()

    def read(self) -> StoredNamespaces:
        self._more()
        head = (_BACKUP_HEAD if self._is_backup else _HEAD).match(self._text)
        if head is None or int(head[1]) != FORMAT:
            raise AnotherLayoutError
        self._position = head.end()
        if not self._is_backup:
            self._found.log, self._found.sequence = head[2].decode("ascii"), int(head[3])
        is_last = False
        try:
            while not is_last:
                is_last = self._read_namespace()
        except (msgspec.DecodeError, ValueError, RecursionError, ServiceError) as error:
            raise AnotherLayoutError from error
        return self._found

    def _more(self) -> bool:
        """Read a block. False at the end of the file."""
        data = self._disk.read(self._file, BLOCK_BYTES)
        self._progress.done += len(data)
        self._text = self._text[self._position :] + data
        self._position = 0
        return bool(data)

    def _rest_of_line(self) -> bytes:
        while (end := self._text.find(b"\n", self._position)) < 0:
            if not self._more():
                raise AnotherLayoutError
        line = self._text[self._position : end]
        self._position = end + 1
        return line

    def _read_namespace(self) -> bool:
        """Read the next one. Returns whether it is the last one."""
        line = self._rest_of_line()
        if not self._found.heads and self._tail.fullmatch(line):
            return self._is_at_end()
        if line.endswith(DATA):
            self._add(line[: -len(DATA)] + b"}", read_blocks(self._blocks(), KINDS))
            ending = self._rest_of_line()
        else:
            ending = line[-1:] if line.endswith(b"},") else b""
            self._add(line[: len(line) - len(ending)], None)
            ending = b"}" + ending
        if ending == b"},":
            return False
        if ending != b"}" or not self._tail.fullmatch(self._rest_of_line()):
            raise AnotherLayoutError
        return self._is_at_end()

    def _add(self, line: bytes, data: StoredState | None) -> None:
        _add(self._found, _decode_line(line), data, is_backup=self._is_backup)

    def _is_at_end(self) -> bool:
        if self._position < len(self._text) or self._more():
            raise AnotherLayoutError
        return True

    def _blocks(self) -> Iterator[tuple[bytes, bool]]:
        """The text of a namespace, as `snapshot.read_blocks` takes it."""
        while (end := self._text.find(_END, self._position)) < 0:
            lines, separator, after = self._text[self._position :].rpartition(b",\n")
            if separator:
                yield lines, False
                self._text, self._position = after, 0
            if not self._more():
                raise AnotherLayoutError
        text = self._text[self._position : end + 2]
        self._position = end + 2
        yield text, True


def _add(found: StoredNamespaces, line: _Line, data: StoredState | None, *, is_backup: bool) -> None:
    """Add a namespace. Raises ServiceError if its line is wrong, and ValueError for a wrong time."""
    name = line.namespace
    if not is_valid_namespace(name) or name in found.heads:
        raise _wrong("the name is not valid, or occurs twice")
    if line.deleted_at_revision is not None:
        if data is not None or line.deleted_at_revision < 0 or name == DEFAULT_NAMESPACE:
            raise _wrong("it is deleted, and also has data")
        found.heads[name] = Head(line.deleted_at_revision)
        return
    is_default = name == DEFAULT_NAMESPACE
    if (line.created_at is None and not (is_default and is_backup)) or (data is None) is not (
        is_default and not is_backup
    ):
        raise _wrong("created_at or data is missing")
    incarnation = DEFAULT_NAMESPACE if is_default or data is None else data.incarnation
    if not incarnation:
        raise _wrong("its incarnation is missing")
    if min(line.max_entries or 0, line.max_bytes or 0) < 0:
        raise _wrong("its quota is negative")
    revision = 0 if is_default or data is None else data.revision
    created_at = 0 if line.created_at is None else parse_time(line.created_at)
    found.heads[name] = Head(revision, incarnation, created_at, line.max_entries, line.max_bytes)
    if data is not None:
        found.states[name] = data


def _wrong(reason: str) -> ServiceError:
    return unavailable(reason)


def _read_any_layout(text: bytes, file: str) -> StoredNamespaces:
    try:
        whole = _decode_any_file(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(file, "it is not as Leasehold writes it") from error
    if whole.leasehold_namespaces != FORMAT:
        raise _refused(file, f"format {whole.leasehold_namespaces} is of another version of Leasehold")
    if re.fullmatch(INCARNATION, whole.log) is None or whole.sequence < 0:
        raise _refused(file, "its log or its sequence is wrong")
    found = StoredNamespaces(whole.log, whole.sequence)
    _add_all(found, whole.namespaces, text, file, is_backup=False)
    return found


def _read_any_backup(text: bytes, file: str) -> StoredNamespaces:
    try:
        whole = _decode_any_backup(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(file, "it is not as Leasehold writes it") from error
    if whole.leasehold_backup != FORMAT:
        raise _refused(file, f"format {whole.leasehold_backup} is of another version of Leasehold")
    if whole.sha256 is not None:
        raise _refused(file, "it is a backup that was edited: if that was intended, remove the member sha256")
    found = StoredNamespaces()
    _add_all(found, whole.namespaces, text, file, is_backup=True)
    if DEFAULT_NAMESPACE not in found.states:
        raise _refused(file, f"it has no namespace {DEFAULT_NAMESPACE}")
    return found


def _add_all(
    found: StoredNamespaces, namespaces: Sequence[msgspec.Raw], text: bytes, file: str, *, is_backup: bool
) -> None:
    """Add the namespaces, which are in `text`. Raises `unavailable`, with the line in the file."""
    position = 0
    for raw in namespaces:
        position = max(text.find(bytes(raw), position), 0)
        line_number = text.count(b"\n", 0, position) + 1
        try:
            line = _decode_any_line(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _refused(file, f"line {line_number}: the namespace is not as Leasehold writes it") from error
        data = None
        if line.data:
            begin = max(text.find(bytes(line.data), position), 0)
            data = read_part(bytes(line.data), file, lines_before=text.count(b"\n", 0, begin))
        try:
            _add(found, line, data, is_backup=is_backup)
        except (ServiceError, ValueError) as error:
            reason = error.message if isinstance(error, ServiceError) else "its created_at is not a time"
            raise _refused(file, f"line {line_number}: namespace {line.namespace!r}: {reason}") from error


def _refused(file: str, reason: str) -> ServiceError:
    return unavailable(f"{file} cannot be used: {reason}; it was not changed")
