"""Processes of `leasehold` that begin after its imports, which are most of a start.

A fork server (Python's `multiprocessing`) has imported the modules and makes each process as a copy of itself. The
process then has its own environment, working directory, output and arguments, and runs the program from its first
line: `leasehold` itself, or a script that changes parts of it before it calls it. What depends on how the interpreter
begins (`LD_PRELOAD`, `PYTHONPATH`, signals during the imports) needs a program that is executed.
"""

import contextlib
import multiprocessing as mp
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final

_CONTEXT: Final = mp.get_context("forkserver")
PROGRAM: Final = ("-m", "leasehold")
"""The installed command, as arguments of Python."""
OWN_SETTINGS: Final = ("LEASEHOLD_", "OTEL_")
"""Variables that the program reads after its imports begin with this."""

_lock: Final = threading.Lock()
"""Tests start servers on several threads, and each start takes the exit codes of other processes that have ended."""

is_wanted = False
"""Whether `running` uses this, where it can."""


def may_run(program: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a process may be forked that runs this program with these variables added: PROGRAM or a script."""
    is_known = program == PROGRAM or program[0].endswith(".py")
    return is_wanted and is_known and all(name.startswith(OWN_SETTINGS) for name in environment)


@cache
def _start_fork_server() -> None:
    """It ends with this process."""
    _CONTEXT.set_forkserver_preload(["forked", "imported_service"])
    before = os.environ.get("PYTHONPATH")
    # The fork server finds the module by this, because Python 3.11 does not give it the path of this process.
    os.environ["PYTHONPATH"] = os.fspath(Path(__file__).parent)
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


class ForkedProcess:
    """`program` with these arguments, with the methods of `subprocess.Popen` that tests use.

    `program`: one that `may_run` accepts. `streams`: the descriptors of its standard input, output and error, which
    stay open here.
    """

    stdout: IO[str] | None = None

    def __init__(
        self,
        program: Sequence[str],
        arguments: Sequence[str],
        streams: Sequence[int],
        environment: Mapping[str, str],
        folder: Path | None,
    ) -> None:
        with _lock, ExitStack() as stack:
            _start_fork_server()
            own = [stack.enter_context(Connection(os.dup(stream))) for stream in streams]
            self._process = _CONTEXT.Process(
                target=_run, args=(program, arguments, own, environment, folder or Path.cwd())
            )
            self._process.start()
        assert self._process.pid is not None
        self.pid: Final = self._process.pid

    def poll(self) -> int | None:
        """The exit code of a process that has ended. A negative one is the number of a signal."""
        with _lock:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """`timeout` in seconds. Raises subprocess.TimeoutExpired."""
        connection.wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("leasehold", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """To a process that has ended, nothing is sent."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_service(
    program: Sequence[str],
    arguments: Sequence[str],
    *,
    errors: IO[str],
    environment: Mapping[str, str],
    folder: Path | None,
) -> ForkedProcess:
    """A process with nothing to read, and a pipe for its output."""
    output, its_output = os.pipe()
    try:
        with Path(os.devnull).open() as nothing:
            streams = nothing.fileno(), its_output, errors.fileno()
            process = ForkedProcess(program, arguments, streams, environment, folder)
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(its_output)
    process.stdout = os.fdopen(output)
    return process


def run(
    arguments: Sequence[str], *, stdin: bytes, environment: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """Run a command of `leasehold` to its end, which comes within this time."""
    with TemporaryFile() as given, TemporaryFile() as output, TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        streams = [stream.fileno() for stream in (given, output, errors)]
        process = ForkedProcess(PROGRAM, arguments, streams, environment, None)
        try:
            code = process.wait(seconds)
        finally:
            process.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, code, output.read(), errors.read())


def _run(
    program: Sequence[str],
    arguments: Sequence[str],
    streams: Sequence[Connection],
    environment: Mapping[str, str],
    folder: Path,
) -> None:
    """In the new process."""
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
    os.closerange(len(streams), os.sysconf("SC_OPEN_MAX"))
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the one of the fork server is closed
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if program == PROGRAM:
        from leasehold.__main__ import main

        sys.argv = ["leasehold", *arguments]
        main()
    else:  # as `python SCRIPT …` does
        sys.path.insert(0, str(Path(program[0]).parent))
        sys.argv = [*program, *arguments]
        runpy.run_path(program[0], run_name="__main__")
