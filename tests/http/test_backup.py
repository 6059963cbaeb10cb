"""`GET /backup`: all entries at one revision, for tokens that may read all keys; an incomplete backup is recognised."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Server, Wire, message, refusal, running

from leasehold.access.token_minting import mint_token
from leasehold.engines.seals import Seal

SECRET = "a-secret-of-more-than-32-bytes-for-tests"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    secret = tmp_path_factory.mktemp("secret") / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    with running(environment={"LEASEHOLD_AUTH_SECRET_FILE": str(secret)}) as server:
        yield server


def bearer(*permissions: str, prefixes: list[str] | None = None) -> dict[str, str]:
    token = mint_token(SECRET.encode(), "ann", permissions, prefixes=prefixes, now=time.time(), lifetime_seconds=36_000)
    return {"Authorization": f"Bearer {token}"}


def comparable(entries: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Entries without what may differ between a backup and a list, because other tests use the same server.

    Their entries may expire in between. If a value is bytes, a backup has them, and a list has their number.
    """
    kept = [entry for entry in entries if "expires_at" not in entry or entry["key"] == key]
    return [{name: part for name, part in entry.items() if name not in ("base64", "size")} for entry in kept]


def test_a_backup_has_every_entry_and_the_head_of_the_store(any_server: Server, key: str) -> None:
    any_server.put(key, '{"a": [1, null]}', params={"ttl": "1000"})
    answer = any_server.request("GET", "/backup")
    backup = answer.json()
    health = any_server.request("GET", "/health").json()
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert backup["incarnation"] == health["incarnation"]
    listed = any_server.request("GET", "/kv").json()["entries"]
    assert key in {entry["key"] for entry in backup["entries"]}
    assert comparable(backup["entries"], key) == comparable(listed, key)
    seal = Seal()
    seal.take(answer.content)
    seal.check("the answer")


def test_a_backup_has_no_leases(any_server: Server, lock: str) -> None:
    lease = any_server.lease(lock)
    assert lease["lease_id"] not in any_server.request("GET", "/backup").text


@pytest.mark.long
def test_a_backup_under_load_is_of_one_revision(any_server: Server, key: str) -> None:
    """A writer raises its numbers in turn, so at any moment they differ by one at most, and fall from left to right."""
    keys = [f"{key}/{number}" for number in range(8)]
    for each in keys:
        any_server.put(each, "0")
    stop = threading.Event()

    def write() -> None:
        with Wire(any_server) as wire:
            number = 0
            while not stop.is_set():
                number += 1
                for each in keys:
                    wire.send(message("PUT", f"/kv/{each}", body=b"%d" % number))
                    assert wire.answer().status == 200

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            backup = any_server.request("GET", "/backup").json()
            numbers = [entry["value"] for entry in backup["entries"] if entry["key"] in keys]
            assert numbers == sorted(numbers, reverse=True)
            assert numbers[0] - numbers[-1] <= 1
            assert max(entry["revision"] for entry in backup["entries"]) <= backup["revision"]
    finally:
        stop.set()
        writer.join()


def test_a_backup_needs_a_token_that_may_read_all_keys(guarded: Server) -> None:
    assert guarded.request("GET", "/backup", headers=bearer("read")).status_code == 200
    assert refusal(guarded.request("GET", "/backup")) == (401, "unauthenticated")
    assert refusal(guarded.request("GET", "/backup", headers=bearer("write"))) == (403, "forbidden")
    assert refusal(guarded.request("GET", "/backup", headers=bearer("read", prefixes=["a/"]))) == (403, "forbidden")


def test_a_second_backup_is_refused_while_the_first_runs_and_succeeds_after_it(tmp_path: Path) -> None:
    with running(tmp_path / "data.json") as server:
        for number in range(30):
            server.put(f"large/{number}", json.dumps("x" * 1_000_000))
        with Wire(server) as wire:
            wire.send(message("GET", "/backup"))
            assert wire.socket.recv(1, socket.MSG_PEEK)  # it has begun, and does not go on while nobody reads
            refused = server.request("GET", "/backup")
            assert (refusal(refused), refused.headers["Retry-After"]) == ((429, "too_many_requests"), "10")
        deadline = time.monotonic() + 60
        while (answer := server.request("GET", "/backup")).status_code == 429:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(answer.json()["entries"]) == 30
