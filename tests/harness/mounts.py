"""Mounts, among them an ext4 in a file on a loop device whose power can be cut. They need root.

Nothing stays mounted after this process has died: a guard process waits for the end of a pipe and then unmounts. The
loop device is removed with the mount.
"""

import fcntl
import functools
import os
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

IMAGE_BYTES = 48 << 20
UNMOUNT_SECONDS = 10.0
"""A killed process may keep its files for a moment."""

EXT4_IOC_SHUTDOWN = 0x8004587D
NOLOGFLUSH = 2
"""Neither data nor the journal of the file system is flushed, so unsynced data is lost."""


class Mount:
    """`mount ARGUMENTS PATH` for a `with` block: `Mount(path, "-t", "tmpfs", "-o", "size=8m", "none")`."""

    def __init__(self, path: Path, *arguments: str) -> None:
        self.path = path
        self._arguments = arguments

    def __enter__(self) -> Self:
        self._guard = _guard(self.path)
        try:
            _run("mount", *self._arguments, str(self.path))
        except BaseException:
            self._guard.communicate()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            _unmount(self.path)
        finally:
            self._guard.communicate()


class LoopMount:
    """A new file system at `path`, in `folder`. The end of the `with` block unmounts and removes it."""

    def __init__(self, folder: Path, *, options: str = "") -> None:
        self.path = folder / "mount"
        self.image = folder / "image.ext4"
        self._options = ",".join(["loop", *([options] if options else [])])
        self._root: int | None = None
        """Kept open, so that a cut takes no time."""

    def __enter__(self) -> Self:
        self.path.mkdir()
        with self.image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(self.image))
        self._guard = _guard(self.path)
        try:
            self.mount()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.unmount()
        finally:
            self._end()

    def mount(self) -> None:
        """Mount it, also again after a cut. The journal of the file system is replayed."""
        _run("mount", "-o", self._options, str(self.image), str(self.path))
        self._root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def cut(self) -> None:
        """Cut the power: from now on nothing reaches the disk, and each operation fails."""
        assert self._root is not None
        fcntl.ioctl(self._root, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))

    def unmount(self) -> None:
        """Unmount. No process may use it any more."""
        self._close_root()
        _unmount(self.path)

    def _close_root(self) -> None:
        if self._root is not None:
            os.close(self._root)
            self._root = None

    def _end(self) -> None:
        self._close_root()
        self._guard.communicate()
        self.image.unlink()


@functools.cache
def obstacle() -> str:
    """Why this machine cannot have such a mount; empty if it can."""
    if os.geteuid() != 0:
        return "a loop mount needs root"
    if shutil.which("mkfs.ext4") is None:
        return "there is no mkfs.ext4"
    with tempfile.TemporaryDirectory(prefix="leasehold-mount-") as folder:
        try:
            with LoopMount(Path(folder)) as mount:
                mount.cut()
        except OSError as error:
            return f"a loop mount is not possible: {error}"
    return ""


@functools.cache
def obstacle_to_mounts() -> str:
    """Why this machine cannot mount anything; empty if it can."""
    if os.geteuid() != 0:
        return "a mount needs root"
    with tempfile.TemporaryDirectory(prefix="leasehold-mount-") as folder:
        try:
            with Mount(Path(folder), "-t", "tmpfs", "-o", "size=1m", "none"):
                pass
        except OSError as error:
            return f"a mount is not possible: {error}"
    return ""


def _guard(path: Path) -> subprocess.Popen[bytes]:
    """Unmounts `path` when this process has died."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'cat; mountpoint -q "$1" && umount -l "$1"', "guard", str(path)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _unmount(path: Path) -> None:
    deadline = time.monotonic() + UNMOUNT_SECONDS
    while True:
        try:
            return _run("umount", str(path))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise OSError(f"{' '.join(command)}: {ended.stderr.strip()}")
