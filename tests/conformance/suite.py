"""The contract of `engines.base.Space`, as tests that an engine's test module inherits."""

import asyncio
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest
from driving import Driver, FrozenClock
from msgspec.structs import replace

from leasehold.engines import base
from leasehold.engines.base import Engine
from leasehold.errors import ServiceError
from leasehold.model import (
    ENTRY,
    KINDS,
    LEASE,
    RECEIPT,
    AnyKind,
    Binary,
    Change,
    Content,
    DeletedEntries,
    Deletion,
    Entry,
    Kind,
    Lease,
    LeaseEnd,
    Memo,
    Page,
    R,
    Receipt,
    ReceiptEnd,
    Touched,
    Value,
    View,
    encode_memo,
)

LARGE_VALUE = b'"%b"' % random.Random(1).randbytes(300_000).hex().encode()
"""PostgreSQL cannot make it much smaller."""
EVERY_BYTE = Binary("application/octet-stream", Content(range(256)))
NO_BYTES = Binary("image/svg+xml", Content())
LISTED_KEYS = sorted(["a", "b", "b/1", "b/2", "b/é", "c", "\uffee", "\U0010ffff", "\U0010ffff/1"], key=str.encode)


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
    """Write the given leases without any rules."""
    error = driver.decide_and_commit(Touched({LEASE: [change.name for change in changes]}), lambda *_: changes)
    assert error is None


def commit_receipts(driver: Driver, *changes: Change) -> None:
    """Write the given receipts without any rules."""
    error = driver.decide_and_commit(Touched({RECEIPT: [change.name for change in changes]}), lambda *_: changes)
    assert error is None


def receipt(name: str, revision: int, expires_at: int, *, size: int = 20) -> Receipt:
    memo = encode_memo(Memo(bytes(range(128, 148)) * (size // 20), DeletedEntries(1, 1)))
    return Receipt(name, memo, revision, expires_at)


def surplus(driver: Driver, most: int, *, most_bytes: int = 1_000_000, limit: int = 100) -> list[str]:
    """All names that are surplus, in the order in which they are removed. An engine may look less often."""
    return list(driver.run(driver.space.surplus(RECEIPT, most, most_bytes, limit)))


def locks_held(driver: Driver) -> list[str]:
    return [each.lock for each in driver.run(driver.space.scan(LEASE, "", None, 100)).records]


def read_all(driver: Driver, kind: Kind[R], names: Sequence[str]) -> Page[R]:
    """The records with these names, of all pages."""

    async def read() -> Page[R]:
        async with aclosing(driver.space.read_all(kind, names)) as pages:
            found = [page async for page in pages]
        assert {(page.revision, page.next_after) for page in found} == {(found[0].revision, None)}
        return Page([record for page in found for record in page.records], found[0].revision, None)

    return driver.run(read())


def scanned(driver: Driver, prefix: str, after: str | None, limit: int, *, is_reversed: bool) -> list[str]:
    """The keys of a list, of all pages."""
    keys: list[str] = []
    while True:
        page = driver.run(driver.space.scan(ENTRY, prefix, after, limit, is_reversed=is_reversed))
        assert len(page.records) <= limit
        keys += [entry.key for entry in page.records]
        after = page.next_after
        if after is None:
            return keys


def counted(driver: Driver, prefix: str, after: str | None, limit: int, *, is_reversed: bool) -> list[int]:
    """How many records each part of a list has."""
    counts: list[int] = []
    while True:
        part = driver.run(driver.space.count(ENTRY, prefix, after, limit, is_reversed=is_reversed))
        counts.append(part.count)
        if part.is_complete:
            return counts
        assert part.last is not None
        after = part.last


def expired(driver: Driver, kind: AnyKind, limit: int) -> list[str]:
    """The names of one kind that have expired."""
    return [name for each, name in driver.run(driver.space.expired(limit)) if each is kind]


def changes_of(driver: Driver, kind: AnyKind, after: int, prefix: str, limit: int) -> Sequence[Change]:
    """The first page of changes."""
    return driver.run(driver.space.changes(kind, after, prefix, limit)).changes


def all_changes(driver: Driver, kind: AnyKind, after: int, limit: int) -> list[Change]:
    """All pages, up to the head."""
    found: list[Change] = []
    while after < driver.space.revision:
        page = driver.run(driver.space.changes(kind, after, "", limit))
        assert page.revision > after
        found += page.changes
        after = page.revision
    return found


class SpaceConformance(ABC):
    """Inherit it in a class `Test…` and define `make_engine`. A durable engine inherits `DurableConformance`."""

    @abstractmethod
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        """An engine whose storage is in, or belongs to, `folder`: the same storage for the same folder."""

    @pytest.fixture
    def clock(self) -> FrozenClock:
        return FrozenClock()

    @pytest.fixture
    def make_driver(self, tmp_path: Path, clock: FrozenClock) -> Callable[[], Driver]:
        """Makes a space on the same storage each time."""
        return lambda: Driver(self.make_engine(tmp_path, clock).space())

    @pytest.fixture
    def driver(self, make_driver: Callable[[], Driver]) -> Iterator[Driver]:
        with make_driver() as driver:
            yield driver

    def test_a_new_store_is_empty_at_revision_zero(self, driver: Driver) -> None:
        assert (driver.space.revision, driver.values()) == (0, {})
        assert driver.space.fault is None

    def test_decide_sees_the_incarnation_of_the_store(self, driver: Driver) -> None:
        seen: list[str] = []

        def decide(view: View, _revision: int, _now: int) -> Sequence[Change]:
            seen.append(view.incarnation)
            return []

        driver.decide_and_commit(["a"], decide)
        assert re.fullmatch("[0-9a-f]{6}", driver.space.incarnation)
        assert seen == [driver.space.incarnation]

    def test_a_committed_entry_is_read_as_it_was_decided(self, driver: Driver, clock: FrozenClock) -> None:
        driver.put("username", b'"alice"', expires_at=clock.now + 1)
        assert driver.read("username") == Entry("username", b'"alice"', 1, clock.now, clock.now, clock.now + 1)

    def test_bytes_are_read_as_they_were_decided(self, driver: Driver, clock: FrozenClock) -> None:
        """Alone, beside JSON in one commit, over JSON, under JSON, and in lists and changes."""
        driver.put("alone", EVERY_BYTE, expires_at=clock.now + 1)
        assert driver.read("alone") == Entry("alone", EVERY_BYTE, 1, clock.now, clock.now, clock.now + 1)
        driver.commit(("empty", NO_BYTES), ("json", b"[-0.0]"), ("other", EVERY_BYTE))
        assert driver.values() == {"alone": EVERY_BYTE, "empty": NO_BYTES, "json": b"[-0.0]", "other": EVERY_BYTE}
        driver.commit(("json", EVERY_BYTE), ("other", b"1e300"), ("empty", b"null"), ("alone", None))
        assert driver.values() == {"empty": b"null", "json": EVERY_BYTE, "other": b"1e300"}
        driver.commit(("other", Binary("text/plain; charset=utf-8", Content(b"\xe9"))))
        changes = changes_of(driver, ENTRY, 4, "", 10)
        assert [change.value for change in changes if isinstance(change, Entry)] == [
            EVERY_BYTE,
            b"null",
            Binary("text/plain; charset=utf-8", Content(b"\xe9")),
        ]

    def test_bytes_are_seen_by_the_decision_of_the_next_commit(self, driver: Driver) -> None:
        driver.put("a", EVERY_BYTE)
        seen: list[Entry | None] = []

        def decide(view: View, _revision: int, _now: int) -> Sequence[Change]:
            seen.append(view.records(ENTRY).get("a"))
            return []

        driver.decide_and_commit(["a"], decide)
        assert [each and each.value for each in seen] == [EVERY_BYTE]

    def test_a_large_value_is_replaced_by_bytes_and_back(self, driver: Driver) -> None:
        """PostgreSQL writes only a part of a large document that was changed in one place."""
        large = b'{"a":"%b","b":1}' % (b"x" * 40_000)
        for value in (large, Binary("image/png", Content(large)), Binary("image/png", Content(large[:-1])), large):
            driver.commit(("a", value))
            assert driver.value("a") == value
        driver.commit(("a", large.replace(b'"b":1', b'"b":2')))
        assert driver.value("a") == large.replace(b'"b":1', b'"b":2')

    def test_a_missing_key_reads_as_none(self, driver: Driver) -> None:
        assert driver.read("username") is None

    def test_an_entry_cannot_be_read_from_the_microsecond_of_its_expiry(
        self, driver: Driver, clock: FrozenClock
    ) -> None:
        driver.put("a", expires_at=clock.now + 10)
        clock.now += 9
        assert driver.value("a") == b"1"
        clock.now += 1
        assert driver.read("a") is None
        assert driver.values() == {}

    def test_decide_sees_the_committed_state_the_head_and_the_time(self, driver: Driver, clock: FrozenClock) -> None:
        driver.put("a", b"1")
        seen: list[tuple[Value | None, bool, int, int]] = []

        def decide(view: View, revision: int, now: int) -> Sequence[Change]:
            entry = view.records(ENTRY).get("a")
            seen.append((None if entry is None else entry.value, view.records(ENTRY).get("b") is None, revision, now))
            return []

        assert driver.decide_and_commit(["a", "b"], decide) is None
        assert seen == [(b"1", True, 1, clock.now)]

    def test_decide_sees_an_expired_entry(self, driver: Driver, clock: FrozenClock) -> None:
        driver.put("a", expires_at=clock.now + 1)
        clock.now += 1
        seen: list[Entry | None] = []

        def decide(view: View, revision: int, now: int) -> Sequence[Change]:
            seen.append(view.records(ENTRY).get("a"))
            return []

        driver.decide_and_commit(["a"], decide)
        assert [entry and entry.key for entry in seen] == ["a"]

    def test_a_batch_without_changes_completes_and_keeps_the_head(self, driver: Driver) -> None:
        assert driver.decide_and_commit(["a"], lambda _view, _revision, _now: []) is None
        assert driver.space.revision == 0

    def test_a_batch_is_published_as_a_whole_and_moves_the_head(self, driver: Driver) -> None:
        driver.commit(("a", b"1"), ("b", b"2"), ("c", b"3"))
        driver.commit(("a", b"4"), ("b", None))
        assert (driver.space.revision, driver.values()) == (5, {"a": b"4", "c": b"3"})

    def test_a_batch_can_have_its_changes_in_any_order_of_revisions(self, driver: Driver, clock: FrozenClock) -> None:
        """A key changed twice keeps its first place in the batch with its last revision."""
        changes = [Entry("a", b"2", 3, clock.now, clock.now), Entry("b", b"1", 2, clock.now, clock.now)]
        driver.decide_and_commit(["a", "b"], lambda _view, _revision, _now: changes)
        assert driver.space.revision == 3
        assert changes_of(driver, ENTRY, 2, "", 10) == [changes[0]]

    def test_the_removal_of_a_missing_key_is_a_change_with_a_revision(self, driver: Driver) -> None:
        driver.commit(("a", None))
        assert (driver.space.revision, driver.values()) == (1, {})

    def test_nothing_is_visible_before_the_commit_is_done(self, driver: Driver) -> None:
        seen: list[int] = []

        async def commit_and_look() -> None:
            finished = asyncio.Event()

            def done(error: ServiceError | None) -> None:
                assert error is None
                seen.append(driver.space.revision)
                finished.set()

            def decide(_view: View, revision: int, now: int) -> Sequence[Change]:
                seen.append(driver.space.revision)
                return [Entry("a", b"1", revision + 1, now, now)]

            driver.space.commit(Touched({ENTRY: ["a"]}), decide, done)
            await finished.wait()

        driver.run(commit_and_look())
        assert seen == [0, 1]

    def test_a_commit_after_close_is_refused(self, driver: Driver) -> None:
        driver.run(driver.space.close())
        error = driver.try_commit(("a", b"1"))
        assert error is not None
        assert error.code == "unavailable"

    def test_open_and_close_may_be_repeated(self, driver: Driver) -> None:
        driver.run(driver.space.open())
        driver.put("a")
        driver.run(driver.space.close())
        driver.run(driver.space.close())

    # Lists --------------------------------------------------------------------------------------------------------

    def test_scan_is_in_the_order_of_utf8_bytes(self, driver: Driver) -> None:
        keys = ["z", "a", "é", "\U0001f600", "\uffee", "A", "a/b", "a0"]
        driver.commit(*((key, b"1") for key in keys))
        page = driver.run(driver.space.scan(ENTRY, "", None, 100))
        assert [entry.key for entry in page.records] == sorted(keys, key=str.encode)

    def test_scan_returns_consecutive_pages(self, driver: Driver) -> None:
        driver.commit(*((f"k{number}", b"1") for number in range(5)))
        keys, after = [], None
        for _ in range(3):
            page = driver.run(driver.space.scan(ENTRY, "", after, 2))
            keys.append([entry.key for entry in page.records])
            after = page.next_after
        assert (keys, after) == ([["k0", "k1"], ["k2", "k3"], ["k4"]], None)

    def test_the_page_with_the_last_entry_is_marked_as_the_last(self, driver: Driver) -> None:
        driver.commit(("a", b"1"), ("b", b"1"))
        assert driver.run(driver.space.scan(ENTRY, "", None, 2)).next_after is None

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
    def test_scan_returns_only_keys_with_the_prefix_and_after_the_given_key(
        self, driver: Driver, prefix: str, after: str | None, expected: list[str]
    ) -> None:
        driver.commit(*((key, b"1") for key in ("a", "b", "b/1", "b/2", "c")))
        page = driver.run(driver.space.scan(ENTRY, prefix, after, 100))
        assert [entry.key for entry in page.records] == expected

    def test_scan_leaves_out_expired_entries(self, driver: Driver, clock: FrozenClock) -> None:
        driver.commit(("a", b"1"), ("b", b"1"), expires_at=clock.now + 1)
        driver.put("c")
        clock.now += 1
        page = driver.run(driver.space.scan(ENTRY, "", None, 1))
        assert ([entry.key for entry in page.records], page.next_after) == (["c"], None)

    @pytest.fixture(scope="class")
    @classmethod
    def listed(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
        """A space with LISTED_KEYS and two entries that have expired, for all tests of lists that only read it."""
        clock = FrozenClock()
        with Driver(cls().make_engine(tmp_path_factory.mktemp("listed"), clock).space()) as driver:
            driver.commit(("b/0", b"1"), ("d", b"1"), expires_at=clock.now + 1)
            driver.commit(*((key, b"1") for key in LISTED_KEYS))
            clock.now += 1
            yield driver

    @pytest.mark.parametrize("is_reversed", [False, True])
    @pytest.mark.parametrize("prefix", ["", "b", "b/", "b/1", "x", "\U0010ffff", "b\0"])
    @pytest.mark.parametrize("after", [None, "", "a", "b", "b/1", "b/1\0", "b0", "c", "\U0010ffff", "\U0010ffff" * 128])
    def test_a_list_is_the_same_in_both_directions_and_in_pages_of_any_size(
        self, listed: Driver, prefix: str, after: str | None, *, is_reversed: bool
    ) -> None:
        expected = [key for key in LISTED_KEYS if key.startswith(prefix)]
        if after is not None:
            expected = [key for key in expected if (key < after if is_reversed else key > after)]
        if is_reversed:
            expected.reverse()
        for limit in (1, 2, 100):
            assert scanned(listed, prefix, after, limit, is_reversed=is_reversed) == expected
            assert sum(counted(listed, prefix, after, limit, is_reversed=is_reversed)) == len(expected)

    @pytest.mark.parametrize("is_reversed", [False, True])
    def test_a_part_of_a_list_is_counted_up_to_the_limit(self, driver: Driver, *, is_reversed: bool) -> None:
        driver.commit(*((f"k{number}", b"1") for number in range(5)))
        assert counted(driver, "k", None, 5, is_reversed=is_reversed)[0] == 5
        assert counted(driver, "k", None, 2, is_reversed=is_reversed) == [2, 2, 1]
        part = driver.run(driver.space.count(ENTRY, "", None, 3, is_reversed=is_reversed))
        assert (part.last, part.revision) == ("k2", 5)

    def test_locks_are_counted_and_listed_in_descending_order(self, driver: Driver, clock: FrozenClock) -> None:
        commit_leases(driver, *(lease(name, number, clock) for number, name in enumerate("abc", start=1)))
        page = driver.run(driver.space.scan(LEASE, "", "c", 10, is_reversed=True))
        assert [each.lock for each in page.records] == ["b", "a"]
        assert driver.run(driver.space.count(LEASE, "", "a", 10)).count == 2

    # Several records at one moment --------------------------------------------------------------------------------

    def test_several_records_are_read_in_the_order_of_their_names_without_missing_and_expired_ones(
        self, driver: Driver, clock: FrozenClock
    ) -> None:
        driver.commit(("old", b"1"), expires_at=clock.now + 1)
        driver.commit(("a", b"1"), ("b", b"2"), ("é", b"3"))
        clock.now += 1
        page = read_all(driver, ENTRY, ["é", "missing", "b", "old", "a", "b"])
        assert [(entry.key, entry.value) for entry in page.records] == [
            ("é", b"3"),
            ("b", b"2"),
            ("a", b"1"),
            ("b", b"2"),
        ]
        assert (page.revision, page.next_after) == (4, None)

    def test_several_records_of_none_that_exist_are_an_empty_page_at_the_head(
        self, driver: Driver, clock: FrozenClock
    ) -> None:
        commit_leases(driver, lease("l", 1, clock))
        for names in ([], ["l"]):
            page = read_all(driver, ENTRY, names)
            assert (page.records, page.revision) == ([], 1)
        assert read_all(driver, LEASE, ["m", "l"]).records == [lease("l", 1, clock)]

    def test_several_large_records_are_of_one_moment(self, driver: Driver) -> None:
        """An engine may read them in several queries."""
        names = [f"{number}" for number in range(6)]
        driver.commit(*((name, LARGE_VALUE) for name in names))
        removals = [Deletion(name, 7 + number) for number, name in enumerate(names)]

        async def read_while_others_write() -> list[Page[Entry]]:
            found: list[Page[Entry]] = []
            async with aclosing(driver.space.read_all(ENTRY, names)) as pages:
                async for page in pages:
                    if not found:
                        finished: asyncio.Future[ServiceError | None] = asyncio.get_running_loop().create_future()
                        driver.space.commit(Touched({ENTRY: names}), lambda *_: removals, finished.set_result)
                        assert await finished is None
                    found.append(page)
            return found

        pages = driver.run(read_while_others_write())
        assert [entry.key for page in pages for entry in page.records] == names
        assert {page.revision for page in pages} == {6}
        assert driver.values() == {}

    def test_a_reader_of_several_records_may_stop_early(self, driver: Driver) -> None:
        driver.commit(*((f"{number}", LARGE_VALUE) for number in range(6)))

        async def read_one_page() -> Page[Entry]:
            async with aclosing(driver.space.read_all(ENTRY, [f"{number}" for number in range(6)])) as pages:
                return await anext(pages)

        for _ in range(4):
            assert driver.run(read_one_page()).records[0].key == "0"
        driver.put("a")

    # Several changes of one revision ------------------------------------------------------------------------------

    def commit_together(self, driver: Driver, revision: int, *changes: tuple[str, bytes | None]) -> None:
        """Commit these entries, or removals, as one transaction does: all at one revision."""
        now = 1_769_860_800_000_000
        made: list[Change] = [
            Deletion(key, revision) if value is None else Entry(key, value, revision, now, now)
            for key, value in changes
        ]
        assert driver.decide_and_commit([key for key, _ in changes], lambda *_: made) is None
        assert driver.space.revision == revision

    def fill_with_transactions(self, driver: Driver) -> None:
        """Six revisions; each but the first and the last has several changes."""
        driver.put("a/first")
        self.commit_together(driver, 2, ("a/1", b"1"), ("b/1", b"1"), ("a/2", b"1"), ("b/2", b"1"), ("a/3", b"1"))
        self.commit_together(driver, 3, ("b/3", b"1"), ("b/4", b"1"), ("a/4", b"1"))
        self.commit_together(driver, 4, ("a/2", None), ("b/2", None), ("a/1", b"2"), ("c", None))
        self.commit_together(driver, 5, ("b/1", None), ("b/3", None), ("a/5", b"1"))
        driver.put("last")

    FILLED = (
        ("a/first", 1),
        ("a/3", 2),
        ("a/4", 3),
        ("b/4", 3),
        ("a/1", 4),
        ("a/2", 4),
        ("b/2", 4),
        ("c", 4),
        ("a/5", 5),
        ("b/1", 5),
        ("b/3", 5),
        ("last", 6),
    )
    """The latest change of each name after `fill_with_transactions`."""

    def check_pages(self, driver: Driver) -> None:
        """Each page has all changes up to its revision, for every limit and prefix."""
        for prefix in ("", "a/", "b/", "x"):
            expected = [each for each in self.FILLED if each[0].startswith(prefix)]
            for limit in range(1, len(self.FILLED) + 1):
                after, told = 0, []
                while after < driver.space.revision:
                    page = driver.run(driver.space.changes(ENTRY, after, prefix, limit))
                    told += sorted((change.name, change.revision) for change in page.changes)
                    told.sort(key=lambda each: (each[1], each[0]))
                    assert told == [each for each in expected if each[1] <= page.revision]
                    assert page.revision > after
                    after = page.revision
                assert told == expected

    def test_no_page_of_changes_ends_within_a_revision(self, driver: Driver) -> None:
        self.fill_with_transactions(driver)
        self.check_pages(driver)

    def test_changes_of_one_revision_are_published_together(self, driver: Driver) -> None:
        heard: list[tuple[int, Sequence[Change] | None]] = []
        driver.space.subscribe(ENTRY, lambda revision, changes: heard.append((revision, changes)))
        self.fill_with_transactions(driver)
        driver.settle()
        told = [(revision, len(changes)) for revision, changes in heard if changes is not None]
        assert told == [(1, 1), (2, 5), (3, 3), (4, 4), (5, 3), (6, 1)]

    def test_a_history_that_ends_within_no_revision_is_compacted_by_whole_revisions(
        self, make_driver: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(base, "HISTORY_CHANGES", 3)
        with make_driver() as driver:
            self.fill_with_transactions(driver)
            with pytest.raises(ServiceError) as caught:
                changes_of(driver, ENTRY, 2, "", 100)
            assert caught.value.code == "revision_compacted"
            told = sorted((change.revision, change.name) for change in changes_of(driver, ENTRY, 3, "", 100))
            assert told == [(revision, name) for name, revision in self.FILLED if revision > 3]

    # Changes ------------------------------------------------------------------------------------------------------

    def test_changes_are_the_latest_of_each_key_with_deletions(self, driver: Driver) -> None:
        driver.commit(("a", b"1"), ("b", b"1"), ("c", b"1"))
        driver.commit(("a", b"2"), ("b", None))
        changes = changes_of(driver, ENTRY, 0, "", 100)
        assert [(change.name, change.revision) for change in changes] == [("c", 3), ("a", 4), ("b", 5)]
        assert changes[-1] == Deletion("b", 5)

    def test_changes_are_limited_by_revision_prefix_and_limit(self, driver: Driver) -> None:
        driver.commit(("a/1", b"1"), ("b/1", b"1"), ("a/2", b"1"), ("a/3", b"1"))
        changes = changes_of(driver, ENTRY, 1, "a/", 1)
        assert [(change.name, change.revision) for change in changes] == [("a/2", 3)]

    def test_there_are_no_changes_after_the_head(self, driver: Driver) -> None:
        driver.put("a")
        assert changes_of(driver, ENTRY, 1, "", 100) == []

    def test_changes_are_read_page_by_page_up_to_the_head(self, driver: Driver) -> None:
        driver.commit(*((f"k{number}", b"1") for number in range(5)))
        driver.commit(("k1", b"2"), ("k3", None))
        pages = all_changes(driver, ENTRY, 0, 2)
        assert [(change.name, change.revision) for change in pages] == [
            ("k0", 1),
            ("k2", 3),
            ("k4", 5),
            ("k1", 6),
            ("k3", 7),
        ]

    def test_changes_of_one_revision_are_on_one_page(self, driver: Driver, clock: FrozenClock) -> None:
        together: list[Change] = [Entry(key, b"1", 2, clock.now, clock.now) for key in "abc"]
        driver.put("first")
        driver.decide_and_commit(["a", "b", "c"], lambda *_: together)
        driver.put("last")
        page = driver.run(driver.space.changes(ENTRY, 1, "", 1))
        assert (sorted(change.name for change in page.changes), page.revision) == (["a", "b", "c"], 2)
        assert [change.name for change in changes_of(driver, ENTRY, page.revision, "", 1)] == ["last"]

    def test_all_removals_of_one_revision_are_returned(self, driver: Driver) -> None:
        driver.commit(("a", b"1"), ("b", b"1"))
        driver.decide_and_commit(["a", "b"], lambda *_: [Deletion("a", 3), Deletion("b", 3)])
        assert sorted(changes_of(driver, ENTRY, 2, "", 1), key=lambda change: change.name) == [
            Deletion("a", 3),
            Deletion("b", 3),
        ]

    def test_a_key_that_was_removed_twice_is_returned_once(self, driver: Driver) -> None:
        driver.commit(("a", b"1"))
        driver.commit(("a", None))
        driver.commit(("a", None))
        assert changes_of(driver, ENTRY, 0, "", 10) == [Deletion("a", 3)]

    def test_a_key_that_was_removed_and_written_again_is_returned_as_written(
        self, driver: Driver, clock: FrozenClock
    ) -> None:
        driver.commit(("a", b"1"))
        driver.commit(("a", None))
        driver.commit(("a", b"2"))
        assert changes_of(driver, ENTRY, 0, "", 10) == [Entry("a", b"2", 3, clock.now, clock.now)]

    def test_changes_of_another_kind_are_not_returned(self, driver: Driver, clock: FrozenClock) -> None:
        driver.put("a")
        commit_leases(driver, lease("a", 2, clock))
        assert [change.revision for change in changes_of(driver, ENTRY, 0, "", 100)] == [1]
        assert changes_of(driver, LEASE, 0, "", 100) == [lease("a", 2, clock)]
        assert driver.run(driver.space.changes(ENTRY, 0, "", 100)).revision == 2

    def test_ends_of_leases_are_changes(self, driver: Driver, clock: FrozenClock) -> None:
        commit_leases(driver, lease("l", 1, clock), lease("m", 2, clock))
        commit_leases(driver, LeaseEnd("l", 3))
        assert changes_of(driver, LEASE, 0, "", 100) == [lease("m", 2, clock), LeaseEnd("l", 3)]

    def test_changes_before_the_history_are_refused(
        self, make_driver: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(base, "HISTORY_CHANGES", 3)
        with make_driver() as driver:
            driver.commit(*((f"k{number}", b"1") for number in range(5)))
            with pytest.raises(ServiceError) as caught:
                changes_of(driver, ENTRY, 1, "", 100)
            assert caught.value.code == "revision_compacted"
            assert len(changes_of(driver, ENTRY, 2, "", 100)) == 3

    # The feed -------------------------------------------------------------------------------------------------

    def test_subscribers_of_a_kind_get_its_changes_in_order(self, driver: Driver, clock: FrozenClock) -> None:
        heard: list[tuple[int, Sequence[Change] | None]] = []
        driver.space.subscribe(LEASE, lambda revision, changes: heard.append((revision, changes)))
        commit_leases(driver, lease("l", 1, clock), lease("m", 2, clock))
        driver.put("a")
        commit_leases(driver, LeaseEnd("l", 4))
        driver.settle()
        told = [(revision, list(changes)) for revision, changes in heard if changes is not None]
        assert told == [(2, [lease("l", 1, clock), lease("m", 2, clock)]), (4, [LeaseEnd("l", 4)])]

    def test_each_subscriber_gets_only_changes_of_its_kind(self, driver: Driver, clock: FrozenClock) -> None:
        heard: dict[AnyKind, list[Change]] = {kind: [] for kind in KINDS}

        def hear(kind: AnyKind, _revision: int, changes: Sequence[Change] | None) -> None:
            heard[kind].extend(changes or ())

        for kind in KINDS:
            driver.space.subscribe(kind, partial(hear, kind))
        entry = Entry("a", b"1", 1, clock.now, clock.now)
        both = (entry, lease("l", 2, clock))
        driver.decide_and_commit(Touched({ENTRY: ["a"], LEASE: ["l"]}), lambda *_: both)
        driver.settle()
        assert heard == {ENTRY: [entry], LEASE: [lease("l", 2, clock)], RECEIPT: []}

    def test_a_commit_is_visible_when_it_is_published(self, driver: Driver, clock: FrozenClock) -> None:
        seen: list[int] = []
        driver.space.subscribe(LEASE, lambda revision, _: seen.append(driver.space.revision - revision))
        commit_leases(driver, lease("l", 1, clock))
        driver.settle()
        assert seen
        assert set(seen) == {0}

    # Expiry -------------------------------------------------------------------------------------------------------

    def test_expired_returns_expired_names_in_order_of_expiry(self, driver: Driver, clock: FrozenClock) -> None:
        for key, seconds in (("late", 30), ("first", 10), ("second", 20)):
            driver.put(key, expires_at=clock.now + seconds)
        clock.now += 20
        assert expired(driver, ENTRY, 100) == ["first", "second"]
        assert expired(driver, ENTRY, 1) == ["first"]

    def test_expired_returns_a_key_until_it_is_removed(self, driver: Driver, clock: FrozenClock) -> None:
        driver.put("a", expires_at=clock.now)
        assert expired(driver, ENTRY, 100) == ["a"]
        assert expired(driver, ENTRY, 100) == ["a"]
        driver.commit(("a", None))
        assert expired(driver, ENTRY, 100) == []

    def test_an_entry_that_was_written_again_does_not_expire_at_its_old_time(
        self, driver: Driver, clock: FrozenClock
    ) -> None:
        driver.put("a", expires_at=clock.now + 1)
        driver.put("a")
        clock.now += 1
        assert expired(driver, ENTRY, 100) == []
        assert driver.value("a") == b"1"

    def test_old_expiries_of_an_entry_do_not_accumulate(self, driver: Driver, clock: FrozenClock) -> None:
        batch = [(f"k{number}", b"1") for number in range(100)]
        for seconds in range(30):
            driver.commit(*batch, expires_at=clock.now + 1 + seconds)
        clock.now += 29
        assert expired(driver, ENTRY, 1000) == []
        clock.now += 1
        assert sorted(expired(driver, ENTRY, 1000)) == sorted(key for key, _ in batch)

    # Receipts: a kind without a history ---------------------------------------------------------------------------

    def test_a_receipt_and_a_change_of_one_revision_are_committed_together(
        self, driver: Driver, clock: FrozenClock
    ) -> None:
        kept = receipt("r", 1, clock.now + 10)
        entry = Entry("a", b"1", 1, clock.now, clock.now)
        seen: list[Receipt | None] = []

        def decide(view: View, _revision: int, _now: int) -> Sequence[Change]:
            seen.append(view.records(RECEIPT).get("r"))
            return [] if len(seen) > 1 else [entry, kept]

        for _ in range(2):
            assert driver.decide_and_commit(Touched({ENTRY: ["a"], RECEIPT: ["r"]}), decide) is None
        assert seen == [None, kept]
        assert (driver.read("a"), driver.space.revision) == (entry, 1)

    def test_a_kind_without_a_history_knows_no_changes_before_the_head(
        self, driver: Driver, clock: FrozenClock
    ) -> None:
        commit_receipts(driver, receipt("r", 1, clock.now + 10))
        driver.put("a")
        with pytest.raises(ServiceError) as caught:
            driver.run(driver.space.changes(RECEIPT, 1, "", 10))
        assert (caught.value.code, caught.value.details) == ("revision_compacted", {"oldest": 2})
        assert changes_of(driver, RECEIPT, 2, "", 10) == []
        commit_receipts(driver, ReceiptEnd("r", 3), receipt("s", 3, clock.now + 10))
        assert changes_of(driver, RECEIPT, 3, "", 10) == []

    def test_its_changes_do_not_appear_among_those_of_other_kinds(self, driver: Driver, clock: FrozenClock) -> None:
        driver.put("a")
        commit_receipts(driver, receipt("r", 2, clock.now + 10))
        commit_receipts(driver, ReceiptEnd("r", 3))
        driver.put("b")
        assert [change.name for change in all_changes(driver, ENTRY, 0, 10)] == ["a", "b"]
        assert all_changes(driver, LEASE, 0, 10) == []

    def test_expired_receipts_are_named_the_earliest_first(self, driver: Driver, clock: FrozenClock) -> None:
        commit_receipts(driver, *(receipt(f"r{number}", 1, clock.now + 9 - number) for number in range(3)))
        clock.now += 8
        assert expired(driver, RECEIPT, 100) == ["r2", "r1"]

    def test_surplus_records_are_named_the_earliest_first(self, driver: Driver, clock: FrozenClock) -> None:
        commit_receipts(driver, *(receipt(f"r{number}", 1, clock.now + 9 - number) for number in range(5)))
        assert surplus(driver, 2) == ["r4", "r3", "r2"]

    def test_nothing_is_surplus_up_to_the_number(self, driver: Driver, clock: FrozenClock) -> None:
        commit_receipts(driver, *(receipt(f"r{number}", 1, clock.now + number) for number in range(3)))
        assert surplus(driver, 3) == []

    def test_at_most_the_limit_of_surplus_records_is_named(self, driver: Driver, clock: FrozenClock) -> None:
        commit_receipts(driver, *(receipt(f"r{number}", 1, clock.now + number) for number in range(5)))
        assert surplus(driver, 0, limit=2) == ["r0", "r1"]
        commit_receipts(driver, ReceiptEnd("r0", 2), ReceiptEnd("r1", 2))
        assert surplus(driver, 0, limit=2) == ["r2", "r3"]

    def test_records_are_surplus_if_they_are_too_large_together(self, driver: Driver, clock: FrozenClock) -> None:
        commit_receipts(driver, *(receipt(f"r{number}", 1, clock.now + number, size=20_000) for number in range(5)))
        assert surplus(driver, 100, most_bytes=45_000) == ["r0", "r1", "r2"]

    # Leases -------------------------------------------------------------------------------------------------------

    def test_a_committed_lease_is_read_as_it_was_decided(self, driver: Driver, clock: FrozenClock) -> None:
        kept = lease("jobs/nightly", 1, clock)
        commit_leases(driver, kept)
        assert driver.read_lease("jobs/nightly") == kept
        assert driver.read_lease("jobs") is None
        assert driver.space.revision == 1

    def test_a_lease_is_not_alive_from_the_microsecond_of_its_expiry(self, driver: Driver, clock: FrozenClock) -> None:
        commit_leases(driver, lease("l", 1, clock, seconds=1))
        clock.now += 999_999
        assert locks_held(driver) == ["l"]
        clock.now += 1
        assert locks_held(driver) == []
        assert driver.read_lease("l") is None

    def test_decide_sees_leases_by_lock_and_by_id_even_if_they_have_expired(
        self, driver: Driver, clock: FrozenClock
    ) -> None:
        kept = [lease("l", 1, clock, seconds=1), lease("m", 2, clock)]
        commit_leases(driver, *kept)
        clock.now += 5_000_000
        seen: list[Lease | None] = []

        def decide(view: View, _revision: int, _now: int) -> Sequence[Change]:
            seen[:] = [
                view.records(LEASE).get("l"),
                view.records(LEASE).get("n"),
                view.found(LEASE).get("id-of-m"),
                view.found(LEASE).get("id-of-n"),
            ]
            return []

        driver.decide_and_commit(Touched({LEASE: ["l", "n"]}, {LEASE: ["id-of-m", "id-of-n"]}), decide)
        assert seen == [kept[0], None, kept[1], None]

    def test_a_lease_that_was_replaced_is_not_found_by_its_id_any_more(
        self, driver: Driver, clock: FrozenClock
    ) -> None:
        commit_leases(driver, lease("l", 1, clock, lease_id="old"))
        commit_leases(driver, lease("l", 2, clock, lease_id="new"))
        seen: list[Lease | None] = []

        def decide(view: View, _revision: int, _now: int) -> Sequence[Change]:
            seen[:] = [view.found(LEASE).get("old"), view.found(LEASE).get("new")]
            return []

        driver.decide_and_commit(Touched({}, {LEASE: ["old", "new"]}), decide)
        assert seen == [None, lease("l", 2, clock, lease_id="new")]

    def test_entries_and_leases_of_one_batch_are_committed_together(self, driver: Driver, clock: FrozenClock) -> None:
        changes = (
            Entry("a", b"1", 1, clock.now, clock.now),
            lease("a", 2, clock),
            Entry("b", b"1", 3, clock.now, clock.now),
        )
        assert driver.decide_and_commit(Touched({ENTRY: ["a", "b"], LEASE: ["a"]}), lambda *_: changes) is None
        assert (driver.space.revision, driver.values(), locks_held(driver)) == (3, {"a": b"1", "b": b"1"}, ["a"])

    def test_an_end_of_a_lease_is_a_change(self, driver: Driver, clock: FrozenClock) -> None:
        commit_leases(driver, lease("l", 1, clock))
        commit_leases(driver, LeaseEnd("l", 2))
        assert (driver.space.revision, locks_held(driver)) == (2, [])

    def test_locks_are_listed_by_prefix_in_the_order_of_utf8_bytes_page_by_page(
        self, driver: Driver, clock: FrozenClock
    ) -> None:
        names = ["a", "job/1", "job/\U0001f600", "job/\uffee", "job/2", "jobs", "z"]
        commit_leases(driver, *(lease(name, number, clock) for number, name in enumerate(names, start=1)))
        first = driver.run(driver.space.scan(LEASE, "job/", None, 3))
        rest = driver.run(driver.space.scan(LEASE, "job/", first.next_after, 3))
        assert [each.lock for each in (*first.records, *rest.records)] == [
            "job/1",
            "job/2",
            "job/\uffee",
            "job/\U0001f600",
        ]
        assert (first.revision, first.next_after, rest.next_after) == (7, "job/\uffee", None)

    def test_expired_returns_leases_in_order_of_expiry_until_they_are_removed(
        self, driver: Driver, clock: FrozenClock
    ) -> None:
        commit_leases(
            driver,
            lease("late", 1, clock, seconds=3),
            lease("first", 2, clock, seconds=1),
            lease("second", 3, clock, seconds=2),
        )
        clock.now += 2_000_000
        assert expired(driver, LEASE, 100) == ["first", "second"]
        assert expired(driver, LEASE, 1) == ["first"]
        commit_leases(driver, LeaseEnd("first", 4))
        assert expired(driver, LEASE, 100) == ["second"]

    def test_a_lease_that_was_renewed_often_does_not_expire_at_an_old_time(
        self, driver: Driver, clock: FrozenClock
    ) -> None:
        for number in range(1, 30):
            commit_leases(driver, replace(lease("l", number, clock, seconds=number), token=1))
        clock.now += 28_000_000
        assert expired(driver, LEASE, 100) == []
        assert locks_held(driver) == ["l"]

    # Restart ------------------------------------------------------------------------------------------------------


class DurableConformance(SpaceConformance):
    """The tests of SpaceConformance and those of a restart."""

    def test_the_incarnation_is_the_same_after_a_restart(self, make_driver: Callable[[], Driver]) -> None:
        with make_driver() as driver:
            incarnation = driver.space.incarnation
            driver.put("a")
        with make_driver() as driver:
            assert driver.space.incarnation == incarnation

    def test_leases_are_there_after_a_restart_with_their_times_and_tokens(
        self, make_driver: Callable[[], Driver], clock: FrozenClock
    ) -> None:
        kept = [lease("l", 2, clock), replace(lease("m", 4, clock), token=3)]
        with make_driver() as driver:
            driver.put("a")
            commit_leases(driver, *kept, lease("gone", 5, clock))
            commit_leases(driver, LeaseEnd("gone", 6))
        with make_driver() as driver:
            assert driver.run(driver.space.scan(LEASE, "", None, 100)).records == kept
            assert driver.space.revision == 6

    def test_receipts_are_there_after_a_restart(self, make_driver: Callable[[], Driver], clock: FrozenClock) -> None:
        kept = [receipt("r", 1, clock.now + 10), receipt("s", 1, clock.now + 20)]
        with make_driver() as driver:
            commit_receipts(driver, *kept, receipt("gone", 1, clock.now + 30))
            commit_receipts(driver, ReceiptEnd("gone", 2))
        with make_driver() as driver:
            assert driver.run(driver.space.scan(RECEIPT, "", None, 100)).records == kept
            assert (driver.space.revision, driver.values()) == (2, {})
            clock.now += 15
            assert expired(driver, RECEIPT, 10) == ["r"]

    def test_committed_entries_are_there_after_a_restart(
        self, make_driver: Callable[[], Driver], clock: FrozenClock
    ) -> None:
        with make_driver() as driver:
            driver.put("a", b'{"b":["\xc3\xa9",1.5,null]}', expires_at=clock.now + 5)
            driver.commit(("b", b"1"), ("c", b"2"), ("b", None))
            driver.commit(("d", EVERY_BYTE), ("e", NO_BYTES))
            before = driver.run(driver.space.scan(ENTRY, "", None, 100))
        with make_driver() as driver:
            assert driver.run(driver.space.scan(ENTRY, "", None, 100)) == before
            assert driver.space.revision == 6
            assert driver.values() | {"d": EVERY_BYTE, "e": NO_BYTES} == driver.values()

    def test_the_head_does_not_go_back_when_everything_is_removed(self, make_driver: Callable[[], Driver]) -> None:
        with make_driver() as driver:
            driver.put("a")
            driver.commit(("a", None))
        with make_driver() as driver:
            assert (driver.space.revision, driver.values()) == (2, {})

    def test_an_entry_still_expires_after_a_restart(
        self, make_driver: Callable[[], Driver], clock: FrozenClock
    ) -> None:
        with make_driver() as driver:
            driver.put("a", expires_at=clock.now + 1)
        clock.now += 1
        with make_driver() as driver:
            assert expired(driver, ENTRY, 100) == ["a"]

    def test_changes_from_before_a_restart_are_returned_after_it(
        self, make_driver: Callable[[], Driver], clock: FrozenClock
    ) -> None:
        with make_driver() as driver:
            driver.commit(("a", b"1"), ("b", b"1"), ("c", b"1"))
            commit_leases(driver, lease("l", 4, clock), lease("m", 5, clock))
            driver.commit(("b", None))
            commit_leases(driver, LeaseEnd("m", 7))
        with make_driver() as driver:
            assert [(change.name, change.revision) for change in changes_of(driver, ENTRY, 0, "", 10)] == [
                ("a", 1),
                ("c", 3),
                ("b", 6),
            ]
            assert changes_of(driver, ENTRY, 5, "", 10) == [Deletion("b", 6)]
            assert changes_of(driver, LEASE, 0, "", 10) == [lease("l", 4, clock), LeaseEnd("m", 7)]
            driver.commit(("b", b"2"))
            assert [change.revision for change in changes_of(driver, ENTRY, 5, "", 10)] == [8]

    def test_revisions_with_several_changes_are_the_same_after_restarts(
        self, make_driver: Callable[[], Driver]
    ) -> None:
        with make_driver() as driver:
            self.fill_with_transactions(driver)
            before = driver.run(driver.space.scan(ENTRY, "", None, 100))
        for _ in range(2):
            with make_driver() as driver:
                assert driver.run(driver.space.scan(ENTRY, "", None, 100)) == before
                self.check_pages(driver)
        with make_driver() as driver:
            self.commit_together(driver, 7, ("a/1", None), ("a/3", b"2"))

    def test_a_removal_is_returned_after_several_restarts(self, make_driver: Callable[[], Driver]) -> None:
        with make_driver() as driver:
            driver.commit(("a", b"1"))
            driver.commit(("a", None))
        for _ in range(3):
            with make_driver() as driver:
                assert changes_of(driver, ENTRY, 1, "", 10) == [Deletion("a", 2)]
