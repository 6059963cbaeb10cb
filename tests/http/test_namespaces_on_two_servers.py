"""Two servers on one database: what one does with a namespace holds on the other."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from databases import database_for
from running import Server, Wire, http_client, message, refusal, running, until


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    url = database_for(tmp_path).create().url
    with running(url) as one, running(url) as other:
        yield one, other


def test_a_namespace_is_created_limited_and_deleted_for_both_servers(pair: tuple[Server, Server]) -> None:
    one, other = pair
    assert other.request("PUT", "/ns/n/kv/a", content=b"1").status_code == 404
    assert one.request("PUT", "/ns/n").status_code == 201
    assert other.request("PUT", "/ns/n").status_code == 200
    assert other.request("PUT", "/ns/n/kv/a", content=b"1").status_code == 201
    assert one.request("GET", "/ns/n/kv/a").json()["value"] == 1
    assert other.request("PUT", "/ns/n", json={"max_entries": 1}).status_code == 200
    assert refusal(one.request("PUT", "/ns/n/kv/b", content=b"1")) == (507, "quota_exceeded")
    assert one.request("GET", "/ns/n").json()["entries"] == 1
    assert one.request("DELETE", "/ns/n").json()["revision"] == 2
    for server in pair:
        assert refusal(server.request("PUT", "/ns/n/kv/a", content=b"2")) == (404, "no_such_namespace")


def test_a_namespace_that_is_created_again_continues_on_both_servers(pair: tuple[Server, Server]) -> None:
    one, other = pair
    assert one.request("PUT", "/ns/n").status_code == 201
    tag = other.request("PUT", "/ns/n/kv/a", content=b"1").headers["ETag"]
    assert one.request("DELETE", "/ns/n").status_code == 200
    assert one.request("PUT", "/ns/n").status_code == 201
    until(lambda: other.request("GET", "/ns/n/kv/a").json().get("error") == "not_found")
    again = other.request("PUT", "/ns/n/kv/a", content=b"1")
    assert (again.status_code, again.json()["revision"]) == (201, 3)
    assert again.headers["ETag"] != tag
    assert one.request("GET", "/ns/n/kv/a").headers["ETag"] == again.headers["ETag"]


def test_waiters_of_another_server_end_when_the_namespace_is_deleted(pair: tuple[Server, Server]) -> None:
    one, other = pair
    assert one.request("PUT", "/ns/n").status_code == 201
    assert one.request("POST", "/ns/n/locks/l", json={"ttl": 600}).status_code == 201
    with Wire(other) as waiting:
        waiting.send(message("POST", "/ns/n/locks/l", body=b'{"wait": 50}'))
        until(lambda: other.request("GET", "/ns/n/locks/l").json()["waiters"] == 1)
        assert one.request("DELETE", "/ns/n").status_code == 200
        assert waiting.answer(to="POST").status == 404


@pytest.mark.parametrize(("quota", "stored"), [({"max_entries": 50}, 50), ({"max_bytes": 1_000}, 100)])
def test_both_servers_together_store_exactly_what_the_quota_allows(
    pair: tuple[Server, Server], quota: dict[str, int], stored: int
) -> None:
    one, other = pair
    assert one.request("PUT", "/ns/n", json=quota).status_code == 201

    def write(part: int) -> list[int]:
        with http_client((one, other)[part % 2].url) as client:
            keys = [f"{number:03}" for number in range(part, 300, 6)]
            return [client.put(f"/ns/n/kv/{key}", content=b"1234567").status_code for key in keys]

    with ThreadPoolExecutor(6) as pool:
        statuses = [status for of_part in pool.map(write, range(6)) for status in of_part]
    assert (statuses.count(201), statuses.count(507)) == (stored, 300 - stored)
    for server in pair:
        shown = server.request("GET", "/ns/n").json()
        assert (shown["entries"], shown["bytes"]) == (stored, stored * 10)
    deleted = [other.request("DELETE", f"/ns/n/kv?prefix={digit}").json()["deleted"] for digit in range(3)]
    assert sum(deleted) == stored
    assert one.request("GET", "/ns/n").json()["entries"] == 0


def test_expired_entries_make_room_whichever_server_has_written_them(pair: tuple[Server, Server]) -> None:
    """One of the servers removes those of both."""
    one, other = pair
    assert one.request("PUT", "/ns/n", json={"max_entries": 1}).status_code == 201
    for server in (one, other, one):
        assert server.request("PUT", "/ns/n/kv/brief?ttl=0.1", content=b"1").status_code == 201
        until(lambda: one.request("GET", "/ns/n").json()["entries"] == 0)
    assert other.request("PUT", "/ns/n/kv/a", content=b"1").status_code == 201


def test_all_versions_of_a_state_count_until_they_are_removed(pair: tuple[Server, Server]) -> None:
    """The oldest version is removed without being read."""
    one, other = pair
    assert one.request("PUT", "/ns/n").status_code == 201
    for serial in range(15):
        for server in pair:
            state = {"version": 4, "serial": serial, "lineage": "a"}
            assert server.request("POST", "/ns/n/terraform/a", json=state).is_success
    kept = one.request("GET", "/ns/n/kv").json()["entries"]
    shown = other.request("GET", "/ns/n").json()
    assert shown["entries"] == len(kept)
    assert one.request("DELETE", "/ns/n/terraform/a").is_success
    shown = other.request("GET", "/ns/n").json()
    assert (shown["entries"], shown["bytes"]) == (0, 0)
