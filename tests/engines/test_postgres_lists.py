"""Lists on PostgreSQL: what one query reads at most, and several records that are read in several queries."""

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from itertools import count

import pytest
from databases import Database, shared_server_url
from driving import Driver

from leasehold.engines.postgres import lists
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.errors import ServiceError
from leasehold.limits import MIB
from leasehold.model import ENTRY, Entry, Page

_numbers = count(1)
_random = random.Random(1)


@pytest.fixture(scope="module")
def database() -> Database:
    """It has 300 small entries, 30 of 0.5 MiB that cannot be compressed, and 100 of 0.9 MiB that can be."""
    made = Database(shared_server_url(), f"lists_{next(_numbers)}").create()
    with Driver(PostgresEngine(made.url).space()) as driver:
        driver.commit(*((f"a/{number:03}", b"1") for number in range(300)))
        for number in range(30):
            driver.put(f"b/{number:03}", b'"%b"' % _random.randbytes(MIB // 4).hex().encode())
        for number in range(100):
            driver.put(f"c/{number:03}", b'["%b"]' % (b"x%d" % number * 500_000)[: 9 * MIB // 10])
    return made


@pytest.fixture
def driver(database: Database) -> Iterator[Driver]:
    with Driver(PostgresEngine(database.url).space()) as driver:
        yield driver


def size_of(records: Sequence[Entry]) -> int:
    return sum(len(entry.value) for entry in records)


def idle_in_transaction(database: Database) -> int:
    [row] = database.fetch(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    )
    number = row[0]
    assert isinstance(number, int)
    return number


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_page_ends_when_its_values_are_large(driver: Driver, *, is_reversed: bool) -> None:
    keys: list[str] = []
    sizes: list[int] = []
    after: str | None = None
    while True:
        page = driver.run(driver.space.scan(ENTRY, "", after, 512, is_reversed=is_reversed))
        keys += [entry.key for entry in page.records]
        sizes.append(size_of(page.records))
        after = page.next_after
        if after is None:
            break
    expected = [
        f"{folder}/{number:03}" for folder, size in (("a", 300), ("b", 30), ("c", 100)) for number in range(size)
    ]
    assert keys == (expected[::-1] if is_reversed else expected)
    assert max(sizes) < 8 * MIB


def test_a_page_of_a_backup_ends_when_its_values_are_large(driver: Driver) -> None:
    async def sizes() -> list[int]:
        moment = await driver.space.moment()
        async with aclosing(moment.pages) as pages:
            return [size_of(page) async for page in pages]

    found = driver.run(sizes())
    assert (sum(found) > 100 * MIB, max(found) < 8 * MIB) == (True, True)


LARGE = [f"c/{number:03}" for number in range(100)] + [f"b/{number:03}" for number in range(28)]


def test_several_large_records_are_read_in_pages(driver: Driver, database: Database) -> None:
    async def read() -> list[Page[Entry]]:
        async with aclosing(driver.space.read_all(ENTRY, LARGE)) as pages:
            return [page async for page in pages]

    pages = driver.run(read())
    assert [entry.key for page in pages for entry in page.records] == LARGE
    assert max(size_of(page.records) for page in pages) < 8 * MIB
    assert idle_in_transaction(database) == 0


def test_several_small_records_are_read_in_one_page(driver: Driver) -> None:
    names = [f"a/{number:03}" for number in range(128)]

    async def read() -> list[Page[Entry]]:
        async with aclosing(driver.space.read_all(ENTRY, names)) as pages:
            return [page async for page in pages]

    assert [len(page.records) for page in driver.run(read())] == [128]


def test_a_reader_that_stops_early_leaves_no_transaction(driver: Driver, database: Database) -> None:
    async def begin() -> None:
        async with aclosing(driver.space.read_all(ENTRY, LARGE)) as pages:
            assert (await anext(pages)).records
            assert await asyncio.to_thread(idle_in_transaction, database) == 1

    for _ in range(5):
        driver.run(begin())
    assert idle_in_transaction(database) == 0


def test_a_connection_that_is_lost_between_pages_ends_the_read_and_nothing_else(
    driver: Driver, database: Database
) -> None:
    async def read(pages: AsyncGenerator[Page[Entry]]) -> None:
        async with aclosing(pages):
            await anext(pages)
            await asyncio.to_thread(
                database.execute,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
            )
            async for _ in pages:
                pass

    with pytest.raises(ServiceError) as caught:
        driver.run(read(driver.space.read_all(ENTRY, LARGE)))
    assert caught.value.code == "unavailable"
    assert driver.run(driver.space.count(ENTRY, "", None, 1_000)).count == 430


def test_a_query_counts_a_limited_number_of_records(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "COUNTED_AT_ONCE", 200)
    first = driver.run(driver.space.count(ENTRY, "", None, 1_000))
    second = driver.run(driver.space.count(ENTRY, "", first.last, 1_000))
    rest = driver.run(driver.space.count(ENTRY, "", second.last, 1_000))
    assert [(part.count, part.is_complete) for part in (first, second, rest)] == [
        (200, False),
        (200, False),
        (30, True),
    ]


def test_lists_of_a_closed_space_are_refused(database: Database) -> None:
    space = PostgresEngine(database.url).space()

    async def read() -> None:
        async with aclosing(space.read_all(ENTRY, ["a"])) as pages:
            await anext(pages)

    with Driver(space) as driver:
        driver.run(space.close())
        for read_one in (space.scan(ENTRY, "", None, 1), space.count(ENTRY, "", None, 1), read()):
            with pytest.raises(ServiceError, match="closed"):
                driver.run(read_one)
