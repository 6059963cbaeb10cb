"""`GET /watch`: the events of entries and locks, from a snapshot, from a cursor, or from now on."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from callers import BOTH, FORBIDDEN, UNAUTHENTICATED, WRITER, bearer, token
from databases import STORES
from running import Server, Wire, leasehold, message, refusal, running, until
from waiting import LIVE, SOON_SECONDS, Go, every_store, is_silent, ways_to_go
from watching import EVENTS, LINES, PACKED, Event, Watch, brief, put, watchers

INVALID = (400, "invalid_argument")
COMPACTED = (410, "revision_compacted")
formats = pytest.mark.parametrize("accept", [EVENTS, LINES, PACKED])


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


@pytest.fixture(scope="module")
def guarded(any_guarded: Server) -> Server:
    """Permissions are tested on every engine, too."""
    return any_guarded


# Events -------------------------------------------------------------------------------------------------------


@formats
def test_a_watcher_is_sent_each_change_as_it_is_committed(server: Server, key: str, accept: str) -> None:
    with Watch(server, f"prefix={key}/", accept=accept) as watch:
        head = watch.next()
        first = put(server, f"{key}/ä", {"text": "\x85\u2028\n"})
        entry = server.get(f"{key}/ä").json()
        assert watch.next() == Event("put", entry, first)
        deleted = server.delete(f"{key}/ä").json()["revision"]
        assert watch.next() == Event("delete", {"key": f"{key}/ä", "revision": deleted}, deleted)
    assert (head.name, head.data, head.id is not None) == ("ready", {"revision": head.id}, True)
    assert head.id is not None
    assert head.id < first < deleted


@formats
def test_values_false_leaves_the_values_out(server: Server, key: str, accept: str) -> None:
    put(server, f"{key}/a")
    with Watch(server, f"prefix={key}/&values=false&snapshot", accept=accept) as watch:
        snapshot = watch.ready()
        put(server, f"{key}/a", 2)
        entries = [*snapshot, watch.next()]
    assert [sorted(event.data) for event in entries] == [["created_at", "key", "revision", "updated_at"]] * 2


def test_the_default_representation_is_server_sent_events(server: Server, key: str) -> None:
    for accept in ({}, {"Accept": "*/*"}, {"Accept": "text/event-stream"}):
        response = server.request("GET", f"/watch?prefix={key}", headers=accept)
        assert response.headers["Content-Type"] == "text/event-stream"
    assert refusal(server.request("GET", "/watch", headers={"Accept": "text/html"}))[0] == 406


def test_the_head_is_sent_at_once_and_forbids_buffering(server: Server, key: str) -> None:
    with Watch(server, f"prefix={key}") as watch:
        told = {name: watch.head.headers[name] for name in ("cache-control", "x-accel-buffering", "transfer-encoding")}
    assert told == {"cache-control": "no-store", "x-accel-buffering": "no", "transfer-encoding": "chunked"}


def test_a_head_request_gets_the_head_alone(server: Server) -> None:
    response = server.request("HEAD", "/watch?snapshot")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/event-stream")


def test_an_entry_that_expires_is_deleted(server: Server, key: str) -> None:
    with Watch(server, f"prefix={key}/") as watch:
        watch.ready()
        first = put(server, f"{key}/a", params={"ttl": 0.5})
        put_event, deletion = watch.take(2)
    assert (put_event.id, "expires_at" in put_event.data) == (first, True)
    assert (deletion.name, deletion.subject, deletion.revision > first) == ("delete", f"{key}/a", True)


# Snapshot and cursor ------------------------------------------------------------------------------------------


@formats
def test_a_snapshot_comes_before_ready_and_has_no_ids(server: Server, key: str, accept: str) -> None:
    revisions = {f"{key}/{number:02}": put(server, f"{key}/{number:02}", number) for number in range(40)}
    server.delete(f"{key}/07")
    del revisions[f"{key}/07"]
    with Watch(server, f"prefix={key}/&snapshot", accept=accept) as watch:
        found = watch.ready()
        changed = put(server, f"{key}/new")
        after = watch.next()
    assert [(event.name, event.id) for event in found] == [("put", None)] * 39
    assert {event.subject: event.revision for event in found} == revisions
    assert (after.subject, after.id) == (f"{key}/new", changed)


def test_since_is_exclusive_and_reports_deletions(server: Server, key: str) -> None:
    first, second = put(server, f"{key}/a"), put(server, f"{key}/b")
    third = server.delete(f"{key}/a").json()["revision"]
    with Watch(server, f"prefix={key}/&since={first}") as watch:
        assert watch.next() == Event("ready", {"revision": first}, first)
        assert brief(watch.take(2)) == [("put", f"{key}/b", second), ("delete", f"{key}/a", third)]
    with Watch(server, f"prefix={key}/&since={second}") as watch:
        watch.ready()
        assert brief([watch.next()]) == [("delete", f"{key}/a", third)]


def test_a_watcher_that_resumes_gets_the_latest_state_of_each_key(server: Server, key: str) -> None:
    first = last_b = put(server, f"{key}/a")
    for number in range(5):
        put(server, f"{key}/a", number)
        last_b = put(server, f"{key}/b", number)
    last_a = put(server, f"{key}/a", "last")
    with Watch(server, f"prefix={key}/&since={first}") as watch:
        watch.ready()
        found = watch.through(last_a)
    assert brief(found) == [("put", f"{key}/b", last_b), ("put", f"{key}/a", last_a)]


def test_the_id_of_the_last_event_wins_over_since(server: Server, key: str) -> None:
    first, second = put(server, f"{key}/a"), put(server, f"{key}/b")
    with Watch(server, f"prefix={key}/&since=0", f"Last-Event-ID: {first}") as watch:
        assert watch.next().id == first
        assert brief([watch.next()]) == [("put", f"{key}/b", second)]
    with Watch(server, f"prefix={key}/&since={second}", "Last-Event-ID: ") as watch:
        assert watch.next().id == second


def test_a_watcher_that_resumes_from_any_id_misses_nothing(server: Server, key: str) -> None:
    start = put(server, f"{key}/0")
    for number in range(1, 9):
        put(server, f"{key}/{number % 4}", number)
    last = server.delete(f"{key}/1").json()["revision"]
    with Watch(server, f"prefix={key}/&since={start}") as watch:
        watch.ready()
        events = watch.through(last)
    for index, event in enumerate(events):
        with Watch(server, f"prefix={key}/", f"Last-Event-ID: {event.id}") as watch:
            watch.ready()
            rest = watch.through(last) if index + 1 < len(events) else []
        assert rest == events[index + 1 :]


def test_with_since_and_snapshot_a_known_cursor_is_resumed(server: Server, key: str) -> None:
    first, second = put(server, f"{key}/a"), put(server, f"{key}/b")
    with Watch(server, f"prefix={key}/&snapshot&since={first}") as watch:
        assert watch.next() == Event("ready", {"revision": first}, first)
        assert brief([watch.next()]) == [("put", f"{key}/b", second)]


def test_with_since_and_snapshot_an_unknown_cursor_is_reset(server: Server, key: str) -> None:
    put(server, f"{key}/a")
    last = put(server, f"{key}/b")
    with Watch(server, f"prefix={key}/&snapshot&since={10**15}") as watch:
        reset = watch.next()
        snapshot = watch.ready()
        changed = put(server, f"{key}/a", 2)
        assert brief([watch.next()]) == [("put", f"{key}/a", changed)]
    assert (reset.name, reset.id, reset.revision >= last) == ("reset", None, True)
    assert brief(snapshot) == [("put", f"{key}/a", None), ("put", f"{key}/b", None)]


def test_a_cursor_from_another_history_is_refused_with_410(server: Server, key: str) -> None:
    last = put(server, f"{key}/a")
    for query, field in ((f"since={10**15}", ""), ("", str(10**15))):
        refused = server.request("GET", f"/watch?{query}", headers={"Last-Event-ID": field})
        assert refusal(refused) == COMPACTED
        assert refused.json()["oldest"] >= last
        assert server.request("GET", f"/watch?since={refused.json()['oldest']}").status_code == 200


def test_a_cursor_from_before_a_restore_is_refused_with_410(tmp_path: Path) -> None:
    store, backup = tmp_path / "data.json", tmp_path / "backup"
    with running(store) as own:
        put(own, "a")
        backup.write_bytes(own.request("GET", "/backup").content)
    store.unlink()
    assert leasehold("restore", str(backup), f"--store={store}").returncode == 0
    with running(store) as own:
        oldest = own.revision()
        refused = own.request("GET", f"/watch?since={oldest - 1}")
        assert (refusal(refused), refused.json()["oldest"]) == (COMPACTED, oldest)
        with Watch(own, f"since={oldest}") as watch:
            watch.ready()
            changed = put(own, "b")
            assert watch.next().id == changed
        with Watch(own, f"snapshot&since={oldest - 1}") as watch:
            assert [watch.next().name, *(event.subject for event in watch.ready())] == ["reset", "a", "b"]


# Revisions ----------------------------------------------------------------------------------------------------


@formats
def test_only_the_last_event_of_a_revision_has_an_id(server: Server, key: str, accept: str) -> None:
    names = [f"{key}/a", f"{key}/b", f"other-{key}", f"{key}/c", f"other-{key}/2"]
    do = [{"op": "put", "key": name, "value": 1} for name in names]
    with Watch(server, f"prefix={key}/", accept=accept) as watch:
        cursor = watch.next().id
        revision = server.request("POST", "/txn", json={"do": do}).json()["revision"]
        live = watch.take(3)
    with Watch(server, f"prefix={key}/&since={cursor}", accept=accept) as watch:
        watch.ready()
        caught_up = watch.take(3)
    assert live == caught_up
    assert {event.subject for event in live} == {f"{key}/a", f"{key}/b", f"{key}/c"}
    assert [(event.revision, event.id) for event in live] == [(revision, None), (revision, None), (revision, revision)]


def test_progress_moves_the_cursor_when_all_changes_are_filtered_out(server: Server, key: str) -> None:
    with Watch(server, f"prefix={key}/&heartbeat=1") as watch:
        watch.ready()
        last = put(server, f"other-{key}")
        events = watch.through(last)
    assert {event.name for event in events} == {"progress"}
    assert events[-1].data == {"revision": events[-1].id}


def test_progress_comes_after_the_heartbeat_of_silence(server: Server, key: str) -> None:
    started = time.monotonic()
    with Watch(server, f"prefix={key}/&heartbeat=1.5") as watch:
        names = [event.name for event in watch.take(3)]
        took = time.monotonic() - started
    assert (names, 3 <= took < 3 + SOON_SECONDS) == (["ready", "progress", "progress"], True)


@pytest.mark.long
def test_progress_comes_after_15_seconds_unless_the_request_says_otherwise() -> None:
    with running() as own, Watch(own) as watch:
        watch.ready()
        started = time.monotonic()
        assert watch.next().name == "progress"
        assert 14 <= time.monotonic() - started < 15 + SOON_SECONDS


def test_events_come_in_the_order_of_revisions(server: Server, key: str) -> None:
    with Watch(server, f"prefix={key}/&locks") as watch, Wire(server) as writer:
        watch.ready()
        for number in range(100):
            writer.send(message("PUT", f"/kv/{key}/{number % 7}", body=b"1"))
            if number % 10 == 0:
                writer.send(message("POST", f"/locks/{key}/{number}", body=b"{}"))
        for _ in range(110):
            assert writer.answer().status in (200, 201)
        events = watch.through(server.get(f"{key}/{99 % 7}").json()["revision"])
    revisions = [event.revision for event in events]
    assert revisions == sorted(set(revisions)) == [event.id for event in events]
    assert {event.subject for event in events} >= {f"{key}/{number}" for number in range(7)}


# Locks --------------------------------------------------------------------------------------------------------


@formats
def test_changes_of_locks_are_sent_only_if_asked_for_and_never_with_a_lease_id(
    server: Server, key: str, accept: str
) -> None:
    with (
        Watch(server, f"prefix={key}/&locks", accept=accept) as with_locks,
        Watch(server, f"prefix={key}/", accept=accept) as without,
    ):
        with_locks.ready(), without.ready()
        lease = server.lease(f"{key}/l", owner={"host": "a"}, ttl=60)
        events = [with_locks.next()]
        renewed = server.renew(f"{key}/l", lease["lease_id"], ttl=1_000).json()
        events.append(with_locks.next())
        released = server.release(f"{key}/l", lease["lease_id"]).json()["revision"]
        events.append(with_locks.next())
        last = put(server, f"{key}/a")
        assert brief(without.through(last)) == [("put", f"{key}/a", last)]
    held = {"lock": f"{key}/l", "state": "held", "token": lease["token"], "owner": {"host": "a"}}
    states = [
        held | {"expires_at": lease["expires_at"], "revision": lease["token"]},
        held | {"expires_at": renewed["expires_at"], "revision": events[1].id},
        {"lock": f"{key}/l", "state": "free", "revision": released},
    ]
    assert [(event.name, event.data) for event in events] == [("lock", state) for state in states]
    assert lease["token"] == events[0].id
    assert lease["lease_id"] not in repr(events)


def test_a_snapshot_with_locks_has_the_leases_that_are_alive(server: Server, key: str) -> None:
    put(server, f"{key}/a")
    lease = server.lease(f"{key}/l", ttl=1_000)
    gone = server.lease(f"{key}/m", ttl=1_000)
    server.release(f"{key}/m", gone["lease_id"])
    with Watch(server, f"prefix={key}/&locks&snapshot") as watch:
        snapshot = watch.ready()
        released = server.release(f"{key}/l", lease["lease_id"]).json()["revision"]
        assert brief([watch.next()]) == [("lock", f"{key}/l", released)]
    assert brief(snapshot) == [("put", f"{key}/a", None), ("lock", f"{key}/l", None)]
    assert snapshot[1].data["token"] == lease["token"]


# Prefixes and parameters --------------------------------------------------------------------------------------


def test_several_prefixes_may_overlap_and_each_event_comes_once(server: Server, key: str) -> None:
    query = "&".join(f"prefix={key}/{prefix}" for prefix in ("b", "a/", "a/1", "b", "%C3%BC"))
    with Watch(server, f"{query}&snapshot") as watch:
        watch.ready()
        names = ("a", "a/1", "a/12", "a/2", "b", "ba", "c", "ü/1")
        revisions = {name: put(server, f"{key}/{name}") for name in names}
        events = watch.through(revisions["ü/1"])
    expected = [(f"{key}/{name}", revisions[name]) for name in names if name not in ("a", "c")]
    assert [(event.subject, event.id) for event in events] == expected


def test_at_most_16_prefixes_are_accepted(server: Server) -> None:
    sixteen = "&".join(f"prefix={number}" for number in range(16))
    assert server.request("GET", f"/watch?{sixteen}").status_code == 200
    refused = server.request("GET", f"/watch?{sixteen}&prefix=x")
    assert (refusal(refused), refused.json()["limit"]) == (INVALID, 16)


@pytest.mark.parametrize(
    "query",
    [
        "since=-1",
        "since=x",
        "since=1.5",
        "since=",
        "since=1&since=2",
        f"since={10**18}",
        "heartbeat=0.9",
        "heartbeat=60.1",
        "heartbeat=x",
        "snapshot=maybe",
        "locks=2",
        "values=no",
        f"prefix={'x' * 513}",
        "path=/a",
        "wait=1",
        "limit=1",
    ],
)
def test_a_bad_parameter_is_refused(server: Server, query: str) -> None:
    assert refusal(server.request("GET", f"/watch?{query}")) == INVALID


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "1, 2", "9" * 19])
def test_a_bad_last_event_id_is_refused(server: Server, cursor: str) -> None:
    assert refusal(server.request("GET", "/watch", headers={"Last-Event-ID": cursor})) == INVALID


def test_http_1_0_is_refused_because_a_stream_would_have_no_end(server: Server) -> None:
    with Wire(server) as wire:
        answer = wire.send(message("GET", "/watch", version="HTTP/1.0")).answer()
    assert (answer.refusal, answer.headers["upgrade"]) == ((426, "upgrade_required"), "HTTP/1.1")


# Tokens -------------------------------------------------------------------------------------------------------


def test_a_watch_needs_the_permission_to_read(guarded: Server) -> None:
    assert refusal(guarded.request("GET", "/watch")) == UNAUTHENTICATED
    assert refusal(guarded.request("GET", "/watch", headers=WRITER)) == FORBIDDEN


def authorization(headers: dict[str, str]) -> str:
    return f"Authorization: {headers['Authorization']}"


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("snapshot", ["a/1", "a/2", "c/1"]),
        ("snapshot&prefix=a/1", ["a/1"]),
        ("snapshot&prefix=&prefix=a", ["a/1", "a/2", "c/1"]),
        ("snapshot&prefix=b", []),
    ],
)
def test_the_prefixes_of_the_token_filter_the_events(guarded: Server, key: str, query: str, seen: list[str]) -> None:
    names = [f"{key}/{name}" for name in ("a/1", "a/2", "b/1", "c/1")]
    query = query.replace("prefix=", f"prefix={key}/")
    reader = bearer(token("read", prefixes=[f"{key}/a/", f"{key}/c/"]))
    with Watch(guarded, f"{query}&heartbeat=1&locks", authorization(reader)) as watch:
        watch.ready()
        for name in names:
            put(guarded, name, headers=BOTH)
        last = put(guarded, f"{key}/z", headers=BOTH)
        events = watch.through(last)
    assert [event.subject for event in events if event.name == "put"] == [f"{key}/{name}" for name in seen]


def test_a_watch_ends_when_the_token_expires_and_can_be_resumed(guarded: Server, key: str) -> None:
    reader = bearer(token("read", lifetime_seconds=2))
    started = time.monotonic()
    with Watch(guarded, f"prefix={key}/", authorization(reader)) as watch:
        cursor = watch.next().id
        watch.wire.send(LIVE)
        [end] = watch.rest()
        took = time.monotonic() - started
        assert (end.name, end.data["error"], end.id) == ("end", "unauthenticated", None)
        # The response is complete, so the request behind it is answered, and the connection can be used again.
        assert watch.wire.answer().status == 200
        assert watch.wire.send(LIVE).answer().status == 200
    changed = put(guarded, f"{key}/a", headers=BOTH)
    with Watch(guarded, f"prefix={key}/&since={cursor}", authorization(BOTH)) as watch:
        watch.ready()
        assert watch.next().id == changed
    assert took < 2 + SOON_SECONDS


# Clients ------------------------------------------------------------------------------------------------------


@ways_to_go
def test_a_client_that_disconnects_is_no_longer_a_watcher(server: Server, key: str, go: Go) -> None:
    before = watchers(server)
    with Watch(server, f"prefix={key}") as watch:
        watch.ready()
        assert watchers(server) == before + 1
        go(watch.wire)
        until(lambda: watchers(server) == before)
        put(server, key)


def test_requests_behind_a_watch_are_not_answered(server: Server, key: str) -> None:
    with Watch(server, f"prefix={key}") as watch:
        watch.ready()
        watch.wire.send(LIVE)
        server.request("GET", "/health/live")
        assert is_silent(watch.wire)


def test_all_watchers_of_a_prefix_are_sent_the_same(server: Server, key: str) -> None:
    watches = [Watch(server, f"prefix={key}/", accept=(EVENTS, LINES, PACKED)[number % 3]) for number in range(150)]
    try:
        for watch in watches:
            watch.ready()
        last = 0
        for number in range(20):
            last = put(server, f"{key}/{number % 3}", number)
        seen = [watch.through(last) for watch in watches]
    finally:
        for watch in watches:
            watch.wire.close()
    states = [{event.subject: event.data["value"] for event in events} for events in seen]
    assert states == [{f"{key}/0": 18, f"{key}/1": 19, f"{key}/2": 17}] * len(watches)
    assert all([event.id for event in events] == sorted({event.id or 0 for event in events}) for events in seen)


def test_a_slow_reader_gets_the_latest_states_and_is_not_buffered_for(server: Server, key: str) -> None:
    """It reads nothing during many changes of few keys, of which each has a large value."""
    value, changes, keys, last = "x" * 50_000, 600, 4, 0
    with Watch(server, f"prefix={key}/", receive_buffer_bytes=4_096) as watch:
        watch.ready()
        with Wire(server) as writer:
            for number in range(changes):
                body = json.dumps([number, value]).encode()
                writer.send(message("PUT", f"/kv/{key}/{number % keys}", "Prefer: return=minimal", body=body))
                last = json.loads(writer.answer().body)["revision"]
        events = watch.through(last)
    state = {event.subject: event.data["value"][0] for event in events}
    assert state == {f"{key}/{number % keys}": number for number in range(changes - keys, changes)}
    ids = [event.id or 0 for event in events]
    assert (ids == sorted(set(ids)), len(events) < changes / 2) == (True, True)


# The end of the service ---------------------------------------------------------------------------------------


@every_store
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_stop_ends_all_watches_at_once(tmp_path: Path, store: str, number: signal.Signals) -> None:
    with (
        running(STORES[store](tmp_path)) as own,
        Watch(own, "prefix=small") as idle,
        Watch(own, "prefix=small&snapshot", accept=EVENTS) as other,
        Watch(own, receive_buffer_bytes=4_096) as slow,
    ):
        idle.ready(), other.ready(), slow.ready()
        for each in range(20):
            put(own, f"large/{each}", "x" * 100_000)
        until(lambda: own.revision() == 20)
        started = time.monotonic()
        code = own.terminate(number)
        took = time.monotonic() - started
        ends = [idle.rest()[-1], other.rest()[-1]]
        slow.until_cut()
    assert (code, took < SOON_SECONDS) == (0, True)
    assert [(end.name, end.data["error"], end.id) for end in ends] == [("end", "unavailable", None)] * 2


# Several servers ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    store = STORES["postgres"](tmp_path_factory.mktemp("shared"))
    with running(store) as one, running(store) as other:
        yield one, other


def test_watchers_of_each_server_see_the_commits_of_all_in_order(pair: tuple[Server, Server], key: str) -> None:
    with Watch(pair[0], f"prefix={key}/&locks") as one, Watch(pair[1], f"prefix={key}/&locks") as other:
        one.ready(), other.ready()
        for number in range(40):
            last = put(pair[number % 2], f"{key}/{number % 5}", number)
            if number % 8 == 0:
                pair[number % 2].lease(f"{key}/lock-{number}", ttl=1_000)
        last = put(pair[1], f"{key}/last")
        seen = [one.through(last), other.through(last)]
    for events in seen:
        ids = [event.id or 0 for event in events]
        assert ids == sorted(set(ids))
        state = {event.subject: event.data["value"] for event in events if event.name == "put"}
        assert state == {f"{key}/{number}": 35 + number for number in range(5)} | {f"{key}/last": 1}
        assert {event.subject for event in events if event.name == "lock"} == {
            f"{key}/lock-{number}" for number in range(0, 40, 8)
        }


def test_a_watcher_that_changes_its_server_misses_nothing(pair: tuple[Server, Server], key: str) -> None:
    cursor, state = put(pair[0], f"{key}/0", -1), {}
    for number in range(20):
        last = put(pair[number % 2], f"{key}/{number % 3}", number)
        with Watch(pair[(number + 1) % 2], f"prefix={key}/&since={cursor}") as watch:
            watch.ready()
            for event in watch.through(last):
                state[event.subject] = event.data["value"]
                assert event.id is not None
                cursor = event.id
    assert state == {f"{key}/0": 18, f"{key}/1": 19, f"{key}/2": 17}
