# Made from `asynchronous/test_transactions.py` by tools/make_sync.py: edit that file.
import pytest
from running import Server

from leasehold_client import Client, Conflict, Deletion, Entry, LeaseLost, PreconditionFailed

pytestmark = pytest.mark.anyio


def test_a_transaction_does_everything_at_one_revision(server: Server, key: str) -> None:
    with Client(server.url) as db:
        first = db.put(f"{key}/a", {"n": 1})
        db.put(f"{key}/b", 1)
        with db.transaction() as transaction:
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
        with db.transaction() as transaction:
            transaction.merge(f"{key}/a", {"m": 1})
            transaction.patch(f"{key}/c", [{"op": "replace", "path": "", "value": [1]}])
            transaction.put(f"{key}/d", None)
        assert {(db.get(f"{key}/{name}")).revision for name in "acd"} == {transaction.revision}


def test_a_check_that_does_not_hold_refuses_all_of_it(server: Server, key: str) -> None:
    with Client(server.url) as db:
        entry = db.put(key, 1)
        with pytest.raises(PreconditionFailed) as refused:
            with db.transaction() as transaction:
                transaction.check(key, revision=None)
                transaction.check(key, value=1)
                transaction.put(key, 2)
        assert refused.value.failed == [{"index": 0, "key": key, "revision": entry.revision}]
        assert (db.get(key)) == entry
        with pytest.raises(TypeError):
            with db.transaction() as transaction:
                transaction.check(key)


def test_an_operation_that_is_refused_is_named(server: Server, key: str) -> None:
    with Client(server.url) as db:
        db.put(key, "text")
        with pytest.raises(Conflict) as refused:
            with db.transaction() as transaction:
                transaction.put(f"{key}/other", 1)
                transaction.increment(key)
        assert (refused.value.details["index"], refused.value.details["key"]) == (1, key)
        assert db.get(f"{key}/other", default=None) is None


def test_a_block_that_raises_sends_nothing(server: Server, key: str) -> None:
    with Client(server.url) as db:
        with pytest.raises(ZeroDivisionError):
            with db.transaction() as transaction:
                transaction.put(key, 1)
                raise ZeroDivisionError
        assert db.get(key, default=None) is None
        assert transaction.revision is None


def test_a_transaction_with_a_lease_is_fenced(server: Server, key: str) -> None:
    with Client(server.url) as db:
        with db.lock(key) as lease:
            with db.transaction(lease=lease) as transaction:
                transaction.put(key, 1)
        with pytest.raises(LeaseLost):
            with db.transaction(lease=lease) as transaction:
                transaction.put(key, 2)
        with pytest.raises(PreconditionFailed):
            with db.transaction() as transaction:
                transaction.check_lease(lease.lease_id)
                transaction.put(key, 2)
        with pytest.raises(LeaseLost):
            db.fenced(lease.lease_id).put(key, 2)
        assert (db.get(key)).value == 1
