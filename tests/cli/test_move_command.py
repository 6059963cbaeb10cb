"""`leasehold move`: clients go on as before, also if it was killed on the way; and what it refuses."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from databases import Database, shared_server_url
from running import START_SECONDS, Server, clean_environment, leasehold, running, until
from watching import Watch, brief, put

FAULT, USAGE = 1, 2
DOCS: Final = Path(__file__).parents[2] / "docs"
_numbers = count(1)

SMALL_STEPS: Final = """
import os, signal, sys
from leasehold.cli import progress_line
from leasehold.engines.file import moves as in_files
from leasehold.engines.postgres import moves as in_database
progress_line.SHOW_SECONDS = 0.0
in_files.PAGE_RECORDS = in_database.PAGE_RECORDS = 10
"""
RUN: Final = """
from leasehold.__main__ import main
main()
"""
SLOWLY: Final = SMALL_STEPS + RUN
"""`leasehold` that shows its progress at every step, in small steps."""
END: Final = """
step, by = sys.argv.pop(1), sys.argv.pop(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in what a shell runs in the background
def write(text):
    if step in text:
        progress_line._write = lambda text: None
        os.kill(os.getpid(), signal.Signals[by])
progress_line._write = write
sys.stderr.isatty = lambda: True
"""
ENDED: Final = SMALL_STEPS + END + RUN
"""The same, which sends itself a signal, its second argument, when it would show a line with its first argument."""


def new_file(folder: Path) -> str:
    store = folder / f"store-{next(_numbers)}" / "data.json"
    store.parent.mkdir()
    return str(store)


def new_database(_folder: Path) -> str:
    return Database(shared_server_url(), f"moves_of_cli_{os.getpid()}_{next(_numbers)}").create().url


STORES: Mapping[str, Callable[[Path], str]] = {"file": new_file, "postgres": new_database}
there_and_back = pytest.mark.parametrize(("kind", "other_kind"), [("file", "postgres"), ("postgres", "file")])


def done(source: str, target: str) -> str:
    result = leasehold("move", source, target)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def refused(*arguments: str, code: int = FAULT) -> str:
    result = leasehold("move", *arguments)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (code, "", 1), result
    return result.stderr


class Client:
    """What a client knows of a store, from before it was moved."""

    def __init__(self, server: Server) -> None:
        self.lease = server.lease("jobs/nightly", ttl=3_600)
        self.cursor = put(server, "watched", 1)
        self.deleted = server.delete("watched").json()["revision"]
        put(server, "kept", {"b": 1, "a": [2.50, 1e300]})
        self.tag = server.get("kept").headers["ETag"]
        self.once = {"Idempotency-Key": '"once"'}
        self.counted = self.count(server)
        self.listed = server.request("GET", "/kv").json()["entries"]
        self.health = self.health_of(server)
        self.token = self.lease["token"]

    @staticmethod
    def health_of(server: Server) -> tuple[int, str]:
        health = server.request("GET", "/health").json()
        return health["revision"], health["incarnation"]

    def count(self, server: Server) -> Any:
        """Add 1 to a number, only once however often this is called. Returns the response."""
        return server.put("count?increment", "1", headers=self.once).json()

    def goes_on(self, server: Server) -> None:
        """Everything that it knows is valid. Then it knows what it has changed."""
        assert self.health_of(server) == self.health
        assert server.request("GET", "/kv").json()["entries"] == self.listed
        assert server.get("kept", headers={"If-None-Match": self.tag}).status_code == 304
        assert self.count(server) == self.counted
        with Watch(server, f"since={self.cursor}&locks") as watch:
            watch.ready()
            seen = brief(watch.through(self.deleted))
            assert seen[-1] == ("delete", "watched", self.deleted)
            assert server.renew("jobs/nightly", self.lease["lease_id"], ttl=3_600).status_code == 200
            fenced = {"If-Match": self.tag, "If-Lease": self.lease["lease_id"]}
            written = server.put("kept", '{"b":2}', headers=fenced)
            assert written.status_code == 200, written.text
            watch.through(written.json()["revision"])
        assert server.put("kept", "3", headers={"If-Match": self.tag}).status_code == 412
        assert server.acquire("jobs/nightly").status_code == 423
        other = server.lease("jobs/other", ttl=3_600)
        assert other["token"] > self.token
        assert server.release("jobs/other", other["lease_id"]).status_code == 200
        self.token, self.tag = other["token"], server.get("kept").headers["ETag"]
        self.listed, self.health = server.request("GET", "/kv").json()["entries"], self.health_of(server)


def write_many(server: Server) -> None:
    for number in range(4):
        operations = [{"op": "put", "key": f"many/{number}/{each}", "value": each} for each in range(30)]
        answer = server.request("POST", "/txn", json={"do": operations})
        assert answer.status_code == 200, answer.text


@there_and_back
def test_a_client_goes_on_after_each_move(kind: str, other_kind: str, tmp_path: Path) -> None:
    first, second, third = (STORES[each](tmp_path) for each in (kind, other_kind, kind))
    with running(first) as server:
        write_many(server)
        client = Client(server)
    for source, target in ((first, second), (second, third)):
        printed = done(source, target).splitlines()
        assert printed[0].endswith(
            f" holds everything of {source}: 122 entries, 1 leases, 1 receipts, at revision {client.health[0]}"
        )
        assert "was not changed" in printed[1]
        with running(target) as server:
            client.goes_on(server)


@there_and_back
def test_a_client_goes_on_after_a_move_that_was_killed_at_several_steps(
    kind: str, other_kind: str, tmp_path: Path
) -> None:
    source, target = STORES[kind](tmp_path), STORES[other_kind](tmp_path)
    with running(source) as server:
        write_many(server)
        client = Client(server)
    for step in ("copying entries, done 20 ", "comparing entries, done 50 ", "comparing leases"):
        killed_at(step, source, target)
        until(lambda: leasehold("move", target, new_file(tmp_path)).stderr.count("in use") == 0)
        with running(target) as server:
            assert server.revision() == 0
    done(source, target)
    with running(target) as server:
        client.goes_on(server)


@pytest.mark.parametrize("kind", STORES)
def test_an_interruption_is_one_line_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    source, target = new_file(tmp_path), STORES[kind](tmp_path)
    with running(source) as server:
        write_many(server)
    interrupted = ended_at("comparing entries, done 50 ", "SIGINT", source, target)
    assert (interrupted.returncode, interrupted.stdout) == (FAULT, "")
    assert interrupted.stderr == (
        "leasehold: the move was interrupted; the source is unchanged, and the same command begins again\n"
    )
    if kind == "file":
        assert [path.name for path in Path(target).parent.iterdir()] == ["data.json.lock"]
    done(source, target)


def killed_at(step: str, source: str, target: str) -> None:
    killed = ended_at(step, "SIGKILL", source, target)
    assert killed.returncode == -signal.SIGKILL, killed


def ended_at(step: str, by: str, source: str, target: str) -> subprocess.CompletedProcess[str]:
    """A move that gets this signal when it has come to this step."""
    return subprocess.run(
        [sys.executable, "-c", ENDED, step, by, "move", source, target],
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
        env=clean_environment(),
    )


def test_the_progress_is_shown_on_a_terminal_and_removed_at_the_end(tmp_path: Path) -> None:
    source, target = new_file(tmp_path), new_file(tmp_path)
    with running(source) as server:
        write_many(server)
    terminal, its_end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "move", source, target],
        stdout=subprocess.PIPE,
        stderr=its_end,
        env=clean_environment(),
        text=True,
    ) as process:
        os.close(its_end)
        shown = "".join(iter(lambda: read(terminal), ""))
        assert process.stdout is not None
        assert "holds everything" in process.stdout.read()
    os.close(terminal)
    assert process.returncode == 0
    assert "copying entries, done 50 entries, left 70 entries" in shown
    assert shown.endswith("\r\x1b[K")


def read(terminal: int) -> str:
    try:
        return os.read(terminal, 4_096).decode()
    except OSError:  # EIO: the other end is closed
        return ""


def test_a_move_that_was_complete_is_confirmed(tmp_path: Path) -> None:
    source, target = new_file(tmp_path), new_database(tmp_path)
    with running(source) as server:
        server.put("a", "1")
    done(source, target)
    assert "already holds everything of" in done(source, target)
    with running(target) as server:
        server.put("a", "2")
    assert "is not empty" in refused(source, target)


def test_wrong_stores_are_refused_in_one_line(tmp_path: Path) -> None:
    source, database, other = new_file(tmp_path), new_database(tmp_path), new_file(tmp_path)
    for store in (source, database):
        with running(store) as server:
            server.put("mine", "1")
            assert "in use by" in refused(store, other)
    with running(database):
        until(lambda: "in use by" in refused(source, database))  # its sessions may just have been replaced
    assert "is not empty" in refused(source, database)
    assert "there is no store" in refused(other, database)
    assert "the same store" in refused(source, source, code=USAGE)
    refused(source, "memory:", code=USAGE)
    refused(source, "mysql://localhost", code=USAGE)
    refused(source, code=USAGE)
    assert not Path(other).exists()


def test_no_secret_of_a_connection_string_is_printed(tmp_path: Path) -> None:
    database = Database(shared_server_url(), f"moves_of_cli_{os.getpid()}_{next(_numbers)}").create()
    guarded = database.as_role("mover")
    source = new_file(tmp_path)
    with running(source) as server:
        server.put("a", "1")
    printed = done(source, guarded.url)
    assert ":***@" in printed
    assert "mover:mover" not in printed


def test_the_commands_of_the_documentation_have_the_documented_results(tmp_path: Path) -> None:
    section = (DOCS / "operations.md").read_text().partition("## Move to another store\n")[2].partition("\n## ")[0]
    commands = "\n".join(line[2:] for line in section.splitlines() if line.startswith("$ "))
    assert commands.count("leasehold ") == 2
    database = new_database(tmp_path)
    with running(tmp_path / "data.json") as server:
        client = Client(server)
    environment: dict[str, Any] = clean_environment() | {"LEASEHOLD_STORE": database}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    subprocess.run(["bash", "-euc", commands], cwd=tmp_path, env=environment, check=True, timeout=120)
    for store in (database, str(tmp_path / "back.json")):
        with running(store) as server:
            assert Client.health_of(server) == client.health
            assert server.request("GET", "/kv").json()["entries"] == client.listed
    assert json.loads((tmp_path / "back.json").read_text())["leases"]
