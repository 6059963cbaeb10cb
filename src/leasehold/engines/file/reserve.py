"""The reserve: disk space that is released when the disk is full, so that deletions and checkpoints can be written."""

import itertools
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from leasehold.engines.file.disk import Disk, WriteError, replace_file, write_errors
from leasehold.engines.file.ownership import Ownership
from leasehold.engines.file.recovery import Paths
from leasehold.limits import KIB, MIB

RESERVE_BYTES: Final = 1 * MIB
_CHUNK: Final = bytes(256 * KIB)


class Reserve:
    """The file `data.json.reserve`. `is_spent`: it was released, so only changes that free space may be written."""

    def __init__(self, disk: Disk, paths: Paths, owner: Ownership) -> None:
        self._disk = disk
        self._paths = paths
        self._owner = owner
        self._mutex = threading.Lock()
        """Commits and checkpoints run on two threads, and both may spend and make the reserve."""
        self.checkpoints = threading.Lock()
        """To be held during a checkpoint beside commits."""
        self.is_spent = False

    def ensure(self) -> None:
        """At the start: use the file of an earlier process, or make it. Raises WriteError."""
        with write_errors():
            found = self._disk.identity(self._paths.reserve)
        if found is None or found.size != RESERVE_BYTES:
            try:
                self.make()
            except WriteError as error:
                self.is_spent = error.full
                raise

    def make(self) -> None:
        """Write the file (again). This also proves that the disk has free space. Raises WriteError."""
        chunks = itertools.repeat(_CHUNK, RESERVE_BYTES // len(_CHUNK))
        with self._mutex:
            self._owner.check_only()
            replace_file(self._disk, self._paths.reserve, self._paths.temporary(self._paths.reserve), chunks)
            self.is_spent = False

    def make_again(self) -> None:
        """After a checkpoint, which may have freed space. If this fails, `is_spent` stays true."""
        if self.is_spent:
            with suppress(WriteError):
                self.make()

    def is_enough_for(self, chunks: Iterable[bytes]) -> bool:
        """Whether new files with this text fit into the reserve and the free space."""
        if self.is_spent:
            return False
        with write_errors():
            free_bytes = self._disk.free_bytes(self._paths.folder)
        return sum(map(len, chunks)) <= free_bytes + RESERVE_BYTES

    def spend_for(self, write: Callable[[], None], *, allowed: bool) -> None:
        """Call `write`. If the disk is full and it is `allowed`, release the reserve and repeat. Raises WriteError."""
        try:
            write()
        except WriteError as error:
            if not (allowed and error.full and error.nothing_changed and self._spend()):
                raise
            write()

    def spend_for_commit(self, write: Callable[[], None], *, allowed: bool) -> None:
        """As `spend_for`, beside a checkpoint. If there is still no space, the checkpoint may have taken it.

        So `write` is repeated once the checkpoint has ended. On a full disk it ends soon, because it fails.
        """
        try:
            self.spend_for(write, allowed=allowed)
        except WriteError as error:
            if not (allowed and error.full and error.nothing_changed):
                raise
            with self.checkpoints:
                self.spend_for(write, allowed=True)

    def _spend(self) -> bool:
        """Release the reserve. True if that freed space."""
        with self._mutex:
            self.is_spent = True
            try:
                self._disk.unlink(self._paths.reserve)
                self._disk.sync_folder(self._paths.folder)
            except OSError:
                return False
            return True
