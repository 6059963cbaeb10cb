"""Where records are kept. `base` has the contract; `open_engine` knows every engine.

Each function imports the engine that it is about: commands start in a third of the time that all of them take.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from leasehold.engines.postgres.urls import is_postgres, looks_like_postgres, shown_url
from leasehold.errors import ServiceError, unavailable

if TYPE_CHECKING:
    from leasehold.engines.base import Engine, Moment
    from leasehold.engines.file.offline import Restored
    from leasehold.engines.file.recovery import Report
    from leasehold.engines.state import StoredState

__all__ = [
    "advance_store",
    "inspect_file",
    "moment_of",
    "open_engine",
    "restore_store",
    "shown_url",
]


def open_engine(url: str) -> "Engine":
    """The engine for `--store`: `memory:`, `postgresql://…`, `host=…`, or a path or `file:` URL. Its `open` opens it.

    Raises `invalid_argument` for an engine that there is not, and `unavailable` where a library is missing.
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
    """What `leasehold check` tells of a store's files; see `recovery.inspect`."""
    from leasehold.engines.file.disk import OsDisk
    from leasehold.engines.file.recovery import inspect

    if is_postgres(str(path)) or looks_like_postgres(str(path)):
        raise ServiceError("invalid_argument", "only a store in files can be checked, and this one is on PostgreSQL")
    return inspect(path, OsDisk())


async def moment_of(url: str, *, now: int) -> "Moment":
    """Everything in a store at this moment, whether services use it or not. Changes nothing. Raises ServiceError."""
    if is_postgres(url):
        with _asyncpg_required():
            from leasehold.engines.postgres import backups
        return await backups.moment_of(url)

    from leasehold.engines.file import offline
    from leasehold.engines.file.disk import OsDisk

    return offline.moment_of_files(_durable_path(url), OsDisk(), now)


async def restore_store(
    url: str, backup: "StoredState", *, advance: int, keep: Callable[["Moment"], Awaitable[Path]] | None, now: int
) -> "Restored":
    """Put a backup into a store, `advance` revisions behind either head. Raises ServiceError.

    Without `keep`, a store that holds something is refused. A database's content is given to `keep`, which says where
    it was put; that of files stays beside them.
    """
    from leasehold.engines.base import new_incarnation

    if is_postgres(url):
        with _asyncpg_required():
            from leasehold.engines.postgres import backups
        return await backups.restore(url, backup, advance=advance, keep=keep, make_incarnation=new_incarnation, now=now)

    from leasehold.engines.file import offline
    from leasehold.engines.file.disk import OsDisk

    return offline.restore_files(
        _durable_path(url),
        OsDisk(),
        backup,
        advance=advance,
        replace=keep is not None,
        make_incarnation=new_incarnation,
        now=now,
    )


async def advance_store(url: str, *, by: int, now: int) -> int:
    """Let the head of a store be greater by so much, in a new incarnation; the new head. Raises ServiceError."""
    from leasehold.engines.base import new_incarnation

    if is_postgres(url):
        with _asyncpg_required():
            from leasehold.engines.postgres import backups
        return await backups.advance(url, by=by, make_incarnation=new_incarnation, now=now)

    from leasehold.engines.file import offline
    from leasehold.engines.file.disk import OsDisk

    return offline.advance_files(_durable_path(url), OsDisk(), by=by, make_incarnation=new_incarnation, now=now)


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
