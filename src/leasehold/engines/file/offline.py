"""Backup, restore and advance of a store in files. Restore and advance need a store that no process uses.

Every change replaces `data.json` once, after a checkpoint. So if the process is killed at any point, the namespace
`default` is either unchanged or completely changed. `advance` also replaces the file of the other namespaces, before
that. If it is killed in between, it can be repeated, because it does no harm to advance a namespace twice.
"""

import itertools
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from leasehold.engines.base import MakeIncarnation, Moment
from leasehold.engines.file.disk import Disk, WriteError, close_quietly, replace_file
from leasehold.engines.file.recovery import Paths, Report, as_unavailable, lock_refusal, read_files, real_path
from leasehold.engines.file.snapshot import snapshot_text
from leasehold.engines.file.storage import Storage
from leasehold.engines.state import StoredState, empty_state, snapshot_of
from leasehold.errors import ServiceError, unavailable
from leasehold.model import ENTRY, Entry, is_expired

READ_ATTEMPTS: Final = 10
"""A journal that is written or renamed while it is read may look damaged. Then the files are read again."""
READ_PAUSE_SECONDS: Final = 0.2
PAGE_ENTRIES: Final = 512


def moment_of_files(path: Path, disk: Disk, now: int) -> Moment:
    """The entries of `default` in the files of a store at this moment. Changes nothing.

    A service may use the files meanwhile. Everything acknowledged before this call is included. Raises `unavailable`.
    """
    paths = Paths(real_path(path))
    state, report = _read_quietly(paths, disk, now)
    with as_unavailable(f"the folder {paths.folder}", "read"):
        if not state.revision and paths.data.name not in disk.names(paths.folder):
            raise unavailable(f"there is no store at {path}")
    entries = [entry for _, entry in sorted(state.of(ENTRY).by_name.items()) if not is_expired(entry, now)]
    return Moment(state.incarnation, state.revision, pages_of(entries), tuple(sorted(report.namespaces.states)))


def _read_quietly(paths: Paths, disk: Disk, now: int) -> tuple[StoredState, Report]:
    try:
        lock = disk.lock_shared(paths.lock)
    except FileNotFoundError:
        return read_files(disk, paths, now)
    except BlockingIOError:
        return _read_while_used(paths, disk, now)
    except OSError as error:
        raise lock_refusal(paths, error) from error
    try:
        return read_files(disk, paths, now)
    finally:
        close_quietly(disk, lock)


def _read_while_used(paths: Paths, disk: Disk, now: int) -> tuple[StoredState, Report]:
    for _ in range(READ_ATTEMPTS - 1):
        try:
            return read_files(disk, paths, now)
        except ServiceError:
            time.sleep(READ_PAUSE_SECONDS)
    return read_files(disk, paths, now)


async def pages_of(entries: Sequence[Entry]) -> AsyncGenerator[Sequence[Entry]]:
    for begin in range(0, len(entries), PAGE_ENTRIES):
        yield entries[begin : begin + PAGE_ENTRIES]


class Restored(msgspec.Struct, frozen=True):
    """The result of a restore: the new head, and the file with the previous content, if the store was not empty."""

    revision: int
    kept: Path | None


def restore_files(
    path: Path,
    disk: Disk,
    backup: StoredState,
    *,
    advance: int,
    replace: bool,
    make_incarnation: MakeIncarnation,
    now: int,
) -> Restored:
    """Replace the content of `default` in the store at `path` by `backup`; the other namespaces stay as they are.

    The new head is the larger head plus `advance`. Without `replace`, `default` must be empty. With it, the previous
    content is kept in another file. Raises `unavailable`.
    """
    paths = Paths(real_path(path))
    storage = Storage(paths.data, disk)
    try:
        with _write_errors_as_unavailable(path):
            before, others = storage.open(now, make_incarnation)
            kept = None
            if not before.is_empty:
                if not replace:
                    raise unavailable(f"{path} is not empty: with --replace, its content is kept in another file")
                kept = _free_name(paths, disk)
                replace_file(disk, kept, paths.temporary(paths.data), snapshot_text(snapshot_of(before)))
            storage.checkpoint_alone(snapshot_of(before), others.snapshot())
            restored = empty_state()
            restored.of(ENTRY).by_name = backup.of(ENTRY).by_name
            restored.incarnation = make_incarnation()
            restored.revision = restored.compacted_revision = max(backup.revision, before.revision) + advance
            storage.write_snapshot(snapshot_of(restored), frees_space=False)
        return Restored(restored.revision, kept)
    finally:
        storage.close()


def advance_files(path: Path, disk: Disk, *, by: int, make_incarnation: MakeIncarnation, now: int) -> int:
    """Increase the heads of all namespaces of the store at `path` by `by`, and give each a new incarnation.

    Deleted namespaces are included. Returns the new head of `default`. Raises `unavailable`.
    """
    storage = Storage(real_path(path), disk)
    try:
        with _write_errors_as_unavailable(path):
            state, others = storage.open(now, make_incarnation)
            storage.checkpoint_alone(snapshot_of(state), others.snapshot())
            others.advance(by, make_incarnation)
            advanced = others.snapshot()
            if advanced is not None:
                storage.write_namespaces(advanced)
            state.advance(by, make_incarnation())
            storage.write_snapshot(snapshot_of(state), frees_space=False)
        return state.revision
    finally:
        storage.close()


def _free_name(paths: Paths, disk: Disk) -> Path:
    taken = set(disk.names(paths.folder))
    names = (f"{paths.data.name}.replaced-{number}" for number in itertools.count(1))
    return paths.folder / next(name for name in names if name not in taken)


@contextmanager
def _write_errors_as_unavailable(path: Path) -> Iterator[None]:
    """A failure of the disk, as one line for the operator."""
    try:
        yield
    except WriteError as error:
        raise unavailable(f"{path} could not be written: {error}; it was not changed") from error
