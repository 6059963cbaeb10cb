"""Tests at the start that the files of a store can be replaced, because every commit depends on it."""

import errno
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
    """Make a file in the folder and remove it; give `data.json` a second name and take it away.

    That changes nothing. Where there are no second names, `data.json` is replaced by its own copy, which is returned.
    Raises `unavailable`. A full disk is no obstacle: reads and deletions are served then.
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
                raise cannot_be_replaced(paths, error) from error
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
        raise cannot_be_replaced(paths, error.cause) from error


def cannot_be_replaced(paths: Paths, error: OSError) -> ServiceError:
    """The refusal of a start, for the operator."""
    name = paths.data.name
    if error.errno in _MOUNTED:
        return unavailable(
            f"{name} is a mount of its own and cannot be replaced: mount the folder that it is in instead"
        )
    return unavailable(f"{name} cannot be replaced by a new version: {error.strerror}")
