"""`leasehold` in which something hangs for ever, as LEASEHOLD_TEST_HANG says, and whose end is forced soon."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from leasehold.cli import app as cli
from leasehold.engines.base import CommitDone, Decide
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.memory.engine import MemoryEngine
from leasehold.model import Touched
from leasehold.server import run as server
from leasehold.server import workers
from leasehold.store.store import Store

REST_SECONDS = 1.0
FOR_EVER = 3_600.0
STUCK = Path("stuck")
"""From when this file is there, the disk answers no sync."""


def plant(owner: object, name: str, what: object) -> None:
    setattr(owner, name, what)


def disk() -> None:
    def sync(_disk: OsDisk, file: int) -> None:
        if STUCK.exists():
            time.sleep(FOR_EVER)
        os.fsync(file)

    plant(OsDisk, "fsync", sync)
    plant(OsDisk, "fdatasync", sync)


def lane() -> None:
    """The engine never tells how a commit ended."""

    def commit(_engine: MemoryEngine, _touched: Touched, _decide: Decide, _done: CommitDone) -> None:
        pass

    plant(MemoryEngine, "commit", commit)


def loop() -> None:
    """The event loop comes back from nothing."""

    def commit(_engine: MemoryEngine, _touched: Touched, _decide: Decide, _done: CommitDone) -> None:
        while True:
            time.sleep(0.01)

    plant(MemoryEngine, "commit", commit)


def housekeeping() -> None:
    """It takes every cancellation for something else."""

    async def keep(_store: Store) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)

    plant(Store, "_keep_house", keep)


def engine() -> None:
    async def close(_engine: MemoryEngine) -> None:
        await asyncio.Event().wait()

    plant(MemoryEngine, "close", close)


def nothing() -> None:
    pass


HANGS: dict[str, Callable[[], None]] = {
    hang.__name__: hang for hang in (disk, lane, loop, housekeeping, engine, nothing)
}

if __name__ == "__main__":
    plant(server, "SHUTDOWN_REST_SECONDS", REST_SECONDS)
    plant(workers, "SHUTDOWN_REST_SECONDS", REST_SECONDS)
    plant(workers, "WORKER_END_SECONDS", REST_SECONDS)
    MemoryEngine.shared = True
    HANGS[os.environ.pop("LEASEHOLD_TEST_HANG")]()
    cli.main()
