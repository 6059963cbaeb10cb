"""`DELETE /kv?prefix=…` in steps: what remains if it is interrupted, and what other requests may do meanwhile."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from leasehold.engines.memory.engine import MemoryEngine
from leasehold.errors import ServiceError, unavailable
from leasehold.http.endpoints.kv.delete_entries import delete_entries
from leasehold.http.requests import Headers, Request
from leasehold.http.responses import Response
from leasehold.http.routing.route import Service
from leasehold.limits import Limits
from leasehold.model import ENTRY, Delete, Operation, Put
from leasehold.store.batch import Done
from leasehold.store.store import FIRST_PAGE_ENTRIES, Store

COUNT = 3 * FIRST_PAGE_ENTRIES


async def filled() -> Store:
    store = Store(MemoryEngine(), Limits())
    await store.open()
    for number in range(COUNT):
        await store.change(Put(f"jobs/{number:03}", b"1"))
    return store


async def delete(store: Store) -> Response:
    request = Request("DELETE", b"/kv", Headers(), query={"prefix": ["jobs/"]})
    return await delete_entries(request, cast("Service", SimpleNamespace(store=store)))


async def left(store: Store) -> int:
    return len((await store.space.scan(ENTRY, "", None, 1_000)).records)


def test_a_deletion_whose_client_is_gone_stops_after_a_step() -> None:
    async def scenario() -> None:
        store = await filled()
        deleted = asyncio.Event()
        store.space.subscribe(ENTRY, lambda *_: deleted.set())
        task = asyncio.get_running_loop().create_task(delete(store))
        await deleted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await left(store) == COUNT - FIRST_PAGE_ENTRIES
        await store.close()

    asyncio.run(scenario())


def test_a_step_that_fails_has_the_number_of_entries_that_were_deleted_before() -> None:
    async def scenario() -> None:
        store = await filled()
        submit, deletions = store.submit, 0

        def fail_later(operation: Operation, done: Done) -> None:
            nonlocal deletions
            deletions += isinstance(operation, Delete)
            if deletions > FIRST_PAGE_ENTRIES + 2:
                done(unavailable("the disk failed"))
            else:
                submit(operation, done)

        store.submit = fail_later
        with pytest.raises(ServiceError) as caught:
            await delete(store)
        assert (caught.value.code, caught.value.details) == ("unavailable", {"deleted": FIRST_PAGE_ENTRIES + 2})
        assert caught.value.headers["Retry-After"] == "1"
        await store.close()

    asyncio.run(scenario())


def test_entries_that_others_delete_meanwhile_are_not_counted() -> None:
    async def scenario() -> None:
        store = await filled()
        submit = store.submit

        def delete_twice(operation: Operation, done: Done) -> None:
            if isinstance(operation, Delete) and operation.key == "jobs/003":
                submit(operation, lambda _: None)
            submit(operation, done)

        store.submit = delete_twice
        response = await delete(store)
        assert response.body is not None
        assert b'"deleted":%d' % (COUNT - 1) in response.body
        assert await left(store) == 0
        await store.close()

    asyncio.run(scenario())
