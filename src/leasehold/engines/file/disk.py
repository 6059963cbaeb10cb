"""File operations, and the protocol by which a file is replaced so that a power cut leaves the old or the new one.

This is the only module that calls fsync, rename, link or flock. The engine receives a `Disk` as an argument, so
tests can put one in its place that fails at any call, or that forgets what was never synced. Failures of single
operations are `OSError`; `WriteError` says in addition whether anything changed.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Protocol

FILE_MODE: Final = 0o600
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_RENAME_REFUSED: Final = _FULL | {errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, errno.EROFS}
"""Errors of a rename that has changed nothing."""
_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Identity(NamedTuple):
    """Identifies a file and its content: it changes when the file is replaced or written."""

    device: int
    inode: int
    size: int
    modified_ns: int

    def is_same_file(self, other: "Identity | None") -> bool:
        return other is not None and self[:2] == other[:2]


class Disk(Protocol):
    """The operations that the file engine uses. Files are named by their descriptors once they are open."""

    def create(self, path: Path) -> int:
        """A new file for writing, mode 0600. FileExistsError if there is something by that name."""

    def open(self, path: Path, *, writable: bool = False) -> int:
        """An existing file. NotAFileError if it is not a regular file."""

    def lock(self, path: Path) -> int:
        """Open or create a file and lock it until it is closed. BlockingIOError if another process holds a lock."""

    def lock_shared(self, path: Path) -> int:
        """Open an existing file and take a shared lock until it is closed. BlockingIOError if it is locked."""

    def read(self, file: int, size: int) -> bytes:
        """The next bytes, at most `size`; `b""` at the end."""

    def write(self, file: int, data: bytes | memoryview) -> int:
        """Write at the position of the file. Returns how many bytes were written, maybe fewer than given."""

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset`. Returns how many bytes were written, maybe fewer than given."""

    def truncate(self, file: int, size: int) -> None: ...

    def fsync(self, file: int) -> None: ...

    def fdatasync(self, file: int) -> None:
        """As fsync, but without metadata such as times."""

    def close(self, file: int) -> None: ...

    def rename(self, source: Path, target: Path) -> None:
        """Rename `source` to `target`. An existing file `target` is replaced."""

    def link(self, source: Path, target: Path) -> None:
        """Give the file `source` the name `target` as well. FileExistsError if there is something by that name."""

    def unlink(self, path: Path) -> None: ...

    def sync_folder(self, folder: Path) -> None:
        """Make the names in `folder` durable."""

    def names(self, folder: Path) -> list[str]: ...

    def identity(self, path: Path) -> Identity | None:
        """The identity of the file with this name; None if there is none."""

    def identity_of(self, file: int) -> Identity: ...

    def free_bytes(self, folder: Path) -> int:
        """Approximately how many bytes are free on the file system of `folder`."""


class OsDisk:
    """The disk of this machine."""

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)

    def open(self, path: Path, *, writable: bool = False) -> int:
        # O_NONBLOCK, because the opening of a FIFO would wait for its other end.
        return _regular(os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK))

    def lock(self, path: Path) -> int:
        # flock, because fcntl locks are dropped when any descriptor of the file is closed.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        return self._locked(_regular(os.open(path, flags, FILE_MODE)), fcntl.LOCK_EX)

    def lock_shared(self, path: Path) -> int:
        return self._locked(self.open(path), fcntl.LOCK_SH)

    def _locked(self, file: int, kind: int) -> int:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise
        return file

    def read(self, file: int, size: int) -> bytes:
        return os.read(file, size)

    def write(self, file: int, data: bytes | memoryview) -> int:
        return os.write(file, data)

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(file, data, offset)

    def truncate(self, file: int, size: int) -> None:
        os.ftruncate(file, size)

    def fsync(self, file: int) -> None:
        os.fsync(file)

    def fdatasync(self, file: int) -> None:
        os.fdatasync(file)

    def close(self, file: int) -> None:
        os.close(file)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        target.hardlink_to(source)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def names(self, folder: Path) -> list[str]:
        return os.listdir(folder)  # noqa: PTH208  the names are wanted, not a path for each

    def identity(self, path: Path) -> Identity | None:
        try:
            return _identity(os.stat(path))  # noqa: PTH116  once for each batch: `Path.stat` takes 1 µs more
        except FileNotFoundError:
            return None

    def identity_of(self, file: int) -> Identity:
        return _identity(os.fstat(file))

    def free_bytes(self, folder: Path) -> int:
        facts = os.statvfs(folder)
        return facts.f_frsize * (facts.f_bfree if os.geteuid() == 0 else facts.f_bavail)


class NotAFileError(OSError):
    """The path exists, but it is not a regular file."""

    def __init__(self, mode: int) -> None:
        super().__init__(errno.EINVAL, f"it is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file")


def _regular(file: int) -> int:
    mode = os.fstat(file).st_mode
    if not stat.S_ISREG(mode):
        os.close(file)
        raise NotAFileError(mode)
    return file


def _identity(facts: os.stat_result) -> Identity:
    return Identity(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


class WriteError(Exception):
    """A change of the disk failed.

    `nothing_changed`: after a restart the disk has the same content as before. Otherwise the outcome is unknown: a
    failed fsync may have stored everything, a part or nothing, and a second fsync of the same file reports success in
    any case.
    """

    def __init__(self, cause: OSError, *, nothing_changed: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.nothing_changed = nothing_changed
        self.full = cause.errno in _FULL


class write_errors:  # noqa: N801 - used as a statement
    """Raise OSErrors in the `with` block as WriteError with an unknown outcome.

    A class, because each batch enters it: as generators, this and `Failure.unless_unchanged` take 26,000 instructions
    more for each batch.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise WriteError(error, nothing_changed=False) from error


def write_all(disk: Disk, file: int, data: bytes) -> None:
    """Write all of `data` at the position of the file. One system call may write only a part."""
    written = disk.write(file, data)
    while written < len(data):
        written += _progress(disk.write(file, memoryview(data)[written:]))


def pwrite_all(disk: Disk, file: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`."""
    written = disk.pwrite(file, data, offset)
    while written < len(data):
        written += _progress(disk.pwrite(file, memoryview(data)[written:], offset + written))


def read_all(disk: Disk, path: Path) -> bytes:
    """All bytes of a file."""
    file = disk.open(path)
    try:
        return b"".join(iter(lambda: disk.read(file, 4 * 1024 * 1024), b""))
    finally:
        disk.close(file)


def replace_file(
    disk: Disk,
    target: Path,
    temporary: Path,
    chunks: Iterable[bytes],
    *,
    before_rename: Callable[[Identity], None] = lambda _: None,
) -> Identity:
    """Replace `target` durably by a file that consists of `chunks`. Returns the identity of the new file.

    `temporary` is a free name in the same folder. Raises WriteError: with `nothing_changed` before the rename, with an
    unknown outcome from the rename on. `before_rename` is called with the identity of the new file, and may raise
    WriteError, too.
    """
    try:
        identity = _write_new_file(disk, temporary, chunks)
    except OSError as error:
        raise WriteError(error, nothing_changed=True) from error
    try:
        before_rename(identity)
        rename_durably(disk, temporary, target)
    except WriteError:
        unlink_quietly(disk, temporary)
        raise
    return identity


def rename_durably(disk: Disk, source: Path, target: Path) -> None:
    """Rename a file within its folder. Raises WriteError."""
    try:
        disk.rename(source, target)
    except OSError as error:
        raise WriteError(error, nothing_changed=error.errno in _RENAME_REFUSED) from error
    try:
        disk.sync_folder(target.parent)
    except OSError as error:
        raise WriteError(error, nothing_changed=False) from error


def unlink_quietly(disk: Disk, path: Path) -> None:
    """Remove a file. A failure does no harm, because the next start removes the file."""
    with suppress(OSError):
        disk.unlink(path)


def close_quietly(disk: Disk, file: int) -> None:
    """Close a file that was only read, or after a write to it has already failed."""
    with suppress(OSError):
        disk.close(file)


def _progress(written: int) -> int:
    if written == 0:
        raise OSError(errno.EIO, "no bytes could be written")
    return written


def _write_new_file(disk: Disk, path: Path, chunks: Iterable[bytes]) -> Identity:
    file = disk.create(path)
    try:
        try:
            for chunk in chunks:
                write_all(disk, file, chunk)
            disk.fsync(file)
        except BaseException:
            close_quietly(disk, file)
            raise
        disk.close(file)
        identity = _identity_of_new(disk, path)
    except BaseException:
        unlink_quietly(disk, path)
        raise
    return identity


def _identity_of_new(disk: Disk, path: Path) -> Identity:
    identity = disk.identity(path)
    if identity is None:
        raise FileNotFoundError(errno.ENOENT, "the new file was removed by another program")
    return identity
