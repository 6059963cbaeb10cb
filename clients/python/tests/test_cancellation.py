"""What only tasks do: the asynchronous client cancels the block when its lease is lost."""

import asyncio

import pytest
from running import Server

from leasehold_client import AsyncClient, Client, LeaseLost

pytestmark = pytest.mark.anyio


async def lose(db: AsyncClient, key: str) -> None:
    await db.unlock(key, force=True)


async def test_the_block_is_cancelled_when_the_lease_is_lost(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        cleaned_up = False
        with pytest.raises(LeaseLost):
            async with db.lock(key, ttl=60, renew_every=0.1):
                await lose(db, key)
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0.01)
                    cleaned_up = True
        assert cleaned_up
        await asyncio.sleep(0)


async def test_the_block_is_cancelled_when_the_service_is_gone(own_server: Server) -> None:
    async with AsyncClient(own_server.url) as db:
        with pytest.raises(LeaseLost):
            async with db.lock("a", ttl=1):
                own_server.kill()
                await asyncio.Event().wait()


async def test_a_block_that_catches_the_cancellation_ends_with_lease_lost(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        with pytest.raises(LeaseLost):
            async with db.lock(key, ttl=60, renew_every=0.1):
                await lose(db, key)
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.Event().wait()


async def test_an_exception_that_the_cancellation_causes_is_raised(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        with pytest.raises(ZeroDivisionError):
            async with db.lock(key, ttl=60, renew_every=0.1):
                await lose(db, key)
                try:
                    await asyncio.Event().wait()
                finally:
                    raise ZeroDivisionError


async def test_a_task_that_is_cancelled_from_outside_stays_cancelled_and_releases_the_lock(
    server: Server, key: str
) -> None:
    async with AsyncClient(server.url) as db:
        is_held = asyncio.Event()

        async def hold() -> None:
            async with db.lock(key, ttl=60):
                is_held.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hold())
        await is_held.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await db.holder(key) is None


async def test_the_cancellation_of_an_inner_lock_does_not_end_the_outer_one(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db, db.lock(f"{key}/outer", ttl=60) as outer:
        with pytest.raises(LeaseLost):
            async with db.lock(f"{key}/inner", ttl=60, renew_every=0.1):
                await lose(db, f"{key}/inner")
                await asyncio.Event().wait()
        await outer.put(key, 1)


async def test_a_token_may_come_from_a_coroutine_function(guarded: Server, key: str) -> None:
    from callers import token

    async def source() -> str:
        await asyncio.sleep(0)
        return token("read", "write")

    async with AsyncClient(guarded.url, token=source) as db:
        assert (await db.put(key, 1)).value == 1


def test_no_thread_is_left_after_the_block(server: Server, key: str) -> None:
    import threading

    with Client(server.url) as db:
        with db.lock(key):
            assert any(key in thread.name for thread in threading.enumerate())
        assert not any(key in thread.name for thread in threading.enumerate())
