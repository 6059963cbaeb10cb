"""Where entries are kept. `base` has the contract; `open_engine` knows every kind."""

from pathlib import Path

from leasehold.engines.base import Engine
from leasehold.engines.disk import OsDisk
from leasehold.engines.file import FileEngine
from leasehold.engines.memory import MemoryEngine
from leasehold.engines.postgres.urls import is_postgres, shown_url
from leasehold.engines.recovery import Report, inspect
from leasehold.errors import ServiceError, unavailable

__all__ = ["Engine", "Report", "inspect_file", "open_engine", "shown_url"]


def open_engine(url: str) -> Engine:
    """The engine for `--store`: `memory:`, `postgresql://…`, or a path or `file:` URL. It is opened by its own `open`.

    Raises `invalid_argument` for a kind that there is not, and `unavailable` where a library is missing.
    """
    scheme, colon, rest = url.partition(":")
    if url == "memory:":
        return MemoryEngine()
    if scheme == "file" and colon:
        return FileEngine(Path(rest.removeprefix("//")))
    if is_postgres(url):
        return _postgres_engine(url)
    if "://" in url or not url:
        raise ServiceError("invalid_argument", "the store must be a path, a file: URL, memory: or postgresql://…")
    return FileEngine(Path(url))


def _postgres_engine(url: str) -> Engine:
    try:
        from leasehold.engines.postgres.engine import PostgresEngine  # noqa: PLC0415 - asyncpg is an extra
    except ModuleNotFoundError as error:
        raise unavailable("PostgreSQL needs asyncpg: pip install leasehold[postgres]") from error
    return PostgresEngine(url)


def inspect_file(path: Path) -> Report:
    """What `leasehold check` tells of a store's files; see `recovery.inspect`."""
    return inspect(path, OsDisk())
