"""A store that is too large for a last checkpoint: its journal is kept, and the next start reads it."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from driving import Driver, FrozenClock, file_driver
from store_files import DATA, JOURNAL, LOCK, OLD_JOURNAL, RESERVE, document, files, line
from structlog.testing import capture_logs

from leasehold.engines.file import policy
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.offline import moment_of_files
from leasehold.engines.file.recovery import inspect
from leasehold.engines.file.space import FileSpace
from leasehold.engines.file.storage import Storage
from leasehold.model import Value
from leasehold.namespaces import DEFAULT_NAMESPACE

LARGE = b'"' + b"x" * 300_000 + b'"'
"""With this value, `data.json` is not written by each commit."""
TOLD = "the store is large, so its last changes are left in the journal; the next start reads all files"


@pytest.fixture(autouse=True)
def _every_store_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "MAX_LAST_CHECKPOINT_BYTES", 0)


def stop(driver: Driver) -> Sequence[str]:
    """Stop in order. Returns the events of the log."""
    with capture_logs() as logs:
        driver.__exit__(None, None, None)
    return [entry["event"] for entry in logs]


def values(folder: Path) -> dict[str, Value]:
    with file_driver(folder) as driver:
        return driver.values()


def test_the_last_changes_stay_in_the_journal_and_the_log_says_so(tmp_path: Path) -> None:
    driver = file_driver(tmp_path).__enter__()
    driver.commit(("a", b"1"), ("b", b"2"))
    assert stop(driver) == [TOLD]
    assert (tmp_path / DATA).read_bytes() == document(0)
    assert sorted(files(tmp_path)) == [DATA, JOURNAL, LOCK, RESERVE]
    assert values(tmp_path) == {"a": b"1", "b": b"2"}


def test_the_log_names_the_files_to_keep(tmp_path: Path) -> None:
    driver = file_driver(tmp_path).__enter__()
    driver.commit(("a", b"1"))
    with capture_logs() as logs:
        driver.__exit__(None, None, None)
    assert logs[0]["keep"] == [DATA, JOURNAL]


def test_a_store_without_changes_ends_with_a_complete_data_json(tmp_path: Path) -> None:
    driver = file_driver(tmp_path).__enter__()
    assert isinstance(driver.space, FileSpace)
    driver.commit(("a", b"1"))
    driver.run(driver.space.volume.checkpoint())
    assert stop(driver) == []
    assert (tmp_path / DATA).read_bytes() == document(1, line("a", "1", 1))
    assert sorted(files(tmp_path)) == [DATA, LOCK, RESERVE]


def test_a_check_and_an_offline_backup_read_the_journal_too(tmp_path: Path) -> None:
    driver = file_driver(tmp_path).__enter__()
    driver.commit(("a", b"1"), ("b", b"2"))
    stop(driver)
    report = inspect(tmp_path / DATA, OsDisk())
    assert (report.revision, report.snapshot_revision, report.counts["entries"]) == (2, 0, 2)
    store = moment_of_files(tmp_path / DATA, OsDisk(), FrozenClock().now)
    assert asyncio.run(store.moment_of(DEFAULT_NAMESPACE)).revision == 2


def test_files_that_were_removed_by_another_program_are_written_at_the_end(tmp_path: Path) -> None:
    driver = file_driver(tmp_path).__enter__()
    driver.commit(("a", b"1"))
    (tmp_path / DATA).unlink()
    stop(driver)
    assert (tmp_path / DATA).read_bytes() == document(1, line("a", "1", 1))


def test_a_checkpoint_under_way_is_given_up_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowDisk(OsDisk):
        """The first write of the next `data.json` waits until checkpoints are stopped."""

        slow_file: int | None = None
        is_slow = False
        reached = threading.Event()
        go = threading.Event()

        def create(self, path: Path) -> int:
            file = super().create(path)
            if self.is_slow and path.name.startswith(f"{DATA}.tmp"):
                self.is_slow, self.slow_file = False, file
            return file

        def write(self, file: int, data: bytes | memoryview) -> int:
            if file == self.slow_file:
                self.reached.set()
                assert self.go.wait(60)
            return super().write(file, data)

    driver = file_driver(tmp_path, disk=(disk := SlowDisk())).__enter__()
    stop_checkpoints = Storage.stop_checkpoints

    def stop_and_go(storage: Storage) -> None:
        stop_checkpoints(storage)
        disk.go.set()

    monkeypatch.setattr(Storage, "stop_checkpoints", stop_and_go)
    space = driver.space
    assert isinstance(space, FileSpace)
    driver.commit(("a", b"1"))
    disk.is_slow = True

    async def close_during_a_checkpoint() -> None:
        checkpoint = asyncio.create_task(space.volume.checkpoint())
        assert await asyncio.to_thread(disk.reached.wait, 60)
        async with asyncio.timeout(60):
            await space.close()
            await checkpoint

    with capture_logs() as logs:
        driver.run(close_during_a_checkpoint())
    stop(driver)
    assert [entry["event"] for entry in logs] == [TOLD]
    assert (tmp_path / DATA).read_bytes() == document(0)
    assert sorted(files(tmp_path)) == [DATA, OLD_JOURNAL, LOCK, RESERVE]
    assert values(tmp_path) == {"a": b"1"}


def test_many_starts_and_ends_keep_every_change(tmp_path: Path) -> None:
    expected: dict[str, bytes] = {}
    for number in range(6):
        with file_driver(tmp_path) as driver:
            assert driver.values() == expected
            driver.commit((f"k{number}", LARGE))
            expected[f"k{number}"] = LARGE
    assert values(tmp_path) == expected
