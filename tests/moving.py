"""Moves stores, for tests; also in processes that are killed on the way."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final, Protocol

import asyncpg
import pytest
from databases import Database, run, shared_server_url
from driving import FrozenClock
from harness.killed_before_a_step import KILLED_BEFORE_A_STEP

from leasehold.engines import move_store
from leasehold.engines.postgres import schema
from leasehold.engines.postgres.links import Address
from leasehold.errors import ServiceError
from leasehold.progress import Progress

NOW: Final = FrozenClock().now
_numbers = count(1)


def new_file(folder: Path) -> str:
    store = folder / f"store-{next(_numbers)}" / "data.json"
    store.parent.mkdir()
    return str(store)


def new_database(_folder: Path) -> str:
    return made_database().url


def made_database() -> Database:
    return Database(shared_server_url(), f"moves_{os.getpid()}_{next(_numbers)}").create()


STORES: Mapping[str, Callable[[Path], str]] = {"file": new_file, "postgres": new_database}
every_source = pytest.mark.parametrize("source_kind", STORES)
every_target = pytest.mark.parametrize("target_kind", STORES)


def moved(source: str, target: str) -> bool:
    """Move a store. Returns whether the target was complete before."""
    return run(move_store(source, target, progress=Progress(), now=NOW)).was_complete


def in_store_of(kind: str, folder: Path, store: str) -> str:
    """A store of this kind, a key of STORES, with what is in the files of `store`."""
    if kind == "file":
        return store
    target = STORES[kind](folder)
    assert not moved(store, target)
    return target


def refused(source: str, target: str) -> str:
    with pytest.raises(ServiceError) as caught:
        moved(source, target)
    assert "\n" not in caught.value.message
    return caught.value.message


KILLED_AT = f"""{KILLED_BEFORE_A_STEP}
import asyncio, sys
from leasehold.engines import move_store
from leasehold.engines.postgres import moves
from leasehold.errors import ServiceError
from leasehold.progress import Progress

disk.OsDisk = KilledDisk
moves.PAGE_RECORDS = 20
# What Python prepares at the first use, each process would otherwise prepare again.
steps = sys.maxsize
asyncio.run(move_store(*sys.argv[1:], progress=Progress(), now=0))
gc.freeze()
for line in sys.stdin:
    steps, source, target = line.split()
    child = os.fork()
    if not child:
        steps = int(steps)
        try:
            moved = asyncio.run(move_store(source, target, progress=Progress(), now=0))
        except ServiceError as error:
            os._exit(3 if "in use by" in error.message else 1)
        os._exit(2 if moved.was_complete else 0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Moves stores, each in a process of its own, which is killed before one use of a disk or a connection."""
MOVED, WAS_COMPLETE, IN_USE, KILLED = 0, 2, 3, -signal.SIGKILL


@contextmanager
def killed_moves(source: str, scratch: str) -> Iterator[Callable[[int, str, str], int]]:
    """Calls with a step, a source and a target return the exit code of the process.

    `source` is first moved to `scratch`, an empty store of the same kind as the targets, and no process is killed.
    """
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_AT, source, scratch], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as forking:

        def killed_at(step: int, source: str, target: str) -> int:
            assert forking.stdin is not None
            assert forking.stdout is not None
            forking.stdin.write(f"{step} {source} {target}\n")
            forking.stdin.flush()
            return int(forking.stdout.readline())

        yield killed_at
        assert forking.stdin is not None
        forking.stdin.close()


class Ask(Protocol):
    def __call__(self, query: str, *arguments: str) -> Sequence[asyncpg.Record]: ...


def has_tables(store: str, ask: Ask) -> bool:
    """Whether a database has its tables. A move begins with making them, and takes fewer steps if they are there."""
    name = store.partition("search_path=")[2]
    return bool(name) and bool(ask("SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = 'head'", name))


def new_with_tables(kind: str, folder: Path) -> str:
    """An empty store, which has its tables if it is in a database."""
    store = STORES[kind](folder)

    async def deploy() -> None:
        connection = await Address(store).connect()
        await schema.deploy(connection, schema.load_scripts(), now=0)
        await connection.close()

    if kind == "postgres":
        run(deploy())
    return store


@contextmanager
def asking() -> Iterator[Ask]:
    """Calls with a query return its rows, all over one connection: a new one costs more than the query."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(shared_server_url()))
        try:
            yield lambda query, *arguments: runner.run(connection.fetch(query, *arguments))
        finally:
            runner.run(connection.close())
