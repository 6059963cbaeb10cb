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

A file in exactly this layout is read namespace by namespace, in blocks of lines. A file in any other layout is read as
a whole, which also finds the reason if something is wrong.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from leasehold.engines.file.disk import Disk, close_quietly, read_all
from leasehold.engines.file.documents import read_part
from leasehold.engines.file.namespaces import Head, NamespacesSnapshot, StoredNamespaces
from leasehold.engines.file.snapshot import BLOCK_BYTES, INCARNATION, AnotherLayoutError, read_blocks, snapshot_text
from leasehold.engines.state import StoredState
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
_DATA: Final = b',"data":'
_END: Final = b"}\n}"
"""The end of a text and of its namespace. Within a text, no line begins with a brace that closes."""


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


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_any_line = msgspec.json.Decoder(_AnyLine).decode
_decode_any_file = msgspec.json.Decoder(_AnyFile).decode


# Writing ----------------------------------------------------------------------------------------------------------


def namespaces_text(snapshot: NamespacesSnapshot) -> Iterator[bytes]:
    """The text of the file, in chunks. Raises ServiceError `internal` for an entry that cannot be read."""
    yield b'{"leasehold_namespaces": %d, "log": "%b", "sequence": %d, "namespaces": [' % (
        FORMAT,
        snapshot.log.encode("ascii"),
        snapshot.sequence,
    )
    separator = b"\n"
    for name, head in sorted(snapshot.heads.items()):
        line = separator + _encode(_line_of(name, head))
        separator = b",\n"
        data = snapshot.snapshots.get(name)
        if data is None:
            yield line
            continue
        yield line[:-1] + _DATA + b"\n"
        yield from snapshot_text(data)
        yield b"}"
    yield b"\n]}\n"


def _line_of(name: str, head: Head) -> _Line:
    if head.is_deleted:
        return _Line(name, deleted_at_revision=head.revision)
    return _Line(name, None, format_time(head.created_at), head.max_entries, head.max_bytes)


# Reading ----------------------------------------------------------------------------------------------------------


def read_namespaces(disk: Disk, path: Path, progress: Progress) -> StoredNamespaces:
    """Read the file. Without it, there are no namespaces. Raises `unavailable` for an invalid file, and OSError."""
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return StoredNamespaces()
    try:
        with suppress(AnotherLayoutError):
            return _Reader(disk, file, progress).read()
    finally:
        close_quietly(disk, file)
    progress.begin(f"decoding {path.name}, which has another layout than Leasehold writes")
    return _read_any_layout(read_all(disk, path), path.name)


class _Reader:
    """Reads a file with the layout that Leasehold writes. Raises AnotherLayoutError, also for any error."""

    def __init__(self, disk: Disk, file: int, progress: Progress) -> None:
        self._disk = disk
        self._file = file
        self._progress = progress
        self._text = b""
        self._position = 0
        """Up to here, `_text` has been read."""
        self._found = StoredNamespaces()

    def read(self) -> StoredNamespaces:
        self._more()
        head = _HEAD.match(self._text)
        if head is None or int(head[1]) != FORMAT:
            raise AnotherLayoutError
        self._position = head.end()
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
        if line == b"]}" and not self._found.heads:
            return self._is_at_end()
        if line.endswith(_DATA):
            _add(self._found, _decode_line(line[: -len(_DATA)] + b"}"), read_blocks(self._blocks(), KINDS))
            ending = self._rest_of_line()
        else:
            ending = line[-1:] if line.endswith(b"},") else b""
            _add(self._found, _decode_line(line[: len(line) - len(ending)]), None)
            ending = b"}" + ending
        if ending == b"},":
            return False
        if ending != b"}" or self._rest_of_line() != b"]}":
            raise AnotherLayoutError
        return self._is_at_end()

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


def _add(found: StoredNamespaces, line: _Line, data: StoredState | None) -> None:
    """Add a namespace. Raises ServiceError if its line is wrong, and ValueError for a wrong time."""
    name = line.namespace
    if not is_valid_namespace(name) or name in found.heads:
        raise _wrong("the name is not valid, or occurs twice")
    if line.deleted_at_revision is not None:
        if data is not None or line.deleted_at_revision < 0 or name == DEFAULT_NAMESPACE:
            raise _wrong("it is deleted, and also has data")
        found.heads[name] = Head(line.deleted_at_revision)
        return
    if line.created_at is None or (data is None) is not (name == DEFAULT_NAMESPACE):
        raise _wrong("created_at or data is missing")
    incarnation = DEFAULT_NAMESPACE if data is None else data.incarnation
    if not incarnation:
        raise _wrong("its incarnation is missing")
    if min(line.max_entries or 0, line.max_bytes or 0) < 0:
        raise _wrong("its quota is negative")
    revision = 0 if data is None else data.revision
    found.heads[name] = Head(revision, incarnation, parse_time(line.created_at), line.max_entries, line.max_bytes)
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
    position = 0
    for raw in whole.namespaces:
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
            _add(found, line, data)
        except (ServiceError, ValueError) as error:
            reason = error.message if isinstance(error, ServiceError) else "its created_at is not a time"
            raise _refused(file, f"line {line_number}: namespace {line.namespace!r}: {reason}") from error
    return found


def _refused(file: str, reason: str) -> ServiceError:
    return unavailable(f"{file} cannot be used: {reason}; it was not changed")
