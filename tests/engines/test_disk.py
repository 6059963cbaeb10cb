"""How a file is replaced: the order of the steps, and what each failure means."""

import errno
import stat
from pathlib import Path

import pytest

from leasehold.engines.file.disk import OsDisk, WriteError, pwrite_all, read_all, replace_file, write_all


class RecordingDisk(OsDisk):
    """Notes the steps that matter, takes at most three bytes at a time, and fails at the step named by `failing`."""

    def __init__(self, failing: str = "", number: int = errno.EIO) -> None:
        self.steps: list[str] = []
        self._failing = failing
        self._number = number

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self._failing:
            raise OSError(self._number, "injected")

    def create(self, path: Path) -> int:
        self._step("create")
        return super().create(path)

    def write(self, file: int, data: bytes | memoryview) -> int:
        if self.steps[-1] != "write":
            self._step("write")
        return super().write(file, data[:3])

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        return super().pwrite(file, data[:3], offset)

    def fsync(self, file: int) -> None:
        self._step("fsync")
        super().fsync(file)

    def close(self, file: int) -> None:
        super().close(file)
        self._step("close")

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        super().rename(source, target)

    def sync_folder(self, folder: Path) -> None:
        self._step("sync_folder")
        super().sync_folder(folder)


def replace(disk: OsDisk, folder: Path) -> int:
    return replace_file(disk, folder / "data", folder / "data.tmp-1", [b"new ", b"content"]).size


def test_the_steps_of_a_replacement_are_in_an_order_that_is_safe_in_a_power_cut(tmp_path: Path) -> None:
    disk = RecordingDisk()
    assert replace(disk, tmp_path) == 11
    assert disk.steps == ["create", "write", "fsync", "close", "rename", "sync_folder"]
    assert (tmp_path / "data").read_bytes() == b"new content"


def test_a_new_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    replace(OsDisk(), tmp_path)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["create", "write", "fsync", "close"])
def test_a_failure_before_the_rename_leaves_the_old_file_and_no_other(tmp_path: Path, step: str) -> None:
    (tmp_path / "data").write_bytes(b"old")
    with pytest.raises(WriteError) as caught:
        replace(RecordingDisk(failing=step), tmp_path)
    assert caught.value.nothing_changed
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"data": b"old"}


@pytest.mark.parametrize("step", ["rename", "sync_folder"])
def test_a_failure_at_or_after_the_rename_is_an_unknown_outcome(tmp_path: Path, step: str) -> None:
    with pytest.raises(WriteError) as caught:
        replace(RecordingDisk(failing=step), tmp_path)
    assert not caught.value.nothing_changed


def test_a_file_is_not_synced_again_after_a_failed_sync(tmp_path: Path) -> None:
    disk = RecordingDisk(failing="fsync")
    with pytest.raises(WriteError):
        replace(disk, tmp_path)
    assert disk.steps == ["create", "write", "fsync", "close"]


@pytest.mark.parametrize(("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_full_disk_is_distinguished_from_a_broken_disk(tmp_path: Path, number: int, full: bool) -> None:  # noqa: FBT001
    with pytest.raises(WriteError) as caught:
        replace(RecordingDisk(failing="write", number=number), tmp_path)
    assert caught.value.full is full


def test_a_temporary_file_does_not_replace_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "data.tmp-1").write_bytes(b"of somebody")
    with pytest.raises(WriteError) as caught:
        replace(OsDisk(), tmp_path)
    assert caught.value.nothing_changed
    assert (tmp_path / "data.tmp-1").read_bytes() == b"of somebody"


def test_a_short_write_is_continued_until_all_bytes_are_written(tmp_path: Path) -> None:
    disk = RecordingDisk()
    file = disk.create(tmp_path / "data")
    write_all(disk, file, b"0123456789")
    pwrite_all(disk, file, b"abcdefg", 2)
    disk.close(file)
    assert read_all(disk, tmp_path / "data") == b"01abcdefg9"


def test_a_write_that_makes_no_progress_is_a_failure(tmp_path: Path) -> None:
    class StuckDisk(OsDisk):
        def write(self, file: int, data: bytes | memoryview) -> int:  # noqa: ARG002
            return 0

    disk = StuckDisk()
    file = disk.create(tmp_path / "data")
    with pytest.raises(OSError, match="no bytes could be written"):
        write_all(disk, file, b"0123456789")
    disk.close(file)


def test_a_lock_file_that_is_locked_cannot_be_locked_again(tmp_path: Path) -> None:
    disk = OsDisk()
    file = disk.lock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        disk.lock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        disk.lock_shared(tmp_path / "lock")
    disk.close(file)
    disk.close(disk.lock(tmp_path / "lock"))
