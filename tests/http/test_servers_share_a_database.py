"""Two servers with two workers each, on one database, behave like one service."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from itertools import chain, cycle
from typing import Any

import httpx
import pytest
from contract import sequence
from databases import STORES
from running import Server, Wire, http_client, message, refusal, running, until

WORKERS = 2
CLIENTS = 16
INCREMENTS = 512

Pair = tuple[Server, Server]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    store = STORES["postgres"](tmp_path_factory.mktemp("shared"))
    arguments = [f"--workers={WORKERS}"]
    with running(store, arguments=arguments) as one, running(store, arguments=arguments) as other:
        yield one, other


def at_once(work: Callable[[int], None], count: int) -> None:
    """Do it in threads of its own each; fails if one fails."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as failure:  # noqa: BLE001 - raised below
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# Concurrent writers -------------------------------------------------------------------------------------------


def test_concurrent_increments_with_if_match_are_all_applied_once(pair: Pair, key: str) -> None:
    """Each client reads the number and writes the next one if it is still that; if not, it begins again."""
    pair[0].put(key, "0")
    acknowledged: list[int] = []
    refused: list[int] = []

    def increment(number: int) -> None:
        with http_client(pair[number % 2].url) as client:
            for _ in range(INCREMENTS // CLIENTS):
                while True:
                    entry = client.get(f"/kv/{key}").json()
                    answer = client.put(
                        f"/kv/{key}",
                        content=str(entry["value"] + 1),
                        headers={"If-Match": f'"{entry["revision"]}"'},
                    )
                    if answer.status_code == 200:
                        acknowledged.append(answer.json()["revision"])
                        break
                    assert refusal(answer) == (412, "precondition_failed")
                    refused.append(answer.json()["revision"])

    at_once(increment, CLIENTS)
    assert [server.value(key) for server in pair] == [INCREMENTS, INCREMENTS]
    assert len(set(acknowledged)) == len(acknowledged) == INCREMENTS
    assert refused, "they never met"


def test_revisions_are_unique_and_grow_over_both_servers(pair: Pair, key: str) -> None:
    seen: list[list[int]] = [[] for _ in range(CLIENTS)]
    start = max(server.put(key, "0").json()["revision"] for server in pair)

    def write(number: int) -> None:
        with http_client("") as client:
            for turn in range(20):
                url = pair[(number + turn) % 2].url
                seen[number].append(client.put(f"{url}/kv/{key}/{number}", content=b"1").json()["revision"])

    at_once(write, CLIENTS)
    assert [revisions for revisions in seen if revisions != sorted(revisions)] == []
    assert sorted(chain.from_iterable(seen)) == list(range(start + 1, start + 1 + CLIENTS * 20))


def test_of_many_creators_on_both_servers_one_succeeds(pair: Pair, key: str) -> None:
    statuses: list[int] = []

    def create(number: int) -> None:
        with Wire(pair[number % 2]) as wire:
            sent = message("PUT", f"/kv/{key}", "If-None-Match: *", body=b"%d" % number)
            statuses.append(wire.send(sent).answer().status)

    at_once(create, CLIENTS)
    assert sorted(statuses) == [201] + [412] * (CLIENTS - 1)


# Writes are visible on the other server at once ---------------------------------------------------------------


def test_a_write_to_one_server_is_read_from_the_other_at_once(pair: Pair, key: str) -> None:
    for number, (here, there) in zip(range(200), cycle([pair, pair[::-1]]), strict=False):
        written = here.put(key, str(number)).json()
        assert there.get(key).json() == written
    assert pair[0].delete(key).status_code == 200
    assert pair[1].get(key).status_code == 404


def test_every_worker_reads_a_write_at_once(pair: Pair, key: str) -> None:
    for number in range(30):
        pair[number % 2].put(key, str(number))
        for server in pair:
            for _ in range(WORKERS):
                with Wire(server) as wire:
                    assert wire.send(message("GET", f"/kv/{key}")).answer().value == number


def test_a_list_shows_a_write_to_the_other_server_at_once(pair: Pair, key: str) -> None:
    for number in range(20):
        written = pair[number % 2].put(f"{key}/{number:02}", str(number)).json()
        page = pair[1 - number % 2].request("GET", "/kv", params={"prefix": f"{key}/"}).json()
        assert page["entries"][-1] == written
        assert len(page["entries"]) == number + 1
        assert page["revision"] >= written["revision"]


def test_health_of_both_servers_shows_the_same_head(pair: Pair, key: str) -> None:
    """Soon, not at once: another server's commits are heard of."""
    revision = pair[0].put(key, "1").json()["revision"]
    for server in pair:
        until(lambda server=server: server.revision() >= revision)


# The contract, with two servers -------------------------------------------------------------------------------


class Alternating:
    """Sends each request to the other server than the one before."""

    def __init__(self, pair: Pair) -> None:
        self._turns = cycle(pair)

    def __call__(self, method: str, path: str, body: str | None = None, **options: Any) -> httpx.Response:
        content = None if body is None else body.encode()
        return next(self._turns).request(method, path, content=content, **options)


@pytest.fixture
def ask(pair: Pair) -> Alternating:
    return Alternating(pair)


def test_entries_are_created_replaced_and_deleted(ask: Alternating, key: str) -> None:
    created = ask("POST", f"/kv/{key}", '{"a": [1, null, "🦊"]}')
    assert (created.status_code, created.headers["Location"]) == (201, f"/kv/{key}")
    read = ask("GET", f"/kv/{key}")
    assert (read.json(), read.headers["ETag"]) == (created.json(), created.headers["ETag"])
    head = ask("HEAD", f"/kv/{key}")
    assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", read.headers["ETag"])
    replaced = ask("PUT", f"/kv/{key}", "null").json()
    assert replaced["created_at"] == created.json()["created_at"]
    assert ask("GET", f"/kv/{key}?raw").content == b"null\n"
    deleted = ask("DELETE", f"/kv/{key}").json()
    assert deleted == {"key": key, "deleted": True, "revision": deleted["revision"]}
    assert replaced["revision"] < deleted["revision"]
    assert refusal(ask("GET", f"/kv/{key}")) == (404, "not_found")
    assert refusal(ask("DELETE", f"/kv/{key}")) == (404, "not_found")


def test_parts_are_written_read_and_deleted(ask: Alternating, key: str) -> None:
    assert ask("PUT", f"/kv/{key}?path=/a/b", "[1]").status_code == 201
    assert ask("POST", f"/kv/{key}?path=/a/b/-", "2").json()["path"] == "/a/b/-"
    assert ask("GET", f"/kv/{key}?path=/a/b").json()["value"] == [1, 2]
    assert ask("GET", f"/kv/{key}?path=/a/b/0&path=/a/b/1").json()["value"] == {"/a/b/0": 1, "/a/b/1": 2}
    assert refusal(ask("DELETE", f"/kv/{key}?path=/a/b/0")) == (428, "precondition_required")
    etag = ask("GET", f"/kv/{key}").headers["ETag"]
    assert ask("DELETE", f"/kv/{key}?path=/a/b/0", headers={"If-Match": etag}).status_code == 200
    assert ask("GET", f"/kv/{key}").json()["value"] == {"a": {"b": [2]}}
    assert refusal(ask("GET", f"/kv/{key}?path=/a/c")) == (404, "path_not_found")
    assert refusal(ask("PUT", f"/kv/{key}?path=/a/b/0/c", "1")) == (409, "conflict")


def test_patches_are_all_or_nothing(ask: Alternating, key: str) -> None:
    ask("PUT", f"/kv/{key}", '{"a": 1, "b": 2}')
    merge, steps = ({"Content-Type": f"application/{kind}+json"} for kind in ("merge-patch", "json-patch"))
    assert ask("PATCH", f"/kv/{key}", '{"a": null, "c": 3}', headers=merge).json()["value"] == {"b": 2, "c": 3}
    patch = [{"op": "move", "from": "/c", "path": "/d"}, {"op": "test", "path": "/b", "value": 2}]
    assert ask("PATCH", f"/kv/{key}", json.dumps(patch), headers=steps).json()["value"] == {"b": 2, "d": 3}
    patch = [{"op": "remove", "path": "/d"}, {"op": "test", "path": "/b", "value": 3}]
    assert refusal(ask("PATCH", f"/kv/{key}", json.dumps(patch), headers=steps)) == (422, "patch_failed")
    assert ask("GET", f"/kv/{key}").json()["value"] == {"b": 2, "d": 3}


def test_parts_of_large_documents_are_changed(ask: Alternating, key: str) -> None:
    """Of these only the difference goes to the database."""
    document = {str(number): "x" * 100 for number in range(1000)}
    ask("PUT", f"/kv/{key}", json.dumps(document))
    for number in range(10):
        document[str(number)] = "y"
        ask("PUT", f"/kv/{key}?path=/{number}", '"y"')
        assert ask("GET", f"/kv/{key}").json()["value"] == document


def test_conditions_are_checked_against_writes_to_the_other_server(ask: Alternating, key: str) -> None:
    stale = ask("PUT", f"/kv/{key}", "1").headers["ETag"]
    fresh = ask("PUT", f"/kv/{key}", "2", headers={"If-Match": stale}).headers["ETag"]
    assert ask("GET", f"/kv/{key}", headers={"If-None-Match": fresh}).status_code == 304
    assert ask("GET", f"/kv/{key}", headers={"If-None-Match": stale}).status_code == 200
    for method, body, condition in (
        ("PUT", "3", {"If-Match": stale}),
        ("PUT", "3", {"If-None-Match": "*"}),
        ("PATCH", "3", {"If-Match": stale, "Content-Type": "application/merge-patch+json"}),
        ("DELETE", None, {"If-Match": stale}),
    ):
        refused = ask(method, f"/kv/{key}", body, headers=condition)
        assert refusal(refused) == (412, "precondition_failed")
        assert (refused.headers["ETag"], refused.json()["revision"]) == (fresh, int(fresh[1:].partition(".")[0]))
    assert ask("DELETE", f"/kv/{key}", headers={"If-Match": fresh}).status_code == 200
    assert refusal(ask("PUT", f"/kv/{key}", "3", headers={"If-Match": "*"})) == (412, "precondition_failed")


def test_entries_expire_on_both_servers(ask: Alternating, pair: Pair, key: str) -> None:
    written = ask("PUT", f"/kv/{key}?ttl=0.8", "1").json()
    assert ask("GET", f"/kv/{key}").json()["expires_at"] == written["expires_at"]
    ask("PUT", f"/kv/{key}/stays?ttl=0.8", "1")
    assert "expires_at" not in ask("PUT", f"/kv/{key}/stays", "2").json()
    for server in pair:
        until(lambda server=server: server.get(key).status_code == 404)
    assert [entry["key"] for entry in ask("GET", f"/kv?prefix={key}").json()["entries"]] == [f"{key}/stays"]
    assert ask("PUT", f"/kv/{key}", "1", headers={"If-None-Match": "*"}).status_code == 201


def test_an_expired_entry_uses_one_revision_although_four_workers_clean_up(pair: Pair, key: str) -> None:
    until(lambda: len({server.revision() for server in pair}) == 1)
    gone = pair[0].put(key, "1", params={"ttl": 0.1}).json()["revision"]
    until(lambda: pair[1].revision() > gone)
    # Meanwhile every worker looks for what has expired: each does so every second.
    after = pair[1].put(f"{key}/after", "1", params={"ttl": 1.2}).json()["revision"]
    until(lambda: pair[0].revision() > after)
    assert pair[0].put(key, "1").json()["revision"] == gone + 4


def test_pages_of_a_list_may_come_from_different_servers(ask: Alternating, key: str) -> None:
    names = sorted((f"{key}/{name}" for name in ("b", "a", "ä", "c/d", "🦊", "\uffff")), key=str.encode)
    for name in names:
        ask("PUT", f"/kv/{name}", "1")
    found: list[str] = []
    after: str | None = f"{key}/"
    while after is not None:
        page = ask("GET", "/kv", params={"prefix": f"{key}/", "after": after, "limit": "2", "values": "false"}).json()
        found += [entry["key"] for entry in page["entries"]]
        after = page["next"]
    assert found == names
    whole = ask("GET", "/kv", params={"prefix": f"{key}/"}).json()
    assert [entry["key"] for entry in whole["entries"]] == names
    assert [entry["key"] for entry in sequence(ask("GET", "/stream", params={"prefix": f"{key}/"}))] == names


def test_entries_are_created_and_read_by_uuid(ask: Alternating) -> None:
    made = ask("POST", "/set", '{"value": {"a": 1}}')
    assert made.status_code == 201
    uuid = made.json()["key"]
    assert ask("POST", "/set", json.dumps({"key": uuid.upper(), "path": ["a"], "value": 2})).status_code == 200
    assert ask("GET", f"/get/{uuid}").json()["value"] == {"a": 2}
    assert ask("GET", f"/kv/{uuid}?path=/a").json()["value"] == 2
    assert ask("GET", f"/stream/{uuid}").content == b"\x81\xa1a\x02"


# Metrics ------------------------------------------------------------------------------------------------------

READS = re.compile(
    r'^http_server_request_duration_seconds_count\{(?=.*method="GET")(?=.*route="/kv/\{key\}")(?=.*code="404").*\} '
    r"(\S+)$",
    re.MULTILINE,
)


def reads_counted(server: Server) -> set[float]:
    """What the workers tell, asked on several new connections."""
    told = set()
    for _ in range(4 * WORKERS):
        with Wire(server) as wire:
            text = wire.send(message("GET", "/metrics")).answer().body.decode()
        found = READS.search(text)
        told.add(0.0 if found is None else float(found[1]))
    return told


def test_metrics_of_a_server_count_the_requests_of_all_its_workers(pair: Pair, key: str) -> None:
    """Each worker leaves its own every second."""
    here, there = pair
    until(lambda: all(len(reads_counted(server)) == 1 for server in pair))
    before = [reads_counted(server).pop() for server in pair]
    workers = set()
    for _ in range(100):
        with Wire(here) as wire:
            answer = wire.send(message("GET", f"/kv/{key}")).answer()
            assert answer.status == 404
            workers.add(answer.headers["x-request-id"][:12])
    assert len(workers) == WORKERS
    until(lambda: reads_counted(here) == {before[0] + 100})
    assert reads_counted(there) == {before[1]}


# States -------------------------------------------------------------------------------------------------------


def test_the_lock_of_a_state_holds_at_every_server(pair: Pair, key: str) -> None:
    """The state is locked at one server and saved at the other; a save under a lock that was released is refused."""
    one, other = pair
    path = f"/terraform/{key}"
    assert one.request("LOCK", path, json={"ID": "a"}).status_code == 200
    assert refusal(other.request("LOCK", path, json={"ID": "b"})) == (423, "lock_held")
    assert other.request("POST", f"{path}?ID=a", content="[1]").status_code == 201
    assert one.request("GET", path).content == b"[1]"
    assert other.request("UNLOCK", path, json={"ID": "a"}).json() == {"unlocked": True}
    assert refusal(one.request("POST", f"{path}?ID=a", content="[2]")) == (409, "lease_lost")
    assert one.request("LOCK", path, json={"ID": "b"}).status_code == 200
    assert refusal(other.request("POST", f"{path}?ID=a", content="[2]")) == (409, "lease_lost")
    assert other.request("GET", path).content == b"[1]"
