"""Moves between engines: what goes along, what is refused, and what a killed move leaves."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec
import pytest
from databases import opened, run
from driving import INCARNATION, Driver, FrozenClock, file_driver
from harness.contents import in_memory, random_batch
from moving import (
    IN_USE,
    KILLED,
    MOVED,
    NOW,
    STORES,
    WAS_COMPLETE,
    Ask,
    asking,
    every_source,
    every_target,
    has_tables,
    in_store_of,
    killed_moves,
    made_database,
    moved,
    new_database,
    new_file,
    new_with_tables,
    refused,
)
from store_files import files

from leasehold.engines import open_engine
from leasehold.engines.file import moves as in_files
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.recovery import inspect
from leasehold.engines.moves import Head, RemovedName, form_of, move
from leasehold.engines.postgres import moves as in_database
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.engines.postgres.lists import PAGE_WEIGHT
from leasehold.engines.state import Description
from leasehold.errors import ServiceError
from leasehold.model import (
    ENTRY,
    KINDS,
    LEASE,
    AnyKind,
    Binary,
    Change,
    Content,
    DeletedEntries,
    Entry,
    Lease,
    Memo,
    Receipt,
    Record,
    Touched,
    Value,
    encode_memo,
    is_removal,
)
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.progress import Progress

EARLY: Final = 1
"""A time at which nothing has expired."""
VALUES: tuple[Value, ...] = (
    *(Binary("image/png", Content(range(256))), Binary("text/plain; charset=utf-8", Content())),
    *(b"null", b"-0.0", b"1e300", b"18446744073709551615", b"[]", b'{"b":1,"a":[{"d":1.50,"c":-0.0}]}', b"true"),
    '"🦊 \u2028 \\u0001 \\\\"'.encode(),
)


@contextmanager
def driving(store: str) -> Iterator[Driver]:
    """A space whose clock stands before any expiry."""
    if Path(store).suffix == ".json":
        with file_driver(Path(store).parent, clock=FrozenClock(EARLY)) as driver:
            yield driver
    else:
        with Driver(PostgresEngine(store, clock=FrozenClock(EARLY)).space()) as driver:
            yield driver


@dataclass(frozen=True)
class Observed:
    """All that readers can find out about a store."""

    revision: int
    incarnation: str
    records: Mapping[str, Sequence[object]]
    changes: Mapping[tuple[str, int], object]
    """By the kind, and the revision after which they were read: a list, or the error."""


def observed(store: str) -> Observed:
    with driving(store) as driver:
        space = driver.space
        records: dict[str, Sequence[object]] = {}
        changes: dict[tuple[str, int], object] = {}
        for kind in KINDS:
            page = driver.run(space.scan(kind, "", None, 10_000))
            records[kind.name] = [comparable(record) for record in page.records]
            for after in (*range(0, space.revision, 7), space.revision):
                changes[kind.name, after] = changes_after(driver, kind, after)
        return Observed(space.revision, space.incarnation, records, changes)


def changes_after(driver: Driver, kind: AnyKind, after: int) -> object:
    try:
        found = driver.run(driver.space.changes(kind, after, "", 10_000))
    except ServiceError as error:
        return error.code, error.details
    return found.revision, sorted((each.revision, each.name, is_removal(each)) for each in found.changes)


def comparable(record: object) -> object:
    """With the value decoded, because JSONB does not keep the order of members."""
    fields = list(msgspec.structs.astuple(record))  # type: ignore[arg-type] # a record
    if isinstance(record, Receipt):
        return fields
    return [repr(msgspec.json.decode(field)) if type(field) is bytes else field for field in fields]


def fill(store: str, seed: int) -> None:
    """A file with random changes, some of them in its journal, and all kinds of values, some of which have expired."""
    rng = random.Random(seed)
    driver = file_driver(Path(store).parent).__enter__()
    try:
        for _ in range(40):
            contents = in_memory(driver)
            changes = random_batch(rng, contents, NOW, most=6)
            driver.decide_and_commit([change.name for change in changes], lambda *_, c=changes: c)
        driver.commit(*((f"größe/{number}", value) for number, value in enumerate(VALUES)))
        driver.commit(("gone", b"1"), ("large", b'"' + b"x" * 300_000 + b'"'))
        driver.commit(("gone", None), ("expired", b"1"), expires_at=NOW - 1)
        driver.decide_and_commit([], lambda _view, revision, now: receipts_after(revision, now))
    finally:
        driver.kill()


def receipts_after(revision: int, now: int) -> Sequence[Change]:
    """At the head, so that no change of which the history knows is there."""
    memo = encode_memo(Memo(b"12345678", DeletedEntries(3, 1)))
    return [Receipt(f"digest-{number}", memo, revision + 1, now + 10**15) for number in range(5)]


def filled(kind: str, folder: Path, seed: int) -> str:
    store = new_file(folder)
    fill(store, seed)
    return in_store_of(kind, folder, store)


# What goes along ----------------------------------------------------------------------------------------------


@every_target
@every_source
def test_a_moved_store_differs_in_nothing(
    source_kind: str, target_kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, size in (
        (in_database, "PAGE_RECORDS", 7),
        (in_database, "PAGE_REMOVALS", 2),
        (in_files, "PAGE_RECORDS", 3),
    ):
        monkeypatch.setattr(module, name, size)
    original = new_file(tmp_path)
    fill(original, seed=1)
    expected = observed(original)
    source = original
    if source_kind == "postgres":
        source = new_database(tmp_path)
        moved(original, source)
    target = STORES[target_kind](tmp_path)
    assert not moved(source, target)
    assert expected.incarnation == INCARNATION
    assert "True" in str(expected.changes["entry", 0])  # a removal
    assert observed(target) == expected
    assert observed(source) == expected


def test_a_store_whose_history_is_compacted_knows_as_little_after_a_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leasehold.engines.base.HISTORY_CHANGES", 30)
    source = new_file(tmp_path)
    fill(source, seed=2)
    expected = observed(source)
    assert expected.changes["entry", 0] == ("revision_compacted", {"oldest": expected.revision - 30})
    in_between, target = new_database(tmp_path), new_file(tmp_path)
    moved(source, in_between)
    assert observed(in_between) == expected
    moved(in_between, target)
    assert observed(target) == expected


@every_target
@every_source
def test_a_store_without_a_change_at_its_head_can_be_moved(source_kind: str, target_kind: str, tmp_path: Path) -> None:
    """A restore and `advance` leave such a store."""
    original = new_file(tmp_path)
    Path(original).write_bytes(
        b'{"leasehold": 1, "incarnation": "abcdef", "revision": 9, "entries": [\n], "compacted_revision": 7}\n'
    )
    source, target = original, STORES[target_kind](tmp_path)
    if source_kind == "postgres":
        source = new_database(tmp_path)
        moved(original, source)
    moved(source, target)
    assert observed(target) == observed(original)


@every_target
def test_a_store_of_version_0_1_0_gets_an_incarnation(target_kind: str, tmp_path: Path) -> None:
    source, target = new_file(tmp_path), STORES[target_kind](tmp_path)
    Path(source).write_bytes(b'{"leasehold": 1, "revision": 9, "entries": [\n]}\n')
    moved(source, target)
    assert len(observed(target).incarnation) == 6


@every_target
@every_source
def test_an_old_lease_and_the_next_token_are_those_of_one_store(
    source_kind: str, target_kind: str, tmp_path: Path
) -> None:
    source, target = filled(source_kind, tmp_path, seed=3), STORES[target_kind](tmp_path)
    moved(source, target)
    with driving(target) as driver:
        head = driver.space.revision
        seen: list[int] = []

        def decide(_view: object, revision: int, now: int) -> Sequence[Change]:
            seen.append(revision)
            return [Lease("new", "id", revision + 1, revision + 1, now, now + 10**15, 10**15, "a", b"null")]

        assert driver.decide_and_commit(Touched({LEASE: ["new"]}), decide) is None
        assert seen == [head]
        assert driver.space.revision == head + 1


def test_a_page_of_a_database_has_a_limited_number_of_bytes(tmp_path: Path) -> None:
    """The values cannot be compressed: the size of those that PostgreSQL has compressed is estimated only."""
    rng = random.Random(21)
    original, source = new_file(tmp_path), new_database(tmp_path)
    with file_driver(Path(original).parent) as driver:
        driver.commit(*((f"k{number}", Binary("image/png", Content(rng.randbytes(300_000)))) for number in range(20)))
    moved(original, source)

    async def sizes() -> list[int]:
        async with in_database.opened_source(source, make_incarnation=str, now=NOW) as store:
            return [sum(map(size_of, page)) async for page in store.space(DEFAULT_NAMESPACE).records(ENTRY)]

    found = run(sizes())
    assert sum(found) == 20 * 300_000
    assert max(found) <= PAGE_WEIGHT + 300_000


def size_of(record: Record) -> int:
    assert isinstance(record, Entry)
    return len(record.value)


# What is refused ----------------------------------------------------------------------------------------------


@every_target
@every_source
def test_a_target_that_is_not_empty_is_refused_and_not_changed(
    source_kind: str, target_kind: str, tmp_path: Path
) -> None:
    source, target = filled(source_kind, tmp_path, seed=4), filled(target_kind, tmp_path, seed=5)
    before = observed(target)
    assert refused(source, target) == "the target is not empty; nothing was changed"
    assert observed(target) == before


@every_target
def test_a_target_with_the_head_of_the_source_and_another_value_is_refused(target_kind: str, tmp_path: Path) -> None:
    source, target = filled("file", tmp_path, seed=6), STORES[target_kind](tmp_path)
    moved(source, target)
    assert moved(source, target)
    data = Path(source)
    with file_driver(data.parent):
        pass  # so that there is no journal
    text = data.read_text()
    assert '"größe/2","value":null' in text
    data.write_text(text.replace('"größe/2","value":null', '"größe/2","value":true'))
    assert "is not empty" in refused(source, target)


@every_source
def test_a_store_in_use_is_neither_read_nor_filled(source_kind: str, tmp_path: Path) -> None:
    used, other = filled(source_kind, tmp_path, seed=7), new_file(tmp_path)
    fill(other, seed=8)
    with driving(used):
        assert "in use by" in refused(used, new_file(tmp_path))
        assert "in use by" in refused(other, used)
    empty = STORES[source_kind](tmp_path)
    with driving(empty):
        assert "in use by" in refused(other, empty)
    assert not moved(used, new_file(tmp_path))


def test_an_idle_server_uses_its_database_also_after_its_sessions_were_killed(tmp_path: Path) -> None:
    database = made_database()

    async def scenario() -> None:
        async with opened(database.url):
            await asyncio.to_thread(database.kill_sessions, wait_milliseconds=5_000)
            async with asyncio.timeout(30):
                while not await asyncio.to_thread(is_in_use, database.url, new_file(tmp_path)):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    run(scenario())
    assert not is_in_use(database.url, new_file(tmp_path))


def is_in_use(source: str, target: str) -> bool:
    try:
        moved(source, target)
    except ServiceError as error:
        return "in use by" in error.message
    return False


@every_source
def test_no_server_can_start_while_its_store_is_moved(source_kind: str, tmp_path: Path) -> None:
    source = filled(source_kind, tmp_path, seed=9)

    async def start() -> str:
        with pytest.raises(ServiceError) as caught:
            await open_engine(source).space().open()
        return caught.value.message

    async def scenario() -> tuple[str, str]:
        if source_kind == "file":
            async with in_files.opened_source(
                Path(source), OsDisk(), make_incarnation=str, now=NOW, progress=Progress()
            ):
                as_source = await start()
            async with in_files.opened_target(
                Path(source), OsDisk(), make_incarnation=str, now=NOW, progress=Progress()
            ):
                return as_source, await start()
        async with in_database.opened_source(source, make_incarnation=str, now=NOW):
            as_source = await start()
        async with in_database.opened_target(source, make_incarnation=str, now=NOW):
            return as_source, await start()

    expected = "in use by another process" if source_kind == "file" else "`leasehold move` is moving it"
    assert all(expected in message for message in run(scenario()))
    with driving(source) as driver:
        assert driver.space.revision > 0


def test_missing_stores_are_refused_and_nothing_is_created(tmp_path: Path) -> None:
    database = new_database(tmp_path)
    assert "there is no store" in refused(str(tmp_path / "none.json"), new_file(tmp_path))
    assert refused(database, new_file(tmp_path)) == "the database holds no store"
    assert "no folder" in refused(filled("file", tmp_path, seed=10), str(tmp_path / "no" / "data.json"))
    assert not list(tmp_path.glob("none*"))
    assert "holds no store" in refused(database, new_file(tmp_path))


def test_a_damaged_file_is_not_moved(tmp_path: Path) -> None:
    source, target = new_file(tmp_path), new_file(tmp_path)
    fill(source, seed=11)
    journal = Path(f"{source}.journal")
    damaged = bytearray(journal.read_bytes())
    damaged[80] ^= 1
    journal.write_bytes(damaged)
    assert "is corrupt at byte" in refused(source, target)
    assert not Path(target).exists()


@every_target
def test_an_entry_that_cannot_be_read_is_named_and_the_target_stays_empty(target_kind: str, tmp_path: Path) -> None:
    database = made_database()
    source = filled("file", tmp_path, seed=12)
    moved(source, database.url)
    database.execute("UPDATE data SET exact = 'not json' WHERE key = 'größe/3'")
    target = STORES[target_kind](tmp_path)
    assert "the entry 'größe/3' has a value that cannot be read" in refused(database.url, target)
    assert not moved(source, target)


# The comparison -----------------------------------------------------------------------------------------------


Damage = Callable[[Sequence[Record]], Sequence[Record]]


def _without_the_last(records: Sequence[Record]) -> Sequence[Record]:
    return records[:-1]


def _with_another_value(records: Sequence[Record]) -> Sequence[Record]:
    return [Entry(r.key, b"0", *msgspec.structs.astuple(r)[2:]) if isinstance(r, Entry) else r for r in records]


@pytest.mark.parametrize("damage", [_without_the_last, _with_another_value])
@every_target
def test_nothing_is_published_if_the_target_does_not_hold_what_was_written(
    target_kind: str, damage: Damage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = filled("file", tmp_path, seed=13), STORES[target_kind](tmp_path)
    kind = in_files.StateTarget if target_kind == "file" else in_database.PostgresSpaceTarget
    add = kind.add

    async def damaging(self: object, kind: AnyKind, records: Sequence[Record]) -> None:
        await add(self, kind, damage(records))  # type: ignore[arg-type] # one of two targets

    with monkeypatch.context() as patched:
        patched.setattr(kind, "add", damaging)
        assert "does not hold what was written to it" in refused(source, target)
    if target_kind == "file":
        assert list(files(Path(target).parent)) == ["data.json.lock"]
    assert not moved(source, target)


@every_target
def test_nothing_is_published_if_removals_are_lost(
    target_kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = filled("file", tmp_path, seed=14), STORES[target_kind](tmp_path)
    kind = in_files.StateTarget if target_kind == "file" else in_database.PostgresSpaceTarget

    async def losing(*_: object) -> None:
        pass

    with monkeypatch.context() as patched:
        patched.setattr(kind, "add_removals", losing)
        assert "does not hold what was written to it" in refused(source, target)
    assert not moved(source, target)


@pytest.mark.parametrize(
    "other",
    [
        Entry("a", b'{"b":1,"a":2}', 1, 2, 3, 5),
        Entry("a", b'{"b":1,"a":2.0}', 1, 2, 3, 4),
        Entry("a", b'{"b":"1","a":2}', 1, 2, 3, 4),
        Entry("a", b'[{"b":1},{"a":2}]', 1, 2, 3, 4),
        Entry("a", Binary("image/png", Content(b'{"b":1,"a":2}')), 1, 2, 3, 4),
    ],
)
def test_two_records_have_the_same_form_only_if_they_are_equal(other: Entry) -> None:
    form = form_of(ENTRY)
    record = Entry("a", b'{"b":1,"a":2}', 1, 2, 3, 4)
    assert form(record) == form(Entry("a", b'{"a":2,"b":1}', 1, 2, 3, 4))
    assert form(other) != form(record)


# A kind that is added later -----------------------------------------------------------------------------------


class _Recorded:
    """A source, and a target that keeps what it is given. It has one namespace."""

    namespaces: Mapping[str, Description] = {DEFAULT_NAMESPACE: Description()}

    def __init__(self) -> None:
        self.is_empty = True
        self.head = Head("abcdef", 5, 0)
        self.kept: dict[str, list[object]] = {}

    def space(self, _namespace: str) -> Self:
        return self

    async def count(self, _kind: AnyKind) -> int:
        return 1

    async def records(self, kind: AnyKind) -> AsyncGenerator[Sequence[Record]]:
        yield [Entry("a", b"1", 1, 1, 1)] if kind is ENTRY else []

    async def removals(self, _kind: AnyKind) -> AsyncGenerator[Sequence[RemovedName]]:
        yield [RemovedName("b", 3)]

    async def add(self, kind: AnyKind, records: Sequence[Record]) -> None:
        self.kept.setdefault(kind.name, []).extend(records)

    async def add_removals(self, kind: AnyKind, removals: Sequence[RemovedName]) -> None:
        self.kept.setdefault(kind.name, []).extend(removals)

    async def write(self, namespaces: Mapping[str, Description], heads: Mapping[str, Head]) -> None:
        self.kept["written"] = [namespaces, heads]

    async def publish(self) -> None:
        self.kept["published"] = []


def test_every_kind_is_carried_along_by_its_name_alone() -> None:
    source, target = _Recorded(), _Recorded()
    run(move(source, target, Progress()))
    assert set(target.kept) == {kind.name for kind in KINDS} | {"written", "published"}
    assert target.kept["entry"] == [Entry("a", b"1", 1, 1, 1), RemovedName("b", 3)]
    assert target.kept["written"] == [source.namespaces, {DEFAULT_NAMESPACE: source.head}]


# Killed moves -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source_kind", "target_kind"), [("file", "postgres"), ("postgres", "file")])
def test_a_move_that_is_killed_at_any_step_has_moved_everything_or_nothing(
    source_kind: str, target_kind: str, tmp_path: Path
) -> None:
    """One move after another into the same target is killed, each one step later, until one completes."""
    source, target = filled(source_kind, tmp_path, seed=20), STORES[target_kind](tmp_path)
    expected = observed(source)
    step = completed = attempts = 0
    found_tables = goes_back = False
    with killed_moves(source, STORES[target_kind](tmp_path)) as killed_at, asking() as ask:
        while (code := killed_at(step, source, target)) != MOVED:
            # The database may still be busy with the process that was killed.
            assert code in (KILLED, WAS_COMPLETE, IN_USE)
            attempts += 1
            assert attempts < 3_000
            assert target_revision(target, ask) in (0, expected.revision)
            if code == WAS_COMPLETE:
                assert observed(target) == expected
                completed += 1
                if completed == 1:
                    # Into a new target there is nothing of killed moves to remove, which takes a few steps.
                    step, goes_back = step - 5, True
                target = new_with_tables(target_kind, tmp_path)
            elif code == KILLED:
                assert not (goes_back and target_revision(target, ask)), "it went back too few steps"
                goes_back = False
                step += 1
                if not found_tables and has_tables(target, ask):
                    # From now on the moves do not make them, so that their first steps are others.
                    found_tables, step = True, 0
                if completed and not target_revision(target, ask):
                    target = new_with_tables(target_kind, tmp_path)
    assert step > 10
    assert completed > 0
    assert observed(target) == expected
    assert observed(source) == expected


def target_revision(store: str, ask: Ask) -> int:
    """The head that a server would find. 0: the store is empty."""
    path = Path(store)
    if path.suffix == ".json":
        return inspect(path, OsDisk()).revision
    schema = store.rpartition("search_path=")[2]
    if not has_tables(store, ask):
        return 0
    counted = f"(SELECT count(*) FROM {schema}.data) + (SELECT count(*) FROM {schema}.locks)"
    [[revision, records]] = ask(f"SELECT coalesce(max(revision), 0), {counted} FROM {schema}.head")
    assert isinstance(revision, int)
    assert (revision == 0) is (records == 0)
    return revision
