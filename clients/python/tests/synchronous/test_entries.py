# Made from `asynchronous/test_entries.py` by tools/make_sync.py: edit that file.
import json
import math
import random
from typing import Any

import pytest
from proxy import cutting, proxy_on_a_thread
from running import Server

from leasehold_client import (
    Client,
    Conflict,
    Entry,
    InvalidJson,
    InvalidKey,
    NotFound,
    PatchFailed,
    PathNotFound,
    PreconditionFailed,
    Request,
    TooLarge,
    Unreachable,
)
from synchronous.together import together

pytestmark = pytest.mark.anyio

VALUES = [
    None, True, 0, -0.0, 1.5, 1e300, 2**64 - 1, -(2**63), "", "ä\U0001f600\u2028", [], {},
    [1, [2, {"a": None}]], {"": 0},
]  # fmt: skip
KEYS = ["a b", "100%", "%41", "ä/ö", "a?b#c", "a+b&c=d", "~!$'()*,;:@", "a\\b", "..a/.b./c..", '"quoted"']


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_the_value_that_is_read_is_the_value_that_was_written(server: Server, key: str, value: Any) -> None:
    with Client(server.url) as db:
        written = db.put(key, value)
        read = db.get(key)
        assert repr(read.value) == repr(written.value) == repr(value)
        assert (read.key, read.revision, read.etag) == (key, written.revision, written.etag)
        assert read.created_at is not None
        assert read.created_at.tzinfo is not None


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", 2**64, -(2**63) - 1, "\0"], ids=repr)
def test_a_value_that_the_service_cannot_keep_is_refused(server: Server, key: str, value: Any) -> None:
    with Client(server.url) as db:
        with pytest.raises(InvalidJson):
            db.put(key, value)
        assert db.get(key, default=None) is None


@pytest.mark.parametrize("suffix", KEYS)
def test_a_key_is_sent_as_it_is(server: Server, key: str, suffix: str) -> None:
    name = f"{key}/{suffix}"
    with Client(server.url) as db:
        assert (db.put(name, 1)).key == name
        assert [entry.key for entry in db.list(name)] == [name]
        assert [entry.key for entry in db.get_many([name])] == [name]
        assert (db.delete(name)).key == name
        with db.lock(name) as lease:
            assert lease.name == name


@pytest.mark.parametrize("path", ["", "/", "a//b", "a/../b", "./a", "a/.", "a/", "\ud800"])
def test_a_key_that_would_become_another_one_on_its_way_is_refused(server: Server, path: str) -> None:
    with Client(server.url) as db:
        before = db.count()
        with pytest.raises(InvalidKey):
            db.put(path, 1)
        assert db.count() == before


def test_an_entry_or_a_part_that_does_not_exist(server: Server, key: str) -> None:
    with Client(server.url) as db:
        with pytest.raises(NotFound) as missing:
            db.get(key)
        assert (missing.value.status, missing.value.code) == (404, "not_found")
        assert missing.value.request_id is not None
        assert db.get(key, default=7) == 7
        db.put(key, {"a": 1})
        with pytest.raises(PathNotFound):
            db.get(key, path="/b")
        assert db.get(key, path="/b", default=None) is None
        with pytest.raises(Conflict):
            db.put(key, 1, path="/a/b")


def test_a_part_is_read_written_and_deleted(server: Server, key: str) -> None:
    with Client(server.url) as db:
        db.put(key, {"a": 1, "list": [1]})
        assert (db.put(key, 2, path="/b/c")).path == "/b/c"
        db.put(key, 2, path="/list/-")
        assert (db.get(key, path="/list")).value == [1, 2]
        assert (db.delete(key, path="/a")).path == "/a"
        assert (db.get(key)).value == {"list": [1, 2], "b": {"c": 2}}


def test_a_write_with_a_condition_is_done_only_if_it_holds(server: Server, key: str) -> None:
    with Client(server.url) as db:
        first = db.put(key, 1, if_absent=True)
        with pytest.raises(PreconditionFailed) as refused:
            db.put(key, 2, if_absent=True)
        assert refused.value.revision == first.revision
        second = db.put(key, 2, if_match=first)
        third = db.put(key, 3, if_match=second.revision)
        fourth = db.put(key, 4, if_match=third.etag)
        for stale in (first, second.revision, third.etag, '"1.000000"'):
            with pytest.raises(PreconditionFailed):
                db.delete(key, if_match=stale)
            with pytest.raises(PreconditionFailed):
                db.increment(key, if_match=stale)
        assert (db.delete(key, if_match=fourth)).revision > fourth.revision


def test_the_time_to_live_is_set_kept_and_removed(server: Server, key: str) -> None:
    with Client(server.url) as db:
        first = db.put(key, {"n": 1}, ttl=1000)
        assert first.expires_at is not None
        kept = [
            db.put(key, {"n": 1}, ttl="keep"),
            db.increment(key, path="/n"),
            db.merge(key, {"a": 1}),
            db.patch(key, [{"op": "remove", "path": "/a"}]),
            db.update(key, lambda value: value),
        ]
        assert {entry.expires_at for entry in kept} == {first.expires_at}
        assert (db.put(key, {"n": 1})).expires_at is None
        assert (db.increment(key, path="/n", ttl=60)).expires_at is not None


def test_patches_and_increments(server: Server, key: str) -> None:
    with Client(server.url) as db:
        with pytest.raises(NotFound):
            db.merge(key, {})
        assert (db.increment(key, 2**63)).value == 2**63
        with pytest.raises(Conflict):
            db.increment(key, 2**63)
        assert (db.increment(key, -(2**63) + 1)).value == 1
        db.put(key, {"a": 1, "b": 2})
        assert (db.merge(key, {"a": None, "c": 3})).value == {"b": 2, "c": 3}
        assert (db.patch(key, [{"op": "move", "from": "/b", "path": "/d"}])).value == {"c": 3, "d": 2}
        with pytest.raises(PatchFailed) as failed:
            db.patch(key, [{"op": "remove", "path": "/c"}, {"op": "test", "path": "/d", "value": 9}])
        assert failed.value.step == 1
        assert (db.get(key)).value == {"c": 3, "d": 2}


def test_updates_at_the_same_time_lose_nothing(server: Server, key: str) -> None:
    with Client(server.url) as db:

        def count() -> None:
            for _ in range(10):
                db.update(key, lambda value: {"n": value["n"] + 1}, default={"n": 0})

        together(count, count, count, count)
        assert (db.get(key)).value == {"n": 40}
        assert (db.update(key, lambda value: value * 2, path="/n")).value == 80


def test_an_update_without_a_value_or_with_a_failing_function_changes_nothing(server: Server, key: str) -> None:
    def fail(value: Any) -> Any:
        raise PreconditionFailed("of the caller")

    with Client(server.url) as db:
        with pytest.raises(NotFound):
            db.update(key, lambda value: value)
        with pytest.raises(PreconditionFailed, match="of the caller"):
            db.update(key, fail, default=1)
        assert db.get(key, default=None) is None


def test_a_list_has_all_pages(server: Server, key: str) -> None:
    keys = [f"{key}/{number}" for number in range(7)]
    with Client(server.url) as db:
        for number, each in enumerate(keys):
            db.put(each, {"n": number} if number % 2 else {})
        prefix = f"{key}/"
        assert [entry.key for entry in db.list(prefix, page_entries=2)] == keys
        assert [entry.value for entry in db.list(prefix, page_entries=3, after=keys[4])] == [{"n": 5}, {}]
        assert [entry.key for entry in db.list(prefix, page_entries=2, reverse=True)] == keys[::-1]
        assert [entry.value for entry in db.list(prefix, page_entries=2, path="/n")] == [1, 3, 5]
        assert {entry.value for entry in db.list(prefix, values=False)} == {None}
        assert [entry.key for entry in db.list(f"{key}-none")] == []
        assert db.count(prefix) == 7
        assert [entry.key for entry in db.get_many([keys[3], f"{key}-none", keys[1]])] == [keys[3], keys[1]]
        assert db.delete_prefix(f"{prefix}") == 7
        assert db.count(prefix) == 0


def test_no_keys_have_no_entries(server: Server, key: str) -> None:
    with Client(server.url) as db:
        db.put(key, 1)
        assert db.get_many([]) == []


def test_bytes_are_stored_as_they_are(server: Server, key: str) -> None:
    content = bytes(range(256))
    with Client(server.url) as db:
        written = db.put(key, content, media="image/png")
        read = db.get(key)
        assert (read.value, read.media, read.etag) == (content, "image/png", written.etag)
        assert written.value == content
        with db.transaction() as transaction:
            transaction.put(f"{key}/b", b"", media="text/plain")
            transaction.get(key)
        read_in_it = transaction.results[1]
        assert isinstance(read_in_it, Entry)
        assert (read_in_it.value, read_in_it.media) == (content, "image/png")
        listed = [(entry.value, entry.media) for entry in db.list(key)]
        assert listed == [(content, "image/png"), (b"", "text/plain")]
        assert (db.update(key, lambda value: value[:2])).media == "image/png"
        assert (db.get(key)).value == b"\0\1"
        with pytest.raises(TypeError):
            db.put(key, "text", media="image/png")


def test_a_value_that_is_too_large_is_refused(server: Server, key: str) -> None:
    with Client(server.url) as db:
        with pytest.raises(TooLarge) as refused:
            db.put(key, "x" * 2**20)
        assert refused.value.details["limit"] == 2**20


def test_a_read_waits_for_an_entry_and_for_a_change(server: Server, key: str) -> None:
    with Client(server.url) as db:
        waited, written = together(lambda: db.get(key, wait=math.inf), lambda: db.put(key, {"a": 1}))
        assert waited == written
        part, _ = together(lambda: db.get(key, path="/b", wait=60), lambda: db.put(key, 2, path="/b"))
        assert part.value == 2
        known = db.get(key)
        changed, _ = together(lambda: db.get(key, changed_from=known, wait=60), lambda: db.put(key, 3))
        assert changed.value == 3
        assert db.get(key, changed_from=changed, wait=0.1) is changed
        assert db.get(f"{key}/none", wait=0.1, default=None) is None


def test_a_request_of_ones_own_gets_the_response_as_it_was_sent(server: Server, key: str) -> None:
    with Client(server.url) as db:
        request = Request("POST", f"/kv/{key}?path=/n", content=b"1e2", is_change=True)
        written = db.send(request)
        read = db.send(Request("GET", f"/kv/{key}?raw"))
        assert (written.status, read.content) == (201, b'{"n":100.0}\n')
        assert read.headers["content-type"] == "application/json"
        with pytest.raises(NotFound):
            db.send(Request("DELETE", f"/kv/{key}?path=/m", is_change=True))


def test_a_request_of_ones_own_may_have_its_own_idempotency_key(server: Server, key: str) -> None:
    request = Request("POST", f"/kv/{key}?increment", [("Idempotency-Key", key)], b"1", is_change=True)
    with Client(server.url) as db:
        first = db.send(request)
        again = db.send(request)
        assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")


def test_a_proxy_is_not_asked_for_a_service_on_this_machine(
    server: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with Client(server.url, retry_seconds=0) as db:
        assert (db.put(key, 1)).value == 1


def test_a_response_is_read_in_pieces_as_they_arrive(server: Server, key: str) -> None:
    with Client(server.url) as db:
        for number in range(3):
            db.put(f"{key}/{number}", "x" * 200_000)
        request = Request("GET", f"/stream?prefix={key}/", (("Accept", "application/x-ndjson"),))
        content = b""
        pieces = 0
        for piece in db.stream(request):
            content += piece
            pieces += 1
        assert pieces > 3
        keys = [json.loads(line)["key"] for line in content.splitlines()]
        assert keys == [f"{key}/{number}" for number in range(3)]
        with pytest.raises(NotFound):
            next(db.stream(Request("GET", f"/kv/{key}")))


def test_a_response_that_is_cut_off_is_not_taken_for_a_complete_one(server: Server, key: str) -> None:
    with proxy_on_a_thread(server.address[1]) as proxy:
        proxy.new_connection = cutting(random.Random(3), 10**9, 100_000)
        with Client(f"http://127.0.0.1:{proxy.port}") as db, Client(server.url) as writer:
            writer.put(key, "x" * 500_000)
            with pytest.raises(Unreachable):
                for piece in db.stream(Request("GET", f"/kv/{key}")):
                    assert piece
