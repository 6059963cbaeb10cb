"""How far back a watch can begin: after restarts, and when the history no longer reaches back to the cursor."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import short_history
from databases import STORES
from running import Server, Wire, message, refusal, running
from short_history import HISTORY
from waiting import every_store
from watching import Watch, brief, put

from leasehold.engines.base import HISTORY_CHANGES

DOCUMENTS = Path(__file__).parents[2] / "docs"
COMPACTED = (410, "revision_compacted")
KEYS = 4
LARGE = 400
"""Changes of large values: more bytes than the sockets of a connection hold."""


@pytest.fixture(scope="module", params=STORES)
def forgetful(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows few changes, on each engine."""
    store = STORES[request.param](tmp_path_factory.mktemp("store"))
    with running(store, program=[short_history.__file__]) as started:
        yield started


def change_much(server: Server, key: str) -> int:
    """Changes of KEYS keys. Returns the last revision."""
    body, answers = json.dumps("x" * 50_000).encode(), []
    with Wire(server) as wire:
        for number in range(LARGE):
            wire.send(message("PUT", f"/kv/{key}/{number % KEYS}", "Prefer: return=minimal", body=body))
            answers.append(wire.answer())
    revision = json.loads(answers[-1].body)["revision"]
    assert isinstance(revision, int)
    return revision


# A cursor that is too old -------------------------------------------------------------------------------------


def test_a_cursor_older_than_the_history_is_refused_and_told_where_it_begins(forgetful: Server, key: str) -> None:
    first = put(forgetful, f"{key}/first")
    last = [put(forgetful, f"{key}/{number}") for number in range(HISTORY + 5)][-1]
    for cursor in (first, last - HISTORY - 1):
        for query, field in ((f"since={cursor}", ""), ("since=0", str(cursor))):
            refused = forgetful.request("GET", f"/watch?{query}", headers={"Last-Event-ID": field})
            assert (refusal(refused), refused.json()["oldest"]) == (COMPACTED, last - HISTORY)
    with Watch(forgetful, f"since={last - HISTORY}") as watch:
        watch.ready()
        assert [event.id for event in watch.through(last)] == [*range(last - HISTORY + 1, last + 1)]


def test_with_a_snapshot_a_cursor_older_than_the_history_is_reset(forgetful: Server, key: str) -> None:
    first = put(forgetful, f"{key}/first")
    for number in range(HISTORY + 5):
        put(forgetful, f"{key}/{number % 3}")
    with Watch(forgetful, f"prefix={key}/&snapshot&since={first}") as watch:
        reset = watch.next()
        snapshot = watch.ready()
        last = put(forgetful, f"{key}/first")
        assert brief([watch.next()]) == [("put", f"{key}/first", last)]
    assert (reset.name, reset.id) == ("reset", None)
    assert brief(snapshot) == [("put", f"{key}/{name}", None) for name in ("0", "1", "2", "first")]


# A reader that is too slow ------------------------------------------------------------------------------------


def test_a_reader_that_the_history_overtakes_is_told_and_its_response_is_complete(forgetful: Server, key: str) -> None:
    with Watch(forgetful, f"prefix={key}/", receive_buffer_bytes=4_096) as watch:
        watch.ready()
        last = change_much(forgetful, key)
        events = watch.rest()
    end = events[-1]
    assert (end.name, end.data["error"], end.id) == ("end", "revision_compacted", None)
    assert end.data["oldest"] >= last - HISTORY
    ids = [event.id or 0 for event in events[:-1]]
    assert (ids, ids[-1] < last - HISTORY) == (sorted(set(ids)), True)


def test_with_a_snapshot_a_reader_that_the_history_overtakes_gets_another_one(forgetful: Server, key: str) -> None:
    with Watch(forgetful, f"prefix={key}/&snapshot", receive_buffer_bytes=4_096) as watch:
        watch.ready()
        last = change_much(forgetful, key)
        state: dict[str, int] = {}
        names: list[str] = []
        while last not in state.values():
            event = watch.next()
            names.append(event.name)
            if event.name == "reset":
                state.clear()
            elif event.name == "put":
                state[event.subject] = event.revision
        rest = put(forgetful, f"{key}/rest")
        for event in watch.through(rest):
            if event.name == "put":
                state[event.subject] = event.revision
    assert "reset" in names
    assert state == {f"{key}/{number % KEYS}": last - LARGE + number + 1 for number in range(LARGE)} | {
        f"{key}/rest": rest
    }


# Restarts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["file", "postgres"])
@pytest.mark.parametrize("ends", [("kill",), ("terminate",), ("terminate", "kill")], ids=" ".join)
def test_a_watcher_resumes_after_a_restart(tmp_path: Path, store: str, ends: tuple[str, ...]) -> None:
    """`terminate` makes a checkpoint of a store in files."""
    with running(STORES[store](tmp_path)) as own:
        put(own, "a")
        lease = own.lease("l", ttl=1_000)
        cursor = put(own, "b")
        deleted = own.delete("a").json()["revision"]
        released = own.release("l", lease["lease_id"]).json()["revision"]
        last = put(own, "c")
        for end in ends:
            if end == "kill":
                own.kill()
            else:
                own.terminate()
            own.start()
        with Watch(own, f"since={cursor}&locks") as watch:
            watch.ready()
            expected = [("delete", "a", deleted), ("lock", "l", released), ("put", "c", last)]
            assert brief(watch.through(last)) == expected
            after = put(own, "d")
            assert brief([watch.next()]) == [("put", "d", after)]


def test_a_store_in_memory_begins_a_new_history_at_each_start() -> None:
    with running() as own:
        cursor = put(own, "a")
        own.restart()
        refused = own.request("GET", f"/watch?since={cursor}")
        assert (refusal(refused), refused.json()["oldest"]) == (COMPACTED, 0)
        with Watch(own, f"snapshot&since={cursor}") as watch:
            assert [event.name for event in watch.take(2)] == ["reset", "ready"]


@every_store
def test_deletions_by_prefix_and_expiries_are_in_the_history(tmp_path: Path, store: str) -> None:
    with running(STORES[store](tmp_path)) as own:
        cursor = put(own, "jobs/1")
        put(own, "jobs/2")
        put(own, "short", params={"ttl": 0.2})
        own.request("DELETE", "/kv?prefix=jobs/")
        with Watch(own, f"since={cursor}") as watch:
            watch.ready()
            gone: set[str] = set()
            while gone != {"jobs/1", "jobs/2", "short"}:
                event = watch.next()
                if event.name == "delete":
                    gone.add(event.subject)


def test_the_documents_name_the_length_of_the_history() -> None:
    named = {
        number.replace(",", "")
        for page in ("api.md", "watch.md", "limitations.md")
        for number in re.findall(r"last ([\d,]+) revisions", (DOCUMENTS / page).read_text("utf-8"))
    }
    assert named == {str(HISTORY_CHANGES)}
