"""Backup, restore and advance of a store in files. Restore and advance need a store that no process uses.

Every change replaces the files in one step, after a checkpoint. So if the process is killed at any point, the store is
either unchanged or completely changed.
"""

import itertools
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from leasehold.engines.backups import Backup, StoreMoment
from leasehold.engines.base import MakeIncarnation, Moment
from leasehold.engines.file.disk import Disk, WriteError, close_quietly, replace_file
from leasehold.engines.file.namespaces import Head, StoredNamespaces, head_of
from leasehold.engines.file.namespaces_file import whole_text
from leasehold.engines.file.recovery import Paths, Report, as_unavailable, lock_refusal, read_files, real_path
from leasehold.engines.file.snapshot import snapshot_text
from leasehold.engines.file.storage import Storage
from leasehold.engines.state import Description, StoredState, empty_state, snapshot_of
from leasehold.errors import ServiceError, unavailable
from leasehold.model import ENTRY, Entry, is_expired
from leasehold.namespaces import DEFAULT_NAMESPACE

READ_ATTEMPTS: Final = 10
"""A journal that is written or renamed while it is read may look damaged. Then the files are read again."""
READ_PAUSE_SECONDS: Final = 0.2
PAGE_ENTRIES: Final = 512


def moment_of_files(path: Path, disk: Disk, now: int) -> StoreMoment:
    """All namespaces in the files of a store at this moment. A service may use the files meanwhile.

    Changes nothing. Everything acknowledged before this call is included. Raises `unavailable`.
    """
    paths = Paths(real_path(path))
    state, report = _read_quietly(paths, disk, now)
    with as_unavailable(f"the folder {paths.folder}", "read"):
        if not state.revision and paths.data.name not in disk.names(paths.folder):
            raise unavailable(f"there is no store at {path}")
    others = report.namespaces

    async def moment_of(namespace: str) -> Moment:
        found = state if namespace == DEFAULT_NAMESPACE else others.states[namespace]
        entries = [entry for _, entry in sorted(found.of(ENTRY).by_name.items()) if not is_expired(entry, now)]
        return Moment(found.incarnation, found.revision, pages_of(entries))

    return StoreMoment(others.descriptions, moment_of)


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
    namespace: str = DEFAULT_NAMESPACE,
    now: int,
) -> Restored:
    """Replace the content of a namespace in the store at `path` by `backup`. It is created if it does not exist.

    The new head is the larger head plus `advance`. Other namespaces stay as they are. Without `replace`, the namespace
    must be empty. With it, the previous content is kept in another file. Raises `unavailable`.
    """
    with _owned(path, disk, make_incarnation, now) as (storage, default, others):
        is_default = namespace == DEFAULT_NAMESPACE
        before = default if is_default else others.state_of(namespace)
        kept = None
        if not before.is_empty and (is_default or namespace in others.states):
            where = path if is_default else f"the namespace {namespace} of {path}"
            kept = _keep(path, disk, snapshot_text(snapshot_of(before)), str(where), may_replace=replace)
        storage.checkpoint_alone(snapshot_of(default), others.snapshot())
        restored = _restored(backup, before, advance, make_incarnation)
        if is_default:
            storage.write_snapshot(snapshot_of(restored), frees_space=False)
        else:
            others.restore(namespace, restored, now)
            changed = others.snapshot()
            assert changed is not None
            storage.write_namespaces(changed)
        return Restored(restored.revision, kept)


def restore_all_files(
    path: Path,
    disk: Disk,
    backup: Backup,
    *,
    advance: int,
    replace: bool,
    make_incarnation: MakeIncarnation,
    now: int,
) -> Restored:
    """Replace all namespaces in the store at `path` by those of `backup`. What it does not have is deleted.

    Each new head is the larger head plus `advance`. Without `replace`, the store must be empty. With it, the previous
    content is kept in another file. Returns the head of `default`. Raises `unavailable`.
    """
    with _owned(path, disk, make_incarnation, now) as (storage, default, others):
        kept = None
        if not default.is_empty or others.sequence:
            text = whole_text(snapshot_of(default), others) if others.sequence else snapshot_text(snapshot_of(default))
            kept = _keep(path, disk, text, str(path), may_replace=replace)
        storage.checkpoint_alone(snapshot_of(default), others.snapshot())
        restored = _restored(backup.states[DEFAULT_NAMESPACE], default, advance, make_incarnation)
        changed = StoredNamespaces(others.log, others.sequence + 1)
        for name in sorted((others.heads.keys() | backup.namespaces.keys()) - {DEFAULT_NAMESPACE}):
            before = others.state_of(name)
            description = backup.namespaces.get(name)
            deleted_at_revision = before.revision + (name in others.states)  # a deletion takes a revision
            if description is None:
                changed.heads[name] = Head(deleted_at_revision)
            elif description.deleted_at_revision is not None:
                changed.heads[name] = Head(max(description.deleted_at_revision, deleted_at_revision) + advance)
            else:
                state = changed.states[name] = _restored(backup.states[name], before, advance, make_incarnation)
                changed.heads[name] = head_of(description, state.revision, state.incarnation)
        of_default = backup.namespaces[DEFAULT_NAMESPACE]
        if of_default != Description():
            changed.heads[DEFAULT_NAMESPACE] = head_of(of_default, 0, DEFAULT_NAMESPACE)
        storage.snapshots.replace_both(snapshot_of(restored), changed.snapshot())
        return Restored(restored.revision, kept)


def _restored(backup: StoredState, before: StoredState, advance: int, make_incarnation: MakeIncarnation) -> StoredState:
    """The new content of a namespace: the entries of a backup, in a new incarnation."""
    restored = empty_state()
    restored.of(ENTRY).by_name = backup.of(ENTRY).by_name
    restored.incarnation = make_incarnation()
    restored.revision = restored.compacted_revision = max(backup.revision, before.revision) + advance
    return restored


def _keep(path: Path, disk: Disk, text: Iterator[bytes], where: str, *, may_replace: bool) -> Path:
    """Write the previous content to a file beside the store. Raises `unavailable` if it may not be replaced."""
    if not may_replace:
        raise unavailable(f"{where} is not empty: with --replace, its content is kept in another file")
    paths = Paths(real_path(path))
    kept = _free_name(paths, disk)
    replace_file(disk, kept, paths.temporary(paths.data), text)
    return kept


def advance_files(path: Path, disk: Disk, *, by: int, make_incarnation: MakeIncarnation, now: int) -> int:
    """Increase the heads of all namespaces of the store at `path` by `by`, and give each a new incarnation.

    Deleted namespaces are included. Returns the new head of `default`. Raises `unavailable`.
    """
    with _owned(path, disk, make_incarnation, now) as (storage, state, others):
        storage.checkpoint_alone(snapshot_of(state), others.snapshot())
        others.advance(by, make_incarnation)
        state.advance(by, make_incarnation())
        storage.snapshots.replace_both(snapshot_of(state), others.snapshot())
        return state.revision


@contextmanager
def _owned(
    path: Path, disk: Disk, make_incarnation: MakeIncarnation, now: int
) -> Iterator[tuple[Storage, StoredState, StoredNamespaces]]:
    """The store at `path`, which no other process uses meanwhile. Raises `unavailable`."""
    storage = Storage(real_path(path), disk)
    try:
        with _write_errors_as_unavailable(path):
            yield storage, *storage.open(now, make_incarnation)
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
        outcome = "it was not changed" if error.nothing_changed else "whether it was changed is unknown"
        raise unavailable(f"{path} could not be written: {error}; {outcome}") from error
