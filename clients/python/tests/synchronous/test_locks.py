# Made from `asynchronous/test_locks.py` by tools/make_sync.py: edit that file.
import time

import pytest
from running import Server

from leasehold_client import Client, Lease, LeaseLost, LockHeld, LockNotFound
from synchronous.together import beside, eventually, together

pytestmark = pytest.mark.anyio


def test_a_lock_has_one_holder_and_is_free_after_the_block(server: Server, key: str) -> None:
    with Client(server.url) as db:
        with db.lock(key, owner={"host": "a"}, ttl=100) as lease:
            assert (lease.name, lease.owner, lease.ttl) == (key, {"host": "a"}, 100)
            assert 0 < lease.remaining <= 100
            lease.check()
            with pytest.raises(LockHeld) as refused:
                with db.lock(key, wait=0):
                    raise AssertionError("the lock has two holders")
            assert refused.value.owner == {"host": "a"}
            assert refused.value.expires_at is not None
            holder = db.holder(key)
            assert holder is not None
            assert (holder.lock, holder.token, holder.owner, holder.waiters) == (key, lease.token, lease.owner, 0)
            assert [each.lock for each in db.holders(key, page_locks=1)] == [key]
        assert db.holder(key) is None
        assert lease.lost
        with pytest.raises(LeaseLost, match="released"):
            lease.check()
        with db.lock(key) as later:
            assert later.token > lease.token


def test_the_writes_of_a_lease_are_fenced(server: Server, key: str) -> None:
    with Client(server.url) as db:
        with pytest.raises(LeaseLost):
            with db.lock(key) as lease:
                lease.put(key, {"n": 1})
                lease.increment(key, path="/n")
                lease.update(key, lambda value: value | {"a": 1})
                lease.merge(key, {"b": 1})
                lease.patch(key, [{"op": "remove", "path": "/b"}])
                with lease.transaction() as transaction:
                    transaction.put(f"{key}/other", 1)
                lease.delete(f"{key}/other")
                db.unlock(key, force=True)
                lease.put(key, "late")
        assert lease.lost
        assert (db.get(key)).value == {"n": 2, "a": 1}


def test_locks_at_the_same_time_are_given_one_after_the_other(server: Server, key: str) -> None:
    with Client(server.url) as db:
        db.put(key, 0)

        def work() -> int:
            with db.lock(key, wait=60) as lease:
                value = (db.get(key)).value
                lease.put(key, value + 1)
                return lease.token

        tokens = together(*[work] * 6)
        assert len(set(tokens)) == 6
        assert (db.get(key)).value == 6


def test_a_lease_is_renewed_as_long_as_the_block_lasts(server: Server, key: str) -> None:
    with Client(server.url) as db, db.lock(key, ttl=2) as lease:
        first = db.holder(key)
        assert first is not None
        eventually(lambda: time.time() > first.expires_at.timestamp() + 0.1)
        lease.check()
        lease.put(key, "still held")
        assert (db.holder(key)) is not None


def test_a_lock_that_was_waited_for_longer_than_its_ttl_is_held_all_the_same(server: Server, key: str) -> None:
    with Client(server.url) as db:
        server.lease(key, ttl=3)
        with db.lock(key, ttl=3, wait=60) as lease:
            lease.check()
            lease.put(key, 1)


def test_an_exception_of_the_block_is_raised_even_if_the_lease_is_lost(server: Server, key: str) -> None:
    with Client(server.url) as db:
        with pytest.raises(ZeroDivisionError):
            with db.lock(key):
                db.unlock(key, force=True)
                raise ZeroDivisionError
        with pytest.raises(LeaseLost):
            with db.lock(key):
                db.unlock(key, force=True)


def test_a_lease_is_lost_when_the_service_is_gone(own_server: Server) -> None:
    with Client(own_server.url, retry_seconds=0.2) as db:
        with pytest.raises(LeaseLost):
            with db.lock("a", ttl=1) as lease:
                beside(own_server.kill)
                eventually(lambda: lease.lost)
                lease.check()


def test_a_lease_that_was_ended_by_another_is_lost_at_the_next_renewal(server: Server, key: str) -> None:
    with Client(server.url) as db:
        with pytest.raises(LeaseLost):
            with db.lock(key, ttl=60, renew_every=0.1) as lease:
                db.unlock(key, force=True)
                eventually(lambda: lease.lost)


def test_a_lease_survives_a_restart_of_the_service(own_server: Server) -> None:
    with Client(own_server.url) as db, db.lock("a", ttl=60, renew_every=0.1) as lease:
        before = db.holder("a")
        beside(own_server.restart)
        lease.put("b", 1)
        after = db.holder("a")
        assert before is not None
        assert after is not None
        assert after.token == before.token
        eventually(lambda: lease.remaining > 59)


def test_a_lease_can_be_renewed_and_released_by_hand(server: Server, key: str) -> None:
    with Client(server.url) as db:
        with pytest.raises(LeaseLost):
            with db.lock(key, ttl=10) as lease:
                lease.renew(100)
                assert lease.remaining > 10
                assert lease.ttl == 100
                lease.release()
                with pytest.raises(LeaseLost):
                    lease.renew()
        assert db.holder(key) is None


def test_a_lock_is_ended_by_its_token_or_by_force(server: Server, key: str) -> None:
    with Client(server.url) as db:
        lease = server.lease(key)
        with pytest.raises(LeaseLost):
            db.unlock(key, token=lease["token"] + 1)
        db.unlock(key, token=lease["token"])
        with pytest.raises(LockNotFound):
            db.unlock(key, force=True)
        with pytest.raises(TypeError):
            db.unlock(key)


def test_a_function_runs_with_a_lock(server: Server, key: str) -> None:
    with Client(server.url) as db:

        @db.locked(key, ttl=10, wait=0)
        def nightly(lease: Lease, day: int, *, dry: bool) -> tuple[str, int, bool]:
            """Runs at night."""
            lease.check()
            return lease.name, day, dry

        assert nightly(7, dry=True) == (key, 7, True)
        assert (nightly.__name__, nightly.__doc__) == ("nightly", "Runs at night.")
        server.lease(key)
        with pytest.raises(LockHeld):
            nightly(8, dry=False)


def test_one_of_several_candidates_leads(server: Server, key: str) -> None:
    with Client(server.url) as db:
        leaders = 0

        def lead() -> None:
            nonlocal leaders
            with db.elect(key, owner="a") as lease:
                leaders += 1
                assert leaders == 1
                lease.put(key, 1)
                leaders -= 1

        together(lead, lead, lead)
        assert db.holder(key) is None


def test_a_semaphore_has_a_number_of_places(server: Server, key: str) -> None:
    with Client(server.url) as db:
        with db.semaphore(key, 2) as first:
            with db.semaphore(key, 2) as second:
                assert {first.name, second.name} == {f"{key}/0", f"{key}/1"}
                with pytest.raises(LockHeld):
                    with db.semaphore(key, 2, wait=0.1):
                        raise AssertionError("the semaphore has three places")
            with db.semaphore(key, 2) as third:
                assert third.name == second.name
