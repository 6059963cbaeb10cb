"""The order in which the files of a store change, in cases that a run of the engine does not produce reliably."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from driving import INCARNATION, append_to

from leasehold.engines.file.disk import OsDisk, WriteError
from leasehold.engines.file.journals import Journals
from leasehold.engines.file.storage import Storage
from leasehold.engines.state import KindSnapshot, Snapshot, snapshot_of
from leasehold.model import ENTRY, Entry
from leasehold.progress import BYTES, Progress


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    storage = Storage(tmp_path / "data.json", OsDisk())
    storage.open(0, lambda: INCARNATION)
    yield storage
    storage.close()


def snapshot_at(revision: int) -> Snapshot:
    entry = Entry("a", b"%d" % revision, revision, 0, 0)
    return Snapshot(INCARNATION, revision, 0, [KindSnapshot(ENTRY, ["a"], [entry])])  # type: ignore[arg-type] # a kind of record


def test_an_older_snapshot_does_not_replace_a_newer_one(storage: Storage, tmp_path: Path) -> None:
    storage.write_snapshot(snapshot_at(2), frees_space=False)
    storage.checkpoint(snapshot_at(1))
    assert b'"revision": 2' in (tmp_path / "data.json").read_bytes()
    assert storage.snapshot_revision == 2


def test_a_start_with_a_file_of_another_tool_says_how_far_it_has_come(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_bytes(b'{"b": 1, "a": 2}')
    storage = Storage(tmp_path / "data.json", OsDisk())
    storage.progress = steps = Steps()
    state, _ = storage.open(0, lambda: INCARNATION)
    storage.checkpoint_alone(snapshot_of(state))
    storage.close()
    assert steps.ended == [
        {"step": "reading data.json", "done": "0 MB", "left": "0 MB"},
        {"step": "decoding data.json, which has another layout than Leasehold writes"},
        {"step": "importing data.json", "done": "2 entries", "left": "0 entries"},
        {"step": "syncing the files"},
        {"step": "writing data.json", "done": "2 lines", "left": "0 lines"},
    ]


class Steps(Progress):
    """Collects the figures at the end of each step."""

    def __init__(self) -> None:
        self.seen: list[Mapping[str, object]] = []
        super().__init__()
        self.seen.clear()

    def begin(self, step: str, total: int = 0, unit: str = BYTES) -> None:
        if hasattr(self, "done"):
            self.seen.append(self.figures())
        super().begin(step, total, unit)

    @property
    def ended(self) -> list[Mapping[str, object]]:
        return [*self.seen[1:], self.figures()]


def test_a_snapshot_may_be_written_while_the_journal_continues(storage: Storage, tmp_path: Path) -> None:
    append_to(storage, 1, [Entry("a", b"1", 1, 0, 0)])
    storage.checkpoint(snapshot_at(1))
    append_to(storage, 2, [Entry("a", b"2", 2, 0, 0)])
    storage.close()
    after = Storage(tmp_path / "data.json", OsDisk())
    state, _ = after.open(0, lambda: INCARNATION)
    assert (state.revision, after.snapshot_revision, after.has_old_journal) == (2, 1, False)
    after.close()


def test_a_write_that_ended_with_an_unexpected_exception_is_in_doubt_also_after_a_check(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Journals, "append", forget_memory)
        with pytest.raises(MemoryError):
            append_to(storage, 1, [Entry("a", b"1", 1, 0, 0)])
    storage.verify()
    assert storage.failed


def forget_memory(*_arguments: object) -> None:
    raise MemoryError


def test_a_rewrite_of_all_files_is_refused_if_the_snapshot_lacks_durable_changes(storage: Storage) -> None:
    append_to(storage, 1, [Entry("a", b"1", 1, 0, 0)])
    storage._failure.failed = True
    with pytest.raises(WriteError):
        storage.rewrite_all(snapshot_at(0))
    assert storage.failed


def test_nothing_is_written_after_a_failure_until_all_files_are_rewritten(storage: Storage, tmp_path: Path) -> None:
    storage._failure.failed = True
    with pytest.raises(WriteError) as caught:
        storage.write_snapshot(snapshot_at(1), frees_space=False)
    with pytest.raises(WriteError):
        append_to(storage, 1, [Entry("a", b"1", 1, 0, 0)])
    with pytest.raises(WriteError):
        storage.rotate()
    assert caught.value.nothing_changed
    assert [path.name for path in tmp_path.iterdir()] == ["data.json.lock"]
