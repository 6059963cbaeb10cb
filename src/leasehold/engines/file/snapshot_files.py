"""Replaces the two snapshots of a store: `data.json`, and `data.json.namespaces`. Each is replaced in one step."""

import errno
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from leasehold.engines.file.disk import Disk, Identity, WriteError, rename_durably, replace_file, unlink_quietly
from leasehold.engines.file.namespaces import NamespacesSnapshot
from leasehold.engines.file.namespaces_file import namespaces_text
from leasehold.engines.file.ownership import Ownership
from leasehold.engines.file.recovery import Paths
from leasehold.engines.file.snapshot import snapshot_text
from leasehold.engines.state import Snapshot

Chunks = Iterable[bytes]


class SnapshotFiles:
    """The snapshots. `mutex` is held while one is replaced, because two threads do it.

    `revision` is that of `data.json`; it is negative if the file must be written in any case. `sequence` is the number
    of the last change in the other file.
    """

    def __init__(self, disk: Disk, paths: Paths, owner: Ownership, mutex: threading.Lock) -> None:
        self._disk = disk
        self._paths = paths
        self._owner = owner
        self._mutex = mutex
        self.revision = 0
        self.sequence = 0
        self.has_stopped = False
        """The service stops."""

    def until_stopped(self, chunks: Chunks) -> Iterator[bytes]:
        """The same chunks. Raises OSError once the service stops."""
        for chunk in chunks:
            if self.has_stopped:
                raise OSError(errno.ECANCELED, "the service stops")
            yield chunk

    def replace(
        self,
        snapshot: Snapshot | None,
        others: NamespacesSnapshot | None,
        passing: Callable[[Chunks], Chunks] = lambda chunks: chunks,
    ) -> None:
        """Replace both, or one if the other is None. `passing`: what is done while the text is taken.

        An older snapshot does not replace a newer one. Raises WriteError; then the first one may have been replaced.
        """
        if snapshot is not None:
            self.replace_data(snapshot, passing)
        if others is not None:
            self.replace_namespaces(others, passing)

    def replace_data(self, snapshot: Snapshot, passing: Callable[[Chunks], Chunks] = lambda chunks: chunks) -> None:
        """See `replace`."""
        with self._mutex:
            if snapshot.revision >= self.revision:
                self._replace(self._paths.data, passing(snapshot_text(snapshot)))
                self.revision = snapshot.revision

    def replace_namespaces(
        self, others: NamespacesSnapshot, passing: Callable[[Chunks], Chunks] = lambda chunks: chunks
    ) -> None:
        """See `replace`."""
        with self._mutex:
            if others.sequence >= self.sequence:
                self._replace(self._paths.namespaces, passing(namespaces_text(others)))
                self.sequence = others.sequence

    def replace_both(self, snapshot: Snapshot, others: NamespacesSnapshot | None) -> None:
        """Replace both in one step, if there are others, by what belongs to another history. There are no journals.

        `snapshot` has a new incarnation, which the name of the other file contains until `data.json` is replaced. A
        start takes the file by this name, or removes it. Raises WriteError; then nothing may have changed, or both.
        """
        if others is None:
            self.replace_data(snapshot)
            return
        disk, paths = self._disk, self._paths
        prepared = paths.prepared_namespaces(snapshot.incarnation)
        written = replace_file(disk, prepared, paths.temporary(paths.namespaces), namespaces_text(others))
        try:
            self.replace_data(snapshot)
        except WriteError as error:
            if error.nothing_changed:
                unlink_quietly(disk, prepared)
            raise
        self._owner.files.may_become(paths.namespaces, written)
        try:
            rename_durably(disk, prepared, paths.namespaces)
        except WriteError as error:
            raise WriteError(error.cause, nothing_changed=False) from error
        self._owner.files.put(paths.namespaces, written)
        self.sequence = others.sequence

    def _replace(self, path: Path, chunks: Chunks) -> None:
        def before_rename(identity: Identity) -> None:
            self._owner.check_only()
            self._owner.files.keep_what_others_put(path)
            self._owner.files.may_become(path, identity)

        identity = replace_file(self._disk, path, self._paths.temporary(path), chunks, before_rename=before_rename)
        self._owner.files.put(path, identity)

    def texts(self, snapshot: Snapshot | None, others: NamespacesSnapshot | None) -> Iterator[bytes]:
        """What `replace` would write."""
        return chain(
            () if snapshot is None else snapshot_text(snapshot), () if others is None else namespaces_text(others)
        )

    def lines(self, snapshot: Snapshot | None, others: NamespacesSnapshot | None) -> int:
        """How many records and removals `replace` would write."""
        parts = () if others is None else others.snapshots.values()
        snapshots = parts if snapshot is None else (snapshot, *parts)
        return sum(len(part.names) + len(part.removals) for each in snapshots for part in each.kinds)
