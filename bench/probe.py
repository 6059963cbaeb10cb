"""The service with a probe in its event loop: `python -m bench.probe serve …`.

The probe is a callback that runs in every turn of the loop and measures the turn, because all clients wait for that
time. On SIGUSR1 it writes the longest turn since the last SIGUSR1 to standard error, in milliseconds: the elapsed time,
and the processor time of the loop's thread, which is what it would take on an otherwise idle machine.
"""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from time import perf_counter, thread_time

import uvloop

from leasehold.cli.app import main

_uvloop_run = uvloop.run


class _Probe:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._began = perf_counter()
        self._began_cpu = thread_time()
        self._longest_seconds = self._longest_cpu_seconds = 0.0
        loop.add_signal_handler(signal.SIGUSR1, self._tell)
        loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        now, now_cpu = perf_counter(), thread_time()
        self._longest_seconds = max(self._longest_seconds, now - self._began)
        self._longest_cpu_seconds = max(self._longest_cpu_seconds, now_cpu - self._began_cpu)
        self._began, self._began_cpu = now, now_cpu
        self._loop.call_soon(self._end_turn)

    def _tell(self) -> None:
        longest, cpu = 1e3 * self._longest_seconds, 1e3 * self._longest_cpu_seconds
        print(f"longest turn: {longest:.3f} ms, {cpu:.3f} ms", file=sys.stderr, flush=True)
        self._longest_seconds = self._longest_cpu_seconds = 0.0


def _run(service: Coroutine[object, object, None]) -> None:
    async def probed() -> None:
        _Probe(asyncio.get_running_loop())
        await service

    _uvloop_run(probed())


if __name__ == "__main__":
    uvloop.run = _run  # type: ignore[assignment] # as the server calls it
    main()
