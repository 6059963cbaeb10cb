"""`leasehold backup`, `restore` and `advance`, as the documentation shows them, on every store."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from databases import Database, shared_server_url
from running import Server, clean_environment, leasehold, running

from leasehold.cli import exit_codes

FAULT, USAGE = 1, 2
DOCS = Path(__file__).parents[2] / "docs"
_numbers = count(1)


def new_file(folder: Path) -> str:
    return str(folder / f"store-{next(_numbers)}" / "data.json")


def new_database(_folder: Path) -> str:
    return Database(shared_server_url(), f"backups_of_cli_{os.getpid()}_{next(_numbers)}").create().url


STORES: Mapping[str, Callable[[Path], str]] = {"file": new_file, "postgres": new_database}
every_store = pytest.mark.parametrize("kind", STORES)


def new_store(kind: str, folder: Path) -> str:
    store = STORES[kind](folder)
    if kind == "file":
        Path(store).parent.mkdir()
    return store


def fill(server: Server, seed: int) -> None:
    """Random entries, some deleted, some that expire, written by parts; and two leases."""
    rng = random.Random(seed)
    for number in range(60):
        key = f"{rng.choice(['users', 'größe', 'a b', '~'])}/{rng.randrange(40)}"
        body = json.dumps(
            rng.choice([None, 1e300, -0.5, 2**63, "🦊\u2028", {"b": [number], "a": {}}, [[]], "x" * 3000])
        )
        server.put(key, body, params={"ttl": "86400"} if number % 3 == 0 else {})
        if number % 7 == 0:
            server.delete(key)
    server.lease("nightly", ttl=3600)
    server.put("last", '{"of": "all"}')


def entries_of(server: Server) -> list[Any]:
    entries = server.request("GET", "/kv").json()["entries"]
    assert isinstance(entries, list)
    return entries


def done(*arguments: str) -> str:
    result = leasehold(*arguments)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def refused(*arguments: str, code: int = FAULT) -> str:
    result = leasehold(*arguments)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (code, "", 1), result
    return result.stderr


# The documentation -------------------------------------------------------------------------------------------


def test_the_commands_of_the_documentation_have_the_documented_results(tmp_path: Path) -> None:
    section = (DOCS / "operations.md").read_text().partition("## Backups\n")[2].partition("\n## ")[0]
    commands = "\n".join(line[2:] for line in section.splitlines() if line.startswith("$ "))
    assert commands.count("leasehold ") == 4
    with running(tmp_path / "data.json") as server:
        fill(server, seed=5)
        expected = entries_of(server)
        environment = clean_environment()
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        script = commands.replace("http://localhost:8080", server.url)
        subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=environment, check=True, timeout=120)
        backups = [json.loads((tmp_path / name).read_text()) for name in ("backup.json", "service.json")]
        assert backups[0] == backups[1]
        head = server.revision()
    with running(tmp_path / "restored.json") as server:
        assert entries_of(server) == expected
        assert server.revision() == head + 2 * 10**9


# Backup and restore -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target_kind", STORES)
@every_store
def test_a_store_that_is_moved_has_all_entries_and_larger_tokens(kind: str, target_kind: str, tmp_path: Path) -> None:
    source, target = new_store(kind, tmp_path), new_store(target_kind, tmp_path)
    backup = str(tmp_path / "backup.json")
    with running(source) as server:
        fill(server, seed=1)
        expected, token = entries_of(server), server.lease("last", ttl=60)["token"]
        incarnation = server.request("GET", "/health").json()["incarnation"]
        stopped_at = server.revision()
    assert done("backup", backup, f"--store={source}") == ""
    done("restore", backup, f"--store={target}", "--advance=0")
    with running(target) as server:
        assert server.revision() == stopped_at
        assert entries_of(server) == expected
        assert server.request("GET", "/locks").json()["locks"] == []
        assert server.lease("nightly")["token"] > token
        assert server.request("GET", "/health").json()["incarnation"] != incarnation


@every_store
def test_a_backup_of_a_running_service_is_the_same_from_its_store_and_from_its_url(kind: str, tmp_path: Path) -> None:
    store = new_store(kind, tmp_path)
    with running(store) as server:
        fill(server, seed=2)
        done("backup", str(tmp_path / "store.json"), f"--store={store}")
        done("backup", str(tmp_path / "service.json"), f"--url={server.url}")
        assert done("backup", "-", f"--store={store}") == (tmp_path / "store.json").read_text()
    backup = json.loads((tmp_path / "store.json").read_text())
    assert json.loads((tmp_path / "service.json").read_text()) == backup
    assert len(backup["entries"]) > 20


def test_a_store_in_memory_is_backed_up_from_its_service(tmp_path: Path) -> None:
    with running("memory:") as server:
        fill(server, seed=3)
        expected = entries_of(server)
        done("backup", str(tmp_path / "backup.json"), f"--url={server.url}")
    done("restore", str(tmp_path / "backup.json"), f"--store={tmp_path / 'data.json'}")
    with running(tmp_path / "data.json") as server:
        assert entries_of(server) == expected


def test_a_backup_of_a_file_store_under_load_has_all_earlier_acknowledged_writes(tmp_path: Path) -> None:
    store = tmp_path / "data.json"
    with running(store) as server:
        stop = threading.Event()
        acknowledged = [0]

        def write() -> None:
            while not stop.is_set():
                number = acknowledged[0] + 1
                assert server.put("n", str(number)).status_code in (200, 201)
                server.put(f"filler/{number % 50}", json.dumps("x" * 20_000))
                acknowledged[0] = number

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(5):
                before = acknowledged[0]
                done("backup", str(tmp_path / f"{number}.json"), f"--store={store}")
                backup = json.loads((tmp_path / f"{number}.json").read_text())
                found = {entry["key"]: entry["value"] for entry in backup["entries"]}
                assert found.get("n", 0) >= before
        finally:
            stop.set()
            writer.join()


# Refusals -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup with 300 entries."""
    folder = tmp_path_factory.mktemp("backup")
    with running(folder / "data.json") as server:
        for number in range(300):
            server.put(f"k/{number:04}", json.dumps("x" * 2_000))
    done("backup", str(folder / "backup.json"), f"--store={folder / 'data.json'}")
    return folder / "backup.json"


def snapshot_of(store: str, kind: str) -> object:
    if kind == "file":
        return {path.name: path.read_bytes() for path in Path(store).parent.iterdir() if path.suffix != ".lock"}
    return done("backup", "-", f"--store={store}")


@every_store
def test_a_store_that_is_not_empty_is_replaced_only_with_replace_and_is_saved_first(
    kind: str, backup: Path, tmp_path: Path
) -> None:
    store = new_store(kind, tmp_path)
    copy = tmp_path / "backup.json"
    copy.write_bytes(backup.read_bytes())
    with running(store) as server:
        server.put("mine", "1")
        server.lease("nightly")
        head = server.revision()
    before = snapshot_of(store, kind)
    assert "is not empty: with --replace" in refused("restore", str(copy), f"--store={store}")
    assert snapshot_of(store, kind) == before
    told = done("restore", str(copy), f"--store={store}", "--replace").splitlines()
    kept = Path(told[1].removeprefix("what it held before is in "))
    [mine] = json.loads(kept.read_text())["entries"]
    assert (mine["key"], mine["revision"]) == ("mine", 1)
    with running(store) as server:
        assert len(entries_of(server)) == 300
        assert server.revision() > head + 10**9


@every_store
@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "foreign"])
def test_a_damaged_backup_is_refused_and_the_store_is_not_changed(
    kind: str, damage: str, backup: Path, tmp_path: Path
) -> None:
    store = new_store(kind, tmp_path)
    with running(store) as server:
        server.put("mine", "1")
    whole = backup.read_bytes()
    damaged = tmp_path / "damaged.json"
    changed = whole.replace(b"k/0007", b"k/9007")
    damaged.write_bytes({"cut": whole[:-40], "changed": changed, "empty": b"", "foreign": b'{"a": 1}'}[damage])
    before = snapshot_of(store, kind)
    assert "damaged.json" in refused("restore", str(damaged), f"--store={store}", "--replace")
    assert snapshot_of(store, kind) == before


def test_a_store_in_use_and_a_missing_store_are_refused(backup: Path, tmp_path: Path) -> None:
    store = tmp_path / "data.json"
    with running(store):
        assert "is in use by another process" in refused("restore", str(backup), f"--store={store}", "--replace")
        assert "is in use by another process" in refused("advance", f"--store={store}")
    assert "there is no store" in refused("backup", str(tmp_path / "b.json"), f"--store={tmp_path / 'none.json'}")
    assert "the database holds no store" in refused("backup", "-", f"--store={new_database(tmp_path)}")
    assert not (tmp_path / "b.json").exists()
    refused("backup", "-", "--store=memory:", code=USAGE)
    refused("backup", "-", "--url=ftp://localhost", code=USAGE)


@pytest.mark.parametrize("size", [0, 100, 70_000, -1])
def test_no_backup_is_written_if_the_answer_of_the_service_is_cut(size: int, backup: Path, tmp_path: Path) -> None:
    """The answer is valid HTTP but too short, which only the missing end of the backup shows."""
    body = backup.read_bytes()[:size]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer_once, args=(listening, body))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert "is cut off" in refused("backup", str(tmp_path / "backup.json"), f"--url={url}")
        thread.join()
    assert list(tmp_path.iterdir()) == []


def answer_once(listening: socket.socket, body: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)


def test_a_bearer_token_is_sent_and_a_refusal_is_reported(tmp_path: Path) -> None:
    secret, token = tmp_path / "secret", tmp_path / "token"
    secret.write_text("a-secret-of-more-than-32-bytes-for-tests")
    secret.chmod(0o600)
    with running(environment={"LEASEHOLD_AUTH_SECRET_FILE": str(secret)}) as server:
        assert "bearer token" in refused("backup", "-", f"--url={server.url}", code=exit_codes.ACCESS_DENIED)
        token.write_text(done("token", f"--auth-secret-file={secret}", "--subject=backup", "--permission=read"))
        assert json.loads(done("backup", "-", f"--url={server.url}", f"--token-file={token}"))["entries"] == []
        for variables in ({"LEASEHOLD_TOKEN_FILE": str(token)}, {"LEASEHOLD_TOKEN": token.read_text()}):
            assert leasehold("backup", "-", f"--url={server.url}", environment=variables).returncode == 0


# Advance ------------------------------------------------------------------------------------------------------


@every_store
def test_a_store_that_was_restored_by_another_tool_can_be_advanced(kind: str, tmp_path: Path) -> None:
    store = new_store(kind, tmp_path)
    with running(store) as server:
        etag = server.put("a", "1").headers["ETag"]
        lease = server.lease("kept", ttl=600)
        before, head = server.request("GET", "/health").json()["incarnation"], server.revision()
    done("advance", f"--store={store}", "--by=500")
    with running(store) as server:
        health = server.request("GET", "/health").json()
        assert (health["revision"], health["incarnation"] != before) == (head + 500, True)
        assert server.put("a", "2", headers={"If-Match": etag}).status_code == 412
        assert server.renew("kept", lease["lease_id"]).status_code == 200
        assert server.lease("other")["token"] > head + 500
