import pytest
from running import Server

from leasehold_client import AsyncClient, Conflict, Deletion, Entry, LeaseLost, PreconditionFailed

pytestmark = pytest.mark.anyio


async def test_a_transaction_does_everything_at_one_revision(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        first = await db.put(f"{key}/a", {"n": 1})
        await db.put(f"{key}/b", 1)
        async with db.transaction() as transaction:
            transaction.check(f"{key}/a", revision=first)
            transaction.check(f"{key}/a", value=1, path="/n")
            transaction.check(f"{key}/c", revision=None)
            transaction.check(f"{key}/b", exists=True)
            transaction.put(f"{key}/a", 2, path="/n", ttl=60)
            transaction.delete(f"{key}/b")
            transaction.increment(f"{key}/c", 5)
            transaction.get(f"{key}/a")
            transaction.get(f"{key}/none")
        put, deletion, sum_, read, none = transaction.results
        assert isinstance(put, Entry)
        assert put.expires_at is not None
        assert deletion == Deletion(f"{key}/b", transaction.revision or 0)
        assert isinstance(sum_, Entry)
        assert sum_.value == 5
        assert isinstance(read, Entry)
        assert read.value == {"n": 2}
        assert none is None
        async with db.transaction() as transaction:
            transaction.merge(f"{key}/a", {"m": 1})
            transaction.patch(f"{key}/c", [{"op": "replace", "path": "", "value": [1]}])
            transaction.put(f"{key}/d", None)
        assert {(await db.get(f"{key}/{name}")).revision for name in "acd"} == {transaction.revision}


async def test_a_check_that_does_not_hold_refuses_all_of_it(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        entry = await db.put(key, 1)
        with pytest.raises(PreconditionFailed) as refused:
            async with db.transaction() as transaction:
                transaction.check(key, revision=None)
                transaction.check(key, value=1)
                transaction.put(key, 2)
        assert refused.value.failed == [{"index": 0, "key": key, "revision": entry.revision}]
        assert (await db.get(key)) == entry
        with pytest.raises(TypeError):
            async with db.transaction() as transaction:
                transaction.check(key)


async def test_an_operation_that_is_refused_is_named(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        await db.put(key, "text")
        with pytest.raises(Conflict) as refused:
            async with db.transaction() as transaction:
                transaction.put(f"{key}/other", 1)
                transaction.increment(key)
        assert (refused.value.details["index"], refused.value.details["key"]) == (1, key)
        assert await db.get(f"{key}/other", default=None) is None


async def test_a_block_that_raises_sends_nothing(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as transaction:
                transaction.put(key, 1)
                raise ZeroDivisionError
        assert await db.get(key, default=None) is None
        assert transaction.revision is None


async def test_a_transaction_with_a_lease_is_fenced(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        async with db.lock(key) as lease:
            async with db.transaction(lease=lease) as transaction:
                transaction.put(key, 1)
        with pytest.raises(LeaseLost):
            async with db.transaction(lease=lease) as transaction:
                transaction.put(key, 2)
        with pytest.raises(PreconditionFailed):
            async with db.transaction() as transaction:
                transaction.check_lease(lease.lease_id)
                transaction.put(key, 2)
        with pytest.raises(LeaseLost):
            await db.fenced(lease.lease_id).put(key, 2)
        assert (await db.get(key)).value == 1
