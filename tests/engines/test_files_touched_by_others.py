"""Other programs change the files of a store in use: no entry is lost, and no file of theirs is destroyed."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from driving import Driver, file_driver
from structlog.testing import capture_logs

from leasehold.engines.file import ownership
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.space import FileSpace
from leasehold.errors import ServiceError
from leasehold.model import Value

DATA, JOURNAL, LOCK = "data.json", "data.json.journal", "data.json.lock"
OTHER = b'{"username": "alice"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def driver(folder: Path) -> Iterator[Driver]:
    """A small store with an entry in `data.json` and one in the journal. Killed at the end.

    It looks at its files before each commit. Otherwise a test that is fast enough would fall into the millisecond in
    which it does not look again.
    """
    with patch.object(ownership, "RECENT_NANOSECONDS", 0):
        driver = file_driver(folder).__enter__()
        driver.put("quiet", b"1")
        driver.commit(("busy", b"2"))
        yield driver
        if not driver.has_ended:
            driver.kill()


STORED = {"busy": b"2", "quiet": b"1"}


def verify(driver: Driver) -> None:
    """Run the check that the engine does every second."""
    assert isinstance(driver.space, FileSpace)
    driver.run(driver.space.volume.verify())


def found_after_kill(driver: Driver, folder: Path) -> dict[str, Value]:
    driver.kill()
    with file_driver(folder) as again:
        return again.values()


def replaced(folder: Path) -> dict[str, Value]:
    return {path.name: path.read_bytes() for path in folder.glob("*.replaced-*")}


# data.json and the journals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [[DATA], [JOURNAL], [DATA, JOURNAL]], ids=" and ".join)
def test_a_removed_file_is_written_again_from_memory(driver: Driver, folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).unlink()
    with capture_logs() as logs:
        verify(driver)
    told = {log["file"] for log in logs if log.get("by") == "removed"}
    assert (told, driver.space.fault) == (set(names), None)
    assert found_after_kill(driver, folder) == STORED


@pytest.mark.parametrize("name", [DATA, JOURNAL])
def test_a_file_that_replaced_a_file_of_the_store_is_kept_beside_it(driver: Driver, folder: Path, name: str) -> None:
    (folder / "new").write_bytes(OTHER)
    (folder / "new").replace(folder / name)
    with capture_logs() as logs:
        verify(driver)
    assert {"file": name, "kept_as": f"{name}.replaced-1"}.items() <= logs[-2].items()
    assert replaced(folder) == {f"{name}.replaced-1": OTHER}
    assert found_after_kill(driver, folder) == STORED


def test_an_edit_in_place_is_kept_beside_the_file(driver: Driver, folder: Path) -> None:
    with (folder / DATA).open("ab") as file:
        file.write(b"\n\n")
    edited = (folder / DATA).read_bytes()
    verify(driver)
    assert replaced(folder) == {f"{DATA}.replaced-1": edited}
    assert found_after_kill(driver, folder) == STORED


def test_an_edit_right_before_a_write_is_kept_beside_the_file(folder: Path) -> None:
    driver = file_driver(folder).__enter__()
    (folder / DATA).write_bytes(OTHER)
    driver.put("quiet", b"3")
    (folder / DATA).write_bytes(OTHER + b"\n")
    driver.put("quiet", b"4")
    assert replaced(folder) == {f"{DATA}.replaced-1": OTHER, f"{DATA}.replaced-2": OTHER + b"\n"}
    assert found_after_kill(driver, folder) == {"quiet": b"4"}


def test_an_edit_before_a_stop_is_kept_beside_the_file(driver: Driver, folder: Path) -> None:
    (folder / DATA).write_bytes(OTHER)
    driver.__exit__(None, None, None)
    assert replaced(folder) == {f"{DATA}.replaced-1": OTHER}
    with file_driver(folder) as again:
        assert again.values() == STORED


def test_a_removed_file_is_written_again_at_a_stop(folder: Path) -> None:
    with file_driver(folder) as driver:
        driver.put("a")
        (folder / DATA).unlink()
    with file_driver(folder) as driver:
        assert driver.values() == {"a": b"1"}


def test_a_folder_in_the_place_of_data_json_is_kept_beside_it(driver: Driver, folder: Path) -> None:
    (folder / DATA).unlink()
    (folder / DATA).mkdir()
    verify(driver)
    assert (folder / f"{DATA}.replaced-1").is_dir()
    assert found_after_kill(driver, folder) == STORED


def test_an_edit_is_kept_on_a_file_system_without_hard_links(folder: Path) -> None:
    class LinklessDisk(OsDisk):
        def link(self, source: Path, target: Path) -> None:  # noqa: ARG002
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    driver = file_driver(folder, disk=LinklessDisk()).__enter__()
    driver.put("a")
    (folder / DATA).write_bytes(OTHER)
    driver.put("a", b"2")
    assert replaced(folder) == {f"{DATA}.replaced-1": OTHER}
    assert found_after_kill(driver, folder) == {"a": b"2"}


def test_files_that_no_other_program_changed_are_not_written_again(driver: Driver, folder: Path) -> None:
    before = {path.name: path.stat() for path in folder.iterdir()}
    with capture_logs() as logs:
        verify(driver)
        verify(driver)
    assert (logs, {path.name: path.stat() for path in folder.iterdir()}) == ([], before)


# The lock -----------------------------------------------------------------------------------------------------


def put_another_lock(folder: Path) -> None:
    (folder / "new").touch()
    (folder / "new").replace(folder / LOCK)


@pytest.mark.parametrize("change", [lambda folder: (folder / LOCK).unlink(), put_another_lock])
@pytest.mark.parametrize("notice", [verify, lambda driver: driver.put("x"), lambda driver: driver.commit(("x", b"1"))])
def test_a_removed_lock_file_is_created_again_and_locked(
    driver: Driver, folder: Path, change: Callable[[Path], None], notice: Callable[[Driver], None]
) -> None:
    change(folder)
    with capture_logs() as logs:
        notice(driver)
    assert "the lock file was removed by another program and is created again" in {log["event"] for log in logs}
    with pytest.raises(BlockingIOError):
        OsDisk().lock(folder / LOCK)
    driver.commit(("y", b"1"))


def test_a_process_stops_acknowledging_writes_once_another_has_opened_its_files(driver: Driver, folder: Path) -> None:
    (folder / LOCK).unlink()
    with file_driver(folder) as second:
        assert second.values() == STORED
        for alone in (True, False):
            error = driver.try_commit(("lost", b"1"), alone=alone)
            assert error is not None
            assert (error.code, driver.space.fault is not None) == ("unavailable", True)
        second.put("kept", b"3")
        second.commit(("kept/too", b"4"))
        driver.run(driver.space.recover())
        verify(driver)
        assert driver.space.fault is not None
        assert second.values() == STORED | {"kept": b"3", "kept/too": b"4"}
    assert "lost" not in json.loads((folder / DATA).read_bytes())
    error = driver.try_commit(("lost", b"1"))
    assert error is not None
    with file_driver(folder) as third:
        assert third.values() == STORED | {"kept": b"3", "kept/too": b"4"}


@pytest.mark.parametrize("ends", ["stops", "is killed"])
def test_a_process_does_not_overwrite_what_another_process_wrote_before_it_ended(
    driver: Driver, folder: Path, ends: str
) -> None:
    (folder / LOCK).unlink()
    second = file_driver(folder).__enter__()
    second.commit(("kept", b"3"))
    if ends == "stops":
        second.__exit__(None, None, None)
    else:
        second.kill()
    with capture_logs() as logs:
        verify(driver)
    assert "nothing is written any more until a restart" in {log["event"] for log in logs}
    error = driver.try_commit(("lost", b"1"))
    assert error is not None
    assert error.code == "unavailable"
    assert found_after_kill(driver, folder) == STORED | {"kept": b"3"}


def test_a_process_that_has_lost_its_lock_does_not_change_the_files_at_a_stop(driver: Driver, folder: Path) -> None:
    (folder / LOCK).unlink()
    with file_driver(folder) as second:
        second.put("kept", b"3")
        before = (folder / DATA).read_bytes()
        with pytest.raises(ServiceError, match="used by another process"):
            driver.__exit__(None, None, None)
        assert (folder / DATA).read_bytes() == before


# The folder ---------------------------------------------------------------------------------------------------


def test_a_moved_folder_degrades_the_store_until_it_is_back(driver: Driver, folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "elsewhere")
    with capture_logs() as logs:
        verify(driver)
    assert any("the folder of the store was moved" in str(log.get("reason")) for log in logs)
    for alone in (True, False):
        assert driver.try_commit(("lost", b"1"), alone=alone) is not None
    driver.run(driver.space.recover())
    assert driver.space.fault is not None
    assert driver.values() == STORED
    (tmp_path / "elsewhere").rename(folder)
    driver.run(driver.space.recover())
    driver.commit(("new", b"1"))
    assert found_after_kill(driver, folder) == STORED | {"new": b"1"}


@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_removed_folder_degrades_the_store(driver: Driver, folder: Path, *, is_made_again: bool) -> None:
    shutil.rmtree(folder)
    if is_made_again:
        folder.mkdir()
    assert driver.try_commit(("lost", b"1")) is not None
    driver.run(driver.space.recover())
    assert driver.space.fault is not None
    assert driver.values() == STORED
    assert not folder.exists() or not list(folder.iterdir())


def test_a_commit_after_all_files_were_removed_is_acknowledged_once_they_are_written_again(
    driver: Driver, folder: Path
) -> None:
    for path in folder.iterdir():
        path.unlink()
    if driver.try_commit(("new", b"1")) is not None:
        driver.run(driver.space.recover())
        driver.commit(("new", b"1"))
    assert found_after_kill(driver, folder) == STORED | {"new": b"1"}
