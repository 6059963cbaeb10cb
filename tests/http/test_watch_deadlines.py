"""Watchers are disconnected for not reading at all, and not for being slow. The lag of the slowest is a metric."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from databases import STORES
from running import Server, Wire, message, running, until
from watching import Watch, gauge, put, watchers

LIMIT_SECONDS = 3.0
SLOW_SECONDS = 8.0
"""So long a watcher reads slowly: longer than one may take that does not read."""
CHANGES = 400
VALUE = "x" * 50_000
KEYS = 4


@pytest.fixture(scope="module", params=STORES)
def strict(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a short deadline for readers, on each engine."""
    store = STORES[request.param](tmp_path_factory.mktemp("store"))
    with running(store, environment={"LEASEHOLD_WRITE_TIMEOUT_SECONDS": str(LIMIT_SECONDS)}) as started:
        yield started


def change_much(server: Server, key: str) -> int:
    """Changes of KEYS keys, of more bytes than the sockets of a connection hold. Returns the last revision."""
    revision = 0
    with Wire(server) as wire:
        for number in range(CHANGES):
            body = json.dumps([number, VALUE]).encode()
            wire.send(message("PUT", f"/kv/{key}/{number % KEYS}", "Prefer: return=minimal", body=body))
            revision = json.loads(wire.answer().body)["revision"]
    return revision


@contextmanager
def changing(server: Server, key: str) -> Iterator[None]:
    """Changes all the time, by another client."""
    over = threading.Event()

    def change() -> None:
        for number in count():
            if over.wait(0.01):
                return
            body = json.dumps([number, VALUE])
            server.client.put(f"/kv/{key}/{number % KEYS}", content=body).raise_for_status()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_watcher_that_reads_nothing_is_disconnected(strict: Server, key: str) -> None:
    with Watch(strict, f"prefix={key}/", receive_buffer_bytes=4_096) as watch:
        watch.ready()
        assert watchers(strict) == 1
        with changing(strict, key):
            until(lambda: watchers(strict) == 0)
        events = watch.until_cut()
    assert "end" not in {event.name for event in events}


def test_a_watcher_to_which_nothing_is_to_be_sent_is_not_disconnected(strict: Server, key: str) -> None:
    with Watch(strict, f"prefix={key}/&heartbeat=60") as watch:
        watch.ready()
        time.sleep(2 * LIMIT_SECONDS)
        last = put(strict, f"{key}/a")
        assert watch.next().id == last


def test_a_watcher_that_reads_slowly_is_not_disconnected_and_gets_the_latest_states(strict: Server, key: str) -> None:
    """It reads some kilobytes at a time, for longer than the deadline, while there is always more to send."""
    with Watch(strict, f"prefix={key}/", receive_buffer_bytes=4_096) as watch:
        watch.ready()
        started = time.monotonic()
        state: dict[str, int] = {}
        with changing(strict, key):
            while time.monotonic() - started < SLOW_SECONDS:
                time.sleep(0.2)
                event = watch.next()
                state[event.subject] = event.revision
            until(lambda: gauge(strict, "watch_lag_revisions") > 0)
        last = put(strict, f"{key}/last")
        for event in watch.through(last):
            state[event.subject] = event.revision
    entries = strict.request("GET", f"/kv?prefix={key}/&values=false").json()["entries"]
    assert state == {entry["key"]: entry["revision"] for entry in entries}


def test_the_lag_is_that_of_the_watcher_that_is_furthest_behind(any_server: Server, key: str) -> None:
    server = any_server
    with Watch(server, f"prefix={key}/") as quick, Watch(server, f"prefix={key}/", receive_buffer_bytes=4_096) as slow:
        quick.ready(), slow.ready()
        first = put(server, f"{key}/small")
        quick.through(first)
        until(lambda: gauge(server, "watch_lag_revisions") == 0)
        last = change_much(server, key)
        quick.through(last)
        lag = gauge(server, "watch_lag_revisions")
        # At most all revisions meanwhile; entries of other tests may have expired, too.
        assert 0 < lag < put(server, f"{key}/small") - first
    until(lambda: watchers(server) == 0)
    assert gauge(server, "watch_lag_revisions") == 0
