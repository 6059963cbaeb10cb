"""Runs an engine from synchronous tests. The event loop runs only during calls, so nothing is concurrent."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar, cast

from leasehold.engines.base import Space
from leasehold.engines.file.appends import Append, Group
from leasehold.engines.file.disk import Disk
from leasehold.engines.file.engine import FileEngine
from leasehold.engines.file.space import FileSpace
from leasehold.engines.file.storage import Storage
from leasehold.engines.memory.engine import MemoryEngine
from leasehold.engines.memory.space import MemorySpace
from leasehold.engines.state import AnyContents, Contents, StoredState
from leasehold.errors import ServiceError
from leasehold.limits import Limits
from leasehold.model import ENTRY, LEASE, AnyKind, Change, Deletion, Entry, Lease, Touched, Value, View
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.store.store import Store
from leasehold.store.stores import Stores

T = TypeVar("T")


INCARNATION = "5f3a9c"


def memory_of(space: MemorySpace) -> MemoryEngine:
    """An engine whose only space is this one."""
    engine = MemoryEngine()
    engine._spaces[DEFAULT_NAMESPACE] = space
    return engine


def stores_of(store: Store) -> Stores:
    """Stores whose namespace `default` is this one."""
    stores = Stores(store.engine, Limits())
    stores.default = stores._opened[DEFAULT_NAMESPACE] = store
    return stores


def stored_state(
    entries: dict[str, Entry] | None = None,
    revision: int = 0,
    *,
    leases: dict[str, Lease] | None = None,
    incarnation: str = "",
) -> StoredState:
    """A space as it is loaded, without removals."""
    contents: dict[AnyKind, AnyContents] = {
        ENTRY: Contents(entries or {}),  # type: ignore[arg-type] # of this kind of record
        LEASE: Contents(leases or {}),  # type: ignore[arg-type]
    }
    return StoredState(contents, revision, revision, incarnation)


def json_text(value: Value | None) -> bytes:
    """A value that must be JSON."""
    assert isinstance(value, bytes)
    return value


class FrozenClock:
    """A clock that stays at a time until it is moved."""

    def __init__(self, now: int = 1_769_860_800_000_001) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def set_pace(space: FileSpace, *, isolated: bool) -> None:
    """Let the next commit come long after the last one, or at the same moment, as if that were in the future.

    It is not in the infinite future: a timer that runs before the commit begins would then never run again.
    """
    volume = space.volume
    volume.last_commit_at = float("-inf") if isolated else volume.loop.time() + 10.0


def end_pace(space: FileSpace) -> None:
    """A commit has begun, so the last one is not in the future any more: a timer would wait for that time."""
    volume = space.volume
    volume.last_commit_at = min(volume.last_commit_at, volume.loop.time())


def append_to(storage: Storage, first_revision: int, changes: Sequence[Change]) -> None:
    """Append a batch of `default` to the journal."""
    append = Append(first_revision, changes)
    storage.append(Group([append]), append)


class DrivenSpace(Space, Protocol):
    """A space with what its engine calls."""

    async def recover(self) -> None: ...
    async def expired(self, limit: int) -> Sequence[tuple[AnyKind, str]]: ...
    async def surplus(self, kind: AnyKind, most: int, most_bytes: int, limit: int) -> Sequence[str]: ...


class Driver:
    """An engine, and batches for it. An item of a batch is a key and its value, or None to remove the key."""

    def __init__(self, space: Space) -> None:
        self.space = cast("DrivenSpace", space)
        self._runner = asyncio.Runner()
        self.has_ended = False

    def __enter__(self) -> Self:
        try:
            self.run(self.space.open())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.has_ended:
            self.has_ended = True
            try:
                self.run(self.space.close())
            finally:
                self._runner.close()

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """Not by `Runner.run`, which replaces the handler of SIGINT each time. That takes half as long as a commit."""
        return self._runner.get_loop().run_until_complete(coroutine)

    def try_commit(
        self, *batch: tuple[str, Value | None], expires_at: int | None = None, alone: bool = False
    ) -> ServiceError | None:
        """Commit, and return the refusal. `alone`: as an isolated commit, otherwise as from a busy lane."""
        if isinstance(self.space, FileSpace):
            set_pace(self.space, isolated=alone)

        def decide(view: View, revision: int, now: int) -> Sequence[Change]:
            changes: dict[str, Change] = {}
            for number, (key, value) in enumerate(batch, start=revision + 1):
                before = view.records(ENTRY).get(key)
                if value is None:
                    changes[key] = Deletion(key, number)
                else:
                    created_at = now if before is None else before.created_at
                    changes[key] = Entry(key, value, number, created_at, now, expires_at)
            return list(changes.values())

        return self.decide_and_commit([key for key, _ in batch], decide)

    def decide_and_commit(
        self, touched: Sequence[str] | Touched, decide: Callable[[View, int, int], Sequence[Change]]
    ) -> ServiceError | None:
        async def commit() -> ServiceError | None:
            finished: asyncio.Future[ServiceError | None] = asyncio.get_running_loop().create_future()
            self.space.commit(
                touched if isinstance(touched, Touched) else Touched({ENTRY: touched}), decide, finished.set_result
            )
            if isinstance(self.space, FileSpace):
                end_pace(self.space)
            return await finished

        return self.run(commit())

    def commit(self, *batch: tuple[str, Value | None], expires_at: int | None = None) -> None:
        """Commit a batch as from a busy lane, through the journal."""
        error = self.try_commit(*batch, expires_at=expires_at)
        assert error is None, error.message

    def put(self, key: str, value: Value = b"1", *, expires_at: int | None = None) -> None:
        """Commit one entry as from an idle lane."""
        error = self.try_commit((key, value), expires_at=expires_at, alone=True)
        assert error is None, error.message

    def read(self, key: str) -> Entry | None:
        async def read() -> Entry | None:
            finished: asyncio.Future[Entry | ServiceError | None] = asyncio.get_running_loop().create_future()
            self.space.read(ENTRY, key, finished.set_result)
            result = await finished
            assert not isinstance(result, ServiceError)
            return result

        return self.run(read())

    def read_lease(self, lock: str) -> Lease | None:
        async def read() -> Lease | None:
            finished: asyncio.Future[Lease | ServiceError | None] = asyncio.get_running_loop().create_future()
            self.space.read(LEASE, lock, finished.set_result)
            result = await finished
            assert not isinstance(result, ServiceError)
            return result

        return self.run(read())

    def settle(self) -> None:
        """Let the event loop do what is scheduled for now, or for the next moment."""
        self.run(asyncio.sleep(0.05))

    def value(self, key: str) -> Value | None:
        entry = self.read(key)
        return None if entry is None else entry.value

    def values(self) -> dict[str, Value]:
        page = self.run(self.space.scan(ENTRY, "", None, 10_000))
        return {entry.key: entry.value for entry in page.records}

    def kill(self) -> None:
        """Close the files as the kernel does for a killed process: nothing more is written."""
        space = self.space
        assert isinstance(space, FileSpace)
        volume = space.volume
        storage, volume.storage = volume.storage, None
        assert storage is not None
        self.has_ended = True
        self.run(volume.release(storage))
        self._runner.close()


def file_driver(folder: Path, *, disk: Disk | None = None, clock: FrozenClock | None = None) -> Driver:
    """A driver for `data.json` in `folder`, whose lane never counts as idle by itself. New stores get INCARNATION."""
    engine = FileEngine(
        folder / "data.json",
        disk=disk,
        clock=clock or FrozenClock(),
        idle_seconds=3600,
        verify_seconds=3600,
        make_incarnation=lambda: INCARNATION,
    )
    return Driver(engine.space())
