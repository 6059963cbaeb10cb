import pytest
from callers import token
from running import Server

from leasehold_client import (
    AsyncClient,
    EntryPut,
    Forbidden,
    InvalidArgument,
    LeaseLost,
    LockNotFound,
    NoSuchNamespace,
    NotFound,
    QuotaExceeded,
)

pytestmark = pytest.mark.anyio


async def test_namespaces_share_nothing_but_the_connections(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        await db.create_namespace(key)
        team = db.namespace(key)
        await db.put(key, "default")
        assert await team.get(key, default=None) is None
        await team.put(key, "team")
        await team.put(f"{key}/n", 1)
        assert ((await db.get(key)).value, (await team.get(key)).value) == ("default", "team")
        assert [entry.key async for entry in team.list()] == [key, f"{key}/n"]
        async with db.lock(key), team.lock(key, wait=0) as lease:
            await lease.put(key, "fenced")
            async with team.transaction(lease=lease) as transaction:
                transaction.increment(f"{key}/n")
            with pytest.raises(LockNotFound):
                await db.unlock(f"{key}/none", token=lease.token)
        async with team.watch(snapshot=True) as watch:
            async for event in watch:
                assert isinstance(event, EntryPut)
                assert event.entry.value == "fenced"
                break
        await team.delete_prefix(key)
        assert (await db.get(key)).value == "default"


async def test_a_client_of_a_namespace_sends_all_requests_to_it(server: Server, key: str) -> None:
    async with AsyncClient(server.url, namespace=key) as db:
        with pytest.raises(NoSuchNamespace):
            await db.put(key, 1)
        created = await db.create_namespace(key)
        assert (created.name, created.revision, created.entries, created.max_entries) == (key, 0, 0, None)
        await db.put(key, 1)
        assert (await db.namespace_info(key)).entries == 1
        with pytest.raises(NotFound):
            await db.namespace("default").get(key)
    async with AsyncClient(server.url, namespace="default") as db:
        assert await db.get(key, default=None) is None


async def test_a_quota_refuses_what_is_beyond_it(server: Server, key: str) -> None:
    async with AsyncClient(server.url, namespace=key) as db:
        created = await db.create_namespace(key, max_entries=1, max_bytes=1_000)
        assert (created.max_entries, created.max_bytes) == (1, 1_000)
        await db.put("a", 1)
        with pytest.raises(QuotaExceeded) as refused:
            await db.put("b", 1)
        assert refused.value.limit == 1
        await db.put("a", 2)
        changed = await db.create_namespace(key, max_entries=None)
        assert (changed.max_entries, changed.max_bytes) == (None, 1_000)
        await db.put("b", 1)
        with pytest.raises(QuotaExceeded):
            await db.put("b", "x" * 1_000)
        info = await db.namespace_info(key)
        assert (info.entries, info.bytes, info.created_at) == (2, 4, created.created_at)


async def test_namespaces_are_listed_in_pages_and_deleted(server: Server, key: str) -> None:
    names = [f"{key}-{number}" for number in range(3)]
    async with AsyncClient(server.url) as db:
        for name in names:
            await db.create_namespace(name)
        first = await db.namespace(names[0]).put("a", 1)
        listed = [each.name async for each in db.namespaces(page_namespaces=1) if each.name.startswith(key)]
        assert listed == names
        await db.delete_namespace(names[0])
        with pytest.raises(NoSuchNamespace):
            await db.namespace(names[0]).get("a", default=None)
        with pytest.raises(NoSuchNamespace):
            await db.namespace_info(names[0])
        again = await db.create_namespace(names[0])
        assert (again.entries, again.revision >= first.revision) == (0, True)
        assert await db.namespace(names[0]).get("a", default=None) is None


async def test_a_token_is_refused_in_other_namespaces(guarded: Server, key: str) -> None:
    async with AsyncClient(guarded.url, token=token("admin", namespaces=[key])) as db:
        await db.create_namespace(key)
    async with AsyncClient(guarded.url, namespace=key, token=token("read", "write")) as db:
        with pytest.raises(Forbidden):
            await db.put(key, 1)
    async with AsyncClient(guarded.url, namespace=key, token=token("read", "write", namespaces=[key])) as db:
        await db.put(key, 1)
        with pytest.raises(Forbidden):
            await db.namespace("default").get(key)


@pytest.mark.parametrize("name", ["", "a/b", "..", "A", "a" * 64, "ä"])
async def test_a_name_that_no_namespace_can_have_is_an_error_without_a_request(name: str) -> None:
    with pytest.raises(InvalidArgument, match="1 to 63"):
        AsyncClient(namespace=name)
    async with AsyncClient() as db:
        with pytest.raises(InvalidArgument, match="1 to 63"):
            db.namespace(name)


async def test_the_leases_of_a_namespace_that_is_deleted_are_lost(server: Server, key: str) -> None:
    async with AsyncClient(server.url) as db:
        await db.create_namespace(key)
        lock = db.namespace(key).lock("a", ttl=60, renew_every=60)
        lease = await lock.__aenter__()
        await db.delete_namespace(key)
        with pytest.raises(LeaseLost):
            await lease.renew()
        with pytest.raises(LeaseLost):
            await lock.__aexit__(None, None, None)
        await db.create_namespace(key)
        lock = db.namespace(key).lock("a", ttl=60, renew_every=60)
        await lock.__aenter__()
        await db.delete_namespace(key)
        with pytest.raises(LeaseLost):
            await lock.__aexit__(None, None, None)
