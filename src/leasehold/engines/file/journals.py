"""The two journals of a store: the one to which batches are appended, and the old one, which a checkpoint will cover.

The sync thread makes all changes, except `remove_old`, which the checkpoint thread calls. Any thread may read.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from leasehold.engines.file.disk import Disk, WriteError, rename_durably, write_errors
from leasehold.engines.file.journal import HEADER_BYTES, JournalWriter
from leasehold.engines.file.ownership import Ownership
from leasehold.engines.file.recovery import Paths


class Journals:
    """`mutex`: snapshots and the old journal are replaced and removed only under it."""

    def __init__(self, disk: Disk, paths: Paths, owner: Ownership, mutex: threading.Lock) -> None:
        self._disk = disk
        self._paths = paths
        self._owner = owner
        self._mutex = mutex
        self.current: JournalWriter | None = None
        """The file `data.json.journal`, if there is one."""
        self.has_old = False
        """There may be a `journal.old`."""
        self._old_sequence = 0
        """The old journal has changes of the other namespaces up to this one."""

    @property
    def size(self) -> int:
        """Bytes of all records in the current journal."""
        journal = self.current  # read once, because the sync thread may close it meanwhile
        return 0 if journal is None else journal.end - HEADER_BYTES

    @property
    def paths(self) -> Sequence[Path]:
        """Those that exist, the older one first."""
        used = {self._paths.old_journal: self.has_old, self._paths.journal: self.current is not None}
        return [path for path, is_used in used.items() if is_used]

    def is_spoiled(self) -> bool:
        """Whether the current journal must not be written again."""
        return self.current is not None and self.current.spoiled

    def has_other_writer(self) -> bool:
        """Whether another process has appended to the current one. Raises OSError."""
        return self.current is not None and self.current.has_other_writer(self._paths.journal)

    def resume(self, current: JournalWriter | None, sequence: int, *, has_old: bool) -> None:
        """Go on with those that were found at the start. `sequence`: the last change of the other namespaces."""
        self.current, self.has_old, self._old_sequence = current, has_old, sequence

    def append(self, record: bytes, revision: int, incarnation: str) -> None:
        """Make a record durable that follows `revision`. Creates the file if there is none. Raises WriteError."""
        if self.current is None:
            self._owner.files.keep_what_others_put(self._paths.journal)
            temporary = self._paths.temporary(self._paths.journal)
            self.current = JournalWriter.create(
                self._disk,
                self._paths.journal,
                temporary,
                revision,
                incarnation,
                before_rename=partial(self._owner.files.may_become, self._paths.journal),
            )
            with write_errors():
                self._owner.files.put(self._paths.journal, self.current.identity)
        self.current.append(record)

    def rotate(self, sequence: int) -> None:
        """The current journal, which there must be, becomes the old one. The next append creates another one.

        `sequence`: as in `resume`. Raises WriteError.
        """
        assert self.current is not None
        self._owner.files.keep_what_others_put(self._paths.old_journal)
        self.has_old = True
        self._old_sequence = sequence
        self._owner.files.may_become(self._paths.journal, None)
        with write_errors():
            self._owner.files.may_become(self._paths.old_journal, identity := self.current.identity)
        rename_durably(self._disk, self._paths.journal, self._paths.old_journal)
        self._owner.files.put(self._paths.journal, None)
        self._owner.files.put(self._paths.old_journal, identity)
        self.close()

    def remove_old(self, sequence: int) -> None:
        """Remove the old journal. `sequence`: the snapshots have the other namespaces up to here. Raises WriteError."""
        if sequence < self._old_sequence:
            raise WriteError(
                OSError("the file of the namespaces lacks changes of the old journal"), nothing_changed=True
            )
        with self._mutex:
            self._owner.check_only()
            with write_errors():
                self._remove(self._paths.old_journal)
                self._disk.sync_folder(self._paths.folder)
            self.has_old = False

    def remove_all(self) -> None:
        """Remove both journals. Raises WriteError."""
        self.close()
        with self._mutex:
            self._owner.check_only()
            # The newer one first. Without it, the older one still follows the snapshot without a gap.
            for path in (self._paths.journal, self._paths.old_journal):
                self._owner.files.keep_what_others_put(path)
                with write_errors():
                    self._remove(path)
            with write_errors():
                self._disk.sync_folder(self._paths.folder)
            self.has_old = False

    def close(self) -> None:
        """Close the current one, which stays as it is."""
        journal, self.current = self.current, None
        if journal is not None:
            journal.close()

    def _remove(self, path: Path) -> None:
        self._owner.files.may_become(path, None)
        with suppress(FileNotFoundError):
            self._disk.unlink(path)
        self._owner.files.put(path, None)
