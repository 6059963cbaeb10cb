"""Acknowledged changes are kept after the server was killed or stopped, and started again."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Server, Wire, message, running, until


def killed(server: Server) -> None:
    server.restart()


def stopped(server: Server) -> None:
    server.terminate()
    server.start()


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "data.json") as started:
        yield started


every_end = pytest.mark.parametrize("end", [killed, stopped])

VALUES = [
    "null",
    "-0.0",
    "1e300",
    "5e-324",
    "18446744073709551615",
    "-9223372036854775808",
    '"🦊\\u2028\\"\\\\"',
    '{"": [{}, [], null]}',
    "[" * 128 + "]" * 128,
    '"' + "x" * 1_000_000 + '"',
]


def entries(server: Server) -> Any:
    return server.request("GET", "/kv").json()["entries"]


@every_end
def test_entries_are_the_same_after_a_restart(durable: Server, end: Callable[[Server], None]) -> None:
    for number, value in enumerate(VALUES):
        durable.put(f"kept/{number}", value)
    durable.put("%F0%9F%A6%8A/%E2%80%A8%22", "1", params={"ttl": 1000})
    durable.put("kept/0", "2", params={"path": ""})
    before = entries(durable)
    end(durable)
    assert repr(entries(durable)) == repr(before)


@every_end
def test_every_kind_of_change_is_kept_after_a_restart(durable: Server, end: Callable[[Server], None]) -> None:
    durable.put("a", '{"x": 1, "y": [1]}')
    durable.request("POST", "/kv/a", params={"path": "/y/-"}, content="2")
    durable.patch("a", '{"x": null, "z": 3}')
    durable.patch("a", '[{"op": "move", "from": "/z", "path": "/w"}]', kind="json-patch")
    durable.delete("a", params={"path": "/y/0"}, headers={"If-Match": durable.get("a").headers["ETag"]})
    end(durable)
    assert durable.value("a") == {"y": [2], "w": 3}


@every_end
def test_a_deleted_entry_stays_deleted_after_a_restart(durable: Server, end: Callable[[Server], None]) -> None:
    durable.put("a", "1")
    durable.delete("a")
    end(durable)
    assert entries(durable) == []


@every_end
def test_revisions_continue_after_a_restart(durable: Server, end: Callable[[Server], None]) -> None:
    durable.put("a", "1")
    last = durable.delete("a").json()["revision"]
    end(durable)
    assert (durable.revision(), durable.put("b", "1").json()["revision"]) == (last, last + 1)


@every_end
def test_an_etag_is_valid_after_a_restart(durable: Server, end: Callable[[Server], None]) -> None:
    etag = durable.put("a", "1").headers["ETag"]
    end(durable)
    assert durable.put("a", "2", headers={"If-Match": etag}).status_code == 200


@every_end
def test_an_entry_that_expired_while_the_server_was_down_is_not_found(
    durable: Server, end: Callable[[Server], None]
) -> None:
    durable.put("a", "1", params={"ttl": 0.1})
    end(durable)
    until(lambda: durable.get("a").status_code == 404)
    assert entries(durable) == []


def test_acknowledged_changes_under_load_are_kept_after_a_kill(durable: Server) -> None:
    with Wire(durable) as wire:
        wire.send(*(message("PUT", f"/kv/{number % 500:03}", body=b"%d" % number) for number in range(2_000)))
        assert {wire.answer().status for _ in range(2_000)} == {200, 201}
    killed(durable)
    assert [entry["value"] for entry in entries(durable)] == list(range(1_500, 2_000))
