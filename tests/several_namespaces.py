"""A store with several namespaces, and all that readers can find out about it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from databases import run
from driving import FrozenClock

from leasehold.engines import open_engine
from leasehold.engines.base import Engine, Space
from leasehold.engines.file.engine import FileEngine
from leasehold.model import (
    ENTRY,
    LEASE,
    RECEIPT,
    Change,
    Deletion,
    Entry,
    Lease,
    Namespace,
    QuotaChange,
    Receipt,
    Touched,
    View,
)
from leasehold.namespaces import DEFAULT_NAMESPACE

NAMES: Final = [DEFAULT_NAMESPACE, "empty", "team-a", "team-c"]
"""Those that exist. `gone` was deleted at revision 3."""


async def commit(space: Space, *changes: Change) -> None:
    """Commit changes; each gets the next revision."""
    finished: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    touched = Touched({ENTRY: [each.name for each in changes], LEASE: [each.name for each in changes]})

    def decide(_view: View, revision: int, _now: int) -> Sequence[Change]:
        assert revision + 1 == changes[0].revision
        return changes

    space.commit(touched, decide, finished.set_result)
    assert await finished is None


async def fill(engine: Engine) -> None:
    """All that a namespace can be: with records of all kinds, empty, with a quota, deleted, deleted and created again.

    The leases have ended long ago, and must go along nevertheless.
    """
    await engine.create("team-a", QuotaChange(10, None))
    await engine.create("empty", QuotaChange())
    for name in ("gone", "team-c"):
        await engine.create(name, QuotaChange(7, 7))
        space = engine.space(name)
        await commit(space, Entry("x", b"1", 1, 1, 1), Entry("y", b"2", 2, 1, 1))
        assert await engine.delete(name) == 3
    await engine.create("team-c", QuotaChange(None, 5_000))
    await commit(engine.space("team-c"), Entry("z", b"[1,2]", 4, 1, 1))
    for name in (DEFAULT_NAMESPACE, "team-a"):
        space = engine.space(name)
        await commit(space, Entry("a", name.encode().join((b'"', b'"')), 1, 1, 1), Entry("b", b"2", 2, 1, 1))
        await commit(space, Deletion("b", 3), Lease("jobs", f"of-{name}", 4, 4, 1, 2, 1, "ann", b"null"))
    await engine.create(DEFAULT_NAMESPACE, QuotaChange(100, None))


@asynccontextmanager
async def serving(store: str) -> AsyncIterator[Engine]:
    engine = open_engine(store)
    await engine.open()
    try:
        async with opened(engine, DEFAULT_NAMESPACE):
            yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def opened(engine: Engine, namespace: str) -> AsyncIterator[Space]:
    space = engine.space(namespace)
    await space.open()
    try:
        yield space
    finally:
        await space.close()


def filled_file(store: str) -> str:
    """A store in files, partly in its journal."""

    async def fill_it() -> None:
        engine = FileEngine(Path(store), clock=FrozenClock())
        await engine.open()
        await fill(engine)
        storage, engine.volume.storage = engine.volume.storage, None
        assert storage is not None
        await engine.volume.release(storage)

    run(fill_it())
    return store


@dataclass(frozen=True)
class Observed:
    """All that readers can find out about a namespace. `changes`: empty if they are not known from the beginning."""

    revision: int
    incarnation: str
    description: Namespace
    entries: Sequence[Entry]
    leases: Sequence[Lease]
    receipts: Sequence[Receipt]
    changes: Sequence[Change]


def observed(store: str) -> Mapping[str, Observed]:
    """All that readers can find out about the namespaces."""

    async def observe() -> Mapping[str, Observed]:
        async with serving(store) as engine:
            found: dict[str, Observed] = {}
            for description in await engine.namespaces(None, 100):
                if description.name == DEFAULT_NAMESPACE:
                    found[description.name] = await observed_in(engine.space(), description)
                    continue
                async with opened(engine, description.name) as space:
                    found[description.name] = await observed_in(space, description)
            return found

    return run(observe())


async def observed_in(space: Space, description: Namespace) -> Observed:
    has_history = space.revision == 4 and description.name != "team-c"
    return Observed(
        space.revision,
        space.incarnation,
        description,
        (await space.scan(ENTRY, "", None, 100)).records,
        (await space.scan(LEASE, "", None, 100)).records,
        (await space.scan(RECEIPT, "", None, 100)).records,
        (await space.changes(ENTRY, 0, "", 100)).changes if has_history else (),
    )
