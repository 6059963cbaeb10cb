"""Reads `data.json`: the layout that Leasehold writes in `snapshot`, any other layout here.

A file has another layout if it was edited, if another tool wrote it, or if it is a list of entries from the API. It is
read as a whole, and everything in it is checked by the rules of the API. An error message has one line, which names the
line in the file and the key.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from leasehold.engines.file.checks import add_removal, check_of, checked_entry
from leasehold.engines.file.disk import Disk, close_quietly, read_all
from leasehold.engines.file.lines import decode_removal, line_format
from leasehold.engines.file.snapshot import FORMAT, INCARNATION, REMOVALS, AnotherLayoutError, read_lines
from leasehold.engines.state import Contents, StoredState, empty_state
from leasehold.errors import ServiceError
from leasehold.limits import MAX_NESTING
from leasehold.model import ENTRY, KINDS, AnyKind, Entry, Record
from leasehold.progress import Progress

COMPACTED_REVISION: Final = "compacted_revision"
NEEDED_MEMBERS: Final = frozenset({"leasehold", "revision", KINDS[0].plural})
OTHER_MEMBERS: Final = frozenset({"incarnation", COMPACTED_REVISION, REMOVALS, "sha256"})
LIST_MEMBERS: Final = frozenset({"entries", "revision", "next"})
"""The members of the response to `GET /kv`."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_BYTE_POSITION: Final = re.compile(r"\(byte ([0-9]+)\)")
_TEXT_AFTER: Final = rb'"%b"\s*:\s*("(?:[^"\\]|\\.)*")'
"""Matches a string member in the text of an object."""

Members = Mapping[str, msgspec.Raw]

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
NOT_AS_WRITTEN: Final = "it is not as Leasehold writes it"
_FAULTS: Final = (msgspec.DecodeError, ValueError, RecursionError)


def read_snapshot(
    disk: Disk, path: Path, now: int, kinds: Sequence[AnyKind] = KINDS, *, progress: Progress | None = None
) -> StoredState:
    """Read `data.json`. If it does not exist, the store is empty. `now`: the times of entries from another tool.

    Raises `unavailable` for an invalid file.
    """
    progress = progress or Progress()
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return empty_state()
    try:
        with suppress(AnotherLayoutError):
            return read_lines(disk, file, kinds, progress)
    finally:
        close_quietly(disk, file)
    progress.begin(f"decoding {path.name}, which has another layout than Leasehold writes")
    return _Document(read_all(disk, path), path.name, kinds, progress).read(now)


def read_document(data: bytes, name: str, now: int, kinds: Sequence[AnyKind] = KINDS) -> StoredState:
    """The space in the text of a file. `now`: the times of entries from another tool. Raises `unavailable`."""
    return _Document(data, name, kinds, Progress()).read(now)


def read_part(data: bytes, name: str, *, lines_before: int) -> StoredState:
    """The space in a part of the text of the file `name`, which begins behind this many lines. Raises `unavailable`."""
    return _Document(data, name, KINDS, Progress(), lines_before).read_own()


class _Document:
    """One file, and the position of the element that is being read, for messages."""

    def __init__(
        self, data: bytes, name: str, kinds: Sequence[AnyKind], progress: Progress, lines_before: int = 0
    ) -> None:
        self._data = data
        self._lines_before = lines_before
        self._name = name
        self._kinds = kinds
        self._progress = progress
        self._own_members = NEEDED_MEMBERS | OTHER_MEMBERS | {kind.plural for kind in kinds}
        self._position = 0

    def read(self, now: int) -> StoredState:
        """Read a file of any origin. `now`: the times of entries from another tool."""
        members = self._members()
        if "leasehold" in members and len(self._own_members & members.keys()) > 1:
            return self._read_own(members)
        if {"entries", "revision"} <= members.keys() and bytes(members["entries"]).startswith(b"["):
            return self._read_list(members)
        return self._read_foreign(members, now)

    def read_own(self) -> StoredState:
        """Read what only Leasehold may have written."""
        return self._read_own(self._members())

    def _members(self) -> Members:
        if self._data.startswith(_BYTE_ORDER_MARK):
            raise self._refused("it begins with a byte order mark: save it as UTF-8 without one")
        try:
            return _decode_members(self._data)
        except RecursionError:
            raise self._refused(f"{self._deepest_line()}: nested deeper than {MAX_NESTING} levels") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if not self._data.strip():
                raise self._refused("it is empty") from error
            raise self._refused(f"{self._line_of(error)}it is not a JSON object") from error

    def _read_own(self, members: Members) -> StoredState:
        if not NEEDED_MEMBERS <= members.keys() <= self._own_members:
            raise self._refused("it is not as Leasehold writes it: members are missing or unknown")
        version = self._integer(members, "leasehold")
        if version != FORMAT:
            raise self._refused(f"format {version} is of another version of Leasehold")
        incarnation = self._text(members, "incarnation")
        if re.fullmatch(f"({INCARNATION})?", incarnation) is None:
            raise self._refused("its incarnation is not six hexadecimal digits")
        if "sha256" in members:
            raise self._refused("it is a backup that was edited: if that was intended, remove the member sha256")
        revision = self._integer(members, "revision")
        state = StoredState({kind: Contents() for kind in self._kinds}, revision, revision, incarnation)
        for kind in self._kinds:
            if kind.plural in members:
                self._read_records(kind, members, state)
        if COMPACTED_REVISION in members:
            state.compacted_revision = self._integer(members, COMPACTED_REVISION)
            if state.compacted_revision > revision:
                raise self._refused("its compacted_revision is greater than its revision")
        if REMOVALS in members:
            self._read_removals(members, state)
        return state

    def _read_list(self, members: Members) -> StoredState:
        """A list of all entries, as in the response to `GET /kv`. It has no leases and no incarnation."""
        if members.keys() != LIST_MEMBERS:
            raise self._refused(
                "it looks like a list of entries, but has other members than entries, revision and next"
            )
        if bytes(members["next"]) != b"null":
            raise self._refused("it is only a part of a list: in the last part, `next` is null")
        revision = self._integer(members, "revision")
        state = StoredState({kind: Contents() for kind in self._kinds}, revision, revision)
        self._read_records(ENTRY, members, state)
        return state

    def _read_foreign(self, members: Members, now: int) -> StoredState:
        entries = {}
        self._progress.begin(f"importing {self._name}", len(members), "entries")
        for revision, key in enumerate(sorted(members), start=1):
            self._progress.done = revision
            try:
                entries[key] = checked_entry(Entry(key, bytes(members[key]), revision, now, now))
            except ServiceError as error:
                line = self._line(max(self._data.find(bytes(members[key])), 0))
                raise self._refused(f"{line}: entry {key!r}: {error.message}") from error
        state = empty_state()
        state.of(ENTRY).by_name.update(entries)
        state.revision = state.compacted_revision = len(entries)
        state.foreign = True
        return state

    # Elements -------------------------------------------------------------------------------------------------

    def _read_records(self, kind: AnyKind, members: Members, state: StoredState) -> None:
        lines_of, check = line_format(kind), check_of(kind)
        by_name: dict[str, Record] = {}
        lookups: set[str] = set()
        for raw in self._elements(members, kind.plural):
            try:
                line = lines_of.decode_line(raw)
                [record] = map(check, lines_of.records([line]))
            except ServiceError as error:
                raise self._refused_element(kind.name, lines_of.name_member, raw, error.message) from error
            except _FAULTS as error:
                raise self._refused_element(kind.name, lines_of.name_member, raw, NOT_AS_WRITTEN) from error
            if record.name in by_name:
                raise self._refused_record(kind, record, "occurs twice")
            if any(revision_of(line) > state.revision for revision_of in lines_of.revisions_of):
                raise self._refused_record(kind, record, "has a revision greater than that of the store")
            lookup = getattr(record, kind.lookup) if kind.lookup else record.name
            if lookup in lookups:
                raise self._refused_record(kind, record, f"has the {kind.lookup} of another {kind.name}")
            lookups.add(lookup)
            by_name[record.name] = record
        state.by_name(kind).update({name: by_name[name] for name in sorted(by_name)})

    def _read_removals(self, members: Members, state: StoredState) -> None:
        for raw in self._elements(members, REMOVALS):
            try:
                add_removal(decode_removal(raw), state)
            except ServiceError as error:
                raise self._refused_element("removal", "name", raw, error.message) from error
            except _FAULTS as error:
                raise self._refused_element("removal", "name", raw, NOT_AS_WRITTEN) from error

    def _elements(self, members: Members, member: str) -> Iterator[bytes]:
        """The elements of a list. `_position` is set to the element that was yielded last."""
        try:
            elements = _decode_list(members[member])
        except _FAULTS as error:
            raise self._refused(f"{member} is not a list") from error
        self._position = max(self._data.find(members[member]), 0)
        for element in elements:
            raw = bytes(element)
            self._position = max(self._data.find(raw, self._position), 0)
            yield raw

    def _integer(self, members: Members, name: str) -> int:
        text = bytes(members[name])
        if re.fullmatch(rb"[0-9]{1,18}", text) is None:
            raise self._refused(f"{name} is not a number")
        return int(text)

    def _text(self, members: Members, name: str) -> str:
        try:
            return msgspec.json.decode(members[name], type=str) if name in members else ""
        except _FAULTS as error:
            raise self._refused(f"{name} is not a string") from error

    # Errors ---------------------------------------------------------------------------------------------------

    def _refused(self, reason: str) -> ServiceError:
        return ServiceError("unavailable", f"{self._name} cannot be used: {reason}; it was not changed")

    def _refused_element(self, kind: str, name_member: str, raw: bytes, reason: str) -> ServiceError:
        found = re.search(_TEXT_AFTER % name_member.encode(), raw)
        name = "" if found is None else " " + found[1][:80].decode("utf-8", "backslashreplace")
        return self._refused(f"{self._line(self._position)}: {kind}{name}: {reason}")

    def _refused_record(self, kind: AnyKind, record: Record, reason: str) -> ServiceError:
        return self._refused(f"{self._line(self._position)}: {kind.name} {record.name!r} {reason}")

    def _line(self, position: int) -> str:
        number = self._lines_before + self._data.count(b"\n", 0, position) + 1
        return f"line {number}"

    def _line_of(self, error: Exception) -> str:
        found = _BYTE_POSITION.search(str(error))
        return "" if found is None else f"{self._line(int(found[1]))}: "

    def _deepest_line(self) -> str:
        depths = [line.count(b"[") + line.count(b"{") for line in self._data.splitlines()]
        return f"line {depths.index(max(depths)) + 1}"
