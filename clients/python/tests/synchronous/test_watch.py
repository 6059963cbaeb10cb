# Made from `asynchronous/test_watch.py` by tools/make_sync.py: edit that file.
import random
from pathlib import Path
from typing import Any

import pytest
from proxy import cutting, proxy_on_a_thread
from running import Server

from leasehold_client import (
    Client,
    EntryDeleted,
    EntryPut,
    LockChanged,
    Ready,
    Reset,
    Unreachable,
    Watch,
)
from synchronous.together import beside, together

pytestmark = pytest.mark.anyio


class Copy:
    """A copy of the entries that a watch reports."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.resets = 0

    def follow(self, watch: Watch, last: Any) -> None:
        """Apply the events until the entry `last` has the value `last`."""
        for event in watch:
            match event:
                case Reset():
                    self.values.clear()
                    self.resets += 1
                case EntryPut(entry):
                    self.values[entry.key] = entry.value
                case EntryDeleted(key):
                    self.values.pop(key, None)
            if self.values.get("last") == last:
                return


def test_a_watch_reports_a_snapshot_and_then_changes(server: Server, key: str) -> None:
    with Client(server.url) as db:
        first = db.put(f"{key}/a", 1)
        with db.watch(f"{key}/", snapshot=True, locks=True) as watch:
            put = next(watch)
            assert isinstance(put, EntryPut)
            assert (put.entry.key, put.entry.value, put.entry.revision) == (first.key, 1, first.revision)
            assert watch.line.startswith(f'{{"event":"put","data":{{"key":"{key}/a","value":1,'.encode())
            ready = next(watch)
            assert isinstance(ready, Ready)
            assert watch.cursor == ready.cursor == ready.revision
            second = db.put(f"{key}/b", 2)
            put = next(watch)
            assert isinstance(put, EntryPut)
            assert (put.entry.value, put.cursor) == (2, second.revision)
            deletion = db.delete(f"{key}/b")
            assert next(watch) == EntryDeleted(f"{key}/b", deletion.revision, deletion.revision)
            with db.lock(f"{key}/lock", owner="a") as lease:
                held = next(watch)
            assert isinstance(held, LockChanged)
            assert (held.lock, held.is_held, held.token, held.owner) == (lease.name, True, lease.token, "a")
            free = next(watch)
            assert isinstance(free, LockChanged)
            assert (free.lock, free.is_held, free.token, free.expires_at) == (lease.name, False, None, None)
        with db.watch(f"{key}/b", since=first.revision, values=False) as watch:
            assert isinstance(next(watch), Ready)
            assert next(watch) == EntryDeleted(f"{key}/b", deletion.revision, deletion.revision)


def test_a_watch_goes_on_after_restarts_and_misses_nothing(own_server: Server) -> None:
    with Client(own_server.url) as db, Client(own_server.url) as writer:
        copy = Copy()

        def follow() -> None:
            with db.watch(snapshot=True) as watch:
                copy.follow(watch, "end")

        def write() -> None:
            for number in range(60):
                writer.put(f"entry/{number % 7}", number)
                if number % 3 == 0:
                    writer.delete(f"entry/{number % 7}")
                if number in (20, 40):
                    beside(own_server.restart)
            writer.put("last", "end")

        together(follow, write)
        assert copy.values == {entry.key: entry.value for entry in db.list()}
        assert copy.resets == 0


def test_a_watch_whose_connections_are_cut_at_any_byte_misses_nothing(own_server: Server) -> None:
    with proxy_on_a_thread(own_server.address[1]) as proxy:
        proxy.new_connection = cutting(random.Random(3), 1_000, 4_000)
        with Client(own_server.url) as writer, Client(f"http://127.0.0.1:{proxy.port}") as db:
            for number in range(20):
                writer.put(f"entry/{number}", "x" * 20)
            copy = Copy()

            def follow() -> None:
                with db.watch(snapshot=True) as watch:
                    copy.follow(watch, "end")

            def write() -> None:
                number = 0
                while proxy.cuts < 3:
                    number += 1
                    assert number < 10_000, "the watch receives nothing"
                    writer.put(f"entry/{number % 7}", number)
                    if number % 3 == 0:
                        writer.delete(f"entry/{number % 7}")
                writer.put("last", "end")

            together(follow, write)
            assert copy.values == {entry.key: entry.value for entry in writer.list()}


def test_a_watch_gives_up_when_it_is_told_to(own_server: Server) -> None:
    with Client(own_server.url) as db, db.watch(reconnect_seconds=0.2) as watch:
        assert isinstance(next(watch), Ready)
        beside(own_server.kill)
        with pytest.raises(Unreachable):
            next(watch)


def test_a_watch_of_a_store_that_begins_anew_reports_a_reset(own_server: Server) -> None:
    """The files of the store are gone after the restart, and with them its history."""
    with Client(own_server.url) as db, db.watch(snapshot=True) as watch:
        copy = Copy()
        for number in range(5):
            db.put(f"entry/{number}", 1)
        db.put("last", "old")
        copy.follow(watch, "old")

        def begin_anew() -> None:
            own_server.kill()
            for path in Path(own_server.store).parent.glob("data.json*"):
                path.unlink()
            own_server.start()

        beside(begin_anew)
        db.put("last", "new")
        copy.follow(watch, "new")
        assert copy.resets == 1
        assert copy.values == {"last": "new"}
