"""Whether the files of a store may differ from memory, because a write failed and may yet have changed them."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from leasehold.engines.file.disk import WriteError


class Failure:
    """The failure of one store. It is over once all files have been written again from memory."""

    def __init__(self) -> None:
        self.failed = False
        """The files may differ from memory."""
        self._in_doubt = False
        """As `failed`, but for the sync thread only. It is also true during a write."""
        self._stuck_by = errno.EIO
        """Why the files could not be written again."""

    def refuse(self) -> None:
        """Raise WriteError if the files must be written again first."""
        if self.failed:
            raise WriteError(OSError(self._stuck_by, "the files must be rewritten first"), nothing_changed=True)

    def look_back(self) -> None:
        """Set `failed` if the previous write ended with an unexpected exception."""
        self.failed = self.failed or self._in_doubt

    def note_failed_rewrite(self, error: WriteError) -> None:
        """The files could not be written again."""
        self._stuck_by = errno.ENOSPC if error.full else errno.EIO

    def end(self) -> None:
        """All files have been written again."""
        self.failed = self._in_doubt = False

    @contextmanager
    def unless_unchanged(self, is_spoiled: Callable[[], bool]) -> Iterator[None]:
        """Set `failed` if the `with` block raises, unless the error says that nothing has changed.

        `_in_doubt` is true during the block, so that exceptions of any origin count. Otherwise a batch could be on disk
        but not in memory; the next batch would take the same revisions, and the journal could not be read.
        `is_spoiled`: whether the journal must not be written again.
        """
        self.look_back()
        self._in_doubt = True
        try:
            yield
        except WriteError as error:
            self.failed = self.failed or is_spoiled() or not error.nothing_changed
            self._in_doubt = False
            raise
        self._in_doubt = False
