"""Which process owns a store, and which of its files this process has written.

The owner holds the lock file (flock). A lock file can be removed while it is held; then another process can create a
new one and own the store. So after each durable step, before it acknowledges anything, the owner checks that the name
still is the file that it holds. If another process took over before the check, nothing is acknowledged. If it takes
over later, it reads everything that was acknowledged. A process that has lost the ownership changes nothing any more.

`OwnedFiles` knows the files that the owner has written. Another file with one of their names comes from another
program or an operator. It is renamed and kept, never overwritten.
"""

import errno
import itertools
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

import structlog

from leasehold.engines.file.disk import Disk, Identity, WriteError, close_quietly, write_errors
from leasehold.engines.file.recovery import Paths

log = structlog.get_logger(__name__)


RECENT_NANOSECONDS: Final = 1_000_000
"""A check this recent is not repeated before a batch. Under load, batches follow one another faster, and the check
after each batch is the one that counts."""


class NotOwnerError(WriteError):
    """Another process owns the files, or they cannot be reached. Nothing may be written to them.

    `for_good`: the files are newer than the state in memory.
    """

    def __init__(self, reason: str, *, for_good: bool) -> None:
        super().__init__(OSError(errno.ESTALE, reason), nothing_changed=False)
        self.reason = reason
        self.for_good = for_good


class Lock:
    """The lock file at `path`. Used by one thread at a time."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path
        self._file: int | None = None
        self._identity: Identity | None = None
        self._folder: Identity | None = None

    def take(self) -> None:
        """Own the store. Raises BlockingIOError if another process does, and OSError."""
        while True:
            file = self._disk.lock(self._path)
            try:
                identity = self._disk.identity_of(file)
                # The file may have been removed or replaced after it was opened and before it was locked.
                is_current = identity.is_same_file(self._disk.identity(self._path))
                folder = self._disk.identity(self._path.parent)
            except BaseException:
                close_quietly(self._disk, file)
                raise
            if is_current:
                self.release()
                self._file, self._identity, self._folder = file, identity, folder
                return
            close_quietly(self._disk, file)

    def is_held(self) -> bool:
        """Whether the name still is the locked file. Takes 2 µs. Raises OSError."""
        return self._identity is not None and self._identity.is_same_file(self._disk.identity(self._path))

    def take_again(self) -> None:
        """Own the store again after the lock file was removed or replaced. Raises NotOwnerError, and OSError."""
        folder = self._disk.identity(self._path.parent)
        if folder is None or not folder.is_same_file(self._folder):
            raise NotOwnerError("the folder of the store was moved, removed or replaced", for_good=False)
        try:
            self.take()
        except BlockingIOError as error:
            raise NotOwnerError(
                "the lock file was removed and another process owns the store", for_good=True
            ) from error

    def release(self) -> None:
        if self._file is not None:
            close_quietly(self._disk, self._file)
            self._file = None


class Ownership:
    """The right to change the files of a store, and the identities of these files.

    `lost`: another process has used them, so this one must not write to them until it is restarted. `mutex` is held
    while `data.json` or the old journal is changed. Everything except `check_only` is used on the sync thread only.
    """

    def __init__(self, disk: Disk, paths: Paths, mutex: threading.Lock) -> None:
        self._paths = paths
        self._mutex = mutex
        self._lock = Lock(disk, paths.lock)
        self._looked_at = 0
        self.files = OwnedFiles(disk, growing=(paths.journal, paths.old_journal))
        self.lost = False

    def take(self) -> None:
        """At the start. Raises OSError, BlockingIOError if another process is the owner."""
        self._lock.take()

    def release(self) -> None:
        self._lock.release()

    def check(self, *, recent_is_enough: bool = False) -> bool:
        """Raise NotOwnerError unless this process is the owner. Create the lock file again if it was removed.

        True if it was created again: then another process may have changed the files meanwhile. A failure of the check
        is a WriteError, too.
        """
        if self.lost:
            raise NotOwnerError("another process has used the store", for_good=True)
        now = time.monotonic_ns()
        if recent_is_enough and now - self._looked_at < RECENT_NANOSECONDS:
            return False
        with write_errors():
            is_held = self._lock.is_held()
            if not is_held:
                with self._mutex:
                    self._own_again()
        self._looked_at = now
        return not is_held

    def check_only(self) -> None:
        """As `check`, but without changing anything, and on any thread."""
        with write_errors():
            if self.lost or not self._lock.is_held():
                raise NotOwnerError("the lock file was removed or replaced", for_good=False)

    def _own_again(self) -> None:
        try:
            self._lock.take_again()
            # Another process may have owned the store meanwhile. What it wrote is newer than the state in memory.
            if not all(self.files.is_untouched(path) or self.files.is_missing(path) for path in self._paths.kept):
                raise self.give_up("the lock file was removed and another process used the store")
        except NotOwnerError as error:
            if error.for_good and not self.lost:
                raise self.give_up(error.reason) from error
            raise
        log.warning("the lock file was removed by another program and is created again", file=self._paths.lock.name)

    def has_lost_files(self) -> bool:
        """Whether another program has touched files of the store. Raises WriteError."""
        with write_errors():
            touched = [path for path in self._paths.kept if not self.files.is_untouched(path)]
            for path in touched:
                done = "removed" if self.files.is_missing(path) else "changed"
                log.error(
                    "another program has touched a file of the store; all files are rewritten", file=path.name, by=done
                )
        return bool(touched)

    def give_up(self, reason: str) -> NotOwnerError:
        """The files are newer than the state in memory: stop writing until a restart. Returns the error to raise."""
        self.lost = True
        self._lock.release()
        log.error("nothing is written any more until a restart", reason=reason)
        return NotOwnerError(reason, for_good=True)


class OwnedFiles:
    """The identities of the files that this process has put under each name. Journals (`growing`) may grow."""

    def __init__(self, disk: Disk, growing: Collection[Path]) -> None:
        self._disk = disk
        self._growing = growing
        self._ours: dict[Path, tuple[Identity | None, ...]] = {}
        """Several identities while it is unknown whether a change was done. None: no file."""

    def put(self, path: Path, identity: Identity | None) -> None:
        """This process has put that file there, or has removed it (None)."""
        self._ours[path] = (identity,)

    def may_become(self, path: Path, identity: Identity | None) -> None:
        """This process is about to put that file there or to remove it. Call `put` once that is done."""
        self._ours[path] = (*self._ours.get(path, (None,)), identity)

    def is_untouched(self, path: Path) -> bool:
        """Whether no other program has created, changed or removed the file. Raises OSError."""
        return self._is_ours(path, self._disk.identity(path))

    def is_missing(self, path: Path) -> bool:
        """Whether the file that this process has put there was removed. Raises OSError."""
        return self._disk.identity(path) is None and not self._is_ours(path, None)

    def _is_ours(self, path: Path, found: Identity | None) -> bool:
        ours = self._ours.get(path, (None,))
        if found is not None and path in self._growing:
            return any(found.is_same_file(identity) for identity in ours)
        return found in ours

    def keep_what_others_put(self, path: Path) -> None:
        """Call before using a name: if another program has put a file there, it is renamed. Raises WriteError."""
        try:
            found = self._disk.identity(path)
            if found is None or self._is_ours(path, found):
                return
            aside = self._set_aside(path)
        except OSError as error:
            raise WriteError(error, nothing_changed=True) from error
        log.warning(
            "a file of the store was changed by another program; it is kept", file=path.name, kept_as=aside.name
        )

    def _set_aside(self, path: Path) -> Path:
        numbers = itertools.count(1)
        names = (path.with_name(f"{path.name}.replaced-{number}") for number in numbers)
        aside = next(name for name in names if self._disk.identity(name) is None)
        try:
            # Add a second name, so that the file also has its first name until it is replaced.
            self._disk.link(path, aside)
        except OSError:  # it is a folder, or the file system has no links
            self._disk.rename(path, aside)
        return aside
