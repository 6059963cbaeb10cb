"""Counts what a namespace holds if that is not known: after an update from a version that did not count."""

import asyncio
from typing import Final

from leasehold.engines.postgres import namespaces
from leasehold.engines.postgres.failures import FAILURES, as_service_error
from leasehold.engines.postgres.links import Address, time_limit
from leasehold.engines.postgres.namespaces import Counted
from leasehold.tasks import cancel_and_wait

READ_IN_ORDER: Final = "SET enable_seqscan = on"
"""`links.SESSION` has turned it off. All rows are read here, and in the order of an index that takes long."""
COUNT_SECONDS: Final = 3_600.0
"""The time limit. 300,000 values of 80 bytes took 13 s on a busy machine, because the text of each is read."""


class Counting:
    """Counts on connections of its own, one for each namespace that is being counted."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._tasks: dict[str, asyncio.Task[Counted | None]] = {}

    async def count(self, namespace: str) -> Counted | None:
        """See `namespaces.count`. Raises ServiceError.

        It continues if the caller is cancelled, and callers at the same time share it. So a caller with a short
        timeout, such as a scrape of the metrics, gets the result when it asks again.
        """
        task = self._tasks.get(namespace)
        if task is None:
            task = self._tasks[namespace] = asyncio.get_running_loop().create_task(self._count(namespace))
        return await asyncio.shield(task)

    async def _count(self, namespace: str) -> Counted | None:
        try:
            connection = await self._address.connect()
            try:
                with time_limit(connection, COUNT_SECONDS):
                    await connection.execute(READ_IN_ORDER)
                    return await namespaces.count(connection, namespace)
            finally:
                connection.terminate()
        except FAILURES as failure:
            raise as_service_error(failure) from failure
        finally:
            del self._tasks[namespace]

    async def close(self) -> None:
        """Give up what is being counted."""
        await cancel_and_wait(*self._tasks.values())
