"""Reading `data.json`: in our own layout by `snapshot`; in any other here.

Another layout is a file that was edited, made by another tool, or a list of entries put in its place. It is read as a
whole, and everything in it is checked by the rules of the API. What is refused is told in one line that names the line
and the key.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from leasehold.engines.file.disk import Disk, close_quietly, read_all
from leasehold.engines.file.snapshot import (
    FORMAT,
    INCARNATION,
    AnotherLayoutError,
    EntryLine,
    LeaseLine,
    StoredState,
    faults_of_leases,
    read_lines,
)
from leasehold.engines.file.soundness import checked_entry, checked_lease
from leasehold.errors import ServiceError
from leasehold.limits import MAX_NESTING
from leasehold.model import Entry, Lease

OWN_MEMBERS: Final = frozenset({"leasehold", "incarnation", "revision", "entries", "leases", "sha256"})
LIST_MEMBERS: Final = frozenset({"entries", "revision", "next"})
"""Of the answer to `GET /kv`."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_BYTE_POSITION: Final = re.compile(r"\(byte ([0-9]+)\)")
_KEY: Final = re.compile(rb'"key"\s*:\s*("(?:[^"\\]|\\.)*")')

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_entry = msgspec.json.Decoder(EntryLine).decode
_decode_lease = msgspec.json.Decoder(LeaseLine).decode
_FAULTS: Final = (msgspec.DecodeError, ValueError, RecursionError)


def read_snapshot(disk: Disk, path: Path, now: int) -> StoredState:
    """Read `data.json`; no such file is an empty store. `now` is when the entries of another tool begin.

    Raises `unavailable` for a file that is not what it should be.
    """
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return StoredState({})
    try:
        with suppress(AnotherLayoutError):
            return read_lines(disk, file)
    finally:
        close_quietly(disk, file)
    return read_document(read_all(disk, path), path.name, now)


def read_document(data: bytes, name: str, now: int) -> StoredState:
    """The store that a whole file holds. `now` is when the entries of another tool begin. Raises `unavailable`."""
    return _Document(data, name).read(now)


class _Document:
    """One file, and where in it we are."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self._position = 0

    def read(self, now: int) -> StoredState:
        if self._data.startswith(_BYTE_ORDER_MARK):
            raise self._refused("it begins with a byte order mark: save it as UTF-8 without one")
        try:
            members = _decode_members(self._data)
        except RecursionError:
            raise self._refused(f"{self._deepest_line()}: nested deeper than {MAX_NESTING} levels") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if not self._data.strip():
                raise self._refused("it is empty") from error
            raise self._refused(f"{self._line_of(error)}it is not a JSON object") from error
        if "leasehold" in members and len(OWN_MEMBERS & members.keys()) > 1:
            return self._read_own(members)
        if {"entries", "revision"} <= members.keys() and bytes(members["entries"]).startswith(b"["):
            return self._read_list(members)
        return self._read_foreign(members, now)

    def _read_own(self, members: Mapping[str, msgspec.Raw]) -> StoredState:
        if not {"leasehold", "revision", "entries"} <= members.keys() <= OWN_MEMBERS:
            raise self._refused("it is not as Leasehold writes it: members are missing, or there are others")
        version = self._integer(members, "leasehold")
        if version != FORMAT:
            raise self._refused(f"format {version} is of another version of Leasehold")
        incarnation = self._text(members, "incarnation")
        if re.fullmatch(f"({INCARNATION})?", incarnation) is None:
            raise self._refused("its incarnation is not six hexadecimal digits")
        if "sha256" in members:
            raise self._refused("it is a backup that was changed: take out the member sha256 if that was meant")
        revision = self._integer(members, "revision")
        entries = self._entries(members["entries"], revision)
        leases = list(map(self._lease, self._elements(members["leases"]))) if "leases" in members else []
        fault = faults_of_leases(leases, revision)
        if fault is not None:
            raise self._refused(fault)
        by_lock = {lease.lock: lease for lease in leases}
        return StoredState(entries, revision, leases=by_lock, incarnation=incarnation)

    def _read_list(self, members: Mapping[str, msgspec.Raw]) -> StoredState:
        """A list of all entries, as `GET /kv` answers. It has no leases, and names no store."""
        if members.keys() != LIST_MEMBERS:
            raise self._refused(
                "it looks like a list of entries, but has other members than entries, revision and next"
            )
        if bytes(members["next"]) != b"null":
            raise self._refused("it is one page of a list: `next` is null only where nothing follows")
        revision = self._integer(members, "revision")
        return StoredState(self._entries(members["entries"], revision), revision)

    def _read_foreign(self, members: Mapping[str, msgspec.Raw], now: int) -> StoredState:
        entries = {}
        for revision, key in enumerate(sorted(members), start=1):
            try:
                entries[key] = checked_entry(Entry(key, bytes(members[key]), revision, now, now))
            except ServiceError as error:
                line = self._line(max(self._data.find(bytes(members[key])), 0))
                raise self._refused(f"{line}: entry {key!r}: {error.message}") from error
        return StoredState(entries, len(entries), foreign=True)

    # Entries and leases ---------------------------------------------------------------------------------------

    def _entries(self, sent: msgspec.Raw, revision: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for raw in self._elements(sent):
            entry = self._entry(raw)
            if entry.key in entries:
                raise self._refused(f"{self._line(self._position)}: entry {entry.key!r} stands in it twice")
            if not 0 < entry.revision <= revision:
                raise self._refused(f"{self._line(self._position)}: entry {entry.key!r} is newer than the whole")
            entries[entry.key] = entry
        return {key: entries[key] for key in sorted(entries)}

    def _elements(self, sent: msgspec.Raw) -> Iterator[bytes]:
        """The elements of a list, with `_position` at each while it is looked at."""
        try:
            elements = _decode_list(sent)
        except _FAULTS as error:
            raise self._refused("entries and leases are lists") from error
        for element in elements:
            raw = bytes(element)
            self._position = max(self._data.find(raw, self._position), 0)
            yield raw

    def _entry(self, raw: bytes) -> Entry:
        try:
            return checked_entry(_decode_entry(raw).entry())
        except ServiceError as error:
            raise self._refused_element("entry", raw, error.message) from error
        except _FAULTS as error:
            raise self._refused_element("entry", raw, "it is not as Leasehold writes it") from error

    def _lease(self, raw: bytes) -> Lease:
        try:
            return checked_lease(_decode_lease(raw).lease())
        except ServiceError as error:
            raise self._refused_element("lease", raw, error.message) from error
        except _FAULTS as error:
            raise self._refused_element("lease", raw, "it is not as Leasehold writes it") from error

    def _integer(self, members: Mapping[str, msgspec.Raw], name: str) -> int:
        text = bytes(members[name])
        if re.fullmatch(rb"[0-9]{1,18}", text) is None:
            raise self._refused(f"{name} is not a number")
        return int(text)

    def _text(self, members: Mapping[str, msgspec.Raw], name: str) -> str:
        try:
            return msgspec.json.decode(members[name], type=str) if name in members else ""
        except _FAULTS as error:
            raise self._refused(f"{name} is no text") from error

    # What is wrong --------------------------------------------------------------------------------------------

    def _refused(self, reason: str) -> ServiceError:
        return ServiceError("unavailable", f"{self._name} cannot be used: {reason}; it was left as it is")

    def _refused_element(self, kind: str, raw: bytes, reason: str) -> ServiceError:
        found = _KEY.search(raw)
        key = "" if found is None else " " + found[1][:80].decode("utf-8", "backslashreplace")
        return self._refused(f"{self._line(self._position)}: {kind}{key}: {reason}")

    def _line(self, position: int) -> str:
        number = self._data.count(b"\n", 0, position) + 1
        return f"line {number}"

    def _line_of(self, error: Exception) -> str:
        found = _BYTE_POSITION.search(str(error))
        return "" if found is None else f"{self._line(int(found[1]))}: "

    def _deepest_line(self) -> str:
        depths = [line.count(b"[") + line.count(b"{") for line in self._data.splitlines()]
        return f"line {depths.index(max(depths)) + 1}"
