# Made from `asynchronous/test_namespaces.py` by tools/make_sync.py: edit that file.
import pytest
from callers import token
from running import Server

from leasehold_client import (
    Client,
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


def test_namespaces_share_nothing_but_the_connections(server: Server, key: str) -> None:
    with Client(server.url) as db:
        db.create_namespace(key)
        team = db.namespace(key)
        db.put(key, "default")
        assert team.get(key, default=None) is None
        team.put(key, "team")
        team.put(f"{key}/n", 1)
        assert ((db.get(key)).value, (team.get(key)).value) == ("default", "team")
        assert [entry.key for entry in team.list()] == [key, f"{key}/n"]
        with db.lock(key), team.lock(key, wait=0) as lease:
            lease.put(key, "fenced")
            with team.transaction(lease=lease) as transaction:
                transaction.increment(f"{key}/n")
            with pytest.raises(LockNotFound):
                db.unlock(f"{key}/none", token=lease.token)
        with team.watch(snapshot=True) as watch:
            for event in watch:
                assert isinstance(event, EntryPut)
                assert event.entry.value == "fenced"
                break
        team.delete_prefix(key)
        assert (db.get(key)).value == "default"


def test_a_client_of_a_namespace_sends_all_requests_to_it(server: Server, key: str) -> None:
    with Client(server.url, namespace=key) as db:
        with pytest.raises(NoSuchNamespace):
            db.put(key, 1)
        created = db.create_namespace(key)
        assert (created.name, created.revision, created.entries, created.max_entries) == (key, 0, 0, None)
        db.put(key, 1)
        assert (db.namespace_info(key)).entries == 1
        with pytest.raises(NotFound):
            db.namespace("default").get(key)
    with Client(server.url, namespace="default") as db:
        assert db.get(key, default=None) is None


def test_a_quota_refuses_what_is_beyond_it(server: Server, key: str) -> None:
    with Client(server.url, namespace=key) as db:
        created = db.create_namespace(key, max_entries=1, max_bytes=1_000)
        assert (created.max_entries, created.max_bytes) == (1, 1_000)
        db.put("a", 1)
        with pytest.raises(QuotaExceeded) as refused:
            db.put("b", 1)
        assert refused.value.limit == 1
        db.put("a", 2)
        changed = db.create_namespace(key, max_entries=None)
        assert (changed.max_entries, changed.max_bytes) == (None, 1_000)
        db.put("b", 1)
        with pytest.raises(QuotaExceeded):
            db.put("b", "x" * 1_000)
        info = db.namespace_info(key)
        assert (info.entries, info.bytes, info.created_at) == (2, 4, created.created_at)


def test_namespaces_are_listed_in_pages_and_deleted(server: Server, key: str) -> None:
    names = [f"{key}-{number}" for number in range(3)]
    with Client(server.url) as db:
        for name in names:
            db.create_namespace(name)
        first = db.namespace(names[0]).put("a", 1)
        listed = [each.name for each in db.namespaces(page_namespaces=1) if each.name.startswith(key)]
        assert listed == names
        db.delete_namespace(names[0])
        with pytest.raises(NoSuchNamespace):
            db.namespace(names[0]).get("a", default=None)
        with pytest.raises(NoSuchNamespace):
            db.namespace_info(names[0])
        again = db.create_namespace(names[0])
        assert (again.entries, again.revision >= first.revision) == (0, True)
        assert db.namespace(names[0]).get("a", default=None) is None


def test_a_token_is_refused_in_other_namespaces(guarded: Server, key: str) -> None:
    with Client(guarded.url, token=token("admin", namespaces=[key])) as db:
        db.create_namespace(key)
    with Client(guarded.url, namespace=key, token=token("read", "write")) as db:
        with pytest.raises(Forbidden):
            db.put(key, 1)
    with Client(guarded.url, namespace=key, token=token("read", "write", namespaces=[key])) as db:
        db.put(key, 1)
        with pytest.raises(Forbidden):
            db.namespace("default").get(key)


@pytest.mark.parametrize("name", ["", "a/b", "..", "A", "a" * 64, "ä"])
def test_a_name_that_no_namespace_can_have_is_an_error_without_a_request(name: str) -> None:
    with pytest.raises(InvalidArgument, match="1 to 63"):
        Client(namespace=name)
    with Client() as db:
        with pytest.raises(InvalidArgument, match="1 to 63"):
            db.namespace(name)


def test_the_leases_of_a_namespace_that_is_deleted_are_lost(server: Server, key: str) -> None:
    with Client(server.url) as db:
        db.create_namespace(key)
        lock = db.namespace(key).lock("a", ttl=60, renew_every=60)
        lease = lock.__enter__()
        db.delete_namespace(key)
        with pytest.raises(LeaseLost):
            lease.renew()
        with pytest.raises(LeaseLost):
            lock.__exit__(None, None, None)
        db.create_namespace(key)
        lock = db.namespace(key).lock("a", ttl=60, renew_every=60)
        lock.__enter__()
        db.delete_namespace(key)
        with pytest.raises(LeaseLost):
            lock.__exit__(None, None, None)
