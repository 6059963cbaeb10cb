"""Makes the files durable at a start, before any record is served.

The last writes of a killed process may be only in the page cache. Readers will see them, so a power cut must not lose
them.
"""

import structlog

from leasehold.engines.file.disk import Disk, close_quietly
from leasehold.engines.file.journal import JournalWriter
from leasehold.engines.file.ownership import OwnedFiles
from leasehold.engines.file.recovery import JournalReport, Paths, Report, as_unavailable

log = structlog.get_logger(__name__)


def sync_files(disk: Disk, paths: Paths, files: OwnedFiles, report: Report, incarnation: str) -> JournalWriter | None:
    """Remove temporary files, cut off torn ends, sync all files. Returns the writer of the journal, if there is one.

    Adds to `files` the journals, and what it renames. `incarnation`: that of `data.json`. Raises `unavailable`.
    """
    with as_unavailable(f"the folder {paths.folder}", "changed"):
        _finish_replacement(disk, paths, files, incarnation)
        for name in disk.names(paths.folder):
            if paths.is_temporary(name):
                disk.unlink(paths.folder / name)
    writer = None
    for journal in report.journals:
        with as_unavailable(journal.name, "made durable"):
            writer = _secure_journal(disk, paths, files, journal) or writer
    with as_unavailable(paths.data.name, "made durable"):
        _sync_data(disk, paths)
    with as_unavailable(f"the folder {paths.folder}", "made durable"):
        disk.sync_folder(paths.folder)
    return writer


def _finish_replacement(disk: Disk, paths: Paths, files: OwnedFiles, incarnation: str) -> None:
    """Do what is left of `SnapshotFiles.replace_both`, if the process was killed after its first step."""
    prepared = paths.prepared_namespaces(incarnation)
    identity = disk.identity(prepared) if incarnation else None
    if identity is not None:
        disk.sync_folder(paths.folder)  # `data.json` must not be the old one when this file has its final name
        disk.rename(prepared, paths.namespaces)
        files.put(paths.namespaces, identity)


def _secure_journal(disk: Disk, paths: Paths, files: OwnedFiles, journal: JournalReport) -> JournalWriter | None:
    path = paths.folder / journal.name
    file = disk.open(path, writable=True)
    try:
        if journal.torn_bytes:
            log.warning("torn end cut off", file=journal.name, offset=journal.end, bytes=journal.torn_bytes)
            disk.truncate(file, journal.end)
        disk.fsync(file)
    finally:
        close_quietly(disk, file)
    files.put(path, disk.identity(path))
    return None if path == paths.old_journal else JournalWriter.resume(disk, path, journal.end)


def _sync_data(disk: Disk, paths: Paths) -> None:
    try:
        file = disk.open(paths.data)
    except FileNotFoundError:
        return
    try:
        disk.fsync(file)
    finally:
        close_quietly(disk, file)
