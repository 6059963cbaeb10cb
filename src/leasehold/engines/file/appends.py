"""Batches and events that wait to be appended to the journal. Those that wait at the same time share one sync."""

import errno
from collections import deque
from collections.abc import Callable, Sequence

from leasehold.engines.file.disk import WriteError
from leasehold.engines.file.namespaces import Head
from leasehold.engines.file.records import (
    LargeContentError,
    encode_large_record,
    encode_record,
    framed,
    group_record,
    large_payload,
    payload_name,
    small_payload,
)
from leasehold.model import Change, is_removal


class Append:
    """A batch of `default`. It is encoded by the caller, on the event loop's thread, unless it is large."""

    __slots__ = ("changes", "error", "first_revision", "frees_space", "is_over", "last_revision", "record")

    def __init__(self, first_revision: int, changes: Sequence[Change]) -> None:
        self.first_revision = first_revision
        self.last_revision = changes[-1].revision
        self.changes = changes
        self.frees_space = all(map(is_removal, changes))
        """A batch that frees space may spend the reserve."""
        self.is_over = False
        self.error: BaseException | None = None
        self.record: bytes | None
        try:
            self.record = encode_record(first_revision, changes)
        except LargeContentError:
            self.record = None

    def encoded(self, sequence: int) -> bytes:  # noqa: ARG002 - it counts the changes of the others
        """The record. On the sync thread, because the event loop must not wait for a large one. Raises WriteError."""
        if self.record is not None:
            return self.record
        return encode_large_record(self.first_revision, self.changes)


class NamedAppend:
    """A batch or an event of another namespace."""

    __slots__ = ("_content", "_name", "_payload", "error", "frees_space", "is_over", "sequence")

    def __init__(self, log: str, namespace: str, content: Sequence[Change] | Head) -> None:
        self._name = payload_name(log, namespace)
        self._content = content
        self.frees_space = content.is_deleted if isinstance(content, Head) else all(map(is_removal, content))
        self.is_over = False
        self.error: BaseException | None = None
        self.sequence = 0
        """Its number, once it is written."""
        self._payload: bytes | None
        try:
            self._payload = small_payload(content)
        except LargeContentError:
            self._payload = None

    def encoded(self, sequence: int) -> bytes:
        """As `Append.encoded`. `sequence`: its number."""
        self.sequence = sequence
        if self._payload is not None:
            return framed(sequence, (self._name, self._payload))
        assert not isinstance(self._content, Head)
        return framed(sequence, (self._name, *large_payload(self._content)))


AnyAppend = Append | NamedAppend
Group = deque[AnyAppend]
"""Those that wait, with no other job of the sync thread between them. Both threads use it."""


def take_waiting(group: Group, append: AnyAppend) -> list[AnyAppend]:
    """This one, and all after it in its group.

    The jobs run in order. So what is before it is over, or its job has failed: then it must never be written.
    """
    waiting = [append]
    is_after = False
    while group:
        other = group.popleft()
        if is_after:
            waiting.append(other)
        elif other is append:
            is_after = True
    return waiting


def write_all(appends: Sequence[AnyAppend], write: Callable[[Sequence[AnyAppend]], None]) -> None:
    """`write` them together, which notes that they are over. Note its error in each.

    If the disk is too full for all of them, each is written alone: a smaller one may still fit.
    """
    try:
        write(appends)  # nothing after it may raise: the batches are durable, so they must be published
    except BaseException as error:  # noqa: BLE001 - each caller gets it
        if len(appends) > 1 and isinstance(error, WriteError) and error.full and error.nothing_changed:
            for append in appends:
                write_all([append], write)
            return
        for append in appends:
            append.error, append.is_over = error, True


def encode_together(appends: Sequence[AnyAppend], revision: int, sequence: int) -> tuple[bytes, int, int]:
    """One record for all. Returns it with the last revision of `default` and the last number of the others after it.

    The arguments are those before it. Raises WriteError if there is no memory for a large record.
    """
    records = []
    try:
        for append in appends:
            if isinstance(append, Append):
                revision = append.last_revision
            else:
                sequence += 1
            records.append(append.encoded(sequence))
        return group_record(records) if len(records) > 1 else records[0], revision, sequence
    except MemoryError as error:
        raise WriteError(OSError(errno.ENOMEM, "no memory for the record"), nothing_changed=True) from error
