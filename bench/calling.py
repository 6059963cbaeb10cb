"""A program that reads keys with the Python client, or with the HTTP library that the client uses.

`python -m bench.calling CALLER PORT SECONDS SEED` takes the token from the environment and writes the result as a line
of JSON. One call follows another. Each answer is decoded, with both callers.
"""

import asyncio
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from time import perf_counter, process_time
from typing import Final

import httpx2
import msgspec
from leasehold_client import AsyncClient, Client

from bench.load import Load
from bench.processes import BenchError
from bench.workload import SMALL_STORE_KEYS, key

_ROOT: Final = Path(__file__).parents[1]
_TOKEN: Final = "BENCH_TOKEN"
_START_AND_END_SECONDS: Final = 30


class Caller(StrEnum):
    """What calls: the client, or its HTTP library alone. Each in a thread, or on an event loop."""

    CLIENT = "client"
    HTTPX2 = "httpx2"
    CLIENT_ASYNC = "client-async"
    HTTPX2_ASYNC = "httpx2-async"


def run_caller(python: str, caller: Caller, port: int, token: str, *, seconds: int, seed: int) -> Load:
    """Load the service on `port` from a process of the interpreter `python`. Raises BenchError if a call fails."""
    command = [python, "-m", "bench.calling", caller, str(port), str(seconds), str(seed)]
    environment = {**os.environ, _TOKEN: token}
    limit_seconds = seconds + _START_AND_END_SECONDS
    try:
        done = subprocess.run(
            command, capture_output=True, cwd=_ROOT, env=environment, timeout=limit_seconds, check=True
        )
        return msgspec.json.decode(done.stdout, type=Load)
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{caller} failed: {error.stderr.decode(errors='replace')[-300:]}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{caller} did not end") from error


def _call(get: Callable[[str], object], seconds: int, keys: Iterator[str]) -> Load:
    latencies: list[float] = []
    began, own_began = perf_counter(), process_time()
    last = began
    while last < began + seconds:
        get(next(keys))
        now = perf_counter()
        latencies.append(now - last)
        last = now
    return _load(latencies, last - began, process_time() - own_began)


async def _call_async(get: Callable[[str], Awaitable[object]], seconds: int, keys: Iterator[str]) -> Load:
    latencies: list[float] = []
    began, own_began = perf_counter(), process_time()
    last = began
    while last < began + seconds:
        await get(next(keys))
        now = perf_counter()
        latencies.append(now - last)
        last = now
    return _load(latencies, last - began, process_time() - own_began)


def _load(latencies: Sequence[float], seconds: float, own_seconds: float) -> Load:
    percentiles = statistics.quantiles(latencies, n=100)
    rate = len(latencies) / seconds
    return Load(rate, 1e3 * percentiles[49], 1e3 * percentiles[98], client_share=own_seconds / seconds)


def _keys(seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    while True:
        yield key(rng.randrange(SMALL_STORE_KEYS))


def _with_client(url: str, token: str, seconds: int, seed: int) -> Load:
    with Client(url, token=token) as db:
        return _call(db.get, seconds, _keys(seed))


def _with_httpx2(url: str, token: str, seconds: int, seed: int) -> Load:
    with httpx2.Client(headers={"Authorization": f"Bearer {token}"}) as http:
        return _call(lambda name: http.get(f"{url}/kv/{name}").raise_for_status().json(), seconds, _keys(seed))


def _with_async_client(url: str, token: str, seconds: int, seed: int) -> Load:
    async def call() -> Load:
        async with AsyncClient(url, token=token) as db:
            return await _call_async(db.get, seconds, _keys(seed))

    return asyncio.run(call())


def _with_async_httpx2(url: str, token: str, seconds: int, seed: int) -> Load:
    async def call() -> Load:
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as http:

            async def get(name: str) -> object:
                response = await http.get(f"{url}/kv/{name}")
                return response.raise_for_status().json()

            return await _call_async(get, seconds, _keys(seed))

    return asyncio.run(call())


_CALLS: Final[dict[Caller, Callable[[str, str, int, int], Load]]] = {
    Caller.CLIENT: _with_client,
    Caller.HTTPX2: _with_httpx2,
    Caller.CLIENT_ASYNC: _with_async_client,
    Caller.HTTPX2_ASYNC: _with_async_httpx2,
}


if __name__ == "__main__":
    caller, port, seconds, seed = sys.argv[1:]
    result = _CALLS[Caller(caller)](f"http://127.0.0.1:{port}", os.environ[_TOKEN], int(seconds), int(seed))
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
