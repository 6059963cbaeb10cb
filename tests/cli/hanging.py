"""`leasehold` in which the part named by LEASEHOLD_TEST_HANG hangs for ever, with a short time until a forced end."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from leasehold.cli import app as cli
from leasehold.engines.base import CommitDone, Decide
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.memory.engine import MemoryEngine
from leasehold.engines.memory.space import MemorySpace
from leasehold.model import Touched
from leasehold.server import run as server
from leasehold.server import workers
from leasehold.store.cleaning import Cleaning

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
    """The engine never reports how a commit ended."""

    def commit(_space: MemorySpace, _touched: Touched, _decide: Decide, _done: CommitDone) -> None:
        pass

    plant(MemorySpace, "commit", commit)


def loop() -> None:
    """A commit blocks the event loop for ever."""

    def commit(_space: MemorySpace, _touched: Touched, _decide: Decide, _done: CommitDone) -> None:
        while True:
            time.sleep(0.01)

    plant(MemorySpace, "commit", commit)


def housekeeping() -> None:
    """The task ignores every cancellation."""

    async def keep(_cleaning: Cleaning) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)

    plant(Cleaning, "_run", keep)


def engine() -> None:
    async def close(_space: MemorySpace) -> None:
        await asyncio.Event().wait()

    plant(MemorySpace, "close", close)


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
