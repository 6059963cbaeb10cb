"""Changes on PostgreSQL: complete revisions, the cost of a page, and restarts."""

import json
from collections.abc import Iterator, Sequence
from itertools import count

import pytest
from databases import Database, run, shared_server_url
from driving import Driver

from leasehold.engines import base
from leasehold.engines.postgres import record_statements, space
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.engines.postgres.links import Address
from leasehold.errors import ServiceError
from leasehold.model import (
    ENTRY,
    KIND_OF,
    LEASE,
    RECEIPT,
    AnyKind,
    Change,
    Changes,
    Deletion,
    Entry,
    Lease,
    LeaseEnd,
    Memo,
    Receipt,
    ReceiptEnd,
    Released,
    Touched,
    encode_memo,
)
from leasehold.namespaces import DEFAULT_NAMESPACE

_numbers = count(1)
HISTORY = 100_000


@pytest.fixture
def database() -> Database:
    return Database(shared_server_url(), f"changes_{next(_numbers)}").create()


@pytest.fixture
def driver(database: Database) -> Iterator[Driver]:
    with Driver(PostgresEngine(database.url).space()) as driver:
        yield driver


def at_one_revision(*changes: Change) -> Sequence[Change]:
    """All changes of a transaction have one revision."""
    assert len({change.revision for change in changes}) == 1
    return changes


def commit(driver: Driver, *changes: Change) -> None:
    names: dict[AnyKind, list[str]] = {ENTRY: [], LEASE: [], RECEIPT: []}
    for change in changes:
        names[KIND_OF[type(change)]].append(change.name)
    assert driver.decide_and_commit(Touched(names), lambda *_: changes) is None


def entry(key: str, revision: int) -> Entry:
    return Entry(key, b"1", revision, 1, 1)


def lease(lock: str, revision: int) -> Lease:
    return Lease(lock, f"of {lock}", revision, revision, 1, 2**50, 1, "", b"null")


def receipt(request: str, revision: int) -> Receipt:
    return Receipt(request, encode_memo(Memo(b"12345678", Released("l", revision))), revision, 2**50)


def changes(driver: Driver, kind: AnyKind, after: int, limit: int, prefix: str = "") -> Changes:
    return driver.run(driver.space.changes(kind, after, prefix, limit))


def facts(found: Changes) -> tuple[list[tuple[str, int, bool]], int]:
    return [(each.name, each.revision, isinstance(each, Entry | Lease)) for each in found.changes], found.revision


def test_several_removals_and_records_can_have_the_same_revision(driver: Driver) -> None:
    commit(driver, *at_one_revision(*(entry(key, 1) for key in "abc"), lease("a", 1)))
    commit(driver, *at_one_revision(Deletion("a", 2), Deletion("b", 2), entry("d", 2), LeaseEnd("a", 2)))
    assert facts(changes(driver, ENTRY, 0, 10))[1] == 2
    assert sorted(facts(changes(driver, ENTRY, 0, 10))[0]) == [
        ("a", 2, False),
        ("b", 2, False),
        ("c", 1, True),
        ("d", 2, True),
    ]
    assert facts(changes(driver, LEASE, 0, 10)) == ([("a", 2, False)], 2)


@pytest.mark.parametrize("limit", range(1, 9))
def test_a_page_has_all_changes_of_a_revision_for_any_limit(driver: Driver, limit: int) -> None:
    for revision in range(1, 6):
        commit(driver, *at_one_revision(*(entry(f"{revision}/{number}", revision) for number in range(3))))
        commit(driver, *at_one_revision(*(Deletion(f"{revision}/{number}", revision) for number in (0, 3))))
    commit(driver, lease("l", 6))
    found: list[Change] = []
    after = 0
    while after < 6:
        page = changes(driver, ENTRY, after, limit)
        assert page.revision > after
        assert all(after < change.revision <= page.revision for change in page.changes)
        found += page.changes
        after = page.revision
        assert len(page.changes) < limit + 4
    by_revision = {revision: [c.name for c in found if c.revision == revision] for revision in range(1, 6)}
    assert {revision: len(names) for revision, names in by_revision.items()} == dict.fromkeys(range(1, 6), 4)
    assert len({change.name for change in found}) == len(found) == 20


def test_the_last_page_of_changes_ends_at_the_head(driver: Driver) -> None:
    commit(driver, entry("a", 1), entry("b", 2))
    commit(driver, lease("l", 3))
    assert changes(driver, ENTRY, 0, 2).revision == 3
    assert changes(driver, ENTRY, 0, 1).revision == 1
    assert facts(changes(driver, ENTRY, 3, 1)) == ([], 3)
    assert facts(changes(driver, ENTRY, 0, 10, "c")) == ([], 3)


def test_receipts_are_in_no_batch_and_do_not_interrupt_the_changes_of_others(
    driver: Driver, database: Database
) -> None:
    """After a commit of receipts alone, the changes are still read from `batches`, not from whole tables."""
    commit(driver, entry("a", 1), receipt("r", 1))
    commit(driver, receipt("s", 2))
    commit(driver, ReceiptEnd("r", 3))
    rows = database.fetch("SELECT kind, revision, names FROM batches WHERE cardinality(names) > 0")
    assert [tuple(row) for row in rows] == [("entry", 1, ["a"])]
    assert database.fetch("SELECT count(*) FROM deletions")[0][0] == 0

    def is_complete(after: int) -> object:
        return database.fetch(record_statements.OF_KIND[ENTRY].changes, DEFAULT_NAMESPACE, after, "", 10, 11)[0][2]

    assert [is_complete(after) for after in range(4)] == [True] * 4
    commit(driver, entry("b", 4))
    assert [is_complete(after) for after in range(5)] == [True] * 5
    assert facts(changes(driver, ENTRY, 0, 10)) == ([("a", 1, True), ("b", 4, True)], 4)
    assert facts(changes(driver, LEASE, 0, 10)) == ([], 4)


def test_superseded_removals_are_skipped_and_all_other_changes_are_returned(driver: Driver) -> None:
    """The removal of a key that was written again is skipped."""
    commit(driver, *(entry(f"k{number}", number) for number in range(1, 10)))
    commit(driver, *(Deletion(f"k{number}", 10 + number) for number in range(1, 10)))
    commit(driver, *(entry(f"k{number}", 20 + number) for number in range(1, 9)))
    found, after = [], 0
    while after < 28:
        page = changes(driver, ENTRY, after, 2)
        found += facts(page)[0]
        after = page.revision
    assert found == [("k9", 19, False), *((f"k{number}", 20 + number, True) for number in range(1, 9))]


def test_the_changes_of_a_rare_prefix_are_read_in_parts_with_growing_revisions(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "SCANNED_CHANGES", 10)
    for begin in range(1, 101, 5):
        commit(
            driver, *(entry("b/1" if number == 100 else f"a/{number}", number) for number in range(begin, begin + 5))
        )
    found, after = [], 0
    revisions = []
    while after < 100:
        page = changes(driver, ENTRY, after, 1, "b/")
        found += facts(page)[0]
        revisions.append(after := page.revision)
    assert found == [("b/1", 100, True)]
    assert revisions == sorted(set(revisions))
    assert len(revisions) == 10


def test_only_the_last_removal_of_a_name_is_stored(driver: Driver, database: Database) -> None:
    for number in range(5):
        commit(driver, lease("l", 2 * number + 1))
        commit(driver, LeaseEnd("l", 2 * number + 2))
    commit(driver, Deletion("l", 11))
    rows = database.fetch("SELECT kind, key, revision FROM deletions ORDER BY kind")
    assert [tuple(row) for row in rows] == [("entry", "l", 11), ("lease", "l", 10)]
    assert facts(changes(driver, LEASE, 3, 10)) == ([("l", 10, False)], 11)


def stored_removals(database: Database) -> int:
    number = database.fetch("SELECT count(*) FROM deletions")[0][0]
    assert isinstance(number, int)
    return number


def test_removals_of_large_transactions_are_bounded_in_number(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each revision has 64 of them. What is known is complete, and a reader that is too far behind is told so."""
    monkeypatch.setattr(base, "HISTORY_CHANGES", 500)
    for begin in (1, 61):
        with Driver(PostgresEngine(database.url).space()) as driver:
            for revision in range(begin, begin + 60):
                commit(driver, *at_one_revision(*(Deletion(f"{revision}/{number}", revision) for number in range(64))))
                assert stored_removals(database) <= 1_000 + 2 * 64
            head = begin + 59
            oldest = oldest_known(driver, head)
            assert 1_000 - 2 * 64 <= 64 * (head - oldest) <= 1_000
            found = facts(changes(driver, ENTRY, oldest, 10_000))[0]
            assert sorted(found) == sorted(
                (f"{revision}/{number}", revision, False)
                for revision in range(oldest + 1, head + 1)
                for number in range(64)
            )


def oldest_known(driver: Driver, head: int) -> int:
    """The revision that the refusal of an old one names."""
    with pytest.raises(ServiceError) as caught:
        changes(driver, ENTRY, 1, 1)
    assert caught.value.code == "revision_compacted"
    oldest = caught.value.details["oldest"]
    assert isinstance(oldest, int)
    assert oldest < head
    return oldest


def test_removals_that_were_stored_without_a_bound_are_removed_in_steps(
    driver: Driver, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "HISTORY_CHANGES", 100)
    database.execute(
        "INSERT INTO deletions (namespace, kind, key, revision)"
        "  SELECT 'default', 'entry', 'k' || number, 1 + number / 50 FROM generate_series(1, 1000) AS number;"
        "UPDATE head SET revision = 50"
    )
    numbers = []
    for revision in range(51, 151):
        commit(driver, *at_one_revision(*(Deletion(f"{revision}/{number}", revision) for number in range(10))))
        numbers.append(stored_removals(database))
    assert max(numbers) <= 1_010
    assert numbers[0] > 900
    assert numbers[-1] <= 200 + 20


def test_changes_are_known_after_a_restart(database: Database) -> None:
    for revision in (1, 3):
        with Driver(PostgresEngine(database.url).space()) as driver:
            commit(driver, entry("a", revision), lease("l", revision))
            commit(driver, Deletion("a", revision + 1), LeaseEnd("l", revision + 1))
    with Driver(PostgresEngine(database.url).space()) as driver:
        assert facts(changes(driver, ENTRY, 1, 10)) == ([("a", 4, False)], 4)
        assert facts(changes(driver, LEASE, 1, 10)) == ([("l", 4, False)], 4)


def test_a_page_of_many_changes_reads_only_its_part_of_the_tables(driver: Driver, database: Database) -> None:
    """The tables have 100,000 entries, and as many removals of each kind."""
    database.execute(
        f"INSERT INTO deletions (namespace, kind, key, revision)"
        f"  SELECT 'default', kind, 'k' || number, number"
        f"  FROM generate_series(1, {HISTORY}) AS number, unnest('{{entry,lease}}'::text[]) AS kind;"
        f"INSERT INTO data SELECT 'default', 'e' || number, '1', NULL, number, now(), now(), NULL"
        f"  FROM generate_series(1, {HISTORY}) AS number;"
        f"INSERT INTO batches SELECT 'default', kind, number, 0, ARRAY['k' || number, 'e' || number]"
        f"  FROM generate_series(1, {HISTORY}) AS number, unnest('{{entry,lease}}'::text[]) AS kind;"
        f"UPDATE head SET revision = {HISTORY}; ANALYZE"
    )

    async def plan(kind: AnyKind) -> list[dict[str, object]]:
        connection = await Address(database.url).connect()
        await connection.execute(
            f"PREPARE changes (text, bigint, text, bigint, bigint) AS {record_statements.OF_KIND[kind].changes}"
        )
        rows = await connection.fetch(
            "EXPLAIN (ANALYZE, BUFFERS OFF, FORMAT JSON) EXECUTE changes ('default', 1000, '', 101, 101)"
        )
        await connection.close()
        return list(nodes(json.loads(rows[0][0])[0]["Plan"]))

    for kind in (ENTRY, LEASE):
        scans = [node for node in run(plan(kind)) if "Relation Name" in node]
        assert {str(node["Node Type"]) for node in scans} <= {"Index Scan", "Index Only Scan"}, scans
        read = sum(int(str(node["Actual Loops"])) * (1 + float(str(node["Actual Rows"]))) for node in scans)
        assert read < 1_000, scans
    found = changes(driver, ENTRY, 1000, 100)
    assert (len(found.changes), found.revision) == (100, 1050)


def nodes(plan: dict[str, object]) -> Iterator[dict[str, object]]:
    yield plan
    plans = plan.get("Plans", [])
    assert isinstance(plans, list)
    for each in plans:
        yield from nodes(each)
