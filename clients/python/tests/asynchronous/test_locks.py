import time

import pytest
from running import Server

from asynchronous.together import beside, eventually, together
from leasehold_client import AsyncClient, AsyncLease, LeaseLost, LockHeld, LockNotFound

pytestmark = pytest.mark.anyio


async def test_a_lock_has_one_holder_and_is_free_after_the_block(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        async with db.lock(key, owner={"host": "a"}, ttl=100) as lease:
            assert (lease.name, lease.owner, lease.ttl) == (key, {"host": "a"}, 100)
            assert 0 < lease.remaining <= 100
            lease.check()
            with pytest.raises(LockHeld) as refused:
                async with db.lock(key, wait=0):
                    raise AssertionError("the lock has two holders")
            assert refused.value.owner == {"host": "a"}
            assert refused.value.expires_at is not None
            holder = await db.holder(key)
            assert holder is not None
            assert (holder.lock, holder.token, holder.owner, holder.waiters) == (key, lease.token, lease.owner, 0)
            assert [each.lock async for each in db.holders(key, page_locks=1)] == [key]
        assert await db.holder(key) is None
        assert lease.lost
        with pytest.raises(LeaseLost, match="released"):
            lease.check()
        async with db.lock(key) as later:
            assert later.token > lease.token


async def test_the_writes_of_a_lease_are_fenced(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        with pytest.raises(LeaseLost):
            async with db.lock(key) as lease:
                await lease.put(key, {"n": 1})
                await lease.increment(key, path="/n")
                await lease.update(key, lambda value: value | {"a": 1})
                await lease.merge(key, {"b": 1})
                await lease.patch(key, [{"op": "remove", "path": "/b"}])
                async with lease.transaction() as transaction:
                    transaction.put(f"{key}/other", 1)
                await lease.delete(f"{key}/other")
                await db.unlock(key, force=True)
                await lease.put(key, "late")
        assert lease.lost
        assert (await db.get(key)).value == {"n": 2, "a": 1}


async def test_locks_at_the_same_time_are_given_one_after_the_other(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        await db.put(key, 0)

        async def work() -> int:
            async with db.lock(key, wait=60) as lease:
                value = (await db.get(key)).value
                await lease.put(key, value + 1)
                return lease.token

        tokens = await together(*[work] * 6)
        assert len(set(tokens)) == 6
        assert (await db.get(key)).value == 6


async def test_a_lease_is_renewed_as_long_as_the_block_lasts(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db, db.lock(key, ttl=2) as lease:
        first = await db.holder(key)
        assert first is not None
        await eventually(lambda: time.time() > first.expires_at.timestamp() + 0.1)
        lease.check()
        await lease.put(key, "still held")
        assert (await db.holder(key)) is not None


async def test_a_lock_that_was_waited_for_longer_than_its_ttl_is_held_all_the_same(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        server.lease(key, ttl=3)
        async with db.lock(key, ttl=3, wait=60) as lease:
            lease.check()
            await lease.put(key, 1)


async def test_an_exception_of_the_block_is_raised_even_if_the_lease_is_lost(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        with pytest.raises(ZeroDivisionError):
            async with db.lock(key):
                await db.unlock(key, force=True)
                raise ZeroDivisionError
        with pytest.raises(LeaseLost):
            async with db.lock(key):
                await db.unlock(key, force=True)


async def test_a_lease_is_lost_when_the_service_is_gone(own_server: Server) -> None:
    async with AsyncClient(own_server.url, retry_seconds=0.2) as db:
        with pytest.raises(LeaseLost):
            async with db.lock("a", ttl=1) as lease:
                await beside(own_server.kill)
                await eventually(lambda: lease.lost)
                lease.check()


async def test_a_lease_that_was_ended_by_another_is_lost_at_the_next_renewal(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        with pytest.raises(LeaseLost):
            async with db.lock(key, ttl=60, renew_every=0.1) as lease:
                await db.unlock(key, force=True)
                await eventually(lambda: lease.lost)


async def test_a_lease_survives_a_restart_of_the_service(own_server: Server) -> None:
    async with AsyncClient(own_server.url) as db, db.lock("a", ttl=60, renew_every=0.1) as lease:
        before = await db.holder("a")
        await beside(own_server.restart)
        await lease.put("b", 1)
        after = await db.holder("a")
        assert before is not None
        assert after is not None
        assert after.token == before.token
        await eventually(lambda: lease.remaining > 59)


async def test_a_lease_can_be_renewed_and_released_by_hand(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        with pytest.raises(LeaseLost):
            async with db.lock(key, ttl=10) as lease:
                await lease.renew(100)
                assert lease.remaining > 10
                assert lease.ttl == 100
                await lease.release()
                with pytest.raises(LeaseLost):
                    await lease.renew()
        assert await db.holder(key) is None


async def test_a_lock_is_ended_by_its_token_or_by_force(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        lease = server.lease(key)
        with pytest.raises(LeaseLost):
            await db.unlock(key, token=lease["token"] + 1)
        await db.unlock(key, token=lease["token"])
        with pytest.raises(LockNotFound):
            await db.unlock(key, force=True)
        with pytest.raises(TypeError):
            await db.unlock(key)


async def test_a_function_runs_with_a_lock(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:

        @db.locked(key, ttl=10, wait=0)
        async def nightly(lease: AsyncLease, day: int, *, dry: bool) -> tuple[str, int, bool]:
            """Runs at night."""
            lease.check()
            return lease.name, day, dry

        assert await nightly(7, dry=True) == (key, 7, True)
        assert (nightly.__name__, nightly.__doc__) == ("nightly", "Runs at night.")
        server.lease(key)
        with pytest.raises(LockHeld):
            await nightly(8, dry=False)


async def test_one_of_several_candidates_leads(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        leaders = 0

        async def lead() -> None:
            nonlocal leaders
            async with db.elect(key, owner="a") as lease:
                leaders += 1
                assert leaders == 1
                await lease.put(key, 1)
                leaders -= 1

        await together(lead, lead, lead)
        assert await db.holder(key) is None


async def test_a_semaphore_has_a_number_of_places(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        async with db.semaphore(key, 2) as first:
            async with db.semaphore(key, 2) as second:
                assert {first.name, second.name} == {f"{key}/0", f"{key}/1"}
                with pytest.raises(LockHeld):
                    async with db.semaphore(key, 2, wait=0.1):
                        raise AssertionError("the semaphore has three places")
            async with db.semaphore(key, 2) as third:
                assert third.name == second.name
