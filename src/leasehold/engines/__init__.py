"""Where entries are kept. `base` has the contract; `open_engine` knows every kind."""

from pathlib import Path

from leasehold.engines.base import Engine
from leasehold.engines.disk import OsDisk
from leasehold.engines.file import FileEngine
from leasehold.engines.memory import MemoryEngine
from leasehold.engines.recovery import Report, inspect
from leasehold.errors import ServiceError

__all__ = ["Engine", "Report", "inspect_file", "open_engine"]


def open_engine(url: str) -> Engine:
    """The engine for `--store`: `memory:`, or a path or `file:` URL. It is opened by its own `open`.

    Raises `invalid_argument` for a kind that there is not.
    """
    scheme, colon, rest = url.partition(":")
    if url == "memory:":
        return MemoryEngine()
    if scheme == "file" and colon:
        return FileEngine(Path(rest.removeprefix("//")))
    if scheme in ("postgresql", "postgres") and colon:
        raise ServiceError("invalid_argument", "this version of Leasehold has no PostgreSQL engine yet")
    if "://" in url or not url:
        raise ServiceError("invalid_argument", "the store must be a path, a file: URL or memory:")
    return FileEngine(Path(url))


def inspect_file(path: Path) -> Report:
    """What `leasehold check` tells of a store's files; see `recovery.inspect`."""
    return inspect(path, OsDisk())
