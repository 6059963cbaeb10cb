"""The stores of all namespaces of an engine.

The store of `default` is opened with the service. Each other one is opened by the first request that uses it, and then
stays open until the service stops or the namespace is deleted.
"""

import asyncio
from collections.abc import Mapping, Sequence

from leasehold.engines.base import Engine
from leasehold.errors import ServiceError, no_such_namespace
from leasehold.limits import Limits
from leasehold.metrics import SUMMED_GAUGES, Metrics
from leasehold.model import Namespace, QuotaChange
from leasehold.namespaces import DEFAULT_NAMESPACE, check_deletable
from leasehold.store.cleaning import Cleaning
from leasehold.store.store import Store
from leasehold.store.ticking import Ticking
from leasehold.store.turns import Turns
from leasehold.tasks import start_task


class Stores:
    """One store for each namespace that is used."""

    def __init__(self, engine: Engine, limits: Limits, metrics: Metrics | None = None) -> None:
        self.engine = engine
        self._limits = limits
        self._metrics = Metrics() if metrics is None else metrics
        self._turns = Turns()
        self.default = Store(engine, limits, self._metrics, turns=self._turns)
        """That of the namespace `default`."""
        self._opened: dict[str, Store] = {DEFAULT_NAMESPACE: self.default}
        self._opening: dict[str, asyncio.Task[Store]] = {}
        self._is_stopping = False
        self.opened = self._opened.get
        """The store of a namespace, if it is open already."""
        self._ticking = Ticking(self._opened.values())
        self._cleaning = Cleaning(engine, self.open, self._heads, max_receipts=limits.max_receipts)
        self._deleting: set[asyncio.Task[int] | asyncio.Task[None]] = set()
        """Deletions, and the ends of stores whose namespace another server has deleted."""
        engine.subscribe(self._end_deleted)

    async def start(self) -> None:
        """Open the engine and the store of `default`, and begin to remove expired records.

        Raises the errors of `Engine.open` and `Space.open`.
        """
        await self.engine.open()
        await self.default.open()
        self._ticking.start()
        self._cleaning.start()

    async def close(self) -> None:
        """Close all stores, that of `default` last."""
        await self._cleaning.stop()
        self._ticking.stop()
        for ending in (*self._opening.values(), *self._deleting):
            await asyncio.wait((ending,))
        for name in [name for name in self._opened if name != DEFAULT_NAMESPACE]:
            await self._opened.pop(name).close()
        await self.default.close()
        await self.engine.close()

    async def open(self, namespace: str) -> Store:
        """The store of a namespace, which is opened if it is not open. Raises `no_such_namespace`."""
        store = self._opened.get(namespace)
        if store is not None:
            return store
        opening = self._opening.get(namespace)
        if opening is None:
            opening = self._opening[namespace] = asyncio.create_task(self._open(namespace))
        return await asyncio.shield(opening)  # another request may wait for it, too

    async def _open(self, namespace: str) -> Store:
        try:
            await self.engine.namespace(namespace)  # raises `no_such_namespace` before anything is made for it
            store = Store(self.engine, self._limits, self._metrics, namespace=namespace, turns=self._turns)
            await store.open()
            if self._is_stopping:
                store.stop_waiting()
            self._opened[namespace] = store
            return store
        finally:
            del self._opening[namespace]

    # Namespaces -----------------------------------------------------------------------------------------------

    async def create(self, namespace: str, change: QuotaChange) -> tuple[Namespace, bool]:
        """See `Engine.create`."""
        return await self.engine.create(namespace, change)

    async def delete(self, namespace: str) -> int:
        """Delete a namespace and end everything that waits in it. Raises `no_such_namespace`.

        Raises `invalid_argument` for `default`. Returns the revision of the deletion.
        """
        check_deletable(namespace)
        deleting = asyncio.create_task(self._delete(namespace))
        self._note_deletion(deleting)
        # Also if the caller leaves: the store of a namespace that is gone would be kept, and refuse the requests in one
        # of the same name.
        return await asyncio.shield(deleting)

    async def _delete(self, namespace: str) -> int:
        revision = await self.engine.delete(namespace)
        await self._end(namespace)
        return revision

    def _note_deletion(self, deleting: asyncio.Task[int] | asyncio.Task[None]) -> None:
        self._deleting.add(deleting)
        deleting.add_done_callback(self._deleting.discard)

    async def _end(self, namespace: str) -> None:
        """End everything that waits in a namespace that was deleted, and forget its store."""
        opening = self._opening.get(namespace)
        if opening is not None:
            await asyncio.wait((opening,))  # else it would be found here after the namespace was created again
        store = self._opened.pop(namespace, None)
        if store is not None:
            store.refuse_all(no_such_namespace)
            await store.close()

    def _end_deleted(self, namespace: str) -> None:
        """Another server has deleted a namespace."""
        self._note_deletion(start_task(asyncio.get_running_loop(), self._end(namespace)))

    async def namespaces(self, after: str | None, limit: int) -> Sequence[Namespace]:
        """See `Engine.namespaces`."""
        return await self.engine.namespaces(after, limit)

    async def namespace(self, name: str) -> Namespace:
        """See `Engine.namespace`."""
        return await self.engine.namespace(name)

    def _heads(self) -> Mapping[str, int]:
        return {namespace: store.space.revision for namespace, store in self._opened.items()}

    # All together ---------------------------------------------------------------------------------------------

    @property
    def fault(self) -> ServiceError | None:
        """Why changes cannot be made durable now in one of the namespaces, or None."""
        return next((store.fault for store in self._opened.values() if store.fault is not None), None)

    def gauges(self) -> Mapping[str, float]:
        """Those of `default`, where what happens is that of all namespaces: the sums, and the largest values."""
        gauges = dict(self.default.gauges())
        for namespace, store in self._opened.items():
            if namespace == DEFAULT_NAMESPACE:
                continue
            own = store.activity()
            for name in SUMMED_GAUGES & own.keys():
                gauges[name] += own[name]
            for name in ("degraded", "watch_lag_revisions"):
                gauges[name] = max(gauges[name], own[name])
        return gauges

    def stop_waiting(self) -> None:
        """See `Store.stop_waiting`."""
        self._is_stopping = True
        for store in self._opened.values():
            store.stop_waiting()
