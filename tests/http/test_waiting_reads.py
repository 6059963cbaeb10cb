"""Waiting for one key: `wait` holds a 304 or 404 back until there is another answer, or until the time is over."""

import contextlib
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from callers import FORBIDDEN, READER, UNAUTHENTICATED, WRITER, bearer, put, token
from databases import STORES, database_for
from running import Answer, Server, Wire, message, refusal, running, tag_of, until
from waiting import LIVE, SOON_SECONDS, Go, every_store, is_silent, ways_to_go

NOT_FOUND = (404, "not_found")
PATH_NOT_FOUND = (404, "path_not_found")
LONG = 60
SHORT = 0.3

Wires = Callable[[], Wire]


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


@pytest.fixture(scope="module")
def guarded(any_guarded: Server) -> Server:
    """Permissions are tested on every engine, too."""
    return any_guarded


def waiting(server: Server, headers: dict[str, str] | None = None) -> int:
    """How many reads wait at a server."""
    metrics = server.request("GET", "/metrics", headers=headers or {}).text
    found = re.search(r"^leasehold_waiting_reads (\d+)", metrics, re.MULTILINE)
    assert found is not None
    return int(found[1])


def ask(server: Server, wire: Wire, target: str, *fields: str, method: str = "GET") -> Wire:
    """Send a request that has to wait, and see that it waits."""
    before = waiting(server)
    wire.send(message(method, target, *fields))
    until(lambda: waiting(server) == before + 1)
    return wire


def unless(server: Server, revision: int, representation: str = "") -> str:
    return f"If-None-Match: {tag_of(server, revision, representation)}"


def revision_of(answer: Answer) -> int:
    assert answer.status == 200, answer.body
    revision: int = json.loads(answer.body)["revision"]
    return revision


# What ends a wait ---------------------------------------------------------------------------------------------


def test_a_client_that_has_the_entry_gets_the_next_one_when_it_changes(server: Server, key: str, wires: Wires) -> None:
    first = server.put(key, "1").json()["revision"]
    wire = ask(server, wires(), f"/kv/{key}?wait={LONG}", unless(server, first))
    second = server.put(key, "2").json()["revision"]
    answer = wire.answer()
    assert (answer.value, revision_of(answer)) == (2, second)
    assert answer.headers["etag"] == tag_of(server, second)


def test_a_client_that_waits_for_a_missing_key_gets_the_entry_when_it_exists(
    server: Server, key: str, wires: Wires
) -> None:
    wire = ask(server, wires(), f"/kv/{key}?wait={LONG}")
    server.put(key, '"new"')
    assert wire.answer().value == "new"


def test_a_client_that_waits_for_a_part_gets_it_when_it_exists(server: Server, key: str, wires: Wires) -> None:
    server.put(key, '{"state": "running"}')
    wire = ask(server, wires(), f"/kv/{key}?path=/result&wait={LONG}")
    server.patch(key, '{"state": "ending"}')
    server.patch(key, '{"result": [1]}')
    answer = wire.answer()
    assert (answer.value, json.loads(answer.body)["path"]) == ([1], "/result")


@pytest.mark.parametrize("representation", ["-raw", "-msgpack"])
def test_a_wait_compares_the_etag_of_the_representation(
    server: Server, key: str, wires: Wires, representation: str
) -> None:
    revision = server.put(key, "1").json()["revision"]
    target = f"/kv/{key}?wait={LONG}" + ("&raw" if representation == "-raw" else "")
    accept = "Accept: application/vnd.msgpack" if representation == "-msgpack" else "Accept: application/json"
    at_once = wires().send(message("GET", target, accept, unless(server, revision))).answer()
    assert at_once.status == 200
    wire = ask(server, wires(), target, accept, unless(server, revision, representation))
    changed = server.put(key, "2").json()["revision"]
    answer = wire.answer()
    assert (answer.status, answer.headers["etag"]) == (200, tag_of(server, changed, representation))


def test_a_deletion_does_not_end_a_wait_and_a_new_entry_does(server: Server, key: str, wires: Wires) -> None:
    first = server.put(key, "1").json()["revision"]
    wire = ask(server, wires(), f"/kv/{key}?wait={LONG}", unless(server, first))
    server.delete(key)
    assert server.get(key).status_code == 404
    assert (is_silent(wire), waiting(server)) == (True, 1)
    server.put(key, "3")
    assert wire.answer().value == 3


def test_changes_of_other_keys_do_not_end_a_wait(server: Server, key: str, wires: Wires) -> None:
    wire = ask(server, wires(), f"/kv/{key}?wait={LONG}")
    for other in (f"{key}/a", key[:-1], f"{key}x"):
        server.put(other, "1")
    assert (is_silent(wire), waiting(server)) == (True, 1)
    server.put(key, "2")
    assert wire.answer().value == 2


def test_all_who_wait_for_a_key_get_its_entry(server: Server, key: str, wires: Wires) -> None:
    many = [wires().send(message("GET", f"/kv/{key}?wait={LONG}")) for _ in range(100)]
    many += [wires().send(message("GET", f"/kv/{key}?path=/a&wait={LONG}")) for _ in range(30)]
    until(lambda: waiting(server) == len(many))
    server.put(key, '{"a": 1}')
    assert [wire.answer().value for wire in many] == [{"a": 1}] * 100 + [1] * 30
    assert waiting(server) == 0


@pytest.mark.parametrize("media", ["application/json", "application/vnd.msgpack", "*/*"])
@pytest.mark.parametrize("waits", [True, False])
def test_a_large_value_that_is_bytes_ends_a_wait(
    server: Server, key: str, wires: Wires, media: str, *, waits: bool
) -> None:
    """It is encoded in pieces."""
    data, headers = bytes(1_000_000), {"Content-Type": "image/png"}
    if waits:
        wire = ask(server, wires(), f"/kv/{key}?base64&wait={LONG}", f"Accept: {media}")
        server.request("PUT", f"/kv/{key}", content=data, headers=headers)
    else:
        server.request("PUT", f"/kv/{key}", content=data, headers=headers)
        wire = wires().send(message("GET", f"/kv/{key}?base64&wait={LONG}", f"Accept: {media}"))
    answer = wire.answer()
    shown = server.request("GET", f"/kv/{key}?base64", headers={"Accept": media})
    assert (answer.status, answer.body) == (200, shown.content)
    assert len(answer.body) >= len(data)


def test_a_head_request_waits_too(server: Server, key: str, wires: Wires) -> None:
    wire = ask(server, wires(), f"/kv/{key}?wait={LONG}", method="HEAD")
    revision = server.put(key, "1").json()["revision"]
    answer = wire.answer(to="HEAD")
    assert (answer.status, answer.headers["etag"], answer.body) == (200, tag_of(server, revision), b"")


def test_a_read_by_uuid_waits_too(server: Server, uuid: str, wires: Wires) -> None:
    wire = ask(server, wires(), f"/get/{uuid.upper()}?wait={LONG}")
    first = server.put(uuid, "1").json()["revision"]
    assert revision_of(wire.answer()) == first
    ask(server, wire, f"/get/{uuid}?wait={LONG}", unless(server, first))
    server.request("POST", "/set", json={"key": uuid, "value": 2})
    assert wire.answer().value == 2


def test_a_client_that_asks_again_with_each_etag_ends_with_the_last_value(
    server: Server, key: str, wires: Wires
) -> None:
    wire, writer = wires(), wires()
    last = 200
    writer.send(*[message("PUT", f"/kv/{key}", body=str(number).encode()) for number in range(1, last + 1)])
    value, tag, seen = 0, '"0"', []
    while value < last:
        answer = wire.send(message("GET", f"/kv/{key}?wait={LONG}", f"If-None-Match: {tag}")).answer()
        value, tag = answer.value, answer.headers["etag"]
        seen.append(revision_of(answer))
    assert seen == sorted(set(seen))


# Without a wait -----------------------------------------------------------------------------------------------


def test_an_entry_that_is_there_is_answered_at_once(server: Server, key: str) -> None:
    revision = server.put(key, '{"a": 1}').json()["revision"]
    assert server.get(key, params={"wait": LONG}).json()["revision"] == revision
    assert server.get(key, params={"wait": LONG, "path": "/a"}).json()["value"] == 1
    older = {"If-None-Match": tag_of(server, revision - 1)}
    assert server.get(key, params={"wait": LONG}, headers=older).status_code == 200


def test_other_errors_are_answered_at_once(server: Server, key: str) -> None:
    server.put(key, "1")
    refused = server.get(key, params={"wait": LONG}, headers={"If-Match": '"0"'})
    assert refusal(refused) == (412, "precondition_failed")
    assert refusal(server.get("a//b", params={"wait": LONG})) == (400, "invalid_key")
    assert refusal(server.get(key, params={"wait": LONG, "path": "a"})) == (400, "invalid_path")


@pytest.mark.parametrize("wait", ["-1", "60.1", "61", "1e1", "nan", "", "x", "1_0"])
def test_a_wait_that_is_no_number_of_seconds_from_0_to_60_is_refused(server: Server, key: str, wait: str) -> None:
    server.put(key, "1")
    assert refusal(server.get(key, params={"wait": wait})) == (400, "invalid_argument")


def test_only_reads_of_one_entry_take_wait(server: Server, key: str) -> None:
    for method, target in (("GET", "/kv"), ("PUT", f"/kv/{key}"), ("DELETE", f"/kv/{key}"), ("GET", "/get")):
        assert refusal(server.request(method, f"{target}?wait=1")) == (400, "invalid_argument")


# The end of the time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [0, SHORT])
def test_the_usual_answer_comes_when_the_time_is_over(server: Server, key: str, wait: float) -> None:
    started = time.monotonic()
    assert refusal(server.get(key, params={"wait": wait})) == NOT_FOUND
    tag = tag_of(server, server.put(key, '{"a": 1}').json()["revision"])
    unchanged = server.get(key, params={"wait": wait}, headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.headers["ETag"]) == (304, tag)
    assert refusal(server.get(key, params={"wait": wait, "path": "/b"})) == PATH_NOT_FOUND
    assert 3 * wait <= time.monotonic() - started < 3 * wait + SOON_SECONDS
    assert waiting(server) == 0


def test_an_entry_that_expires_during_a_wait_is_answered_with_404(server: Server, key: str) -> None:
    revision = server.put(key, "1", params={"ttl": 0.5}).json()["revision"]
    tag = tag_of(server, revision)
    assert refusal(server.get(key, params={"wait": 2}, headers={"If-None-Match": tag})) == NOT_FOUND


# What a wait costs ---------------------------------------------------------------------------------------------


def test_reads_that_wait_hold_no_connection_of_the_database(tmp_path: Path) -> None:
    database = database_for(tmp_path).create()
    sessions = "SELECT state FROM pg_stat_activity WHERE application_name = 'reads that wait'"
    with running(f"{database.url}&application_name=reads%20that%20wait") as own, contextlib.ExitStack() as stack:
        tag = tag_of(own, own.put("a", "1").json()["revision"])
        many = [stack.enter_context(Wire(own)) for _ in range(200)]
        for number, wire in enumerate(many):
            key = "a" if number % 2 else f"missing/{number}"
            wire.send(message("GET", f"/kv/{key}?wait={LONG}", f"If-None-Match: {tag}"))
        until(lambda: waiting(own) == len(many))
        until(lambda: {row["state"] for row in database.fetch(sessions)} == {"idle"})
        assert (len(database.fetch(sessions)) < 20, waiting(own)) == (True, len(many))
        own.put("a", "2")
        assert [wire.answer().value for wire in many[1::2]] == [2] * 100


# Clients that leave -------------------------------------------------------------------------------------------


@ways_to_go
def test_a_client_that_disconnects_waits_no_longer(server: Server, key: str, wires: Wires, go: Go) -> None:
    wire = ask(server, wires(), f"/kv/{key}?wait={LONG}")
    go(wire)
    until(lambda: waiting(server) == 0)
    assert server.put(key, "1").status_code == 201


def test_requests_behind_a_wait_are_answered_after_it(server: Server, key: str, wires: Wires) -> None:
    wire = ask(server, wires(), f"/kv/{key}?wait={LONG}")
    wire.send(LIVE)
    assert is_silent(wire)
    server.put(key, "1")
    assert (wire.answer().value, wire.answer().status) == (1, 200)


def test_a_client_with_http_1_0_can_wait(server: Server, key: str, wires: Wires) -> None:
    wire = wires().send(message("GET", f"/kv/{key}?wait={LONG}", version="HTTP/1.0"))
    until(lambda: waiting(server) == 1)
    server.put(key, "1")
    assert wire.answer().value == 1


# Tokens -------------------------------------------------------------------------------------------------------


def test_a_wait_needs_the_permission_to_read_and_a_prefix_that_covers_the_key(guarded: Server) -> None:
    covered = bearer(token("read", prefixes=["a/"]))
    assert refusal(guarded.get("a/1", params={"wait": 60})) == UNAUTHENTICATED
    assert refusal(guarded.get("a/1", params={"wait": 60}, headers=WRITER)) == FORBIDDEN
    assert refusal(guarded.get("b/1", params={"wait": 60}, headers=covered)) == FORBIDDEN
    assert refusal(guarded.get("a/1", params={"wait": 0}, headers=covered)) == NOT_FOUND


@pytest.mark.parametrize("exists", [False, True], ids=["404", "304"])
def test_a_wait_ends_when_the_token_expires(guarded: Server, key: str, *, exists: bool) -> None:
    if exists:
        put(guarded, key)
    headers = bearer(token("read", lifetime_seconds=2)) | {"If-None-Match": "*"}
    started = time.monotonic()
    assert refusal(guarded.get(key, params={"wait": 60}, headers=headers)) == UNAUTHENTICATED
    assert time.monotonic() - started < 2 + SOON_SECONDS
    assert waiting(guarded, READER) == 0


# The end of the service ---------------------------------------------------------------------------------------


@every_store
def test_a_stop_ends_all_waits_at_once_with_the_usual_answer(tmp_path: Path, store: str) -> None:
    with running(STORES[store](tmp_path)) as own, contextlib.ExitStack() as stack:
        revision = own.put("a", "1").json()["revision"]
        wires = [stack.enter_context(Wire(own)) for _ in range(3)]
        ask(own, wires[0], f"/kv/a?wait={LONG}", unless(own, revision))
        ask(own, wires[1], f"/kv/b?wait={LONG}")
        ask(own, wires[2], f"/kv/a?path=/b&wait={LONG}")
        started = time.monotonic()
        assert own.terminate(signal.SIGTERM) == 0
        took = time.monotonic() - started
        answers = [wire.answer() for wire in wires]
        assert (answers[0].status, answers[1].refusal, answers[2].refusal) == (304, NOT_FOUND, PATH_NOT_FOUND)
        assert [wire.is_cut() for wire in wires] == [True] * 3
    assert took < SOON_SECONDS


# Several servers ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    store = STORES["postgres"](tmp_path_factory.mktemp("shared"))
    with running(store) as one, running(store) as other:
        yield one, other


def test_a_commit_of_another_server_ends_a_wait(pair: tuple[Server, Server], key: str) -> None:
    for number, (here, there) in enumerate([pair, pair[::-1]] * 5):
        with Wire(here) as wire:
            ask(here, wire, f"/kv/{key}/{number}?wait={LONG}")
            revision = there.put(f"{key}/{number}", "1").json()["revision"]
            assert revision_of(wire.answer()) == revision


def test_clients_of_two_servers_see_the_revisions_of_a_key_in_order(pair: tuple[Server, Server], key: str) -> None:
    """The writers take turns, so that the server that waits learns of half of the changes from the other one."""
    last = 100
    with Wire(pair[0]) as reader:
        tag, seen = '"0"', []
        for number in range(last):
            reader.send(message("GET", f"/kv/{key}?wait={LONG}", f"If-None-Match: {tag}"))
            written = pair[number % 2].put(key, str(number)).json()["revision"]
            answer = reader.answer()
            tag = answer.headers["etag"]
            seen.append(revision_of(answer))
            assert seen[-1] == written
    assert seen == sorted(set(seen))
