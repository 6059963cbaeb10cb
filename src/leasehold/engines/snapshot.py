"""The text of `data.json`: the whole store as one JSON value, one entry a line, ascending by key.

    {"leasehold": 1, "incarnation": "5f3a9c", "revision": 42, "entries": [
    {"key":"username","value":"alice","revision":42,"created_at":"…","updated_at":"…"},
    …
    ], "leases": [
    {"lock":"jobs/nightly","lease_id":"8b0c…","token":40,…},
    …
    ]}

Without leases the member is left out. Version 0.1.0 wrote no incarnation. A backup (`backups`) ends with a checksum.
A file in exactly this layout is read in blocks of lines, without looking into the values again: they were checked when
they were written. The same document in another layout (an editor, a formatter) is accepted and checked, and so is a
plain object of another tool, `{"username": "alice"}`, whose members become entries. Anything else is refused.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import msgspec

from leasehold import values
from leasehold.engines.disk import Disk, close_quietly
from leasehold.entry_text import entry_json
from leasehold.errors import ServiceError
from leasehold.keys import check_key
from leasehold.limits import KIB
from leasehold.model import Entry, Lease
from leasehold.times import format_time, parse_time

FORMAT: Final = 1
CHUNK_ENTRIES: Final = 1_000
"""Encoded at a time (0.5 ms), so that the event loop gets its turns while a large store is written."""
BLOCK_BYTES: Final = 512 * KIB
"""Read at a time. Small, because what a block leaves behind lies between the entries that stay in memory."""

LINE_BYTES: Final = 128
"""About what a line of `data.json` has besides key and value."""

INCARNATION: Final = "[0-9a-f]{6}"
_HEAD: Final = re.compile(
    rb'\{"leasehold": 1, (?:"incarnation": "(%b)", )?"revision": (\d{1,19}), "entries": \[\n' % INCARNATION.encode()
)
_SEPARATOR: Final = b",\n"
_LEASES: Final = b'\n], "leases": [\n'
"""No line holds it: in the text of a value there is no line break."""
_TAIL: Final = re.compile(rb'\n\](?:, "sha256": "[0-9a-f]{64}")?\}\n\Z')


class Snapshot(msgspec.Struct, frozen=True):
    """A store at one revision, to be written. `keys` are sorted and are those of `entries`, which need no order.

    `leases` ascend by their locks.
    Taken so, because a million references copy in 30 ms on the event loop; putting them in order is left to the
    thread that writes.
    """

    incarnation: str
    revision: int
    keys: Sequence[str]
    entries: Sequence[Entry]
    leases: Sequence[Lease] = ()

    def chunks(self) -> Iterator[bytes]:
        """The text, in pieces."""
        by_key = {entry.key: entry for entry in self.entries}
        keys = iter(self.keys)
        yield encode_head(self.incarnation, self.revision)
        separator = b"\n"
        while chunk := [entry_json(by_key[key]) for key in islice(keys, CHUNK_ENTRIES)]:
            yield separator + _SEPARATOR.join(chunk)
            separator = _SEPARATOR
        if self.leases:
            yield _LEASES + _SEPARATOR.join(map(_lease_json, self.leases))
        yield b"\n]}\n"


def encode_head(incarnation: str, revision: int) -> bytes:
    name = incarnation.encode("ascii")
    return b'{"leasehold": %d, "incarnation": "%b", "revision": %d, "entries": [' % (FORMAT, name, revision)


def _lease_json(lease: Lease) -> bytes:
    return _encode_line(
        _LeaseLine(
            lease.lock,
            lease.lease_id,
            lease.token,
            lease.revision,
            format_time(lease.acquired_at),
            format_time(lease.expires_at),
            lease.ttl,
            lease.holder,
            msgspec.Raw(lease.owner),
        )
    )


class StoredState(msgspec.Struct, gc=False):
    """What files hold: entries by key and leases by lock, at `revision`. `foreign`: another tool wrote them.

    `incarnation` is empty where the files do not have one yet.
    """

    entries: dict[str, Entry]
    revision: int = 0
    foreign: bool = False
    leases: dict[str, Lease] = {}
    incarnation: str = ""


def read_snapshot(disk: Disk, path: Path, now: int) -> StoredState:
    """Read `data.json`; no such file is an empty store. `now` is when the entries of another tool begin.

    Raises `unavailable` for a file that is not what it should be.
    """
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return StoredState({})
    try:
        beginning = disk.read(file, BLOCK_BYTES)
        head = _HEAD.match(beginning)
        if head is not None:
            blocks = _blocks(disk, file, path.name, beginning[head.end() - 1 :])
            state = _read_lines(blocks, path.name, int(head[2]))
            state.incarnation = (head[1] or b"").decode("ascii")
            return state
        rest = iter(lambda: disk.read(file, BLOCK_BYTES), b"")
        return _read_document(b"".join((beginning, *rest)), path.name, now)
    finally:
        close_quietly(disk, file)


# Our own layout -----------------------------------------------------------------------------------------------


class _Line(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    key: str
    value: msgspec.Raw
    revision: Annotated[int, msgspec.Meta(ge=1)]
    created_at: str
    updated_at: str
    expires_at: str | None = None

    def entry(self) -> Entry:
        created_at = parse_time(self.created_at)
        # Equal times share one object; most entries were never changed.
        updated_at = created_at if self.updated_at == self.created_at else parse_time(self.updated_at)
        expires_at = None if self.expires_at is None else parse_time(self.expires_at)
        # The bytes are copied out of the block, which would stay in memory otherwise.
        return Entry(self.key, bytes(self.value), self.revision, created_at, updated_at, expires_at)


class _LeaseLine(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    lock: str
    lease_id: str
    token: Annotated[int, msgspec.Meta(ge=1)]
    revision: Annotated[int, msgspec.Meta(ge=1)]
    acquired_at: str
    expires_at: str
    ttl_microseconds: int
    holder: str
    owner: msgspec.Raw

    def lease(self) -> Lease:
        times = parse_time(self.acquired_at), parse_time(self.expires_at)
        return Lease(
            self.lock,
            self.lease_id,
            self.token,
            self.revision,
            *times,
            self.ttl_microseconds,
            self.holder,
            bytes(self.owner),
        )


_decode_lines = msgspec.json.Decoder(list[_Line]).decode
_decode_lease_lines = msgspec.json.Decoder(list[_LeaseLine]).decode
_encode_line = msgspec.json.Encoder().encode


def _blocks(disk: Disk, file: int, name: str, beginning: bytes) -> Iterator[bytes]:
    """Whole lines, joined by commas, a block at a time. `beginning` starts with the line break after the head."""
    rest = beginning
    while data := disk.read(file, BLOCK_BYTES):
        rest += data
        lines, separator, after = rest.rpartition(_SEPARATOR)
        if separator:
            yield lines
            rest = after
    tail = _TAIL.search(rest)
    if tail is None:
        raise _refused(name, "its end is missing")
    yield rest[: tail.start()]


def _read_lines(blocks: Iterator[bytes], name: str, revision: int) -> StoredState:
    entries: dict[str, Entry] = {}
    count = 0
    behind = b""
    for block in blocks:
        text, mark, behind = block.partition(_LEASES)
        try:
            lines = _decode_lines(b"[%b]" % text)
            for line in lines:
                entries[line.key] = line.entry()
        except (msgspec.DecodeError, ValueError) as error:
            raise _refused(name, f"an entry after the first {count} is damaged") from error
        count += len(lines)
        if lines and max(line.revision for line in lines) > revision:
            raise _refused(name, f"an entry after the first {count} is newer than the whole")
        if mark:
            break
    if len(entries) != count:
        raise _refused(name, "a key stands in it twice")
    try:
        of_leases = _decode_lease_lines(b"[%b]" % _SEPARATOR.join((behind, *blocks) if behind else blocks))
        leases = [line.lease() for line in of_leases]
    except (msgspec.DecodeError, ValueError) as error:
        raise _refused(name, "a lease is damaged") from error
    return StoredState(entries, revision, leases=_by_lock(leases, name, revision))


def _by_lock(leases: Sequence[Lease], name: str, revision: int) -> dict[str, Lease]:
    by_lock = {lease.lock: lease for lease in leases}
    if len(by_lock) != len(leases) or len({lease.lease_id for lease in leases}) != len(leases):
        raise _refused(name, "a lease stands in it twice")
    if any(not lease.token <= lease.revision <= revision for lease in leases):
        raise _refused(name, "a lease is newer than the whole")
    return by_lock


# Any other layout ---------------------------------------------------------------------------------------------


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    leasehold: int
    revision: int
    entries: list[_Line]
    leases: list[_LeaseLine] = []
    incarnation: Annotated[str, msgspec.Meta(pattern=f"^({INCARNATION})?$")] = ""
    sha256: str = ""


_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_document = msgspec.json.Decoder(_Document).decode


def _read_document(data: bytes, name: str, now: int) -> StoredState:
    try:
        members = _decode_members(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refused(name, "it is empty" if not data.strip() else "it is not a JSON object") from error
    if {"leasehold", "revision", "entries"} <= members.keys():
        return _read_own_document(data, name)
    entries = {}
    for revision, key in enumerate(sorted(members), start=1):
        entries[key] = _checked(name, Entry(key, bytes(members[key]), revision, now, now))
    return StoredState(entries, len(entries), foreign=True)


def _read_own_document(data: bytes, name: str) -> StoredState:
    try:
        document = _decode_document(data)
        entries = [_checked(name, line.entry()) for line in document.entries]
        leases = [_checked_lease(name, line.lease()) for line in document.leases]
    except (msgspec.DecodeError, ValueError) as error:
        raise _refused(name, "it is not as Leasehold writes it") from error
    if document.leasehold != FORMAT:
        raise _refused(name, f"format {document.leasehold} is of another version of Leasehold")
    by_key = {entry.key: entry for entry in sorted(entries, key=lambda entry: entry.key)}
    if len(by_key) != len(entries):
        raise _refused(name, "a key stands in it twice")
    if any(not 0 < entry.revision <= document.revision for entry in entries):
        raise _refused(name, "an entry is newer than the whole")
    by_lock = _by_lock(leases, name, document.revision)
    return StoredState(by_key, document.revision, leases=by_lock, incarnation=document.incarnation)


def _checked(name: str, entry: Entry) -> Entry:
    """The entry with its value compact, or the reason why it cannot be one."""
    try:
        check_key(entry.key)
        return msgspec.structs.replace(entry, value=values.parse_json(entry.value, max_containers=None))
    except ServiceError as error:
        raise _refused(name, f"entry {entry.key!r}: {error.message}") from error


def _checked_lease(name: str, lease: Lease) -> Lease:
    """As `_checked`."""
    try:
        check_key(lease.lock)
        return msgspec.structs.replace(lease, owner=values.parse_json(lease.owner, max_containers=None))
    except ServiceError as error:
        raise _refused(name, f"lease of {lease.lock!r}: {error.message}") from error


def _refused(name: str, reason: str) -> ServiceError:
    return ServiceError("unavailable", f"{name} cannot be used: {reason}; it was left as it is")
