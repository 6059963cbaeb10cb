"""Whether the files of a store may differ from memory, because a write failed and may yet have changed them."""

import errno
from collections.abc import Callable
from types import TracebackType

from leasehold.engines.file.disk import WriteError


class Failure:
    """The failure of one store. It is over once all files have been written again from memory."""

    def __init__(self) -> None:
        self.failed = False
        """The files may differ from memory."""
        self.in_doubt = False
        """As `failed`, but for the sync thread only. It is also true during a write."""
        self._stuck_by = errno.EIO
        """Why the files could not be written again."""

    def refuse(self) -> None:
        """Raise WriteError if the files must be written again first."""
        if self.failed:
            raise WriteError(OSError(self._stuck_by, "the files must be rewritten first"), nothing_changed=True)

    def look_back(self) -> None:
        """Set `failed` if the previous write ended with an unexpected exception."""
        self.failed = self.failed or self.in_doubt

    def note_failed_rewrite(self, error: WriteError) -> None:
        """The files could not be written again."""
        self._stuck_by = errno.ENOSPC if error.full else errno.EIO

    def end(self) -> None:
        """All files have been written again."""
        self.failed = self.in_doubt = False

    def unless_unchanged(self, is_spoiled: Callable[[], bool]) -> "_InDoubt":
        """For a `with` block. Set `failed` if it raises, unless the error says that nothing has changed.

        The files are in doubt during the block, so that exceptions of any origin count. Otherwise a batch could be on
        disk but not in memory; the next batch would take the same revisions, and the journal could not be read.
        `is_spoiled`: whether the journal must not be written again.
        """
        return _InDoubt(self, is_spoiled)


class _InDoubt:
    """The files are in doubt during the `with` block, and afterwards unless it ends normally or with a WriteError.

    A class and not a generator, as `write_errors`.
    """

    __slots__ = ("_failure", "_is_spoiled")

    def __init__(self, failure: Failure, is_spoiled: Callable[[], bool]) -> None:
        self._failure = failure
        self._is_spoiled = is_spoiled

    def __enter__(self) -> None:
        self._failure.look_back()
        self._failure.in_doubt = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = self._failure
        if error is None:
            failure.in_doubt = False
        elif isinstance(error, WriteError):
            failure.failed = failure.failed or self._is_spoiled() or not error.nothing_changed
            failure.in_doubt = False
