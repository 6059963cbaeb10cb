"""Once a second, for all namespaces: try to recover from a fault, or remove expired records and surplus receipts.

There is one task for all stores. The engine says in which namespaces there is something to remove. So a namespace in
which nothing expires costs nothing, and on a shared engine also those are cleaned that nobody uses.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog

from leasehold.completions import report
from leasehold.engines.base import Engine
from leasehold.errors import ServiceError
from leasehold.limits import KIB
from leasehold.model import RECEIPT, Expire, Forget, Operation
from leasehold.store.store import Store
from leasehold.tasks import cancel_and_wait

log = structlog.get_logger(__name__)

CLEANING_SECONDS: Final = 1.0
EXPIRE_STEP: Final = 500
"""Records of each kind removed at a time."""

OpenStore = Callable[[str], Awaitable[Store]]
"""`Stores.open`."""


class Cleaning:
    """Cleans the namespaces of an engine.

    `max_receipts`: if a namespace has more, they are removed, the oldest first. A receipt is much smaller than 1 KiB,
    except for those that keep a value. So all together may have 1 KiB for each.
    """

    def __init__(
        self, engine: Engine, open_store: OpenStore, heads: Callable[[], Mapping[str, int]], *, max_receipts: int
    ) -> None:
        """`heads`: the revisions of the open namespaces."""
        self._engine = engine
        self._open_store = open_store
        self._heads = heads
        self._max_receipts = max_receipts
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CLEANING_SECONDS)
            try:
                if self._engine.fault is not None:
                    await self._engine.recover()
                    continue
                await self.remove_expired()
                await self._remove_surplus()
            except ServiceError as error:
                _warn(error)
            except Exception as failure:  # noqa: BLE001 - it must run again, because nothing else calls `recover`
                report("cleaning failed and will be repeated", failure)

    async def remove_expired(self) -> None:
        """Remove expired records. Other operations are committed between the steps."""
        more = True
        while more:
            expired = await self._engine.expired(EXPIRE_STEP)
            removals: dict[str, list[Operation]] = {}
            receipts: dict[str, list[str]] = {}
            for namespace, kind, name in expired:
                if kind is RECEIPT:
                    receipts.setdefault(namespace, []).append(name)
                else:
                    removals.setdefault(namespace, []).append(Expire(kind, name))
            for namespace, names in receipts.items():
                removals.setdefault(namespace, []).append(Forget(tuple(names), up_to=0))
            more = await self._submit(removals) and len(expired) >= EXPIRE_STEP

    async def _remove_surplus(self) -> None:
        more = True
        while more:
            heads = self._heads()
            most = self._max_receipts
            surplus = await self._engine.surplus(RECEIPT, most, most * KIB, EXPIRE_STEP)
            names: dict[str, list[str]] = {}
            for namespace, name in surplus:
                names.setdefault(namespace, []).append(name)
            # In a namespace that was not open, a receipt may have been written again since. Its turn is the next time.
            removals = {each: [Forget(tuple(names[each]), heads.get(each, 0))] for each in names}
            more = await self._submit(removals) and len(surplus) >= EXPIRE_STEP

    async def _submit(self, removals: Mapping[str, Sequence[Operation]]) -> bool:
        """Submit removals by namespace, and wait for them. Whether all were done."""
        done = await asyncio.gather(*(self._submit_in(namespace, each) for namespace, each in removals.items()))
        return all(done)

    async def _submit_in(self, namespace: str, removals: Sequence[Operation]) -> bool:
        try:
            store = await self._open_store(namespace)
            await asyncio.gather(*map(store.submitted, removals))
        except ServiceError as error:
            if error.code != "no_such_namespace":  # else it was deleted meanwhile
                _warn(error)
            return False
        return True


def _warn(error: ServiceError) -> None:
    log.warning("expired records could not be removed", code=error.code, reason=error.message)
