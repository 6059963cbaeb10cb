"""Lists that leave entries out, counts over several prefixes, and how many lists are made at the same time."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from types import SimpleNamespace
from typing import TypeVar, cast

import pytest

from leasehold.engines.memory.engine import MemoryEngine
from leasehold.http.endpoints.kv import shown_parts
from leasehold.http.endpoints.kv.several_entries import several_entries
from leasehold.http.endpoints.kv.shown_parts import shown_pages
from leasehold.http.media_types import Media
from leasehold.http.pieces import CHUNK_BYTES, GatheredList, gathered
from leasehold.http.requests import Headers, Request
from leasehold.http.responses import Response
from leasehold.http.routing.route import Service
from leasehold.limits import MAX_GATHERED_LISTS, Limits
from leasehold.model import Entry, Page, Put
from leasehold.store.store import Store
from leasehold.store.turns import Turn

T = TypeVar("T")


def entry(key: str, value: bytes = b"1") -> Entry:
    return Entry(key, value, 1, 1, 1)


def odd(each: Entry) -> Entry | None:
    return each if int(each.key) % 2 else None


class Source:
    """Pages of three entries, and whether the generator was closed."""

    def __init__(self, count: int, value: bytes = b"1") -> None:
        self.entries = [entry(f"{number:03}", value) for number in range(count)]
        self.is_closed = False

    async def pages(self, after: str | None = None) -> AsyncGenerator[Page[Entry]]:
        left = [each for each in self.entries if after is None or each.key > after]
        try:
            for begin in range(0, len(left), 3):
                page = left[begin : begin + 3]
                yield Page(page, 7, page[-1].key if begin + 3 < len(left) else None)
        finally:
            self.is_closed = True


def collected(pages: AsyncGenerator[Page[Entry]]) -> list[Page[Entry]]:
    async def collect() -> list[Page[Entry]]:
        return [page async for page in pages]

    return asyncio.run(collect())


def keys(pages: Sequence[Page[Entry]]) -> list[str]:
    return [each.key for page in pages for each in page.records]


@pytest.mark.parametrize(
    ("limit", "count", "following"), [(None, 5, None), (1, 1, "001"), (4, 4, "007"), (5, 5, None), (6, 5, None)]
)
def test_a_list_has_the_next_position_only_if_another_entry_is_shown(
    limit: int | None, count: int, following: str | None
) -> None:
    source = Source(11)
    pages = collected(shown_pages(source.pages(), odd, limit, asyncio.Lock()))
    assert keys(pages) == ["001", "003", "005", "007", "009"][:count]
    assert (pages[-1].next_after, {page.revision for page in pages}) == (following, {7})
    assert source.is_closed


@pytest.mark.parametrize("limit", [None, 2, 100])
def test_a_list_that_leaves_much_out_ends_and_can_be_continued(
    limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_parts, "MAX_LIST_WORK_BYTES", 10 * CHUNK_BYTES)
    source = Source(100, b"1" * CHUNK_BYTES)
    found: list[str] = []
    lists = 0
    after: str | None = None
    while True:
        pages = collected(shown_pages(source.pages(after), odd, limit, asyncio.Lock()))
        found += keys(pages)
        lists += 1
        assert source.is_closed
        after = pages[-1].next_after
        if after is None:
            break
    assert found == [f"{number:03}" for number in range(1, 100, 2)]
    assert lists >= 5


def test_a_list_lets_the_event_loop_go_on_while_it_leaves_entries_out() -> None:
    async def turns_during_a_list() -> int:
        turns = 0
        is_over = False

        def turn() -> None:
            nonlocal turns
            turns += 1
            if not is_over:
                asyncio.get_running_loop().call_soon(turn)

        turn()
        source = Source(60, b"1" * CHUNK_BYTES)
        async for page in shown_pages(source.pages(), lambda _: None, None, asyncio.Lock()):
            assert page.records == []
        is_over = True
        return turns

    assert asyncio.run(turns_during_a_list()) > 60


class Works:
    """Lists that count each piece of their work."""

    def __init__(self) -> None:
        self.done = 0

    def shown(self, _: Entry) -> Entry | None:
        self.done += 1
        return None

    def encoded(self) -> Iterator[bytes]:
        for _ in range(5):
            self.done += 1
            yield b"x" * (CHUNK_BYTES + 1)

    def steps(self, result: T) -> Generator[None, None, T]:
        for _ in range(5):
            self.done += 1
            yield
        return result

    def pieces(self) -> Iterator[bytes]:
        for _ in range(5):
            self.done += 1
            yield b"x"

    async def parts(self, turn: Turn) -> None:
        await exhausted(shown_pages(Source(5, b"1" * CHUNK_BYTES).pages(), self.shown, None, turn))

    async def parts_in_steps(self, turn: Turn) -> None:
        await exhausted(shown_pages(Source(1, b"1").pages(), lambda _: self.steps(None), None, turn))

    async def packed(self, turn: Turn) -> None:
        await GatheredList("entries", Media.MESSAGEPACK, turn).add(self.encoded())

    async def packed_in_steps(self, turn: Turn) -> None:
        await GatheredList("entries", Media.MESSAGEPACK, turn).add([self.pieces()])

    async def streamed_in_steps(self, turn: Turn) -> None:
        await exhausted(gathered([self.pieces()], turn))


async def exhausted(items: AsyncGenerator[object]) -> None:
    async for _ in items:
        pass


@pytest.mark.parametrize(
    "make", [Works.parts, Works.parts_in_steps, Works.packed, Works.packed_in_steps, Works.streamed_in_steps]
)
def test_an_iteration_of_the_event_loop_has_one_piece_of_work_of_all_lists(
    make: Callable[[Works, Turn], Coroutine[object, object, None]],
) -> None:
    works = Works()

    async def most_at_once() -> int:
        turn = Turn()
        lists = [asyncio.ensure_future(make(works, turn)) for _ in range(20)]
        most = before = 0
        while not all(each.done() for each in lists):
            await asyncio.sleep(0)
            most, before = max(most, works.done - before), works.done
        return most

    assert (asyncio.run(most_at_once()), works.done) == (1, 100)


def run_with_store(work: Callable[[Store], Awaitable[T]]) -> T:
    async def run() -> T:
        store = Store(MemoryEngine(), Limits())
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("after", [None, "a/1", "b", "b/2", "b/9", "c", "z"])
def test_entries_with_several_prefixes_are_counted_up_to_the_limit(after: str | None, *, is_reversed: bool) -> None:
    names = [f"{folder}/{number}" for folder in "abcd" for number in range(4)]
    listed = [name for name in names if name[0] in "abd"]
    if after is not None:
        listed = [name for name in listed if (name < after if is_reversed else name > after)]
    if is_reversed:
        listed.reverse()

    async def count(store: Store) -> None:
        for name in names:
            await store.change(Put(name, b"1"))
        for limit in range(1, len(listed) + 2):
            counted = await store.count(("a/", "b/", "d/"), after, limit, is_reversed=is_reversed)
            assert (counted.count, counted.is_complete) == (min(limit, len(listed)), limit >= len(listed))
            if not counted.is_complete:
                assert counted.last == listed[limit - 1]

    run_with_store(count)


def test_no_entries_are_counted_if_no_prefix_is_covered() -> None:
    counted = run_with_store(lambda store: store.count((), None, 10))
    assert (counted.count, counted.is_complete) == (0, True)


def test_a_limited_number_of_lists_is_made_at_the_same_time() -> None:
    """Each may take 8 MiB."""

    async def lists(store: Store) -> int:
        await store.change(Put("a", b"1"))
        making = most = 0
        entries = store.entries

        async def slow(asked: Sequence[str]) -> AsyncGenerator[Page[Entry]]:
            nonlocal making, most
            making += 1
            most = max(most, making)
            for _ in range(10):
                await asyncio.sleep(0)
            async for page in entries(asked):
                yield page
            making -= 1

        service = cast(
            "Service", SimpleNamespace(store=SimpleNamespace(entries=slow, gathering=store.gathering, turn=store.turn))
        )
        requests: Iterator[Request] = (
            Request("GET", b"/kv", Headers(), query={"key": ["a"]}) for _ in range(5 * MAX_GATHERED_LISTS)
        )
        responses: list[Response] = await asyncio.gather(*(several_entries(each, service) for each in requests))
        assert all(b'"key":"a"' in (response.body or b"") for response in responses)
        return most

    assert run_with_store(lists) == MAX_GATHERED_LISTS
