"""A store in files with several namespaces, for tests."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from driving import FrozenClock

from leasehold.engines.base import Space
from leasehold.engines.file.disk import Disk
from leasehold.engines.file.engine import FileEngine
from leasehold.engines.state import StoredState
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, Change, Deletion, Entry, Quota, QuotaChange, Touched, Value, View
from leasehold.namespaces import DEFAULT_NAMESPACE

T = TypeVar("T")

NO_CHANGE: Final = QuotaChange()


class Volume:
    """A service on `data.json` in a folder. Its lanes never count as idle by themselves.

    Each incarnation is another number. So a test sees whether a namespace was created anew.
    """

    def __init__(self, folder: Path, *, disk: Disk | None = None, first_incarnation: int = 1) -> None:
        numbers = iter(range(first_incarnation, 1 << 20))
        self.engine = FileEngine(
            folder / "data.json",
            disk=disk,
            clock=FrozenClock(),
            idle_seconds=3600,
            verify_seconds=3600,
            make_incarnation=lambda: f"{next(numbers):06x}",
        )
        self._runner = asyncio.Runner()
        self._is_open = False

    def __enter__(self) -> Self:
        try:
            self.run(self.engine.open())
        except BaseException:
            self._runner.close()
            raise
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_open:
            self._is_open = False
            try:
                self.run(self.engine.close())
            finally:
                self._runner.close()

    def kill(self) -> None:
        """Close the files as the kernel does for a killed process: nothing more is written."""
        volume = self.engine.volume
        storage, volume.storage = volume.storage, None
        assert storage is not None
        self._is_open = False
        self.run(volume.release(storage))
        self._runner.close()

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        return self._runner.run(coroutine)

    def create(self, name: str, change: QuotaChange = NO_CHANGE) -> bool:
        return self.run(self.engine.create(name, change))[1]

    def delete(self, name: str) -> int:
        return self.run(self.engine.delete(name))

    def quota(self, name: str) -> Quota:
        return self.run(self.engine.namespace(name)).quota

    def checkpoint(self) -> None:
        self.run(self.engine.volume.checkpoint())

    def try_put(self, namespace: str, *batch: tuple[str, Value | None]) -> ServiceError | None:
        """Commit a batch. None removes a key."""
        return self.run(put(self.engine, self.engine.space(namespace), *batch))

    def put(self, namespace: str, *batch: tuple[str, Value | None]) -> None:
        error = self.try_put(namespace, *batch)
        assert error is None, error.message

    def contents(self) -> Mapping[str, object]:
        """All namespaces: their revisions and values, or only the revision of a deleted one."""
        spaces = self.engine.volume.spaces
        found: dict[str, object] = dict(spaces.deleted)
        for name, space in spaces.by_name.items():
            entries = space.current().records(ENTRY)
            found[name] = (space.revision, {key: entry.value for key, entry in entries.items()})
        return found


async def put(engine: FileEngine, space: Space, *batch: tuple[str, Value | None]) -> ServiceError | None:
    """Commit a batch as from a busy lane, through the journal. Returns the refusal."""
    engine.volume.last_commit_at = asyncio.get_running_loop().time() + 10.0

    def decide(_view: View, revision: int, now: int) -> Sequence[Change]:
        return [
            Deletion(key, number) if value is None else Entry(key, value, number, now, now)
            for number, (key, value) in enumerate(batch, start=revision + 1)
        ]

    finished: asyncio.Future[ServiceError | None] = asyncio.get_running_loop().create_future()
    space.commit(Touched({ENTRY: [key for key, _ in batch]}), decide, finished.set_result)
    return await finished


def contents_of(state: StoredState, heads: Mapping[str, object]) -> Mapping[str, object]:
    """`Volume.contents` of what was read from files; `heads` are those of StoredNamespaces."""
    return {DEFAULT_NAMESPACE: in_state(state), **heads}


def in_state(state: StoredState) -> tuple[int, Mapping[str, Value]]:
    return state.revision, {key: entry.value for key, entry in state.of(ENTRY).by_name.items()}
