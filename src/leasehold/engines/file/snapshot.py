"""The text of `data.json`: the whole store as one JSON value, one entry a line, ascending by key.

    {"leasehold": 1, "incarnation": "5f3a9c", "revision": 42, "entries": [
    {"key":"username","value":"alice","revision":42,"created_at":"…","updated_at":"…"},
    …
    ], "leases": [
    {"lock":"jobs/nightly","lease_id":"8b0c…","token":40,…},
    …
    ]}

Without leases the member is left out. Version 0.1.0 wrote no incarnation. A backup (`backups`) ends with a checksum.
A file in exactly this layout is read in blocks of lines, and a look at the bytes of a block tells whether its values
have to be checked one by one (`soundness`). In any other layout it is read as a whole by `documents`, which is also
where a file is refused.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Final

import msgspec

from leasehold.engines.file.disk import Disk
from leasehold.engines.file.soundness import checked_entry, checked_lease, needs_no_check
from leasehold.errors import ServiceError
from leasehold.limits import KIB
from leasehold.model import Entry, Lease
from leasehold.times import format_time, parse_time
from leasehold.values.entry_text import entry_json

FORMAT: Final = 1
CHUNK_ENTRIES: Final = 1_000
"""Encoded at a time (0.5 ms), so that the event loop gets its turns while a large store is written."""
BLOCK_BYTES: Final = 512 * KIB
"""Read at a time. Small, because what a block leaves behind lies between the entries that stay in memory."""

ENTRY_LINE_BYTES: Final = 128
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
        LeaseLine(
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


class AnotherLayoutError(Exception):
    """The file is not in our own layout, or something in it is wrong: `documents` finds out which, and where."""


# Our own layout -----------------------------------------------------------------------------------------------


class EntryLine(msgspec.Struct, gc=False, forbid_unknown_fields=True):
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


class LeaseLine(msgspec.Struct, gc=False, forbid_unknown_fields=True):
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


_decode_lines = msgspec.json.Decoder(list[EntryLine]).decode
_decode_lease_lines = msgspec.json.Decoder(list[LeaseLine]).decode
_encode_line = msgspec.json.Encoder().encode


def _blocks(disk: Disk, file: int, beginning: bytes) -> Iterator[bytes]:
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
        raise AnotherLayoutError
    yield rest[: tail.start()]


def read_lines(disk: Disk, file: int) -> StoredState:
    """The store in a file that is in our own layout. Raises `AnotherLayoutError`, also for anything that is wrong."""
    beginning = disk.read(file, BLOCK_BYTES)
    head = _HEAD.match(beginning)
    if head is None:
        raise AnotherLayoutError
    state = _read_lines(_blocks(disk, file, beginning[head.end() - 1 :]), int(head[2]))
    state.incarnation = (head[1] or b"").decode("ascii")
    return state


def _read_lines(blocks: Iterator[bytes], revision: int) -> StoredState:
    entries: dict[str, Entry] = {}
    count = 0
    behind = b""
    try:
        for block in blocks:
            text, mark, behind = block.partition(_LEASES)
            lines = _decode_lines(b"[%b]" % text)
            # A line break anywhere else is white space that somebody has put in.
            plain = text.count(b"\n", 1) == len(lines) - 1 and needs_no_check(text)
            for line in lines:
                entries[line.key] = checked_entry(line.entry(), needs_no_check=plain)
            count += len(lines)
            if lines and max(line.revision for line in lines) > revision:
                raise AnotherLayoutError
            if mark:
                break
        of_leases = _decode_lease_lines(b"[%b]" % _SEPARATOR.join((behind, *blocks) if behind else blocks))
        leases = [checked_lease(line.lease()) for line in of_leases]
    except (msgspec.DecodeError, ValueError, RecursionError, ServiceError) as error:
        raise AnotherLayoutError from error
    if len(entries) != count or faults_of_leases(leases, revision):
        raise AnotherLayoutError
    return StoredState(entries, revision, leases={lease.lock: lease for lease in leases})


def faults_of_leases(leases: Sequence[Lease], revision: int) -> str | None:
    """What is wrong with the leases of a store at `revision`, taken together."""
    names, ids = {lease.lock for lease in leases}, {lease.lease_id for lease in leases}
    if len(names) != len(leases) or len(ids) != len(leases):
        return "a lease stands in it twice"
    if any(not lease.token <= lease.revision <= revision for lease in leases):
        return "a lease is newer than the whole"
    return None
