"""Watchers of a space in memory, without connections: live, slow, behind, and ended."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from driving import memory_of

from leasehold.engines import base
from leasehold.engines.memory.space import MemorySpace
from leasehold.errors import ServiceError, unavailable
from leasehold.http.event_formats import FORMATS, EventFormat
from leasehold.http.media_types import Media
from leasehold.limits import Limits
from leasehold.model import ENTRY, LEASE, AnyKind, Change, Changes, Deletion, Entry, LeaseEnd, Touched, View
from leasehold.store import live_watchers
from leasehold.store.store import Store
from leasehold.store.watchers import Interest, Watch

SECONDS = 60.0
LINES = FORMATS[Media.NDJSON, True]


def _nothing(_name: bytes, _data: bytes, _cursor: int | None) -> bytes:
    return b""


def _no_put(_entry: Entry, _cursor: int | None, _with_value: bool) -> bytes:  # noqa: FBT001 - the signature of a `Put`
    return b""


def _no_puts(_entries: Sequence[Entry], _texts: Sequence[bytes], _revisions: Sequence[int]) -> None:
    return None


class FaultySpace(MemorySpace):
    """Fails to read changes when the test says so, and notes what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[BaseException] = []
        self.windows: list[tuple[AnyKind, int, str]] = []
        self.gate: asyncio.Event | None = None
        """Reads of changes wait for it, as those of a database do."""

    async def changes(self, kind: AnyKind, after_revision: int, prefix: str, limit: int) -> Changes:
        self.windows.append((kind, after_revision, prefix))
        found = None
        if not self.failures:
            found = await super().changes(kind, after_revision, prefix, limit)
        if self.gate is not None:
            await self.gate.wait()
        if found is None:
            raise self.failures.pop(0)
        return found


class FakeSink:
    """A client. `is_paused`: it does not read."""

    def __init__(self) -> None:
        self.is_paused = False
        self.is_aborted = False
        self.chunks: list[bytes] = []
        self._resumed = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.chunks.append(data)

    async def give_way(self) -> None:
        if self.is_paused:
            self._resumed.clear()
            await self._resumed.wait()
        await asyncio.sleep(0)

    def resume(self) -> None:
        self.is_paused = False
        self._resumed.set()

    def abort(self) -> None:
        self.is_aborted = True

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = b"".join(chunk.partition(b"\r\n")[2].removesuffix(b"\r\n") for chunk in self.chunks).splitlines()
        return [json.loads(line) for line in lines]

    @property
    def ids(self) -> list[int]:
        return [event["id"] for event in self.events if "id" in event and event["event"] != "ready"]

    @property
    def names(self) -> list[str]:
        return [event["event"] for event in self.events]


class Scene:
    """A store, and its watchers."""

    def __init__(self, space: FaultySpace) -> None:
        self.space = space
        self.store = Store(memory_of(space), Limits())
        self.tasks: list[asyncio.Task[None]] = []

    def watch(self, *prefixes: str, sink: FakeSink | None = None, locks: bool = False, **asked: Any) -> FakeSink:
        sink = FakeSink() if sink is None else sink
        interest = Interest(tuple(sorted(prefixes or ("",))), LINES, with_locks=locks)
        self.tasks.append(asyncio.create_task(self.store.watch(Watch(interest, **asked), sink)))
        return sink

    def commit(self, *names: str, value: bytes = b"1", remove: bool = False, locks: bool = False) -> None:
        """Commit changes of these names, each at its own revision."""

        def decide(view: View, revision: int, now: int) -> Sequence[Change]:
            numbered = enumerate(names, start=revision + 1)
            if locks:
                return [LeaseEnd(name, number) for number, name in numbered]
            if remove:
                return [Deletion(name, number) for number, name in numbered]
            return [Entry(name, value, number, now, now) for number, name in numbered]

        self.space.commit(Touched({}), decide, lambda _: None)

    @property
    def state(self) -> dict[str, int]:
        return {name: entry.revision for name, entry in self.space._state.records(ENTRY).items()}

    async def settle(self, iterations: int = 60) -> None:
        for _ in range(iterations):
            await asyncio.sleep(0)


def scenario(test: Callable[[Scene], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        async def play() -> None:
            scene = Scene(FaultySpace())
            await scene.store.open()
            async with asyncio.timeout(SECONDS):
                await test(scene)
                for task in scene.tasks:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
            assert len(scene.store._watching) == 0
            live = scene.store._watching._live
            assert not live
            assert (live._index._by_prefix, live._index._lengths, live._groups_with_locks) == ({}, {}, 0)
            assert (len(live._heartbeats), scene.store._watching.lag) == (0, 0)
            await scene.store.close()

        asyncio.run(play())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def applied(sink: FakeSink) -> dict[str, int]:
    """The state that a client has after these events. The ids must ascend."""
    state: dict[str, int] = {}
    ids = sink.ids
    assert ids == sorted(set(ids)), ids
    for event in sink.events:
        if event["event"] == "put":
            state[event["data"]["key"]] = event["data"]["revision"]
        elif event["event"] == "delete":
            state.pop(event["data"]["key"], None)
        elif event["event"] == "reset":
            state.clear()
    return state


# Live ---------------------------------------------------------------------------------------------------------


@scenario
async def test_a_commit_is_encoded_once_for_all_watchers_with_the_same_interest(scene: Scene) -> None:
    encoded: list[int] = []

    class Counting(EventFormat):
        def changes(self, changes: Sequence[Change]) -> bytes:
            encoded.append(len(changes))
            return LINES.changes(changes)

    counting = Counting(_nothing, _no_put, _no_puts, is_text=True, with_values=True)
    sinks = []
    for _ in range(50):
        sinks.append(FakeSink())
        watch = Watch(Interest(("a",), counting))
        scene.tasks.append(asyncio.create_task(scene.store.watch(watch, sinks[-1])))
    await scene.settle()
    scene.commit("a", "b", "a2")
    await scene.settle()
    assert encoded == [2]
    assert all(sink.ids == [1, 3] for sink in sinks)
    assert sinks[0].chunks[-1] is sinks[-1].chunks[-1]


@scenario
async def test_each_watcher_gets_what_it_asked_for(scene: Scene) -> None:
    every, one, two, none = scene.watch(), scene.watch("a/"), scene.watch("a/", "b"), scene.watch("x")
    await scene.settle()
    scene.commit("a/1", "b", "c", "a/2")
    await scene.settle()
    scene.commit("a/1", remove=True)
    await scene.settle()
    assert (every.ids, one.ids, two.ids, none.ids) == ([1, 2, 3, 4, 5], [1, 4, 5], [1, 2, 4, 5], [])


@scenario
async def test_locks_are_merged_in_the_order_of_revisions(scene: Scene) -> None:
    with_locks, without = scene.watch(locks=True), scene.watch()
    await scene.settle()
    scene.commit("a")
    scene.commit("l", locks=True)
    scene.commit("b")
    await scene.settle()
    assert (with_locks.ids, without.ids) == ([1, 2, 3], [1, 3])


@scenario
async def test_leases_are_not_read_while_nobody_watches_them(scene: Scene) -> None:
    scene.watch()
    await scene.settle()
    scene.commit("a")
    await scene.settle()
    assert {kind for kind, *_ in scene.space.windows} == {ENTRY}
    scene.watch(locks=True)
    await scene.settle()
    assert {kind for kind, *_ in scene.space.windows} == {ENTRY, LEASE}


@scenario
async def test_a_watcher_of_locks_that_becomes_live_during_a_read_without_locks_misses_none(scene: Scene) -> None:
    scene.watch()
    await scene.settle()
    gate = scene.space.gate = asyncio.Event()
    scene.commit("l", locks=True)
    await scene.settle()
    scene.space.gate = None
    with_locks = scene.watch(since=0, locks=True)
    await scene.settle()
    gate.set()
    await scene.settle()
    assert with_locks.ids == [1]


@scenario
async def test_nothing_is_read_for_commits_while_nobody_watches(scene: Scene) -> None:
    sink = scene.watch()
    await scene.settle()
    scene.tasks.pop().cancel()
    await scene.settle()
    read = len(scene.space.windows)
    scene.commit("a")
    await scene.settle()
    assert (len(scene.space.windows), sink.ids) == (read, [])


@scenario
async def test_a_large_fan_out_gives_way_to_other_work(scene: Scene) -> None:
    sinks = [scene.watch() for _ in range(10 * live_watchers.SLICE_WRITES)]
    await scene.settle()
    scene.commit("a")
    steps = 0
    while not sinks[-1].ids:
        await asyncio.sleep(0)
        steps += 1
    assert steps > 8


# Behind -------------------------------------------------------------------------------------------------------


@scenario
async def test_a_slow_reader_keeps_a_cursor_and_no_events(scene: Scene) -> None:
    slow, quick = scene.watch(), scene.watch()
    await scene.settle()
    slow.is_paused = True
    for number in range(200):
        scene.commit(f"k{number % 3}")
        await scene.settle(5)
    assert len(slow.chunks) <= 2
    slow.resume()
    await scene.settle()
    assert applied(slow) == applied(quick) == scene.state
    assert (len(quick.ids), len(slow.ids) <= 4) == (200, True)
    scene.commit("last")
    await scene.settle()
    assert applied(slow) == scene.state


@scenario
@pytest.mark.long
async def test_readers_of_any_pace_end_with_the_state_of_the_store(scene: Scene) -> None:
    """Each pauses and resumes in a rhythm of its own, also in the middle of windows of several pieces."""
    sinks = [scene.watch(*prefixes) for prefixes in [("",), ("k",), ("k1", "k2"), ("k1",)] for _ in range(40)]
    await scene.settle()
    for number in range(400):
        scene.commit(*(f"k{(number * each) % 23}" for each in (1, 7)), value=b'"%b"' % (b"x" * 9_000))
        if number % 5 == 0:
            scene.commit(f"k{number % 23}", remove=True)
        for index, sink in enumerate(sinks):
            if (number + index) % (3 + index % 7) == 0:
                sink.is_paused = True
            elif sink.is_paused and (number + index) % 4 == 0:
                sink.resume()
        await scene.settle(1 + number % 4)
    for sink in sinks:
        sink.resume()
    await scene.settle(400)
    for index, sink in enumerate(sinks):
        prefixes = [("",), ("k",), ("k1", "k2"), ("k1",)][index // 40]
        assert applied(sink) == {name: at for name, at in scene.state.items() if name.startswith(prefixes)}


@scenario
async def test_a_watcher_becomes_live_while_changes_are_committed_all_the_time(scene: Scene) -> None:
    for number in range(3_000):
        scene.commit(f"k{number}")
    first = scene.watch()
    late = scene.watch(since=0)
    live = scene.store._watching._live
    for number in range(300):
        scene.commit(f"n{number}")
        await asyncio.sleep(0)
    groups = [group for group in live._groups.values() for _ in group.watchers]
    assert len(groups) == 2
    await scene.settle()
    assert applied(late) == scene.state
    assert first.ids[-1] == late.ids[-1]


@scenario
async def test_a_window_of_the_history_that_is_read_slowly_does_not_confuse_the_order(scene: Scene) -> None:
    """The reads of the history take time, as on PostgreSQL. Meanwhile watchers come and go, and commits are made."""
    scene.space.gate = asyncio.Event()

    async def open_now_and_then() -> None:
        assert scene.space.gate is not None
        while True:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            scene.space.gate.set()
            await asyncio.sleep(0)
            scene.space.gate.clear()

    opening = asyncio.create_task(open_now_and_then())
    sinks = []
    for number in range(300):
        scene.commit(f"k{number % 11}")
        if number % 3 == 0:
            sinks.append(scene.watch(with_snapshot=True))
        if number % 7 == 0:
            sinks[number // 14].is_paused = True
        if number % 10 == 0:
            sinks[number // 20].resume()
        await scene.settle(number % 5)
    for sink in sinks:
        sink.resume()
    await scene.settle(2_000)
    opening.cancel()
    scene.space.gate.set()
    await scene.settle()
    assert all(applied(sink) == scene.state for sink in sinks)


# History that is gone -----------------------------------------------------------------------------------------


def compact(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit more changes than the history keeps."""
    monkeypatch.setattr(base, "HISTORY_CHANGES", 50)
    for number in range(1_200):
        scene.commit(f"k{number % 3}")


def test_a_slow_reader_with_a_snapshot_begins_again_when_its_history_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    @scenario
    async def run(scene: Scene) -> None:
        scene.commit("gone")
        sink = scene.watch(with_snapshot=True)
        await scene.settle()
        sink.is_paused = True
        scene.commit("gone", remove=True)
        await scene.settle()
        compact(scene, monkeypatch)
        sink.resume()
        await scene.settle()
        assert applied(sink) == scene.state
        names = [event for event in sink.names if event in ("ready", "reset")]
        assert names == ["ready", "reset", "ready"]

    run()


def test_a_slow_reader_without_a_snapshot_ends_when_its_history_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    @scenario
    async def run(scene: Scene) -> None:
        sink = scene.watch()
        await scene.settle()
        sink.is_paused = True
        scene.commit("a")
        await scene.settle()
        compact(scene, monkeypatch)
        sink.resume()
        await scene.settle()
        end = sink.events[-1]
        oldest = scene.space.revision - 50
        assert (end["event"], end["data"]["error"], end["data"]["oldest"]) == ("end", "revision_compacted", oldest)

    run()


@scenario
async def test_a_cursor_from_another_history_is_not_known(scene: Scene) -> None:
    scene.commit("a", "b")
    await scene.store.require_known(2)
    await scene.store.require_known(0)
    with pytest.raises(ServiceError) as caught:
        await scene.store.require_known(3)
    assert (caught.value.code, caught.value.details) == ("revision_compacted", {"oldest": 2})
    sink = scene.watch(since=3, with_snapshot=True)
    await scene.settle()
    assert (sink.names, applied(sink)) == (["reset", "put", "put", "ready"], scene.state)


# Progress -----------------------------------------------------------------------------------------------------


@scenario
async def test_progress_is_sent_after_silence_and_not_to_readers_that_are_behind(scene: Scene) -> None:
    silent, spoken, slow = scene.watch("x", heartbeat_seconds=1.0), scene.watch(heartbeat_seconds=60.0), scene.watch()
    await scene.settle()
    scene.commit("a")
    await scene.settle()
    slow.is_paused = True
    while "progress" not in silent.names:  # noqa: ASYNC110 - nothing tells of an event
        await asyncio.sleep(0.05)
    assert silent.ids == [1]
    assert ("progress" in spoken.names, "progress" in slow.names) == (False, False)


@scenario
async def test_progress_is_sent_while_the_storage_is_away(scene: Scene) -> None:
    sink = scene.watch(heartbeat_seconds=1.0)
    await scene.settle()
    scene.space.failures = [unavailable("away") for _ in range(1_000)]
    scene.commit("a")
    while "progress" not in sink.names:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.05)
    assert sink.ids == [0]
    scene.space.failures = []
    while 1 not in sink.ids:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.05)
    assert applied(sink) == scene.state


@scenario
async def test_the_lag_is_that_of_the_slowest_watcher(scene: Scene) -> None:
    slow, _quick = scene.watch(), scene.watch()
    await scene.settle()
    scene.commit("a", "b", "c")
    await scene.settle()
    assert scene.store._watching.lag == 0
    slow.is_paused = True
    for number in range(5):
        scene.commit(f"k{number}")
        await scene.settle()
    assert scene.store._watching.lag == 5
    slow.resume()
    await scene.settle()
    assert scene.store._watching.lag == 0


# Faults -------------------------------------------------------------------------------------------------------


@scenario
async def test_changes_are_read_again_when_the_storage_is_back(scene: Scene) -> None:
    sink = scene.watch()
    await scene.settle()
    scene.space.failures = [unavailable("away")]
    scene.commit("a")
    await scene.settle()
    assert sink.ids == []
    while not sink.ids:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.05)
    assert applied(sink) == scene.state


@scenario
async def test_an_unexpected_exception_costs_no_event(scene: Scene) -> None:
    class Breaking(EventFormat):
        breaks = 0

        def changes(self, changes: Sequence[Change]) -> bytes:
            if self.breaks:
                self.breaks -= 1
                raise MemoryError
            return LINES.changes(changes)

    breaking = Breaking(_nothing, _no_put, _no_puts, is_text=True, with_values=True)
    sink, healthy = FakeSink(), scene.watch()
    scene.tasks.append(asyncio.create_task(scene.store.watch(Watch(Interest(("",), breaking)), sink)))
    await scene.settle()
    breaking.breaks = 1
    scene.commit("a", "b")
    await scene.settle()
    scene.commit("c")
    await scene.settle()
    assert applied(sink) == scene.state
    assert {event["data"]["key"] for event in healthy.events if event["event"] == "put"} == {"a", "b", "c"}


@scenario
async def test_a_watch_ends_with_an_error_when_the_storage_fails_while_it_catches_up(scene: Scene) -> None:
    scene.space.failures = [unavailable("away")]
    sink = scene.watch()
    await scene.settle()
    assert sink.names == ["ready", "end"]
    assert sink.events[-1]["data"] == {"error": "unavailable", "message": "away"}


# Ends ---------------------------------------------------------------------------------------------------------


@scenario
async def test_a_stop_ends_live_and_new_watches_and_cuts_readers_that_do_not_read(scene: Scene) -> None:
    live, slow = scene.watch(), scene.watch()
    await scene.settle()
    slow.is_paused = True
    scene.store.stop_waiting()
    new = scene.watch(with_snapshot=True)
    await scene.settle()
    assert (live.names, new.names, slow.is_aborted) == (["ready", "end"], ["end"], True)


@scenario
async def test_a_stop_does_not_wait_for_a_storage_that_does_not_answer(scene: Scene) -> None:
    scene.space.gate = asyncio.Event()
    stuck = scene.watch(since=0)
    await scene.settle()
    scene.store.stop_waiting()
    while not stuck.is_aborted:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.05)
    scene.space.gate.set()


@scenario
async def test_a_task_that_has_failed_is_started_again(scene: Scene) -> None:
    sink = scene.watch()
    await scene.settle()
    task = scene.store._watching._live._task
    assert task is not None
    task.cancel()
    await scene.settle()
    scene.commit("a")
    while not sink.ids:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.05)
    assert applied(sink) == scene.state


@scenario
async def test_a_watch_ends_when_its_token_expires(scene: Scene) -> None:
    for number in range(100):
        scene.commit(f"k{number}", value=b'"%b"' % (b"x" * 50_000))
    live, behind = scene.watch(token_seconds=0.05), scene.watch(since=0, token_seconds=0.05)
    await asyncio.sleep(0)
    behind.is_paused = True
    await asyncio.sleep(0.2)
    behind.resume()
    scene.commit("after")
    await scene.settle()
    for sink in (live, behind):
        assert sink.events[-1]["data"]["error"] == "unauthenticated"
        assert "after" not in applied(sink)
