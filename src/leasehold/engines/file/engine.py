"""The engine `file`: namespaces in `data.json` and the files beside it.

Namespaces are created, changed and deleted here, one at a time, each by an event in the journal of the volume.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from leasehold.completions import ends_the_process, report
from leasehold.engines.base import Clock, MakeIncarnation, new_incarnation
from leasehold.engines.file import policy
from leasehold.engines.file.appends import NamedAppend
from leasehold.engines.file.disk import Disk
from leasehold.engines.file.namespaces import Head, head_with, state_of_new
from leasehold.engines.file.space import FileSpace, NamedSpace
from leasehold.engines.file.storage import Storage
from leasehold.engines.file.volume import VERIFY_SECONDS, Volume
from leasehold.engines.memory.space import expired_in, surplus_in
from leasehold.errors import ServiceError, no_such_namespace, outcome_unknown, unavailable
from leasehold.model import AnyKind, Namespace, Quota, QuotaChange
from leasehold.namespaces import DEFAULT_NAMESPACE

T = TypeVar("T")


class FileEngine:
    """The store at `path`. The arguments after the clock are for tests."""

    name = "file"
    shared = False
    durable = True

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock | None = None,
        disk: Disk | None = None,
        idle_seconds: float = policy.IDLE_SECONDS,
        verify_seconds: float = VERIFY_SECONDS,
        make_incarnation: MakeIncarnation = new_incarnation,
    ) -> None:
        self.volume = Volume(
            path,
            disk=disk,
            clock=clock,
            idle_seconds=idle_seconds,
            verify_seconds=verify_seconds,
            make_incarnation=make_incarnation,
        )
        self._turn = asyncio.Lock()
        """Held while a namespace is created, changed or deleted."""

    async def open(self) -> None:
        """See `Engine.open`."""
        await self.volume.open()

    async def close(self) -> None:
        """See `Engine.close`."""
        await self.volume.close()

    def space(self, namespace: str = DEFAULT_NAMESPACE) -> FileSpace:
        """See `Engine.space`."""
        space = self.volume.spaces.by_name.get(namespace)
        if space is None:
            raise no_such_namespace()
        return space

    async def namespaces(self, after: str | None, limit: int) -> Sequence[Namespace]:
        """See `Engine.namespaces`."""
        names = sorted(name for name in self.volume.spaces.by_name if after is None or name > after)
        return [_described(name, self.space(name)) for name in names[:limit]]

    async def namespace(self, name: str) -> Namespace:
        """See `Engine.namespace`."""
        return _described(name, self.space(name))

    def subscribe(self, deleted: Callable[[str], None]) -> None:
        """See `Engine.subscribe`. There is one server only."""

    @property
    def fault(self) -> ServiceError | None:
        """See `Engine.fault`."""
        return self.volume.fault.error

    async def recover(self) -> None:
        """See `Engine.recover`."""
        await self.volume.recover()

    async def expired(self, limit: int) -> Sequence[tuple[str, AnyKind, str]]:
        """See `Engine.expired`."""
        return await expired_in(self.volume.spaces.by_name, limit)

    async def surplus(self, kind: AnyKind, most: int, most_bytes: int, limit: int) -> Sequence[tuple[str, str]]:
        """See `Engine.surplus`."""
        return await surplus_in(self.volume.spaces.by_name, kind, most, most_bytes, limit)

    async def create(self, name: str, change: QuotaChange) -> tuple[Namespace, bool]:
        """See `Engine.create`."""
        return await self._in_turn(self._create(name, change))

    async def delete(self, name: str) -> int:
        """See `Engine.delete`."""
        return await self._in_turn(self._delete(name))

    async def _in_turn(self, work: Coroutine[None, None, T]) -> T:
        """Run it to its end, also if the caller leaves, because an event that was begun may be stored."""

        async def run() -> T:
            async with self._turn:
                return await work

        return await asyncio.shield(asyncio.create_task(run()))

    async def _create(self, name: str, change: QuotaChange) -> tuple[Namespace, bool]:
        volume = self.volume
        spaces = volume.spaces
        space = spaces.by_name.get(name)
        is_new = space is None
        if space is None:
            quota = change.applied_to(Quota())
            revision = spaces.deleted.get(name, 0)
            head = head_with(quota, revision, volume.make_incarnation(), volume.clock())
            await self._store(name, head, lambda: spaces.add(name, head, state_of_new(head)))
        else:
            await self._change_quota(name, space, change)
        return _described(name, self.space(name)), is_new

    async def _change_quota(self, name: str, space: FileSpace, change: QuotaChange) -> None:
        spaces = self.volume.spaces
        quota = change.applied_to(space.quota)
        if quota == space.quota:
            return
        if isinstance(space, NamedSpace):
            head = space.head_with(quota)

            def publish() -> None:
                space.quota = quota
        else:
            head = head_with(quota, 0, DEFAULT_NAMESPACE, space.created_at)

            def publish() -> None:
                spaces.set_default_head(head)

        await self._store(name, head, publish)

    async def _delete(self, name: str) -> int:
        space = self.space(name)
        if not isinstance(space, NamedSpace):
            raise ServiceError("invalid_argument", "the namespace default cannot be deleted")
        at_rest = asyncio.get_running_loop().create_future()
        space.hold(partial(_resolve, at_rest))
        is_deleted = False
        try:
            await at_rest
            head = Head(space.current().revision + 1)
            await self._store(name, head, partial(self.volume.spaces.remove, name, head))
            is_deleted = True
        finally:
            space.release(is_deleted=is_deleted)
        return head.revision

    async def _store(self, name: str, head: Head, publish: Callable[[], object]) -> None:
        """Make an event durable, then call `publish`. Raises the errors of a commit."""
        volume = self.volume
        storage = volume.storage
        if storage is None:
            raise unavailable("the store is closed")
        if storage.failed:
            volume.rewrite(storage)
        append = NamedAppend(storage.log, name, head)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        volume.append(storage, append, partial(self._stored, storage, append, publish, stored))
        await stored

    def _stored(
        self,
        storage: Storage,
        append: NamedAppend,
        publish: Callable[[], object],
        stored: asyncio.Future[None],
        error: BaseException | None,
    ) -> None:
        volume = self.volume
        try:
            if error is None:
                volume.spaces.sequence = append.sequence
                volume.spaces.publish(publish)
            volume.commits += 1
            volume.last_commit_at = volume.loop.time()
            if error is not None:
                stored.set_exception(volume.fault.note(error))
                return
            stored.set_result(None)
        except BaseException as failure:  # the caller must get an outcome
            report("an event of a namespace ended in an unexpected way", failure)
            if not stored.done():
                stored.set_exception(outcome_unknown())
            if ends_the_process(failure):
                raise
        volume.after_stored_commit(storage)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _described(name: str, space: FileSpace) -> Namespace:
    return Namespace(name, space.revision, space.usage, space.quota, space.created_at)
