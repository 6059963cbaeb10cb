"""Storage engines. `base` has the contract; `open_engine` knows every engine.

Each function imports only the engine that it needs. A command then starts in a third of the time.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from leasehold.engines.postgres.urls import is_postgres, looks_like_postgres, shown_url
from leasehold.errors import ServiceError, unavailable
from leasehold.namespaces import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from leasehold.engines.backups import Backup, Keep, StoreMoment
    from leasehold.engines.base import Engine
    from leasehold.engines.file.offline import Restored
    from leasehold.engines.file.recovery import Report
    from leasehold.engines.moves import Moved, Source, Target
    from leasehold.engines.postgres.distribution import Distributed
    from leasehold.engines.state import StoredState
    from leasehold.progress import Progress

__all__ = [
    "advance_store",
    "distribute_store",
    "inspect_file",
    "moment_of",
    "move_store",
    "open_engine",
    "restore_all",
    "restore_store",
    "shown_url",
]


def open_engine(url: str) -> "Engine":
    """The engine for `--store`: `memory:`, `postgresql://…`, `host=…`, a path or a `file:` URL. It is not opened yet.

    Raises `invalid_argument` for an unknown engine, and `unavailable` if a library is missing.
    """
    if url == "memory:":
        from leasehold.engines.memory.engine import MemoryEngine

        return MemoryEngine()
    if is_postgres(url):
        with _asyncpg_required():
            from leasehold.engines.postgres.engine import PostgresEngine  # asyncpg is an extra
        return PostgresEngine(url)
    from leasehold.engines.file.engine import FileEngine

    return FileEngine(_path_of(url))


def inspect_file(path: Path) -> "Report":
    """The report of `leasehold check` about a store's files; see `recovery.inspect`."""
    from leasehold.engines.file.disk import OsDisk
    from leasehold.engines.file.recovery import inspect

    if is_postgres(str(path)) or looks_like_postgres(str(path)):
        raise ServiceError("invalid_argument", "only a store in files can be checked; this one is on PostgreSQL")
    return inspect(path, OsDisk())


@asynccontextmanager
async def moment_of(url: str, *, now: int) -> "AsyncIterator[StoreMoment]":
    """All namespaces of a store at this moment. Services may use the store meanwhile. Raises ServiceError.

    In files that are in use, `default` and the others may differ by what is written while they are read.
    """
    if is_postgres(url):
        with _asyncpg_required():
            from leasehold.engines.postgres import backups
        async with backups.moment_of(url) as store:
            yield store
        return

    from leasehold.engines.file import offline
    from leasehold.engines.file.disk import OsDisk

    yield offline.moment_of_files(_durable_path(url), OsDisk(), now)


async def restore_store(
    url: str,
    backup: "StoredState",
    *,
    advance: int,
    keep: "Keep | None",
    namespace: str = DEFAULT_NAMESPACE,
    now: int,
) -> "Restored":
    """Restore a backup into a namespace, which is created if it does not exist. Raises ServiceError.

    The new head is `advance` larger than both heads. Without `keep`, only an empty one is accepted. The previous
    content of a database is passed to `keep`, which returns the file that it wrote. That of a file store is kept beside
    the new files.
    """
    from leasehold.engines.base import new_incarnation

    if is_postgres(url):
        with _asyncpg_required():
            from leasehold.engines.postgres import backups
        return await backups.restore(
            url,
            backup,
            advance=advance,
            keep=keep,
            make_incarnation=new_incarnation,
            now=now,
            namespace=namespace,
        )

    from leasehold.engines.file import offline
    from leasehold.engines.file.disk import OsDisk

    return offline.restore_files(
        _durable_path(url),
        OsDisk(),
        backup,
        advance=advance,
        replace=keep is not None,
        make_incarnation=new_incarnation,
        namespace=namespace,
        now=now,
    )


async def restore_all(url: str, backup: "Backup", *, advance: int, keep: "Keep | None", now: int) -> "Restored":
    """Restore a backup of several namespaces. The store then has these and no others. As `restore_store` otherwise."""
    from leasehold.engines.base import new_incarnation

    if is_postgres(url):
        with _asyncpg_required():
            from leasehold.engines.postgres import backups
        return await backups.restore_all(
            url, backup, advance=advance, keep=keep, make_incarnation=new_incarnation, now=now
        )

    from leasehold.engines.file import offline
    from leasehold.engines.file.disk import OsDisk

    return offline.restore_all_files(
        _durable_path(url),
        OsDisk(),
        backup,
        advance=advance,
        replace=keep is not None,
        make_incarnation=new_incarnation,
        now=now,
    )


async def advance_store(url: str, *, by: int, now: int) -> int:
    """Increase the head of a store by `by` and give it a new incarnation. Returns the new head. Raises ServiceError."""
    from leasehold.engines.base import new_incarnation

    if is_postgres(url):
        with _asyncpg_required():
            from leasehold.engines.postgres import backups
        return await backups.advance(url, by=by, make_incarnation=new_incarnation, now=now)

    from leasehold.engines.file import offline
    from leasehold.engines.file.disk import OsDisk

    return offline.advance_files(_durable_path(url), OsDisk(), by=by, make_incarnation=new_incarnation, now=now)


async def move_store(source: str, target: str, *, progress: "Progress", now: int) -> "Moved":
    """Move everything in a store into an empty one; see `moves`. Neither may be in use. Raises ServiceError."""
    from leasehold.engines.moves import move

    async with _source_of(source, progress, now) as opened_source, _target_of(target, progress, now) as opened_target:
        return await move(opened_source, opened_target, progress)


def _source_of(url: str, progress: "Progress", now: int) -> "AbstractAsyncContextManager[Source]":
    from leasehold.engines.base import new_incarnation

    if is_postgres(url):
        with _asyncpg_required():
            from leasehold.engines.postgres import moves as in_database
        return in_database.opened_source(url, make_incarnation=new_incarnation, now=now)

    from leasehold.engines.file import moves as in_files
    from leasehold.engines.file.disk import OsDisk

    path = _durable_path(url)
    return in_files.opened_source(path, OsDisk(), make_incarnation=new_incarnation, now=now, progress=progress)


def _target_of(url: str, progress: "Progress", now: int) -> "AbstractAsyncContextManager[Target]":
    from leasehold.engines.base import new_incarnation

    if is_postgres(url):
        with _asyncpg_required():
            from leasehold.engines.postgres import moves as in_database
        return in_database.opened_target(url, make_incarnation=new_incarnation, now=now)

    from leasehold.engines.file import moves as in_files
    from leasehold.engines.file.disk import OsDisk

    path = _durable_path(url)
    return in_files.opened_target(path, OsDisk(), make_incarnation=new_incarnation, now=now, progress=progress)


async def distribute_store(url: str, *, now: int) -> "Distributed":
    """Distribute the tables of a store over the nodes of its database; see `postgres.distribution`."""
    if not is_postgres(url):
        raise ServiceError("invalid_argument", "only a store on PostgreSQL can be distributed")
    with _asyncpg_required():
        from leasehold.engines.postgres.distribution import distribute
    return await distribute(url, now=now)


def _path_of(url: str) -> Path:
    scheme, colon, rest = url.partition(":")
    if scheme == "file" and colon:
        return Path(rest.removeprefix("//"))
    if looks_like_postgres(url):
        raise ServiceError("invalid_argument", "a store on PostgreSQL is given as postgresql://… or as host=… dbname=…")
    if "://" in url or not url:
        raise ServiceError("invalid_argument", "the store must be a path, a file: URL, memory: or postgresql://…")
    return Path(url)


def _durable_path(url: str) -> Path:
    if url == "memory:":
        raise ServiceError("invalid_argument", "a store in memory can only be backed up from its service, with --url")
    return _path_of(url)


@contextmanager
def _asyncpg_required() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise unavailable("PostgreSQL needs asyncpg: install '.[postgres]' from a clone of Leasehold") from error
