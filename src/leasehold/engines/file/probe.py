"""Tests at the start that the files of a store can be replaced, because every commit depends on it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from leasehold.engines.file.disk import Disk, Identity, WriteError, read_all, replace_file
from leasehold.engines.file.recovery import Paths, as_unavailable
from leasehold.errors import ServiceError, unavailable

OBSTACLES: Final = frozenset(
    {errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, errno.EROFS, errno.EISDIR, errno.ENOTDIR}
)
"""Failures of a rename that are not transient."""
_MOUNTED: Final = frozenset({errno.EBUSY, errno.EXDEV})
"""A name that is a mount point can be neither replaced nor linked."""


def check_that_files_can_be_replaced(disk: Disk, paths: Paths) -> Identity | None:
    """Create a file in the folder and remove it. Add a hard link to `data.json` and remove it.

    On file systems without hard links, `data.json` is replaced by a copy; the identity of the copy is returned. Raises
    `unavailable`, but not for a full disk, because reads and deletions can still be served.
    """
    temporary = paths.temporary(paths.data)
    try:
        disk.close(disk.create(temporary))
    except OSError as error:
        if WriteError(error, nothing_changed=True).full:
            return None
        raise unavailable(f"the folder {paths.folder} cannot be written: {error.strerror}") from error
    with as_unavailable(paths.data.name, "replaced"):
        disk.unlink(temporary)
        if disk.identity(paths.data) is None:
            return None
        try:
            disk.link(paths.data, temporary)
        except OSError as error:
            if error.errno in _MOUNTED:
                raise _cannot_be_replaced(paths, error) from error
            return _replace_by_its_copy(disk, paths)
        disk.unlink(temporary)
    return None


def _replace_by_its_copy(disk: Disk, paths: Paths) -> Identity | None:
    content = read_all(disk, paths.data)
    try:
        return replace_file(disk, paths.data, paths.temporary(paths.data), [content])
    except WriteError as error:
        if error.full:
            return None
        raise _cannot_be_replaced(paths, error.cause) from error


@contextmanager
def obstacles_as_unavailable(paths: Paths) -> Iterator[None]:
    """Raise a WriteError that is not transient as `unavailable`."""
    try:
        yield
    except WriteError as error:
        if error.cause.errno in OBSTACLES:
            raise _cannot_be_replaced(paths, error.cause) from error
        raise


def _cannot_be_replaced(paths: Paths, error: OSError) -> ServiceError:
    """The error that ends the start, for the operator."""
    name = paths.data.name
    if error.errno in _MOUNTED:
        return unavailable(f"{name} is a mount point and cannot be replaced: mount the folder that contains it instead")
    return unavailable(f"{name} cannot be replaced by a new version: {error.strerror}")
