"""Acknowledged entries, leases and receipts survive any power cut; and the harness detects planted bugs."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from driving import append_to
from harness import depth
from harness.power_cuts import survive_power_cuts

from leasehold.engines.base import CommitDone, Decide
from leasehold.engines.file import disk, journal, records, snapshot_files, storage
from leasehold.engines.file.disk import Disk, Identity, pwrite_all
from leasehold.engines.file.journal import JournalWriter
from leasehold.engines.file.recovery import Paths, Report, read_files
from leasehold.engines.file.space import DefaultSpace
from leasehold.engines.file.storage import Storage
from leasehold.engines.state import Snapshot, StoredState
from leasehold.model import ENTRY, KIND_OF, KINDS, LEASE, RECEIPT, AnyKind, Touched
from leasehold.progress import Progress

SEED = 7
CUTS = 8
"""At each operation."""
LIVES_WITH_A_BUG = 12
LIVES = max(depth(32), LIVES_WITH_A_BUG)
"""Those with a bug begin like these, which find nothing."""


@pytest.mark.long
def test_acknowledged_changes_survive_any_power_cut() -> None:
    finding = survive_power_cuts(SEED, lives=LIVES, cuts_at_each_operation=CUTS)
    assert finding.violations == []
    assert finding.figures["states"] >= depth(8_000)
    assert finding.figures["states with a commit under way"] >= depth(4_000), (
        "cuts must strike while something is under way"
    )
    assert finding.figures["commits with a transaction"] >= depth(8)
    assert finding.figures["commits with a receipt"] >= depth(8)


def violations(*, deaf: str | None = None) -> list[str]:
    return survive_power_cuts(
        SEED,
        lives=LIVES_WITH_A_BUG,
        cuts_at_each_operation=CUTS,
        deaf=frozenset() if deaf is None else frozenset({deaf}),
        most_violations=1,
    ).violations


@pytest.mark.parametrize("sync", ["fsync", "fdatasync", "sync_folder"])
def test_an_omitted_sync_is_detected(sync: str) -> None:
    assert violations(deaf=sync)


def test_an_omitted_checksum_is_detected() -> None:
    no_checksum = SimpleNamespace(crc32=lambda _data, _before=0: 0)
    with patch.object(journal, "zlib", no_checksum), patch.object(records, "zlib", no_checksum):
        assert violations()


def test_an_answer_before_the_sync_of_the_journal_is_detected() -> None:
    def append(writer: JournalWriter, record: bytes) -> None:
        """A bug: a record is durable only with the next one."""
        if writer.end + len(record) > writer._allocated:
            writer._allocate(writer.end + len(record))
        writer._disk.fdatasync(writer._file)
        pwrite_all(writer._disk, writer._file, record, writer.end)
        writer.end += len(record)

    with patch.object(JournalWriter, "append", append):
        assert violations()


def test_a_snapshot_renamed_before_its_sync_is_detected() -> None:
    def replace_file(
        on: Disk, target: Path, temporary: Path, chunks: Iterable[bytes], before_rename: Callable[[Identity], None]
    ) -> Identity:
        with patch.object(on, "fsync", lambda _file: None):
            identity = disk.replace_file(on, target, temporary, chunks, before_rename=before_rename)
        file = on.open(target)
        on.fsync(file)
        on.close(file)
        return identity

    with patch.object(snapshot_files, "replace_file", replace_file):
        assert violations()


def test_a_checkpoint_that_removes_the_old_journal_first_is_detected() -> None:
    def checkpoint(self: Storage, snapshot: Snapshot, _others: object = None, *, removes_journal: bool = True) -> None:
        assert removes_journal
        self._journals._remove(self._paths.old_journal)
        self._disk.sync_folder(self._paths.folder)
        self.snapshots.replace_data(snapshot)
        self._journals.has_old = False

    with patch.object(Storage, "checkpoint", checkpoint):
        assert violations()


@pytest.mark.parametrize("kinds", [(ENTRY,), (RECEIPT,)], ids=["a transaction", "a receipt after its change"])
def test_what_has_one_revision_and_is_stored_in_two_steps_is_detected(kinds: tuple[AnyKind, ...]) -> None:
    """A bug: the changes before one of these kinds, of the same revision, are durable in the journal before it is."""

    def commit(self: DefaultSpace, touched: Touched, decide: Decide, done: CommitDone) -> None:
        changes = self._decide(decide)
        volume, storage = self.volume, self.volume.storage
        assert storage is not None
        revisions = [change.revision for change in changes]
        first = self._state.revision + 1
        finish = partial(self._finish_commit, storage, None, changes, done)
        shared = [
            place
            for place in range(1, len(changes))
            if revisions[place] == revisions[place - 1] and KIND_OF[type(changes[place])] in kinds
        ]
        if shared:
            half = changes[: shared[0]]
            volume.do(partial(append_to, storage, first, half), lambda _: None)
        volume.do(partial(append_to, storage, first, changes), finish)

    with patch.object(DefaultSpace, "commit", commit):
        assert violations()


def without(part: Callable[[StoredState], None]) -> Callable[[Disk, Paths, int, Progress], tuple[StoredState, Report]]:
    def read(on: Disk, paths: Paths, now: int, progress: Progress) -> tuple[StoredState, Report]:
        state, report = read_files(on, paths, now, progress)
        part(state)
        return state, report

    return read


def reset_head(state: StoredState) -> None:
    """A bug: the head is computed from the remaining records, so deletions and releases at the end are forgotten with
    their tokens."""
    state.revision = max((record.revision for kind in KINDS for record in state.by_name(kind).values()), default=0)


def lose_leases(state: StoredState) -> None:
    state.of(LEASE).by_name = {}


def lose_receipts(state: StoredState) -> None:
    state.of(RECEIPT).by_name = {}


def lose_removals(state: StoredState) -> None:
    state.of(ENTRY).removals = {}


@pytest.mark.parametrize("bug", [reset_head, lose_leases, lose_receipts, lose_removals])
def test_a_start_that_forgets_the_head_is_detected(bug: Callable[[StoredState], None]) -> None:
    with patch.object(storage, "read_files", without(bug)):
        assert violations()
