"""Starts and stops the programs to measure. Each is stopped by its process id and has its own port on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Final

_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 60.0
_EXCHANGE_SECONDS: Final = 20.0
_ADMIN_FOLDERS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class BenchError(Exception):
    """A measurement that does not count, with the reason for the reader of the report."""


class MissingProgramError(BenchError):
    """A program is not installed on this machine."""


def program(name: str) -> str:
    """The path of an installed program. Those of this Python environment come first. Raises MissingProgramError."""
    own = Path(sys.executable).parent
    path = os.pathsep.join([str(own), os.environ.get("PATH", os.defpath), *_ADMIN_FOLDERS])
    found = shutil.which(name, path=path)
    if found is None:
        raise MissingProgramError(f"no program {name}")
    return found


def start(
    stack: ExitStack,
    command: Sequence[str],
    log: Path,
    *,
    stdout: int | IO[bytes] | None = None,
    user: str | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    end: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Run `command` as `user` and in `folder`, if given, until `stack` closes; then send it the signal `end`.

    `environment` is added to that of this process. Its standard error, and its output unless the caller reads it, go to
    `log`.
    """
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout or file,
            stderr=file,
            user=user,
            cwd=folder,
            env={**os.environ, **(environment or {})},
        )
    stack.callback(stop, process, end)
    return process


def stop(process: subprocess.Popen[bytes], end: signal.Signals = signal.SIGTERM) -> None:
    """Send `end`, and SIGKILL if the process does not end. Does nothing if it has already ended."""
    if process.poll() is None:
        process.send_signal(end)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def free_port() -> int:
    """A port that was free a moment ago, for programs that cannot choose a free one and report it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether a program accepts connections on `port`."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once `is_ready()` is true. A BenchError that it raises counts as false."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if is_ready():
                return
        except BenchError:
            pass
        time.sleep(0.02)
    raise BenchError(f"{Path(str(process.args)).name} did not start: {last_lines(log)}")


def last_lines(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-3:]) if log.exists() else ""


def exchange(port: int, request: bytes) -> tuple[int, bytes]:
    """Send one request as it is. Returns the status and body of the answer. Raises BenchError if there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_EXCHANGE_SECONDS) as connection:
            connection.sendall(request)
            response = HTTPResponse(connection)
            response.begin()
            return response.status, response.read()
    except (OSError, HTTPException) as error:
        raise BenchError(f"no answer from port {port}: {error}") from error
