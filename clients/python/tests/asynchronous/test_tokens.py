from collections.abc import Iterator

import pytest
from callers import token
from running import Server

from asynchronous.together import together
from leasehold_client import AsyncClient, EntryPut, Forbidden, Ready, Request, TokenUnavailable, Unauthenticated
from leasehold_client._async import runtime

pytestmark = pytest.mark.anyio

OTHER_SECRET = b"another-secret-of-more-than-32-bytes"


def good(lifetime_seconds: float = 1e6) -> str:
    return token("read", "write", "admin", lifetime_seconds=lifetime_seconds)


def bad() -> str:
    return token("read", "write", secret=OTHER_SECRET)


class Source:
    """Supplies these tokens, one at each call, and the last one again and again."""

    def __init__(self, *tokens: str) -> None:
        self._tokens: Iterator[str] = iter(tokens)
        self._last = ""
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self._last = next(self._tokens, self._last)
        return self._last


async def test_a_token_is_sent_with_each_request(guarded: Server, key: str) -> None:
    async with AsyncClient(guarded.url, token=good()) as db:
        await db.put(key, 1)
        async with db.lock(key), db.watch(key, snapshot=True) as watch:
            assert isinstance(await anext(watch), EntryPut | Ready)
    async with AsyncClient(guarded.url, token=token("read")) as db:
        assert (await db.get(key)).value == 1
        with pytest.raises(Forbidden):
            await db.put(key, 2)


async def test_a_token_that_is_refused_and_cannot_be_replaced(guarded: Server, key: str) -> None:
    for source in (None, bad(), bad):
        async with AsyncClient(guarded.url, token=source) as db:
            with pytest.raises(Unauthenticated):
                await db.put(key, 1)
            with pytest.raises(Unauthenticated):
                await anext(db.watch(key))


async def test_another_token_is_asked_for_when_one_is_refused(guarded: Server, key: str) -> None:
    source = Source(bad(), good())
    async with AsyncClient(guarded.url, token=source) as db:
        await db.put(key, 1)
        await db.put(key, 2)
        assert source.calls == 2
    watching = Source(bad(), good())
    async with AsyncClient(guarded.url, token=watching) as db:
        async with db.watch(key, snapshot=True) as watch:
            assert isinstance(await anext(watch), EntryPut | Ready)
        assert watching.calls == 2
    streaming = Source(bad(), good())
    async with AsyncClient(guarded.url, token=streaming) as db:
        async for piece in db.stream(Request("GET", f"/kv/{key}?raw")):
            assert piece == b"2\n"
        assert streaming.calls == 2


async def test_another_token_is_asked_for_before_one_expires(
    guarded: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(good(lifetime_seconds=1_000), good())
    started = runtime.clock()
    async with AsyncClient(guarded.url, token=source) as db:
        for elapsed, calls in ((0, 1), (900, 1), (971, 2), (10_000, 2)):
            monkeypatch.setattr(runtime, "clock", lambda elapsed=elapsed: started + elapsed)
            await db.put(key, 1)
            assert source.calls == calls


async def test_of_many_requests_one_asks_for_a_token(guarded: Server, key: str) -> None:
    source = Source(good())
    async with AsyncClient(guarded.url, token=source) as db:
        await together(*[lambda: db.increment(key)] * 8)
        assert source.calls == 1


async def test_a_function_that_cannot_supply_a_token(guarded: Server, key: str) -> None:
    def fail() -> str:
        raise ZeroDivisionError("no token today")

    async with AsyncClient(guarded.url, token=fail) as db:
        with pytest.raises(TokenUnavailable, match="no token today") as failed:
            await db.put(key, 1)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


async def test_a_token_that_no_header_can_have_is_refused_and_not_shown(guarded: Server, key: str) -> None:
    async with AsyncClient(guarded.url, token=lambda: f"{good()}\n") as db:
        await db.put(key, 1)
    async with AsyncClient(guarded.url, token=lambda: "secret\nsecret") as db:
        with pytest.raises(TokenUnavailable) as failed:
            await db.put(key, 2)
    assert "secret" not in str(failed.value)
    with pytest.raises(ValueError, match="printable"):
        AsyncClient(guarded.url, token="ä")


async def test_a_watch_goes_on_with_another_token_when_its_token_expires(guarded: Server, key: str) -> None:
    source = Source(good(lifetime_seconds=2), good())
    async with AsyncClient(guarded.url, token=source) as db, AsyncClient(guarded.url, token=good()) as other:
        async with db.watch(key, snapshot=True, heartbeat_seconds=1) as watch:
            await anext(watch)
            # The service ends the first response by itself; this is the change after that.
            while source.calls < 2:
                await other.increment(key)
                await anext(watch)
            await other.put(key, "last")
            async for event in watch:
                if getattr(getattr(event, "entry", None), "value", None) == "last":
                    break
