"""Processes of `leasehold` that begin after its imports, which are most of a start.

A fork server (Python's `multiprocessing`) has imported the modules and makes each process as a copy of itself. The
process then has its own environment, working directory, output and arguments, and runs the program from its first
line. What depends on how the interpreter begins (`LD_PRELOAD`, `PYTHONPATH`, signals during the imports) needs a
program that is executed.
"""

import contextlib
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Final

_CONTEXT: Final = mp.get_context("forkserver")
PROGRAM: Final = ("-m", "leasehold")
"""What the fork server runs."""
OWN_SETTINGS: Final = ("LEASEHOLD_", "OTEL_")
"""Variables that the program reads after its imports begin with this."""

_one_at_a_time: Final = threading.Lock()
"""Tests start servers on several threads, and a start changes the environment of this process."""

is_wanted = False
"""Whether a `Server` uses this, where it can."""


def _ensure_fork_server() -> None:
    """The fork server of this process. It ends with this process."""
    _CONTEXT.set_forkserver_preload(["imported_service"])
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
    """Like a `subprocess.Popen` with text on a pipe as standard output, of `leasehold` with these arguments."""

    def __init__(
        self, arguments: Sequence[str], *, errors: IO[str], environment: Mapping[str, str], folder: Path | None
    ) -> None:
        with _one_at_a_time:
            _ensure_fork_server()
        reader, writer = _CONTEXT.Pipe(duplex=False)
        with reader, writer, Connection(os.dup(errors.fileno()), readable=False) as log:
            self._process = _CONTEXT.Process(
                target=_run, args=(arguments, writer, log, environment, folder or Path.cwd())
            )
            self._process.start()
            self.stdout: Final = os.fdopen(os.dup(reader.fileno()))
        assert self._process.pid is not None
        self.pid: Final = self._process.pid

    def poll(self) -> int | None:
        """The exit code of a process that has ended. A negative one is the number of a signal."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """`timeout` in seconds. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        code = self._process.exitcode
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


def _run(
    arguments: Sequence[str], output: Connection, errors: Connection, environment: Mapping[str, str], folder: Path
) -> None:
    """In the new process."""
    from leasehold.__main__ import main

    os.dup2(output.fileno(), sys.stdout.fileno())
    os.dup2(errors.fileno(), sys.stderr.fileno())
    os.closerange(sys.stderr.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["leasehold", *arguments]
    main()
