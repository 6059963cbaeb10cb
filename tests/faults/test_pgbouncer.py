"""Two servers behind Debian's PgBouncer in session mode, without special settings."""

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from databases import Database, PostgresServer, unprivileged, unprivileged_user
from programs import needs, program
from running import Server, Wire, free_port, message, running, until

pytestmark = needs("pgbouncer")

TRIES = 200
PAUSE_SECONDS = 0.3
"""Longer than any pause of a commit between two statements."""
IN_A_TRANSACTION = """
    SELECT count(*) > 0 FROM pg_stat_activity
    WHERE state = 'idle in transaction' AND state_change < clock_timestamp() - '0.2 s'::interval
"""


@contextmanager
def pgbouncer(database_server: PostgresServer) -> Iterator[int]:
    """PgBouncer with as little configuration as possible. Yields its port."""
    folder = Path(tempfile.mkdtemp(prefix="leasehold-pgbouncer-"))
    try:
        with free_port() as port:
            (folder / "users").write_text('"postgres" ""\n')
            (folder / "ini").write_text(
                f"[databases]\n* = host=127.0.0.1 port={database_server.port}\n"
                f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
                f"auth_type = trust\nauth_file = {folder / 'users'}\npool_mode = session\nmax_client_conn = 100\n"
            )
            if unprivileged_user() is not None:
                folder.chmod(0o755)
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(unprivileged(program("pgbouncer"), folder / "ini"), stderr=log, stdout=log)
            try:
                until(lambda: process.poll() is not None or listens(port))
                assert process.poll() is None, (folder / "log").read_text()
                yield port
            finally:
                process.terminate()
                process.wait()
    finally:
        shutil.rmtree(folder)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@contextmanager
def writes(server: Server) -> Iterator[None]:
    """Write again and again until the block ends."""
    over = threading.Event()

    def write() -> None:
        with Wire(server) as wire:
            while not over.is_set():
                wire.send(message("PUT", "/kv/load", body=b"1")).answer()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def database_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def pair(database_server: PostgresServer) -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        port = stack.enter_context(pgbouncer(database_server))
        url = Database(database_server.url, "behind_pgbouncer").create().at(f"127.0.0.1:{port}")
        yield stack.enter_context(running(url)), stack.enter_context(running(url))


def test_servers_behind_pgbouncer_share_a_store_and_notify_each_other(pair: tuple[Server, Server]) -> None:
    here, there = pair
    assert here.put("a", "1").status_code == 201
    assert there.value("a") == 1
    lease = here.lease("lock", ttl=60)
    assert there.request("DELETE", "/locks/lock", params={"lease_id": lease["lease_id"]}).status_code == 200
    assert there.put("b", "1", params={"ttl": 1}).status_code == 201
    until(lambda: here.get("b").status_code == 404)
    until(lambda: {server.revision() for server in pair} == {5})  # the fifth is the end of b


def test_a_server_that_hangs_during_a_commit_does_not_block_the_other(
    pair: tuple[Server, Server], database_server: PostgresServer
) -> None:
    here, there = pair
    paused = psutil.Process(here.pid)
    database = Database(database_server.url, "public")
    with writes(here):
        for _ in range(TRIES):
            paused.suspend()
            time.sleep(PAUSE_SECONDS)
            if database.fetch(IN_A_TRANSACTION)[0][0]:
                break
            paused.resume()
            time.sleep(0.01)
        else:
            raise AssertionError("it never stood still in a commit")
        try:
            until(lambda: there.put("other", "1").status_code in (200, 201))
        finally:
            paused.resume()
    until(lambda: here.put("afterwards", "1").status_code in (200, 201))
