# Made from `asynchronous/test_tokens.py` by tools/make_sync.py: edit that file.
from collections.abc import Iterator

import pytest
from callers import token
from running import Server

from leasehold_client import Client, EntryPut, Forbidden, Ready, Request, TokenUnavailable, Unauthenticated
from leasehold_client._sync import runtime
from synchronous.together import together

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


def test_a_token_is_sent_with_each_request(guarded: Server, key: str) -> None:
    with Client(guarded.url, token=good()) as db:
        db.put(key, 1)
        with db.lock(key), db.watch(key, snapshot=True) as watch:
            assert isinstance(next(watch), EntryPut | Ready)
    with Client(guarded.url, token=token("read")) as db:
        assert (db.get(key)).value == 1
        with pytest.raises(Forbidden):
            db.put(key, 2)


def test_a_token_that_is_refused_and_cannot_be_replaced(guarded: Server, key: str) -> None:
    for source in (None, bad(), bad):
        with Client(guarded.url, token=source) as db:
            with pytest.raises(Unauthenticated):
                db.put(key, 1)
            with pytest.raises(Unauthenticated):
                next(db.watch(key))


def test_another_token_is_asked_for_when_one_is_refused(guarded: Server, key: str) -> None:
    source = Source(bad(), good())
    with Client(guarded.url, token=source) as db:
        db.put(key, 1)
        db.put(key, 2)
        assert source.calls == 2
    watching = Source(bad(), good())
    with Client(guarded.url, token=watching) as db:
        with db.watch(key, snapshot=True) as watch:
            assert isinstance(next(watch), EntryPut | Ready)
        assert watching.calls == 2
    streaming = Source(bad(), good())
    with Client(guarded.url, token=streaming) as db:
        for piece in db.stream(Request("GET", f"/kv/{key}?raw")):
            assert piece == b"2\n"
        assert streaming.calls == 2


def test_another_token_is_asked_for_before_one_expires(
    guarded: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(good(lifetime_seconds=1_000), good())
    started = runtime.clock()
    with Client(guarded.url, token=source) as db:
        for elapsed, calls in ((0, 1), (900, 1), (971, 2), (10_000, 2)):
            monkeypatch.setattr(runtime, "clock", lambda elapsed=elapsed: started + elapsed)
            db.put(key, 1)
            assert source.calls == calls


def test_of_many_requests_one_asks_for_a_token(guarded: Server, key: str) -> None:
    source = Source(good())
    with Client(guarded.url, token=source) as db:
        together(*[lambda: db.increment(key)] * 8)
        assert source.calls == 1


def test_a_function_that_cannot_supply_a_token(guarded: Server, key: str) -> None:
    def fail() -> str:
        raise ZeroDivisionError("no token today")

    with Client(guarded.url, token=fail) as db:
        with pytest.raises(TokenUnavailable, match="no token today") as failed:
            db.put(key, 1)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


def test_a_token_that_no_header_can_have_is_refused_and_not_shown(guarded: Server, key: str) -> None:
    with Client(guarded.url, token=lambda: f"{good()}\n") as db:
        db.put(key, 1)
    with Client(guarded.url, token=lambda: "secret\nsecret") as db:
        with pytest.raises(TokenUnavailable) as failed:
            db.put(key, 2)
    assert "secret" not in str(failed.value)
    with pytest.raises(ValueError, match="printable"):
        Client(guarded.url, token="ä")


def test_a_watch_goes_on_with_another_token_when_its_token_expires(guarded: Server, key: str) -> None:
    source = Source(good(lifetime_seconds=2), good())
    with Client(guarded.url, token=source) as db, Client(guarded.url, token=good()) as other:
        with db.watch(key, snapshot=True, heartbeat_seconds=1) as watch:
            next(watch)
            # The service ends the first response by itself; this is the change after that.
            while source.calls < 2:
                other.increment(key)
                next(watch)
            other.put(key, "last")
            for event in watch:
                if getattr(getattr(event, "entry", None), "value", None) == "last":
                    break
