"""Runs wrk against one port. Any answer that is not a success, and any socket error, fails the measurement."""

import subprocess
from pathlib import Path
from typing import Final

import msgspec

from bench.processes import BenchError, program

_SCRIPT: Final = Path(__file__).with_name("replay.lua")
_MARK: Final = "RESULT "
_START_AND_END_SECONDS: Final = 30


class Load(msgspec.Struct, frozen=True):
    """The result of one run. What an operation is depends on the row; mostly it is a request."""

    operations_per_second: float
    p50_ms: float
    """0 if the client does not know its latencies; the same for `p99_ms`."""
    p99_ms: float
    client_share: float | None = None
    """Processor time of the client as a share of one core; None if it was not measured."""


class _Errors(msgspec.Struct, frozen=True):
    connect: int
    read: int
    write: int
    status: int
    timeout: int


class _Result(msgspec.Struct, frozen=True):
    """The line that the function `done` of replay.lua prints."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_seconds: float
    """Processor time of wrk, without that of reading its requests."""
    errors: _Errors


_NO_ERRORS: Final = _Errors(0, 0, 0, 0, 0)


def run_wrk(port: int, requests: Path, *, connections: int, seconds: int, seed: int) -> Load:
    """Load a port with `connections` connections for `seconds`. Raises BenchError unless every answer was a success."""
    command = [program("wrk"), "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    command += ["--latency", "--script", str(_SCRIPT), f"http://127.0.0.1:{port}", "--", str(requests), str(seed)]
    limit_seconds = seconds + _START_AND_END_SECONDS
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchError("wrk did not end") from error
    line = next((line for line in done.stdout.splitlines() if line.startswith(_MARK)), None)
    if done.returncode or line is None:
        raise BenchError(f"wrk failed: {done.stdout.strip()} {done.stderr.strip()}")
    result = msgspec.json.decode(line.removeprefix(_MARK), type=_Result)
    if result.errors != _NO_ERRORS or not result.requests:
        raise BenchError(f"{result.requests} requests, and errors: {msgspec.json.encode(result.errors).decode()}")
    share = result.cpu_seconds / result.seconds
    return Load(result.requests / result.seconds, result.p50_ms, result.p99_ms, client_share=share)
