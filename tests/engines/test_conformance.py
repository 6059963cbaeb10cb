"""The contract of `engines.base.Engine`, kept by every engine. A new one adds a line to `databases.ENGINES`."""

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from databases import ENGINES
from driving import Driver, FrozenClock
from msgspec.structs import replace

from leasehold.errors import ServiceError
from leasehold.model import Change, Deletion, Entry, Lease, LeaseEnd, Touched, View, name_of

DURABLE = [name for name, make in ENGINES.items() if make(Path("unused"), FrozenClock()).durable]


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture(params=sorted(ENGINES))
def make_driver(request: pytest.FixtureRequest, tmp_path: Path, clock: FrozenClock) -> Callable[[], Driver]:
    """Makes an engine on the same storage each time."""
    make_engine = ENGINES[request.param]
    return lambda: Driver(make_engine(tmp_path, clock))


@pytest.fixture
def driver(make_driver: Callable[[], Driver]) -> Iterator[Driver]:
    with make_driver() as driver:
        yield driver


@pytest.fixture(params=DURABLE)
def make_durable_driver(request: pytest.FixtureRequest, tmp_path: Path, clock: FrozenClock) -> Callable[[], Driver]:
    """Only engines that outlive their process."""
    make_engine = ENGINES[request.param]
    return lambda: Driver(make_engine(tmp_path, clock))


def test_a_new_store_is_empty_at_revision_zero(driver: Driver) -> None:
    assert (driver.engine.revision, driver.values()) == (0, {})
    assert driver.engine.fault is None


def test_a_store_has_an_incarnation_which_decide_sees(driver: Driver) -> None:
    seen: list[str] = []

    def decide(view: View, _revision: int, _now: int) -> Sequence[Change]:
        seen.append(view.incarnation)
        return []

    driver.decide_and_commit(["a"], decide)
    assert re.fullmatch("[0-9a-f]{6}", driver.engine.incarnation)
    assert seen == [driver.engine.incarnation]


def test_the_incarnation_outlives_the_process_with_the_store(make_durable_driver: Callable[[], Driver]) -> None:
    with make_durable_driver() as driver:
        incarnation = driver.engine.incarnation
        driver.put("a")
    with make_durable_driver() as driver:
        assert driver.engine.incarnation == incarnation


def test_a_committed_entry_is_read_as_it_was_decided(driver: Driver, clock: FrozenClock) -> None:
    driver.put("username", b'"alice"', expires_at=clock.now + 1)
    assert driver.read("username") == Entry("username", b'"alice"', 1, clock.now, clock.now, clock.now + 1)


def test_a_missing_key_reads_as_none(driver: Driver) -> None:
    assert driver.read("username") is None


def test_an_entry_is_gone_from_the_microsecond_of_its_expiry_on(driver: Driver, clock: FrozenClock) -> None:
    driver.put("a", expires_at=clock.now + 10)
    clock.now += 9
    assert driver.value("a") == b"1"
    clock.now += 1
    assert driver.read("a") is None
    assert driver.values() == {}


def test_decide_sees_the_committed_state_the_head_and_the_time(driver: Driver, clock: FrozenClock) -> None:
    driver.put("a", b"1")
    seen: list[tuple[bytes | None, bool, int, int]] = []

    def decide(view: View, revision: int, now: int) -> Sequence[Change]:
        entry = view.entry("a")
        seen.append((None if entry is None else entry.value, view.entry("b") is None, revision, now))
        return []

    assert driver.decide_and_commit(["a", "b"], decide) is None
    assert seen == [(b"1", True, 1, clock.now)]


def test_decide_sees_an_expired_entry_because_that_is_a_matter_of_rules(driver: Driver, clock: FrozenClock) -> None:
    driver.put("a", expires_at=clock.now + 1)
    clock.now += 1
    seen: list[Entry | None] = []

    def decide(view: View, revision: int, now: int) -> Sequence[Change]:
        seen.append(view.entry("a"))
        return []

    driver.decide_and_commit(["a"], decide)
    assert [entry and entry.key for entry in seen] == ["a"]


def test_a_batch_without_changes_completes_and_moves_nothing(driver: Driver) -> None:
    assert driver.decide_and_commit(["a"], lambda _view, _revision, _now: []) is None
    assert driver.engine.revision == 0


def test_a_batch_is_published_as_a_whole_and_moves_the_head(driver: Driver) -> None:
    driver.commit(("a", b"1"), ("b", b"2"), ("c", b"3"))
    driver.commit(("a", b"4"), ("b", None))
    assert (driver.engine.revision, driver.values()) == (5, {"a": b"4", "c": b"3"})


def test_a_batch_may_name_its_changes_out_of_order(driver: Driver, clock: FrozenClock) -> None:
    """A key changed twice keeps its first place in the batch with its last revision."""
    changes = [Entry("a", b"2", 3, clock.now, clock.now), Entry("b", b"1", 2, clock.now, clock.now)]
    driver.decide_and_commit(["a", "b"], lambda _view, _revision, _now: changes)
    assert driver.engine.revision == 3
    assert driver.run(driver.engine.changes(2, "", 10)) == [changes[0]]


def test_the_removal_of_a_missing_key_is_a_change_like_any_other(driver: Driver) -> None:
    driver.commit(("a", None))
    assert (driver.engine.revision, driver.values()) == (1, {})


def test_nothing_is_visible_before_the_commit_is_done(driver: Driver) -> None:
    seen: list[int] = []

    async def commit_and_look() -> None:
        finished = asyncio.Event()

        def done(error: ServiceError | None) -> None:
            assert error is None
            seen.append(driver.engine.revision)
            finished.set()

        def decide(_view: View, revision: int, now: int) -> Sequence[Change]:
            seen.append(driver.engine.revision)
            return [Entry("a", b"1", revision + 1, now, now)]

        driver.engine.commit(Touched(["a"]), decide, done)
        await finished.wait()

    driver.run(commit_and_look())
    assert seen == [0, 1]


def test_a_commit_after_close_is_refused(driver: Driver) -> None:
    driver.run(driver.engine.close())
    error = driver.try_commit(("a", b"1"))
    assert error is not None
    assert error.code == "unavailable"


def test_open_and_close_may_be_repeated(driver: Driver) -> None:
    driver.run(driver.engine.open())
    driver.put("a")
    driver.run(driver.engine.close())
    driver.run(driver.engine.close())


# Lists --------------------------------------------------------------------------------------------------------


def test_scan_is_in_the_order_of_utf8_bytes(driver: Driver) -> None:
    keys = ["z", "a", "é", "\U0001f600", "\uffee", "A", "a/b", "a0"]
    driver.commit(*((key, b"1") for key in keys))
    page = driver.run(driver.engine.scan("", None, 100))
    assert [entry.key for entry in page.records] == sorted(keys, key=str.encode)


def test_scan_gives_pages_that_follow_one_another(driver: Driver) -> None:
    driver.commit(*((f"k{number}", b"1") for number in range(5)))
    keys, after = [], None
    for _ in range(3):
        page = driver.run(driver.engine.scan("", after, 2))
        keys.append([entry.key for entry in page.records])
        after = page.next_after
    assert (keys, after) == ([["k0", "k1"], ["k2", "k3"], ["k4"]], None)


def test_a_page_that_ends_with_the_last_entry_says_so(driver: Driver) -> None:
    driver.commit(("a", b"1"), ("b", b"1"))
    assert driver.run(driver.engine.scan("", None, 2)).next_after is None


@pytest.mark.parametrize(
    ("prefix", "after", "expected"),
    [
        ("b", None, ["b", "b/1", "b/2"]),
        ("b/", None, ["b/1", "b/2"]),
        ("b/", "b/1", ["b/2"]),
        ("b/", "a", ["b/1", "b/2"]),
        ("b/", "b0", []),
        ("", "b/1", ["b/2", "c"]),
        ("x", None, []),
    ],
)
def test_scan_keeps_to_its_prefix_and_begins_behind_after(
    driver: Driver, prefix: str, after: str | None, expected: list[str]
) -> None:
    driver.commit(*((key, b"1") for key in ("a", "b", "b/1", "b/2", "c")))
    page = driver.run(driver.engine.scan(prefix, after, 100))
    assert [entry.key for entry in page.records] == expected


def test_scan_leaves_out_what_has_expired(driver: Driver, clock: FrozenClock) -> None:
    driver.commit(("a", b"1"), ("b", b"1"), expires_at=clock.now + 1)
    driver.put("c")
    clock.now += 1
    page = driver.run(driver.engine.scan("", None, 1))
    assert ([entry.key for entry in page.records], page.next_after) == (["c"], None)


# Changes ------------------------------------------------------------------------------------------------------


def test_changes_are_the_latest_of_each_key_with_deletions(driver: Driver) -> None:
    driver.commit(("a", b"1"), ("b", b"1"), ("c", b"1"))
    driver.commit(("a", b"2"), ("b", None))
    changes = driver.run(driver.engine.changes(0, "", 100))
    assert [(change.key, change.revision) for change in changes] == [("c", 3), ("a", 4), ("b", 5)]
    assert changes[-1] == Deletion("b", 5)


def test_changes_keep_to_their_revision_prefix_and_limit(driver: Driver) -> None:
    driver.commit(("a/1", b"1"), ("b/1", b"1"), ("a/2", b"1"), ("a/3", b"1"))
    changes = driver.run(driver.engine.changes(1, "a/", 1))
    assert [(change.key, change.revision) for change in changes] == [("a/2", 3)]


def test_no_changes_after_the_head(driver: Driver) -> None:
    driver.put("a")
    assert driver.run(driver.engine.changes(1, "", 100)) == []


def test_changes_that_are_no_longer_known_are_refused(
    make_driver: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leasehold.engines.memory.entries.HISTORY_CHANGES", 3)
    with make_driver() as driver:
        driver.commit(*((f"k{number}", b"1") for number in range(5)))
        with pytest.raises(ServiceError) as caught:
            driver.run(driver.engine.changes(1, "", 100))
        assert caught.value.code == "revision_compacted"
        assert len(driver.run(driver.engine.changes(2, "", 100))) == 3


def test_wait_returns_when_the_head_has_passed(driver: Driver) -> None:
    async def wait_and_commit() -> bool:
        waiting = asyncio.create_task(driver.engine.wait(0))
        await asyncio.sleep(0)
        before = waiting.done()
        driver.engine.commit(
            Touched(["a"]), lambda _, revision, now: [Entry("a", b"1", revision + 1, now, now)], lambda _: None
        )
        await waiting
        return before

    assert driver.run(wait_and_commit()) is False
    assert driver.engine.revision == 1


def test_wait_for_the_past_returns_at_once(driver: Driver) -> None:
    driver.put("a")
    driver.run(driver.engine.wait(0))


# Expiry -------------------------------------------------------------------------------------------------------


def test_expired_names_what_is_due_the_oldest_first(driver: Driver, clock: FrozenClock) -> None:
    for key, seconds in (("late", 30), ("first", 10), ("second", 20)):
        driver.put(key, expires_at=clock.now + seconds)
    clock.now += 20
    assert driver.run(driver.engine.expired(100)) == ["first", "second"]
    assert driver.run(driver.engine.expired(1)) == ["first"]


def test_expired_names_a_key_until_it_is_removed(driver: Driver, clock: FrozenClock) -> None:
    driver.put("a", expires_at=clock.now)
    assert driver.run(driver.engine.expired(100)) == ["a"]
    assert driver.run(driver.engine.expired(100)) == ["a"]
    driver.commit(("a", None))
    assert driver.run(driver.engine.expired(100)) == []


def test_an_entry_that_was_written_again_does_not_expire_by_its_old_time(driver: Driver, clock: FrozenClock) -> None:
    driver.put("a", expires_at=clock.now + 1)
    driver.put("a")
    clock.now += 1
    assert driver.run(driver.engine.expired(100)) == []
    assert driver.value("a") == b"1"


def test_expiries_renewed_over_and_over_do_not_pile_up(driver: Driver, clock: FrozenClock) -> None:
    batch = [(f"k{number}", b"1") for number in range(100)]
    for seconds in range(30):
        driver.commit(*batch, expires_at=clock.now + 1 + seconds)
    clock.now += 29
    assert driver.run(driver.engine.expired(1000)) == []
    clock.now += 1
    assert sorted(driver.run(driver.engine.expired(1000))) == sorted(key for key, _ in batch)


# Leases -------------------------------------------------------------------------------------------------------


def lease(lock: str, revision: int, clock: FrozenClock, *, seconds: int = 30, lease_id: str = "") -> Lease:
    return Lease(
        lock,
        lease_id or f"id-of-{lock}",
        token=revision,
        revision=revision,
        acquired_at=clock.now,
        expires_at=clock.now + seconds * 1_000_000,
        ttl=seconds * 1_000_000,
        holder="alice",
        owner=b'{"host":"a","n":1e300}',
    )


def commit_leases(driver: Driver, *changes: Change) -> None:
    """Without rules: what is given is written."""
    error = driver.decide_and_commit(Touched(locks=[name_of(change) for change in changes]), lambda *_: changes)
    assert error is None


def locks_held(driver: Driver) -> list[str]:
    return [each.lock for each in driver.run(driver.engine.leases("", None, 100)).records]


def test_a_committed_lease_is_read_as_it_was_decided(driver: Driver, clock: FrozenClock) -> None:
    kept = lease("jobs/nightly", 1, clock)
    commit_leases(driver, kept)
    assert driver.run(driver.engine.lease("jobs/nightly")) == kept
    assert driver.run(driver.engine.lease("jobs")) is None
    assert driver.engine.revision == 1


def test_a_lease_is_gone_from_the_microsecond_of_its_expiry_on(driver: Driver, clock: FrozenClock) -> None:
    commit_leases(driver, lease("l", 1, clock, seconds=1))
    clock.now += 999_999
    assert locks_held(driver) == ["l"]
    clock.now += 1
    assert locks_held(driver) == []
    assert driver.run(driver.engine.lease("l")) is None


def test_decide_sees_leases_by_lock_and_by_id_expired_ones_too(driver: Driver, clock: FrozenClock) -> None:
    kept = [lease("l", 1, clock, seconds=1), lease("m", 2, clock)]
    commit_leases(driver, *kept)
    clock.now += 5_000_000
    seen: list[Lease | None] = []

    def decide(view: View, _revision: int, _now: int) -> Sequence[Change]:
        seen[:] = [view.lease("l"), view.lease("n"), view.lease_by_id("id-of-m"), view.lease_by_id("id-of-n")]
        return []

    driver.decide_and_commit(Touched(locks=["l", "n"], lease_ids=["id-of-m", "id-of-n"]), decide)
    assert seen == [kept[0], None, kept[1], None]


def test_a_lease_that_was_replaced_is_not_found_by_its_id_any_more(driver: Driver, clock: FrozenClock) -> None:
    commit_leases(driver, lease("l", 1, clock, lease_id="old"))
    commit_leases(driver, lease("l", 2, clock, lease_id="new"))
    seen: list[Lease | None] = []

    def decide(view: View, _revision: int, _now: int) -> Sequence[Change]:
        seen[:] = [view.lease_by_id("old"), view.lease_by_id("new")]
        return []

    driver.decide_and_commit(Touched(lease_ids=["old", "new"]), decide)
    assert seen == [None, lease("l", 2, clock, lease_id="new")]


def test_entries_and_leases_of_one_batch_are_committed_together(driver: Driver, clock: FrozenClock) -> None:
    changes = (
        Entry("a", b"1", 1, clock.now, clock.now),
        lease("a", 2, clock),
        Entry("b", b"1", 3, clock.now, clock.now),
    )
    assert driver.decide_and_commit(Touched(["a", "b"], ["a"]), lambda *_: changes) is None
    assert (driver.engine.revision, driver.values(), locks_held(driver)) == (3, {"a": b"1", "b": b"1"}, ["a"])


def test_an_end_of_a_lease_is_a_change(driver: Driver, clock: FrozenClock) -> None:
    commit_leases(driver, lease("l", 1, clock))
    commit_leases(driver, LeaseEnd("l", 2))
    assert (driver.engine.revision, locks_held(driver)) == (2, [])


def test_locks_are_listed_by_prefix_in_the_order_of_utf8_bytes_page_by_page(driver: Driver, clock: FrozenClock) -> None:
    names = ["a", "job/1", "job/\U0001f600", "job/\uffee", "job/2", "jobs", "z"]
    commit_leases(driver, *(lease(name, number, clock) for number, name in enumerate(names, start=1)))
    first = driver.run(driver.engine.leases("job/", None, 3))
    rest = driver.run(driver.engine.leases("job/", first.next_after, 3))
    assert [each.lock for each in (*first.records, *rest.records)] == ["job/1", "job/2", "job/\uffee", "job/\U0001f600"]
    assert (first.revision, first.next_after, rest.next_after) == (7, "job/\uffee", None)


def test_expired_leases_are_named_until_they_are_removed_the_oldest_first(driver: Driver, clock: FrozenClock) -> None:
    commit_leases(
        driver,
        lease("late", 1, clock, seconds=3),
        lease("first", 2, clock, seconds=1),
        lease("second", 3, clock, seconds=2),
    )
    clock.now += 2_000_000
    assert driver.run(driver.engine.expired_leases(100)) == ["first", "second"]
    assert driver.run(driver.engine.expired_leases(1)) == ["first"]
    commit_leases(driver, LeaseEnd("first", 4))
    assert driver.run(driver.engine.expired_leases(100)) == ["second"]


def test_a_lease_renewed_over_and_over_does_not_expire_by_an_old_time(driver: Driver, clock: FrozenClock) -> None:
    for number in range(1, 30):
        commit_leases(driver, replace(lease("l", number, clock, seconds=number), token=1))
    clock.now += 28_000_000
    assert driver.run(driver.engine.expired_leases(100)) == []
    assert locks_held(driver) == ["l"]


def test_who_watches_hears_of_locks_that_were_set_free(driver: Driver, clock: FrozenClock) -> None:
    heard: list[Sequence[str] | None] = []
    driver.engine.watch_locks(heard.append)
    commit_leases(driver, lease("l", 1, clock), lease("m", 2, clock))
    commit_leases(driver, Entry("a", b"1", 3, clock.now, clock.now), replace(lease("l", 4, clock), token=1))
    assert [locks for locks in heard if locks is not None] == []
    commit_leases(driver, LeaseEnd("l", 5), LeaseEnd("m", 6))
    assert [sorted(locks) for locks in heard if locks is not None] == [["l", "m"]]


def test_leases_are_no_changes_of_keys(driver: Driver, clock: FrozenClock) -> None:
    driver.put("a")
    commit_leases(driver, lease("a", 2, clock))
    assert [change.revision for change in driver.run(driver.engine.changes(0, "", 100))] == [1]


def test_leases_are_there_after_a_restart_with_their_times_and_tokens(
    make_durable_driver: Callable[[], Driver], clock: FrozenClock
) -> None:
    kept = [lease("l", 2, clock), replace(lease("m", 4, clock), token=3)]
    with make_durable_driver() as driver:
        driver.put("a")
        commit_leases(driver, *kept, lease("gone", 5, clock))
        commit_leases(driver, LeaseEnd("gone", 6))
    with make_durable_driver() as driver:
        assert driver.run(driver.engine.leases("", None, 100)).records == kept
        assert driver.engine.revision == 6


# Restart ------------------------------------------------------------------------------------------------------


def test_what_was_committed_is_there_after_a_restart(
    make_durable_driver: Callable[[], Driver], clock: FrozenClock
) -> None:
    with make_durable_driver() as driver:
        driver.put("a", b'{"b":["\xc3\xa9",1.5,null]}', expires_at=clock.now + 5)
        driver.commit(("b", b"1"), ("c", b"2"), ("b", None))
        before = driver.run(driver.engine.scan("", None, 100))
    with make_durable_driver() as driver:
        assert driver.run(driver.engine.scan("", None, 100)) == before
        assert driver.engine.revision == 4


def test_the_head_does_not_go_back_when_everything_is_removed(make_durable_driver: Callable[[], Driver]) -> None:
    with make_durable_driver() as driver:
        driver.put("a")
        driver.commit(("a", None))
    with make_durable_driver() as driver:
        assert (driver.engine.revision, driver.values()) == (2, {})


def test_an_entry_still_expires_after_a_restart(make_durable_driver: Callable[[], Driver], clock: FrozenClock) -> None:
    with make_durable_driver() as driver:
        driver.put("a", expires_at=clock.now + 1)
    clock.now += 1
    with make_durable_driver() as driver:
        assert driver.run(driver.engine.expired(100)) == ["a"]


def test_changes_from_before_a_restart_are_given_or_refused_but_never_left_out(
    make_durable_driver: Callable[[], Driver],
) -> None:
    with make_durable_driver() as driver:
        driver.commit(("a", b"1"), ("b", b"1"))
    with make_durable_driver() as driver:
        with suppress(ServiceError):
            changes = driver.run(driver.engine.changes(0, "", 100))
            assert [change.key for change in changes] == ["a", "b"]
        assert driver.run(driver.engine.changes(2, "", 100)) == []
