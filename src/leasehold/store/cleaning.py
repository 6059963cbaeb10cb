"""Once a second: try to recover from a fault, or remove expired records and surplus receipts in small steps."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from leasehold.completions import report
from leasehold.engines.base import Space
from leasehold.errors import ServiceError
from leasehold.limits import KIB
from leasehold.model import RECEIPT, Expire, Forget, Operation, Outcome
from leasehold.store.batch import Done
from leasehold.tasks import cancel_and_wait

log = structlog.get_logger(__name__)

CLEANING_SECONDS: Final = 1.0
EXPIRE_STEP: Final = 500
"""Records of each kind removed at a time."""


class Cleaning:
    """`submit` is the write lane; `catch_up` is called every second while there is no fault.

    `max_receipts`: more receipts are removed, the oldest first. A receipt is much smaller than 1 KiB, except for those
    that keep a value. So all together may have 1 KiB for each.
    """

    def __init__(
        self,
        space: Space,
        submit: Callable[[Operation, Done], None],
        catch_up: Callable[[], None],
        *,
        max_receipts: int,
    ) -> None:
        self._space = space
        self._submit = submit
        self._catch_up = catch_up
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
                if self._space.fault is not None:
                    await self._space.recover()
                    continue
                self._catch_up()
                await self._remove_expired()
                await self._remove_surplus()
            except ServiceError as error:
                log.warning("expired records could not be removed", code=error.code, reason=error.message)
            except Exception as failure:  # noqa: BLE001 - it must run again, because nothing else calls `recover`
                report("cleaning failed and will be repeated", failure)

    async def _remove_expired(self) -> None:
        """Remove expired records. Other operations are committed between the steps."""
        more = True
        while more:
            revision = self._space.revision
            expired = await self._space.expired(EXPIRE_STEP)
            receipts = tuple(name for kind, name in expired if kind is RECEIPT)
            await self._submit_all([Expire(kind, name) for kind, name in expired if kind is not RECEIPT])
            await self._forget(receipts, revision)
            more = len(expired) >= EXPIRE_STEP

    async def _remove_surplus(self) -> None:
        more = True
        while more:
            revision = self._space.revision
            most = self._max_receipts
            surplus = tuple(await self._space.surplus(RECEIPT, most, most * KIB, EXPIRE_STEP))
            await self._forget(surplus, revision)
            more = len(surplus) >= EXPIRE_STEP

    async def _forget(self, receipts: tuple[str, ...], revision: int) -> None:
        """`revision`: that of the space before it named the receipts."""
        if receipts:
            await self._submit_all([Forget(receipts, revision)])

    async def _submit_all(self, operations: Sequence[Operation]) -> None:
        """Submit changes to the lane and wait for them. Raises the error of the first one that fails."""
        results: list[asyncio.Future[None]] = []
        for operation in operations:
            result: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            results.append(result)

            def finish(outcome: Outcome | ServiceError, result: asyncio.Future[None] = result) -> None:
                if result.done():
                    return
                if isinstance(outcome, ServiceError):
                    result.set_exception(outcome)
                else:
                    result.set_result(None)

            self._submit(operation, finish)
        await asyncio.gather(*results)
