"""Obstacles to a start: the error is one line with the file and the failed step, and no file is changed."""

import errno
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import file_driver
from harness.mounts import Mount
from programs import needs
from running import leasehold

from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.recovery import inspect
from leasehold.errors import ServiceError

DATA, JOURNAL, OLD_JOURNAL, LOCK = "data.json", "data.json.journal", "data.json.journal.old", "data.json.lock"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The folder of a store that was stopped."""
    folder = tmp_path / "store"
    folder.mkdir()
    with file_driver(folder) as driver:
        driver.put("a")
    return folder


def refusal(folder: Path, disk: OsDisk | None = None) -> str:
    with pytest.raises(ServiceError) as caught, file_driver(folder, disk=disk):
        pass
    assert caught.value.code == "unavailable"
    assert "\n" not in caught.value.message
    return caught.value.message


def checked(folder: Path) -> str:
    with pytest.raises(ServiceError) as caught:
        inspect(folder / DATA, OsDisk())
    return caught.value.message


# Files that cannot be replaced --------------------------------------------------------------------------------


MOUNTED = f"{DATA} is a mount point and cannot be replaced: mount the folder that contains it instead"


@needs("mounts")
@pytest.mark.parametrize("content", [b"{}", b'{"username": "alice"}', None], ids=["empty", "foreign", "a store"])
def test_a_data_json_that_is_mounted_as_a_single_file_is_refused_with_what_to_mount(
    store: Path, tmp_path: Path, content: bytes | None
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / DATA).touch()
    if content is not None:
        (store / DATA).write_bytes(content)
    before = (store / DATA).read_bytes()
    with Mount(other / DATA, "--bind", str(store / DATA)):
        assert refusal(other) == MOUNTED
        result = leasehold("serve", "--port=0", f"--store={other / DATA}")
        assert (result.returncode, result.stdout, result.stderr.splitlines()[-1]) == (1, "", f"leasehold: {MOUNTED}")
    assert (store / DATA).read_bytes() == before


class StuckDisk(OsDisk):
    """`data.json` cannot be replaced: the rename fails with `number`, and a hard link fails with `links`."""

    def __init__(self, number: int, links: int | None = None) -> None:
        self._number = number
        self._links = links

    def rename(self, source: Path, target: Path) -> None:
        if target.name == DATA:
            raise OSError(self._number, os.strerror(self._number))
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        if self._links is not None:
            raise OSError(self._links, os.strerror(self._links))
        super().link(source, target)


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV])
def test_a_start_is_refused_if_a_mount_prevents_a_rename(store: Path, number: int) -> None:
    assert refusal(store, StuckDisk(number, links=errno.EXDEV)) == MOUNTED
    assert refusal(store, StuckDisk(number, links=errno.EPERM)) == MOUNTED
    (store / DATA).write_bytes(b'{"username": "alice"}')
    assert refusal(store, StuckDisk(number)) == MOUNTED


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EROFS])
def test_a_start_is_refused_if_a_rename_is_not_permitted(store: Path, number: int) -> None:
    told = f"{DATA} cannot be replaced by a new version: {os.strerror(number)}"
    assert refusal(store, StuckDisk(number, links=errno.EPERM)) == told
    (store / DATA).write_bytes(b'{"username": "alice"}')
    assert refusal(store, StuckDisk(number)) == told


def test_a_store_starts_on_a_file_system_without_hard_links(store: Path) -> None:
    class LinklessDisk(OsDisk):
        def link(self, source: Path, target: Path) -> None:  # noqa: ARG002
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    before = (store / DATA).read_bytes()
    with file_driver(store, disk=LinklessDisk()) as driver:
        assert driver.values() == {"a": b"1"}
        assert (store / DATA).read_bytes() == before
        driver.put("b")
    assert list(store.glob("*.replaced-*")) == []


@needs("mounts")
def test_a_file_that_may_not_be_changed_is_refused(store: Path) -> None:
    if subprocess.run(["chattr", "+i", str(store / DATA)], check=False, capture_output=True).returncode:
        pytest.skip("this file system knows no immutable files")
    try:
        assert refusal(store) == f"{DATA} cannot be replaced by a new version: {os.strerror(errno.EPERM)}"
    finally:
        subprocess.run(["chattr", "-i", str(store / DATA)], check=True)


@needs("mounts")
def test_a_store_on_a_read_only_file_system_cannot_be_started_but_can_be_checked(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with Mount(folder, "-t", "tmpfs", "-o", "size=4m", "none"):
        with file_driver(folder) as driver:
            driver.put("a")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        assert refusal(folder) == f"{LOCK} cannot be locked: Read-only file system"
        assert inspect(folder / DATA, OsDisk()).counts["entries"] == 1


def test_a_folder_that_cannot_be_written_is_refused(store: Path) -> None:
    class ClosedDisk(OsDisk):
        def create(self, path: Path) -> int:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    assert refusal(store, ClosedDisk()) == f"the folder {store} cannot be written: Permission denied"


def test_a_store_starts_on_a_full_disk(store: Path) -> None:
    class FullDisk(OsDisk):
        def create(self, path: Path) -> int:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with file_driver(store, disk=FullDisk()) as driver:
        assert driver.values() == {"a": b"1"}


# Locks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(store: Path, number: int) -> None:
    class LocklessDisk(OsDisk):
        def lock(self, path: Path) -> int:
            raise OSError(number, os.strerror(number), str(path))

    assert refusal(store, LocklessDisk()) == (
        f"{LOCK} cannot be locked: {os.strerror(number)}; "
        "the file system has no flock, so the store must be kept on another one"
    )


# Names that are not regular files -----------------------------------------------------------------------------


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            made.bind(f"/proc/self/fd/{folder}/{path.name}")  # its own path may be too long
        finally:
            os.close(folder)


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a folder": (Path.mkdir, "a folder"),
    "a FIFO": (os.mkfifo, "a FIFO"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
}


@pytest.mark.parametrize("name", [DATA, JOURNAL, OLD_JOURNAL, LOCK])
@pytest.mark.parametrize("kind", KINDS)
def test_something_else_in_the_place_of_a_file_is_reported_by_name(store: Path, name: str, kind: str) -> None:
    make, told = KINDS[kind]
    (store / name).unlink(missing_ok=True)
    make(store / name)
    message = refusal(store)
    done = {DATA: "opened", LOCK: "locked"}.get(name, "read")
    if (name, kind) == (DATA, "a device"):
        assert message == "zero cannot be opened: it is a device, not a regular file"
        assert not Path("/dev/zero.lock").exists()
    elif (name, kind) == (LOCK, "a folder"):
        assert message == f"{LOCK} cannot be locked: Is a directory"
    else:
        assert message == f"{name} cannot be {done}: it is {told}, not a regular file"
    if name != LOCK:
        assert checked(store) == message


def test_a_socket_in_the_place_of_data_json_is_reported(store: Path) -> None:
    (store / DATA).unlink()
    make_socket(store / DATA)
    assert refusal(store) == f"{DATA} cannot be opened: {os.strerror(errno.ENXIO)}"


@pytest.mark.parametrize("name", [DATA, JOURNAL, LOCK])
def test_a_loop_of_links_is_reported_by_name(store: Path, name: str) -> None:
    (store / name).unlink(missing_ok=True)
    (store / name).symlink_to(store / name)
    done = {DATA: "opened", LOCK: "locked"}.get(name, "read")
    assert refusal(store) == f"{name} cannot be {done}: {os.strerror(errno.ELOOP)}"


def test_a_file_in_the_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file") == f"{DATA} cannot be opened: {os.strerror(errno.ENOTDIR)}"


def test_a_link_is_followed_and_not_replaced(store: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / DATA).symlink_to(store / DATA)
    with file_driver(tmp_path / "links") as driver:
        driver.put("b")
        driver.commit(("c", b"1"))
    assert [path.name for path in (tmp_path / "links").iterdir()] == [DATA]
    assert (tmp_path / "links" / DATA).is_symlink()
    with file_driver(store) as driver:
        assert sorted(driver.values()) == ["a", "b", "c"]


def test_a_link_to_a_missing_file_creates_a_store_at_its_target(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / DATA).symlink_to(tmp_path / "real" / "kept.json")
    with file_driver(tmp_path) as driver:
        driver.put("a")
    assert ((tmp_path / DATA).is_symlink(), (tmp_path / "real" / "kept.json").exists()) == (True, True)


@pytest.mark.parametrize("operation", ["open", "names"])
def test_a_file_that_may_not_be_read_is_reported_by_name(store: Path, operation: str) -> None:
    class ForbiddenDisk(OsDisk):
        def open(self, path: Path, *, writable: bool = False) -> int:
            if operation == "open":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return super().open(path, writable=writable)

        def names(self, folder: Path) -> list[str]:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    told = {"open": f"{DATA} cannot be opened", "names": f"the folder {store} cannot be read"}[operation]
    assert refusal(store, ForbiddenDisk()) == f"{told}: Permission denied"
