"""Instructions per request: `python -m bench.instructions [--before OTHER/.venv/bin/python]`. Needs valgrind.

The service runs as `leasehold serve` under valgrind's tool callgrind, which counts the instructions that all its
threads execute in user space. So the count contains the parser, the event loop, the rules, the journal and the
answers, and it leaves out the kernel and the start of the service. It does not depend on the load of the machine.

A batch is one request on each of several connections. The service is stopped (SIGSTOP) while they are sent, so it
receives all of them in one turn of its event loop, as under full load. The number of commits shows that each batch was
committed as one. Exit status: 0, or 1 if something failed.
"""

import argparse
import datetime as dt
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPException, HTTPResponse
from itertools import count
from pathlib import Path
from typing import Final

import msgspec

from bench import processes
from bench.interpreters import Interpreter, interpreters
from bench.processes import BenchError
from bench.service import Leasehold
from bench.workload import Work, http_request, key, write_foreign_store

REPORT: Final = Path(__file__).with_name("instructions.md")
"""The last result. `report` puts it into the benchmarks page."""
_KEYS: Final = 5_000
"""More than the file engine counts as a small store: it appends every batch to its journal, at any pace of writing."""
_REPEATS: Final = 3
_WARM_UP_BATCHES: Final = 20
_ANSWER_SECONDS: Final = 60.0
_DUMP_SECONDS: Final = 60.0
_SLOWNESS: Final = 50
"""How many times longer the service takes under callgrind."""
_SERVICE: Final = f"""
import runpy, sys
set_interval = sys.setswitchinterval
sys.setswitchinterval = lambda seconds: set_interval({_SLOWNESS} * seconds)
runpy.run_module("leasehold", run_name="__main__", alter_sys=True)
"""
"""`python -m leasehold`, whose threads wait as much longer for the interpreter. Otherwise the sync thread asks for it
many times during one turn of the event loop. A batch of one then took 10 % more or fewer instructions in each run."""
_COMMITS: Final = re.compile(rb"^leasehold_commits_total ([0-9.e+]+)$", re.MULTILINE)
_TOTAL: Final = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)


class Case(msgspec.Struct, frozen=True):
    """`batches` batches with a request on each of `connections` connections."""

    title: str
    work: Work
    connections: int
    batches: int


CASES: Final = (
    Case("GET, one request at a time", Work.GET, 1, 1_000),
    Case("GET, 64 requests at a time", Work.GET, 64, 20),
    Case("durable POST, batches of 1", Work.POST, 1, 500),
    Case("durable POST, batches of 16", Work.POST, 16, 40),
    Case("durable POST, batches of 64", Work.POST, 64, 20),
)


class CountedLeasehold(Leasehold):
    """The service under callgrind, with `_KEYS` keys in its file."""

    key_count = _KEYS

    def __init__(self, stack: ExitStack, folder: Path, python: Interpreter) -> None:
        self._counts = folder / "counts"
        self._numbers = count(1)
        self._pipe = folder / "vgdb"
        valgrind = [processes.program("valgrind"), "--tool=callgrind", f"--callgrind-out-file={self._counts}"]
        valgrind.append("--instr-atstart=no")  # the start takes a fifth of the time if it is not counted
        valgrind += [f"--vgdb-prefix={self._pipe}", python.python, "-c", _SERVICE]
        super().__init__(stack, folder, valgrind, environment={"PYTHONHASHSEED": "0"})
        write_foreign_store(folder / "data.json", self.key_count, random.Random(4))
        self.start()
        self._command("instrumentation", "on")

    def instructions(self, case: Case) -> float:
        """Instructions per request: the median of a few runs, because a checkpoint may fall into one of them.

        All connections have been used before the first run.
        """
        rng = random.Random(3)
        with ExitStack() as stack:
            address = ("127.0.0.1", self.port)
            connections = [
                stack.enter_context(socket.create_connection(address, timeout=_ANSWER_SECONDS))
                for _ in range(case.connections)
            ]
            self._exchange(connections, case.work, _WARM_UP_BATCHES, rng)
            commits, counted = self._commits(), []
            self._dump()
            for _ in range(_REPEATS):
                self._exchange(connections, case.work, case.batches, rng)
                counted.append(self._dump() / (case.batches * case.connections))
            commits = self._commits() - commits
        if case.work is Work.POST and commits != _REPEATS * case.batches:
            raise BenchError(f"{case.title}: {_REPEATS * case.batches} batches were sent, and {commits} were committed")
        return statistics.median(counted)

    def _commits(self) -> int:
        found = _COMMITS.search(self.succeed(http_request("GET", "/metrics", self.headers())))
        if found is None:
            raise BenchError("the service does not count its commits")
        return int(float(found[1]))

    def _exchange(self, connections: Sequence[socket.socket], work: Work, batches: int, rng: random.Random) -> None:
        for _ in range(batches):
            requests = [self.request(work, key(rng.randrange(self.key_count)), rng) for _ in connections]
            self._halt()
            for connection, request in zip(connections, requests, strict=True):
                connection.sendall(request)
            self._process.send_signal(signal.SIGCONT)
            for connection in connections:
                _receive_success(connection)

    def _halt(self) -> None:
        """Stop the service, and return once it is stopped."""
        self._process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise BenchError(f"the service ended: {processes.last_lines(self.folder / 'log')}")

    def _dump(self) -> int:
        """The instructions since the last dump."""
        self._command("dump")
        try:
            text = self._counts.with_name(f"{self._counts.name}.{next(self._numbers)}").read_text()
        except OSError as error:
            raise BenchError(f"callgrind does not write its counts: {error}") from error
        total = _TOTAL.findall(text)
        if not total:
            raise BenchError("callgrind wrote no total")
        return int(total[-1])

    def _command(self, *words: str) -> None:
        command = [processes.program("vgdb"), f"--vgdb-prefix={self._pipe}", f"--pid={self._process.pid}", *words]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=_DUMP_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            raise BenchError(f"callgrind does not obey: {error}") from error


def _receive_success(connection: socket.socket) -> None:
    try:
        response = HTTPResponse(connection)
        response.begin()
        body = response.read()
    except (OSError, HTTPException) as error:
        raise BenchError(f"no answer: {error}") from error
    if response.status not in {200, 201}:
        raise BenchError(f"a request was answered with {response.status} {body[:200]!r}")


def _counted(folder: Path, python: Interpreter) -> Mapping[str, float]:
    """Instructions per request, by the title of the case."""
    folder.mkdir()
    with ExitStack() as stack:
        service = CountedLeasehold(stack, folder, python)
        found = {}
        for case in CASES:
            found[case.title] = service.instructions(case)
            print(f"Python {python.name}, {case.title}: {found[case.title]:,.0f}", flush=True)
    return found


def _commit(python: Interpreter) -> str:
    """The last commit that changed the source which this environment runs."""
    folder = _output([python.python, "-c", "import leasehold; print(leasehold.__path__[0])"])
    commit = _output(["git", "-C", folder, "log", "-1", "--format=%h", "--", "."])
    return f"{commit} with changes" if _output(["git", "-C", folder, "status", "--porcelain", "--", "."]) else commit


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"{command[0]} failed: {error}") from error


class Column(msgspec.Struct, frozen=True):
    """What was counted with one environment."""

    python: str
    commit: str
    counts: Mapping[str, float]


def markdown(before: Sequence[Column], after: Sequence[Column], *, date: str, valgrind: str) -> str:
    """A table with a line for each case and interpreter. `before` is empty, or has the interpreters of `after`."""
    heads = ["work", "Python", *(["before", "after", "after / before"] if before else ["instructions"])]
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    for case in CASES:
        for number, column in enumerate(after):
            counted = column.counts[case.title]
            figures = [f"{counted:,.0f}"]
            if before:
                earlier = before[number].counts[case.title]
                figures = [f"{earlier:,.0f}", *figures, f"{counted / earlier:.2f}"]
            lines.append([case.title, column.python, *figures])
    commits = {"before": before, "after": after} if before else {"measured": after}
    named = ", ".join(f"{name}: commit {columns[0].commit}" for name, columns in commits.items())
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"Counted on {date} by callgrind {valgrind} ({named}).\n\n{table}\n"


def _chosen(before: Sequence[str], after: Sequence[str]) -> Mapping[str, Sequence[Interpreter]]:
    """Raises BenchError if `before` is given and has other versions of Python."""
    chosen = {"before": interpreters(before), "after": interpreters(after)}
    if before and [each.name for each in chosen["before"]] != [each.name for each in chosen["after"]]:
        raise BenchError("--before must name the same versions of Python as --python, in the same order")
    return chosen


def main() -> int:
    options = _arguments()
    columns: dict[str, list[Column]] = {"before": [], "after": []}
    try:
        chosen = _chosen(options.before, options.python or [sys.executable])
        valgrind = _output([processes.program("valgrind"), "--version"]).removeprefix("valgrind-")
        with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder:
            for version, pythons in chosen.items():
                for number, python in enumerate(pythons):
                    print(f"{version}: Python {python.name}, {python.build}", flush=True)
                    counts = _counted(Path(folder) / f"{version}-{number}", python)
                    columns[version].append(Column(python.name, _commit(python), counts))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    text = markdown(columns["before"], columns["after"], date=str(dt.datetime.now(dt.UTC).date()), valgrind=valgrind)
    print(text)
    if options.write:
        REPORT.write_text(text)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", nargs="+", default=[], metavar="PYTHON", help="of environments of another version")
    parser.add_argument("--python", nargs="+", metavar="PYTHON", help="of environments (default: this one)")
    parser.add_argument("--write", action="store_true", help="keep the table for the next report of `make bench`")
    parser.add_argument("--folder", default="/var/tmp", help="for all data; on a disk (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
